//! Hosts that came, on their way to other super nodes.
//!
//! A host's coming is news for every other super node. The first one is told at once; those that come within
//! [`GATHER_MS`](super::GATHER_MS) after that are told together. So one host waits for nobody, and thousands (which a
//! super node's restart brings back at once) are a few messages on each link, not thousands. What such a host
//! already says of its functions waits with it: who has not heard of a host does not believe what it holds.
//!
//! Hosts that leave are told at once: others have to find new ones for what they held.

use std::collections::BTreeSet;

use crate::id::{FunctionId, NodeId};
use crate::wire::federation::HOSTS_PAGE_MAX;

/// See the module's text. At most [`HOSTS_PAGE_MAX`] hosts wait, and what these hold.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// Some were told a moment ago: the next ones wait.
    pub(super) gathering: bool,
    hosts: BTreeSet<NodeId>,
    replicas: BTreeSet<(NodeId, FunctionId)>,
}

impl Arrivals {
    pub(super) fn add(&mut self, host: NodeId) {
        self.hosts.insert(host);
    }

    /// What became of a function at a host. Returns whether it waits with the host.
    pub(super) fn add_replica(&mut self, function: FunctionId, host: NodeId) -> bool {
        let waits = self.hosts.contains(&host);
        if waits {
            self.replicas.insert((host, function));
        }
        waits
    }

    /// The host is gone.
    pub(super) fn remove(&mut self, host: &NodeId) {
        if self.hosts.remove(host) {
            self.replicas.retain(|(other, _)| other != host);
        }
    }

    /// Whether they are to be told now.
    pub(super) fn are_due(&self) -> bool {
        !self.hosts.is_empty() && (!self.gathering || self.hosts.len() >= HOSTS_PAGE_MAX)
    }

    /// Hands them out, and what they hold.
    pub(super) fn take(&mut self) -> (BTreeSet<NodeId>, BTreeSet<(NodeId, FunctionId)>) {
        (
            std::mem::take(&mut self.hosts),
            std::mem::take(&mut self.replicas),
        )
    }
}
