//! Runs one call in a fresh instance.

use std::pin::pin;
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use wasmtime::{Engine, Extern, Store, Trap};

use crate::guest::{Guest, Stop, YIELD_FUEL};
use crate::javy::{self, BrokenContract, RunOutcome, RunRequest};
use crate::meter::{Expired, Meter};
use crate::program::{Command, JavaScriptEngine, Script};
use crate::wasi::stdio::{Stdio, StdoutIs};
use crate::{CallContext, Event, GuestFault, Input, Limits, Location, Outcome};

/// One call that has its place: all that it needs besides its program.
pub(crate) struct Call<'a, E> {
    pub engine: &'a Engine,
    pub context: &'a CallContext,
    pub limits: Limits,
    pub deadline: Option<Instant>,
    pub on_event: &'a mut E,
    pub outcome: &'a mut Outcome,
}

impl<E: FnMut(Event) + Send> Call<'_, E> {
    /// Says that the guest is about to be entered.
    pub(crate) fn started(self) -> Self {
        (self.on_event)(Event::Started);
        self
    }

    /// Runs a WASI command.
    pub(crate) async fn command(self, command: &Command, input: Input) -> Result<(), GuestFault> {
        let stdio = Stdio::new(input, StdoutIs::Answer, &self.limits);
        let guest = async |store: &mut Store<Guest>| start(command, store).await;
        self.metered(stdio, guest).await?.or_else(exit_code_0)
    }

    /// Runs a JavaScript function (its input is whole) or script.
    pub(crate) async fn javascript(
        self,
        engine: &JavaScriptEngine,
        script: &Script,
        input: Input,
    ) -> Result<(), GuestFault> {
        let (stdio, context, json) = match (script.kind, input) {
            (javy::Kind::Function, Input::Whole(json)) => {
                let stdio = Stdio::new(Input::default(), StdoutIs::Log, &self.limits);
                (stdio, self.context_json(), json)
            }
            (_, input) => {
                let stdio = Stdio::new(input, StdoutIs::Answer, &self.limits);
                (stdio, Vec::new(), Bytes::new())
            }
        };
        let request = RunRequest {
            bytecode: &script.bytecode,
            context_json: &context,
            input: &json,
            output_bytes_max: usize::try_from(self.limits.output_bytes).unwrap_or(usize::MAX),
        };
        let limits = self.limits;
        let guest =
            async |store: &mut Store<Guest>| engine.instantiate(store).await?.run(store, request).await;
        let mut answer = Vec::new();
        let on_event = &mut *self.on_event;
        let ended = Call { on_event, ..self }.metered(stdio, guest).await?;
        let ended = match ended {
            Ok(RunOutcome::Answer(json)) => {
                answer = json;
                Ok(())
            }
            Ok(other) => judge(other, &limits),
            Err(fault) => exit_code_0(fault),
        };
        if !answer.is_empty() {
            on_event(Event::Output(answer.into()));
        }
        ended
    }

    /// Runs `guest` in a store of its own until it ends or its time does, and notes what it used.
    /// The inner fault is the guest's own doing, exit code 0 included.
    async fn metered<T>(
        self,
        stdio: Stdio,
        guest: impl AsyncFnOnce(&mut Store<Guest>) -> wasmtime::Result<T>,
    ) -> Result<Result<T, GuestFault>, GuestFault> {
        let limits = self.limits;
        let pipes = stdio.pipes.clone();
        let name = self.context.function.clone();
        let mut store = new_store(self.engine, Guest::new(name, stdio, &limits))?;
        let time_max = Duration::from_millis(limits.time_ms);
        let began = store.data().began;
        let mut meter = Meter::new(&pipes, self.on_event, time_max, self.deadline, began);
        let ended = {
            let guest = pin!(guest(&mut store));
            meter.run(guest).await
        };
        self.outcome.time_guest = meter.elapsed();
        self.outcome.fuel = limits.fuel.saturating_sub(store.get_fuel().unwrap_or(0));
        self.outcome.memory_peak_bytes = store.data().memory_peak_bytes;
        self.outcome.log_truncated = store.data().stdio.log_truncated;
        match ended {
            Ok(result) => Ok(result.map_err(|error| fault(&error, &limits))),
            Err(Expired::Time) => Err(GuestFault::Time {
                limit_ms: limits.time_ms,
            }),
            Err(Expired::Deadline) => Err(GuestFault::Deadline),
        }
    }

    /// What a JavaScript function gets as its second parameter.
    fn context_json(&self) -> Vec<u8> {
        let time = Duration::from_millis(self.limits.time_ms);
        let left = self.deadline.map_or(time, |deadline| {
            deadline.saturating_duration_since(Instant::now()).min(time)
        });
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let context = javy::CallContext {
            function: self.context.function.clone(),
            revision: self.context.revision,
            request_id: self.context.request_id.clone(),
            deadline_ms: u64::try_from(now.saturating_add(left).as_millis()).unwrap_or(u64::MAX),
        };
        serde_json::to_vec(&context).expect("strings and numbers always become JSON")
    }
}

/// A store with the guest's fuel and limits.
pub(crate) fn new_store(engine: &Engine, guest: Guest) -> Result<Store<Guest>, GuestFault> {
    let fuel = guest.fuel_max;
    let mut store = Store::new(engine, guest);
    store.limiter(|guest| guest);
    let interval = store.fuel_async_yield_interval(Some(YIELD_FUEL));
    interval
        .and_then(|()| store.set_fuel(fuel))
        .map_err(|error| internal(&error))?;
    Ok(store)
}

/// Takes in all of a stream, for a guest that wants it whole.
pub(crate) async fn collect(input: Input, limit: u64) -> Result<Bytes, GuestFault> {
    let mut pieces = match input {
        Input::Whole(bytes) => return Ok(bytes),
        Input::Stream(pieces) => pieces,
    };
    let mut whole = BytesMut::new();
    while let Some(piece) = pieces.recv().await {
        if (whole.len() + piece.len()) as u64 > limit {
            return Err(GuestFault::InputTooLarge { limit });
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

/// Instantiates a command and runs it.
async fn start(command: &Command, store: &mut Store<Guest>) -> wasmtime::Result<()> {
    let instance = command.pre.instantiate_async(&mut *store).await?;
    let memory = instance.get_module_export(&mut *store, &command.memory);
    store.data_mut().memory = memory.and_then(Extern::into_memory);
    let start = instance
        .get_module_export(&mut *store, &command.start)
        .and_then(Extern::into_func)
        .ok_or_else(|| wasmtime::Error::msg("_start is no function"))?;
    start.typed::<(), ()>(&*store)?.call_async(&mut *store, ()).await
}

/// What the JavaScript engine says of a call that has no answer.
fn judge(outcome: RunOutcome, limits: &Limits) -> Result<(), GuestFault> {
    Err(match outcome {
        RunOutcome::Answer(_) | RunOutcome::ScriptDone => return Ok(()),
        RunOutcome::Thrown(thrown) => GuestFault::Thrown {
            location: location(&thrown),
            stack: Some(thrown.stack).filter(|stack| !stack.is_empty()),
            message: thrown.message,
        },
        RunOutcome::Unsettled => GuestFault::UnsettledPromise,
        RunOutcome::BadOutput { message } => GuestFault::BadOutput { message },
        RunOutcome::BadInput { message } => GuestFault::InputInvalid { message },
        RunOutcome::OutOfMemory => GuestFault::Memory {
            limit: limits.memory_bytes,
        },
        RunOutcome::OutputTooLarge { .. } => GuestFault::Output {
            limit: limits.output_bytes,
        },
    })
}

fn location(thrown: &javy::Thrown) -> Option<Location> {
    Some(Location {
        file: thrown.file.clone()?,
        line: thrown.line?,
        column: thrown.column.unwrap_or(0),
    })
}

/// What ended the guest.
fn fault(error: &wasmtime::Error, limits: &Limits) -> GuestFault {
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return match *stop {
            Stop::Exit(code) => GuestFault::Exit { code },
            Stop::Output { limit } => GuestFault::Output { limit },
            Stop::Memory { limit } => GuestFault::Memory { limit },
            Stop::InputTooLarge { limit } => GuestFault::InputTooLarge { limit },
        };
    }
    if let Some(broken) = error.downcast_ref::<BrokenContract>() {
        // Not the host's fault: it would be blamed for what a hostile artifact did.
        return GuestFault::Trap {
            message: broken.to_string(),
        };
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => GuestFault::Fuel { limit: limits.fuel },
        Some(trap) => GuestFault::Trap {
            message: trap.to_string(),
        },
        None => internal(error),
    }
}

/// Leaving with code 0 is a way to end well.
fn exit_code_0(fault: GuestFault) -> Result<(), GuestFault> {
    if fault == (GuestFault::Exit { code: 0 }) {
        Ok(())
    } else {
        Err(fault)
    }
}

pub(crate) fn internal(error: &wasmtime::Error) -> GuestFault {
    GuestFault::Internal {
        message: format!("{error:#}"),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use wasmtime::{Instance, Module};

    use super::*;

    /// What a call ends with on an engine whose program has taken it over.
    fn taken_over(realloc: &str, run: &str) -> GuestFault {
        let text = format!(
            r#"(module (memory (export "memory") 1)
                (data (i32.const 16) "\63\00\00\00")
                (data (i32.const 32) "\00\00\00\00\ff\ff\ff\7f\05\00\00\00")
                (data (i32.const 48) "\01\00\00\00\00\00\00\00\05\00\00\00")
                (data (i32.const 64) "\03\00\00\00\00\00\00\00\ff\ff\ff\ff")
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) {realloc})
                (func (export "orb-compile") (param i32 i32 i32 i32) (result i32) unreachable)
                (func (export "orb-run") (param i32 i32 i32 i32 i32 i32) (result i32) {run}))"#
        );
        let engine = Engine::default();
        let module = Module::new(&engine, wat::parse_str(text).unwrap()).unwrap();
        let request = RunRequest {
            bytecode: b"bytecode",
            context_json: b"{}",
            input: b"null",
            output_bytes_max: 100,
        };
        let call = async {
            let mut store = Store::new(&engine, ());
            let instance = Instance::new_async(&mut store, &module, &[]).await?;
            let exports = javy::EngineExports::resolve(&module)?;
            exports
                .bind(&mut store, &instance)?
                .run(&mut store, request)
                .await
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        fault(&runtime.block_on(call).unwrap_err(), &Limits::default())
    }

    #[test]
    fn a_program_that_takes_the_engine_over_is_to_blame_and_not_the_host() {
        let good = "i32.const 1024";
        for (realloc, run, why) in [
            (
                "i32.const -1",
                "unreachable",
                "it allocated outside of its memory",
            ),
            (good, "i32.const -1", "its reply is outside of its memory"),
            (good, "i32.const 16", "unknown status of a run"),
            (good, "i32.const 32", "its reply points outside of its memory"),
            (good, "i32.const 48", "its report of a thrown error can't be read"),
            (good, "i32.const 64", "its reply is longer than it may be"),
        ] {
            let message = format!("the JavaScript engine broke its contract: {why}");
            assert_eq!(taken_over(realloc, run), GuestFault::Trap { message });
        }
    }
}
