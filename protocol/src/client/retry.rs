//! When a call that every host turned away as overloaded is made again. Pure.
//!
//! After the wait that the hosts propose, twice as long each further time, and a little longer at
//! random, so that those who were turned away together do not come back together. A client whose calls
//! are mostly turned away stops: what it made again comes out of a budget that answers fill ("retry
//! throttling", gRPC proposal A6; "retry budgets", Site Reliability Engineering, chapter 21).

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use super::error::FailedAttempt;
use crate::fault::FaultKind;

/// Calls that are made again before any was answered (gRPC's example).
const BUDGET_MAX: u32 = 10;
/// Answers that pay for one more (gRPC's example): a tenth more load is the most that a client adds.
const ANSWERS_PER_RETRY: u32 = 10;

/// What a client may still make again, in tenths of a call.
#[derive(Debug)]
pub(super) struct Budget(AtomicU32);

impl Default for Budget {
    fn default() -> Self {
        Self(AtomicU32::new(BUDGET_MAX * ANSWERS_PER_RETRY))
    }
}

impl Budget {
    /// A call was answered.
    pub(super) fn on_answer(&self) {
        let more = |left| (left < BUDGET_MAX * ANSWERS_PER_RETRY).then_some(left + 1);
        // At most full.
        let _ = self.0.fetch_update(Relaxed, Relaxed, more);
    }

    /// Takes what one call more costs, if it is there.
    pub(super) fn take(&self) -> bool {
        let less = |left: u32| left.checked_sub(ANSWERS_PER_RETRY);
        self.0.fetch_update(Relaxed, Relaxed, less).is_ok()
    }
}

/// How long to wait before hosts that turned a call away are asked for the `again`th time, from 0: as
/// the first of them proposes. `None` if none of them does. `random` is any number.
pub(super) fn pause(failed: &[FailedAttempt], again: u32, random: u8) -> Option<Duration> {
    let overloaded = failed
        .iter()
        .filter(|attempt| attempt.fault.kind == FaultKind::Overloaded);
    let proposed = overloaded
        .filter_map(|attempt| attempt.fault.retry_after_ms)
        .min()?;
    let doubled = Duration::from_millis(proposed.into()).saturating_mul(1 << again.min(16));
    Some(doubled + doubled.mul_f64(f64::from(random) / 512.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Fault;
    use crate::id::NodeId;

    fn away(kind: FaultKind, retry_after_ms: Option<u32>) -> FailedAttempt {
        FailedAttempt {
            host: NodeId::from_bytes([1; 32]),
            fault: Fault {
                retry_after_ms,
                ..Fault::new(kind, "test")
            },
        }
    }

    #[test]
    fn the_first_host_that_has_room_is_waited_for() {
        let failed = [
            away(FaultKind::NoLiveHost, Some(1)),
            away(FaultKind::Overloaded, None),
            away(FaultKind::Overloaded, Some(300)),
            away(FaultKind::Overloaded, Some(100)),
        ];
        let ms = |again, random| pause(&failed, again, random).map(|pause| pause.as_millis());
        assert_eq!((ms(0, 0), ms(1, 0), ms(3, 0)), (Some(100), Some(200), Some(800)));
        assert_eq!((ms(0, 128), ms(0, 255)), (Some(125), Some(149)));
        assert_eq!(pause(&failed[..2], 0, 0), None);
        let absurd = [away(FaultKind::Overloaded, Some(u32::MAX))];
        assert!(pause(&absurd, u32::MAX, u8::MAX).is_some());
    }

    #[test]
    fn a_client_that_is_always_turned_away_stops_asking_again() {
        let budget = Budget::default();
        assert_eq!((0..100).filter(|_| budget.take()).count(), 10);
        for _ in 0..25 {
            budget.on_answer();
        }
        assert_eq!((0..100).filter(|_| budget.take()).count(), 2);
        for _ in 0..1_000 {
            budget.on_answer();
        }
        assert_eq!((0..100).filter(|_| budget.take()).count(), 10);
    }
}
