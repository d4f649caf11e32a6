//! From an artifact on disk to code that may run: verified, compiled if need be, kept.

use std::borrow::Cow;
use std::fmt::{self, Debug, Formatter};
use std::fs::File;
use std::io::{self, Read as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use crate::admit::recognise;
use crate::cache::{DiskCache, Flight, MemoryCache};
use crate::compiler::{Compiler, InProcess};
use crate::{
    AdmissionError, Admitted, Artifact, Code, CodeKind, GuestFault, Kind, SandboxConfig, SandboxError,
    engine, javy,
};

/// Modules that are compiled at once. Each takes all cores as far as it can; the second is there
/// so that one that takes very long does not stop the others.
const COMPILES_MAX: usize = 2;

/// Times that a load is begun before its failing without a result counts as a failure.
const LOAD_ATTEMPTS: u32 = 3;

/// What machine code counts for in memory, however short it is: it keeps a descriptor and some mappings. With
/// the default bound there are a thousand descriptors at most.
const MACHINE_CODE_BYTES_MIN: u64 = 256 << 10;

/// What is to be loaded.
#[derive(Clone)]
enum Source {
    Artifact(Artifact),
    /// The JavaScript engine that is built in.
    Engine,
}

/// Makes what is kept in memory of code that may run.
type Finish<P> = Box<dyn Fn(Code) -> Result<P, GuestFault> + Send + Sync>;

/// Code by the artifact that it was made of, bounded in memory and on disk.
///
/// What is kept in memory is a `P`: the code itself, or a program that a
/// [`Machine`](crate::Machine) has linked.
pub struct Library<P> {
    config: SandboxConfig,
    memory: MemoryCache<P>,
    javascript: OnceLock<P>,
    disk: Option<DiskCache>,
    compiler: Box<dyn Compiler>,
    finish: Finish<P>,
    compiles: Semaphore,
    compiled: AtomicU64,
}

impl<P> Debug for Library<P> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Library")
            .field("config", &self.config)
            .field("compiler", &self.compiler)
            .finish_non_exhaustive()
    }
}

impl Library<Arc<Code>> {
    /// A library whose code runs elsewhere. Code that is dropped from memory goes when the last
    /// who holds it lets it go.
    ///
    /// # Errors
    /// The folder for compiled code can't be used.
    pub fn new(config: &SandboxConfig, compiler: Box<dyn Compiler>) -> Result<Arc<Self>, SandboxError> {
        // Only to name the configuration: without instances.
        let alone = SandboxConfig {
            instances_max: 1,
            ..config.clone()
        };
        let engine = engine::build(&alone).map_err(SandboxError::Engine)?;
        let finish = Box::new(|code| Ok(Arc::new(code)));
        Ok(Arc::new(Self::open(config, &engine, compiler, finish)?))
    }
}

impl<P: Clone + Send + Sync + 'static> Library<P> {
    /// A library whose code is finished into what runs in this process, where it is compiled too.
    pub(crate) fn in_process(
        config: &SandboxConfig,
        engine: &wasmtime::Engine,
        finish: Finish<P>,
    ) -> Result<Arc<Self>, SandboxError> {
        let compiler = Box::new(InProcess(engine.clone()));
        Ok(Arc::new(Self::open(config, engine, compiler, finish)?))
    }

    fn open(
        config: &SandboxConfig,
        engine: &wasmtime::Engine,
        compiler: Box<dyn Compiler>,
        finish: Finish<P>,
    ) -> Result<Self, SandboxError> {
        let disk = config.cache_dir.as_ref().map(|path| {
            let fingerprint = engine::fingerprint(engine, &config.admission);
            DiskCache::open(path, fingerprint, config.disk_cache_bytes_max).map_err(|error| {
                SandboxError::Cache {
                    path: path.clone(),
                    error,
                }
            })
        });
        Ok(Self {
            memory: MemoryCache::new(config.memory_cache_bytes_max),
            javascript: OnceLock::new(),
            disk: disk.transpose()?,
            compiler,
            finish,
            compiles: Semaphore::new(COMPILES_MAX),
            compiled: AtomicU64::new(0),
            config: config.clone(),
        })
    }

    /// Modules that were compiled.
    #[must_use]
    pub fn compiled(&self) -> u64 {
        self.compiled.load(Ordering::Relaxed)
    }

    /// Compiled files that were found forged or broken.
    #[must_use]
    pub fn rejected(&self) -> u64 {
        self.disk.as_ref().map_or(0, DiskCache::rejected)
    }

    /// Bytes of all code in memory.
    #[must_use]
    pub fn bytes_in_memory(&self) -> u64 {
        self.memory.bytes()
    }

    /// Drops everything that is kept for an artifact. Calls that run it go on.
    pub fn forget(&self, hash: &[u8; 32]) {
        self.memory.forget(hash);
        if let Some(disk) = &self.disk {
            disk.forget(hash);
        }
    }

    /// An artifact's code: from memory, or read, verified and compiled.
    ///
    /// # Errors
    ///
    /// [`GuestFault::Artifact`], [`GuestFault::Refused`], [`GuestFault::Compile`] or
    /// [`GuestFault::Internal`].
    pub async fn get(self: &Arc<Self>, artifact: &Artifact) -> Result<P, GuestFault> {
        self.load(&artifact.hash, || Source::Artifact(artifact.clone()))
            .await
    }

    /// The JavaScript engine. Once it is there it stays.
    ///
    /// # Errors
    ///
    /// [`GuestFault::Compile`] or [`GuestFault::Internal`].
    pub async fn javascript(self: &Arc<Self>) -> Result<P, GuestFault> {
        if let Some(engine) = self.javascript.get() {
            return Ok(engine.clone());
        }
        let engine = self.load(&engine_key(), || Source::Engine).await?;
        Ok(self.javascript.get_or_init(|| engine).clone())
    }

    async fn load(self: &Arc<Self>, key: &[u8; 32], source: impl Fn() -> Source) -> Result<P, GuestFault> {
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
        mut receiver: watch::Receiver<Option<Result<P, GuestFault>>>,
    ) -> Option<Result<P, GuestFault>> {
        receiver.wait_for(Option::is_some).await.ok()?.clone()
    }

    async fn fly(
        self: Arc<Self>,
        key: [u8; 32],
        source: Source,
        sender: watch::Sender<Option<Result<P, GuestFault>>>,
    ) {
        let (program, kept) = match self.make(key, source).await {
            Ok((program, bytes)) => (Ok(program), Some(bytes)),
            Err(Failed { fault, settled }) => (Err(fault), settled.then_some(0)),
        };
        self.memory.land(&key, &sender, program, kept);
    }

    async fn make(self: &Arc<Self>, key: [u8; 32], source: Source) -> Result<(P, u64), Failed> {
        let (this, from) = (Arc::clone(self), source.clone());
        let wasm = match blocking(move || this.read(&key, &from)).await? {
            Read::Ready(program, bytes) => return Ok((program, bytes)),
            Read::Wasm(wasm) => wasm,
        };
        let _permit = self.compiles.acquire().await.map_err(|_| Failed::from(lost()))?;
        let limit = self.config.compile_time_max;
        // Only its own time counts, not that of those before it.
        let code = tokio::time::timeout(limit, self.compiler.compile(wasm))
            .await
            .unwrap_or_else(|_| Err(too_long(limit)))
            .map_err(Failed::to_compile)?;
        self.compiled.fetch_add(1, Ordering::Relaxed);
        let this = Arc::clone(self);
        blocking(move || {
            if let Some(disk) = &this.disk {
                disk.store(&key, &code);
            }
            this.finish(Code::machine(source.machine_code(), code))
        })
        .await
        .map_err(Failed::from)
    }

    fn finish(&self, code: Code) -> Result<(P, u64), GuestFault> {
        let bytes = match code.kind() {
            CodeKind::Script(_) => code.len(),
            CodeKind::Command | CodeKind::JavaScriptEngine => code.len().max(MACHINE_CODE_BYTES_MIN),
        };
        Ok(((self.finish)(code)?, bytes))
    }

    /// Reads and verifies a source, and looks for what was compiled of it before.
    fn read(&self, key: &[u8; 32], source: &Source) -> Result<Read<P>, GuestFault> {
        let wasm = match source {
            Source::Artifact(artifact) => Cow::Owned(self.read_verified(artifact)?),
            Source::Engine => Cow::Borrowed(javy::ENGINE_WASM),
        };
        if let Some((program, bytes)) = self.compiled_before(key, source) {
            return Ok(Read::Ready(program, bytes));
        }
        if matches!(source, Source::Engine) {
            return Ok(Read::Wasm(wasm));
        }
        let refuse = |error| refuse(&error);
        let script = match recognise(&wasm, &self.config.admission).map_err(refuse)? {
            (
                Admitted {
                    kind: Kind::Command, ..
                },
                _,
            ) => return Ok(Read::Wasm(wasm)),
            (_, script) => script.ok_or_else(lost)?,
        };
        let (program, bytes) = self.finish(Code::script(script.kind, script.bytecode.into_owned()))?;
        Ok(Read::Ready(program, bytes))
    }

    fn compiled_before(&self, key: &[u8; 32], source: &Source) -> Option<(P, u64)> {
        let disk = self.disk.as_ref()?;
        let code = disk.load(key)?;
        self.finish(Code::machine(source.machine_code(), code))
            .inspect_err(|error| {
                tracing::warn!(%error, "a compiled module does not load: to be compiled again");
                disk.reject(key);
            })
            .ok()
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
        let max = self.config.admission.module_bytes;
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
}

/// Why there is no code.
struct Failed {
    fault: GuestFault,
    /// Asking again is bound to give the same.
    settled: bool,
}

impl From<GuestFault> for Failed {
    fn from(fault: GuestFault) -> Self {
        let settled = matches!(fault, GuestFault::Refused { .. } | GuestFault::Compile { .. });
        Self { fault, settled }
    }
}

impl Failed {
    /// What a compiler takes too long for may be a matter of the machine.
    fn to_compile(fault: GuestFault) -> Self {
        let settled = matches!(fault, GuestFault::Refused { .. });
        Self { fault, settled }
    }
}

/// What reading an artifact gives.
enum Read<P> {
    Ready(P, u64),
    /// To be compiled.
    Wasm(Cow<'static, [u8]>),
}

impl Source {
    /// What it is once it is compiled.
    fn machine_code(&self) -> CodeKind {
        match self {
            Self::Artifact(_) => CodeKind::Command,
            Self::Engine => CodeKind::JavaScriptEngine,
        }
    }
}

/// The engine's place in the caches: not its hash, under which it could be deployed as an artifact.
fn engine_key() -> [u8; 32] {
    blake3::derive_key(
        "orb 2026 JavaScript engine in the compile cache",
        &javy::engine_hash(),
    )
}

/// Runs what takes long or waits for a disk off the threads that must not wait.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, GuestFault> + Send + 'static,
) -> Result<T, GuestFault> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(lost()))
}

pub(crate) fn internal_io(error: &io::Error) -> GuestFault {
    GuestFault::Internal {
        message: format!("there is no room for compiled code: {error}"),
    }
}

/// The fault of a module that takes longer than a compilation may.
#[must_use]
pub fn too_long(limit: Duration) -> GuestFault {
    GuestFault::Compile {
        message: format!("it takes longer than {} s", limit.as_secs()),
    }
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
pub(crate) fn lost() -> GuestFault {
    GuestFault::Internal {
        message: "loading the function ended without a result: see the host's log".to_owned(),
    }
}
