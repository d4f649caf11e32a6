//! What a coordinator knows, for those who only look.

use super::Coordinator;
use super::host::Host;
use crate::id::{FunctionId, NodeId, OwnerId};
use crate::manifest::Version;
use crate::ranking;
use crate::wire::directory::{HOSTS_MAX, HostHint, ReadyReport, RemovalReport, Replica};
use crate::wire::extension::Extensions;

impl Coordinator {
    /// Hosts that can answer for a function, best first, at most [`HOSTS_MAX`].
    pub fn route(&self, now_ms: u64, function: &FunctionId) -> Vec<HostHint> {
        let Some(desired) = self.functions.get(function).filter(|d| d.wish.is_some()) else {
            return Vec::new();
        };
        let mut hints: Vec<HostHint> = self
            .records(function)
            .filter(|(_, host, record)| record.ready && host.routable(now_ms))
            // An older life of the function is over: nobody may answer from it.
            .filter(|(_, _, record)| record.version.generation == desired.version().generation)
            .map(|(node, host, record)| host.hint(node, record))
            .collect();
        ranking::rank(function, desired.version(), &mut hints);
        hints.truncate(HOSTS_MAX);
        hints
    }

    /// Who is ready for `version` of a function or a newer one, and who is not.
    pub fn ready_report(&self, function: &FunctionId, version: Version) -> ReadyReport {
        let (mut ready, mut refused) = (Vec::new(), Vec::new());
        for (node, host, record) in self.records(function) {
            if record.ready && record.version >= version && !host.is_paused() {
                ready.push(node);
            } else if let Some(reason) = &record.refused {
                refused.push((node, reason.clone()));
            }
        }
        let assigned = self.functions.get(function).map_or(&[][..], |d| &d.assigned);
        // Whoever pauses gets ready and does not answer: it is not worth waiting for.
        let paused = |node: &NodeId| self.hosts.get(node).is_some_and(Host::is_paused);
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
            let here = |host: &Host| {
                !host
                    .session
                    .as_ref()
                    .is_some_and(|s| s.closed || s.is_silent(now_ms))
            };
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
            .map(|d| d.version())
            .unwrap_or_default();
        self.records(function)
            .map(|(node, host, record)| Replica {
                host: host.hint(node, record),
                state: record.state(host, now_ms, version),
                reason: record.reason(host),
            })
            .collect()
    }

    /// The super node that a host is connected to; if it is connected to several, this one before others.
    pub fn site(&self, node: &NodeId) -> Option<NodeId> {
        let host = self.hosts.get(node)?;
        match host.is_here() {
            true => self.me,
            false => host.sites.first().copied(),
        }
    }

    /// Hosts that were told to hold a function, nearest first.
    pub fn assigned(&self, function: &FunctionId) -> &[NodeId] {
        self.functions.get(function).map_or(&[], |d| &d.assigned)
    }

    /// Why fewer hosts hold a function than its owner wants; `None` if they do not.
    pub fn shortage(&self, function: &FunctionId) -> Option<String> {
        let desired = self.functions.get(function)?;
        let wish = desired.wish.as_ref()?;
        let (assigned, wanted) = (desired.assigned.len(), wish.terms.replicas);
        if assigned >= wanted {
            return None;
        }
        let hosts = self.hosts.len();
        let paused = |host: &Host| Some(format!("a host is paused: {}", host.pause_reason()?));
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
        self.here.contains(node)
    }

    /// Whether that is this super node.
    pub fn is_me(&self, node: &NodeId) -> bool {
        self.me.as_ref() == Some(node)
    }

    /// The owner of a function that is live.
    pub fn owner(&self, function: &FunctionId) -> Option<OwnerId> {
        self.functions
            .get(function)?
            .wish
            .as_ref()
            .map(|wish| wish.terms.owner)
    }
}
