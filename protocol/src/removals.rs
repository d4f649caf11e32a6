//! Who has removed a function that was decommissioned, and who has still to do it.
//!
//! A super node follows a removal from the tombstone on: the hosts that held the function then, those
//! among them that have confirmed, and those that held it and were gone before.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::id::{FunctionId, NodeId};
use crate::manifest::Verified;
use crate::wire::control::Held;

/// Removals that are followed; beyond, the oldest are forgotten. Whoever decommissions asks for a few
/// seconds, and one has a few hundred bytes.
pub const REMOVALS_MAX: usize = 1_024;
/// Hosts that are followed in one removal: four times what a function may ask for.
pub const HOLDERS_MAX: usize = 256;
/// Functions of hosts that went away, counted once for each host; beyond, who went first is forgotten.
/// They have 64 bytes each.
pub const GONE_MAX: usize = 50_000;

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Removals {
    removals: BTreeMap<FunctionId, BTreeMap<NodeId, bool>>,
    /// In the order in which they began.
    order: VecDeque<FunctionId>,
    gone: Gone,
    /// What hosts that are telling what they hold have named so far, of what is followed.
    named: BTreeMap<NodeId, BTreeSet<FunctionId>>,
}

/// Hosts that went away with functions that they held.
#[derive(Debug, Default)]
struct Gone {
    hosts: BTreeMap<NodeId, BTreeSet<FunctionId>>,
    /// In the order in which they went.
    order: VecDeque<NodeId>,
    functions: usize,
}

impl Removals {
    /// Takes in a live manifest. A tombstone begins a removal from these hosts, which held the function.
    pub(crate) fn on_manifest(&mut self, manifest: &Verified, holders: impl Iterator<Item = NodeId>) {
        let function = manifest.function();
        self.forget(&function);
        if !manifest.is_tombstone() {
            return;
        }
        let gone = self.gone.holders(&function);
        let holders = holders.chain(gone).take(HOLDERS_MAX).map(|node| (node, false));
        let holders: BTreeMap<NodeId, bool> = holders.collect();
        if holders.is_empty() {
            return;
        }
        if self.order.len() >= REMOVALS_MAX
            && let Some(oldest) = self.order.front().copied()
        {
            self.forget(&oldest);
        }
        self.order.push_back(function);
        self.removals.insert(function, holders);
    }

    /// A host holds a function no more.
    pub(crate) fn on_dropped(&mut self, node: &NodeId, function: &FunctionId) {
        if let Some(confirmed) = self.removals.get_mut(function).and_then(|r| r.get_mut(node)) {
            *confirmed = true;
        }
    }

    /// A host went away with functions that it holds.
    pub(crate) fn on_gone(&mut self, node: NodeId, functions: BTreeSet<FunctionId>) {
        self.named.remove(&node);
        self.gone.add(node, functions);
    }

    /// A host tells what it holds. What it does not name it has removed.
    pub(crate) fn on_holding(&mut self, node: NodeId, held: &[Held], last: bool) {
        let followed = held.iter().map(|held| held.function);
        let followed = followed.filter(|function| self.removals.contains_key(function));
        self.named.entry(node).or_default().extend(followed);
        if !last {
            return;
        }
        self.gone.remove(&node);
        let named = self.named.remove(&node).unwrap_or_default();
        for (function, holders) in &mut self.removals {
            if let Some(confirmed) = holders.get_mut(&node)
                && !named.contains(function)
            {
                *confirmed = true;
            }
        }
    }

    /// The hosts that held a function, and whether they have removed it.
    pub(crate) fn of(&self, function: &FunctionId) -> impl Iterator<Item = (NodeId, bool)> {
        let removal = self.removals.get(function).into_iter().flatten();
        removal.map(|(node, confirmed)| (*node, *confirmed))
    }

    fn forget(&mut self, function: &FunctionId) {
        if self.removals.remove(function).is_some() {
            self.order.retain(|other| other != function);
        }
    }
}

impl Gone {
    fn add(&mut self, node: NodeId, functions: BTreeSet<FunctionId>) {
        if functions.is_empty() {
            // Perhaps it went before it could tell.
            return;
        }
        self.remove(&node);
        self.functions += functions.len();
        self.hosts.insert(node, functions);
        self.order.push_back(node);
        while self.functions > GONE_MAX
            && let Some(first) = self.order.front().copied()
        {
            self.remove(&first);
        }
    }

    fn remove(&mut self, node: &NodeId) {
        if let Some(functions) = self.hosts.remove(node) {
            self.functions -= functions.len();
            self.order.retain(|other| other != node);
        }
    }

    fn holders(&self, function: &FunctionId) -> impl Iterator<Item = NodeId> {
        let holds = |(_, functions): &(&NodeId, &BTreeSet<FunctionId>)| functions.contains(function);
        self.hosts.iter().filter(holds).map(|(node, _)| *node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::OwnerKey;
    use crate::manifest::Action;
    use crate::testing::{manifest, publish};

    fn node(byte: u8) -> NodeId {
        NodeId::from_bytes([byte; 32])
    }

    fn tombstone(name: &str) -> Verified {
        let end = Action::Decommission(Default::default());
        manifest(&OwnerKey::from_seed([1; 32]), name, 0, 2, end)
    }

    fn held(manifest: &Verified) -> Held {
        Held {
            function: manifest.function(),
            version: manifest.version(),
            manifest: manifest.hash(),
            ready: true,
        }
    }

    fn of(removals: &Removals, tombstone: &Verified) -> Vec<(NodeId, bool)> {
        removals.of(&tombstone.function()).collect()
    }

    #[test]
    fn holders_confirm_one_by_one() {
        let (mut removals, end) = (Removals::default(), tombstone("a"));
        removals.on_manifest(&end, [node(1), node(2)].into_iter());
        assert_eq!(of(&removals, &end), [(node(1), false), (node(2), false)]);
        removals.on_dropped(&node(2), &end.function());
        // Who did not hold it has nothing to confirm.
        removals.on_dropped(&node(3), &end.function());
        assert_eq!(of(&removals, &end), [(node(1), false), (node(2), true)]);
        let again = manifest(&OwnerKey::from_seed([1; 32]), "a", 1, 1, publish(1));
        removals.on_manifest(&again, [node(1)].into_iter());
        assert_eq!(of(&removals, &end), []);
    }

    #[test]
    fn who_went_away_with_it_is_followed_until_it_comes_back_without() {
        let (mut removals, end, other) = (Removals::default(), tombstone("a"), tombstone("b"));
        removals.on_gone(node(1), [end.function(), other.function()].into());
        removals.on_manifest(&end, [node(2)].into_iter());
        assert_eq!(of(&removals, &end), [(node(1), false), (node(2), false)]);
        // It still has it: it is told, and confirms.
        removals.on_holding(node(1), &[held(&end)], false);
        removals.on_holding(node(1), &[], true);
        assert_eq!(of(&removals, &end)[0], (node(1), false));
        removals.on_holding(node(1), &[], true);
        assert_eq!(of(&removals, &end)[0], (node(1), true));
        // It is here again, and has told what it holds.
        removals.on_manifest(&other, [].into_iter());
        assert_eq!(of(&removals, &other), []);
    }

    #[test]
    fn nothing_grows_without_bound() {
        let mut removals = Removals::default();
        for number in 0..=REMOVALS_MAX {
            removals.on_manifest(&tombstone(&format!("f{number}")), (0..=255).map(node));
        }
        assert_eq!(
            (removals.removals.len(), removals.order.len()),
            (REMOVALS_MAX, REMOVALS_MAX)
        );
        assert_eq!(of(&removals, &tombstone("f0")), []);
        assert_eq!(of(&removals, &tombstone("f1")).len(), HOLDERS_MAX);
        let many = |from: u32| {
            (from..from + 30_000).map(|number| {
                let mut id = [0; 32];
                id[..4].copy_from_slice(&number.to_be_bytes());
                FunctionId::from_bytes(id)
            })
        };
        removals.on_gone(node(1), many(0).collect());
        removals.on_gone(node(2), many(0).collect());
        assert_eq!(removals.gone.functions, 30_000);
        assert!(removals.gone.hosts.contains_key(&node(2)) && removals.gone.order.len() == 1);
    }
}
