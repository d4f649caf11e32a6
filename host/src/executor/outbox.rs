//! What an executor says, gathered until it is worth a wake-up.
//!
//! The daemon is faster than most guests: woken for each it would sleep and wake as often as there are
//! calls. So it is woken when this thread has nothing else to do, or when something has been waiting for
//! [`GATHER_MAX`]; what it reads while it is awake needs no waking anyway.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use orb_runtime::{Event, Outcome};

use super::channel::Sender;
use super::message::{self, CallId, FromExecutor, frame};
use super::ring::Violation;

/// How long something waits for more to go with it: the time of some ten small calls, and not more than
/// what a call may have to wait for its turn anyway.
const GATHER_MAX: Duration = Duration::from_micros(100);
/// A full ring is looked at again after this time. The daemon empties it whatever else it does.
const FULL_WAIT: Duration = Duration::from_micros(50);

/// Where everything that an executor says goes through.
#[derive(Debug)]
pub(super) struct Outbox {
    sender: Sender,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What has happened in the turn that a guest has now.
    turn: Vec<Event>,
    /// Since when there is something that the daemon may not know of.
    unheard: Option<Instant>,
}

impl Outbox {
    pub(super) fn new(sender: Sender) -> Self {
        let state = Mutex::default();
        Self { sender, state }
    }

    /// Something happens in the turn of a call's guest.
    pub(super) fn on_event(&self, call: CallId, event: Event) {
        if event == Event::Started {
            // The guest comes next. If it takes this process with it the daemon still finds the note.
            self.sender.note(message::entering(call));
        }
        self.lock().turn.push(event);
    }

    /// A turn is over, and with it the call if there is an outcome.
    ///
    /// # Errors
    /// [`Violation`]: the daemon is not what it should be.
    pub(super) fn on_turn(&self, call: CallId, outcome: Option<Outcome>) -> Result<(), Violation> {
        let events = std::mem::take(&mut self.lock().turn);
        message::turn(call, events, outcome, |frame| self.push(frame))?;
        self.sender.note(0);
        self.flush_old();
        Ok(())
    }

    /// Says something else.
    ///
    /// # Errors
    /// As [`Outbox::on_turn`].
    pub(super) fn say(&self, message: &FromExecutor) -> Result<(), Violation> {
        self.push(&frame(message))
    }

    /// Wakes the daemon for what it has not been woken for.
    pub(super) fn flush(&self) {
        if self.lock().unheard.take().is_some() {
            self.sender.flush();
        }
    }

    fn flush_old(&self) {
        let unheard = self.lock().unheard;
        if unheard.is_some_and(|since| since.elapsed() > GATHER_MAX) {
            self.flush();
        }
    }

    /// Puts a frame into the ring, and waits as long as that is full.
    fn push(&self, frame: &[u8]) -> Result<(), Violation> {
        while self.sender.push(frame)?.is_err() {
            self.sender.flush();
            std::thread::sleep(FULL_WAIT);
        }
        self.lock().unheard.get_or_insert_with(Instant::now);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
