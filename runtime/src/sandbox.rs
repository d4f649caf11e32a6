//! The sandbox: runs jobs.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use wasmtime::{Engine, Store, Trap};

use crate::cache::DiskCache;
use crate::guest::{Guest, Stop, YIELD_FUEL};
use crate::meter::{Expired, Meter};
use crate::program::{Command, Program, Programs};
use crate::wasi::stdio::{Stdio, StdoutIs};
use crate::{
    Artifact, Event, Features, GuestFault, Input, Job, Kind, Limits, Outcome, SandboxConfig, engine,
};

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
        path: std::path::PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
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
        let program = self.inner.programs.get(artifact).await?;
        Ok(Prepared {
            kind: program.kind(),
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

    async fn run_into(
        &self,
        job: Job,
        on_event: &mut (impl FnMut(Event) + Send),
        outcome: &mut Outcome,
    ) -> Result<(), GuestFault> {
        let arrived = Instant::now();
        let deadline = job.context.deadline.and_then(|left| arrived.checked_add(left));
        self.check(&job)?;
        let program = before(deadline, self.inner.programs.get(&job.artifact)).await??;
        let compiled = Instant::now();
        outcome.time_compile = compiled - arrived;
        let permit = match self.inner.slots.try_acquire() {
            Ok(permit) => permit,
            Err(_) => before(deadline, self.inner.slots.acquire())
                .await?
                .map_err(|_| closed())?,
        };
        outcome.time_queued = compiled.elapsed();
        let Program::Command(command) = program;
        on_event(Event::Started);
        let result = self.run_command(&command, job, deadline, on_event, outcome).await;
        drop(permit);
        result
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

    async fn run_command(
        &self,
        command: &Command,
        job: Job,
        deadline: Option<Instant>,
        on_event: &mut (impl FnMut(Event) + Send),
        outcome: &mut Outcome,
    ) -> Result<(), GuestFault> {
        let limits = job.limits;
        let stdio = Stdio::new(job.input, StdoutIs::Answer, &limits);
        let pipes = stdio.pipes.clone();
        let mut store = self.store(Guest::new(job.context.function, stdio, &limits))?;
        let time_max = Duration::from_millis(limits.time_ms);
        let mut meter = Meter::new(&pipes, on_event, time_max, deadline);
        let ended = {
            let call = pin!(call_start(command, &mut store));
            meter.run(call).await
        };
        outcome.time_guest = meter.elapsed();
        outcome.note(&store, &limits);
        match ended {
            Ok(result) => result.or_else(|error| fault(&error, &limits)),
            Err(Expired::Time) => Err(GuestFault::Time {
                limit_ms: limits.time_ms,
            }),
            Err(Expired::Deadline) => Err(GuestFault::Deadline),
        }
    }

    fn store(&self, guest: Guest) -> Result<Store<Guest>, GuestFault> {
        let fuel = guest.fuel_max;
        let mut store = Store::new(&self.inner.engine, guest);
        store.limiter(|guest| guest);
        let interval = store.fuel_async_yield_interval(Some(YIELD_FUEL));
        interval
            .and_then(|()| store.set_fuel(fuel))
            .map_err(|error| internal(&error))?;
        Ok(store)
    }
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

    /// Notes what a guest used.
    fn note(&mut self, store: &Store<Guest>, limits: &Limits) {
        self.fuel = limits.fuel.saturating_sub(store.get_fuel().unwrap_or(0));
        self.memory_peak_bytes = store.data().memory_peak_bytes;
        self.log_truncated = store.data().stdio.log_truncated;
    }
}

/// Instantiates a command and runs it.
async fn call_start(command: &Command, store: &mut Store<Guest>) -> wasmtime::Result<()> {
    let instance = command.pre.instantiate_async(&mut *store).await?;
    let memory = instance.get_module_export(&mut *store, &command.memory);
    store.data_mut().memory = memory.and_then(wasmtime::Extern::into_memory);
    let start = instance
        .get_module_export(&mut *store, &command.start)
        .and_then(wasmtime::Extern::into_func)
        .ok_or_else(|| wasmtime::Error::msg("_start is no function"))?;
    start.typed::<(), ()>(&*store)?.call_async(&mut *store, ()).await
}

/// What ended the guest. Exit code 0 is no fault.
fn fault(error: &wasmtime::Error, limits: &Limits) -> Result<(), GuestFault> {
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return match *stop {
            Stop::Exit(0) => Ok(()),
            Stop::Exit(code) => Err(GuestFault::Exit { code }),
            Stop::Output { limit } => Err(GuestFault::Output { limit }),
            Stop::Memory { limit } => Err(GuestFault::Memory { limit }),
            Stop::InputTooLarge { limit } => Err(GuestFault::InputTooLarge { limit }),
        };
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => Err(GuestFault::Fuel { limit: limits.fuel }),
        Some(trap) => Err(GuestFault::Trap {
            message: trap.to_string(),
        }),
        None => Err(internal(error)),
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

fn internal(error: &wasmtime::Error) -> GuestFault {
    GuestFault::Internal {
        message: format!("{error:#}"),
    }
}

fn closed() -> GuestFault {
    GuestFault::Internal {
        message: "the sandbox is closing".to_owned(),
    }
}
