//! Who calls when: a closed or an open loop, its warm-up and its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use orb_protocol::client::{CallOptions, Client};
use orb_protocol::id::FunctionId;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::tally::{Moments, Shared};

/// Calls of an open loop that are on their way at one time. Beyond it calls are sent late, and their
/// latency counts from when they should have been sent all the same. More wait at hosts for nothing.
const ON_THE_WAY_MAX: usize = 4_096;
/// Calls that are due and were not sent yet, kept as their times; then the clock's thread waits.
const DUE_MAX: usize = 1_024;
/// What stands for no end: longer than anybody measures.
const FAR: Duration = Duration::from_secs(1 << 32);

/// When calls are made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Shape {
    /// So many at a time, each after the one before it.
    Closed { concurrency: u32 },
    /// At a steady rate.
    Open { per_second: f64 },
}

/// When calls count: those that should begin in it do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    starts: Instant,
    begins: Instant,
    ends: Option<Instant>,
}

/// Calls one function again and again. Clones share the work.
#[derive(Debug, Clone)]
pub(super) struct Load(Arc<Work>);

#[derive(Debug)]
struct Work {
    client: Client,
    function: FunctionId,
    input: Bytes,
    options: CallOptions,
    shape: Shape,
    window: Window,
    /// Calls that may still be counted.
    left: AtomicU64,
    tally: Shared,
}

/// What becomes of a call that should begin at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    WarmUp,
    Counted,
    /// The measurement is over.
    Never,
}

impl Window {
    /// A window that begins after the warm-up.
    pub(super) fn from_now(warm_up: Duration, duration: Option<Duration>) -> Self {
        let starts = Instant::now();
        let begins = starts + warm_up;
        Self {
            starts,
            begins,
            ends: duration.map(|duration| begins + duration),
        }
    }

    pub(super) fn warm_up(&self) -> Duration {
        self.begins - self.starts
    }

    pub(super) fn begins(&self) -> Instant {
        self.begins
    }
}

impl Work {
    fn due(&self, at: Instant) -> Due {
        if at < self.window.begins {
            return Due::WarmUp;
        }
        if self.window.ends.is_some_and(|ends| at >= ends) {
            return Due::Never;
        }
        let less = |left: u64| left.checked_sub(1);
        let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        left.map_or(Due::Never, |_| Due::Counted)
    }

    /// Makes a call that should have begun at a time.
    async fn call(&self, intended: Instant, due: Due) {
        let sent = Instant::now();
        let result = self
            .client
            .call(self.function, self.input.clone(), self.options.clone());
        let result = result.await;
        if due == Due::Counted {
            let moments = Moments {
                intended,
                sent,
                ended: Instant::now(),
            };
            let result = result.as_ref().map(|answer| &answer.report);
            self.tally.lock().record(moments, result);
        }
    }
}

impl Load {
    pub(super) fn new(
        client: Client,
        function: FunctionId,
        input: Bytes,
        options: CallOptions,
        shape: Shape,
        window: Window,
        requests: Option<u64>,
    ) -> Self {
        Self(Arc::new(Work {
            client,
            function,
            input,
            options,
            shape,
            window,
            left: AtomicU64::new(requests.unwrap_or(u64::MAX)),
            tally: Shared::new(),
        }))
    }

    /// What is measured.
    pub(super) fn tally(&self) -> Shared {
        self.0.tally.clone()
    }

    /// Makes all calls and waits for their ends. Dropping the future gives up those on their way.
    pub(super) async fn run(&self) {
        match self.0.shape {
            Shape::Closed { concurrency } => self.closed(concurrency).await,
            Shape::Open { per_second } => self.open(per_second).await,
        }
    }

    async fn closed(&self, concurrency: u32) {
        let mut callers = JoinSet::new();
        for _ in 0..concurrency {
            let work = Arc::clone(&self.0);
            callers.spawn(async move {
                loop {
                    let now = Instant::now();
                    match work.due(now) {
                        Due::Never => break,
                        due => work.call(now, due).await,
                    }
                }
            });
        }
        while callers.join_next().await.is_some() {}
    }

    async fn open(&self, per_second: f64) {
        let (due, mut times) = mpsc::channel(DUE_MAX);
        let starts = self.0.window.starts;
        std::thread::spawn(move || keep_time(starts, per_second, &due));
        let on_the_way = Arc::new(Semaphore::new(ON_THE_WAY_MAX));
        let mut calls = JoinSet::new();
        while let Some(intended) = times.recv().await {
            let due = self.0.due(intended);
            if due == Due::Never {
                break;
            }
            let Ok(slot) = Arc::clone(&on_the_way).acquire_owned().await else {
                break;
            };
            let work = Arc::clone(&self.0);
            calls.spawn(async move {
                work.call(intended, due).await;
                drop(slot);
            });
            while calls.try_join_next().is_some() {}
        }
        while calls.join_next().await.is_some() {}
    }
}

/// Says when a call is due, on a thread of its own: the runtime's timers are good to a millisecond, this
/// to some 0.1 ms. Ends when nobody listens.
fn keep_time(starts: Instant, per_second: f64, due: &mpsc::Sender<Instant>) {
    for number in 0_u64.. {
        let after = Duration::try_from_secs_f64(number as f64 / per_second).unwrap_or(FAR);
        let at = starts.checked_add(after).unwrap_or_else(|| starts + FAR);
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        if due.blocking_send(at).is_err() {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_due_at_a_steady_rate_however_late_they_are_taken() {
        let (due, mut times) = mpsc::channel(1);
        let starts = Instant::now();
        let clock = std::thread::spawn(move || keep_time(starts, 500.0, &due));
        for number in 0..20 {
            let at = times.blocking_recv();
            assert_eq!(at, Some(starts + Duration::from_millis(2) * number));
            // Slower than calls come.
            std::thread::sleep(Duration::from_millis(3));
        }
        drop(times);
        assert!(clock.join().is_ok(), "it ends when nobody listens");
    }
}
