//! How busy the host is: what heart-beats tell, and what the queue's forecasts are made from.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use orb_protocol::id::FunctionId;
use orb_protocol::wire::control::RUN_TIMES_MAX;

/// The weight of one call in a mean, as a power of two: 1/8, the gain of TCP's smoothed round trip
/// (RFC 6298).
const GAIN_SHIFT: u32 = 3;
/// Functions with a mean of their own. Calls of further ones count for the host's mean only. An
/// entry has about 60 bytes; a host holds a few thousand functions at most.
const FUNCTIONS_MAX: usize = 65_536;
/// The time of one call, in microseconds, before any was measured (the guess of
/// `orb_protocol::ranking`).
const RUN_UNKNOWN_US: u32 = 1_000;

/// Means over the calls that ended.
#[derive(Debug, Default)]
pub(crate) struct Load(Mutex<Means>);

#[derive(Debug, Default)]
struct Means {
    functions: HashMap<FunctionId, Mean>,
    /// Time in guest over all functions, in microseconds.
    run_us: Option<u32>,
    /// Probability that a call fails through the host's fault, in millionths.
    failure_ppm: u32,
    /// Counts the calls, so that it is known what changed since when.
    calls: u64,
}

#[derive(Debug)]
struct Mean {
    run_us: u32,
    /// When it changed, in calls.
    changed: u64,
}

impl Load {
    /// A call ended after this time in the guest.
    pub(crate) fn on_call(&self, function: FunctionId, guest: Duration, host_failed: bool) {
        let run_us = u32::try_from(guest.as_micros()).unwrap_or(u32::MAX);
        let mut means = self.means();
        means.calls += 1;
        let calls = means.calls;
        means.failure_ppm = smooth(means.failure_ppm, if host_failed { 1_000_000 } else { 0 });
        if host_failed {
            // How long it ran says nothing about how long it takes.
            return;
        }
        means.run_us = Some(means.run_us.map_or(run_us, |mean| smooth(mean, run_us)));
        let room = means.functions.len() < FUNCTIONS_MAX;
        match means.functions.get_mut(&function) {
            Some(mean) => {
                mean.run_us = smooth(mean.run_us, run_us);
                mean.changed = calls;
            }
            None if room => {
                let mean = Mean {
                    run_us,
                    changed: calls,
                };
                means.functions.insert(function, mean);
            }
            None => {}
        }
    }

    /// The function is held no more.
    pub(crate) fn forget(&self, function: &FunctionId) {
        self.means().functions.remove(function);
    }

    /// How long calls of a function were in the guest lately, if any has ended.
    pub(crate) fn measured(&self, function: &FunctionId) -> Option<Duration> {
        let means = self.means();
        let own = means.functions.get(function)?;
        Some(Duration::from_micros(own.run_us.into()))
    }

    /// How long all calls were in the guest lately.
    pub(crate) fn mean(&self) -> Duration {
        Duration::from_micros(self.means().run_us.unwrap_or(RUN_UNKNOWN_US).into())
    }

    /// How many of a thousand calls fail through the host's fault, lately.
    pub(crate) fn failure_permille(&self) -> u16 {
        u16::try_from(self.means().failure_ppm / 1_000).unwrap_or(1_000)
    }

    /// The means that changed after `since`, oldest change first and at most as many as fit a
    /// heart-beat, and the value of `since` for the next time. Begin with 0.
    pub(crate) fn changed(&self, since: u64) -> (Vec<(FunctionId, u32)>, u64) {
        let means = self.means();
        let mut changed: Vec<(u64, FunctionId, u32)> = means
            .functions
            .iter()
            .filter(|(_, mean)| mean.changed > since)
            .map(|(function, mean)| (mean.changed, *function, mean.run_us))
            .collect();
        changed.sort_unstable();
        let cut = changed.len() > RUN_TIMES_MAX;
        changed.truncate(RUN_TIMES_MAX);
        let next = match changed.last() {
            Some(&(at, ..)) if cut => at,
            _ => means.calls,
        };
        // A time of 0 means "not known" on the wire.
        let told = |(_, function, run_us): (u64, FunctionId, u32)| (function, run_us.max(1));
        (changed.into_iter().map(told).collect(), next)
    }

    fn means(&self) -> std::sync::MutexGuard<'_, Means> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn smooth(mean: u32, sample: u32) -> u32 {
    if sample >= mean {
        // Rounded up, so that a mean reaches what it is drawn to.
        mean + (sample - mean).div_ceil(1 << GAIN_SHIFT)
    } else {
        mean - (mean - sample).div_ceil(1 << GAIN_SHIFT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(byte: u8) -> FunctionId {
        FunctionId::from_bytes([byte; 32])
    }

    fn ran(load: &Load, byte: u8, micros: u64) {
        load.on_call(function(byte), Duration::from_micros(micros), false);
    }

    #[test]
    fn a_mean_follows_what_is_measured() {
        let load = Load::default();
        assert_eq!((load.measured(&function(1)), load.mean().as_millis()), (None, 1));
        ran(&load, 1, 100);
        let first = Duration::from_micros(100);
        assert_eq!((load.measured(&function(1)), load.mean()), (Some(first), first));
        assert_eq!(load.measured(&function(2)), None);
        ran(&load, 1, 180);
        assert_eq!(load.changed(0).0, vec![(function(1), 110)]);
        for _ in 0..100 {
            ran(&load, 1, 0);
        }
        assert_eq!(load.changed(0).0, vec![(function(1), 1)]);
    }

    #[test]
    fn a_beat_tells_only_what_changed_since_the_last() {
        let load = Load::default();
        ran(&load, 1, 10);
        ran(&load, 2, 20);
        let (changed, since) = load.changed(0);
        assert_eq!(changed, vec![(function(1), 10), (function(2), 20)]);
        assert_eq!(load.changed(since).0, vec![]);
        ran(&load, 2, 20);
        assert_eq!(load.changed(since).0, vec![(function(2), 20)]);
        load.forget(&function(2));
        assert_eq!(load.changed(since).0, vec![]);
    }

    #[test]
    fn what_does_not_fit_a_beat_comes_with_the_next() {
        let load = Load::default();
        for number in 0..RUN_TIMES_MAX + 10 {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            load.on_call(FunctionId::from_bytes(bytes), Duration::from_micros(5), false);
        }
        let (first, since) = load.changed(0);
        let (second, since) = load.changed(since);
        assert_eq!((first.len(), second.len()), (RUN_TIMES_MAX, 10));
        assert_eq!(load.changed(since).0.len(), 0);
    }

    #[test]
    fn failures_of_the_host_count_and_wear_off() {
        let load = Load::default();
        load.on_call(function(1), Duration::ZERO, true);
        assert_eq!(load.failure_permille(), 125);
        for _ in 0..100 {
            ran(&load, 1, 10);
        }
        assert_eq!(load.failure_permille(), 0);
    }
}
