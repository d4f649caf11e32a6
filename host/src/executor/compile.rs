//! Compiling strangers' modules: each in a process of its own, that is ended at its limits. One waits for the next module.
//!
//! The process gets its setup on its socket, puts itself behind the same wall as executors, gets ready, and says so. Then
//! it gets two pieces of memory: one holds the module, machine code is written to the other. It says when it is done; what
//! the module is refused for goes to standard error instead. Nobody waits for its end then: the system takes
//! milliseconds to take its namespaces apart.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use orb_runtime::{Compiler, Compiling, GuestFault, ModuleCompiler, SandboxConfig, SealedFile};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::message::Setup;
use super::process::{Nursery, Spawned, Task};
use super::socket;
use super::walls::{self, Bounds, Role};

/// Memory that one compilation may take: five times what the largest modules that are admitted need.
const MEMORY_BYTES_MAX: u64 = 4 << 30;
/// Exit code of a module that wasmtime does not take.
const REFUSED: i32 = 65;
/// How long a process may take to end once it has closed its standard error, and between two looks whether it has: the
/// system closes files first, and then takes the memory apart.
const ENDING_MAX: Duration = Duration::from_millis(100);
const ENDING_STEP: Duration = Duration::from_micros(100);
/// Bytes of what is said of it.
const MESSAGE_BYTES_MAX: u64 = 4 << 10;
/// What it says: that it can be told what to compile, and that the machine code is written.
const READY: u8 = b'r';
const DONE: u8 = b'd';
/// What it is told with the two pieces of memory.
const MODULE: &[u8] = b"m";

/// Compiles in child processes.
#[derive(Debug)]
pub(super) struct CompilerProcess {
    nursery: Nursery,
    setup: Arc<Setup>,
    /// One that waits for the next module: to start one takes as long as to compile a small module.
    spare: Arc<Mutex<Option<Idle>>>,
}

/// A process that has not been told what to compile.
#[derive(Debug)]
struct Idle {
    socket: UnixStream,
    spawned: Spawned,
}

impl Idle {
    async fn start(nursery: &Nursery, setup: &Setup) -> io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let socket = UnixStream::from_std(ours)?;
        let spawned = nursery.spawn(Task::Compile, theirs).await?;
        socket::send(&socket, &serde_json::to_vec(setup)?, &[])?;
        Ok(Self { socket, spawned })
    }

    /// Whether it said this, rather than to end.
    async fn says(&mut self, word: u8) -> bool {
        self.socket.read_u8().await.is_ok_and(|said| said == word)
    }

    /// Whether it wrote machine code into `code`, rather than to end.
    async fn compile(&mut self, module: &SealedFile, code: &File) -> bool {
        // Two messages would be read as one otherwise.
        self.says(READY).await
            && socket::send(&self.socket, MODULE, &[module.file().as_fd(), code.as_fd()]).is_ok()
            && self.says(DONE).await
    }
}

impl CompilerProcess {
    pub(super) fn new(nursery: Nursery, sandbox: &SandboxConfig) -> Self {
        // All cores for as long as it may take.
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        let processor_s = sandbox.compile_time_max.as_secs().max(1) * cores;
        let setup = Setup {
            sandbox: sandbox.clone(),
            bounds: Bounds {
                memory_bytes: MEMORY_BYTES_MAX,
                processor_s: Some(processor_s),
            },
        };
        Self {
            nursery,
            setup: Arc::new(setup),
            spare: Arc::default(),
        }
    }

    /// The process that waits, if it still does, or a new one.
    async fn idle(&self) -> io::Result<Idle> {
        let spare = lock(&self.spare).take();
        if let Some(mut idle) = spare
            && idle.spawned.child.try_wait()?.is_none()
        {
            return Ok(idle);
        }
        Idle::start(&self.nursery, &self.setup).await
    }

    /// Starts one for the next module. Without it that one takes a little longer.
    fn keep_spare(&self) {
        let (nursery, setup, spare) = (
            self.nursery.clone(),
            Arc::clone(&self.setup),
            Arc::clone(&self.spare),
        );
        tokio::spawn(async move {
            if lock(&spare).is_none()
                && let Ok(idle) = Idle::start(&nursery, &setup).await
            {
                *lock(&spare) = Some(idle);
            }
        });
    }

    async fn compile_apart(&self, wasm: &[u8]) -> Result<SealedFile, GuestFault> {
        let limit = self.setup.sandbox.compile_time_max;
        let begun = async {
            let (code, module) = (orb_runtime::unsealed()?, SealedFile::copy_of(wasm)?);
            io::Result::Ok((code, module, self.idle().await?))
        };
        let (code, module, mut idle) = begun.await.map_err(|error| internal(&error))?;
        let mut said = String::new();
        let end = async {
            let done = idle.compile(&module, &code).await;
            if !done {
                let stderr = &mut idle.spawned.stderr;
                let _ = stderr.take(MESSAGE_BYTES_MAX).read_to_string(&mut said).await;
            }
            done
        };
        let done = match timeout(limit, end).await {
            Ok(done) => done,
            Err(_) => return Err(orb_runtime::too_long(limit)),
        };
        if done {
            tokio::task::spawn_blocking(move || drop(idle));
            // From here on it cannot change what it wrote.
            return SealedFile::seal(code).map_err(|error| internal(&error));
        }
        // It has closed its standard error, so that it has ended, or is about to.
        let status = wait(idle.spawned).await.map_err(|error| internal(&error))?;
        match status.code() {
            Some(REFUSED) => Err(GuestFault::Refused {
                message: said.trim().to_owned(),
            }),
            _ => Err(ended(status, &said, limit)),
        }
    }
}

impl Compiler for CompilerProcess {
    fn compile(&self, wasm: Cow<'static, [u8]>) -> Compiling<'_> {
        Box::pin(async move {
            let compiled = self.compile_apart(&wasm).await;
            self.keep_spare();
            compiled
        })
    }
}

fn lock(spare: &Mutex<Option<Idle>>) -> MutexGuard<'_, Option<Idle>> {
    spare.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn wait(mut spawned: Spawned) -> io::Result<ExitStatus> {
    tokio::task::spawn_blocking(move || {
        let closed = Instant::now();
        while closed.elapsed() < ENDING_MAX {
            if let Some(status) = spawned.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(ENDING_STEP);
        }
        // One that closes its standard error and goes on is no compiler of ours.
        if let Some(pid) = Pid::from_raw(spawned.child.id().cast_signed()) {
            let _ = kill_process(pid, Signal::KILL);
        }
        spawned.child.wait()
    })
    .await
    .map_err(io::Error::other)?
}

fn ended(status: ExitStatus, said: &str, limit: Duration) -> GuestFault {
    let said = said.trim();
    match status.signal() {
        Some(libc::SIGXCPU | libc::SIGKILL) => orb_runtime::too_long(limit),
        // What Rust does when there is no memory.
        Some(libc::SIGABRT) if said.contains("memory") => GuestFault::Compile {
            message: format!("it takes more than {MEMORY_BYTES_MAX} bytes of memory"),
        },
        _ => GuestFault::Compile {
            message: format!("the compiler ended ({status}) {said}")
                .trim_end()
                .to_owned(),
        },
    }
}

fn internal(error: &io::Error) -> GuestFault {
    GuestFault::Internal {
        message: format!("no compiler process can be started: {error}"),
    }
}

/// Compiles the module that this process was started for; gives its exit code.
///
/// # Errors
/// This process was not started as it should be.
pub(super) fn run() -> anyhow::Result<i32> {
    let (setup, _) = socket::receive(io::stdin())?;
    let setup: Setup = serde_json::from_slice(&setup)?;
    let mut socket = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    // The executors' walls are what is reported and required: this process has the same.
    let _ = walls::build(Role::Compiler, &setup.bounds);
    let compiler = ModuleCompiler::new(&setup.sandbox).map_err(anyhow::Error::msg)?;
    socket.write_all(&[READY])?;
    let Ok((_, descriptors)) = socket::receive(io::stdin()) else {
        // There is no module any more.
        return Ok(0);
    };
    let [module, code] = <[OwnedFd; 2]>::try_from(descriptors)
        .map_err(|got| anyhow::anyhow!("{} descriptors instead of 2", got.len()))?;
    let mut into = File::from(code);
    let wasm = SealedFile::receive(module)?.to_vec()?;
    match compiler.compile(&wasm) {
        Ok(code) => {
            into.write_all(&code)?;
            socket.write_all(&[DONE])?;
            Ok(0)
        }
        Err(message) => {
            let _ = writeln!(io::stderr(), "{message}");
            Ok(REFUSED)
        }
    }
}
