//! All executors of a daemon: what a sandbox is to the rest of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use orb_runtime::{
    Artifact, CallContext, Code, CodeKind, Event, GuestFault, Input, Job, Library, Limits, Outcome, Prepared,
    SandboxConfig, SandboxError,
};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::compile::CompilerProcess;
use super::inbox::Said;
use super::link::{Gone, Keep, Link, StartError};
use super::message::{PIECE_BYTES_MAX, PIECES_MAX, Run, Setup};
use super::process::{Launch, Nursery};
use super::walls::{Bounds, Wall};

/// Executors of one daemon, whatever the machine has.
const EXECUTORS_MAX: usize = 64;
/// The wait before an executor that ended is replaced; doubled while the replacements end too.
const REPLACE_AFTER: Duration = Duration::from_millis(50);
/// The longest such wait.
const REPLACE_AFTER_MAX: Duration = Duration::from_secs(10);
/// An executor that lived so long was in order.
const IN_ORDER_AFTER: Duration = Duration::from_secs(30);
/// Executors that a call which was not started is given to, one after the other.
const ATTEMPTS_MAX: u32 = 3;
/// How long a call waits for an executor when there is none.
const WITHOUT_MAX: Duration = Duration::from_secs(10);

/// What executors are like.
#[derive(Debug, Clone)]
pub struct ExecutorsConfig {
    /// What is compiled and kept, and what guests may have.
    pub sandbox: SandboxConfig,
    /// Processes. Each runs its guests on one thread.
    pub processes: usize,
    /// Memory that each may take, in bytes.
    pub memory_bytes: u64,
    /// Refuse to start where a part of the second wall is missing.
    pub require_walls: bool,
    /// How a process is started.
    pub launch: Launch,
}

/// Why there are no executors.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorsError {
    /// The sandbox can't be set up.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A process can't.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A part of the wall is missing, and the operator wants all of it.
    #[error(
        "the sandbox's second wall is not whole here, and --require-sandbox asks for all of it: {0} (see `orb doctor`)"
    )]
    Walls(String),
}

/// The executors of a daemon. Clones are handles on the same ones.
#[derive(Debug, Clone)]
pub struct Executors {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    library: Arc<Library<Arc<Code>>>,
    setup: Setup,
    nursery: Nursery,
    links: Mutex<Vec<Option<Arc<Link>>>>,
    walls: Vec<Wall>,
    /// Counts executors that began or ended.
    changes: watch::Sender<u64>,
    lost: AtomicU64,
    /// Keeps the executors; ends them when it is dropped.
    keepers: Mutex<JoinSet<()>>,
}

impl Executors {
    /// Starts all processes, and waits until they are ready.
    ///
    /// # Errors
    /// [`ExecutorsError`].
    pub async fn start(config: ExecutorsConfig) -> Result<Self, ExecutorsError> {
        raise_descriptors();
        let nursery = Nursery::start(config.launch.clone()).map_err(StartError::from)?;
        let compiler = CompilerProcess::new(nursery.clone(), &config.sandbox);
        let library = Library::new(&config.sandbox, Box::new(compiler))?;
        let setup = Setup {
            sandbox: config.sandbox.clone(),
            bounds: Bounds {
                memory_bytes: config.memory_bytes,
                processor_s: None,
            },
        };
        let mut kept = Vec::new();
        let mut walls = Vec::new();
        for _ in 0..config.processes.clamp(1, EXECUTORS_MAX) {
            let (keep, found) = Link::start(&nursery, &setup).await?;
            kept.push(keep);
            walls = found;
        }
        let gaps: Vec<String> = walls
            .iter()
            .filter(|wall| wall.gap().is_some())
            .map(Wall::to_string)
            .collect();
        if config.require_walls && !gaps.is_empty() {
            return Err(ExecutorsError::Walls(gaps.join("; ")));
        }
        let inner = Arc::new(Inner {
            library,
            setup,
            nursery,
            links: Mutex::new(kept.iter().map(|keep| Some(Arc::clone(keep.link()))).collect()),
            walls,
            changes: watch::Sender::new(0),
            lost: AtomicU64::new(0),
            keepers: Mutex::default(),
        });
        let mut keepers = JoinSet::new();
        for (slot, keep) in kept.into_iter().enumerate() {
            keepers.spawn(keep_filled(Arc::downgrade(&inner), slot, keep));
        }
        *lock(&inner.keepers) = keepers;
        Ok(Self { inner })
    }

    /// The parts of the second wall, and whether they stand.
    pub fn walls(&self) -> &[Wall] {
        &self.inner.walls
    }

    /// Process ids of the executors that run.
    pub fn pids(&self) -> Vec<u32> {
        lock(&self.inner.links)
            .iter()
            .flatten()
            .map(|link| link.pid())
            .collect()
    }

    /// Executors that ended before they should have.
    pub fn lost(&self) -> u64 {
        self.inner.lost.load(Ordering::Relaxed)
    }

    /// Code: what was compiled and kept.
    pub fn library(&self) -> &Arc<Library<Arc<Code>>> {
        &self.inner.library
    }

    /// Has the JavaScript engine compiled and loaded.
    ///
    /// # Errors
    /// [`GuestFault::Compile`] or [`GuestFault::Internal`].
    pub async fn warm_up(&self) -> Result<(), GuestFault> {
        let engine = self.inner.library.javascript().await?;
        self.load_everywhere(&engine).await;
        Ok(())
    }

    /// Reads, verifies, compiles and loads an artifact, so that the first call of it is as fast as any other.
    ///
    /// # Errors
    ///
    /// [`GuestFault::Artifact`], [`GuestFault::Refused`], [`GuestFault::Compile`] or [`GuestFault::Internal`].
    pub async fn prepare(&self, artifact: &Artifact) -> Result<Prepared, GuestFault> {
        let began = Instant::now();
        let code = self.code(artifact).await?;
        for code in [Some(&code.program), code.engine.as_ref()].into_iter().flatten() {
            self.load_everywhere(code).await;
        }
        let kind = code
            .program
            .kind()
            .artifact()
            .ok_or_else(|| lost_fault("no artifact"))?;
        Ok(Prepared {
            kind,
            time: began.elapsed(),
        })
    }

    /// Drops what is kept for an artifact. Calls that run it go on.
    pub fn forget(&self, hash: &[u8; 32]) {
        self.inner.library.forget(hash);
    }

    /// Runs a job to its end: [`orb_runtime::Sandbox::run`], in another process.
    ///
    /// If its executor ends before the guest was entered another one takes the call; afterwards it is
    /// [`GuestFault::Lost`].
    pub async fn run(&self, job: Job, mut on_event: impl FnMut(Event) + Send) -> Outcome {
        let arrived = Instant::now();
        let deadline = job.context.deadline.and_then(|left| arrived.checked_add(left));
        let code = match before(deadline, self.code(&job.artifact))
            .await
            .and_then(|code| code)
        {
            Ok(code) => code,
            Err(fault) => return failed(fault),
        };
        let time_compile = arrived.elapsed();
        let mut call = Call {
            context: job.context,
            limits: job.limits,
            input: Feed::from(job.input),
            started: false,
        };
        let mut outcome = self.attempts(&code, &mut call, deadline, &mut on_event).await;
        outcome.time_compile = time_compile;
        outcome
    }

    async fn attempts(
        &self,
        code: &Needed,
        call: &mut Call,
        deadline: Option<Instant>,
        on_event: &mut (impl FnMut(Event) + Send),
    ) -> Outcome {
        let mut why: Arc<str> = "none of them is there".into();
        for _ in 0..ATTEMPTS_MAX {
            let Some(link) = self.any(deadline).await else {
                break;
            };
            match call.run(&link, code, deadline, on_event).await {
                Ok(outcome) => return outcome,
                Err(lost) => why = lost,
            }
            if call.started || call.input.is_spent() {
                break;
            }
        }
        failed(match deadline {
            Some(deadline) if !call.started && deadline <= Instant::now() => GuestFault::Deadline,
            _ => lost_fault(&why),
        })
    }

    /// The code of an artifact, and the engine for it.
    async fn code(&self, artifact: &Artifact) -> Result<Needed, GuestFault> {
        let library = &self.inner.library;
        let program = library.get(artifact).await?;
        let engine = match program.kind() {
            CodeKind::Script(_) => Some(library.javascript().await?),
            CodeKind::Command | CodeKind::JavaScriptEngine => None,
        };
        Ok(Needed { program, engine })
    }

    /// The executor with the fewest calls; waits a little where there is none.
    async fn any(&self, deadline: Option<Instant>) -> Option<Arc<Link>> {
        if let Some(link) = self.idlest() {
            return Some(link);
        }
        let patience = Instant::now() + WITHOUT_MAX;
        let until = deadline.map_or(patience, |deadline| deadline.min(patience));
        let mut changes = self.inner.changes.subscribe();
        loop {
            if let Some(link) = self.idlest() {
                return Some(link);
            }
            tokio::time::timeout_at(until.into(), changes.changed())
                .await
                .ok()?
                .ok()?;
        }
    }

    fn idlest(&self) -> Option<Arc<Link>> {
        lock(&self.inner.links)
            .iter()
            .flatten()
            .filter(|link| !link.is_dead())
            .min_by_key(|link| link.running())
            .map(Arc::clone)
    }

    async fn load_everywhere(&self, code: &Arc<Code>) {
        let links: Vec<Arc<Link>> = lock(&self.inner.links).iter().flatten().map(Arc::clone).collect();
        for link in links {
            // One that has just ended loads it when it is back and the code is called.
            let _ = link.load(code).await;
        }
    }

    #[cfg(test)]
    pub(super) fn links(&self) -> Vec<Arc<Link>> {
        lock(&self.inner.links).iter().flatten().map(Arc::clone).collect()
    }
}

/// Code that a call needs.
struct Needed {
    program: Arc<Code>,
    engine: Option<Arc<Code>>,
}

/// A call, from executor to executor.
struct Call {
    context: CallContext,
    limits: Limits,
    input: Feed,
    started: bool,
}

impl Call {
    async fn run(
        &mut self,
        link: &Arc<Link>,
        code: &Needed,
        deadline: Option<Instant>,
        on_event: &mut (impl FnMut(Event) + Send),
    ) -> Result<Outcome, Arc<str>> {
        let gone = |Gone| Arc::<str>::from("it ended");
        for code in code.engine.iter().chain([&code.program]) {
            link.load(code).await.map_err(gone)?;
        }
        let (context, limits, input) = (self.context(deadline), self.limits, self.input.whole());
        let run = |call| Run {
            call,
            code: code.program.id(),
            context,
            limits,
            input,
        };
        let mut handle = link.begin(run).await.map_err(gone)?;
        let mut credit = PIECES_MAX;
        loop {
            let said = tokio::select! {
                biased;
                said = handle.next() => said,
                piece = self.input.next(), if credit > 0 && !self.input.is_over() => {
                    credit -= 1;
                    handle.feed(piece).await.map_err(gone)?;
                    continue;
                }
            };
            match said {
                Said::Event(event) => {
                    self.started |= event == Event::Started;
                    on_event(event);
                }
                Said::Taken => credit = (credit + 1).min(PIECES_MAX),
                Said::Ended(outcome) => return Ok(*outcome),
                Said::Lost(why) => return Err(why),
            }
        }
    }

    /// What is left of the caller's time, now.
    fn context(&self, deadline: Option<Instant>) -> CallContext {
        CallContext {
            deadline: deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())),
            ..self.context.clone()
        }
    }
}

/// An input on its way.
enum Feed {
    /// It goes with the call.
    Whole(Bytes),
    /// It goes in pieces: what is left of it.
    Long { all: Bytes, left: Option<Bytes> },
    /// It comes in pieces.
    Stream {
        pieces: mpsc::Receiver<Bytes>,
        /// What is left of the last one.
        left: Bytes,
        taken: bool,
        over: bool,
    },
}

impl From<Input> for Feed {
    fn from(input: Input) -> Self {
        match input {
            Input::Whole(bytes) if bytes.len() <= PIECE_BYTES_MAX => Self::Whole(bytes),
            Input::Whole(all) => Self::Long { all, left: None },
            Input::Stream(pieces) => Self::Stream {
                pieces,
                left: Bytes::new(),
                taken: false,
                over: false,
            },
        }
    }
}

impl Feed {
    /// What goes with the call. From now on pieces are for that attempt.
    fn whole(&mut self) -> Option<Bytes> {
        match self {
            Self::Whole(bytes) => Some(bytes.clone()),
            Self::Long { all, left } => {
                *left = Some(all.clone());
                None
            }
            Self::Stream { .. } => None,
        }
    }

    /// Whether all of it was given, its end included.
    fn is_over(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Long { left, .. } => left.is_none(),
            Self::Stream { over, .. } => *over,
        }
    }

    /// Whether part of it was given and can't be given again.
    fn is_spent(&self) -> bool {
        matches!(self, Self::Stream { taken: true, .. })
    }

    /// The next piece; an empty one is the end. Nothing is lost if nobody waits for it to the end.
    async fn next(&mut self) -> Bytes {
        match self {
            Self::Whole(_) => Bytes::new(),
            Self::Long { left, .. } => {
                let piece = left.as_mut().map(cut).unwrap_or_default();
                if piece.is_empty() {
                    *left = None;
                }
                piece
            }
            Self::Stream {
                pieces,
                left,
                taken,
                over,
            } => {
                while left.is_empty() {
                    match pieces.recv().await {
                        Some(piece) => *left = gather(piece, pieces),
                        None => {
                            *over = true;
                            return Bytes::new();
                        }
                    }
                }
                *taken = true;
                cut(left)
            }
        }
    }
}

/// A piece with those that wait behind it, until there is enough for one to the executor, or more: it is
/// sent so many pieces at a time, however short they are.
fn gather(piece: Bytes, more: &mut mpsc::Receiver<Bytes>) -> Bytes {
    let mut gathered = BytesMut::new();
    let mut len = piece.len();
    while len < PIECE_BYTES_MAX
        && let Ok(next) = more.try_recv()
    {
        if gathered.is_empty() {
            gathered.extend_from_slice(&piece);
        }
        gathered.extend_from_slice(&next);
        len += next.len();
    }
    if gathered.is_empty() {
        piece
    } else {
        gathered.freeze()
    }
}

fn cut(bytes: &mut Bytes) -> Bytes {
    bytes.split_to(bytes.len().min(PIECE_BYTES_MAX))
}

/// Keeps a slot filled: an executor that ends is replaced.
async fn keep_filled(inner: std::sync::Weak<Inner>, slot: usize, mut keep: Keep) {
    let mut wait = REPLACE_AFTER;
    loop {
        let pid = keep.link().pid();
        let began = Instant::now();
        let why = keep.keep().await;
        let Some((nursery, setup)) = inner.upgrade().map(|inner| {
            inner.lost.fetch_add(1, Ordering::Relaxed);
            inner.put(slot, None);
            (inner.nursery.clone(), inner.setup.clone())
        }) else {
            return;
        };
        tracing::warn!(pid, %why, "an executor was lost: its calls were, and it is replaced");
        if began.elapsed() > IN_ORDER_AFTER {
            wait = REPLACE_AFTER;
        }
        keep = loop {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(REPLACE_AFTER_MAX);
            match Link::start(&nursery, &setup).await {
                Ok((keep, _)) => break keep,
                Err(error) => {
                    tracing::warn!(%error, "an executor could not be replaced: another attempt follows");
                }
            }
        };
        // Nobody needs it if the others have ended meanwhile.
        let Some(inner) = inner.upgrade() else { return };
        inner.put(slot, Some(Arc::clone(keep.link())));
    }
}

impl Inner {
    fn put(&self, slot: usize, link: Option<Arc<Link>>) {
        if let Some(place) = lock(&self.links).get_mut(slot) {
            *place = link;
        }
        self.changes.send_modify(|count| *count += 1);
    }
}

/// Lets this process have as many descriptors as it may: each program of machine code takes one.
fn raise_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // It is a wish: with fewer a host keeps fewer programs in memory.
    let _ = setrlimit(Resource::Nofile, limit);
}

async fn before<F: Future>(deadline: Option<Instant>, future: F) -> Result<F::Output, GuestFault> {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline.into(), future)
            .await
            .map_err(|_| GuestFault::Deadline),
        None => Ok(future.await),
    }
}

/// A call that was not started.
fn failed(fault: GuestFault) -> Outcome {
    Outcome {
        result: Err(fault),
        ..Outcome::not_started()
    }
}

fn lost_fault(why: &str) -> GuestFault {
    GuestFault::Lost {
        message: why.to_owned(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn short_pieces_go_together_and_long_ones_are_cut() {
        let (pieces, input) = mpsc::channel(8);
        let mut feed = Feed::from(Input::Stream(input));
        let sizes = [1, PIECE_BYTES_MAX - 2, 7, PIECE_BYTES_MAX];
        for (number, size) in sizes.into_iter().enumerate() {
            let piece = Bytes::from(vec![number as u8; size]);
            pieces.send(piece).await.expect("there is room");
        }
        drop(pieces);
        let mut all = Vec::new();
        let mut lens = Vec::new();
        while !feed.is_over() {
            let piece = feed.next().await;
            lens.push(piece.len());
            all.extend_from_slice(&piece);
        }
        let expected: Vec<u8> = sizes
            .into_iter()
            .enumerate()
            .flat_map(|(number, size)| vec![number as u8; size])
            .collect();
        assert!(all == expected, "{lens:?}");
        assert_eq!(lens, [PIECE_BYTES_MAX, 6, PIECE_BYTES_MAX, 0]);
    }
}
