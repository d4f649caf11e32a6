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

mod desired;
mod federated;
mod host;
mod losing;
mod placing;
mod sessions;
mod settle;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use desired::{Desired, TermsInUse, before};
use host::{Host, ReplicaRecord};
use settle::Settling;

use crate::id::{FunctionId, ManifestHash, NodeId};
use crate::manifest::{Manifest, Verified, Version};
use crate::pause::Turn;
use crate::placement::{self, FailureDomain};
use crate::removals::Removals;

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
    /// A host joined here, or takes something that it did not take, or the other way round.
    HostUp(NodeId),
    /// A host left.
    HostDown(NodeId),
    /// What a host here has to do with a function changed: [`Coordinator::replica_news`].
    Replica(FunctionId, NodeId),
    /// A host of that super node shall hold a function, or need not any more.
    Order(NodeId, FunctionId, NodeId, bool),
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
    terms: TermsInUse,
    /// Functions that this super node places, as long as others place the rest.
    mine: BTreeSet<FunctionId>,
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
    /// Hosts that are connected to each other super node.
    elsewhere: BTreeMap<NodeId, BTreeSet<NodeId>>,
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

    /// At start-up, before anything else: takes up what live manifests say, which `read` gives to its argument, each
    /// function's once. Returns how many they were. In the order of their ids they end up in a tree without gaps, in
    /// three fifths of the memory that they take when they come one by one.
    ///
    /// # Errors
    /// What `read` returns.
    pub fn restore<E>(
        &mut self,
        read: impl FnOnce(&mut dyn FnMut(FunctionId, &Manifest, ManifestHash)) -> Result<(), E>,
    ) -> Result<usize, E> {
        let (mut functions, terms) = (Vec::new(), &mut self.terms);
        // Until others are linked this one places everything.
        read(&mut |function, manifest, hash| {
            functions.push((function, Desired::new(manifest, &hash, true, terms)));
        })?;
        self.functions = functions.into_iter().collect();
        Ok(self.functions.len())
    }

    /// Takes in a live manifest that was stored. Hosts are told of a change: those that hold
    /// the function, and those that want to hear of everything.
    pub fn on_manifest(&mut self, manifest: &Verified) {
        let function = manifest.function();
        let old = self.functions.get_mut(&function);
        if old.as_ref().is_some_and(|old| old.covers(manifest)) {
            return;
        }
        let has_rival = old
            .as_ref()
            .is_some_and(|old| old.version() == manifest.version());
        let (assigned, wish) = match old {
            Some(old) => (std::mem::take(&mut old.assigned), old.wish.take()),
            None => (Vec::new(), None),
        };
        let first = self.is_first(&function);
        let mut desired = Desired::new(manifest.manifest(), &manifest.hash(), first, &mut self.terms);
        desired.assigned = assigned;
        if first && self.supers.len() > 1 {
            self.mine.insert(function);
        }
        self.functions.insert(function, desired);
        if let Some(old) = wish {
            self.terms.let_go(&old.terms);
        }
        if has_rival {
            self.demote(function);
        }
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

    /// Another revision with the same number counts now: what hosts have of the old one is worth no more than
    /// the revision before, and they are told of the new one.
    fn demote(&mut self, function: FunctionId) {
        let Some(version) = self.functions.get(&function).map(Desired::version) else {
            return;
        };
        for record in self
            .replicas
            .get_mut(&function)
            .into_iter()
            .flat_map(BTreeMap::values_mut)
        {
            record.version = record.version.min(before(version));
            record.told = None;
        }
    }

    /// Tells hosts here of a function that others hold, or that they hold without having to.
    fn notify(&mut self, function: FunctionId) {
        let mut whom = self.listeners.clone();
        whom.extend(self.replicas.get(&function).into_iter().flat_map(BTreeMap::keys));
        for node in whom {
            let here = self
                .hosts
                .get(&node)
                .is_some_and(|host| host.is_here() && host.live);
            if here && !self.assigned(&function).contains(&node) {
                self.effects.push_back(Effect::Notify(node, function));
            }
        }
    }

    /// Keeps a host in mind.
    fn insert(&mut self, node: NodeId, host: Host) {
        if let Some(session) = &host.session {
            self.here.insert(node);
            if session.hears_all {
                self.listeners.insert(node);
            }
        }
        for site in &host.sites {
            self.elsewhere.entry(*site).or_default().insert(node);
        }
        *self.domains.entry(host.domain.clone()).or_default() += 1;
        self.hosts.insert(node, host);
    }

    /// Strikes a host; what it holds is left to the caller.
    fn remove(&mut self, node: &NodeId) -> Option<Host> {
        let host = self.hosts.remove(node)?;
        self.here.remove(node);
        self.listeners.remove(node);
        for site in &host.sites {
            self.is_not_at(site, node);
        }
        if let Some(count) = self.domains.get_mut(&host.domain) {
            *count -= 1;
            if *count == 0 {
                self.domains.remove(&host.domain);
            }
        }
        Some(host)
    }

    /// Time passed; call it about once a second.
    pub fn on_tick(&mut self, now_ms: u64) {
        let lost = self.sessions().filter(|(.., session)| session.is_lost(now_ms));
        let lost: Vec<NodeId> = lost.map(|(node, ..)| node).collect();
        for node in lost {
            self.effects.push_back(Effect::Lost(node));
            self.leave(&node);
        }
        let hosts = &mut self.hosts;
        let turn = |node: &NodeId| {
            let session = hosts.get_mut(node)?.session.as_mut()?;
            Some((*node, session.pause.on_tick(now_ms)?))
        };
        let turns: Vec<(NodeId, Turn)> = self.here.iter().filter_map(turn).collect();
        for (node, turn) in turns {
            if self
                .hosts
                .get(&node)
                .is_some_and(|host| host.live && !host.draining)
            {
                self.news.push_back(News::HostUp(node));
            }
            match turn {
                Turn::Begins => {}
                Turn::Lasts => self.place_all_of(node),
                Turn::Over => self.reconsider(node),
            }
        }
        self.settle(now_ms);
    }

    // -- changes ---------------------------------------------------------------------------------

    fn is_first(&self, function: &FunctionId) -> bool {
        let first = placement::nearest(function, 1, &self.supers);
        first.first().is_none_or(|first| Some(*first) == self.me)
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
            (host.session, host.draining) = (None, false);
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
        if self.is_here(&node) && self.supers.len() > 1 {
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

#[cfg(test)]
#[path = "coordinator_pause_tests.rs"]
mod pause_tests;
#[cfg(test)]
#[path = "coordinator_tests.rs"]
mod tests;
