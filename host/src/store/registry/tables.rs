//! All tables of the registry, for a change: what a manifest's coming and going means for each of them.

use std::collections::BTreeMap;

use redb::{ReadableTable, WriteTransaction};

use orb_protocol::head::SignedHead;
use orb_protocol::id::{ArtifactHash, FunctionId};
use orb_protocol::manifest::{Action, SignedManifest, Verified, Version};

use super::keys::{history_key, next_key, version_key};
use super::{
    HEADS, HISTORY, HISTORY_MAX, HISTORY_NAME, KEPT_REVISIONS, LIVE, NEEDED, OWNED, OWNERS, OwnerUse,
    Writable, content, is_live, is_needed,
};
use crate::store::database::{TxnError, seal, unseal};

/// Artifacts with their sizes.
pub(super) type Kept = BTreeMap<ArtifactHash, u64>;

pub(super) fn sum(kept: &Kept) -> u64 {
    kept.values().fold(0, |sum, bytes| sum.saturating_add(*bytes))
}

/// All tables, for a change.
pub(super) struct Tables<'txn> {
    pub(super) live: Writable<'txn>,
    pub(super) history: Writable<'txn>,
    pub(super) heads: Writable<'txn>,
    pub(super) owned: Writable<'txn>,
    pub(super) needed: Writable<'txn>,
    pub(super) owners: Writable<'txn>,
}

impl<'txn> Tables<'txn> {
    pub(super) fn open(txn: &'txn WriteTransaction) -> Result<Self, TxnError> {
        Ok(Self {
            live: txn.open_table(LIVE)?,
            history: txn.open_table(HISTORY)?,
            heads: txn.open_table(HEADS)?,
            owned: txn.open_table(OWNED)?,
            needed: txn.open_table(NEEDED)?,
            owners: txn.open_table(OWNERS)?,
        })
    }

    /// The artifacts of the last revisions, if `live` is the live manifest and `new` is one more than
    /// are stored.
    pub(super) fn kept(&self, live: Option<&Verified>, new: Option<&Verified>) -> Result<Kept, TxnError> {
        let Some(live) = live.filter(|live| is_live(Some(live))) else {
            return Ok(Kept::new());
        };
        let function = live.function();
        let generation = live.version().generation;
        let of = |revision| version_key(&function, Version { generation, revision });
        let (start, end) = (of(0), of(u64::MAX));
        let mut revisions: Vec<(Vec<u8>, ArtifactHash, u64)> = Vec::new();
        let mut add = |key: Vec<u8>, action: &Action| {
            if let Action::Publish(publish) = action {
                revisions.push((key, publish.artifact, publish.artifact_bytes));
            }
            revisions.len()
        };
        for entry in self.history.range(start.as_slice()..end.as_slice())?.rev() {
            let (key, record) = entry?;
            // A damaged record needs no artifact: nobody can go back to it.
            let Ok(signed) = unseal::<SignedManifest>(HISTORY_NAME, key.value(), record.value()) else {
                continue;
            };
            let Some(manifest) = content(&signed) else {
                continue;
            };
            if add(key.value().to_vec(), &manifest.action) == KEPT_REVISIONS {
                break;
            }
        }
        if let Some(new) = new {
            add(history_key(new), &new.manifest().action);
        }
        revisions.sort_unstable_by(|a, b| b.cmp(a));
        let kept = revisions
            .into_iter()
            .take(KEPT_REVISIONS)
            .map(|(_, artifact, bytes)| (artifact, bytes));
        Ok(kept.collect())
    }

    pub(super) fn insert(
        &mut self,
        manifest: &Verified,
        head: &SignedHead,
        owner_use: &OwnerUse,
    ) -> Result<(), TxnError> {
        let function = manifest.function();
        let function = function.as_bytes().as_slice();
        let owner = manifest.manifest().owner;
        let owner = owner.as_bytes().as_slice();
        let key = history_key(manifest);
        let signed = manifest.signed();
        self.live
            .insert(function, seal("live", function, signed).as_slice())?;
        self.history
            .insert(key.as_slice(), seal(HISTORY_NAME, &key, signed).as_slice())?;
        self.heads
            .insert(function, seal("heads", function, head).as_slice())?;
        let flag: &[u8] = if manifest.is_tombstone() { &[0] } else { &[1] };
        self.owned.insert([owner, function].concat().as_slice(), flag)?;
        self.owners
            .insert(owner, seal("owners", owner, owner_use).as_slice())?;
        self.prune(&manifest.function())
    }

    /// Forgets the oldest manifests beyond [`HISTORY_MAX`], and those that are damaged: their owner has
    /// seen the error, and publishes again.
    pub(super) fn prune(&mut self, function: &FunctionId) -> Result<(), TxnError> {
        let start = function.as_bytes().as_slice();
        let end = next_key(start);
        let mut surplus: Vec<Vec<u8>> = Vec::new();
        for (index, entry) in self.history.range(start..end.as_slice())?.rev().enumerate() {
            let (key, record) = entry?;
            let read = unseal::<SignedManifest>(HISTORY_NAME, key.value(), record.value());
            if let Err(error) = &read {
                tracing::error!(%function, %error, "a damaged revision is forgotten");
            }
            if index >= HISTORY_MAX || read.is_err() {
                surplus.push(key.value().to_vec());
            }
        }
        for key in surplus {
            self.history.remove(key.as_slice())?;
        }
        Ok(())
    }

    /// Notes which artifacts the function needs now; returns those that nobody needs any more.
    pub(super) fn need(
        &mut self,
        function: &FunctionId,
        before: &Kept,
        after: &Kept,
    ) -> Result<Vec<ArtifactHash>, TxnError> {
        let key = |artifact: &ArtifactHash| [artifact.as_bytes().as_slice(), function.as_bytes()].concat();
        for artifact in after.keys() {
            self.needed.insert(key(artifact).as_slice(), [].as_slice())?;
        }
        let mut unneeded = Vec::new();
        for artifact in before.keys().filter(|artifact| !after.contains_key(artifact)) {
            self.needed.remove(key(artifact).as_slice())?;
            if !is_needed(&self.needed, artifact)? {
                unneeded.push(*artifact);
            }
        }
        Ok(unneeded)
    }
}
