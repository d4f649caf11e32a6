//! What was measured: counts, and histograms of bounded size.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use orb_protocol::client::{CallError, CallReport};
use orb_protocol::fault::Fault;
use orb_protocol::id::NodeId;

/// What histograms tell apart: from a microsecond to an hour, in nanoseconds, to three digits. Each takes
/// about 200 KiB, however many calls there are.
const LOWEST_NS: u64 = 1_000;
const HIGHEST_NS: u64 = 3_600_000_000_000;
const DIGITS: u8 = 3;
/// Hosts that are counted one by one: more than a function has replicas.
const HOSTS_MAX: usize = 64;

/// When a call should have begun, began, and ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moments {
    pub(super) intended: Instant,
    pub(super) sent: Instant,
    pub(super) ended: Instant,
}

/// A tally that those who call share.
#[derive(Debug, Clone)]
pub(super) struct Shared(Arc<Mutex<Tally>>);

/// All calls so far.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) answered: u64,
    /// By the fault's label.
    pub(super) errors: BTreeMap<&'static str, u64>,
    /// Answers of each host.
    pub(super) hosts: BTreeMap<NodeId, u64>,
    pub(super) revision: u64,
    /// Of answered calls, from when they should have begun.
    pub(super) latency: Histogram<u64>,
    pub(super) parts: Parts,
    /// The first fault, to be explained if nothing was answered.
    pub(super) fault: Option<Fault>,
    last: Option<Instant>,
}

/// Where the latency went.
#[derive(Debug)]
pub(super) struct Parts {
    /// Until the call was sent, from when it should have been: only an open loop is ever late.
    pub(super) late: Histogram<u64>,
    /// What is left: both ways, resolving, connecting, and the programs at either end.
    pub(super) network: Histogram<u64>,
    /// Waiting for a turn at the host.
    pub(super) queue: Histogram<u64>,
    /// Compiling or loading at the host.
    pub(super) compile: Histogram<u64>,
    /// In the guest.
    pub(super) guest: Histogram<u64>,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Tally::new())))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Tally> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, DIGITS).expect("the bounds are in order")
}

fn record(histogram: &mut Histogram<u64>, time: Duration) {
    histogram.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            answered: 0,
            errors: BTreeMap::new(),
            hosts: BTreeMap::new(),
            revision: 0,
            latency: histogram(),
            parts: Parts {
                late: histogram(),
                network: histogram(),
                queue: histogram(),
                compile: histogram(),
                guest: histogram(),
            },
            fault: None,
            last: None,
        }
    }

    /// A call ended.
    pub(super) fn record(&mut self, moments: Moments, result: Result<&CallReport, &CallError>) {
        self.last = self.last.max(Some(moments.ended));
        match result {
            Ok(report) => self.answer(moments, report),
            Err(error) => {
                *self.errors.entry(error.kind().label()).or_default() += 1;
                self.fault.get_or_insert_with(|| error.fault.clone());
            }
        }
    }

    fn answer(&mut self, moments: Moments, report: &CallReport) {
        let Moments {
            intended,
            sent,
            ended,
        } = moments;
        self.answered += 1;
        self.revision = self.revision.max(report.version.revision);
        if self.hosts.len() < HOSTS_MAX || self.hosts.contains_key(&report.host) {
            *self.hosts.entry(report.host).or_default() += 1;
        }
        let times = &report.times;
        let at_host = times.queued + times.compile + times.guest;
        record(&mut self.latency, ended.saturating_duration_since(intended));
        let parts = &mut self.parts;
        record(&mut parts.late, sent.saturating_duration_since(intended));
        let sent_for = ended.saturating_duration_since(sent);
        record(&mut parts.network, sent_for.saturating_sub(at_host));
        record(&mut parts.queue, times.queued);
        record(&mut parts.compile, times.compile);
        record(&mut parts.guest, times.guest);
    }

    /// All calls that ended.
    pub(super) fn calls(&self) -> u64 {
        self.answered + self.errors.values().sum::<u64>()
    }

    /// From the beginning to the last call's end.
    pub(super) fn span(&self, begins: Instant) -> Duration {
        self.last
            .map(|last| last.saturating_duration_since(begins))
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use orb_protocol::client::CallTimes;
    use orb_protocol::fault::FaultKind;
    use orb_protocol::id::RequestId;
    use orb_protocol::manifest::Version;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn report(host: u8, times: CallTimes) -> CallReport {
        CallReport {
            request: RequestId::from_bytes([0; 16]),
            host: NodeId::from_bytes([host; 32]),
            version: Version {
                generation: 0,
                revision: 3,
            },
            content_type: String::new(),
            path: "relay".to_owned(),
            attempts: 1,
            fuel: 0,
            memory_peak_bytes: 0,
            times,
            log_truncated: false,
        }
    }

    fn in_ms(histogram: &Histogram<u64>) -> f64 {
        (histogram.max() as f64 / 1e6).round()
    }

    #[test]
    fn latency_counts_from_when_a_call_should_have_begun() {
        let mut tally = Tally::new();
        let intended = Instant::now();
        let moments = Moments {
            intended,
            sent: intended + ms(400),
            ended: intended + ms(500),
        };
        let times = CallTimes {
            queued: ms(20),
            compile: ms(10),
            guest: ms(30),
            ..CallTimes::default()
        };
        tally.record(moments, Ok(&report(1, times)));
        let parts = &tally.parts;
        assert_eq!(in_ms(&tally.latency), 500.0);
        assert_eq!((in_ms(&parts.late), in_ms(&parts.network)), (400.0, 40.0));
        assert_eq!(
            (in_ms(&parts.queue), in_ms(&parts.compile), in_ms(&parts.guest)),
            (20.0, 10.0, 30.0)
        );
        assert_eq!(tally.span(intended), ms(500));
    }

    #[test]
    fn errors_are_counted_by_kind_and_add_no_latency() {
        let mut tally = Tally::new();
        let now = Instant::now();
        let moments = Moments {
            intended: now,
            sent: now,
            ended: now + ms(1),
        };
        for kind in [FaultKind::Overloaded, FaultKind::Trap, FaultKind::Overloaded] {
            let error = CallError {
                fault: Fault::new(kind, "no"),
                request: RequestId::from_bytes([0; 16]),
                attempts: Vec::new(),
                may_have_run: false,
                report: None,
            };
            tally.record(moments, Err(&error));
        }
        assert_eq!((tally.calls(), tally.answered, tally.latency.len()), (3, 0, 0));
        assert_eq!(tally.errors["overloaded"], 2);
        assert_eq!(tally.fault.map(|fault| fault.kind), Some(FaultKind::Overloaded));
    }

    #[test]
    fn hosts_cannot_be_heaped_up() {
        let mut tally = Tally::new();
        let now = Instant::now();
        let moments = Moments {
            intended: now,
            sent: now,
            ended: now,
        };
        for host in 0..=255 {
            tally.record(moments, Ok(&report(host, CallTimes::default())));
        }
        assert_eq!((tally.answered, tally.hosts.len()), (256, HOSTS_MAX));
    }
}
