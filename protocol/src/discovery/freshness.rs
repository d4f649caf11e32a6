//! Whether a super node that was found is up to date, as far as the owner's head tells.

use crate::head::SignedHead;
use crate::manifest::Verified;

/// How a manifest that a super node shows stands to the head that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// It is the head's, or newer. A head takes a while to get around.
    Fresh,
    /// The owner has signed something newer: this super node has missed it, or hides it.
    Stale,
}

/// Compares a manifest with the head of the same function. Both are signed by the owner; without a head
/// nothing can be said against the manifest.
///
/// Of two revisions with one number the registry's join takes the greater hash, and so does this.
pub fn freshness(head: Option<&SignedHead>, manifest: &Verified) -> Freshness {
    let shown = (manifest.version(), manifest.hash());
    match head {
        Some(head) if shown < (head.version, head.manifest) => Freshness::Stale,
        _ => Freshness::Fresh,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::OwnerKey;
    use crate::testing::{manifest, publish};

    #[test]
    fn an_older_revision_is_stale() {
        let key = OwnerKey::from_seed([1; 32]);
        let revisions: Vec<_> = (1..=3)
            .map(|revision| manifest(&key, "a", 0, revision, publish(0)))
            .collect();
        let head = SignedHead::sign(&key, &revisions[1]);
        let judged: Vec<_> = revisions
            .iter()
            .map(|shown| freshness(Some(&head), shown))
            .collect();
        assert_eq!(judged, [Freshness::Stale, Freshness::Fresh, Freshness::Fresh]);
        assert_eq!(freshness(None, &revisions[0]), Freshness::Fresh);
        // The next life of a function begins with a lower revision.
        let reborn = manifest(&key, "a", 1, 1, publish(0));
        assert_eq!(freshness(Some(&head), &reborn), Freshness::Fresh);
    }

    #[test]
    fn of_one_number_the_greater_hash_counts() {
        let key = OwnerKey::from_seed([1; 32]);
        let (one, two) = (
            manifest(&key, "a", 0, 1, publish(1)),
            manifest(&key, "a", 0, 1, publish(2)),
        );
        let (loser, winner) = if one.hash() < two.hash() {
            (one, two)
        } else {
            (two, one)
        };
        assert_eq!(
            freshness(Some(&SignedHead::sign(&key, &winner)), &loser),
            Freshness::Stale
        );
        assert_eq!(
            freshness(Some(&SignedHead::sign(&key, &loser)), &winner),
            Freshness::Fresh
        );
    }
}
