//! The half of the sandbox that runs guests, and does nothing else: it reads no files, compiles
//! nothing and knows no artifacts, so that it can live in a process that may do none of that.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use wasmtime::{Engine, Linker};

use crate::call::{self, Call};
use crate::guest::Guest;
use crate::program::{JavaScriptEngine, Linked, link};
use crate::{
    CallContext, Code, Event, GuestFault, Input, Limits, Outcome, Program, SandboxConfig, SandboxError,
    engine, javy, wasi,
};

/// Runs programs, each call in a fresh instance. Clones are handles on the same machine.
#[derive(Clone)]
pub struct Machine {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    linker: Linker<Guest>,
    javascript: OnceLock<Arc<JavaScriptEngine>>,
    slots: Semaphore,
    memory_bytes_ceiling: u64,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Machine").finish_non_exhaustive()
    }
}

/// One call of a program: for whom, within which limits, on which input.
#[derive(Debug)]
pub struct Work {
    /// What the guest may know of the call.
    pub context: CallContext,
    /// What it may use.
    pub limits: Limits,
    /// What it works on.
    pub input: Input,
}

impl Machine {
    /// Makes a machine with all the address space that its instances will need.
    ///
    /// # Errors
    /// The system does not give the address space.
    pub fn new(config: &SandboxConfig) -> Result<Self, SandboxError> {
        let engine = engine::build(config).map_err(SandboxError::Engine)?;
        let mut linker = Linker::new(&engine);
        wasi::add_to_linker(&mut linker).map_err(SandboxError::Engine)?;
        Ok(Self {
            inner: Arc::new(Inner {
                engine,
                linker,
                javascript: OnceLock::new(),
                slots: Semaphore::new(config.instances_max.max(1) as usize),
                memory_bytes_ceiling: config.memory_bytes_ceiling,
            }),
        })
    }

    /// Makes code ready to run. The JavaScript engine has to be loaded before a script runs.
    ///
    /// # Errors
    /// [`GuestFault::Internal`]: the code is not this build's, or there is no room for it.
    pub fn load(&self, code: &Code) -> Result<Program, GuestFault> {
        let linked = link(&self.inner.engine, &self.inner.linker, code)?;
        if let Linked::Engine(engine) = &linked {
            let _ = self.inner.javascript.set(Arc::clone(engine));
        }
        Ok(Program(linked))
    }

    /// Runs a program to its end. `on_event` is called from within, in order; the last event comes
    /// before the outcome.
    ///
    /// Dropping the future stops the guest and frees its place.
    pub async fn run(
        &self,
        program: &Program,
        work: Work,
        mut on_event: impl FnMut(Event) + Send,
    ) -> Outcome {
        let mut outcome = Outcome::not_started();
        let deadline = deadline(&work.context, Instant::now());
        let result = Box::pin(self.run_into(program, work, deadline, &mut on_event, &mut outcome)).await;
        outcome.result = result;
        outcome
    }

    /// wasmtime's engine, for measurements.
    #[doc(hidden)]
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    pub(crate) fn javascript(&self) -> Result<&Arc<JavaScriptEngine>, GuestFault> {
        self.inner.javascript.get().ok_or_else(|| GuestFault::Internal {
            message: "the JavaScript engine is not loaded".to_owned(),
        })
    }

    pub(crate) async fn run_into(
        &self,
        program: &Program,
        work: Work,
        deadline: Option<Instant>,
        on_event: &mut (impl FnMut(Event) + Send),
        outcome: &mut Outcome,
    ) -> Result<(), GuestFault> {
        self.check(&work)?;
        let input = match &program.0 {
            Linked::Script(script) if script.kind == javy::Kind::Function => {
                let whole = call::collect(work.input, work.limits.input_bytes);
                Input::Whole(before(deadline, whole).await??)
            }
            _ => work.input,
        };
        let _place = match self.inner.slots.try_acquire() {
            Ok(place) => place,
            Err(_) => {
                let queued = Instant::now();
                let place = before(deadline, self.inner.slots.acquire()).await;
                outcome.time_queued = queued.elapsed();
                place?.map_err(|_| closed())?
            }
        };
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(GuestFault::Deadline);
        }
        let call = Call {
            engine: &self.inner.engine,
            context: &work.context,
            limits: work.limits,
            deadline,
            on_event,
            outcome,
        };
        match &program.0 {
            Linked::Command(command) => call.started().command(command, input).await,
            Linked::Script(script) => {
                let engine = self.javascript()?;
                call.started().javascript(engine, script, input).await
            }
            Linked::Engine(_) => Err(closed()),
        }
    }

    /// What can be refused before anything is done.
    pub(crate) fn check(&self, work: &Work) -> Result<(), GuestFault> {
        let ceiling = self.inner.memory_bytes_ceiling;
        let limits = &work.limits;
        if limits.memory_bytes > ceiling {
            let wanted = limits.memory_bytes;
            return Err(GuestFault::Refused {
                message: format!(
                    "it may use {wanted} bytes of memory, and this host gives {ceiling} at most: lower limits.memory_bytes"
                ),
            });
        }
        match &work.input {
            Input::Whole(bytes) if bytes.len() as u64 > limits.input_bytes => {
                Err(GuestFault::InputTooLarge {
                    limit: limits.input_bytes,
                })
            }
            _ => Ok(()),
        }
    }
}

impl Outcome {
    /// The outcome of a call that has not been started.
    #[must_use]
    pub fn not_started() -> Self {
        Self {
            result: Ok(()),
            fuel: 0,
            memory_peak_bytes: 0,
            time_queued: Duration::ZERO,
            time_guest: Duration::ZERO,
            time_compile: Duration::ZERO,
            log_truncated: false,
        }
    }
}

/// When the caller's time is over, for a call that arrived at `arrived`.
pub(crate) fn deadline(context: &CallContext, arrived: Instant) -> Option<Instant> {
    context.deadline.and_then(|left| arrived.checked_add(left))
}

/// Waits for something, but not beyond the caller's deadline.
pub(crate) async fn before<F: Future>(deadline: Option<Instant>, future: F) -> Result<F::Output, GuestFault> {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline.into(), future)
            .await
            .map_err(|_| GuestFault::Deadline),
        None => Ok(future.await),
    }
}

fn closed() -> GuestFault {
    GuestFault::Internal {
        message: "the sandbox is closing".to_owned(),
    }
}
