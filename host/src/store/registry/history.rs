//! A function's revisions: pages of them, and ancestors that were missed and are brought in later.

use std::collections::BTreeMap;

use redb::{ReadTransaction, WriteTransaction};

use orb_protocol::history::Gap;
use orb_protocol::id::{ArtifactHash, FunctionId, ManifestHash};
use orb_protocol::manifest::{SignedManifest, Verified, Version};
use orb_protocol::registry::{Merge, compare};

use super::keys::{hash_of_key, history_key, next_key, version_key, version_of_key};
use super::listing::Page;
use super::tables::{Tables, sum};
use super::{HISTORY, HISTORY_NAME, LIVE, OwnerUse, RegistryTables, content, live, owner_use};
use crate::store::database::{TxnError, seal, unseal};

/// How far back from the live revision a gap is looked for: several times the revisions that one can go back to.
const CHAIN_MAX: usize = 32;
/// Keys that are looked through for them: there may be losers of races among them.
const SCANNED_MAX: usize = 4 * CHAIN_MAX;

/// What became of ancestors that were brought in.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    /// How many are in the history that were not before.
    pub(crate) added: usize,
    /// Artifacts that no function needs any more.
    pub(crate) unneeded: Vec<ArtifactHash>,
}

impl RegistryTables {
    /// A page of a function's manifests, newest first, only those below `before`; and whether there
    /// are more. `None` for a function that was never known. A damaged one among them is an error. Revisions
    /// of one number stand on one page, since the next one begins below a number; beyond a whole page of
    /// them the others are left out.
    pub(crate) fn versions(
        txn: &ReadTransaction,
        function: &FunctionId,
        before: Option<Version>,
        limit: usize,
    ) -> Result<Option<(Vec<SignedManifest>, bool)>, TxnError> {
        if txn
            .open_table(LIVE)?
            .get(function.as_bytes().as_slice())?
            .is_none()
        {
            return Ok(None);
        }
        let history = txn.open_table(HISTORY)?;
        let end = before.map_or_else(
            || next_key(function.as_bytes()),
            |before| version_key(function, before),
        );
        let mut page = Page::new(limit);
        let mut numbers: Vec<Vec<u8>> = Vec::new();
        for entry in history
            .range(function.as_bytes().as_slice()..end.as_slice())?
            .rev()
        {
            let (key, record) = entry?;
            let number = version_of_key(key.value()).to_vec();
            // Without a damaged one the others would look like all, and a rollback would go to another one.
            if page.take(unseal(HISTORY_NAME, key.value(), record.value())?) {
                let whole = numbers.iter().take_while(|other| **other != number).count();
                if whole > 0 {
                    page.manifests.truncate(whole);
                }
                break;
            }
            numbers.push(number);
        }
        Ok(Some((page.manifests, page.full)))
    }

    /// The newest gap in a function's chain: a revision that another one names as its parent, and that is not here
    /// or is damaged. `None` if there is none among the newest revisions.
    pub(crate) fn gap(txn: &ReadTransaction, function: &FunctionId) -> Result<Option<Gap>, TxnError> {
        let history = txn.open_table(HISTORY)?;
        let Some(live) = live(&txn.open_table(LIVE)?, &history, function)? else {
            return Ok(None);
        };
        let start = function.as_bytes().as_slice();
        let mut known: BTreeMap<ManifestHash, SignedManifest> = BTreeMap::new();
        for entry in history
            .range(start..next_key(start).as_slice())?
            .rev()
            .take(SCANNED_MAX)
        {
            let (key, record) = entry?;
            if let (Some(hash), Ok(signed)) = (
                hash_of_key(key.value()),
                unseal(HISTORY_NAME, key.value(), record.value()),
            ) {
                known.insert(hash, signed);
            }
        }
        let mut next = Gap::before(&live);
        for _ in 0..CHAIN_MAX {
            let Some(gap) = next else { break };
            let Some(parent) = known.get(&gap.parent).and_then(content) else {
                return Ok(Some(gap));
            };
            next = parent.parent.map(|parent_of| Gap {
                parent: parent_of,
                below: parent.version,
                ..gap
            });
        }
        Ok(None)
    }

    /// Takes ancestors of a function's revisions into its history. What is live stays so: one that would come after
    /// it is left out. Their owner has used the super node where they were handed in, so that no limit counts.
    pub(crate) fn restore(txn: &WriteTransaction, ancestors: &[Verified]) -> Result<Restored, TxnError> {
        let mut restored = Restored::default();
        let mut tables = Tables::open(txn)?;
        let Some(function) = ancestors.first().map(Verified::function) else {
            return Ok(restored);
        };
        let Some(live) = live(&tables.live, &tables.history, &function)? else {
            return Ok(restored);
        };
        let before = tables.kept(Some(&live), None)?;
        for ancestor in ancestors {
            if ancestor.function() != function || compare(Some(&live), ancestor) != Merge::Older {
                continue;
            }
            let key = history_key(ancestor);
            let record = seal(HISTORY_NAME, &key, ancestor.signed());
            // The same key again: a damaged record is mended.
            tables.history.insert(key.as_slice(), record.as_slice())?;
            restored.added += 1;
        }
        tables.prune(&function)?;
        let after = tables.kept(Some(&live), None)?;
        let owner = live.manifest().owner;
        let old_use = owner_use(&tables.owners, &owner)?;
        let new_use = OwnerUse {
            bytes: (old_use.bytes + sum(&after)).saturating_sub(sum(&before)),
            ..old_use
        };
        let key = owner.as_bytes().as_slice();
        tables
            .owners
            .insert(key, seal("owners", key, &new_use).as_slice())?;
        restored.unneeded = tables.need(&function, &before, &after)?;
        Ok(restored)
    }
}
