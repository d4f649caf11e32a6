//! The daemon's end of one executor.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard, Weak};
use std::task::Waker;
use std::time::Duration;

use orb_runtime::{Code, Event, Limits};
use tokio::io::AsyncReadExt;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::time::{Instant, MissedTickBehavior, timeout};

use super::channel::{Parts, Receiver, Sender, hang_up, watch};
use super::inbox::{Inbox, Said};
use super::message::{self, CallId, CodeId, FromExecutor, Run, Setup, ToExecutor, frame};
use super::process::{Nursery, Spawned, Task};
use super::ring::Violation;
use super::socket;
use super::walls::Wall;

/// How long an executor may take to be ready: it reserves address space, which takes some ten
/// milliseconds on a machine that is not busy.
const READY_MAX: Duration = Duration::from_secs(20);
/// Between two questions whether it is there.
const PING: Duration = Duration::from_secs(2);
/// An executor that says nothing for so long, though it was asked, hangs: its guests give way a thousand
/// times a second. On a machine that is very busy it may have to wait for a core now and then.
const WEDGED_AFTER: Duration = Duration::from_secs(15);
/// A full ring is looked at again after this time.
const FULL_WAIT: Duration = Duration::from_millis(1);
/// What an executor may say on its standard error in all its life, in bytes: a panic's message.
const STDERR_BYTES_MAX: u64 = 16 << 10;
/// How long its last words are waited for.
const LAST_WORDS_MAX: Duration = Duration::from_millis(100);
/// Messages that an executor may send beyond what its guests may write: its share of a call.
const SLACK_BYTES: u64 = 1 << 20;

/// Why an executor does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The system starts no process, or gives no memory to talk to it.
    #[error("no executor process can be started: {0}")]
    System(#[from] io::Error),
    /// The machine does not give what guests need.
    #[error("{0}")]
    Unfit(String),
    /// It ended, or did something else, before it was ready.
    #[error("an executor process did not become ready: {0}")]
    NotReady(String),
}

/// An executor that takes calls.
#[derive(Debug)]
pub(super) struct Link {
    pid: u32,
    sender: Sender,
    socket: AsyncFd<OwnedFd>,
    calls: Mutex<HashMap<CallId, Entry>>,
    next_call: AtomicU64,
    running: AtomicU32,
    /// Code that it has, for as long as somebody else has it too.
    loaded: RwLock<HashMap<CodeId, Weak<Code>>>,
    /// Who loads, so that descriptors and messages come in the same order.
    loading: tokio::sync::Mutex<()>,
    dead: AtomicBool,
    #[cfg(test)]
    pub(super) escaped: Inbox,
}

/// A call that runs there.
#[derive(Debug)]
struct Entry {
    inbox: Inbox,
    /// Bytes that may still come of it.
    bytes_left: u64,
}

/// The parts of an executor that only its keeper needs.
#[derive(Debug)]
pub(super) struct Keep {
    link: Arc<Link>,
    receiver: Receiver,
    spawned: Spawned,
}

impl Link {
    /// Starts an executor.
    ///
    /// # Errors
    /// [`StartError`].
    pub(super) async fn start(nursery: &Nursery, setup: &Setup) -> Result<(Keep, Vec<Wall>), StartError> {
        let (ours, theirs) = UnixStream::pair()?;
        let parts = Parts::new()?;
        let mut spawned = nursery.spawn(Task::Execute, theirs).await?;
        let setup = serde_json::to_vec(setup).map_err(io::Error::other)?;
        let descriptors = [
            parts.memory.as_fd(),
            parts.to_executor.as_fd(),
            parts.to_daemon.as_fd(),
        ];
        socket::send(&ours, &setup, &descriptors)?;
        ours.set_nonblocking(true)?;
        let (sender, mut receiver) = parts.daemon_end()?;
        let socket = watch(OwnedFd::from(ours), Interest::READABLE | Interest::WRITABLE)?;
        let ready = tokio::select! {
            ready = timeout(READY_MAX, ready(&mut receiver)) => ready,
            () = hang_up(&socket) => Ok(Err(StartError::NotReady("it ended".to_owned()))),
        };
        let walls = match ready {
            Ok(Ok(walls)) => walls,
            Ok(Err(StartError::NotReady(what))) => {
                let said = last_words(&mut spawned.stderr).await;
                return Err(StartError::NotReady(
                    format!("{what} {said}").trim_end().to_owned(),
                ));
            }
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(StartError::NotReady("it takes too long".to_owned())),
        };
        let link = Arc::new(Self {
            pid: spawned.child.id(),
            sender,
            socket,
            calls: Mutex::default(),
            next_call: AtomicU64::new(0),
            running: AtomicU32::new(0),
            loaded: RwLock::default(),
            loading: tokio::sync::Mutex::default(),
            dead: AtomicBool::new(false),
            #[cfg(test)]
            escaped: Inbox::default(),
        });
        let keep = Keep {
            link,
            receiver,
            spawned,
        };
        Ok((keep, walls))
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// Calls that run there.
    pub(super) fn running(&self) -> u32 {
        self.running.load(Ordering::Relaxed)
    }

    /// Has code loaded, unless it is already.
    ///
    /// # Errors
    /// The executor has ended.
    pub(super) async fn load(&self, code: &Arc<Code>) -> Result<(), Gone> {
        if self.has(code.id()) {
            return Ok(());
        }
        let _alone = self.loading.lock().await;
        if self.has(code.id()) {
            return Ok(());
        }
        // What nobody needs any more goes when room is taken.
        for id in self.unneeded() {
            self.send(&ToExecutor::Unload(id)).await?;
        }
        let bytes = code.sealed().map_err(|_| Gone)?;
        self.socket
            .async_io(Interest::WRITABLE, |socket| {
                socket::send(socket, b"c", &[bytes.file().as_fd()])
            })
            .await
            .map_err(|_| Gone)?;
        self.send(&ToExecutor::Load(code.id(), code.kind())).await?;
        write(&self.loaded).insert(code.id(), Arc::downgrade(code));
        Ok(())
    }

    fn has(&self, id: CodeId) -> bool {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        loaded.contains_key(&id)
    }

    /// Takes out the code that nobody else has any more.
    fn unneeded(&self) -> Vec<CodeId> {
        let mut loaded = write(&self.loaded);
        let gone = loaded.extract_if(|_, code| code.strong_count() == 0);
        gone.map(|(id, _)| id).collect()
    }

    /// Begins a call. Dropping what is returned cancels it.
    ///
    /// # Errors
    /// The executor has ended.
    pub(super) async fn begin(self: &Arc<Self>, run: impl FnOnce(CallId) -> Run) -> Result<Handle, Gone> {
        let call = self.next_call.fetch_add(1, Ordering::Relaxed);
        let run = run(call);
        let inbox = Inbox::default();
        let entry = Entry {
            inbox: inbox.clone(),
            bytes_left: bytes_max(&run.limits),
        };
        self.lock().insert(call, entry);
        self.running.fetch_add(1, Ordering::Relaxed);
        let handle = Handle {
            link: Arc::clone(self),
            call,
            inbox,
            ended: false,
        };
        if self.is_dead() {
            return Err(Gone);
        }
        self.send(&ToExecutor::Run(Box::new(run))).await?;
        Ok(handle)
    }

    /// Sends a message, and waits while there is no room for it.
    pub(super) async fn send(&self, message: &ToExecutor) -> Result<(), Gone> {
        let frame = frame(message);
        loop {
            match self.sender.push(&frame) {
                Ok(Ok(())) => break,
                Ok(Err(_)) if !self.is_dead() => tokio::time::sleep(FULL_WAIT).await,
                Ok(Err(_)) | Err(Violation) => return Err(Gone),
            }
        }
        self.sender.flush();
        Ok(())
    }

    /// Sends a message if there is room for it.
    fn try_send(&self, message: &ToExecutor) {
        if let Ok(Ok(())) = self.sender.push(&frame(message)) {
            self.sender.flush();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CallId, Entry>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a message to who waits for it; gives who has to be woken.
    fn on_message(&self, message: FromExecutor) -> Result<Option<Waker>, Violation> {
        let (call, events, outcome) = match message {
            FromExecutor::Turn(call, events, outcome) => (call, events, outcome),
            FromExecutor::Taken(call) => {
                let calls = self.lock();
                return Ok(calls.get(&call).and_then(|entry| entry.inbox.put([Said::Taken])));
            }
            FromExecutor::Pong => return Ok(None),
            FromExecutor::Ready(_) | FromExecutor::Unfit(_) => return Err(Violation),
            #[cfg(test)]
            FromExecutor::Escaped(what) => {
                let result = what.map_err(|message| orb_runtime::GuestFault::Internal { message });
                let outcome = orb_runtime::Outcome {
                    result,
                    ..orb_runtime::Outcome::not_started()
                };
                return Ok(self.escaped.put([Said::Ended(Box::new(outcome))]));
            }
        };
        let mut calls = self.lock();
        // Nobody waits any more for a call that was cancelled.
        let Some(entry) = calls.get_mut(&call) else {
            return Ok(None);
        };
        for event in &events {
            if let Event::Output(piece) | Event::Log(piece) = event {
                let left = entry.bytes_left.checked_sub(piece.len() as u64);
                entry.bytes_left = left.ok_or(Violation)?;
            }
        }
        let ended = outcome.is_some();
        let events = events.into_iter().map(Said::Event);
        let waker = entry.inbox.put(events.chain(outcome.map(Said::Ended)));
        if ended {
            calls.remove(&call);
        }
        Ok(waker)
    }

    /// Tells everybody who waits that nothing more comes. `entered` is the call whose guest may have been
    /// in its first turn.
    fn lose(&self, why: &Arc<str>, entered: Option<CallId>) {
        self.dead.store(true, Ordering::Release);
        let calls = std::mem::take(&mut *self.lock());
        for (call, entry) in calls {
            let started = (Some(call) == entered).then_some(Said::Event(Event::Started));
            let waker = entry
                .inbox
                .put(started.into_iter().chain([Said::Lost(Arc::clone(why))]));
            waker.into_iter().for_each(Waker::wake);
        }
    }
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// What may come of one call, in bytes.
fn bytes_max(limits: &Limits) -> u64 {
    limits
        .output_bytes
        .saturating_add(limits.log_bytes)
        .saturating_add(SLACK_BYTES)
}

/// The executor has ended; nothing of what was not sent has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

/// A call that runs.
#[derive(Debug)]
pub(super) struct Handle {
    link: Arc<Link>,
    call: CallId,
    inbox: Inbox,
    ended: bool,
}

impl Handle {
    /// Waits for what is said of it.
    pub(super) async fn next(&mut self) -> Said {
        let said = self.inbox.next().await;
        self.ended = matches!(said, Said::Ended(_) | Said::Lost(_));
        said
    }

    /// Sends a piece of its input; an empty one ends it.
    ///
    /// # Errors
    /// The executor has ended.
    pub(super) async fn feed(&self, piece: bytes::Bytes) -> Result<(), Gone> {
        self.link.send(&ToExecutor::Input(self.call, piece)).await
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.link.running.fetch_sub(1, Ordering::Relaxed);
        if !self.ended {
            self.link.lock().remove(&self.call);
            // If the ring is full the guest runs to its limits, and nobody listens.
            self.link.try_send(&ToExecutor::Cancel(self.call));
        }
    }
}

impl Keep {
    pub(super) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// Passes on what the executor says, until it ends or has to be ended. What it had said before is
    /// passed on, and then everybody who still waits hears that it is lost.
    pub(super) async fn keep(mut self) -> Arc<str> {
        let link = Arc::clone(&self.link);
        let why = tokio::select! {
            Violation = pass_on(&link, &mut self.receiver) => "it did what no executor does",
            () = hang_up(&link.socket) => "it ended",
        };
        // Neither guest nor process goes on behind our backs.
        let _ = self.spawned.child.kill();
        let status = self.spawned.child.wait();
        let mut frame = Vec::new();
        while let Ok(true) = self.receiver.pop(&mut frame) {
            let Ok(Ok(waker)) = message::message(&frame).map(|message| link.on_message(message)) else {
                break;
            };
            waker.into_iter().for_each(Waker::wake);
        }
        let said = last_words(&mut self.spawned.stderr).await;
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        let why: Arc<str> = format!("{why} ({status}) {said}").trim_end().into();
        link.lose(&why, message::entered(self.receiver.note()));
        why
    }
}

/// Passes messages on until one is not what it should be, or none comes for too long.
async fn pass_on(link: &Link, receiver: &mut Receiver) -> Violation {
    let mut frame = Vec::new();
    let mut wakers = Vec::new();
    let mut pings = tokio::time::interval(PING);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Since when it owes us an answer.
    let mut asked: Option<Instant> = None;
    loop {
        let mut heard = false;
        while match receiver.pop(&mut frame) {
            Ok(more) => more,
            Err(violation) => return violation,
        } {
            heard = true;
            match message::message(&frame).and_then(|message| link.on_message(message)) {
                Ok(waker) => wakers.extend(waker),
                Err(violation) => return violation,
            }
        }
        wakers.drain(..).for_each(Waker::wake);
        if heard {
            asked = None;
            // Those who were woken come first.
            tokio::task::yield_now().await;
            continue;
        }
        tokio::select! {
            waited = receiver.wait() => if let Err(violation) = waited { return violation },
            _ = pings.tick() => {
                if asked.is_some_and(|asked| asked.elapsed() > WEDGED_AFTER) {
                    tracing::warn!(pid = link.pid, "an executor hangs");
                    return Violation;
                }
                asked.get_or_insert_with(Instant::now);
                link.try_send(&ToExecutor::Ping);
            }
        }
    }
}

async fn ready(receiver: &mut Receiver) -> Result<Vec<Wall>, StartError> {
    let broken = |Violation| StartError::NotReady("it says what no executor says".to_owned());
    let mut frame = Vec::new();
    while !receiver.pop(&mut frame).map_err(broken)? {
        receiver.wait().await.map_err(broken)?;
    }
    match message::message(&frame).map_err(broken)? {
        FromExecutor::Ready(walls) => Ok(walls),
        FromExecutor::Unfit(why) => Err(StartError::Unfit(why)),
        _ => Err(broken(Violation)),
    }
}

/// What a process said on its standard error, as one line of plain text.
async fn last_words(stderr: &mut pipe::Receiver) -> String {
    let mut said = Vec::new();
    let mut stderr = stderr.take(STDERR_BYTES_MAX);
    let _ = timeout(LAST_WORDS_MAX, stderr.read_to_end(&mut said)).await;
    let text = String::from_utf8_lossy(&said);
    let words: Vec<&str> = text.split(|letter: char| letter.is_control()).collect();
    words.join(" ").trim().to_owned()
}
