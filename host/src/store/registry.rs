//! A super node's registry on disk: every signed manifest that was ever live, and which one is.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `live` | function | the live manifest: a revision or the tombstone |
//! | `history` | function, generation, revision, manifest hash | every manifest that was live; also the second copy of a live one |
//! | `heads` | function | the live manifest's head |
//! | `owned` | owner, function | whether the function is live |
//! | `needed` | artifact, function | the function's last revisions need this artifact |
//! | `owners` | owner | what the owner uses |
//!
//! - [`tables`]: all of them, for a change. [`keys`]: what they are sorted by.
//! - [`listing`], [`history`]: pages of functions, and of a function's revisions.

mod history;
mod keys;
mod listing;
mod tables;

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, Table, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use orb_protocol::head::SignedHead;
use orb_protocol::id::{ArtifactHash, FunctionId, ManifestHash, OwnerId};
use orb_protocol::manifest::{Action, Manifest, SignedManifest, Verified};
use orb_protocol::registry::{Merge, compare};
use orb_protocol::rival::are_rivals;
use orb_protocol::wire::codec;
use orb_protocol::wire::federation::Cursor;

use self::keys::next_key;
use self::tables::{Tables, sum};
use super::database::{Database, StoreError, TxnError, unseal};

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;
type Writable<'txn> = Table<'txn, &'static [u8], &'static [u8]>;

const LIVE: Definition = TableDefinition::new("live");
const HISTORY: Definition = TableDefinition::new("history");
const HEADS: Definition = TableDefinition::new("heads");
const OWNED: Definition = TableDefinition::new("owned");
const NEEDED: Definition = TableDefinition::new("needed");
const OWNERS: Definition = TableDefinition::new("owners");

/// Revisions of a function whose artifacts are kept (the brief), so that rollback works.
pub(crate) const KEPT_REVISIONS: usize = 10;
/// Manifests of a function that are kept at all; the oldest go. They cost about 500 bytes each.
pub(crate) const HISTORY_MAX: usize = 1_000;
/// How many names an owner may have used up, decommissioned ones too, for each function that it may
/// have at a time: a tombstone has to be kept for ever.
pub(crate) const NAMES_PER_FUNCTION: u64 = 10;

/// What an owner uses of a super node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OwnerUse {
    /// Names that were ever used.
    pub(crate) names: u64,
    /// Functions that are live.
    pub(crate) functions: u64,
    /// Bytes of artifacts that are kept for them.
    pub(crate) bytes: u64,
    /// Whether the owner has shown an invitation.
    pub(crate) invited: bool,
}

/// What an owner may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OwnerLimits {
    /// Live functions.
    pub(crate) functions: u64,
    /// Bytes of artifacts.
    pub(crate) bytes: u64,
}

/// Which limit of an owner a revision would go beyond.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OverQuota {
    /// [`OwnerLimits::functions`].
    #[error("an owner may have {0} functions here, and this would be one more")]
    Functions(u64),
    /// [`OwnerLimits::bytes`].
    #[error("an owner may have {limit} bytes of artifacts here, and this would make it {wanted}")]
    Bytes {
        /// What may be.
        limit: u64,
        /// What would be.
        wanted: u64,
    },
    /// [`NAMES_PER_FUNCTION`].
    #[error("an owner may use {0} names here, decommissioned ones too, and this would be one more")]
    Names(u64),
}

/// What became of a manifest.
#[derive(Debug)]
pub(crate) enum Recorded {
    /// It is live now.
    Stored {
        /// What was live before.
        before: Option<Box<Verified>>,
        /// Artifacts that no function needs any more.
        unneeded: Vec<ArtifactHash>,
        /// Its place in this node's log of changes, once it has one.
        at: Option<Cursor>,
    },
    /// It was live already.
    Same,
    /// This one is newer.
    Older(Box<Verified>),
    /// This one, another revision, has its number.
    Taken(Box<Verified>),
    /// Its owner has too much already.
    OverQuota(OverQuota),
}

/// The tables. Everything here blocks.
#[derive(Debug)]
pub(crate) struct RegistryTables;

impl RegistryTables {
    /// Makes the tables that are not there.
    pub(crate) fn prepare(database: &Database) -> Result<(), StoreError> {
        database.write(|txn| {
            for table in [LIVE, HISTORY, HEADS, OWNED, NEEDED, OWNERS] {
                txn.open_table(table)?;
            }
            Ok(())
        })
    }

    /// Takes in what a publisher brings: of two devices that used one number, the first. The second is told,
    /// and may take the next number; where the join decided, the first would have to be told afterwards.
    pub(crate) fn record_first(
        txn: &WriteTransaction,
        manifest: &Verified,
        head: &SignedHead,
        limits: &OwnerLimits,
        invited: bool,
    ) -> Result<Recorded, TxnError> {
        let before = {
            let (table, history) = (txn.open_table(LIVE)?, txn.open_table(HISTORY)?);
            live(&table, &history, &manifest.function())?
        };
        match before.filter(|before| are_rivals(before, manifest)) {
            Some(winner) => Ok(Recorded::Taken(Box::new(winner))),
            None => Self::record(txn, manifest, head, limits, invited),
        }
    }

    /// Joins a manifest into the registry. Only [`Recorded::Stored`] has changed anything.
    pub(crate) fn record(
        txn: &WriteTransaction,
        manifest: &Verified,
        head: &SignedHead,
        limits: &OwnerLimits,
        invited: bool,
    ) -> Result<Recorded, TxnError> {
        let mut tables = Tables::open(txn)?;
        let before = live(&tables.live, &tables.history, &manifest.function())?;
        match compare(before.as_ref(), manifest) {
            Merge::Same => return Ok(Recorded::Same),
            Merge::Older => {
                let before = before.expect("an older manifest was compared with a newer one");
                return Ok(Recorded::Older(Box::new(before)));
            }
            Merge::New | Merge::Newer => {}
        }
        let kept_before = tables.kept(before.as_ref(), None)?;
        let kept_after = tables.kept(Some(manifest), Some(manifest))?;
        let owner = manifest.manifest().owner;
        let old_use = owner_use(&tables.owners, &owner)?;
        let new_use = OwnerUse {
            names: old_use.names + u64::from(before.is_none()),
            functions: (old_use.functions + u64::from(is_live(Some(manifest))))
                .saturating_sub(u64::from(is_live(before.as_ref()))),
            bytes: (old_use.bytes + sum(&kept_after)).saturating_sub(sum(&kept_before)),
            invited: old_use.invited || invited,
        };
        if let Err(over) = limits.check(&old_use, &new_use) {
            return Ok(Recorded::OverQuota(over));
        }
        tables.insert(manifest, head, &new_use)?;
        let unneeded = tables.need(&manifest.function(), &kept_before, &kept_after)?;
        Ok(Recorded::Stored {
            before: before.map(Box::new),
            unneeded,
            at: None,
        })
    }

    /// The function's live manifest: a revision or its tombstone.
    pub(crate) fn live(txn: &ReadTransaction, function: &FunctionId) -> Result<Option<Verified>, TxnError> {
        live(&txn.open_table(LIVE)?, &txn.open_table(HISTORY)?, function)
    }

    /// The live manifest and its head, as they are stored; `None` if either is not there or is damaged beyond repair.
    pub(crate) fn with_head(
        txn: &ReadTransaction,
        function: &FunctionId,
    ) -> Result<Option<(SignedManifest, SignedHead)>, TxnError> {
        let key = function.as_bytes().as_slice();
        let (table, heads) = (txn.open_table(LIVE)?, txn.open_table(HEADS)?);
        let (Some(record), Some(head)) = (table.get(key)?, heads.get(key)?) else {
            return Ok(None);
        };
        let signed = match unseal("live", key, record.value()) {
            Ok(signed) => Some(signed),
            // Its second copy, if that is sound. One that is not must not keep the others from who asks for all.
            Err(_) => match live(&table, &txn.open_table(HISTORY)?, function) {
                Ok(repaired) => repaired.map(|manifest| manifest.signed().clone()),
                Err(TxnError::Store(error)) => {
                    tracing::error!(%function, %error, "a revision is not passed on");
                    None
                }
                Err(error) => return Err(error),
            },
        };
        Ok(signed.zip(unseal("heads", key, head.value()).ok()))
    }

    /// How many functions are known, decommissioned ones too.
    pub(crate) fn count(txn: &WriteTransaction) -> Result<u64, TxnError> {
        Ok(txn.open_table(LIVE)?.len()?)
    }

    /// All functions that are known, in the order of their ids.
    pub(crate) fn functions(txn: &WriteTransaction) -> Result<Vec<FunctionId>, TxnError> {
        let mut functions = Vec::new();
        for entry in txn.open_table(LIVE)?.iter()? {
            functions.extend(entry?.0.value().try_into().map(FunctionId::from_bytes).ok());
        }
        Ok(functions)
    }

    /// The functions that come after one in the order of their ids, at most `limit`; decommissioned ones too.
    pub(crate) fn functions_after(
        txn: &ReadTransaction,
        after: Option<&FunctionId>,
        limit: usize,
    ) -> Result<Vec<FunctionId>, TxnError> {
        let start = after.map_or(Vec::new(), |after| next_key(after.as_bytes()));
        let table = txn.open_table(LIVE)?;
        let mut functions = Vec::new();
        for entry in table.range(start.as_slice()..)?.take(limit) {
            functions.extend(entry?.0.value().try_into().map(FunctionId::from_bytes).ok());
        }
        Ok(functions)
    }

    /// Gives what every live manifest says to `each`, with its hash, in the order of function ids. Signatures were
    /// checked when they were stored, and are when a manifest is read to be passed on. Functions whose records are
    /// damaged beyond repair are reported and left out.
    pub(crate) fn all_live(
        txn: &ReadTransaction,
        mut each: impl FnMut(FunctionId, &Manifest, ManifestHash),
    ) -> Result<(), TxnError> {
        let (table, history) = (txn.open_table(LIVE)?, txn.open_table(HISTORY)?);
        for entry in table.iter()? {
            let (key, record) = entry?;
            let Ok(function) = key.value().try_into().map(FunctionId::from_bytes) else {
                continue;
            };
            let signed: Option<SignedManifest> = unseal("live", key.value(), record.value()).ok();
            if let Some(signed) = signed
                && let Some(manifest) = content(&signed)
            {
                each(function, &manifest, signed.hash());
                continue;
            }
            match live(&table, &history, &function) {
                Ok(Some(manifest)) => each(function, manifest.manifest(), manifest.hash()),
                Ok(None) => {}
                Err(TxnError::Store(error)) => tracing::error!(%function, %error, "a function is not served"),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What an owner uses.
    pub(crate) fn owner_use(txn: &ReadTransaction, owner: &OwnerId) -> Result<OwnerUse, TxnError> {
        owner_use(&txn.open_table(OWNERS)?, owner)
    }

    /// Whether the function's last revisions need an artifact already.
    pub(crate) fn function_needs(
        txn: &WriteTransaction,
        function: &FunctionId,
        artifact: &ArtifactHash,
    ) -> Result<bool, TxnError> {
        let key = [artifact.as_bytes().as_slice(), function.as_bytes()].concat();
        Ok(txn.open_table(NEEDED)?.get(key.as_slice())?.is_some())
    }

    /// Whether any function needs an artifact.
    pub(crate) fn is_needed(txn: &ReadTransaction, artifact: &ArtifactHash) -> Result<bool, TxnError> {
        is_needed(&txn.open_table(NEEDED)?, artifact)
    }

    /// Functions that need an artifact, at most so many.
    pub(crate) fn needing(
        txn: &ReadTransaction,
        artifact: &ArtifactHash,
        most: usize,
    ) -> Result<Vec<FunctionId>, TxnError> {
        let (table, start) = (txn.open_table(NEEDED)?, artifact.as_bytes().as_slice());
        let mut functions = Vec::new();
        for entry in table.range(start..next_key(start).as_slice())?.take(most) {
            let (key, _) = entry?;
            let function = key.value().get(start.len()..).and_then(|id| id.try_into().ok());
            functions.extend(function.map(FunctionId::from_bytes));
        }
        Ok(functions)
    }
}

const HISTORY_NAME: &str = "history";

impl OwnerLimits {
    /// For what other super nodes took in by their own limits: all must have the same registry.
    pub(crate) const NONE: Self = Self {
        functions: u64::MAX,
        bytes: u64::MAX,
    };

    /// Only what grows can be too much: who is over a limit that was lowered may still go back.
    fn check(&self, old: &OwnerUse, new: &OwnerUse) -> Result<(), OverQuota> {
        let names = self.functions.saturating_mul(NAMES_PER_FUNCTION);
        if new.functions > self.functions && new.functions > old.functions {
            return Err(OverQuota::Functions(self.functions));
        }
        if new.bytes > self.bytes && new.bytes > old.bytes {
            let (limit, wanted) = (self.bytes, new.bytes);
            return Err(OverQuota::Bytes { limit, wanted });
        }
        if new.names > names && new.names > old.names {
            return Err(OverQuota::Names(names));
        }
        Ok(())
    }
}

/// The live manifest. If its record is damaged, the history has another copy.
fn live(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    history: &impl ReadableTable<&'static [u8], &'static [u8]>,
    function: &FunctionId,
) -> Result<Option<Verified>, TxnError> {
    let key = function.as_bytes().as_slice();
    let Some(record) = table.get(key)? else {
        return Ok(None);
    };
    let error = match read("live", key, record.value(), function) {
        Ok(manifest) => return Ok(Some(manifest)),
        Err(error) => error,
    };
    let mut newest: Option<Verified> = None;
    for entry in history.range(key..next_key(key).as_slice())? {
        let (key, record) = entry?;
        // Any of these may be the live one: without it nobody knows which one is.
        let manifest = read(HISTORY_NAME, key.value(), record.value(), function)?;
        if compare(newest.as_ref(), &manifest).changed() {
            newest = Some(manifest);
        }
    }
    tracing::error!(%function, %error, repaired = newest.is_some(), "a damaged record was read");
    newest.map(Some).ok_or(error.into())
}

fn read(table: &str, key: &[u8], record: &[u8], function: &FunctionId) -> Result<Verified, StoreError> {
    let signed: SignedManifest = unseal(table, key, record)?;
    let verified = signed.verify().ok().filter(|v| v.function() == *function);
    verified.ok_or_else(|| StoreError::Damaged(format!("{table}/{}", function.short())))
}

fn owner_use(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    owner: &OwnerId,
) -> Result<OwnerUse, TxnError> {
    let key = owner.as_bytes().as_slice();
    match table.get(key)? {
        Some(record) => Ok(unseal("owners", key, record.value())?),
        None => Ok(OwnerUse::default()),
    }
}

fn is_needed(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    artifact: &ArtifactHash,
) -> Result<bool, TxnError> {
    let start = artifact.as_bytes().as_slice();
    let found = table.range(start..next_key(start).as_slice())?.next();
    Ok(found.transpose()?.is_some())
}

fn is_live(manifest: Option<&Verified>) -> bool {
    manifest.is_some_and(|manifest| !manifest.is_tombstone())
}

/// What a stored manifest says. Its signature was checked before it was stored.
fn content(signed: &SignedManifest) -> Option<Manifest> {
    codec::decode(&signed.bytes).ok()
}

/// The artifact that a stored manifest publishes, if it does.
pub(crate) fn artifact_of(signed: &SignedManifest) -> Option<ArtifactHash> {
    match content(signed)?.action {
        Action::Publish(publish) => Some(publish.artifact),
        _ => None,
    }
}

fn is_tombstone(signed: &SignedManifest) -> bool {
    content(signed).is_some_and(|manifest| matches!(manifest.action, Action::Decommission(_)))
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
