//! Admission: which calls run now, which wait, and which are turned away.
//!
//! A call first takes a [`Place`]: there are as many as calls may run and wait together, and
//! without one it is turned away before anything was done for it. Then it waits for its [`Turn`],
//! first come, first served.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The shortest wait that is proposed to somebody who was turned away: calls end all the time, and
/// the round trip back takes some of it (a guess).
const RETRY_AFTER_MIN: Duration = Duration::from_millis(50);
/// The longest: after it the queue looks altogether different.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);

/// The host's places and turns.
#[derive(Debug)]
pub(crate) struct Queue {
    capacity: u32,
    places_max: u32,
    places: AtomicU32,
    turns: Arc<Semaphore>,
}

/// The right to wait for a turn, and to be counted as waiting.
#[derive(Debug)]
pub(crate) struct Place(Arc<Queue>);

/// The right to run a guest, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    _turn: OwnedSemaphorePermit,
    _place: Place,
}

impl Queue {
    /// A queue in which `capacity` calls run and `waiting_max` more wait.
    pub(crate) fn new(capacity: u32, waiting_max: u32) -> Arc<Self> {
        let capacity = capacity.clamp(1, u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        Arc::new(Self {
            capacity,
            places_max: capacity.saturating_add(waiting_max),
            places: AtomicU32::new(0),
            turns: Arc::new(Semaphore::new(capacity as usize)),
        })
    }

    /// A place, or `None` when as many calls are running and waiting as may.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Place> {
        let more = |taken| (taken < self.places_max).then_some(taken + 1);
        let taken = self
            .places
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.is_ok().then(|| Place(Arc::clone(self)))
    }

    /// Calls that run.
    pub(crate) fn running(&self) -> u32 {
        let free = u32::try_from(self.turns.available_permits()).unwrap_or(u32::MAX);
        self.capacity.saturating_sub(free)
    }

    /// Calls that have a place and do not run yet.
    pub(crate) fn waiting(&self) -> u32 {
        self.places.load(Ordering::Relaxed).saturating_sub(self.running())
    }

    /// When there may be room again, if a call takes `run_us` microseconds on average.
    pub(crate) fn retry_after(&self, run_us: u32) -> Duration {
        let rounds = u64::from(self.waiting()) / u64::from(self.capacity) + 1;
        Duration::from_micros(rounds.saturating_mul(run_us.into())).clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX)
    }
}

impl Place {
    /// Waits until it is this call's turn.
    pub(crate) async fn turn(self) -> Turn {
        let turns = Arc::clone(&self.0.turns);
        let turn = turns
            .acquire_owned()
            .await
            .expect("the queue's semaphore is never closed");
        Turn {
            _turn: turn,
            _place: self,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.places.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn so_many_run_so_many_wait_and_the_next_is_turned_away() {
        let queue = Queue::new(1, 2);
        let first = queue.enter().unwrap().turn().await;
        let second = queue.enter().unwrap();
        let third = queue.enter().unwrap();
        assert_eq!((queue.running(), queue.waiting()), (1, 2));
        assert!(queue.enter().is_none());
        // Somebody who gives up waiting makes room for another one.
        drop(third);
        assert!(queue.enter().is_some());
        drop(first);
        let second = second.turn().await;
        assert_eq!((queue.running(), queue.waiting()), (1, 0));
        drop(second);
        assert_eq!((queue.running(), queue.waiting()), (0, 0));
    }

    #[tokio::test]
    async fn the_first_to_come_is_the_first_to_run() {
        let queue = Queue::new(1, 8);
        let running = queue.enter().unwrap().turn().await;
        let (done, mut order) = tokio::sync::mpsc::channel(8);
        for number in 0..4 {
            let (place, done) = (queue.enter().unwrap(), done.clone());
            tokio::spawn(async move {
                let _turn = place.turn().await;
                done.send(number).await.unwrap();
            });
            tokio::task::yield_now().await;
        }
        drop((running, done));
        for number in 0..4 {
            assert_eq!(order.recv().await, Some(number));
        }
    }

    #[test]
    fn the_wait_that_is_proposed_grows_with_the_queue_within_bounds() {
        let queue = Queue::new(2, 100);
        assert_eq!(queue.retry_after(10), RETRY_AFTER_MIN);
        let places: Vec<Place> = (0..40).map(|_| queue.enter().unwrap()).collect();
        assert_eq!(queue.retry_after(100_000), Duration::from_millis(2_100));
        assert_eq!(queue.retry_after(u32::MAX), RETRY_AFTER_MAX);
        drop(places);
    }
}
