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
//! | any | silent for 8 s, or connection closed | (none): its replicas are assigned elsewhere |
//!
//! Replicas are made before others are broken: a host that is no longer among the nearest is
//! released only when all that are have become ready.

mod losing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::id::{EngineHash, FunctionId, NodeId, OwnerId};
use crate::manifest::{Limits, Rank, Verified, Version};
use crate::placement::{self, FailureDomain};
use crate::ranking;
use crate::wire::control::{Beat, Held, LOST_AFTER_MS, Offer, SILENT_AFTER_MS};
use crate::wire::directory::{HOSTS_MAX, HostHint, ReadyReport, Replica, ReplicaState};
use crate::wire::extension::Extensions;

pub use losing::Losing;

/// The most functions that one host may say it holds: bounds what a host can make a super node keep.
pub const HOLDINGS_MAX: usize = 100_000;
/// The most hosts that one super node keeps; more are refused.
pub const HOSTS_TOTAL_MAX: usize = 20_000;

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

/// What is wanted for a function.
#[derive(Debug, Clone)]
struct Desired {
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
    run_us: u32,
}

#[derive(Debug)]
struct Host {
    offer: Offer,
    domain: FailureDomain,
    /// Its holdings are known.
    live: bool,
    draining: bool,
    /// Its connection ended; it may come back.
    closed: bool,
    heard_ms: u64,
    rtt_us: u32,
    load: u32,
    disk_free_bytes: u64,
    failure_permille: u16,
    /// Functions with a record in `replicas`.
    holds: BTreeSet<FunctionId>,
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
    effects: VecDeque<Effect>,
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

    /// Takes in a live manifest that was stored, also at start-up. All hosts are told of a change.
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
            rank: manifest.rank(),
            version: manifest.version(),
            wish,
            assigned,
        };
        self.functions.insert(function, desired);
        // A refusal was for the older revision's size and limits.
        if let Some(records) = self.replicas.get_mut(&function) {
            for record in records.values_mut() {
                record.refused = None;
            }
        }
        self.place(function);
        let assigned = self.assigned(&function).to_vec();
        let others = self
            .hosts
            .iter()
            .filter(|(node, host)| host.live && !assigned.contains(node));
        self.effects
            .extend(others.map(|(&node, _)| Effect::Notify(node, function)));
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
        if let Some(old) = self.hosts.remove(&node) {
            for function in old.holds {
                self.erase(&node, &function);
            }
        }
        if self.hosts.len() >= HOSTS_TOTAL_MAX {
            return Err(CoordinatorError::TooManyHosts);
        }
        let host = Host {
            disk_free_bytes: offer.disk_free_bytes,
            offer,
            domain,
            live: false,
            draining: false,
            closed: false,
            heard_ms: now_ms,
            rtt_us: 0,
            load: 0,
            failure_permille: 0,
            holds: BTreeSet::new(),
        };
        self.hosts.insert(node, host);
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
        let wanted = self.functions.get(&function).filter(|d| d.wish.is_some());
        let Some(version) = wanted.map(|desired| desired.believable(version)) else {
            return;
        };
        if !self
            .replicas
            .get(&function)
            .is_some_and(|r| r.contains_key(&node))
            && self.hosts[&node].holds.len() >= HOLDINGS_MAX
        {
            return;
        }
        self.record(node, function, version, true);
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
        self.record(node, function, version, false);
        if let Some(record) = self.replicas.get_mut(&function).and_then(|r| r.get_mut(&node)) {
            record.refused = Some(reason);
        }
        self.place(function);
    }

    /// The host holds a function no more.
    pub fn on_dropped(&mut self, now_ms: u64, node: NodeId, function: FunctionId) {
        if !self.heard(now_ms, node) {
            return;
        }
        self.erase(&node, &function);
        // It may have made room for others' sake; if it is still among the nearest it is asked again.
        if let Some(desired) = self.functions.get_mut(&function) {
            desired.assigned.retain(|n| *n != node);
        }
        self.place(function);
    }

    /// The host takes no new calls and is about to leave.
    pub fn on_draining(&mut self, now_ms: u64, node: NodeId) {
        if !self.heard(now_ms, node) {
            return;
        }
        if let Some(host) = self.hosts.get_mut(&node) {
            host.draining = true;
        }
        self.place_all_of(node);
    }

    /// The host's connection ended. It may come back within the time after which it is lost, unless
    /// it said that it leaves.
    pub fn on_closed(&mut self, node: NodeId) {
        match self.hosts.get_mut(&node) {
            Some(host) if host.draining => self.forget(&node),
            Some(host) => host.closed = true,
            None => {}
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
        let lost: Vec<NodeId> = self
            .hosts
            .iter()
            .filter(|(_, host)| now_ms.saturating_sub(host.heard_ms) > LOST_AFTER_MS)
            .map(|(&node, _)| node)
            .collect();
        for node in lost {
            self.effects.push_back(Effect::Lost(node));
            self.forget(&node);
        }
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
        for (node, _, record) in self.records(function) {
            if record.ready && record.version >= version {
                ready.push(node);
            } else if let Some(reason) = &record.refused {
                refused.push((node, reason.clone()));
            }
        }
        let assigned = self.functions.get(function).map_or(&[][..], |d| &d.assigned);
        let pending = assigned.iter().filter(|n| !ready.contains(n)).copied().collect();
        let hosts = u32::try_from(self.hosts.len()).unwrap_or(u32::MAX);
        ReadyReport {
            ready,
            pending,
            refused,
            hosts,
            extensions: Extensions::none(),
        }
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
                reason: record.refused.clone().unwrap_or_default(),
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
        let unwilling = self.hosts.values().find_map(|host| host.unwilling(wish));
        let why = unwilling.map(|why| format!(" ({why})")).unwrap_or_default();
        Some(format!(
            "{assigned} of {wanted} replicas placed; hosts connected: {hosts}{why}"
        ))
    }

    /// How many hosts are registered.
    pub fn hosts(&self) -> usize {
        self.hosts.len()
    }

    /// The owner of a function that is live.
    pub fn owner(&self, function: &FunctionId) -> Option<OwnerId> {
        self.functions.get(function)?.wish.as_ref().map(|wish| wish.owner)
    }

    // -- changes ---------------------------------------------------------------------------------

    fn heard(&mut self, now_ms: u64, node: NodeId) -> bool {
        self.hosts
            .get_mut(&node)
            .map(|host| host.heard_ms = now_ms)
            .is_some()
    }

    fn join(&mut self, node: NodeId) {
        if let Some(host) = self.hosts.get_mut(&node) {
            host.live = true;
        }
        let functions: Vec<FunctionId> = self.functions.keys().copied().collect();
        for function in functions {
            if self.concerns(&function, &node) {
                self.place(function);
                self.release_surplus(function);
            }
        }
        self.effects.push_back(Effect::Synced(node));
    }

    /// Whether a host that comes can change the function's placement at all: a quick test, since it
    /// is made for every function.
    fn concerns(&self, function: &FunctionId, node: &NodeId) -> bool {
        let Some(desired) = self.functions.get(function) else {
            return false;
        };
        let Some(wish) = &desired.wish else { return false };
        desired.assigned.len() < wish.replicas
            || self.replicas.get(function).is_some_and(|r| r.contains_key(node))
            || desired
                .assigned
                .iter()
                .any(|other| function.distance(node) <= function.distance(other))
    }

    /// Computes who should hold a function and tells those who were not told yet.
    fn place(&mut self, function: FunctionId) {
        let Some(desired) = self.functions.get(&function) else {
            return;
        };
        let chosen = match &desired.wish {
            Some(wish) => {
                let records = self.replicas.get(&function);
                let candidates = self.hosts.iter().filter(|(node, host)| {
                    let record = records.and_then(|r| r.get(node));
                    let holds = record.is_some_and(|r| r.ready && r.version == desired.version);
                    let refused = record.is_some_and(|r| r.refused.is_some());
                    host.live && !host.draining && !refused && (holds || host.unwilling(wish).is_none())
                });
                placement::choose(
                    &function,
                    wish.replicas,
                    candidates.map(|(node, host)| (*node, &host.domain)),
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
        if !holds && record.told != Some(version) {
            record.told = Some(version);
            self.effects.push_back(Effect::Assign(node, function));
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
        if desired.assigned.is_empty() || !desired.assigned.iter().all(is_ready) {
            return;
        }
        let surplus: Vec<NodeId> = records
            .iter()
            .filter(|(node, record)| record.refused.is_none() && !desired.assigned.contains(node))
            .map(|(node, _)| *node)
            .collect();
        for node in surplus {
            self.effects.push_back(Effect::Release(node, function));
            self.erase(&node, &function);
        }
    }

    fn record(&mut self, node: NodeId, function: FunctionId, version: Version, ready: bool) {
        let Some(host) = self.hosts.get_mut(&node) else {
            return;
        };
        host.holds.insert(function);
        let records = self.replicas.entry(function).or_default();
        let record = records.entry(node).or_insert(ReplicaRecord {
            version,
            ready,
            refused: None,
            told: None,
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

    /// Strikes a host from everything and finds others for what it held.
    fn forget(&mut self, node: &NodeId) {
        let Some(host) = self.hosts.remove(node) else {
            return;
        };
        for function in host.holds {
            self.erase(node, &function);
            if let Some(desired) = self.functions.get_mut(&function) {
                desired.assigned.retain(|n| n != node);
            }
            self.place(function);
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
        now_ms.saturating_sub(self.heard_ms) > SILENT_AFTER_MS
    }

    fn routable(&self, now_ms: u64) -> bool {
        self.live && !self.draining && !self.closed && !self.is_silent(now_ms)
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
    fn state(&self, host: &Host, now_ms: u64, live: Version) -> ReplicaState {
        match () {
            () if self.refused.is_some() => ReplicaState::Refused,
            () if host.is_silent(now_ms) => ReplicaState::Silent,
            () if self.ready && self.version >= live => ReplicaState::Ready,
            () => ReplicaState::Assigned,
        }
    }
}

#[cfg(test)]
#[path = "coordinator_tests.rs"]
mod tests;
