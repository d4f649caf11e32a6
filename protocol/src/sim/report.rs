//! What came of a simulation.

use serde::Serialize;

use super::checks::Check;
use super::world::World;
use crate::wire::federation::PeerMessage;

/// What is counted while a simulation runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Measured {
    /// Events that were handled.
    pub events: u64,
    /// The most that waited at once.
    pub queue_max: usize,
    /// Messages on links that carry a manifest.
    pub payload_messages: u64,
    /// Messages on links about replicas and orders.
    pub control_messages: u64,
    /// Messages on links about hosts and super nodes.
    pub membership_messages: u64,
    /// Heart-beats on links.
    pub beats: u64,
    /// Messages to hosts.
    pub to_hosts: u64,
    /// Messages from hosts.
    pub from_hosts: u64,
    /// Pulls, the changes that they brought, and their bytes.
    pub pulls: u64,
    /// See above.
    pub pulled: u64,
    /// See above.
    pub pulled_bytes: u64,
    /// Pulls that began with a comparison, and its bytes.
    pub reconciled: u64,
    /// See above.
    pub reconciled_bytes: u64,
    /// Artifacts that hosts fetched, and their bytes.
    pub fetches: u64,
    /// See above.
    pub fetched_bytes: u64,
    /// Bytes of the replicas of hosts that left at once.
    pub lost_bytes: u64,
    /// Calls, and how they ended.
    pub calls: u64,
    /// See above.
    pub calls_answered: u64,
    /// See above.
    pub calls_unanswered: u64,
    /// See above.
    pub calls_decommissioned: u64,
    /// Answers of hosts that had heard of the function's end.
    pub forbidden: u64,
}

impl Measured {
    pub(super) fn count(&mut self, message: &PeerMessage) {
        let counter = match message {
            PeerMessage::Changed(_) => &mut self.payload_messages,
            PeerMessage::Replicas(_) | PeerMessage::Orders(_) => &mut self.control_messages,
            PeerMessage::Beat(_) => &mut self.beats,
            _ => &mut self.membership_messages,
        };
        *counter += 1;
    }
}

/// How long edits took to the hosts that held the function, in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spread {
    /// Edits, rollbacks and decommissions.
    pub edits: u64,
    /// Hosts that were reached.
    pub holders: usize,
    /// Hosts that left, or heard of a later one only.
    pub unreached: u64,
    /// Half of them were reached within this time.
    pub p50_ms: f64,
    /// 99 of a hundred.
    pub p99_ms: f64,
    /// All of them.
    pub last_ms: f64,
    /// The same 99 of a hundred, in round trips of the median link.
    pub p99_round_trips: f64,
}

/// See the module's text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Whether every property holds.
    pub ok: bool,
    /// The properties.
    pub checks: Vec<Check>,
    /// How edits spread.
    pub spread: Spread,
    /// What was counted.
    pub measured: Measured,
}

impl Report {
    pub(super) fn new(world: &World<'_>, seed: u64, checks: Vec<Check>) -> Self {
        Self {
            seed,
            ok: checks.iter().all(|check| check.wrong == 0),
            checks,
            spread: Spread::of(world),
            measured: world.measured.clone(),
        }
    }
}

impl Spread {
    fn of(world: &World<'_>) -> Self {
        let mut reached = world.works.reached.clone();
        reached.sort_unstable();
        let at = |part: f64| {
            let index = ((reached.len() as f64 * part).ceil() as usize).clamp(1, reached.len().max(1)) - 1;
            reached.get(index).copied().unwrap_or_default()
        };
        let ms = |micros: u64| micros as f64 / 1_000.0;
        let p99 = at(0.99);
        Self {
            edits: world.works.edits_made,
            holders: reached.len(),
            unreached: world.works.unreached,
            p50_ms: ms(at(0.5)),
            p99_ms: ms(p99),
            last_ms: ms(at(1.0)),
            p99_round_trips: p99 as f64 / world.network.median_rtt() as f64,
        }
    }
}
