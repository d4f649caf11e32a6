//! A function's history: whoever missed revisions finds their gap, and fills it with what others offer.
//!
//! Each manifest names its parent by hash, and a hash commits to the parent's bytes and signature. So a gap
//! is visible, and nothing can be passed off as what belongs there: whoever offers something else has only
//! cost the time to hash it.

use std::collections::BTreeMap;

use crate::id::{FunctionId, ManifestHash};
use crate::manifest::{SignedManifest, Verified, Version};

/// A revision that is named as a parent, and is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Whose revision.
    pub function: FunctionId,
    /// Which one.
    pub parent: ManifestHash,
    /// The version of the revision that names it: the parent's is below that.
    pub below: Version,
}

impl Gap {
    /// The gap before a revision, if its parent is not there.
    pub fn before(child: &Verified) -> Option<Self> {
        Some(Self {
            function: child.function(),
            parent: child.manifest().parent?,
            below: child.version(),
        })
    }
}

/// What fills a gap out of what somebody offers: the missing parent, its parent, and so on for as long as there are
/// such, newest first. Everything else that is offered is left out.
pub fn ancestors(mut gap: Gap, offered: impl IntoIterator<Item = SignedManifest>) -> Vec<Verified> {
    let mut offered: BTreeMap<ManifestHash, SignedManifest> = offered
        .into_iter()
        .map(|signed| (signed.hash(), signed))
        .collect();
    let mut found = Vec::new();
    // It ends: each one is taken out of what was offered.
    while let Some(signed) = offered.remove(&gap.parent) {
        let Ok(parent) = signed.verify() else { break };
        // An owner may have signed whatever it liked as a parent.
        if parent.function() != gap.function || parent.version() >= gap.below {
            break;
        }
        let before = Gap::before(&parent);
        found.push(parent);
        match before {
            Some(before) => gap = before,
            None => break,
        }
    }
    found
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;
    use crate::key::OwnerKey;
    use crate::testing::{chain, manifest, publish};

    fn owner(seed: u8) -> OwnerKey {
        OwnerKey::from_seed([seed; 32])
    }

    fn signed(manifests: &[Verified]) -> Vec<SignedManifest> {
        manifests
            .iter()
            .map(|manifest| manifest.signed().clone())
            .collect()
    }

    #[test]
    fn a_gap_is_filled_whatever_the_order_and_whatever_else_is_offered() {
        let revisions = chain(&owner(1), "f", 8);
        let gap = Gap::before(&revisions[6]).unwrap();
        let mut offered = signed(&revisions);
        offered.extend(signed(&chain(&owner(1), "g", 8)));
        offered.extend(signed(&chain(&owner(2), "f", 8)));
        offered.reverse();
        let mut found = ancestors(gap, offered);
        found.reverse();
        assert_eq!(found, revisions[..6]);
        // Beyond a second gap nothing proves that it belongs there.
        let found = ancestors(gap, signed(&[revisions[5].clone(), revisions[3].clone()]));
        assert_eq!(found, revisions[5..6]);
    }

    #[test]
    fn nothing_but_the_parent_that_was_named_is_taken() {
        let revisions = chain(&owner(1), "f", 3);
        let gap = Gap::before(&revisions[2]).unwrap();
        let mut altered = revisions[1].signed().clone();
        altered.signature[0] ^= 1;
        let mut changed = revisions[1].signed().clone();
        *changed.bytes.last_mut().unwrap() ^= 1;
        let rival = manifest(&owner(1), "f", 0, 2, publish(9));
        let offered = [
            altered,
            changed,
            rival.signed().clone(),
            revisions[0].signed().clone(),
        ];
        assert_eq!(ancestors(gap, offered), []);
    }

    #[test]
    fn a_parent_is_an_older_revision_of_the_same_function() {
        let (key, own) = (owner(1), chain(&owner(1), "f", 1));
        for stranger in [
            manifest(&key, "g", 0, 1, publish(1)),
            manifest(&key, "f", 0, 7, publish(1)),
        ] {
            let gap = Gap {
                function: own[0].function(),
                parent: stranger.hash(),
                below: Version {
                    generation: 0,
                    revision: 7,
                },
            };
            assert_eq!(ancestors(gap, signed(&[stranger])), []);
        }
    }
}
