//! The whole sandbox in one process: a library of code, and a machine that runs it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::call;
use crate::guest::Guest;
use crate::javy::{self, Compiled};
use crate::library::Library;
use crate::machine::{Machine, before, deadline};
use crate::program::{Linked, Program};
use crate::wasi::stdio::{Stdio, StdoutIs};
use crate::{
    Artifact, Event, Features, GuestFault, Input, Job, Kind, Limits, Outcome, SandboxConfig, engine,
};

/// Fuel for compiling JavaScript: some minutes, or about 100 MB of source.
const COMPILE_FUEL: u64 = 1_000_000_000_000;

/// Runs jobs, each in a fresh instance. Clones are handles on the same sandbox.
///
/// It compiles in this very process: for tools that run what their own user built. A host that
/// runs strangers' functions has the two halves in processes of their own.
#[derive(Clone)]
pub struct Sandbox {
    inner: Arc<Inner>,
}

struct Inner {
    machine: Machine,
    library: Arc<Library<Program>>,
    config: SandboxConfig,
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Sandbox")
            .field("config", &self.inner.config)
            .finish_non_exhaustive()
    }
}

/// Why there is no sandbox. The host's fault.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// wasmtime does not start.
    #[error(
        "the WebAssembly engine does not start: {0:#} (fewer instances, or a lower memory ceiling, need less address space)"
    )]
    Engine(wasmtime::Error),
    /// The folder for compiled code can't be used.
    #[error("the compile cache {path} can't be used: {error} (give it a folder that this node may write)")]
    Cache {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
}

/// Why JavaScript source has not become bytecode.
#[derive(Debug, thiserror::Error)]
pub enum CompileJavaScriptError {
    /// The source's fault, or it is too large for the engine.
    #[error(transparent)]
    Source(#[from] javy::CompileError),
    /// The host's fault: the engine does not start.
    #[error("the JavaScript engine does not start: {0}")]
    Host(GuestFault),
}

/// An artifact that is ready to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// What kind of program it is.
    pub kind: Kind,
    /// How long it took; next to nothing when it was in memory.
    pub time: Duration,
}

impl Sandbox {
    /// Makes a sandbox. It compiles nothing yet.
    ///
    /// # Errors
    ///
    /// When the machine does not give the address space, or the cache folder can't be written.
    pub fn new(config: SandboxConfig) -> Result<Self, SandboxError> {
        let machine = Machine::new(&config)?;
        let linker = machine.clone();
        let finish = Box::new(move |code| linker.load(&code));
        let library = Library::in_process(&config, machine.engine(), finish)?;
        Ok(Self {
            inner: Arc::new(Inner {
                machine,
                library,
                config,
            }),
        })
    }

    /// Reads, verifies and compiles an artifact (or finds it in a cache), so that the first call
    /// of it is as fast as any other.
    ///
    /// # Errors
    ///
    /// [`GuestFault::Artifact`], [`GuestFault::Refused`], [`GuestFault::Compile`] or
    /// [`GuestFault::Internal`].
    pub async fn prepare(&self, artifact: &Artifact) -> Result<Prepared, GuestFault> {
        let began = Instant::now();
        let kind = match self.ready(artifact).await?.0 {
            Linked::Script(script) => script.kind.into(),
            Linked::Command(_) | Linked::Engine(_) => Kind::Command,
        };
        Ok(Prepared {
            kind,
            time: began.elapsed(),
        })
    }

    /// Runs a job to its end. `on_event` is called from within, in order; the last event comes
    /// before the outcome.
    ///
    /// Dropping the future stops the guest and frees its place.
    pub async fn run(&self, job: Job, mut on_event: impl FnMut(Event) + Send) -> Outcome {
        let mut outcome = Outcome::not_started();
        let result = Box::pin(self.run_into(job, &mut on_event, &mut outcome)).await;
        outcome.result = result;
        outcome
    }

    /// Drops what is kept for an artifact, in memory and on disk. Calls that run it go on.
    pub fn forget(&self, hash: &[u8; 32]) {
        self.inner.library.forget(hash);
    }

    /// What this sandbox is made of, for people who ask.
    #[must_use]
    pub fn features(&self) -> Features {
        Features {
            wasmtime_version: engine::WASMTIME_VERSION,
            metering_version: engine::METERING_VERSION,
            pagemap_scan: engine::pagemap_scan(),
            instances_max: self.inner.config.instances_max,
            memory_bytes_ceiling: self.inner.config.memory_bytes_ceiling,
            compiled_bytes_in_memory: self.inner.library.bytes_in_memory(),
            modules_compiled: self.inner.library.compiled(),
            compiled_files_rejected: self.inner.library.rejected(),
        }
    }

    /// Compiles JavaScript to bytecode for [`javy::emit()`]. Errors of the source name `file_name`.
    ///
    /// # Errors
    ///
    /// A syntax error, mostly.
    pub async fn compile_javascript(
        &self,
        source: &[u8],
        file_name: &str,
    ) -> Result<Compiled, CompileJavaScriptError> {
        let host = CompileJavaScriptError::Host;
        self.inner.library.javascript().await.map_err(host)?;
        let engine = self.inner.machine.javascript().map_err(host)?;
        let limits = Limits {
            fuel: COMPILE_FUEL,
            memory_bytes: self.inner.config.memory_bytes_ceiling,
            ..Limits::default()
        };
        let stdio = Stdio::new(Input::default(), StdoutIs::Log, &limits);
        let guest = Guest::new(file_name.to_owned(), stdio, &limits);
        let mut store = call::new_store(self.inner.machine.engine(), guest).map_err(host)?;
        let instance = engine
            .instantiate(&mut store)
            .await
            .map_err(|error| host(call::internal(&error)))?;
        Ok(instance.compile(&mut store, source, file_name).await?)
    }

    async fn run_into(
        &self,
        job: Job,
        on_event: &mut (impl FnMut(Event) + Send),
        outcome: &mut Outcome,
    ) -> Result<(), GuestFault> {
        let arrived = Instant::now();
        let deadline = deadline(&job.context, arrived);
        let (artifact, work) = job.split();
        self.inner.machine.check(&work)?;
        let program = before(deadline, self.ready(&artifact)).await??;
        outcome.time_compile = arrived.elapsed();
        let machine = &self.inner.machine;
        machine
            .run_into(&program, work, deadline, on_event, outcome)
            .await
    }

    /// A program, with the engine that it needs.
    async fn ready(&self, artifact: &Artifact) -> Result<Program, GuestFault> {
        let program = self.inner.library.get(artifact).await?;
        if matches!(program.0, Linked::Script(_)) {
            self.inner.library.javascript().await?;
        }
        Ok(program)
    }
}
