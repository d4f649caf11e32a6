//! The clock, and all nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::checks;
use super::hosts::{Host, Said, Told};
use super::network::{Micros, Network};
use super::queue::Queue;
use super::report::{Measured, Report};
use super::scenario::Scenario;
use super::supers::Super;
use super::work::Works;
use crate::coordinator;
use crate::federation::record::VerifiedRecord;
use crate::head::SignedHead;
use crate::holder;
use crate::hub::{Effect, GATHER_MS, Inbound};
use crate::id::{FunctionId, ManifestHash, NodeId};
use crate::manifest::Verified;
use crate::placement::FailureDomain;
use crate::wire::control::{BEAT_INTERVAL_MS, Beat};
use crate::wire::extension::Extensions;
use crate::wire::federation::{Cursor, PeerMessage, SignedRecord};

/// Between two ticks of a state machine.
const TICK: Micros = 1_000_000;
/// How long a dial to nobody takes.
const DIAL_TIMEOUT: Micros = 5_000_000;
/// QUIC's idle timeout: after it a host knows that its super node is gone.
const IDLE_TIMEOUT: Micros = 15_000_000;

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

/// What a pull brought.
#[derive(Debug)]
pub(super) struct Pulled {
    changes: Vec<(Cursor, Arc<Verified>, Arc<SignedHead>)>,
    known: Vec<Cursor>,
}

/// A link between two super nodes: its epoch, and whether each side still takes it for up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    pub(super) epoch: u64,
    /// Nothing gets through any more, though not everybody knows.
    pub(super) broken: bool,
    /// The side with the smaller number, and the other.
    pub(super) seen_by: [bool; 2],
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
    records: BTreeMap<Vec<u8>, VerifiedRecord>,
    pub(super) works: Works,
    pub(super) measured: Measured,
    queue: Queue,
    epochs: u64,
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

    fn at(&mut self, time: Micros, event: Event) {
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
            Event::CallArrives(call) => self.on_call_arrives(*call),
        }
    }

    // -- super nodes -------------------------------------------------------------------------------

    fn on_super_tick(&mut self, number: usize, life: u64) {
        let now_ms = self.now_ms();
        let node = &mut self.supers[number];
        if node.life != life || !node.up {
            return;
        }
        node.hub.with_hosts(|coordinator| coordinator.on_tick(now_ms));
        node.hub.with_peers(|federation| federation.on_tick(now_ms));
        self.drain(number);
        self.after(TICK, Event::SuperTick(number, life));
    }

    fn on_super_wake(&mut self, number: usize, life: u64) {
        let node = &mut self.supers[number];
        if node.life == life && node.up {
            node.hub.on_wake();
            self.drain(number);
        }
    }

    /// Does what a super node's state machines want done.
    pub(super) fn drain(&mut self, number: usize) {
        while let Some(effect) = self.supers[number].hub.poll_effect() {
            match effect {
                Effect::Host(effect) => self.tell_host(number, effect),
                Effect::Peer(effect) => self.do_for_peer(number, effect),
                Effect::Wake => {
                    let life = self.supers[number].life;
                    self.after(GATHER_MS * 1_000, Event::SuperWake(number, life));
                }
            }
        }
    }

    fn tell_host(&mut self, number: usize, effect: coordinator::Effect) {
        use coordinator::Effect as E;
        let live = |function| {
            let live = self.supers[number].disk.live.get(function);
            live.map(|(manifest, _)| Arc::clone(manifest))
        };
        let (node, told) = match effect {
            E::Assign(node, function) => (node, live(&function).map(Told::Assign)),
            E::Notify(node, function) => (node, live(&function).map(Told::Changed)),
            E::Release(node, function) => (node, Some(Told::Release(function))),
            E::Synced(node) => (node, Some(Told::Synced)),
            E::Lost(node) => return self.close_session(number, node),
        };
        let (Some(told), Some(&host)) = (told, self.host_numbers.get(&node)) else {
            return;
        };
        let Host {
            site, session, place, ..
        } = self.hosts[host];
        if site != Some(number) || !self.network.is_open_both_ways(number, place) {
            return;
        }
        self.measured.to_hosts += 1;
        let arrival = self.network.arrival(self.now, number, place);
        self.at(arrival, Event::ToHost(host, session, told));
    }

    /// A super node closes the connection of a host that it has lost.
    fn close_session(&mut self, number: usize, node: NodeId) {
        let host = self.host_numbers[&node];
        let Host {
            site, session, place, ..
        } = self.hosts[host];
        if site == Some(number) && self.network.is_open_both_ways(number, place) {
            let delay = self.network.latency(number, place);
            self.after(delay, Event::SessionLost(host, session));
        }
    }

    fn do_for_peer(&mut self, number: usize, effect: crate::federation::Effect) {
        use crate::federation::Effect as E;
        match effect {
            E::Dial(node, _) => self.dial(number, node),
            E::Send(node, message) => self.send_peer(number, node, message),
            E::Pull(node) => self.pull(number, node),
            E::Close(node, _) => {
                if let Some(&peer) = self.super_numbers.get(&node) {
                    self.break_link(number, peer);
                    self.notice(number, peer);
                }
            }
            E::Keep(record) => {
                let verified = self.verified(record);
                self.supers[number].keep(&verified);
            }
            E::Joined(_) | E::Left(_) => {}
        }
    }

    fn dial(&mut self, number: usize, node: NodeId) {
        let Some(&other) = self.super_numbers.get(&node) else {
            return;
        };
        let life = self.supers[number].life;
        if self.supers[other].up && self.network.is_open_both_ways(number, other) {
            let delay = 3 * self.network.latency(number, other);
            let dialler = number;
            self.after(delay, Event::LinkUp { dialler, other });
        } else {
            self.after(DIAL_TIMEOUT, Event::NotReached(number, node, life));
        }
    }

    fn on_link_up(&mut self, dialler: usize, other: usize) {
        let key = (dialler.min(other), dialler.max(other));
        let up = self.supers[dialler].up && self.supers[other].up;
        let open = up && self.network.is_open_both_ways(dialler, other);
        let exists = self.links.get(&key).is_some_and(|link| !link.broken);
        let life = self.supers[dialler].life;
        if !open {
            let node = self.supers[other].node;
            return self.after(DIAL_TIMEOUT, Event::NotReached(dialler, node, life));
        }
        if exists {
            return;
        }
        if let Some(old) = self.links.get(&key).copied() {
            for (side, at, peer) in [(0, key.0, key.1), (1, key.1, key.0)] {
                if old.seen_by[side] {
                    self.link_down(at, peer);
                }
            }
        }
        self.epochs += 1;
        let link = Link {
            epoch: self.epochs,
            broken: false,
            seen_by: [true, true],
        };
        self.links.insert(key, link);
        let now_ms = self.now_ms();
        for (at, peer) in [(dialler, other), (other, dialler)] {
            let (record, own) = (
                self.supers[peer].record(),
                self.supers[peer].hub.federation().own(),
            );
            self.supers[at].hub.on_link_up(now_ms, record, own);
        }
        self.drain(dialler);
        self.drain(other);
    }

    fn send_peer(&mut self, from: usize, node: NodeId, message: Arc<PeerMessage>) {
        let Some(&to) = self.super_numbers.get(&node) else {
            return;
        };
        let Some(link) = self.links.get(&(from.min(to), from.max(to))).copied() else {
            return;
        };
        self.measured.count(&message);
        if link.broken {
            return;
        }
        if !self.network.is_open_both_ways(from, to) || !self.supers[to].up {
            return self.break_link(from, to);
        }
        let epoch = link.epoch;
        if self.network.is_doubled() {
            self.deliver(from, to, epoch, Arc::clone(&message));
        }
        self.deliver(from, to, epoch, message);
    }

    fn deliver(&mut self, from: usize, to: usize, epoch: u64, message: Arc<PeerMessage>) {
        let arrival = self.network.arrival(self.now, from, to);
        let event = Event::Peer {
            from,
            to,
            epoch,
            message,
        };
        self.at(arrival, event);
    }

    /// Nothing gets through a link any more. Each side finds out by itself.
    pub(super) fn break_link(&mut self, a: usize, b: usize) {
        if let Some(link) = self.links.get_mut(&(a.min(b), a.max(b)))
            && !link.broken
        {
            link.broken = true;
            let epoch = link.epoch;
            self.after(
                IDLE_TIMEOUT,
                Event::LinkDown {
                    at: a,
                    peer: b,
                    epoch,
                },
            );
            self.after(
                IDLE_TIMEOUT,
                Event::LinkDown {
                    at: b,
                    peer: a,
                    epoch,
                },
            );
        }
    }

    fn on_link_down(&mut self, at: usize, peer: usize, epoch: u64) {
        let link = self.links.get(&(at.min(peer), at.max(peer)));
        if link.is_some_and(|link| link.epoch == epoch) {
            self.notice(at, peer);
        }
    }

    /// A side of a link finds out that it is down.
    fn notice(&mut self, at: usize, peer: usize) {
        let side = usize::from(at > peer);
        let link = self.links.get_mut(&(at.min(peer), at.max(peer)));
        if let Some(link) = link
            && std::mem::replace(&mut link.seen_by[side], false)
        {
            self.link_down(at, peer);
        }
    }

    fn link_down(&mut self, at: usize, peer: usize) {
        let (now_ms, node) = (self.now_ms(), self.supers[peer].node);
        let hub = &mut self.supers[at].hub;
        hub.with_peers(|federation| federation.on_link_down(now_ms, node));
        hub.with_peers(|federation| federation.on_not_reached(now_ms, node));
        self.drain(at);
    }

    fn on_peer(&mut self, from: usize, to: usize, epoch: u64, message: Arc<PeerMessage>) {
        let link = self.links.get(&(from.min(to), from.max(to)));
        if !link.is_some_and(|link| link.epoch == epoch && !link.broken) || !self.supers[to].up {
            return;
        }
        let (now_ms, node) = (self.now_ms(), self.supers[from].node);
        let message = Arc::unwrap_or_clone(message);
        match self.supers[to].hub.on_message(now_ms, node, message) {
            Inbound::Nothing => {}
            Inbound::Records(records) => {
                for record in records {
                    let record = self.verified(record);
                    self.supers[to].hub.on_record(now_ms, Some(node), record);
                }
            }
            Inbound::Change(change) => {
                let (manifest, head) = self.manifests[&change.manifest.hash()].clone();
                self.store(to, change.at, &manifest, &head);
            }
        }
        self.drain(to);
    }

    /// A super node's record, which is verified once for all others.
    fn verified(&mut self, signed: SignedRecord) -> VerifiedRecord {
        let verify = || VerifiedRecord::verify(signed.clone()).expect("simulated super nodes sign");
        self.records
            .entry(signed.bytes.clone())
            .or_insert_with(verify)
            .clone()
    }

    fn store(&mut self, number: usize, at: Cursor, manifest: &Arc<Verified>, head: &Arc<SignedHead>) {
        let node = &mut self.supers[number];
        let news = node.take_in(at, manifest, head);
        node.hub.on_stored(at, news.then_some(&**manifest));
    }

    fn pull(&mut self, at: usize, node: NodeId) {
        let Some(&from) = self.super_numbers.get(&node) else {
            return;
        };
        let life = self.supers[at].life;
        let answer = (self.supers[from].up && self.network.is_open_both_ways(at, from)).then(|| {
            let (asker, asked) = (&self.supers[at], &self.supers[from]);
            let known = asked.disk.clock.cursors();
            let changes = if asker.hub.federation().is_beyond_clock(&node) {
                let (changes, bytes) = asker.lacks(asked).expect("both keep to the protocol");
                self.measured.reconciled += 1;
                self.measured.reconciled_bytes += bytes;
                changes
            } else {
                asked.missing(&asker.disk.clock)
            };
            let live = &self.supers[from].disk.live;
            let with = |(cursor, function): (Cursor, FunctionId)| {
                let (manifest, head) = &live[&function];
                (cursor, Arc::clone(manifest), Arc::clone(head))
            };
            let changes: Vec<_> = changes.into_iter().map(with).collect();
            let bytes = |change: &(Cursor, Arc<Verified>, Arc<SignedHead>)| {
                crate::wire::codec::encode(&super::supers::change(change.0, &change.1, &change.2)).len()
                    as u64
            };
            self.measured.pulled_bytes += changes.iter().map(bytes).sum::<u64>();
            self.measured.pulled += changes.len() as u64;
            Box::new(Pulled { changes, known })
        });
        self.measured.pulls += 1;
        let delay = match &answer {
            Some(_) => 2 * self.network.latency(at, from),
            None => DIAL_TIMEOUT,
        };
        self.after(
            delay,
            Event::Pulled {
                at,
                from,
                life,
                answer,
            },
        );
    }

    fn on_pulled(&mut self, at: usize, from: usize, life: u64, answer: Option<Box<Pulled>>) {
        if self.supers[at].life != life || !self.supers[at].up {
            return;
        }
        let node = self.supers[from].node;
        let known = answer.map(|answer| {
            for (cursor, manifest, head) in &answer.changes {
                self.store(at, *cursor, manifest, head);
            }
            for cursor in &answer.known {
                self.supers[at].disk.clock.raise(*cursor);
            }
            answer.known
        });
        let hub = &mut self.supers[at].hub;
        hub.with_peers(|federation| federation.on_pulled(node, known.as_deref()));
        self.drain(at);
    }

    // -- hosts -------------------------------------------------------------------------------------

    fn on_host_tick(&mut self, number: usize) {
        let now_ms = self.now_ms();
        self.after(TICK, Event::HostTick(number));
        let host = &mut self.hosts[number];
        if !host.online {
            return;
        }
        host.holder.on_tick(now_ms);
        self.drain_host(number);
        let beats = (self.now / TICK).is_multiple_of(BEAT_INTERVAL_MS / 1_000);
        if beats && self.hosts[number].site.is_some() {
            self.say(number, Said::Beat);
        }
    }

    /// A host tries to connect: at its own super node first, then at any.
    fn on_connect(&mut self, number: usize) {
        let Host {
            online,
            site,
            place,
            home,
            failures,
            ..
        } = self.hosts[number];
        if !online || site.is_some() {
            return;
        }
        let target = if failures < 2 {
            home
        } else {
            self.rng.usize(0..self.supers.len())
        };
        if !self.supers[target].up || !self.network.is_open_both_ways(place, target) {
            self.hosts[number].failures += 1;
            let pause = 500_000 + self.rng.u64(0..1_000_000);
            return self.after(pause, Event::Connect(number));
        }
        let host = &mut self.hosts[number];
        host.failures = 0;
        host.site = Some(target);
        host.session += 1;
        self.say(number, Said::Register);
    }

    fn say(&mut self, number: usize, said: Said) {
        let Host {
            site, session, place, ..
        } = self.hosts[number];
        let Some(target) = site else { return };
        if !self.supers[target].up || !self.network.is_open_both_ways(place, target) {
            // Nothing is acknowledged: QUIC finds out after its idle timeout.
            return self.after(IDLE_TIMEOUT, Event::SessionLost(number, session));
        }
        self.measured.from_hosts += 1;
        let arrival = self.network.arrival(self.now, place, target);
        self.at(arrival, Event::ToSuper(number, session, said));
    }

    fn on_said(&mut self, number: usize, session: u64, said: Said) {
        let host = &self.hosts[number];
        let Some(site) = host.site.filter(|_| host.session == session && host.online) else {
            return;
        };
        if !self.supers[site].up {
            return;
        }
        let (now_ms, node) = (self.now_ms(), host.node);
        let rtt_us = 2 * self.network.latency(host.place, site);
        let rtt_us = u32::try_from(rtt_us).unwrap_or(u32::MAX);
        let registers = matches!(said, Said::Register);
        let held = registers.then(|| host.holder.held()).unwrap_or_default();
        let hub = &mut self.supers[site].hub;
        if !registers && !hub.coordinator().is_here(&node) {
            // A connection that the super node does not know is reset.
            let delay = self.network.latency(site, host.place);
            return self.after(delay, Event::SessionLost(number, session));
        }
        hub.with_hosts(|c| match said {
            Said::Register => {
                let domain = FailureDomain::of(
                    &Host::offer(number).operator,
                    std::net::IpAddr::from([10, (number >> 8) as u8, number as u8, 1]),
                );
                let registered = c.on_registered(now_ms, node, Host::offer(number), domain);
                registered.expect("a super node has room for the hosts of a scenario");
                let joined = c.on_holding(now_ms, node, &held, true);
                joined.expect("a host has registered before");
            }
            Said::Beat => c.on_beat(now_ms, node, rtt_us, &beat()),
            Said::Ready(function, version) => c.on_ready(now_ms, node, function, version),
            Said::Refused(function, version, reason) => {
                c.on_refused(now_ms, node, function, version, reason);
            }
            Said::Dropped(function) => c.on_dropped(now_ms, node, function),
        });
        self.drain(site);
    }

    fn on_told(&mut self, number: usize, session: u64, told: Told) {
        let now = self.now;
        let host = &mut self.hosts[number];
        if host.session != session || !host.online || host.site.is_none() {
            return;
        }
        match told {
            Told::Assign(manifest) => {
                self.works.on_heard(now, number, &manifest);
                host.hear_of(&manifest);
                host.holder.on_assign((*manifest).clone());
            }
            Told::Changed(manifest) => {
                self.works.on_heard(now, number, &manifest);
                host.hear_of(&manifest);
                host.holder.on_changed((*manifest).clone());
            }
            Told::Release(function) => host.holder.on_release(function),
            Told::Synced => {
                if !std::mem::replace(&mut host.synced, true) {
                    host.holder.on_synced();
                }
            }
        }
        self.drain_host(number);
    }

    pub(super) fn on_session_lost(&mut self, number: usize, session: u64) {
        let now_ms = self.now_ms();
        let host = &mut self.hosts[number];
        if host.session != session || host.site.is_none() {
            return;
        }
        let site = host.site.take();
        if std::mem::take(&mut host.synced) {
            host.holder.on_unsynced(now_ms);
        }
        let (online, node) = (host.online, host.node);
        if let Some(site) = site.filter(|site| self.supers[*site].up) {
            let hub = &mut self.supers[site].hub;
            hub.with_hosts(|coordinator| coordinator.on_closed(node));
            self.drain(site);
        }
        if online {
            self.after(500_000, Event::Connect(number));
        }
    }

    fn on_obtained(&mut self, number: usize, manifest: &Verified) {
        let host = &mut self.hosts[number];
        if !host.online || !host.holder.wants(manifest) {
            return;
        }
        let (stored, _) = self.manifests[&manifest.hash()].clone();
        host.disk.insert(manifest.function(), stored);
        host.holder.on_obtained(manifest);
        self.measured.fetched_bytes += manifest.publish().map_or(0, |publish| publish.artifact_bytes);
        self.measured.fetches += 1;
        self.drain_host(number);
    }

    pub(super) fn drain_host(&mut self, number: usize) {
        use holder::Effect as E;
        while let Some(effect) = self.hosts[number].holder.poll_effect() {
            match effect {
                E::Obtain(manifest) => {
                    let Host {
                        site, place, home, ..
                    } = self.hosts[number];
                    let bytes = manifest.publish().map_or(0, |publish| publish.artifact_bytes);
                    let delay = self.network.transfer(site.unwrap_or(home), place, bytes);
                    self.after(delay, Event::Obtained(number, manifest));
                }
                E::Purge(function, tombstone) => {
                    let disk = &mut self.hosts[number].disk;
                    match tombstone {
                        Some(tombstone) => {
                            disk.insert(function, Arc::new(*tombstone));
                        }
                        None => {
                            disk.remove(&function);
                        }
                    }
                }
                E::RemoveArtifact(_) | E::LogEvicted(..) => {}
                E::ReportReady(function, version) => self.say(number, Said::Ready(function, version)),
                E::ReportRefused(function, version, reason) => {
                    self.say(number, Said::Refused(function, version, reason));
                }
                E::ReportDropped(function) => self.say(number, Said::Dropped(function)),
            }
        }
    }
}

fn beat() -> Beat {
    Beat {
        running: 0,
        waiting: 0,
        disk_free_bytes: 1 << 30,
        run_times_us: Vec::new(),
        failure_permille: 0,
        extensions: Extensions::none(),
    }
}
