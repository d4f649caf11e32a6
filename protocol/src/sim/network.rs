//! Who reaches whom in a simulation, and how long it takes.

use std::collections::{BTreeMap, BTreeSet};

use super::scenario;

/// A node: its number among all super nodes and hosts.
pub(super) type Place = usize;

/// Times are in microseconds.
pub(super) type Micros = u64;

/// The links between all nodes.
#[derive(Debug)]
pub(super) struct Network {
    config: scenario::Network,
    seed: u64,
    rng: fastrand::Rng,
    /// From when on nothing is lost any more.
    calm_at: Micros,
    /// Which side of which partition a node is on; a node that is in none is on none.
    sides: BTreeMap<usize, BTreeSet<Place>>,
    one_way: BTreeSet<usize>,
    slow: BTreeSet<Place>,
    /// When the last message of a link arrives: those of one link stay in order.
    last: BTreeMap<(Place, Place), Micros>,
}

impl Network {
    pub(super) fn new(config: scenario::Network, seed: u64, calm_at: Micros) -> Self {
        Self {
            config,
            seed,
            rng: fastrand::Rng::with_seed(seed ^ 0x006e_6574),
            calm_at,
            sides: BTreeMap::new(),
            one_way: BTreeSet::new(),
            slow: BTreeSet::new(),
            last: BTreeMap::new(),
        }
    }

    /// Parts `nodes` from all others; with `one_way` only what they send is lost.
    pub(super) fn part(&mut self, fault: usize, nodes: BTreeSet<Place>, one_way: bool) {
        self.sides.insert(fault, nodes);
        if one_way {
            self.one_way.insert(fault);
        }
    }

    pub(super) fn heal(&mut self, fault: usize) {
        self.sides.remove(&fault);
        self.one_way.remove(&fault);
    }

    pub(super) fn slow_down(&mut self, nodes: impl IntoIterator<Item = Place>) {
        self.slow.extend(nodes);
    }

    /// Whether what `from` sends arrives at `to`.
    pub(super) fn is_open(&self, from: Place, to: Place) -> bool {
        self.sides.iter().all(|(fault, side)| {
            let (a, b) = (side.contains(&from), side.contains(&to));
            a == b || (self.one_way.contains(fault) && b)
        })
    }

    /// Whether a connection can be had at all.
    pub(super) fn is_open_both_ways(&self, a: Place, b: Place) -> bool {
        self.is_open(a, b) && self.is_open(b, a)
    }

    /// The one-way time between two nodes, without jitter: the same in both directions, and always.
    pub(super) fn latency(&self, a: Place, b: Place) -> Micros {
        let (low, high) = (a.min(b) as u64, a.max(b) as u64);
        let mut pair =
            fastrand::Rng::with_seed(self.seed ^ (low << 32 | high).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        // The sum of twelve uniform numbers is close to normal, with variance 1.
        let normal = (0..12).map(|_| pair.f64()).sum::<f64>() - 6.0;
        let factor = if self.slow.contains(&a) || self.slow.contains(&b) {
            10.0
        } else {
            1.0
        };
        micros(self.config.median_ms * (self.config.sigma * normal).exp() * factor)
    }

    /// When a message that leaves now arrives. Messages of one link arrive in order.
    pub(super) fn arrival(&mut self, now: Micros, from: Place, to: Place) -> Micros {
        let latency = self.latency(from, to);
        let mut time = latency + micros(self.config.jitter_ms * self.rng.f64());
        while self.config.loss > 0.0 && now < self.calm_at && self.rng.f64() < self.config.loss {
            time += 2 * latency;
        }
        let last = self.last.entry((from, to)).or_default();
        *last = (*last).max(now + time);
        *last
    }

    /// How long an artifact takes from one node to another.
    pub(super) fn transfer(&self, from: Place, to: Place, bytes: u64) -> Micros {
        3 * self.latency(from, to) + bytes.saturating_mul(1_000_000) / self.config.bytes_per_s
    }

    /// Whether a message arrives twice.
    pub(super) fn is_doubled(&mut self) -> bool {
        self.config.duplicates > 0.0 && self.rng.f64() < self.config.duplicates
    }

    /// The median round trip, in microseconds.
    pub(super) fn median_rtt(&self) -> Micros {
        2 * micros(self.config.median_ms)
    }
}

fn micros(ms: f64) -> Micros {
    (ms * 1_000.0).max(1.0) as Micros
}
