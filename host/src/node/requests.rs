//! Requests that run, and the outcomes that nobody took yet, by caller and request id.
//!
//! A request's answer is collected here while the guest runs, and each stream that asks for it (the
//! call's own, or an attachment after a lost connection) reads it from its beginning:
//!
//! | request | on | becomes |
//! | --- | --- | --- |
//! | running, read | its reader's connection is lost | running, unread: goes on for 30 s |
//! | running, unread | nobody attached for 30 s | cancelled |
//! | running | its reader gives up (a reset stream) | cancelled |
//! | running | attached again | running, read by the new reader; the old one is told |
//! | running | guest ended | finished |
//! | finished | all of it acknowledged by the caller's machine | forgotten |
//! | finished | 30 s passed, or memory is short | forgotten |
//!
//! A request that did not start is forgotten at once: the caller may try it again, here or elsewhere.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use orb_protocol::fault::{Fault, FaultKind};
use orb_protocol::id::{FunctionId, NodeId, RequestId};
use orb_protocol::wire::call::{Started, Trailer};
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a request runs on, and an outcome is kept, when nobody reads it (the brief).
pub(crate) const KEPT_FOR: Duration = Duration::from_secs(30);
/// Finished requests that are kept; beyond it the oldest of the caller with most of them go. Only those whose caller did not take
/// everything stay, so this many callers can be cut off at the same moment.
const FINISHED_MAX: usize = 4_096;
/// Bytes of answers in memory, all requests together: 32 answers of the default limit. Above it
/// finished requests are forgotten, first the oldest of the caller whose answers take most, so that one
/// who does not read forgets for itself; and running ones forget what was read of them. So
/// there is never more than this, and what the guests that run at one time have not got rid of.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Who asks for what: a request id is its caller's own.
type Key = (NodeId, RequestId);

/// All requests of a host.
#[derive(Debug)]
pub(crate) struct Requests {
    table: Mutex<Table>,
    answer_bytes: Arc<AtomicUsize>,
    answer_bytes_max: usize,
}

#[derive(Debug, Default)]
struct Table {
    running: HashMap<Key, Arc<Request>>,
    /// In the order in which they ended.
    finished: BTreeMap<u64, (Instant, Arc<Request>)>,
    by_key: HashMap<Key, u64>,
    ended: u64,
}

/// One request.
#[derive(Debug)]
struct Request {
    key: Key,
    function: FunctionId,
    state: watch::Sender<State>,
    cancelled: watch::Sender<bool>,
    readers: AtomicU64,
    /// The host's count that this request's answer is part of.
    answer_bytes: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct State {
    started: Option<Started>,
    /// The answer so far, but for its first `forgotten` pieces.
    pieces: Vec<Bytes>,
    forgotten: usize,
    bytes: usize,
    /// How many pieces the reader took.
    taken: usize,
    end: Option<Result<Trailer, Fault>>,
    /// The reader whose verdict counts: the last that came.
    reader: u64,
    /// Since when nobody reads.
    unread: Option<Instant>,
}

/// What became of a request that was to begin.
#[derive(Debug)]
pub(crate) enum Begun {
    /// It is new: run it, and read it.
    New(Runner, Reader),
    /// It runs already, or did.
    Known(Reader),
}

/// The side of a request that runs the guest. Dropped without [`Runner::end`] it says that the call
/// was cancelled.
#[derive(Debug)]
pub(crate) struct Runner {
    requests: Arc<Requests>,
    request: Arc<Request>,
}

/// The side of a request that answers a stream. Dropped without a verdict it counts as lost.
#[derive(Debug)]
pub(crate) struct Reader {
    requests: Arc<Requests>,
    request: Arc<Request>,
    changes: watch::Receiver<State>,
    number: u64,
    said_started: bool,
    next: usize,
    settled: bool,
}

/// What a reader has to pass on next.
#[derive(Debug)]
pub(crate) enum Step {
    /// The guest is about to be entered.
    Started(Started),
    /// A piece of the answer.
    Output(Bytes),
    /// How the call ended; nothing follows.
    Ended(Trailer),
    /// The call did not start; nothing follows.
    NotStarted(Fault),
    /// Another stream has taken over, or the answer is not whole any more; nothing follows.
    Superseded,
}

impl Requests {
    /// No requests yet.
    pub(crate) fn new() -> Arc<Self> {
        Self::within(ANSWER_BYTES_MAX)
    }

    fn within(answer_bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            table: Mutex::default(),
            answer_bytes: Arc::default(),
            answer_bytes_max,
        })
    }

    /// Begins a request; if the caller has used its id before, that request is attached to.
    ///
    /// # Errors
    /// The id is in use for another function.
    pub(crate) fn begin(
        self: &Arc<Self>,
        caller: NodeId,
        request: RequestId,
        function: FunctionId,
    ) -> Result<Begun, Fault> {
        let key = (caller, request);
        let mut table = self.table();
        if let Some(known) = table.find(&key) {
            drop(table);
            if known.function != function {
                let message = format!("the request id {request} is in use for a call of another function");
                return Err(Fault::new(FaultKind::InputInvalid, message).help("draw a new id for each call"));
            }
            return Ok(Begun::Known(self.reader(known)));
        }
        let request = Arc::new(Request {
            key,
            function,
            state: watch::Sender::default(),
            cancelled: watch::Sender::default(),
            readers: AtomicU64::new(0),
            answer_bytes: Arc::clone(&self.answer_bytes),
        });
        table.running.insert(key, Arc::clone(&request));
        drop(table);
        let runner = Runner {
            requests: Arc::clone(self),
            request: Arc::clone(&request),
        };
        Ok(Begun::New(runner, self.reader(request)))
    }

    /// Reads a request again from its beginning, if it is still known.
    pub(crate) fn attach(self: &Arc<Self>, caller: NodeId, request: RequestId) -> Option<Reader> {
        let known = self.table().find(&(caller, request))?;
        Some(self.reader(known))
    }

    /// Time passed; call it about once a second.
    pub(crate) fn on_tick(&self, now: Instant) {
        let mut table = self.table();
        for request in table.running.values() {
            let unread = request.state.borrow().unread;
            if unread.is_some_and(|since| now.saturating_duration_since(since) > KEPT_FOR) {
                request.cancel();
            }
        }
        while let Some((number, (ended, _))) = table.finished.first_key_value()
            && now.saturating_duration_since(*ended) > KEPT_FOR
        {
            let number = *number;
            table.forget(number);
        }
    }

    /// Requests that run.
    pub(crate) fn running(&self) -> usize {
        self.table().running.len()
    }

    /// Requests whose outcome is kept.
    #[cfg(test)]
    pub(crate) fn finished(&self) -> usize {
        self.table().finished.len()
    }

    fn reader(self: &Arc<Self>, request: Arc<Request>) -> Reader {
        let number = request.readers.fetch_add(1, Ordering::Relaxed) + 1;
        request.state.send_modify(|state| {
            state.reader = number;
            state.unread = None;
        });
        Reader {
            requests: Arc::clone(self),
            changes: request.state.subscribe(),
            request,
            number,
            said_started: false,
            next: 0,
            settled: false,
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_short_of_memory(&self, more: usize) -> bool {
        self.answer_bytes.load(Ordering::Relaxed) + more > self.answer_bytes_max
    }
}

impl Table {
    fn find(&self, key: &Key) -> Option<Arc<Request>> {
        let finished = || {
            self.finished
                .get(self.by_key.get(key)?)
                .map(|(_, request)| request)
        };
        self.running.get(key).or_else(finished).cloned()
    }

    fn finish(&mut self, request: &Arc<Request>) {
        self.ended += 1;
        let number = self.ended;
        self.by_key.insert(request.key, number);
        self.finished
            .insert(number, (Instant::now(), Arc::clone(request)));
        if self.finished.len() > FINISHED_MAX {
            self.forget_of_heaviest(|_| 1);
        }
    }

    /// Forgets the oldest request of the caller whose finished ones weigh most. It looks at all of them
    /// (a tenth of a millisecond at worst), which is only needed when there are too many.
    fn forget_of_heaviest(&mut self, weight: fn(&Request) -> usize) -> bool {
        let mut callers: HashMap<NodeId, (usize, u64)> = HashMap::new();
        for (number, (_, request)) in &self.finished {
            let (total, _) = callers.entry(request.key.0).or_insert((0, *number));
            *total += weight(request);
        }
        let weighty = callers.into_values().filter(|(total, _)| *total > 0);
        let heaviest = weighty.max_by_key(|(total, oldest)| (*total, Reverse(*oldest)));
        heaviest.is_some_and(|(_, oldest)| self.forget(oldest))
    }

    fn forget(&mut self, number: u64) -> bool {
        let Some((_, request)) = self.finished.remove(&number) else {
            return false;
        };
        self.by_key.remove(&request.key);
        request.release();
        true
    }
}

impl Request {
    /// Bytes of its answer in memory.
    fn bytes(&self) -> usize {
        self.state.borrow().bytes
    }

    fn cancel(&self) {
        self.cancelled.send_replace(true);
    }

    /// Gives the answer's memory back. Whoever still reads is told.
    fn release(&self) {
        self.state.send_modify(|state| {
            state.forgotten += state.pieces.len();
            state.pieces = Vec::new();
            let bytes = std::mem::take(&mut state.bytes);
            self.answer_bytes.fetch_sub(bytes, Ordering::Relaxed);
        });
    }

    /// Gives the memory of what the reader took back: nobody can attach any more.
    fn release_taken(&self) {
        self.state.send_modify(|state| {
            let taken = state
                .taken
                .saturating_sub(state.forgotten)
                .min(state.pieces.len());
            let bytes: usize = state.pieces.drain(..taken).map(|piece| piece.len()).sum();
            state.forgotten += taken;
            state.bytes -= bytes;
            self.answer_bytes.fetch_sub(bytes, Ordering::Relaxed);
        });
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.release();
    }
}

impl Runner {
    /// The guest is about to be entered. Said again it does nothing.
    pub(crate) fn start(&self, started: Started) {
        self.request.state.send_if_modified(|state| {
            let first = state.started.is_none();
            if first {
                state.started = Some(started);
            }
            first
        });
    }

    /// Whether [`Runner::start`] was called.
    pub(crate) fn has_started(&self) -> bool {
        self.request.state.borrow().started.is_some()
    }

    /// Adds a piece of the answer.
    pub(crate) fn output(&self, piece: Bytes) {
        let len = piece.len();
        while self.requests.is_short_of_memory(len) {
            if !self.requests.table().forget_of_heaviest(Request::bytes) {
                self.request.release_taken();
                break;
            }
        }
        self.request.answer_bytes.fetch_add(len, Ordering::Relaxed);
        self.request.state.send_modify(|state| {
            state.bytes += len;
            state.pieces.push(piece);
        });
    }

    /// The call ended: with a trailer if it had started, else with a fault.
    pub(crate) fn end(&self, end: Result<Trailer, Fault>) {
        // In this order: a caller that hears that the call did not start may begin it again at once.
        let mut table = self.requests.table();
        let running = table.running.get(&self.request.key);
        if !running.is_some_and(|running| Arc::ptr_eq(running, &self.request)) {
            // It ended before, and its id may be in use again.
            return;
        }
        table.running.remove(&self.request.key);
        if end.is_ok() {
            table.finish(&self.request);
        }
        drop(table);
        self.request.state.send_modify(|state| state.end = Some(end));
    }

    /// How a call ends that did not come to its own end: before or after its start.
    pub(crate) fn ended_early(&self, fault: Fault) -> Result<Trailer, Fault> {
        if self.has_started() {
            Ok(ended_by(fault))
        } else {
            Err(fault)
        }
    }

    /// Returns when nobody wants the answer any more.
    pub(crate) async fn cancelled(&self) {
        let mut cancelled = self.request.cancelled.subscribe();
        // The sender lives as long as the request.
        let _ = cancelled.wait_for(|cancelled| *cancelled).await;
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let fault = Fault::new(FaultKind::HostLost, "the call was cancelled");
        self.end(self.ended_early(fault));
    }
}

/// The trailer of a call that ended without having used anything that is known.
pub(crate) fn ended_by(fault: Fault) -> Trailer {
    Trailer {
        fault: Some(fault),
        fuel: 0,
        memory_peak_bytes: 0,
        queued_us: 0,
        guest_us: 0,
        compile_us: 0,
        log_truncated: false,
        extensions: orb_protocol::wire::extension::Extensions::none(),
    }
}

impl Reader {
    /// The next thing to pass on, when it is there. Cancelling it loses nothing.
    pub(crate) async fn next(&mut self) -> Step {
        loop {
            if let Some(step) = self.next_now() {
                return step;
            }
            if self.changes.changed().await.is_err() {
                return Step::Superseded;
            }
        }
    }

    fn poll(&mut self) -> Option<Step> {
        let state = self.changes.borrow_and_update();
        if state.reader != self.number || self.next < state.forgotten {
            return Some(Step::Superseded);
        }
        if !self.said_started {
            if let Some(started) = &state.started {
                self.said_started = true;
                return Some(Step::Started(started.clone()));
            }
            let not_started = state.end.as_ref().and_then(|end| end.as_ref().err());
            return not_started.map(|fault| Step::NotStarted(fault.clone()));
        }
        if let Some(piece) = state.pieces.get(self.next - state.forgotten) {
            self.next += 1;
            return Some(Step::Output(piece.clone()));
        }
        match state.end.as_ref()? {
            Ok(trailer) => Some(Step::Ended(trailer.clone())),
            Err(fault) => Some(Step::Ended(ended_by(fault.clone()))),
        }
    }

    /// The next thing to pass on, if it is there already.
    pub(crate) fn next_now(&mut self) -> Option<Step> {
        let step = self.poll()?;
        let taken = self.next;
        self.request.state.send_if_modified(|state| {
            state.taken = state.taken.max(taken);
            false
        });
        Some(step)
    }

    /// The caller's machine has acknowledged all of it.
    pub(crate) fn delivered(mut self) {
        self.settled = true;
        let mut table = self.requests.table();
        if let Some(number) = table.by_key.get(&self.request.key).copied() {
            table.forget(number);
        }
    }

    /// The caller does not want the answer any more.
    pub(crate) fn gave_up(mut self) {
        self.settled = true;
        if self.request.state.borrow().reader == self.number {
            self.request.cancel();
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if !self.settled {
            self.request.state.send_if_modified(|state| {
                if state.reader == self.number {
                    state.unread = Some(Instant::now());
                }
                false
            });
        }
    }
}

#[cfg(test)]
#[path = "requests_tests.rs"]
mod tests;
