//! What one call may use.

use serde::{Deserialize, Serialize};

/// What one call may use; the product's defaults are [`Limits::default`].
///
/// A guest that exceeds one of them is stopped and gets the fault of that limit, except for the
/// log, which is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Units of fuel, as wasmtime meters them (about one per WebAssembly instruction).
    pub fuel: u64,
    /// Linear memory in bytes. For JavaScript this includes the engine's own memory.
    pub memory_bytes: u64,
    /// The guest's own time in milliseconds: running or waiting inside a host call, but not
    /// waiting for its turn on the machine.
    pub time_ms: u64,
    /// Input in bytes.
    pub input_bytes: u64,
    /// Output in bytes.
    pub output_bytes: u64,
    /// Log in bytes; what is over is cut.
    pub log_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fuel: 10_000_000_000,
            memory_bytes: 64 << 20,
            time_ms: 10_000,
            input_bytes: 8 << 20,
            output_bytes: 8 << 20,
            log_bytes: 64 << 10,
        }
    }
}
