//! What goes wrong in a simulation.

use std::collections::BTreeSet;

use super::scenario::FaultKind;
use super::world::{Event, World};

/// Between two comings and goings of a host that churns, and how long it is away.
const CHURN_PERIOD: u64 = 10_000_000;
const CHURN_AWAY: u64 = 3_000_000;

impl World<'_> {
    pub(super) fn on_fault_begins(&mut self, number: usize) {
        let fault = self.scenario.faults[number].clone();
        match fault.kind {
            FaultKind::Partition | FaultKind::OneWay => {
                let side = self.side(fault.part);
                self.network.part(number, side, fault.kind == FaultKind::OneWay);
                self.break_crossing_links();
            }
            FaultKind::CrashSupers | FaultKind::LoseDisks | FaultKind::LoseClocks => {
                for super_node in self.some(self.supers.len(), fault.part) {
                    self.crash_super(super_node);
                }
            }
            FaultKind::LeaveHosts => {
                for host in self.some(self.hosts.len(), fault.part) {
                    self.measured.lost_bytes += self.replica_bytes(host);
                    self.leave(host);
                }
            }
            FaultKind::Churn => {
                for host in self.some(self.hosts.len(), fault.part) {
                    self.leave(host);
                }
                if self.now / 1_000 < fault.at_ms + fault.for_ms {
                    self.after(CHURN_AWAY, Event::FaultEnds(number));
                    self.after(CHURN_PERIOD, Event::FaultBegins(number));
                }
            }
            FaultKind::LyingHosts => {
                for host in self.some(self.hosts.len(), fault.part) {
                    self.hosts[host].lying = true;
                }
            }
            FaultKind::SlowHosts => {
                let slow = self.some(self.hosts.len(), fault.part);
                let base = self.supers.len();
                self.network.slow_down(slow.into_iter().map(|host| base + host));
            }
        }
    }

    pub(super) fn on_fault_ends(&mut self, number: usize) {
        match self.scenario.faults[number].kind {
            FaultKind::Partition | FaultKind::OneWay => self.network.heal(number),
            kind @ (FaultKind::CrashSupers | FaultKind::LoseDisks | FaultKind::LoseClocks) => {
                let now_ms = self.now_ms();
                for super_node in 0..self.supers.len() {
                    if !self.supers[super_node].up {
                        match kind {
                            FaultKind::LoseDisks => self.supers[super_node].lose_disk(),
                            FaultKind::LoseClocks => self.supers[super_node].lose_clock(),
                            _ => {}
                        }
                        self.supers[super_node].restart(now_ms);
                        self.drain(super_node);
                        let life = self.supers[super_node].life;
                        self.after(1, Event::SuperTick(super_node, life));
                        self.reset_sessions(super_node);
                    }
                }
            }
            FaultKind::LeaveHosts | FaultKind::Churn => {
                for host in 0..self.hosts.len() {
                    if !self.hosts[host].online {
                        self.hosts[host].restart();
                        self.drain_host(host);
                        let pause = self.rng.u64(0..1_000_000);
                        self.after(pause, Event::Connect(host));
                    }
                }
            }
            FaultKind::LyingHosts => self.hosts.iter_mut().for_each(|host| host.lying = false),
            FaultKind::SlowHosts => {}
        }
    }

    /// Some of so many, chosen at random.
    fn some(&mut self, of: usize, part: f64) -> Vec<usize> {
        let mut all: Vec<usize> = (0..of).collect();
        self.rng.shuffle(&mut all);
        all.truncate((of as f64 * part).round() as usize);
        all.sort_unstable();
        all
    }

    /// Part of the super nodes, and the hosts that belong to them.
    fn side(&mut self, part: f64) -> BTreeSet<usize> {
        let supers: BTreeSet<usize> = self.some(self.supers.len(), part).into_iter().collect();
        let hosts = self.hosts.iter().filter(|host| supers.contains(&host.home));
        let places: Vec<usize> = hosts.map(|host| host.place).collect();
        supers.into_iter().chain(places).collect()
    }

    fn break_crossing_links(&mut self) {
        let links: Vec<(usize, usize)> = self.links.keys().copied().collect();
        for (a, b) in links {
            if !self.network.is_open_both_ways(a, b) {
                self.break_link(a, b);
            }
        }
    }

    fn crash_super(&mut self, number: usize) {
        self.supers[number].up = false;
        let others: Vec<usize> = (0..self.supers.len()).filter(|&other| other != number).collect();
        for other in others {
            self.break_link(number, other);
        }
        // What it knew of its links is gone with it.
        for ((a, b), link) in &mut self.links {
            if *a == number || *b == number {
                link.seen_by[usize::from(*b == number)] = false;
            }
        }
    }

    /// A super node that has restarted knows nothing of its hosts' connections, and tells them so (a stateless
    /// reset) when they send something.
    fn reset_sessions(&mut self, super_node: usize) {
        for number in 0..self.hosts.len() {
            if self.hosts[number].site == Some(super_node) {
                let session = self.hosts[number].session;
                let delay = 2 * self.network.latency(super_node, self.hosts[number].place);
                self.after(delay, Event::SessionLost(number, session));
            }
        }
    }

    fn leave(&mut self, number: usize) {
        let host = &mut self.hosts[number];
        if host.online {
            host.online = false;
            let session = host.session;
            self.on_session_lost(number, session);
        }
    }

    fn replica_bytes(&self, number: usize) -> u64 {
        self.hosts[number].holder.disk_bytes()
    }
}
