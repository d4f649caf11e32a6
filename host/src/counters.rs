//! What peers did that they should not have, in numbers that only grow.
//!
//! Each daemon has one set of [`Counter`]s; a [`Report`] writes all that are not zero to the log now
//! and then, as long as any of them moves.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use orb_protocol::quic::{Endpoint, HandshakeStats, SocketStats};
use orb_protocol::relay::RelayStats;
use tokio::time::{MissedTickBehavior, interval};

/// Between two lines of the log: a flood of whatever kind costs no more of it than this.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// So many more.
    pub(crate) fn add_many(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// How many.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters by name.
pub(crate) type Numbers = Vec<(&'static str, u64)>;

/// Writes counters to the log when they have moved.
#[derive(Debug, Default)]
struct Report {
    last: String,
}

impl Report {
    fn write(&mut self, numbers: &Numbers) {
        let line = line(numbers);
        if line != self.last {
            tracing::info!("misbehaviour of peers since the start:{line}");
            self.last = line;
        }
    }
}

/// Reports for as long as it runs; `own` gives the daemon's own numbers, those of its endpoint come
/// before them.
pub(crate) async fn keep_reporting(endpoint: Endpoint, own: impl Fn() -> Numbers) {
    let mut report = Report::default();
    let mut ticks = interval(REPORT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut numbers = of_endpoint(&endpoint);
        numbers.extend(own());
        report.write(&numbers);
    }
}

/// All that are not zero, as ` name=value`.
fn line(numbers: &Numbers) -> String {
    let mut line = String::new();
    for (name, number) in numbers.iter().filter(|(_, number)| *number > 0) {
        // Writing to a text cannot fail.
        let _ = write!(line, " {name}={number}");
    }
    line
}

fn of_endpoint(endpoint: &Endpoint) -> Numbers {
    let mut numbers = of_socket(&endpoint.socket_stats());
    numbers.extend(of_handshakes(&endpoint.handshake_stats()));
    if let Some(relay) = endpoint.relay() {
        numbers.extend(of_relay(&relay.stats()));
    }
    numbers
}

fn of_socket(stats: &SocketStats) -> Numbers {
    vec![
        ("datagrams_malformed", stats.malformed),
        ("datagrams_stray", stats.stray),
        ("datagrams_spoofed", stats.spoofed),
        ("datagrams_unconnected", stats.unconnected),
    ]
}

fn of_handshakes(stats: &HandshakeStats) -> Numbers {
    vec![
        ("handshakes_failed", stats.failed),
        ("handshakes_timed_out", stats.timed_out),
        ("handshakes_not_as_announced", stats.not_as_announced),
        ("handshakes_displaced", stats.displaced),
        ("handshakes_refused", stats.refused),
        ("handshakes_asked_to_prove", stats.asked_to_prove),
    ]
}

fn of_relay(stats: &RelayStats) -> Numbers {
    vec![
        ("relay_unknown_token", stats.dropped_unknown_token),
        ("relay_wrong_source", stats.dropped_wrong_source),
        ("relay_rate_limited", stats.dropped_rate_limited),
        ("relay_too_large", stats.dropped_too_large),
        ("relay_sessions_refused", stats.sessions_refused),
        ("relay_sessions_displaced", stats.sessions_displaced),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_what_is_not_zero() {
        let counter = Counter::default();
        counter.add();
        counter.add();
        let numbers = vec![("one", 0), ("two", counter.get()), ("three", 3)];
        assert_eq!(line(&numbers), " two=2 three=3");
    }
}
