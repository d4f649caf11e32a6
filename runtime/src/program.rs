//! From an artifact on disk to a program that is ready to run.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Semaphore, watch};
use wasmtime::{Engine, InstancePre, Linker, Module, ModuleExport};

use crate::admit::AdmissionLimits;
use crate::cache::{DiskCache, Flight, MemoryCache};
use crate::guest::Guest;
use crate::{AdmissionError, Artifact, GuestFault, Kind, SandboxConfig, admit_within, wasi};

/// Modules that are compiled at once. Each takes all cores as far as it can; the second is there
/// so that one that takes very long does not stop the others.
const COMPILES_MAX: usize = 2;

/// Times that a load is begun before its failing without a result counts as a failure.
const LOAD_ATTEMPTS: u32 = 3;

/// A program that is ready to run.
#[derive(Clone)]
pub(crate) enum Program {
    /// A WASI command.
    Command(Arc<Command>),
}

impl Program {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Command(_) => Kind::Command,
        }
    }
}

/// A linked command.
pub(crate) struct Command {
    pub pre: InstancePre<Guest>,
    pub start: ModuleExport,
    pub memory: ModuleExport,
}

/// All programs of a sandbox, and how to get more.
pub(crate) struct Programs {
    engine: Engine,
    linker: Linker<Guest>,
    admission: AdmissionLimits,
    memory: MemoryCache<Program>,
    disk: Option<DiskCache>,
    compiles: Semaphore,
    compiled: AtomicU64,
    config: SandboxConfig,
}

/// What reading an artifact gives.
enum Read {
    Ready(Program, u64),
    /// Admitted, but not compiled.
    Wasm(Vec<u8>),
}

impl Programs {
    pub(crate) fn new(
        engine: &Engine,
        disk: Option<DiskCache>,
        config: &SandboxConfig,
    ) -> wasmtime::Result<Self> {
        let mut linker = Linker::new(engine);
        wasi::add_to_linker(&mut linker)?;
        Ok(Self {
            engine: engine.clone(),
            linker,
            admission: config.admission,
            memory: MemoryCache::new(config.memory_cache_bytes_max),
            disk,
            compiles: Semaphore::new(COMPILES_MAX),
            compiled: AtomicU64::new(0),
            config: config.clone(),
        })
    }

    /// Modules that were compiled.
    pub(crate) fn compiled(&self) -> u64 {
        self.compiled.load(Ordering::Relaxed)
    }

    /// Compiled files that were found forged or broken.
    pub(crate) fn rejected(&self) -> u64 {
        self.disk.as_ref().map_or(0, DiskCache::rejected)
    }

    /// Bytes of all programs in memory.
    pub(crate) fn bytes_in_memory(&self) -> u64 {
        self.memory.bytes()
    }

    /// Drops everything that is kept for an artifact. Calls that run it go on.
    pub(crate) fn forget(&self, hash: &[u8; 32]) {
        self.memory.forget(hash);
        if let Some(disk) = &self.disk {
            disk.forget(hash);
        }
    }

    /// An artifact's program: from memory, or read, verified and compiled.
    pub(crate) async fn get(self: &Arc<Self>, artifact: &Artifact) -> Result<Program, GuestFault> {
        for _ in 0..LOAD_ATTEMPTS {
            let receiver = match self.memory.ask(&artifact.hash) {
                Flight::Landed(program) => return program,
                Flight::Joined(receiver) => receiver,
                Flight::Mine(sender, receiver) => {
                    // A task of its own: what was begun is finished and kept, whoever still waits.
                    tokio::spawn(Arc::clone(self).load(artifact.clone(), sender));
                    receiver
                }
            };
            if let Some(program) = self.wait(receiver).await {
                return program;
            }
        }
        Err(lost())
    }

    /// Waits for another's load; none if that ended without a result (its runtime was shut down).
    async fn wait(
        &self,
        mut receiver: watch::Receiver<Option<Result<Program, GuestFault>>>,
    ) -> Option<Result<Program, GuestFault>> {
        let limit = self.config.compile_time_max;
        match tokio::time::timeout(limit, receiver.wait_for(Option::is_some)).await {
            Ok(Ok(program)) => program.clone(),
            Ok(Err(_)) => None,
            Err(_) => Some(Err(GuestFault::Compile {
                message: format!("it takes longer than {} s", limit.as_secs()),
            })),
        }
    }

    async fn load(
        self: Arc<Self>,
        artifact: Artifact,
        sender: watch::Sender<Option<Result<Program, GuestFault>>>,
    ) {
        let hash = artifact.hash;
        let (program, bytes) = match self.load_inner(artifact).await {
            Ok((program, bytes)) => (Ok(program), bytes),
            Err(fault) => (Err(fault), 0),
        };
        self.memory.land(&hash, &sender, program, bytes);
    }

    async fn load_inner(self: &Arc<Self>, artifact: Artifact) -> Result<(Program, u64), GuestFault> {
        let hash = artifact.hash;
        let this = Arc::clone(self);
        let wasm = match blocking(move || this.read(&artifact)).await? {
            Read::Ready(program, bytes) => return Ok((program, bytes)),
            Read::Wasm(wasm) => wasm,
        };
        let _permit = self.compiles.acquire().await.map_err(|_| lost())?;
        let this = Arc::clone(self);
        blocking(move || this.compile(&hash, &wasm)).await
    }

    /// Reads and verifies an artifact, and looks for what was compiled of it before.
    fn read(&self, artifact: &Artifact) -> Result<Read, GuestFault> {
        let wasm = self.read_verified(artifact)?;
        if let Some(module) = self
            .disk
            .as_ref()
            .and_then(|it| it.load(&self.engine, &artifact.hash))
        {
            let (program, bytes) = self.link(&module)?;
            return Ok(Read::Ready(program, bytes));
        }
        let admitted = admit_within(&wasm, &self.admission).map_err(|error| refuse(&error))?;
        match admitted.kind {
            Kind::Command => Ok(Read::Wasm(wasm)),
            Kind::JavyFunction | Kind::JavyScript => Err(lost()),
        }
    }

    fn read_verified(&self, artifact: &Artifact) -> Result<Vec<u8>, GuestFault> {
        let path = artifact.path.display();
        let unreadable = |error| GuestFault::Artifact {
            message: format!("{path}: {error}"),
        };
        let bytes = fs::metadata(&artifact.path).map_err(unreadable)?.len();
        let max = self.admission.module_bytes;
        if bytes > max {
            return Err(refuse(&AdmissionError::TooLarge { bytes, max }));
        }
        let wasm = fs::read(&artifact.path).map_err(unreadable)?;
        if blake3::hash(&wasm) != artifact.hash {
            let message = format!("{path} is not the artifact that it is named after");
            return Err(GuestFault::Artifact { message });
        }
        Ok(wasm)
    }

    fn compile(&self, hash: &[u8; 32], wasm: &[u8]) -> Result<(Program, u64), GuestFault> {
        let module = Module::from_binary(&self.engine, wasm).map_err(|error| GuestFault::Refused {
            message: format!("{error:#}"),
        })?;
        self.compiled.fetch_add(1, Ordering::Relaxed);
        let linked = self.link(&module)?;
        if let Some(disk) = &self.disk {
            disk.store(hash, &module);
        }
        Ok(linked)
    }

    fn link(&self, module: &Module) -> Result<(Program, u64), GuestFault> {
        let internal = |error: wasmtime::Error| GuestFault::Internal {
            message: format!("{error:#}"),
        };
        let export = |name: &str| module.get_export_index(name).ok_or_else(lost);
        let command = Command {
            pre: self.linker.instantiate_pre(module).map_err(internal)?,
            start: export("_start")?,
            memory: export("memory")?,
        };
        let image = module.image_range();
        let bytes = (image.end as usize).saturating_sub(image.start as usize) as u64;
        Ok((Program::Command(Arc::new(command)), bytes))
    }
}

/// Runs what takes long or waits for a disk off the threads that run guests.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, GuestFault> + Send + 'static,
) -> Result<T, GuestFault> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(lost()))
}

fn refuse(error: &AdmissionError) -> GuestFault {
    let message = error.to_string();
    if error.is_compile_limit() {
        GuestFault::Compile { message }
    } else {
        GuestFault::Refused { message }
    }
}

/// A task of ours panicked, or an invariant between admission and linking is broken.
fn lost() -> GuestFault {
    GuestFault::Internal {
        message: "loading the function ended without a result: see the host's log".to_owned(),
    }
}
