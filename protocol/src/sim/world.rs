//! The clock, and all nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::checks;
use super::hosts::{Host, Said, Told};
use super::links::Link;
use super::network::{Micros, Network};
use super::pulls::Pulled;
use super::queue::Queue;
use super::report::{Measured, Report};
use super::scenario::Scenario;
use super::supers::Super;
use super::work::Works;
use crate::federation::record::VerifiedRecord;
use crate::head::SignedHead;
use crate::id::{ManifestHash, NodeId};
use crate::manifest::Verified;
use crate::wire::federation::PeerMessage;

/// Between two ticks of a state machine.
pub(super) const TICK: Micros = 1_000_000;
/// What happens.
#[derive(Debug)]
pub(super) enum Event {
    SuperTick(usize, u64),
    SuperWake(usize, u64),
    HostTick(usize),
    Connect(usize),
    ToSuper(usize, u64, Said),
    ToHost(usize, u64, Told),
    SessionLost(usize, u64),
    LinkUp {
        dialler: usize,
        other: usize,
    },
    NotReached(usize, NodeId, u64),
    Peer {
        from: usize,
        to: usize,
        epoch: u64,
        message: Arc<PeerMessage>,
    },
    LinkDown {
        at: usize,
        peer: usize,
        epoch: u64,
    },
    Pulled {
        at: usize,
        from: usize,
        life: u64,
        answer: Option<Box<Pulled>>,
    },
    Obtained(usize, Box<Verified>),
    Work(usize, u64),
    FaultBegins(usize),
    FaultEnds(usize),
    Call,
    CallArrives(Box<super::work::Call>),
}

/// See the module's text.
pub(super) struct World<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) now: Micros,
    pub(super) rng: fastrand::Rng,
    pub(super) network: Network,
    pub(super) supers: Vec<Super>,
    pub(super) hosts: Vec<Host>,
    pub(super) super_numbers: BTreeMap<NodeId, usize>,
    pub(super) host_numbers: BTreeMap<NodeId, usize>,
    pub(super) links: BTreeMap<(usize, usize), Link>,
    pub(super) manifests: BTreeMap<ManifestHash, (Arc<Verified>, Arc<SignedHead>)>,
    pub(super) records: BTreeMap<Vec<u8>, VerifiedRecord>,
    pub(super) works: Works,
    pub(super) measured: Measured,
    queue: Queue,
    /// Counts links.
    pub(super) epochs: u64,
}

/// Runs a scenario to its end.
pub fn run(scenario: &Scenario, seed: u64) -> Report {
    let mut world = World::new(scenario, seed);
    let end = (scenario.duration_s + scenario.settle_s) * 1_000_000;
    while let Some((at, event)) = world.queue.pop_until(end) {
        world.now = at;
        world.handle(event);
    }
    world.now = end;
    let checks = checks::all(&world);
    Report::new(&world, seed, checks)
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, seed: u64) -> Self {
        let supers: Vec<Super> = (0..scenario.supers).map(Super::new).collect();
        let hosts: Vec<Host> = (0..scenario.hosts)
            .map(|number| Host::new(number, scenario.supers + number, number % scenario.supers))
            .collect();
        let mut world = Self {
            scenario,
            now: 0,
            rng: fastrand::Rng::with_seed(seed),
            network: Network::new(scenario.network, seed, scenario.duration_s * 1_000_000),
            super_numbers: supers.iter().enumerate().map(|(n, s)| (s.node, n)).collect(),
            host_numbers: hosts.iter().enumerate().map(|(n, h)| (h.node, n)).collect(),
            supers,
            hosts,
            links: BTreeMap::new(),
            manifests: BTreeMap::new(),
            records: BTreeMap::new(),
            works: Works::new(scenario, seed),
            measured: Measured::default(),
            queue: Queue::default(),
            epochs: 0,
        };
        world.begin();
        world
    }

    /// Super nodes know of the first one; hosts connect within the first second.
    fn begin(&mut self) {
        let first = self.supers[0].record();
        for number in 0..self.supers.len() {
            self.supers[number].hub.on_record(0, None, first.clone());
            self.drain(number);
            let phase = self.rng.u64(0..TICK);
            self.after(phase, Event::SuperTick(number, 1));
        }
        for number in 0..self.hosts.len() {
            let at = 2_000_000 + self.rng.u64(0..TICK);
            self.after(at, Event::Connect(number));
            self.after(at, Event::HostTick(number));
        }
        for (number, work) in self.scenario.works.iter().enumerate() {
            self.after(work.at_ms * 1_000, Event::Work(number, 0));
        }
        for (number, fault) in self.scenario.faults.iter().enumerate() {
            self.after(fault.at_ms * 1_000, Event::FaultBegins(number));
            if fault.for_ms > 0 {
                let end = (fault.at_ms + fault.for_ms) * 1_000;
                self.after(end, Event::FaultEnds(number));
            }
        }
        self.deploy_all();
        if self.scenario.calls_per_s > 0 {
            self.after(super::work::FIRST_CALL, Event::Call);
        }
    }

    /// Has something happen after so long.
    pub(super) fn after(&mut self, delay: Micros, event: Event) {
        self.queue.push(self.now + delay, event);
        self.measured.queue_max = self.measured.queue_max.max(self.queue.len());
    }

    /// Has something happen at that time.
    pub(super) fn at(&mut self, time: Micros, event: Event) {
        self.after(time.saturating_sub(self.now), event);
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.now / 1_000
    }

    fn handle(&mut self, event: Event) {
        self.measured.events += 1;
        match event {
            Event::SuperTick(number, life) => self.on_super_tick(number, life),
            Event::SuperWake(number, life) => self.on_super_wake(number, life),
            Event::HostTick(number) => self.on_host_tick(number),
            Event::Connect(number) => self.on_connect(number),
            Event::ToSuper(host, session, said) => self.on_said(host, session, said),
            Event::ToHost(host, session, told) => self.on_told(host, session, told),
            Event::SessionLost(host, session) => self.on_session_lost(host, session),
            Event::LinkUp { dialler, other } => self.on_link_up(dialler, other),
            Event::NotReached(number, node, life) => {
                if self.supers[number].life == life {
                    let now_ms = self.now_ms();
                    let hub = &mut self.supers[number].hub;
                    hub.with_peers(|federation| federation.on_not_reached(now_ms, node));
                    self.drain(number);
                }
            }
            Event::Peer {
                from,
                to,
                epoch,
                message,
            } => self.on_peer(from, to, epoch, message),
            Event::LinkDown { at, peer, epoch } => self.on_link_down(at, peer, epoch),
            Event::Pulled {
                at,
                from,
                life,
                answer,
            } => self.on_pulled(at, from, life, answer),
            Event::Obtained(host, manifest) => self.on_obtained(host, &manifest),
            Event::Work(number, nth) => self.on_work(number, nth),
            Event::FaultBegins(number) => self.on_fault_begins(number),
            Event::FaultEnds(number) => self.on_fault_ends(number),
            Event::Call => self.on_call(),
            Event::CallArrives(call) => self.on_call_arrives(&call),
        }
    }
}
