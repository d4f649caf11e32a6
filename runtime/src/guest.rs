//! What belongs to one call inside its wasmtime store.

use std::time::Instant;

use wasmtime::{Caller, Memory, ResourceLimiter, Trap};

use crate::Limits;
use crate::admit::TABLE_ELEMENTS_MAX;
use crate::wasi::stdio::Stdio;
use crate::wasi::wait;

/// Fuel after which a guest gives way to others on its thread: 0.05 to 1 ms of running, beside
/// which the microsecond that a yield takes does not count.
pub(crate) const YIELD_FUEL: u64 = 1_000_000;

/// Why the host ended a guest, as an error that passes through WebAssembly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stop {
    #[error("exit {0}")]
    Exit(u32),
    #[error("more than {limit} bytes of output")]
    Output { limit: u64 },
    #[error("more than {limit} bytes of memory")]
    Memory { limit: u64 },
    #[error("more than {limit} bytes of input")]
    InputTooLarge { limit: u64 },
}

/// The data of one call's store: its streams, its limits and what it has used.
#[derive(Debug)]
pub(crate) struct Guest {
    /// `argv[0]`.
    pub name: String,
    pub stdio: Stdio,
    /// The guest's memory, once it is instantiated.
    pub memory: Option<Memory>,
    pub memory_peak_bytes: u64,
    /// The origin of the guest's monotonic clock.
    pub began: Instant,
    pub fuel_max: u64,
    memory_bytes_max: u64,
    /// Fuel that was left when this turn began, and which turn it is, as far as host calls know.
    turn: (u64, u64),
}

impl Guest {
    pub(crate) fn new(name: String, stdio: Stdio, limits: &Limits) -> Self {
        Self {
            name,
            stdio,
            memory: None,
            memory_peak_bytes: 0,
            began: Instant::now(),
            fuel_max: limits.fuel,
            memory_bytes_max: limits.memory_bytes,
            turn: (limits.fuel, 0),
        }
    }
}

/// Burns fuel for work that the host does for the guest, and gives way when the guest has had its
/// turn: without this a guest could keep a thread busy with host calls for next to no fuel.
///
/// A host call that moves n bytes costs n units, as `memory.copy` does.
pub(crate) async fn charge(caller: &mut Caller<'_, Guest>, units: u64) -> wasmtime::Result<()> {
    let Some(left) = caller.get_fuel()?.checked_sub(units) else {
        caller.set_fuel(0)?;
        return Err(Trap::OutOfFuel.into());
    };
    // Setting the fuel starts wasmtime's own interval anew, so the host has to keep count too.
    caller.set_fuel(left)?;
    let guest = caller.data_mut();
    let turn = guest.stdio.pipes.lock().turns;
    let (fuel_at_start, number) = guest.turn;
    if number != turn {
        guest.turn = (left, turn);
    } else if fuel_at_start.saturating_sub(left) >= YIELD_FUEL {
        guest.turn = (left, turn + 1);
        wait::give_way().await;
    }
    Ok(())
}

impl ResourceLimiter for Guest {
    /// Over the limit is the end of the guest, and not merely a -1 from `memory.grow`, after which
    /// programs fail in ways of their own.
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false); // The program's own limit: growing fails as it has to expect.
        }
        let desired = desired as u64;
        if desired > self.memory_bytes_max {
            return Err(Stop::Memory {
                limit: self.memory_bytes_max,
            }
            .into());
        }
        self.memory_peak_bytes = self.memory_peak_bytes.max(desired);
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= maximum.unwrap_or(usize::MAX).min(TABLE_ELEMENTS_MAX as usize))
    }
}
