//! Measures how long a guest waits in a host call.
//!
//! Waiting ends when what was waited for happens, not when the guest gets its next turn: on a busy
//! machine that may be much later, and is not the guest's doing.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use crate::wasi::stdio::SharedPipes;

/// Waits for `future` and adds the time to the guest's account, at most `at_most` (a sleep takes
/// what was asked for, even if the timer is late).
pub(crate) async fn measured<F: Future>(
    pipes: &SharedPipes,
    at_most: Option<Duration>,
    future: F,
) -> F::Output {
    let mut future = pin!(future);
    let alarm = Arc::new(Alarm::default());
    let waker = Waker::from(Arc::clone(&alarm));
    let since = Instant::now();
    std::future::poll_fn(|context| {
        alarm.set(context.waker());
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        let mut pipes = pipes.lock();
        match polled {
            Poll::Pending => pipes.waiting_since = Some(since),
            Poll::Ready(_) => {
                let waited = alarm.rang_at().saturating_duration_since(since);
                pipes.waited += at_most.map_or(waited, |most| waited.min(most));
                pipes.waiting_since = None;
            }
        }
        polled
    })
    .await
}

/// Gives way to other guests once. Not a wait: it takes no time of the guest's.
pub(crate) async fn give_way() {
    let mut gave = false;
    std::future::poll_fn(|context| {
        if gave {
            return Poll::Ready(());
        }
        gave = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Notes when it was woken, and wakes the guest's task.
#[derive(Debug, Default)]
struct Alarm(Mutex<(Option<Waker>, Option<Instant>)>);

impl Alarm {
    /// Whom to wake from now on.
    fn set(&self, waker: &Waker) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut state.0 {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    /// The last ring, or now if what was waited for was there at once.
    fn rang_at(&self) -> Instant {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.1.unwrap_or_else(Instant::now)
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let waker = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.1 = Some(Instant::now());
            state.0.clone()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
