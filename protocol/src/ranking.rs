//! Ranking: which host should answer a call.
//!
//! The expected time until the answer: round trip, waiting, running, and what a failure would cost
//! times its probability. Equal times are ordered by XOR distance, so that all callers agree.

use crate::id::FunctionId;
use crate::manifest::Version;
use crate::wire::directory::HostHint;

/// What a failed attempt costs the caller, in microseconds: noticing it takes about this long (a guess
/// from the time after which a connection attempt is given up).
pub const FAILURE_COST_US: u64 = 1_500_000;
/// The time in guest that is assumed where none was measured, in microseconds (a guess: a small
/// JavaScript function).
pub const RUN_UNKNOWN_US: u64 = 1_000;

/// What an expected time is made of, in microseconds each: `orb explain` shows these very numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// Smoothed round trip.
    pub rtt_us: u64,
    /// Until a place is free.
    pub queue_us: u64,
    /// In the guest.
    pub run_us: u64,
    /// Probability of failure times [`FAILURE_COST_US`].
    pub failure_us: u64,
}

impl Expected {
    /// The expected time at this host.
    pub fn of(host: &HostHint) -> Self {
        let run_us = if host.run_us == 0 {
            RUN_UNKNOWN_US
        } else {
            u64::from(host.run_us)
        };
        // A host works off its queue `capacity` calls at a time; up to capacity - 1 calls nobody waits.
        let turns = u64::from(host.queue) / u64::from(host.capacity.max(1));
        Self {
            rtt_us: host.rtt_us.into(),
            queue_us: turns.saturating_mul(run_us),
            run_us,
            failure_us: u64::from(host.failure_permille.min(1_000)) * FAILURE_COST_US / 1_000,
        }
    }

    /// All of it, in microseconds.
    pub fn total_us(&self) -> u64 {
        self.rtt_us
            .saturating_add(self.queue_us)
            .saturating_add(self.run_us)
            .saturating_add(self.failure_us)
    }
}

/// Orders hosts for a caller, best first: those ready for `live` before those that still answer with
/// an older version, each group by expected time, ties by XOR distance to the function.
pub fn rank(function: &FunctionId, live: Version, hosts: &mut [HostHint]) {
    hosts.sort_by_cached_key(|host| {
        (
            host.version < live,
            Expected::of(host).total_us(),
            function.distance(&host.node),
        )
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;
    use crate::wire::extension::Extensions;

    fn host(node: u8) -> HostHint {
        HostHint {
            node: NodeId::from_bytes([node; 32]),
            version: Version {
                generation: 0,
                revision: 2,
            },
            rtt_us: 1_000,
            queue: 0,
            capacity: 4,
            run_us: 500,
            failure_permille: 0,
            extensions: Extensions::none(),
        }
    }

    fn order(mut hosts: Vec<HostHint>) -> Vec<u8> {
        rank(
            &FunctionId::from_bytes([0; 32]),
            Version {
                generation: 0,
                revision: 2,
            },
            &mut hosts,
        );
        hosts.iter().map(|h| h.node.as_bytes()[0]).collect()
    }

    #[test]
    fn the_nearer_host_answers() {
        assert_eq!(
            order(vec![
                HostHint {
                    rtt_us: 9_000,
                    ..host(1)
                },
                host(2)
            ]),
            [2, 1]
        );
    }

    #[test]
    fn a_busy_host_waits_for_its_turn() {
        assert_eq!(order(vec![HostHint { queue: 8, ..host(1) }, host(2)]), [2, 1]);
        assert_eq!(order(vec![HostHint { queue: 3, ..host(1) }, host(2)]), [1, 2]);
    }

    #[test]
    fn a_failing_host_comes_later_than_a_far_one() {
        assert_eq!(
            order(vec![
                HostHint {
                    failure_permille: 500,
                    ..host(1)
                },
                HostHint {
                    rtt_us: 200_000,
                    ..host(2)
                }
            ]),
            [2, 1]
        );
    }

    #[test]
    fn the_live_version_comes_first_however_far() {
        let old = HostHint {
            version: Version {
                generation: 0,
                revision: 1,
            },
            ..host(1)
        };
        assert_eq!(
            order(vec![
                old,
                HostHint {
                    rtt_us: 900_000,
                    ..host(2)
                }
            ]),
            [2, 1]
        );
    }

    #[test]
    fn ties_are_broken_by_distance() {
        assert_eq!(order(vec![host(3), host(1), host(2)]), [1, 2, 3]);
    }

    #[test]
    fn absurd_hints_do_not_overflow() {
        let absurd = HostHint {
            rtt_us: u32::MAX,
            queue: u32::MAX,
            capacity: 0,
            run_us: u32::MAX,
            failure_permille: u16::MAX,
            ..host(1)
        };
        assert!(Expected::of(&absurd).total_us() > u64::from(u32::MAX));
    }
}
