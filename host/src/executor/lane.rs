//! How guests share the one thread of an executor.
//!
//! Most calls take well under a millisecond, and those that take longer give way a thousand times a
//! second. A guest that has used up [`QUICK_MAX`] moves to the slow lane, which gives one guest one
//! turn in each round of the event loop: however many endless loops there are, a call that comes in waits for
//! one turn of one of them, and not for a turn of each.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};

/// How long a guest runs as one of the quick ones. Several times what a JavaScript call of ordinary
/// size takes (0.1 ms).
const QUICK_MAX: Duration = Duration::from_millis(1);

/// The slow lane.
#[derive(Debug, Clone, Default)]
pub(super) struct Lane(Arc<Turns>);

#[derive(Debug)]
struct Turns {
    /// A turn that was given and not taken yet.
    given: Semaphore,
    waiting: AtomicUsize,
    wanted: Notify,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            given: Semaphore::new(0),
            waiting: AtomicUsize::new(0),
            wanted: Notify::new(),
        }
    }
}

impl Lane {
    /// Gives turns, one in each round of the event loop that it runs in. It never ends.
    pub(super) async fn give_turns(&self) {
        loop {
            if self.0.waiting.load(Ordering::Relaxed) == 0 {
                self.0.wanted.notified().await;
            } else {
                if self.0.given.available_permits() == 0 {
                    self.0.given.add_permits(1);
                }
                // To the next round: after everybody else, and after a look at timers and descriptors.
                tokio::task::yield_now().await;
            }
        }
    }

    /// A guest that takes turns, until it ends.
    pub(super) fn pace<F: Future + ?Sized>(&self, guest: Pin<Box<F>>) -> Paced<F> {
        Paced {
            guest,
            ran: Duration::ZERO,
            turn: None,
            turns: Arc::clone(&self.0),
        }
    }
}

/// A guest that takes turns.
pub(super) struct Paced<F: ?Sized> {
    guest: Pin<Box<F>>,
    ran: Duration,
    /// Waiting for the lane.
    turn: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    turns: Arc<Turns>,
}

impl<F: Future + ?Sized> Future for Paced<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        if this.ran > QUICK_MAX {
            let turns = &this.turns;
            let turn = this
                .turn
                .get_or_insert_with(|| Box::pin(take_turn(Arc::clone(turns))));
            if turn.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            this.turn = None;
        }
        let began = Instant::now();
        let polled = this.guest.as_mut().poll(context);
        this.ran += began.elapsed();
        polled
    }
}

async fn take_turn(turns: Arc<Turns>) {
    /// Counts who waits, also if it is given up.
    struct Waiting<'a>(&'a AtomicUsize);
    impl Drop for Waiting<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
    turns.waiting.fetch_add(1, Ordering::Relaxed);
    let _waiting = Waiting(&turns.waiting);
    turns.wanted.notify_one();
    // The semaphore is never closed.
    if let Ok(turn) = turns.given.acquire().await {
        turn.forget();
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Keeps the thread busy a little, gives way, and so on.
    async fn spin(turns: usize, counter: Arc<AtomicUsize>) -> usize {
        for _ in 0..turns {
            let end = Instant::now() + Duration::from_millis(2);
            while Instant::now() < end {
                std::hint::spin_loop();
            }
            counter.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
        turns
    }

    fn lane() -> Lane {
        let lane = Lane::default();
        let giving = lane.clone();
        tokio::spawn(async move { giving.give_turns().await });
        lane
    }

    #[tokio::test]
    async fn a_call_waits_for_one_turn_of_the_slow_ones() {
        let lane = lane();
        let counter = Arc::new(AtomicUsize::new(0));
        let slow: Vec<_> = (0..16)
            .map(|_| {
                let (lane, counter) = (lane.clone(), Arc::clone(&counter));
                tokio::spawn(async move { lane.pace(Box::pin(spin(usize::MAX, counter))).await })
            })
            .collect();
        // Each has its quick turn first.
        while counter.load(Ordering::Relaxed) < 64 {
            tokio::task::yield_now().await;
        }
        let mut waited = Vec::new();
        for _ in 0..8 {
            let before = counter.load(Ordering::Relaxed);
            lane.pace(Box::pin(tokio::task::yield_now())).await;
            waited.push(counter.load(Ordering::Relaxed) - before);
        }
        waited.sort_unstable();
        assert!(
            waited[4] <= 3,
            "turns of slow guests during a quick call: {waited:?}"
        );
        for slow in slow {
            slow.abort();
        }
    }

    #[tokio::test]
    async fn slow_guests_all_get_on() {
        let lane = lane();
        let guests: Vec<_> = (0..4)
            .map(|_| {
                let lane = lane.clone();
                tokio::spawn(async move { lane.pace(Box::pin(spin(3, Arc::default()))).await })
            })
            .collect();
        for guest in guests {
            assert_eq!(guest.await.unwrap(), 3);
        }
    }
}
