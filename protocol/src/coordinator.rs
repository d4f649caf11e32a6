//! The super node's decisions about its hosts: who holds what, who is alive, who answers.
//!
//! A state machine without I/O: the daemon tells it what happened and when (milliseconds of a
//! monotonic clock), and sends what [`Coordinator::poll_effect`] hands out. Manifests stay in the
//! daemon's store; effects name functions.
//!
//! | host state | on | becomes |
//! | --- | --- | --- |
//! | (none) | registered | joining: told nothing but corrections of what it holds |
//! | joining | last of its holdings | live: `Synced` is sent, replicas are assigned |
//! | live | silent for 5 s | live, not routed to |
//! | live | draining | leaving: not routed to, its replicas are assigned elsewhere |
//! | live | pausing ([`crate::pause`]) | live, not routed to, gets nothing new; later others hold what it holds |
//! | any | silent for 8 s, or connection closed | (none): its replicas are assigned elsewhere |
//!
//! Replicas are made before others are broken: a host that is no longer among the nearest is
//! released only when all that are have become ready.
//!
//! In a federation each function has a directory: the three super nodes nearest to it. The first of them
//! places it, on hosts of all super nodes, and orders those of others to have their hosts hold it; it
//! hears from them what became of that ([`News`]). The other two hear the same, so that one of them can go on
//! at once should the first be lost. A super node routes to its own hosts only.

mod federated;
mod settle;

mod losing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use settle::Settling;

use crate::id::{EngineHash, FunctionId, NodeId, OwnerId};
use crate::manifest::{Limits, Rank, Verified, Version};
use crate::pause::{Pause, Turn};
use crate::placement::{self, FailureDomain};
use crate::ranking;
use crate::removals::Removals;
use crate::wire::control::{Beat, HOLDINGS_ONLY, Held, LOST_AFTER_MS, Offer, SILENT_AFTER_MS};
use crate::wire::directory::{HOSTS_MAX, HostHint, ReadyReport, RemovalReport, Replica, ReplicaState};
use crate::wire::extension::Extensions;

pub use losing::Losing;

/// The most functions that one host may say it holds: bounds what a host can make a super node keep.
pub const HOLDINGS_MAX: usize = 100_000;
/// The most hosts that one super node keeps; more are refused.
pub const HOSTS_TOTAL_MAX: usize = 20_000;
/// The most hosts of other super nodes that one keeps in mind, about 300 bytes each; more are not placed on.
pub const REMOTE_HOSTS_MAX: usize = 200_000;
/// The most orders that wait for the manifest of their function: those of a few seconds.
pub const EARLY_ORDERS_MAX: usize = 10_000;

/// What the daemon has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Tell a host to hold the function's live revision.
    Assign(NodeId, FunctionId),
    /// Tell a host that it need not hold the function any more.
    Release(NodeId, FunctionId),
    /// Tell a host of the function's live revision or tombstone.
    Notify(NodeId, FunctionId),
    /// Tell a host that it knows everything now.
    Synced(NodeId),
    /// The host is gone: close what is left of its connection.
    Lost(NodeId),
}

/// What other super nodes have to hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum News {
    /// A host joined here.
    HostUp(NodeId),
    /// A host left.
    HostDown(NodeId),
    /// What a host here has to do with a function changed: [`Coordinator::replica_news`].
    Replica(FunctionId, NodeId),
    /// A host of that super node shall hold a function, or need not any more.
    Order(NodeId, FunctionId, NodeId, bool),
}

/// What is wanted for a function.
#[derive(Debug, Clone)]
struct Desired {
    /// Whether this super node places it.
    first: bool,
    rank: Rank,
    version: Version,
    /// `None` once the function is decommissioned.
    wish: Option<Wish>,
    /// Hosts that were told to hold it, nearest first.
    assigned: Vec<NodeId>,
}

#[derive(Debug, Clone)]
struct Wish {
    owner: OwnerId,
    artifact_bytes: u64,
    limits: Limits,
    engine: Option<EngineHash>,
    replicas: usize,
}

#[derive(Debug, Clone)]
struct ReplicaRecord {
    version: Version,
    ready: bool,
    refused: Option<String>,
    /// The version that the host was told to hold since it registered.
    told: Option<Version>,
    /// Another super node was told that its host need not hold it any more.
    releasing: bool,
    run_us: u32,
}

#[derive(Debug)]
struct Host {
    offer: Offer,
    domain: FailureDomain,
    /// It is connected here.
    local: bool,
    /// Other super nodes that it is connected to, the first of them gets the orders.
    sites: Vec<NodeId>,
    /// Its holdings are known.
    live: bool,
    /// It wants to hear of every change, not only of what it holds.
    hears_all: bool,
    draining: bool,
    pause: Pause,
    /// Its connection ended; it may come back.
    closed: bool,
    heard_ms: u64,
    rtt_us: u32,
    load: u32,
    disk_free_bytes: u64,
    failure_permille: u16,
    /// Functions with a record in `replicas`.
    holds: BTreeSet<FunctionId>,
    /// Functions that it was released from, and has not said that it dropped.
    releasing: BTreeSet<FunctionId>,
}

/// Why a host is not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CoordinatorError {
    /// As many hosts as one super node takes are registered.
    #[error("this super node has {HOSTS_TOTAL_MAX} hosts already")]
    TooManyHosts,
    /// The host names more functions than a host may.
    #[error("a host may hold at most {HOLDINGS_MAX} functions")]
    TooManyHoldings,
    /// The host has not registered.
    #[error("this host is not registered")]
    NotRegistered,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Coordinator {
    functions: BTreeMap<FunctionId, Desired>,
    hosts: BTreeMap<NodeId, Host>,
    replicas: BTreeMap<FunctionId, BTreeMap<NodeId, ReplicaRecord>>,
    /// This super node and those that it is linked to; empty if it is alone.
    supers: BTreeSet<NodeId>,
    me: Option<NodeId>,
    /// Orders for functions whose manifests are still on their way.
    early: BTreeMap<FunctionId, BTreeSet<NodeId>>,
    /// Hosts of super nodes that are listing theirs, as long as they were not named.
    unconfirmed: BTreeMap<NodeId, BTreeSet<NodeId>>,
    /// Hosts that are connected here.
    here: BTreeSet<NodeId>,
    /// Functions that may not be as they should: looked at again until they are.
    unsettled: BTreeSet<FunctionId>,
    settling: Settling,
    /// Those of them that want to hear of everything.
    listeners: BTreeSet<NodeId>,
    /// How many hosts each failure domain has.
    domains: BTreeMap<FailureDomain, usize>,
    removals: Removals,
    effects: VecDeque<Effect>,
    news: VecDeque<News>,
}

impl Coordinator {
    /// A coordinator that knows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next thing to do. Drain it after every `on_*`: it holds at most what one event causes.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// A super node that may have others beside it.
    pub fn federated(me: NodeId) -> Self {
        Self {
            me: Some(me),
            ..Self::default()
        }
    }

    /// The next thing that other super nodes have to hear. Drain it after every `on_*`, too.
    pub fn poll_news(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    /// Takes in a live manifest that was stored, also at start-up. Hosts are told of a change: those that hold
    /// the function, and those that want to hear of everything.
    pub fn on_manifest(&mut self, manifest: &Verified) {
        let function = manifest.function();
        let old = self.functions.get(&function);
        if old.is_some_and(|old| old.rank >= manifest.rank()) {
            return;
        }
        let assigned = old.map(|old| old.assigned.clone()).unwrap_or_default();
        let wish = manifest.publish().map(|publish| Wish {
            owner: manifest.manifest().owner,
            artifact_bytes: publish.artifact_bytes,
            limits: publish.limits,
            engine: publish.engine,
            replicas: publish.replicas.into(),
        });
        let desired = Desired {
            first: self.is_first(&function),
            rank: manifest.rank(),
            version: manifest.version(),
            wish,
            assigned,
        };
        self.functions.insert(function, desired);
        let ready = self.records(&function).filter(|(.., record)| record.ready);
        let holders: Vec<NodeId> = ready.map(|(node, ..)| node).collect();
        self.removals.on_manifest(manifest, holders.into_iter());
        // A refusal was for the older revision's size and limits.
        if let Some(records) = self.replicas.get_mut(&function) {
            for record in records.values_mut() {
                record.refused = None;
            }
        }
        self.place(function);
        self.tell_assigned(function);
        for host in self.early.remove(&function).unwrap_or_default() {
            self.assign_here(function, host);
        }
        self.notify(function);
    }

    /// Tells hosts here of a function that others hold, or that they hold without having to.
    fn notify(&mut self, function: FunctionId) {
        let mut whom = self.listeners.clone();
        whom.extend(self.replicas.get(&function).into_iter().flat_map(BTreeMap::keys));
        for node in whom {
            let here = self.hosts.get(&node).is_some_and(|host| host.local && host.live);
            if here && !self.assigned(&function).contains(&node) {
                self.effects.push_back(Effect::Notify(node, function));
            }
        }
    }

    /// Keeps a host in mind.
    fn insert(&mut self, node: NodeId, host: Host) {
        if host.local {
            self.here.insert(node);
            if host.hears_all {
                self.listeners.insert(node);
            }
        }
        *self.domains.entry(host.domain.clone()).or_default() += 1;
        self.hosts.insert(node, host);
    }

    /// Strikes a host; what it holds is left to the caller.
    fn remove(&mut self, node: &NodeId) -> Option<Host> {
        let host = self.hosts.remove(node)?;
        self.here.remove(node);
        self.listeners.remove(node);
        if let Some(count) = self.domains.get_mut(&host.domain) {
            *count -= 1;
            if *count == 0 {
                self.domains.remove(&host.domain);
            }
        }
        Some(host)
    }

    /// A host has authenticated and registered; an older registration of the same id is replaced.
    ///
    /// # Errors
    /// [`CoordinatorError::TooManyHosts`].
    pub fn on_registered(
        &mut self,
        now_ms: u64,
        node: NodeId,
        offer: Offer,
        domain: FailureDomain,
    ) -> Result<(), CoordinatorError> {
        // What it held is told anew. Its assignments stay: a connection that broke and came back
        // moves nothing.
        let mut sites = Vec::new();
        if let Some(old) = self.remove(&node) {
            for function in old.holds {
                self.erase(&node, &function);
            }
            sites = old.sites;
        }
        if self.here.len() >= HOSTS_TOTAL_MAX {
            return Err(CoordinatorError::TooManyHosts);
        }
        let host = Host {
            disk_free_bytes: offer.disk_free_bytes,
            hears_all: offer.extensions.get(HOLDINGS_ONLY).is_none(),
            offer,
            domain,
            local: true,
            sites,
            live: false,
            draining: false,
            pause: Pause::default(),
            closed: false,
            heard_ms: now_ms,
            rtt_us: 0,
            load: 0,
            failure_permille: 0,
            holds: BTreeSet::new(),
            releasing: BTreeSet::new(),
        };
        self.insert(node, host);
        Ok(())
    }

    /// The host tells what it holds.
    ///
    /// # Errors
    /// [`CoordinatorError`] for a host that is not registered or holds too much: close it.
    pub fn on_holding(
        &mut self,
        now_ms: u64,
        node: NodeId,
        held: &[Held],
        last: bool,
    ) -> Result<(), CoordinatorError> {
        let host = self.hosts.get_mut(&node).ok_or(CoordinatorError::NotRegistered)?;
        host.heard_ms = now_ms;
        if host.holds.len() + held.len() > HOLDINGS_MAX {
            return Err(CoordinatorError::TooManyHoldings);
        }
        self.removals.on_holding(node, held, last);
        for held in held {
            let known = self.functions.get(&held.function);
            if known.is_some_and(|desired| desired.version != held.version || desired.wish.is_none()) {
                self.effects.push_back(Effect::Notify(node, held.function));
            }
            if let Some(desired) = known.filter(|desired| desired.wish.is_some()) {
                let version = desired.believable(held.version);
                self.record(node, held.function, version, held.ready);
            }
        }
        if last {
            self.join(node);
        }
        Ok(())
    }

    /// A heart-beat, with the round trip that the connection measures.
    pub fn on_beat(&mut self, now_ms: u64, node: NodeId, rtt_us: u32, beat: &Beat) {
        let Some(host) = self.hosts.get_mut(&node) else {
            return;
        };
        host.heard_ms = now_ms;
        host.rtt_us = rtt_us;
        host.load = beat.running.saturating_add(beat.waiting);
        host.disk_free_bytes = beat.disk_free_bytes;
        host.failure_permille = beat.failure_permille;
        host.pause.hear(now_ms, beat.pause());
        for (function, run_us) in &beat.run_times_us {
            if let Some(record) = self.replicas.get_mut(function).and_then(|r| r.get_mut(&node)) {
                record.run_us = *run_us;
            }
        }
    }

    /// The host can answer for a version.
    pub fn on_ready(&mut self, now_ms: u64, node: NodeId, function: FunctionId, version: Version) {
        if !self.heard(now_ms, node) {
            return;
        }
        let Some(desired) = self.functions.get(&function) else {
            return;
        };
        if desired.wish.is_none() {
            // It was told to hold the function before it was told of the end.
            self.effects.push_back(Effect::Notify(node, function));
            return;
        }
        let version = desired.believable(version);
        if !self
            .replicas
            .get(&function)
            .is_some_and(|r| r.contains_key(&node))
            && self.hosts[&node].holds.len() >= HOLDINGS_MAX
        {
            return;
        }
        self.record(node, function, version, true);
        self.say(node, function);
        self.release_surplus(function);
    }

    /// The host will not hold a function: the next nearest is asked.
    pub fn on_refused(
        &mut self,
        now_ms: u64,
        node: NodeId,
        function: FunctionId,
        version: Version,
        reason: String,
    ) {
        if !self.heard(now_ms, node) {
            return;
        }
        let Some(desired) = self.functions.get_mut(&function) else {
            return;
        };
        if desired.version != version || !desired.assigned.contains(&node) {
            return;
        }
        if self.hosts[&node].pause.is_on() {
            // It is asked again afterwards.
            self.erase(&node, &function);
        } else {
            self.refuse_record(node, function, version, reason);
        }
        self.say(node, function);
        self.give_up(&node, &function);
        self.place(function);
    }

    /// The host holds a function no more.
    pub fn on_dropped(&mut self, now_ms: u64, node: NodeId, function: FunctionId) {
        if !self.heard(now_ms, node) {
            return;
        }
        self.removals.on_dropped(&node, &function);
        let host = self.hosts.get_mut(&node);
        if host.is_some_and(|host| host.releasing.remove(&function)) {
            // It was released; whatever it was told since then holds.
            return;
        }
        self.say_dropped(node, function);
        // It may have made room for others' sake; if it is still among the nearest it is asked again.
        self.give_up(&node, &function);
        self.place(function);
    }

    /// The host takes no new calls and is about to leave.
    pub fn on_draining(&mut self, now_ms: u64, node: NodeId) {
        if !self.heard(now_ms, node) {
            return;
        }
        if let Some(host) = self.hosts.get_mut(&node) {
            host.draining = true;
            if host.live && host.local {
                self.news.push_back(News::HostDown(node));
            }
        }
        self.place_all_of(node);
    }

    /// The host's connection ended. It may come back within the time after which it is lost, unless
    /// it said that it leaves.
    pub fn on_closed(&mut self, node: NodeId) {
        match self.hosts.get_mut(&node) {
            Some(host) if host.draining => self.leave(&node),
            Some(host) if host.local => host.closed = true,
            _ => {}
        }
    }

    /// The host could not be reached for a caller: it is not routed to until it is heard again.
    pub fn on_unreachable(&mut self, now_ms: u64, node: NodeId) {
        if let Some(host) = self.hosts.get_mut(&node) {
            host.heard_ms = host.heard_ms.min(now_ms.saturating_sub(SILENT_AFTER_MS + 1));
        }
    }

    /// Time passed; call it about once a second.
    pub fn on_tick(&mut self, now_ms: u64) {
        let is_lost = |node: &&NodeId| {
            let heard = self.hosts.get(*node).map(|host| host.heard_ms);
            heard.is_some_and(|heard_ms| now_ms.saturating_sub(heard_ms) > LOST_AFTER_MS)
        };
        let lost: Vec<NodeId> = self.here.iter().filter(is_lost).copied().collect();
        for node in lost {
            self.effects.push_back(Effect::Lost(node));
            self.leave(&node);
        }
        let hosts = self.hosts.iter_mut().filter(|(_, host)| host.local);
        let turns = hosts.filter_map(|(&node, host)| Some((node, host.pause.on_tick(now_ms)?)));
        for (node, turn) in turns.collect::<Vec<(NodeId, Turn)>>() {
            match turn {
                Turn::Lasts => self.place_all_of(node),
                Turn::Over => self.reconsider(node),
            }
        }
        self.settle(now_ms);
    }

    /// Hosts that can answer for a function, best first, at most [`HOSTS_MAX`].
    pub fn route(&self, now_ms: u64, function: &FunctionId) -> Vec<HostHint> {
        let Some(desired) = self.functions.get(function).filter(|d| d.wish.is_some()) else {
            return Vec::new();
        };
        let mut hints: Vec<HostHint> = self
            .records(function)
            .filter(|(_, host, record)| record.ready && host.routable(now_ms))
            // An older life of the function is over: nobody may answer from it.
            .filter(|(_, _, record)| record.version.generation == desired.version.generation)
            .map(|(node, host, record)| host.hint(node, record))
            .collect();
        ranking::rank(function, desired.version, &mut hints);
        hints.truncate(HOSTS_MAX);
        hints
    }

    /// Who is ready for `version` of a function or a newer one, and who is not.
    pub fn ready_report(&self, function: &FunctionId, version: Version) -> ReadyReport {
        let (mut ready, mut refused) = (Vec::new(), Vec::new());
        for (node, host, record) in self.records(function) {
            if record.ready && record.version >= version && !host.pause.is_on() {
                ready.push(node);
            } else if let Some(reason) = &record.refused {
                refused.push((node, reason.clone()));
            }
        }
        let assigned = self.functions.get(function).map_or(&[][..], |d| &d.assigned);
        // Whoever pauses gets ready and does not answer: it is not worth waiting for.
        let paused = |node: &NodeId| self.hosts.get(node).is_some_and(|host| host.pause.is_on());
        let pending = assigned.iter().filter(|n| !ready.contains(n) && !paused(n));
        let pending = pending.copied().collect();
        let hosts = u32::try_from(self.hosts.len()).unwrap_or(u32::MAX);
        ReadyReport {
            ready,
            pending,
            refused,
            hosts,
            extensions: Extensions::none(),
        }
    }

    /// Who has removed a function that was decommissioned, and who has still to do it.
    pub fn removal_report(&self, now_ms: u64, function: &FunctionId) -> RemovalReport {
        let mut report = RemovalReport::default();
        for (node, confirmed) in self.removals.of(function) {
            let here = |host: &Host| !host.closed && !host.is_silent(now_ms);
            match confirmed {
                true => report.removed.push(node),
                false if self.hosts.get(&node).is_some_and(here) => report.pending.push(node),
                false => report.offline.push(node),
            }
        }
        report
    }

    /// Every host that has to do with a function.
    pub fn replicas(&self, now_ms: u64, function: &FunctionId) -> Vec<Replica> {
        let version = self
            .functions
            .get(function)
            .map(|d| d.version)
            .unwrap_or_default();
        self.records(function)
            .map(|(node, host, record)| Replica {
                host: host.hint(node, record),
                state: record.state(host, now_ms, version),
                reason: record.reason(host),
            })
            .collect()
    }

    /// Hosts that were told to hold a function, nearest first.
    pub fn assigned(&self, function: &FunctionId) -> &[NodeId] {
        self.functions.get(function).map_or(&[], |d| &d.assigned)
    }

    /// Why fewer hosts hold a function than its owner wants; `None` if they do not.
    pub fn shortage(&self, function: &FunctionId) -> Option<String> {
        let desired = self.functions.get(function)?;
        let wish = desired.wish.as_ref()?;
        let (assigned, wanted) = (desired.assigned.len(), wish.replicas);
        if assigned >= wanted {
            return None;
        }
        let hosts = self.hosts.len();
        let paused = |host: &Host| Some(format!("a host is paused: {}", host.pause.reason()?));
        let mut hosts_now = self.hosts.values();
        let unwilling = hosts_now.find_map(|host| paused(host).or_else(|| host.unwilling(wish)));
        let why = unwilling.map(|why| format!(" ({why})")).unwrap_or_default();
        Some(format!(
            "{assigned} of {wanted} replicas placed; hosts connected: {hosts}{why}"
        ))
    }

    /// How many hosts are registered here.
    pub fn hosts(&self) -> usize {
        self.here.len()
    }

    /// Whether a host is registered here.
    pub fn is_here(&self, node: &NodeId) -> bool {
        self.hosts.get(node).is_some_and(|host| host.local)
    }

    /// Whether that is this super node.
    pub fn is_me(&self, node: &NodeId) -> bool {
        self.me.as_ref() == Some(node)
    }

    /// The owner of a function that is live.
    pub fn owner(&self, function: &FunctionId) -> Option<OwnerId> {
        self.functions.get(function)?.wish.as_ref().map(|wish| wish.owner)
    }

    // -- changes ---------------------------------------------------------------------------------

    fn is_first(&self, function: &FunctionId) -> bool {
        let first = placement::nearest(function, 1, &self.supers);
        first.first().is_none_or(|first| Some(*first) == self.me)
    }

    fn heard(&mut self, now_ms: u64, node: NodeId) -> bool {
        let host = self.hosts.get_mut(&node).filter(|host| host.local);
        host.map(|host| host.heard_ms = now_ms).is_some()
    }

    fn join(&mut self, node: NodeId) {
        if let Some(host) = self.hosts.get_mut(&node) {
            host.live = true;
            self.news.push_back(News::HostUp(node));
            let held = host.holds.clone();
            for function in held {
                self.say(node, function);
                self.tell_assigned(function);
            }
        }
        self.reconsider(node);
        self.effects.push_back(Effect::Synced(node));
    }

    /// Finds out what a host that takes functions now, and did not before, is to hold.
    fn reconsider(&mut self, node: NodeId) {
        let functions: Vec<FunctionId> = self.functions.keys().copied().collect();
        for function in functions {
            if self.concerns(&function, &node) {
                self.place(function);
                self.release_surplus(function);
            }
        }
    }

    /// Whether a host that comes can change the function's placement at all: a quick test, since it
    /// is made for every function.
    fn concerns(&self, function: &FunctionId, node: &NodeId) -> bool {
        let Some(desired) = self.functions.get(function) else {
            return false;
        };
        let Some(wish) = desired.wish.as_ref().filter(|_| desired.first) else {
            return false;
        };
        desired.assigned.len() < wish.replicas
            || self.replicas.get(function).is_some_and(|r| r.contains_key(node))
            || desired
                .assigned
                .iter()
                .any(|other| function.distance(node) <= function.distance(other))
    }

    /// Computes who should hold a function and tells those who were not told yet.
    fn place(&mut self, function: FunctionId) {
        // Others' functions are theirs to place; but what is no more need not be held.
        let Some(desired) = self
            .functions
            .get(&function)
            .filter(|d| d.first || d.wish.is_none())
        else {
            return;
        };
        let chosen = match &desired.wish {
            Some(wish) => {
                let records = self.replicas.get(&function);
                let nearest = placement::by_distance(&function, &self.hosts);
                let candidates = nearest.filter(|(node, host)| {
                    let record = records.and_then(|r| r.get(node));
                    let holds = record.is_some_and(|r| r.ready && r.version == desired.version);
                    let refused = record.is_some_and(|r| r.refused.is_some());
                    let takes = host.live && !host.draining && host.pause.lets_in(record.is_some());
                    takes && !refused && (holds || host.unwilling(wish).is_none())
                });
                placement::choose(
                    &function,
                    wish.replicas,
                    self.domains.len(),
                    candidates.map(|(node, host)| (node, &host.domain)),
                )
            }
            None => Vec::new(),
        };
        let version = desired.version;
        for &node in &chosen {
            self.tell(node, function, version);
        }
        if let Some(desired) = self.functions.get_mut(&function) {
            desired.assigned = chosen;
        }
        self.unsettled.insert(function);
    }

    /// Has a host hold a version, unless it does or was told already.
    fn tell(&mut self, node: NodeId, function: FunctionId, version: Version) {
        if !self
            .replicas
            .get(&function)
            .is_some_and(|r| r.contains_key(&node))
        {
            self.record(node, function, version, false);
        }
        let Some(record) = self.replicas.get_mut(&function).and_then(|r| r.get_mut(&node)) else {
            return;
        };
        let holds = record.ready && record.version >= version;
        let Some(host) = self.hosts.get(&node) else { return };
        if host.local {
            if !holds && record.told != Some(version) {
                record.told = Some(version);
                self.effects.push_back(Effect::Assign(node, function));
            }
        // Its super node tells it of newer versions itself, so that one order is enough.
        } else if let Some(site) = host.sites.first().filter(|_| !holds && record.told.is_none()) {
            record.told = Some(version);
            self.news.push_back(News::Order(*site, function, node, true));
        }
    }

    /// Has the hosts here that hold or should hold a function take its new version.
    fn tell_assigned(&mut self, function: FunctionId) {
        let Some(desired) = self.functions.get(&function).filter(|d| d.wish.is_some()) else {
            return;
        };
        let (version, assigned) = (desired.version, desired.assigned.clone());
        for node in assigned {
            self.tell(node, function, version);
        }
    }

    fn place_all_of(&mut self, node: NodeId) {
        let holds: Vec<FunctionId> = self
            .hosts
            .get(&node)
            .map(|h| h.holds.iter().copied().collect())
            .unwrap_or_default();
        for function in holds {
            self.place(function);
        }
    }

    /// Lets go of hosts beyond the assignment, once every assigned one is ready.
    fn release_surplus(&mut self, function: FunctionId) {
        let Some(desired) = self.functions.get(&function).filter(|d| d.wish.is_some()) else {
            return;
        };
        let Some(records) = self.replicas.get(&function) else {
            return;
        };
        let is_ready = |node| {
            records
                .get(node)
                .is_some_and(|r| r.ready && r.version >= desired.version)
        };
        if !desired.first || desired.assigned.is_empty() || !desired.assigned.iter().all(is_ready) {
            return;
        }
        let surplus: Vec<NodeId> = records
            .iter()
            .filter(|(node, record)| record.is_surplus(node, desired) && !record.releasing)
            // What a host holds that pauses is there for when it goes on.
            .filter(|(node, _)| self.hosts.get(node).is_none_or(|host| !host.pause.is_on()))
            .map(|(node, _)| *node)
            .collect();
        for node in surplus {
            self.release(node, function);
        }
    }

    /// Lets go of a replica: one here is forgotten at once, one elsewhere when its super node says so.
    fn release(&mut self, node: NodeId, function: FunctionId) {
        let Some(host) = self.hosts.get(&node) else { return };
        if host.local {
            self.effects.push_back(Effect::Release(node, function));
            self.say_dropped(node, function);
            let host = self.hosts.get_mut(&node);
            if let Some(host) = host.filter(|host| host.releasing.len() < HOLDINGS_MAX) {
                host.releasing.insert(function);
            }
        } else if let Some(site) = host.sites.first() {
            self.news.push_back(News::Order(*site, function, node, false));
            if let Some(record) = self.replicas.get_mut(&function).and_then(|r| r.get_mut(&node)) {
                record.releasing = true;
            }
            self.unsettled.insert(function);
        }
    }

    fn say_dropped(&mut self, node: NodeId, function: FunctionId) {
        self.erase(&node, &function);
        self.say(node, function);
    }

    fn record(&mut self, node: NodeId, function: FunctionId, version: Version, ready: bool) {
        let Some(host) = self.hosts.get_mut(&node) else {
            return;
        };
        host.holds.insert(function);
        self.unsettled.insert(function);
        let records = self.replicas.entry(function).or_default();
        let record = records.entry(node).or_insert(ReplicaRecord {
            version,
            ready,
            refused: None,
            told: None,
            releasing: false,
            run_us: 0,
        });
        if version >= record.version {
            record.ready = ready || (record.ready && record.version == version);
            record.version = version;
            if ready {
                record.refused = None;
            }
        }
    }

    fn refuse_record(&mut self, node: NodeId, function: FunctionId, version: Version, reason: String) {
        self.record(node, function, version, false);
        if let Some(record) = self.replicas.get_mut(&function).and_then(|r| r.get_mut(&node)) {
            record.refused = Some(reason);
        }
    }

    fn erase(&mut self, node: &NodeId, function: &FunctionId) {
        if let Some(host) = self.hosts.get_mut(node) {
            host.holds.remove(function);
        }
        if let Some(records) = self.replicas.get_mut(function) {
            records.remove(node);
            if records.is_empty() {
                self.replicas.remove(function);
            }
        }
    }

    /// A host is not here any more, though it may still be at another super node.
    fn leave(&mut self, node: &NodeId) {
        let Some(host) = self.hosts.get_mut(node) else {
            return;
        };
        if host.live && !host.draining {
            self.news.push_back(News::HostDown(*node));
        }
        self.here.remove(node);
        if host.sites.is_empty() {
            self.forget(node);
        } else {
            (host.local, host.closed, host.draining) = (false, false, false);
            self.listeners.remove(node);
        }
    }

    /// Strikes a host from everything and finds others for what it held.
    fn forget(&mut self, node: &NodeId) {
        let Some(host) = self.remove(node) else {
            return;
        };
        let ready = |function: &&FunctionId| {
            let record = self.replicas.get(*function).and_then(|r| r.get(node));
            record.is_some_and(|record| record.ready)
        };
        let held = host.holds.iter().filter(ready).copied().collect();
        self.removals.on_gone(*node, held);
        for function in host.holds {
            self.erase(node, &function);
            self.give_up(node, &function);
            self.place(function);
        }
    }

    /// A host is not expected to hold a function any more.
    fn give_up(&mut self, node: &NodeId, function: &FunctionId) {
        if let Some(desired) = self.functions.get_mut(function) {
            desired.assigned.retain(|n| n != node);
        }
    }

    /// Lets the function's directory know what became of a host here.
    fn say(&mut self, node: NodeId, function: FunctionId) {
        let is_local = self.hosts.get(&node).is_some_and(|host| host.local);
        if is_local && self.supers.len() > 1 {
            self.news.push_back(News::Replica(function, node));
        }
    }

    fn records(&self, function: &FunctionId) -> impl Iterator<Item = (NodeId, &Host, &ReplicaRecord)> {
        self.replicas
            .get(function)
            .into_iter()
            .flatten()
            .filter_map(|(node, record)| Some((*node, self.hosts.get(node)?, record)))
    }
}

impl Desired {
    /// What a host's word for a version is worth. It may have heard of a newer one elsewhere, or make
    /// one up: neither counts before this super node has the owner's signature for it. Otherwise who
    /// claims the last revision of all would pass for ready after every edit, without having been told.
    fn believable(&self, claimed: Version) -> Version {
        claimed.min(self.version)
    }
}

impl Host {
    fn is_silent(&self, now_ms: u64) -> bool {
        // Those of others are as alive as their super nodes say.
        self.local && now_ms.saturating_sub(self.heard_ms) > SILENT_AFTER_MS
    }

    fn routable(&self, now_ms: u64) -> bool {
        let here = self.local && self.live && !self.draining && !self.closed && !self.is_silent(now_ms);
        here && !self.pause.is_on()
    }

    /// Why the host would not take the function, as far as it said so when it registered.
    fn unwilling(&self, wish: &Wish) -> Option<String> {
        let offer = &self.offer;
        if wish.artifact_bytes > offer.artifact_bytes_max {
            let (is, most) = (wish.artifact_bytes, offer.artifact_bytes_max);
            return Some(format!(
                "the artifact has {is} bytes, a host takes at most {most}"
            ));
        }
        if wish.artifact_bytes > self.disk_free_bytes {
            return Some(format!("a host has room for {} bytes only", self.disk_free_bytes));
        }
        if let Some((name, wanted, most)) = wish.limits.above(&offer.ceiling) {
            return Some(format!("limits.{name} is {wanted}, a host takes at most {most}"));
        }
        match &wish.engine {
            Some(engine) if !offer.engines.contains(engine) => {
                Some(format!("a host does not have engine {}", engine.short()))
            }
            _ => None,
        }
    }

    fn hint(&self, node: NodeId, record: &ReplicaRecord) -> HostHint {
        HostHint {
            node,
            version: record.version,
            rtt_us: self.rtt_us,
            queue: self.load,
            capacity: self.offer.capacity,
            run_us: record.run_us,
            failure_permille: self.failure_permille,
            extensions: Extensions::none(),
        }
    }
}

impl ReplicaRecord {
    /// Whether a host holds what it need not.
    fn is_surplus(&self, node: &NodeId, desired: &Desired) -> bool {
        self.refused.is_none() && !desired.assigned.contains(node)
    }

    /// Why it does not answer, if somebody said so.
    fn reason(&self, host: &Host) -> String {
        let pause = || host.pause.reason().map(str::to_owned);
        self.refused.clone().or_else(pause).unwrap_or_default()
    }

    fn state(&self, host: &Host, now_ms: u64, live: Version) -> ReplicaState {
        match () {
            () if self.refused.is_some() => ReplicaState::Refused,
            () if host.is_silent(now_ms) => ReplicaState::Silent,
            () if host.pause.is_on() && self.ready => ReplicaState::Paused,
            () if self.ready && self.version >= live => ReplicaState::Ready,
            () => ReplicaState::Assigned,
        }
    }
}

#[cfg(test)]
#[path = "coordinator_pause_tests.rs"]
mod pause_tests;
#[cfg(test)]
#[path = "coordinator_tests.rs"]
mod tests;
