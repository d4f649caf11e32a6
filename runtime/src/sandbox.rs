//! The sandbox: runs jobs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use wasmtime::Engine;

use crate::cache::DiskCache;
use crate::call::{self, Call};
use crate::guest::Guest;
use crate::javy::{self, Compiled};
use crate::program::{Command, JavaScriptEngine, Program, Programs, Script};
use crate::wasi::stdio::{Stdio, StdoutIs};
use crate::{
    Artifact, Event, Features, GuestFault, Input, Job, Kind, Limits, Outcome, SandboxConfig, engine,
};

/// Fuel for compiling JavaScript: some minutes, or about 100 MB of source.
const COMPILE_FUEL: u64 = 1_000_000_000_000;

/// Runs jobs, each in a fresh instance. Clones are handles on the same sandbox.
#[derive(Clone)]
pub struct Sandbox {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    programs: Arc<Programs>,
    slots: Semaphore,
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
        let engine = engine::build(&config).map_err(SandboxError::Engine)?;
        let disk = config.cache_dir.as_ref().map(|path| {
            let fingerprint = engine::fingerprint(&engine, &config.admission);
            DiskCache::open(path, fingerprint, config.disk_cache_bytes_max).map_err(|error| {
                SandboxError::Cache {
                    path: path.clone(),
                    error,
                }
            })
        });
        let programs = Programs::new(&engine, disk.transpose()?, &config).map_err(SandboxError::Engine)?;
        let slots = Semaphore::new(config.instances_max.max(1) as usize);
        let programs = Arc::new(programs);
        Ok(Self {
            inner: Arc::new(Inner {
                engine,
                programs,
                slots,
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
        let kind = match self.ready(artifact).await? {
            Ready::Command(_) => Kind::Command,
            Ready::Script(_, script) => script.kind(),
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
        self.inner.programs.forget(hash);
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
            compiled_bytes_in_memory: self.inner.programs.bytes_in_memory(),
            modules_compiled: self.inner.programs.compiled(),
            compiled_files_rejected: self.inner.programs.rejected(),
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
        let engine = self.inner.programs.javascript().await.map_err(host)?;
        let limits = Limits {
            fuel: COMPILE_FUEL,
            memory_bytes: self.inner.config.memory_bytes_ceiling,
            ..Limits::default()
        };
        let stdio = Stdio::new(Input::default(), StdoutIs::Log, &limits);
        let guest = Guest::new(file_name.to_owned(), stdio, &limits);
        let mut store = call::new_store(&self.inner.engine, guest).map_err(host)?;
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
        let deadline = job.context.deadline.and_then(|left| arrived.checked_add(left));
        self.check(&job)?;
        let ready = before(deadline, self.ready(&job.artifact)).await??;
        outcome.time_compile = arrived.elapsed();
        let input = match &ready {
            Ready::Script(_, script) if script.kind == javy::Kind::Function => {
                let whole = call::collect(job.input, job.limits.input_bytes);
                Input::Whole(before(deadline, whole).await??)
            }
            _ => job.input,
        };
        let queued = Instant::now();
        let _place = match self.inner.slots.try_acquire() {
            Ok(place) => place,
            Err(_) => before(deadline, self.inner.slots.acquire())
                .await?
                .map_err(|_| closed())?,
        };
        outcome.time_queued = queued.elapsed();
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(GuestFault::Deadline);
        }
        on_event(Event::Started);
        let call = Call {
            engine: &self.inner.engine,
            context: &job.context,
            limits: job.limits,
            deadline,
            on_event,
            outcome,
        };
        match ready {
            Ready::Command(command) => call.command(&command, input).await,
            Ready::Script(engine, script) => call.javascript(&engine, &script, input).await,
        }
    }

    /// A program with all that it needs.
    async fn ready(&self, artifact: &Artifact) -> Result<Ready, GuestFault> {
        match self.inner.programs.get(artifact).await? {
            Program::Command(command) => Ok(Ready::Command(command)),
            Program::Script(script) => Ok(Ready::Script(self.inner.programs.javascript().await?, script)),
            Program::Engine(_) => Err(closed()),
        }
    }

    /// What can be refused before anything is done.
    fn check(&self, job: &Job) -> Result<(), GuestFault> {
        let ceiling = self.inner.config.memory_bytes_ceiling;
        if job.limits.memory_bytes > ceiling {
            let wanted = job.limits.memory_bytes;
            return Err(GuestFault::Refused {
                message: format!(
                    "it may use {wanted} bytes of memory, and this host gives {ceiling} at most: lower limits.memory_bytes"
                ),
            });
        }
        match &job.input {
            Input::Whole(bytes) if bytes.len() as u64 > job.limits.input_bytes => {
                Err(GuestFault::InputTooLarge {
                    limit: job.limits.input_bytes,
                })
            }
            _ => Ok(()),
        }
    }
}

/// A program with all that it needs.
enum Ready {
    Command(Arc<Command>),
    Script(Arc<JavaScriptEngine>, Arc<Script>),
}

impl Outcome {
    /// The outcome of a call that has not been started.
    fn not_started() -> Self {
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

/// Waits for something, but not beyond the caller's deadline.
async fn before<F: Future>(deadline: Option<Instant>, future: F) -> Result<F::Output, GuestFault> {
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
