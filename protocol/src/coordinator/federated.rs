//! The coordinator's part in a federation: hosts of other super nodes, orders to and from them, and what
//! their hosts hold.

use std::collections::BTreeSet;
use std::collections::btree_map::Entry;
use std::sync::Arc;

#[cfg(test)]
use super::News;
use super::desired::Desired;
use super::{Coordinator, EARLY_ORDERS_MAX, HOLDINGS_MAX, Host, REMOTE_HOSTS_MAX, ReplicaRecord};
use crate::id::{FunctionId, NodeId};
use crate::placement::{self, DIRECTORY_SIZE, FailureDomain};
use crate::wire::federation::{HostPause, HostRecord, Order, ReplicaChange, ReplicaNews};

impl Coordinator {
    /// These super nodes count from now on; this one is always among them.
    pub fn on_supers(&mut self, mut supers: BTreeSet<NodeId>) {
        let Some(me) = self.me else { return };
        supers.insert(me);
        if supers == self.supers {
            return;
        }
        let before = std::mem::replace(&mut self.supers, supers);
        let functions: Vec<FunctionId> = self.functions.keys().copied().collect();
        self.mine.clear();
        for function in functions {
            self.on_directory(function, &before);
        }
    }

    /// The functions that this super node places.
    pub(super) fn placed_here(&self) -> impl Iterator<Item = (&FunctionId, &Desired)> {
        let all = (self.supers.len() <= 1).then_some(&self.functions);
        let some = self
            .mine
            .iter()
            .filter_map(|function| self.functions.get_key_value(function));
        all.into_iter().flatten().chain(some)
    }

    /// A function's directory may be another one now.
    fn on_directory(&mut self, function: FunctionId, before: &BTreeSet<NodeId>) {
        let first = self.is_first(&function);
        let Some(desired) = self.functions.get_mut(&function) else {
            return;
        };
        let was = desired.is_first();
        desired.set_first(first);
        if first && self.supers.len() > 1 {
            self.mine.insert(function);
        }
        if was && !first {
            let hosts = &self.hosts;
            desired
                .assigned
                .retain(|node| hosts.get(node).is_some_and(Host::is_here));
        }
        if self.replicas.contains_key(&function) {
            let old = placement::nearest(&function, DIRECTORY_SIZE, before);
            if self.directory(&function).iter().any(|node| !old.contains(node)) {
                self.say_all(function);
            }
        }
        if first && !was {
            self.place(function);
            self.release_surplus(function);
        }
    }

    /// The super nodes that keep a function's directory, nearest first. Empty for one that is alone.
    pub fn directory(&self, function: &FunctionId) -> Vec<NodeId> {
        placement::nearest(function, DIRECTORY_SIZE, &self.supers)
    }

    /// Super nodes with hosts that can answer for a function, as far as this one has heard.
    pub fn sites(&self, function: &FunctionId) -> BTreeSet<NodeId> {
        self.records(function)
            .filter(|(_, host, record)| record.ready && host.live && !host.draining && !host.is_paused())
            .filter_map(|(_, host, _)| {
                if host.is_here() {
                    self.me
                } else {
                    host.sites.first().copied()
                }
            })
            .collect()
    }

    // -- hosts of others ---------------------------------------------------------------------------

    /// A super node begins to list all its hosts.
    pub fn on_hosts_reset(&mut self, site: NodeId) {
        let listed = self.elsewhere.get(&site).cloned().unwrap_or_default();
        self.unconfirmed.insert(site, listed);
    }

    pub(super) fn is_not_at(&mut self, site: &NodeId, node: &NodeId) {
        if let Some(hosts) = self.elsewhere.get_mut(site) {
            hosts.remove(node);
            if hosts.is_empty() {
                self.elsewhere.remove(site);
            }
        }
    }

    /// A super node has listed all its hosts: those that it did not name are gone.
    pub fn on_hosts_listed(&mut self, site: NodeId) {
        for node in self.unconfirmed.remove(&site).unwrap_or_default() {
            self.on_remote_down(site, node);
        }
    }

    /// A host is connected to another super node. One that makes no sense, or is one too many, is left out.
    pub fn on_remote_up(&mut self, site: NodeId, record: HostRecord) {
        let HostRecord {
            node,
            offer,
            address,
            pause,
        } = record;
        let Ok(address) = address.parse() else { return };
        if let Some(unconfirmed) = self.unconfirmed.get_mut(&site) {
            unconfirmed.remove(&node);
        }
        let others = self.hosts.len() - self.here.len();
        match self.hosts.entry(node) {
            Entry::Occupied(known) => {
                let known = known.into_mut();
                if !known.sites.contains(&site) && known.sites.len() < DIRECTORY_SIZE {
                    known.sites.push(site);
                    self.elsewhere.entry(site).or_default().insert(node);
                }
                let before = std::mem::replace(&mut known.told_pause, pause);
                if !known.is_here() {
                    known.offer = offer;
                    self.on_told_pause(node, before, pause);
                }
            }
            Entry::Vacant(place) if others < REMOTE_HOSTS_MAX => {
                let host = Host {
                    disk_free_bytes: offer.disk_free_bytes,
                    domain: FailureDomain::of(&offer.operator, address),
                    offer,
                    session: None,
                    told_pause: pause,
                    sites: vec![site],
                    live: true,
                    draining: false,
                    holds: BTreeSet::new(),
                };
                *self.domains.entry(host.domain.clone()).or_default() += 1;
                self.elsewhere.entry(site).or_default().insert(node);
                place.insert(host);
                self.reconsider(node);
            }
            Entry::Vacant(_) => {}
        }
    }

    /// Another super node's host pauses, or goes on.
    fn on_told_pause(&mut self, node: NodeId, before: HostPause, now: HostPause) {
        match now {
            HostPause::Lasts if before != now => self.place_all_of(node),
            HostPause::Off if before != now => self.reconsider(node),
            _ => {}
        }
    }

    /// A host is not connected to another super node any more.
    pub fn on_remote_down(&mut self, site: NodeId, node: NodeId) {
        let Some(host) = self.hosts.get_mut(&node) else {
            return;
        };
        let before = host.sites.len();
        host.sites.retain(|other| *other != site);
        let is_gone = host.sites.len() < before && host.sites.is_empty() && !host.is_here();
        self.is_not_at(&site, &node);
        if is_gone {
            self.forget(&node);
        }
    }

    /// A super node is gone, and its hosts with it.
    pub fn on_site_lost(&mut self, site: NodeId) {
        self.on_hosts_reset(site);
        self.on_hosts_listed(site);
    }

    // -- orders and what came of them --------------------------------------------------------------

    /// A super node says what a host here shall hold. Only the first of the function's directory may, as this node
    /// sees it: two that do not see the same federation would otherwise undo each other's orders without end.
    pub fn on_order(&mut self, from: NodeId, order: &Order) {
        let Order { function, host, hold } = *order;
        if placement::nearest(&function, 1, &self.supers) != [from] {
            return;
        }
        if hold {
            self.assign_here(function, host);
        } else if self.is_here(&host) {
            self.give_up(&host, &function);
            self.release(host, function);
        }
    }

    /// Has a host here hold a function.
    pub(super) fn assign_here(&mut self, function: FunctionId, node: NodeId) {
        if !self
            .hosts
            .get(&node)
            .is_some_and(|h| h.is_here() && h.live && !h.draining)
        {
            return;
        }
        let Some(desired) = self.functions.get_mut(&function) else {
            if self.early.len() < EARLY_ORDERS_MAX {
                self.early.entry(function).or_default().insert(node);
            }
            return;
        };
        if desired.wish.is_none() {
            return;
        }
        if !desired.assigned.contains(&node) {
            desired.assigned.push(node);
        }
        let version = desired.version();
        self.tell(node, function, version);
        // What is settled already is said again: whoever orders does not know.
        self.say(node, function);
    }

    /// What others have to hear of a host here and a function; `None` if there is nothing yet.
    pub fn replica_news(&self, function: FunctionId, host: NodeId) -> Option<ReplicaNews> {
        let record = self
            .replicas
            .get(&function)
            .and_then(|records| records.get(&host));
        let (version, change, reason) = match record {
            None => (Default::default(), ReplicaChange::Dropped, String::new()),
            Some(record) => record.news()?,
        };
        Some(ReplicaNews {
            function,
            host,
            version,
            change,
            reason,
        })
    }

    /// Another super node says what became of one of its hosts and a function.
    pub fn on_replica_news(&mut self, site: NodeId, news: ReplicaNews) {
        let ReplicaNews {
            function,
            host: node,
            version,
            change,
            reason,
        } = news;
        let Some(host) = self
            .hosts
            .get(&node)
            .filter(|h| !h.is_here() && h.sites.contains(&site))
        else {
            return;
        };
        let full = host.holds.len() >= HOLDINGS_MAX && !host.holds.contains(&function);
        let Some(desired) = self.functions.get(&function).filter(|_| !full) else {
            return;
        };
        let (wished, believed) = (desired.wish.is_some(), desired.believable(version));
        match change {
            ReplicaChange::Ready if wished => {
                self.record(node, function, believed, true);
                self.release_surplus(function);
            }
            ReplicaChange::Refused if wished && believed == version => {
                self.refuse_record(node, function, version, reason);
                self.give_up(&node, &function);
                self.place(function);
            }
            ReplicaChange::Dropped => {
                self.removals.on_dropped(&node, &function);
                self.erase(&node, &function);
                self.give_up(&node, &function);
                self.place(function);
            }
            _ => {}
        }
    }

    /// Orders that wait for the manifests of their functions.
    pub fn waiting(&self) -> usize {
        self.early.len()
    }

    // -- a link that is new ------------------------------------------------------------------------

    /// All hosts here, for a super node that was just linked.
    pub fn host_records(&self) -> Vec<HostRecord> {
        let live = self.sessions().filter(|(_, host, _)| host.live && !host.draining);
        live.map(|(node, host, _)| host.record(node)).collect()
    }

    /// A host here, for others.
    pub fn host_record(&self, node: &NodeId) -> Option<HostRecord> {
        let host = self.hosts.get(node).filter(|host| host.is_here() && host.live)?;
        Some(host.record(*node))
    }

    /// What hosts here hold of functions in whose directory that super node is.
    pub fn replicas_for(&self, super_node: &NodeId) -> Vec<(FunctionId, NodeId)> {
        let mut all = Vec::new();
        for (function, records) in &self.replicas {
            if self.directory(function).contains(super_node) {
                all.extend(records.keys().map(|node| (*function, *node)));
            }
        }
        all.retain(|(_, node)| self.is_here(node));
        all
    }

    /// Orders for that super node that have not been carried out yet.
    pub fn orders_for(&self, super_node: &NodeId) -> Vec<Order> {
        let mut orders = Vec::new();
        for (&function, desired) in self.placed_here() {
            for &host in &desired.assigned {
                let there = |h: &Host| !h.is_here() && h.sites.first() == Some(super_node);
                let record = self.replicas.get(&function).and_then(|r| r.get(&host));
                let open = record.is_none_or(|record| !record.ready);
                if open && self.hosts.get(&host).is_some_and(there) {
                    let hold = true;
                    orders.push(Order { function, host, hold });
                }
            }
        }
        orders
    }

    fn say_all(&mut self, function: FunctionId) {
        let records = self.replicas.get(&function);
        let nodes: Vec<NodeId> = records.into_iter().flatten().map(|(node, _)| *node).collect();
        nodes.into_iter().for_each(|node| self.say(node, function));
    }
}

impl ReplicaRecord {
    fn news(&self) -> Option<(crate::manifest::Version, ReplicaChange, String)> {
        match &self.refused {
            Some(reason) => Some((self.version, ReplicaChange::Refused, reason.clone())),
            None if self.ready => Some((self.version, ReplicaChange::Ready, String::new())),
            None => None,
        }
    }
}

impl Host {
    fn record(&self, node: NodeId) -> HostRecord {
        HostRecord {
            node,
            offer: Arc::clone(&self.offer),
            address: self.domain.address(),
            pause: self.pause(),
        }
    }
}

#[cfg(test)]
#[path = "federated_tests.rs"]
mod tests;
