//! What is wanted for each function. A super node keeps this for all functions of the network, so it is small: 64
//! bytes beside the function's id, and what many functions have in common is kept once.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::id::{EngineHash, ManifestHash, NodeId, OwnerId};
use crate::manifest::{Action, Limits, Manifest, Verified, Version};
use crate::wire::control::Held;

/// See [`Desired::is_first`].
const FIRST: u32 = 1 << 31;

/// What is wanted for a function.
#[derive(Debug)]
pub(super) struct Desired {
    /// The generation; and as the topmost bit whether this super node places it.
    generation_and_first: u32,
    /// Whether two of those that it is assigned to are in one failure domain.
    pub(super) is_doubled: bool,
    revision: u64,
    /// The first bytes of the manifest's hash: decides between two manifests of one number, and tells what hosts
    /// have of them apart.
    hash_start: u64,
    /// `None` once the function is decommissioned.
    pub(super) wish: Option<Wish>,
    /// Hosts that were told to hold it, nearest first.
    pub(super) assigned: Vec<NodeId>,
}

/// What its owner wants.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub(super) artifact_bytes: u64,
    pub(super) terms: Arc<Terms>,
}

/// What an owner's functions have in common as a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Terms {
    pub(super) owner: OwnerId,
    pub(super) limits: Limits,
    pub(super) engine: Option<EngineHash>,
    pub(super) replicas: usize,
}

/// All terms that some function has.
#[derive(Debug, Default)]
pub(super) struct TermsInUse(BTreeSet<Arc<Terms>>);

impl Desired {
    /// What a manifest says.
    pub(super) fn new(manifest: &Manifest, hash: &ManifestHash, first: bool, terms: &mut TermsInUse) -> Self {
        let Version { generation, revision } = manifest.version;
        let publish = match &manifest.action {
            Action::Publish(publish) => Some(publish),
            _ => None,
        };
        let wish = publish.map(|publish| Wish {
            artifact_bytes: publish.artifact_bytes,
            terms: terms.keep(Terms {
                owner: manifest.owner,
                limits: publish.limits,
                engine: publish.engine,
                replicas: publish.replicas.into(),
            }),
        });
        let mut desired = Self {
            // A verified manifest's fits: `GENERATION_MAX`.
            generation_and_first: u32::try_from(generation).unwrap_or(u32::MAX) & !FIRST,
            is_doubled: false,
            revision,
            hash_start: hash_start(hash),
            wish,
            assigned: Vec::new(),
        };
        desired.set_first(first);
        desired
    }

    /// Whether this super node places it.
    pub(super) fn is_first(&self) -> bool {
        self.generation_and_first & FIRST != 0
    }

    pub(super) fn set_first(&mut self, first: bool) {
        self.generation_and_first &= !FIRST;
        if first {
            self.generation_and_first |= FIRST;
        }
    }

    /// Which revision is live.
    pub(super) fn version(&self) -> Version {
        Version {
            generation: (self.generation_and_first & !FIRST).into(),
            revision: self.revision,
        }
    }

    /// Whether this is what the manifest says, or newer: the order of [`crate::manifest::Rank`].
    pub(super) fn covers(&self, manifest: &Verified) -> bool {
        let rank = |version: Version, tombstone, hash_start: u64| {
            (version.generation, tombstone, version.revision, hash_start)
        };
        rank(self.version(), self.wish.is_none(), self.hash_start)
            >= rank(
                manifest.version(),
                manifest.is_tombstone(),
                hash_start(&manifest.hash()),
            )
    }

    /// What a host's word for a version is worth. It may have heard of a newer one elsewhere, or make
    /// one up: neither counts before this super node has the owner's signature for it. Otherwise who
    /// claims the last revision of all would pass for ready after every edit, without having been told.
    pub(super) fn believable(&self, claimed: Version) -> Version {
        claimed.min(self.version())
    }

    /// Whether a host holds the very revision that is live.
    pub(super) fn is_held(&self, held: &Held) -> bool {
        let is_same = self.hash_start == hash_start(&held.manifest);
        self.wish.is_some() && self.version() == held.version && is_same
    }

    /// The version that a host holds for what it holds, see [`Desired::believable`]. A rival of the live
    /// revision counts for the one before.
    pub(super) fn worth(&self, held: &Held) -> Version {
        let version = self.believable(held.version);
        let is_rival = held.version == self.version() && !self.is_held(held);
        if is_rival { before(version) } else { version }
    }
}

/// The version before, in the same life.
pub(super) fn before(version: Version) -> Version {
    Version {
        revision: version.revision.saturating_sub(1),
        ..version
    }
}

impl TermsInUse {
    fn keep(&mut self, terms: Terms) -> Arc<Terms> {
        if let Some(known) = self.0.get(&terms) {
            return Arc::clone(known);
        }
        let terms = Arc::new(terms);
        self.0.insert(Arc::clone(&terms));
        terms
    }

    /// A function does not have these terms any more.
    pub(super) fn let_go(&mut self, terms: &Arc<Terms>) {
        // The table's own, and the caller's.
        if Arc::strong_count(terms) == 2 {
            self.0.remove(terms);
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// As a number that compares as the bytes do.
fn hash_start(manifest: &ManifestHash) -> u64 {
    let mut start = [0; 8];
    start.copy_from_slice(&manifest.as_bytes()[..8]);
    u64::from_be_bytes(start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::OwnerKey;
    use crate::testing::{manifest, manifests, publish};

    #[test]
    fn it_is_small() {
        assert_eq!(size_of::<Desired>(), 64);
    }

    #[test]
    fn it_orders_manifests_as_their_ranks_do() {
        let key = OwnerKey::from_seed([1; 32]);
        let all = manifests(&key, &[0, 1], &[1, 2, 3]);
        for one in &all {
            let desired = Desired::new(one.manifest(), &one.hash(), true, &mut TermsInUse::default());
            for other in &all {
                assert_eq!(desired.covers(other), one.rank() >= other.rank());
            }
        }
    }

    #[test]
    fn terms_are_kept_once_and_as_long_as_needed() {
        let key = OwnerKey::from_seed([1; 32]);
        let mut terms = TermsInUse::default();
        let mut wish = |name| {
            let one = manifest(&key, name, 0, 1, publish(0));
            Desired::new(one.manifest(), &one.hash(), true, &mut terms).wish
        };
        let (one, other) = (wish("a"), wish("b"));
        let (one, other) = (one.map(|w| w.terms), other.map(|w| w.terms));
        assert_eq!((terms.len(), one == other), (1, true));
        one.iter().for_each(|one| terms.let_go(one));
        assert_eq!(terms.len(), 1);
        drop(one);
        other.iter().for_each(|other| terms.let_go(other));
        assert_eq!(terms.len(), 0);
    }
}
