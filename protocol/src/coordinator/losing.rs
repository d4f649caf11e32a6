//! Which hosts are about to be given up, for whoever writes down what happens.

use super::Coordinator;
use crate::id::{FunctionId, NodeId};

/// A host that is about to be given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Losing {
    /// The host.
    pub host: NodeId,
    /// Whether its connection ended before: its leaving is known then.
    pub closed: bool,
    /// Functions that it was ready for; none if it said that it leaves.
    pub ready: Vec<FunctionId>,
}

impl Coordinator {
    /// Hosts that [`Coordinator::on_tick`] would give up at this time.
    pub fn losing(&self, now_ms: u64) -> Vec<Losing> {
        let here = self.sessions();
        let silent = here.filter(|(.., session)| session.is_lost(now_ms));
        silent
            .map(|(node, host, session)| Losing {
                host: node,
                closed: session.closed,
                ready: match host.draining {
                    true => Vec::new(),
                    false => self.ready_at(&node),
                },
            })
            .collect()
    }

    fn ready_at(&self, node: &NodeId) -> Vec<FunctionId> {
        let holds = self.hosts.get(node).into_iter().flat_map(|host| &host.holds);
        let is_ready = |function: &&FunctionId| {
            let records = self.replicas.get(function);
            records
                .and_then(|records| records.get(node))
                .is_some_and(|record| record.ready)
        };
        holds.filter(is_ready).copied().collect()
    }
}
