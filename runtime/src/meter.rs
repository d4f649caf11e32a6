//! Runs a guest's future on the guest's own clock.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Sleep;

use crate::Event;
use crate::guest::YIELD_FUEL;
use crate::wasi::stdio::SharedPipes;

/// The most time that a unit of fuel counts for: a guest that computes on a slow machine, or with
/// slow instructions, shall run out of fuel there as it does elsewhere. An ordinary program needs
/// 0.05 to 1 ns for a unit on a machine of 2026.
const FUEL_NS: u64 = 1;

/// The most that a guest's first turn counts for: what its fuel does. Most calls have only this turn,
/// and reading the processor's clock around it would take a fifth of an empty call.
const FIRST_TURN: Duration = Duration::from_nanos(YIELD_FUEL * FUEL_NS);

/// A guest that computes for this many times its time limit is stopped whatever its fuel says, so
/// that a hostile choice of slow instructions is bounded too.
const OVERRUN_MAX: u32 = 4;

/// Why the guest was stopped from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expired {
    /// The function's own time.
    Time,
    /// The caller's.
    Deadline,
}

/// How much time a guest has used.
///
/// Its time is what it waits in host calls, and what it computes: processor time, so that other
/// load on the machine does not matter, and at most [`FUEL_NS`] for each unit of fuel. Its first
/// turn is taken by the wall clock, which costs no system call, and counts [`FIRST_TURN`] at most.
#[derive(Debug)]
struct GuestTime {
    limit: Duration,
    computed: Duration,
}

impl GuestTime {
    /// What remains after `turns` of [`YIELD_FUEL`] each, when `waited` has been waited.
    fn remaining(&self, turns: u64, waited: Duration) -> Duration {
        let by_fuel = Duration::from_nanos(turns.saturating_mul(YIELD_FUEL * FUEL_NS));
        let counted = self.computed.min(by_fuel);
        let overrun = self
            .limit
            .saturating_mul(OVERRUN_MAX)
            .saturating_sub(self.computed);
        self.limit
            .saturating_sub(counted)
            .min(overrun)
            .saturating_sub(waited)
    }
}

/// Polls a guest until it ends or its time does, passing on what it writes.
pub(crate) struct Meter<'a, E> {
    pipes: &'a SharedPipes,
    on_event: &'a mut E,
    time: GuestTime,
    deadline: Option<Instant>,
    /// When the first turn began, until it is over.
    first_turn: Option<Instant>,
    /// Wakes us when the guest waits for longer than it may.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<'a, E: FnMut(Event)> Meter<'a, E> {
    /// Measures a guest whose first turn began at `began`.
    pub(crate) fn new(
        pipes: &'a SharedPipes,
        on_event: &'a mut E,
        limit: Duration,
        deadline: Option<Instant>,
        began: Instant,
    ) -> Self {
        let time = GuestTime {
            limit,
            computed: Duration::ZERO,
        };
        Self {
            pipes,
            on_event,
            time,
            deadline,
            first_turn: Some(began),
            alarm: None,
        }
    }

    /// Runs the guest.
    ///
    /// # Errors
    ///
    /// When it took too long; drop the guest's future then.
    pub(crate) async fn run<F: Future>(&mut self, mut guest: Pin<&mut F>) -> Result<F::Output, Expired> {
        poll_fn(|context| self.poll(guest.as_mut(), context)).await
    }

    /// The guest's time so far.
    pub(crate) fn elapsed(&self) -> Duration {
        self.time.computed + self.pipes.lock().waited()
    }

    fn poll<F: Future>(
        &mut self,
        guest: Pin<&mut F>,
        context: &mut Context<'_>,
    ) -> Poll<Result<F::Output, Expired>> {
        let (polled, took) = self.poll_timed(guest, context);
        self.time.computed += took;
        self.pass_on();
        match polled {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => self.poll_expiry(context).map(Err),
        }
    }

    fn poll_timed<F: Future>(
        &mut self,
        guest: Pin<&mut F>,
        context: &mut Context<'_>,
    ) -> (Poll<F::Output>, Duration) {
        if let Some(began) = self.first_turn.take() {
            let polled = guest.poll(context);
            return (polled, began.elapsed().min(FIRST_TURN));
        }
        let before = processor_time();
        let polled = guest.poll(context);
        (polled, processor_time().saturating_sub(before))
    }

    fn pass_on(&mut self) {
        let (output, log) = {
            let mut pipes = self.pipes.lock();
            (pipes.output.split().freeze(), pipes.log.split().freeze())
        };
        if !log.is_empty() {
            (self.on_event)(Event::Log(log));
        }
        if !output.is_empty() {
            (self.on_event)(Event::Output(output));
        }
    }

    fn poll_expiry(&mut self, context: &mut Context<'_>) -> Poll<Expired> {
        let (waits, turns, waited) = {
            let mut pipes = self.pipes.lock();
            let waits = pipes.waiting_since.is_some();
            pipes.turns += u64::from(!waits);
            (waits, pipes.turns, pipes.waited())
        };
        let remaining = self.time.remaining(turns, waited);
        let now = Instant::now();
        if remaining.is_zero() {
            return Poll::Ready(Expired::Time);
        }
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            return Poll::Ready(Expired::Deadline);
        }
        if waits {
            self.poll_alarm(context, now, remaining)
        } else {
            Poll::Pending
        }
    }

    /// Sees to it that the wait ends when the guest's time or the caller's does.
    fn poll_alarm(&mut self, context: &mut Context<'_>, now: Instant, remaining: Duration) -> Poll<Expired> {
        let until_time = now.checked_add(remaining);
        let (at, expired) = match (until_time, self.deadline) {
            (Some(time), Some(deadline)) if deadline < time => (deadline, Expired::Deadline),
            (Some(time), _) => (time, Expired::Time),
            (None, Some(deadline)) => (deadline, Expired::Deadline),
            (None, None) => return Poll::Pending,
        };
        let alarm = self
            .alarm
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at.into())));
        if alarm.deadline() != at.into() {
            alarm.as_mut().reset(at.into());
        }
        alarm.as_mut().poll(context).map(|()| expired)
    }
}

/// Processor time of this thread. A guest runs on one thread from one interruption to the next.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remaining(computed_ms: u64, turns: u64, waited: Duration) -> Duration {
        let (limit, computed) = (Duration::from_secs(10), Duration::from_millis(computed_ms));
        GuestTime { limit, computed }.remaining(turns, waited)
    }

    #[test]
    fn computing_counts_as_processor_time() {
        assert_eq!(remaining(3_000, 9_000, Duration::ZERO), Duration::from_secs(7));
        assert_eq!(remaining(12_000, 20_000, Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn a_slow_machine_takes_no_time_from_a_guest_with_fuel_left() {
        assert_eq!(remaining(20_000, 6_000, Duration::ZERO), Duration::from_secs(4));
    }

    #[test]
    fn the_default_time_is_never_over_before_the_default_fuel() {
        let turns = crate::Limits::default().fuel / YIELD_FUEL;
        assert!(!remaining(39_000, turns - 1, Duration::ZERO).is_zero());
    }

    #[test]
    fn computing_for_a_multiple_of_the_limit_ends_a_guest_with_fuel_left() {
        assert_eq!(remaining(40_000, 100, Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn a_first_turn_counts_for_no_more_than_its_fuel() {
        let (pipes, limit) = (SharedPipes::default(), Duration::from_secs(10));
        let began = Instant::now() - Duration::from_secs(1);
        let mut events = |_| {};
        let mut meter = Meter::new(&pipes, &mut events, limit, None, began);
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(meter.poll(std::pin::pin!(async {}), &mut context).is_ready());
        assert_eq!(meter.elapsed(), FIRST_TURN);
    }

    #[test]
    fn waiting_counts_in_full() {
        assert_eq!(
            remaining(1_000, 5_000, Duration::from_secs(4)),
            Duration::from_secs(5)
        );
        assert_eq!(remaining(0, 0, Duration::from_secs(11)), Duration::ZERO);
    }
}
