//! What an executor says of one call, on its way to who waits for it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use orb_runtime::{Event, Outcome};

/// What is said of a call.
#[derive(Debug)]
pub(super) enum Said {
    /// Something happened.
    Event(Event),
    /// The guest took a piece of its input.
    Taken,
    /// It has ended.
    Ended(Box<Outcome>),
    /// Its executor has; nothing more comes.
    Lost(Arc<str>),
}

#[derive(Debug, Default)]
struct State {
    said: VecDeque<Said>,
    reader: Option<Waker>,
}

/// A queue with one reader. What the guest may write bounds it.
#[derive(Debug, Clone, Default)]
pub(super) struct Inbox(Arc<Mutex<State>>);

impl Inbox {
    /// Puts something in, and gives who has to be woken for it: after all of a batch is put in.
    pub(super) fn put(&self, said: impl IntoIterator<Item = Said>) -> Option<Waker> {
        let mut state = self.lock();
        state.said.extend(said);
        state.reader.take()
    }

    /// Waits for the next.
    pub(super) async fn next(&self) -> Said {
        poll_fn(|context| {
            let mut state = self.lock();
            match state.said.pop_front() {
                Some(said) => Poll::Ready(said),
                None => {
                    state.reader = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
