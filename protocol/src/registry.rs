//! The registry: for each function the greatest manifest that was ever seen.
//!
//! Merging is a join in a semilattice: commutative, associative, idempotent (a state-based CRDT,
//! Shapiro et al. 2011). Stale or repeated manifests change nothing, whatever their order.

use std::collections::BTreeMap;

use crate::id::FunctionId;
use crate::manifest::Verified;

/// What a manifest did to the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// The function was not known before.
    New,
    /// It is newer than what was known.
    Newer,
    /// It is what is known.
    Same,
    /// It is older than what is known.
    Older,
}

impl Merge {
    /// Whether the registry is another one now.
    pub fn changed(self) -> bool {
        matches!(self, Self::New | Self::Newer)
    }
}

/// Where `candidate` stands against what is `live` now.
pub fn compare(live: Option<&Verified>, candidate: &Verified) -> Merge {
    match live {
        None => Merge::New,
        Some(live) => match candidate.rank().cmp(&live.rank()) {
            std::cmp::Ordering::Greater => Merge::Newer,
            std::cmp::Ordering::Equal => Merge::Same,
            std::cmp::Ordering::Less => Merge::Older,
        },
    }
}

/// The live manifest of every known function, in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registry {
    live: BTreeMap<FunctionId, Verified>,
}

impl Registry {
    /// A registry that knows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a manifest in.
    pub fn merge(&mut self, manifest: Verified) -> Merge {
        let outcome = compare(self.live.get(&manifest.function()), &manifest);
        if outcome.changed() {
            self.live.insert(manifest.function(), manifest);
        }
        outcome
    }

    /// Takes all of another registry in.
    pub fn join(&mut self, other: Self) {
        for manifest in other.live.into_values() {
            self.merge(manifest);
        }
    }

    /// The function's live manifest: a revision, or its tombstone.
    pub fn get(&self, function: &FunctionId) -> Option<&Verified> {
        self.live.get(function)
    }

    /// All live manifests, in the order of their function ids.
    pub fn iter(&self) -> impl Iterator<Item = &Verified> {
        self.live.values()
    }

    /// How many functions are known, decommissioned ones too.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether no function is known.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key::OwnerKey;
    use crate::manifest::Action;
    use crate::testing::{manifest, publish};

    /// Few owners, names and numbers, so that collisions of every kind are common.
    fn arbitrary() -> impl Strategy<Value = Verified> {
        (0..2u8, 0..2u8, 0..3u64, 1..4u64, any::<bool>(), 0..3u8).prop_map(
            |(owner, name, generation, revision, tombstone, artifact)| {
                let action = if tombstone {
                    Action::Decommission(Default::default())
                } else {
                    publish(artifact)
                };
                let key = OwnerKey::from_seed([owner + 1; 32]);
                manifest(&key, ["a", "b"][usize::from(name)], generation, revision, action)
            },
        )
    }

    fn registry(manifests: &[Verified]) -> Registry {
        let mut registry = Registry::new();
        for manifest in manifests {
            registry.merge(manifest.clone());
        }
        registry
    }

    fn joined(mut a: Registry, b: Registry) -> Registry {
        a.join(b);
        a
    }

    fn some() -> impl Strategy<Value = Registry> {
        prop::collection::vec(arbitrary(), 0..8).prop_map(|m| registry(&m))
    }

    proptest! {
        #[test]
        fn join_is_commutative(a in some(), b in some()) {
            prop_assert_eq!(joined(a.clone(), b.clone()), joined(b, a));
        }

        #[test]
        fn join_is_associative(a in some(), b in some(), c in some()) {
            prop_assert_eq!(
                joined(joined(a.clone(), b.clone()), c.clone()),
                joined(a, joined(b, c))
            );
        }

        #[test]
        fn join_is_idempotent(a in some()) {
            prop_assert_eq!(joined(a.clone(), a.clone()), a);
        }

        #[test]
        fn any_order_of_arrival_gives_the_same(
            (manifests, shuffled) in prop::collection::vec(arbitrary(), 0..12)
                .prop_flat_map(|m| (Just(m.clone()), Just(m).prop_shuffle()))
        ) {
            prop_assert_eq!(registry(&manifests), registry(&shuffled));
        }

        #[test]
        fn a_tombstone_beats_every_revision_of_its_generation(
            generation in 0..3u64,
            at in 1..5u64,
            revisions in prop::collection::vec(1..100u64, 0..8),
            position in any::<prop::sample::Index>(),
        ) {
            let key = OwnerKey::from_seed([1; 32]);
            let tombstone =
                manifest(&key, "a", generation, at, Action::Decommission(Default::default()));
            let mut arrivals: Vec<_> =
                revisions.iter().map(|&r| manifest(&key, "a", generation, r, publish(0))).collect();
            arrivals.insert(position.index(arrivals.len() + 1), tombstone.clone());
            let registry = registry(&arrivals);
            prop_assert!(registry.get(&tombstone.function()).unwrap().is_tombstone());
        }
    }

    #[test]
    fn only_a_new_generation_resurrects() {
        let key = OwnerKey::from_seed([1; 32]);
        let tombstone = manifest(&key, "a", 0, 2, Action::Decommission(Default::default()));
        let mut registry = registry(&[tombstone]);
        assert_eq!(
            registry.merge(manifest(&key, "a", 0, 99, publish(0))),
            Merge::Older
        );
        assert_eq!(
            registry.merge(manifest(&key, "a", 1, 1, publish(0))),
            Merge::Newer
        );
    }
}
