//! Functions that lost a replica and have no other one for it yet.

use std::collections::BTreeSet;

use orb_protocol::id::{FunctionId, NodeId};

/// Losses that are remembered: those of a large host. Beyond them a repair passes for an ordinary
/// replica.
const LOSSES_MAX: usize = 10_000;

/// Which function lost which host.
#[derive(Debug, Default)]
pub(crate) struct Losses(BTreeSet<(FunctionId, NodeId)>);

impl Losses {
    /// A function lost a replica.
    pub(crate) fn lose(&mut self, function: FunctionId, host: NodeId) {
        if self.0.len() < LOSSES_MAX {
            self.0.insert((function, host));
        }
    }

    /// A host is ready that did not hold the function. Returns whether that makes up for a loss, which
    /// is forgotten then.
    pub(crate) fn mend(&mut self, function: &FunctionId, host: &NodeId) -> bool {
        // The host that was lost is back: nobody has made up for it, and nobody needs to.
        if self.0.remove(&(*function, *host)) {
            return false;
        }
        let first = NodeId::from_bytes([0; 32]);
        let loss = self.0.range((*function, first)..).next().copied();
        loss.is_some_and(|loss| loss.0 == *function && self.0.remove(&loss))
    }

    /// A host that was lost is back, with what it held.
    pub(crate) fn back(&mut self, host: &NodeId) {
        if !self.0.is_empty() {
            self.0.retain(|(_, lost)| lost != host);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(number: u8) -> FunctionId {
        FunctionId::from_bytes([number; 32])
    }

    fn host(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    #[test]
    fn each_loss_is_made_up_for_once_by_another_host() {
        let mut losses = Losses::default();
        losses.lose(function(1), host(1));
        losses.lose(function(1), host(2));
        assert!(!losses.mend(&function(2), &host(3)));
        assert!(!losses.mend(&function(0), &host(3)));
        assert!(losses.mend(&function(1), &host(3)));
        assert!(!losses.mend(&function(1), &host(2)));
        assert!(!losses.mend(&function(1), &host(4)));
    }

    #[test]
    fn what_came_back_is_not_made_up_for() {
        let mut losses = Losses::default();
        losses.lose(function(1), host(1));
        losses.lose(function(2), host(2));
        losses.back(&host(1));
        assert!(!losses.mend(&function(1), &host(3)));
        assert!(losses.mend(&function(2), &host(3)));
    }

    #[test]
    fn so_many_losses_are_remembered() {
        let mut losses = Losses::default();
        for number in 0..u32::try_from(LOSSES_MAX).unwrap_or(u32::MAX) + 5 {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&number.to_le_bytes());
            losses.lose(FunctionId::from_bytes(bytes), host(1));
        }
        assert_eq!(losses.0.len(), LOSSES_MAX);
    }
}
