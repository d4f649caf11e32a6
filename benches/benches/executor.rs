//! What it costs to run guests in another process.
//!
//! - A call of the empty command: to an executor and back, against the runtime in this process. At 64 in
//!   flight the figure is time per call of all of them together.
//! - The way itself, without guests: frames of 200 bytes to another thread and back, through the rings that
//!   executors have, against a socket pair whose writes and reads are batched.
//!
//! Wake-ups across cores are most of what one call in flight costs: pin the run to one core
//! (`taskset -c 0`) to see the rest.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::{Buf, BytesMut};
use criterion::Criterion;
use orb_benches::{EMPTY_COMMAND, job};
use orb_host::executor::transport::{Parts, Receiver, Sender};
use orb_host::executor::{Executors, ExecutorsConfig, Launch};
use orb_runtime::{Artifact, Sandbox, SandboxConfig};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const IN_FLIGHT: u64 = 64;
const FRAME_BYTES: usize = 200;

fn main() -> ExitCode {
    // This binary is its own executor.
    if let Some(code) = orb_host::executor::child() {
        return code;
    }
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<()> {
    let runtime = Runtime::new()?;
    let mut criterion = Criterion::default().configure_from_args();
    calls(&mut criterion, &runtime)?;
    transport(&mut criterion, &runtime)?;
    criterion.final_summary();
    Ok(())
}

/// Somewhere to run a call.
#[derive(Clone)]
enum Place {
    Here(Sandbox),
    Executors(Executors),
}

impl Place {
    async fn call(&self, artifact: &Artifact) {
        let outcome = match self {
            Self::Here(sandbox) => sandbox.run(job(artifact), drop).await,
            Self::Executors(executors) => executors.run(job(artifact), drop).await,
        };
        outcome.result.expect("the empty command does not fail");
    }

    /// Makes `calls` calls, so many at a time; the time that all of them took.
    async fn many(&self, artifact: &Arc<Artifact>, calls: u64, in_flight: u64) -> Duration {
        let began = Instant::now();
        let mut callers = JoinSet::new();
        for caller in 0..in_flight {
            let (place, artifact) = (self.clone(), Arc::clone(artifact));
            let share = calls / in_flight + u64::from(caller < calls % in_flight);
            callers.spawn(async move {
                for _ in 0..share {
                    place.call(&artifact).await;
                }
            });
        }
        callers.join_all().await;
        began.elapsed()
    }
}

fn calls(criterion: &mut Criterion, runtime: &Runtime) -> Result<()> {
    let folder = TempDir::new()?;
    let artifact = Arc::new(store(&folder, EMPTY_COMMAND)?);
    let sandbox = SandboxConfig {
        cache_dir: Some(folder.path().join("cache")),
        ..SandboxConfig::default()
    };
    let here = Place::Here(Sandbox::new(sandbox.clone())?);
    let executors = runtime.block_on(Executors::start(ExecutorsConfig {
        sandbox,
        processes: std::thread::available_parallelism()?.get(),
        memory_bytes: 4 << 30,
        require_walls: false,
        launch: Launch::this_program(),
    }))?;
    let places = [
        ("in process (baseline)", here),
        ("executor", Place::Executors(executors)),
    ];
    for in_flight in [1, IN_FLIGHT] {
        let mut group = criterion.benchmark_group(format!("executor call, {in_flight} in flight"));
        for (name, place) in &places {
            group.bench_function(*name, |b| {
                b.iter_custom(|calls| runtime.block_on(place.many(&artifact, calls, in_flight)));
            });
        }
        group.finish();
    }
    Ok(())
}

fn store(folder: &TempDir, wasm: &[u8]) -> Result<Artifact> {
    let id = orb_protocol::id::ArtifactHash::of(wasm);
    let path = folder.path().join(id.to_string());
    std::fs::write(&path, wasm)?;
    Ok(Artifact {
        hash: *id.as_bytes(),
        path,
    })
}

fn transport(criterion: &mut Criterion, runtime: &Runtime) -> Result<()> {
    for in_flight in [1, IN_FLIGHT] {
        let mut group = criterion.benchmark_group(format!("executor transport, {in_flight} in flight"));
        let (near, far) = UnixStream::pair_in(runtime)?;
        echo(far_socket, far);
        let mut socket = Socket::new(near);
        group.bench_function("socket pair, batched (baseline)", |b| {
            b.iter_custom(|frames| runtime.block_on(socket.round(frames, in_flight)));
        });
        let parts = Parts::new()?;
        let (sender, receiver) = {
            let _inside = runtime.enter();
            parts.daemon_end()?
        };
        echo(far_rings, parts);
        let mut rings = Rings { sender, receiver };
        group.bench_function("rings", |b| {
            b.iter_custom(|frames| runtime.block_on(rings.round(frames, in_flight)));
        });
        group.finish();
    }
    Ok(())
}

/// Serves on a thread and an event loop of its own, as an executor does.
fn echo<T: Send + 'static, F: Future<Output = ()>>(serve: impl FnOnce(T) -> F + Send + 'static, end: T) {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("an event loop").block_on(serve(end));
    });
}

trait PairIn: Sized {
    fn pair_in(runtime: &Runtime) -> Result<(Self, std::os::unix::net::UnixStream)>;
}

impl PairIn for UnixStream {
    fn pair_in(runtime: &Runtime) -> Result<(Self, std::os::unix::net::UnixStream)> {
        let (near, far) = std::os::unix::net::UnixStream::pair()?;
        near.set_nonblocking(true)?;
        far.set_nonblocking(true)?;
        let _inside = runtime.enter();
        Ok((Self::from_std(near)?, far))
    }
}

/// A socket with frames behind their lengths; whatever is there is read at once, and written at once.
struct Socket {
    socket: UnixStream,
    incoming: BytesMut,
}

impl Socket {
    fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            incoming: BytesMut::with_capacity(1 << 20),
        }
    }

    /// The frames that are there, one at least; none at the end.
    async fn frames(&mut self) -> u64 {
        loop {
            let mut frames = 0;
            while self.incoming.len() >= 4 + FRAME_BYTES {
                self.incoming.advance(4 + FRAME_BYTES);
                frames += 1;
            }
            if frames > 0 {
                return frames;
            }
            if !matches!(self.socket.read_buf(&mut self.incoming).await, Ok(1..)) {
                return 0;
            }
        }
    }

    async fn write(&mut self, frames: u64) {
        let mut out = Vec::with_capacity(frames as usize * (4 + FRAME_BYTES));
        for _ in 0..frames {
            out.extend_from_slice(&(FRAME_BYTES as u32).to_ne_bytes());
            out.extend_from_slice(&[7; FRAME_BYTES]);
        }
        self.socket.write_all(&out).await.expect("the other end is there");
    }

    async fn round(&mut self, frames: u64, in_flight: u64) -> Duration {
        let began = Instant::now();
        let (mut sent, mut back) = (frames.min(in_flight), 0);
        self.write(sent).await;
        while back < frames {
            let came = self.frames().await;
            assert!(came > 0, "the other end is there");
            back += came;
            let more = came.min(frames - sent);
            if more > 0 {
                self.write(more).await;
                sent += more;
            }
        }
        began.elapsed()
    }
}

async fn far_socket(socket: std::os::unix::net::UnixStream) {
    let mut socket = Socket::new(UnixStream::from_std(socket).expect("an event loop"));
    loop {
        match socket.frames().await {
            0 => return,
            frames => socket.write(frames).await,
        }
    }
}

struct Rings {
    sender: Sender,
    receiver: Receiver,
}

impl Rings {
    async fn frames(&mut self) -> u64 {
        let mut frame = Vec::new();
        loop {
            let mut frames = 0;
            while self.receiver.pop(&mut frame).expect("the rules are kept") {
                frames += 1;
            }
            if frames > 0 {
                return frames;
            }
            self.receiver.wait().await.expect("the rules are kept");
        }
    }

    fn write(&self, frames: u64) {
        for _ in 0..frames {
            let pushed = self.sender.push(&[7; FRAME_BYTES]).expect("the rules are kept");
            pushed.expect("there is room for all that are in flight");
        }
        self.sender.flush();
    }

    async fn round(&mut self, frames: u64, in_flight: u64) -> Duration {
        let began = Instant::now();
        let (mut sent, mut back) = (frames.min(in_flight), 0);
        self.write(sent);
        while back < frames {
            let came = self.frames().await;
            back += came;
            let more = came.min(frames - sent);
            self.write(more);
            sent += more;
        }
        began.elapsed()
    }
}

async fn far_rings(parts: Parts) {
    let (sender, receiver) = parts.executor_end().expect("a channel");
    let mut rings = Rings { sender, receiver };
    loop {
        let frames = rings.frames().await;
        rings.write(frames);
    }
}
