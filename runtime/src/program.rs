//! From an artifact on disk to a program that is ready to run.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::{Semaphore, watch};
use wasmtime::{Engine, Extern, InstancePre, Linker, Module, ModuleExport, Store};

use crate::admit::{AdmissionLimits, recognise};
use crate::cache::{DiskCache, Flight, MemoryCache};
use crate::call::internal;
use crate::guest::Guest;
use crate::javy::{self, EngineExports, EngineInstance};
use crate::{AdmissionError, Admitted, Artifact, GuestFault, Kind, SandboxConfig, wasi};

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
    /// Bytecode for the JavaScript engine: no code of its own.
    Script(Arc<Script>),
    /// The JavaScript engine itself.
    Engine(Arc<JavaScriptEngine>),
}

/// A linked command.
pub(crate) struct Command {
    pub pre: InstancePre<Guest>,
    pub start: ModuleExport,
    pub memory: ModuleExport,
}

/// JavaScript as bytecode.
pub(crate) struct Script {
    pub kind: javy::Kind,
    pub bytecode: Vec<u8>,
}

impl Script {
    pub(crate) fn kind(&self) -> Kind {
        self.kind.into()
    }
}

/// The linked JavaScript engine.
pub(crate) struct JavaScriptEngine {
    pre: InstancePre<Guest>,
    exports: EngineExports,
    memory: ModuleExport,
}

impl JavaScriptEngine {
    /// An instance of the engine for one call.
    pub(crate) async fn instantiate(&self, store: &mut Store<Guest>) -> wasmtime::Result<EngineInstance> {
        let instance = self.pre.instantiate_async(&mut *store).await?;
        let memory = instance.get_module_export(&mut *store, &self.memory);
        store.data_mut().memory = memory.and_then(Extern::into_memory);
        self.exports.bind(store, &instance)
    }
}

/// What is to be loaded.
#[derive(Clone)]
enum Source {
    Artifact(Artifact),
    /// The JavaScript engine that is built in.
    Engine,
}

/// All programs of a sandbox, and how to get more.
pub(crate) struct Programs {
    engine: Engine,
    linker: Linker<Guest>,
    admission: AdmissionLimits,
    memory: MemoryCache<Program>,
    javascript: OnceLock<Arc<JavaScriptEngine>>,
    disk: Option<DiskCache>,
    compiles: Semaphore,
    compiled: AtomicU64,
    config: SandboxConfig,
}

/// What reading an artifact gives.
enum Read {
    Ready(Program, u64),
    /// To be compiled.
    Wasm(Cow<'static, [u8]>),
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
            javascript: OnceLock::new(),
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
        self.load(&artifact.hash, || Source::Artifact(artifact.clone()))
            .await
    }

    /// The JavaScript engine. Once it is there it stays.
    pub(crate) async fn javascript(self: &Arc<Self>) -> Result<Arc<JavaScriptEngine>, GuestFault> {
        if let Some(engine) = self.javascript.get() {
            return Ok(Arc::clone(engine));
        }
        match self.load(&engine_key(), || Source::Engine).await? {
            Program::Engine(engine) => Ok(Arc::clone(self.javascript.get_or_init(|| engine))),
            Program::Command(_) | Program::Script(_) => Err(lost()),
        }
    }

    async fn load(
        self: &Arc<Self>,
        key: &[u8; 32],
        source: impl Fn() -> Source,
    ) -> Result<Program, GuestFault> {
        for _ in 0..LOAD_ATTEMPTS {
            let receiver = match self.memory.ask(key) {
                Flight::Landed(program) => return program,
                Flight::Joined(receiver) => receiver,
                Flight::Mine(sender, receiver) => {
                    // A task of its own: what was begun is finished and kept, whoever still waits.
                    tokio::spawn(Arc::clone(self).fly(*key, source(), sender));
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

    async fn fly(
        self: Arc<Self>,
        key: [u8; 32],
        source: Source,
        sender: watch::Sender<Option<Result<Program, GuestFault>>>,
    ) {
        let (program, bytes) = match self.make(key, source).await {
            Ok((program, bytes)) => (Ok(program), bytes),
            Err(fault) => (Err(fault), 0),
        };
        self.memory.land(&key, &sender, program, bytes);
    }

    async fn make(self: &Arc<Self>, key: [u8; 32], source: Source) -> Result<(Program, u64), GuestFault> {
        let (this, from) = (Arc::clone(self), source.clone());
        let wasm = match blocking(move || this.read(&key, &from)).await? {
            Read::Ready(program, bytes) => return Ok((program, bytes)),
            Read::Wasm(wasm) => wasm,
        };
        let _permit = self.compiles.acquire().await.map_err(|_| lost())?;
        let this = Arc::clone(self);
        blocking(move || this.compile(&key, &source, &wasm)).await
    }

    /// Reads and verifies a source, and looks for what was compiled of it before.
    fn read(&self, key: &[u8; 32], source: &Source) -> Result<Read, GuestFault> {
        let wasm = match source {
            Source::Artifact(artifact) => Cow::Owned(self.read_verified(artifact)?),
            Source::Engine => Cow::Borrowed(javy::ENGINE_WASM),
        };
        if let Some(module) = self.disk.as_ref().and_then(|disk| disk.load(&self.engine, key)) {
            let (program, bytes) = self.link(source, &module)?;
            return Ok(Read::Ready(program, bytes));
        }
        if matches!(source, Source::Engine) {
            return Ok(Read::Wasm(wasm));
        }
        let refuse = |error| refuse(&error);
        let script = match recognise(&wasm, &self.admission).map_err(refuse)? {
            (
                Admitted {
                    kind: Kind::Command, ..
                },
                _,
            ) => return Ok(Read::Wasm(wasm)),
            (_, script) => script.ok_or_else(lost)?,
        };
        let bytecode = script.bytecode.into_owned();
        let bytes = bytecode.len() as u64;
        let script = Script {
            kind: script.kind,
            bytecode,
        };
        Ok(Read::Ready(Program::Script(Arc::new(script)), bytes))
    }

    /// The bytes of an artifact, which are what its name says. Nothing else is said of a file
    /// before its hash is known to be right, since what is said is remembered.
    fn read_verified(&self, artifact: &Artifact) -> Result<Vec<u8>, GuestFault> {
        let path = artifact.path.display();
        let unreadable = |error| GuestFault::Artifact {
            message: format!("{path}: {error}"),
        };
        let file = File::open(&artifact.path).map_err(unreadable)?;
        let bytes = file.metadata().map_err(unreadable)?.len();
        let max = self.admission.module_bytes;
        let mut wasm = Vec::new();
        let hash = if bytes > max {
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(file).map_err(unreadable)?.finalize()
        } else {
            file.take(max).read_to_end(&mut wasm).map_err(unreadable)?;
            blake3::hash(&wasm)
        };
        if hash != artifact.hash {
            let message = format!("{path} is not the artifact that it is named after");
            return Err(GuestFault::Artifact { message });
        }
        if bytes > max {
            return Err(refuse(&AdmissionError::TooLarge { bytes, max }));
        }
        Ok(wasm)
    }

    fn compile(&self, key: &[u8; 32], source: &Source, wasm: &[u8]) -> Result<(Program, u64), GuestFault> {
        let module = Module::from_binary(&self.engine, wasm).map_err(|error| GuestFault::Refused {
            message: format!("{error:#}"),
        })?;
        self.compiled.fetch_add(1, Ordering::Relaxed);
        let linked = self.link(source, &module)?;
        if let Some(disk) = &self.disk {
            disk.store(key, &module);
        }
        Ok(linked)
    }

    fn link(&self, source: &Source, module: &Module) -> Result<(Program, u64), GuestFault> {
        let pre = self
            .linker
            .instantiate_pre(module)
            .map_err(|error| internal(&error))?;
        let export = |name: &str| module.get_export_index(name).ok_or_else(lost);
        let memory = export("memory")?;
        let program = match source {
            Source::Artifact(_) => Program::Command(Arc::new(Command {
                pre,
                memory,
                start: export("_start")?,
            })),
            Source::Engine => {
                let exports = EngineExports::resolve(module).map_err(|error| internal(&error))?;
                Program::Engine(Arc::new(JavaScriptEngine { pre, exports, memory }))
            }
        };
        let image = module.image_range();
        let bytes = (image.end as usize).saturating_sub(image.start as usize) as u64;
        Ok((program, bytes))
    }
}

/// The engine's place in the caches: not its hash, under which it could be deployed as an artifact.
fn engine_key() -> [u8; 32] {
    blake3::derive_key(
        "orb 2026 JavaScript engine in the compile cache",
        &javy::engine_hash(),
    )
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
