//! Placing functions on hosts, and telling them.

use std::collections::BTreeSet;

use super::desired::Desired;
use super::{Coordinator, Effect, HOLDINGS_MAX, News};
use crate::id::{FunctionId, NodeId};
use crate::manifest::Version;
use crate::placement;

impl Coordinator {
    /// Finds out what a host that takes functions now, and did not before, is to hold.
    pub(super) fn reconsider(&mut self, node: NodeId) {
        let concerned: Vec<FunctionId> = self
            .placed_here()
            .filter(|(function, desired)| self.concerns(function, desired, &node))
            .map(|(function, _)| *function)
            .collect();
        for function in concerned {
            self.place(function);
            self.release_surplus(function);
        }
    }

    /// Whether a host that comes can change the function's placement at all.
    fn concerns(&self, function: &FunctionId, desired: &Desired, node: &NodeId) -> bool {
        let Some(wish) = desired.wish.as_ref() else {
            return false;
        };
        desired.assigned.len() < wish.terms.replicas
            || self.replicas.get(function).is_some_and(|r| r.contains_key(node))
            || desired
                .assigned
                .iter()
                .any(|other| function.distance(node) <= function.distance(other))
            || desired.is_doubled && self.is_of_another_domain(node, &desired.assigned)
    }

    /// Whether a host is in none of the failure domains of others.
    fn is_of_another_domain(&self, node: &NodeId, others: &[NodeId]) -> bool {
        let domain = |node: &NodeId| self.hosts.get(node).map(|host| &host.domain);
        let own = domain(node);
        others.iter().all(|other| domain(other) != own)
    }

    /// Computes who should hold a function and tells those who were not told yet.
    pub(super) fn place(&mut self, function: FunctionId) {
        // Others' functions are theirs to place; but what is no more need not be held.
        let Some(desired) = self
            .functions
            .get(&function)
            .filter(|d| d.is_first() || d.wish.is_none())
        else {
            return;
        };
        let chosen = match &desired.wish {
            Some(wish) => {
                let records = self.replicas.get(&function);
                let nearest = placement::by_distance(&function, &self.hosts);
                let candidates = nearest.filter(|(node, host)| {
                    let record = records.and_then(|r| r.get(node));
                    let holds = record.is_some_and(|r| r.ready && r.version == desired.version());
                    let refused = record.is_some_and(|r| r.refused.is_some());
                    let takes = host.lets_in(record.is_some());
                    takes && !refused && (holds || host.unwilling(wish).is_none())
                });
                placement::choose(
                    &function,
                    wish.terms.replicas,
                    self.domains.len(),
                    candidates.map(|(node, host)| (node, &host.domain)),
                )
            }
            None => Vec::new(),
        };
        let version = desired.version();
        let domains = chosen.iter().filter_map(|node| self.hosts.get(node));
        let domains: BTreeSet<_> = domains.map(|host| &host.domain).collect();
        let is_doubled = domains.len() < chosen.len();
        for &node in &chosen {
            self.tell(node, function, version);
        }
        if let Some(desired) = self.functions.get_mut(&function) {
            desired.assigned = chosen;
            desired.is_doubled = is_doubled;
        }
        if !self.is_settled(&function) {
            self.unsettled.insert(function);
        }
    }

    /// Has a host hold a version, unless it does or was told already.
    pub(super) fn tell(&mut self, node: NodeId, function: FunctionId, version: Version) {
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
        if host.is_here() {
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
    pub(super) fn tell_assigned(&mut self, function: FunctionId) {
        let Some(desired) = self.functions.get(&function).filter(|d| d.wish.is_some()) else {
            return;
        };
        let (version, assigned) = (desired.version(), desired.assigned.clone());
        for node in assigned {
            self.tell(node, function, version);
        }
    }

    pub(super) fn place_all_of(&mut self, node: NodeId) {
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
    pub(super) fn release_surplus(&mut self, function: FunctionId) {
        let Some(desired) = self.functions.get(&function).filter(|d| d.wish.is_some()) else {
            return;
        };
        let Some(records) = self.replicas.get(&function) else {
            return;
        };
        let is_ready = |node| {
            records
                .get(node)
                .is_some_and(|r| r.ready && r.version >= desired.version())
        };
        if !desired.is_first() || desired.assigned.is_empty() || !desired.assigned.iter().all(is_ready) {
            return;
        }
        let surplus: Vec<NodeId> = records
            .iter()
            .filter(|(node, record)| record.is_surplus(node, desired) && !record.releasing)
            // What a host holds that pauses is there for when it goes on.
            .filter(|(node, _)| self.hosts.get(node).is_none_or(|host| !host.is_paused()))
            .map(|(node, _)| *node)
            .collect();
        for node in surplus {
            self.release(node, function);
        }
    }

    /// Lets go of a replica: one here is forgotten at once, one elsewhere when its super node says so.
    pub(super) fn release(&mut self, node: NodeId, function: FunctionId) {
        let Some(host) = self.hosts.get(&node) else { return };
        if host.is_here() {
            self.effects.push_back(Effect::Release(node, function));
            self.say_dropped(node, function);
            let session = self.session(&node);
            if let Some(session) = session.filter(|session| session.releasing.len() < HOLDINGS_MAX) {
                session.releasing.insert(function);
            }
        } else if let Some(site) = host.sites.first() {
            self.news.push_back(News::Order(*site, function, node, false));
            if let Some(record) = self.replicas.get_mut(&function).and_then(|r| r.get_mut(&node)) {
                record.releasing = true;
            }
            self.unsettled.insert(function);
        }
    }

    pub(super) fn say_dropped(&mut self, node: NodeId, function: FunctionId) {
        self.erase(&node, &function);
        self.say(node, function);
    }
}
