//! What a super node keeps, for its tasks: the registry, the artifacts, and what happened, without
//! blocking them.

mod events;
mod webhooks;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use orb_protocol::federation::clock::Clock;
use orb_protocol::head::SignedHead;
use orb_protocol::id::{ArtifactHash, FunctionId, NodeId, OwnerId};
use orb_protocol::manifest::{SignedManifest, Verified, Version};
use orb_protocol::wire::federation::{Cursor, ItemId, LogId, RegistryChange, SignedRecord};
use tokio::sync::watch;

use crate::store::blocking;
use crate::store::changes::{ChangeTables, Page};
use crate::store::committer::Committer;
use crate::store::database::{Database, StoreError, TxnError};
use crate::store::datadir::DataDir;
use crate::store::events::EventTable;
use crate::store::objects::{CheckedFile, ObjectError, ObjectStore, ObjectWriter};
use crate::store::registry::{OwnerLimits, OwnerUse, Recorded, RegistryTables, artifact_of};

/// Live manifests that are kept in memory: the functions that are called all the time. They cost about
/// 1 KiB each.
const LIVE_CACHED_MAX: usize = 8_192;
/// Room that artifacts leave on the disk, in bytes: the database has to be able to go on, be it only
/// to store the decommission that makes room.
const RESERVE_BYTES: u64 = 512 << 10;

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The artifacts.
    #[error(transparent)]
    Objects(#[from] ObjectError),
    /// No thread, or no randomness.
    #[error("the system gives no thread or no randomness: {0}")]
    Thread(#[from] std::io::Error),
}

/// The registry, the artifacts, and the log of events.
#[derive(Debug)]
pub(crate) struct Storage {
    database: Arc<Database>,
    committer: Committer,
    shelf: Arc<Shelf>,
    log: LogId,
    live: Mutex<LiveCache>,
    /// The newest event's cursor.
    newest: watch::Sender<u64>,
}

/// The artifacts, and who is about to need one.
#[derive(Debug)]
struct Shelf {
    database: Arc<Database>,
    objects: ObjectStore,
    /// How many publishes of an artifact are under way: until they are recorded nothing else says that
    /// it is needed. At most one entry for each publish that is let in at once.
    pins: Mutex<HashMap<ArtifactHash, usize>>,
}

/// Keeps an artifact from being removed.
#[derive(Debug)]
pub(crate) struct Pin {
    shelf: Arc<Shelf>,
    artifact: ArtifactHash,
}

#[derive(Debug, Default)]
struct LiveCache {
    manifests: HashMap<FunctionId, Arc<Verified>>,
    /// Counts changes, so that what was read before one is not kept after it.
    changes: u64,
}

impl Storage {
    /// Opens what is in a data folder, checked after an unclean stop, and clears away artifacts that
    /// were stored for a publish that was never finished. Blocks.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(crate) fn open(dir: &DataDir) -> Result<Self, OpenError> {
        if dir.stopped_uncleanly() {
            tracing::warn!("the last stop was not a clean one: the database is repaired if need be");
        }
        let database = Arc::new(Database::open(&dir.database())?);
        RegistryTables::prepare(&database)?;
        let log = ChangeTables::prepare(&database, fresh_log()?)?;
        let newest = EventTable::prepare(&database)?;
        let shelf = Arc::new(Shelf {
            database: Arc::clone(&database),
            objects: ObjectStore::open(&dir.objects())?,
            pins: Mutex::default(),
        });
        shelf.sweep()?;
        Ok(Self {
            committer: Committer::start(Arc::clone(&database))?,
            database,
            shelf,
            log,
            live: Mutex::default(),
            newest: watch::Sender::new(newest),
        })
    }

    /// The id of this node's own log of changes.
    pub(crate) fn log(&self) -> LogId {
        self.log
    }

    /// What this node knows of all logs, and the records of other super nodes. Blocks.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn federation(&self) -> Result<(Clock, Vec<SignedRecord>), StoreError> {
        let read = |txn: &redb::ReadTransaction| Ok((ChangeTables::clock(txn)?, ChangeTables::members(txn)?));
        self.database.read(read)
    }

    /// Gives every live manifest to `each`. Blocks.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn all_live(&self, each: impl FnMut(Verified)) -> Result<(), StoreError> {
        self.database.read(|txn| RegistryTables::all_live(txn, each))
    }

    /// See [`RegistryTables::functions_after`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn functions(
        &self,
        after: Option<FunctionId>,
        limit: usize,
    ) -> Result<Vec<FunctionId>, StoreError> {
        let database = Arc::clone(&self.database);
        let read = move || database.read(|txn| RegistryTables::functions_after(txn, after.as_ref(), limit));
        blocking(read).await
    }

    /// See [`RegistryTables::with_head`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn with_head(
        &self,
        function: FunctionId,
    ) -> Result<Option<(SignedManifest, SignedHead)>, StoreError> {
        let database = Arc::clone(&self.database);
        blocking(move || database.read(|txn| RegistryTables::with_head(txn, &function))).await
    }

    /// The function's live manifest: a revision or its tombstone.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn live(&self, function: FunctionId) -> Result<Option<Arc<Verified>>, StoreError> {
        let changes = {
            let cache = lock(&self.live);
            if let Some(manifest) = cache.manifests.get(&function) {
                return Ok(Some(Arc::clone(manifest)));
            }
            cache.changes
        };
        let database = Arc::clone(&self.database);
        let read = move || database.read(|txn| RegistryTables::live(txn, &function));
        let manifest = blocking(read).await?.map(Arc::new);
        if let Some(manifest) = &manifest {
            let mut cache = lock(&self.live);
            if cache.changes == changes {
                cache.keep(manifest);
            }
        }
        Ok(manifest)
    }

    /// Takes what a publisher brings into the registry, durably, and with it the event of it. What it makes
    /// superfluous is removed. See [`RegistryTables::record_first`].
    ///
    /// To be called in a task that nobody cancels: others hear of the manifest only when this returns.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was acknowledged then. After an error of the disk at the very end the
    /// manifest may be stored all the same: [`Storage::live`] tells.
    pub(crate) async fn record(
        &self,
        manifest: &Arc<Verified>,
        head: SignedHead,
        limits: OwnerLimits,
        invited: bool,
    ) -> Result<Recorded, StoreError> {
        let (new, log) = (Arc::clone(manifest), self.log);
        let write = move |txn: &redb::WriteTransaction| {
            events::noted(txn, &new, || {
                let mut recorded = RegistryTables::record_first(txn, &new, &head, &limits, invited)?;
                if let Recorded::Stored { at, .. } = &mut recorded {
                    *at = Some(ChangeTables::append(txn, log, &new.function())?);
                }
                Ok(recorded)
            })
        };
        self.join(manifest, write).await
    }

    /// Joins another super node's change into the registry, durably.
    ///
    /// # Errors
    /// [`StoreError`]; it will be pulled then.
    pub(crate) async fn take_in(
        &self,
        manifest: &Arc<Verified>,
        head: SignedHead,
        at: Cursor,
    ) -> Result<Recorded, StoreError> {
        let new = Arc::clone(manifest);
        let write = move |txn: &redb::WriteTransaction| {
            events::noted(txn, &new, || {
                let recorded = RegistryTables::record(txn, &new, &head, &OwnerLimits::NONE, false)?;
                if let Recorded::Stored { .. } = &recorded {
                    ChangeTables::note(txn, at, &new.function())?;
                }
                ChangeTables::raise_next(txn, at)?;
                Ok(recorded)
            })
        };
        self.join(manifest, write).await
    }

    /// Notes that everything up to these cursors is known.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn raise(&self, known: Vec<Cursor>) -> Result<(), StoreError> {
        let raise = move |txn: &redb::WriteTransaction| ChangeTables::raise(txn, &known);
        self.committer.write(raise).await
    }

    /// What this node knows of all logs.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn clock(&self) -> Result<Clock, StoreError> {
        let database = Arc::clone(&self.database);
        blocking(move || database.read(ChangeTables::clock)).await
    }

    /// See [`ChangeTables::missing`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn missing(
        &self,
        known: Clock,
        until: Clock,
        from: Option<Cursor>,
    ) -> Result<Page, StoreError> {
        let database = Arc::clone(&self.database);
        let read = move || database.read(|txn| ChangeTables::missing(txn, &known, &until, from));
        blocking(read).await
    }

    /// An item for each function that is known.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn items(&self) -> Result<Vec<ItemId>, StoreError> {
        let database = Arc::clone(&self.database);
        blocking(move || database.read(ChangeTables::items)).await
    }

    /// See [`ChangeTables::wanted`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn wanted(
        &self,
        items: Vec<ItemId>,
    ) -> Result<(Vec<RegistryChange>, Vec<ItemId>), StoreError> {
        let database = Arc::clone(&self.database);
        blocking(move || database.read(|txn| ChangeTables::wanted(txn, items))).await
    }

    /// Keeps another super node's record across restarts.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn keep_member(&self, node: NodeId, record: SignedRecord) -> Result<(), StoreError> {
        let keep = move |txn: &redb::WriteTransaction| ChangeTables::keep_member(txn, &node, &record);
        self.committer.write(keep).await
    }

    /// Has a manifest joined into the registry, and removes what that makes superfluous.
    async fn join(
        &self,
        manifest: &Arc<Verified>,
        write: impl FnMut(&redb::WriteTransaction) -> Result<(Recorded, Option<u64>), TxnError> + Send + 'static,
    ) -> Result<Recorded, StoreError> {
        let recorded = self.committer.write(write).await;
        // After an error too: what the disk would not confirm may be there all the same.
        lock(&self.live).forget(&manifest.function());
        let (recorded, event) = recorded?;
        self.announce(event);
        if let Recorded::Stored { unneeded, .. } = &recorded {
            self.remove(unneeded.clone()).await;
        }
        Ok(recorded)
    }

    /// See [`RegistryTables::page`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn page(
        &self,
        owner: Option<OwnerId>,
        after: Option<FunctionId>,
        limit: usize,
        decommissioned: bool,
    ) -> Result<(Vec<SignedManifest>, bool), StoreError> {
        let database = Arc::clone(&self.database);
        let read = move || {
            database
                .read(|txn| RegistryTables::page(txn, owner.as_ref(), after.as_ref(), limit, decommissioned))
        };
        blocking(read).await
    }

    /// See [`RegistryTables::versions`]; with each manifest, whether its artifact is here.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn versions(
        &self,
        function: FunctionId,
        before: Option<Version>,
        limit: usize,
    ) -> Result<Option<(Vec<(SignedManifest, bool)>, bool)>, StoreError> {
        let shelf = Arc::clone(&self.shelf);
        let read = move || {
            let versions =
                |txn: &redb::ReadTransaction| RegistryTables::versions(txn, &function, before, limit);
            let Some((page, more)) = shelf.database.read(versions)? else {
                return Ok(None);
            };
            let page = page.into_iter().map(|signed| {
                let artifact = artifact_of(&signed);
                let here = artifact.is_some_and(|artifact| shelf.objects.contains(&artifact));
                (signed, here)
            });
            Ok(Some((page.collect(), more)))
        };
        blocking(read).await
    }

    /// What an owner uses.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn owner_use(&self, owner: OwnerId) -> Result<OwnerUse, StoreError> {
        let database = Arc::clone(&self.database);
        blocking(move || database.read(|txn| RegistryTables::owner_use(txn, &owner))).await
    }

    /// Functions that need an artifact, at most so many.
    pub(crate) async fn needing(&self, artifact: ArtifactHash, most: usize) -> Vec<FunctionId> {
        let database = Arc::clone(&self.database);
        let read = move || database.read(|txn| RegistryTables::needing(txn, &artifact, most));
        blocking(read).await.unwrap_or_default()
    }

    /// Keeps an artifact from being removed, whether it is here already or not.
    pub(crate) async fn pin(&self, artifact: ArtifactHash) -> Pin {
        let shelf = Arc::clone(&self.shelf);
        let pin = move || {
            *lock(&shelf.pins).entry(artifact).or_default() += 1;
            Pin { shelf, artifact }
        };
        // The lock is held while a file is removed.
        blocking(pin).await
    }

    /// The bytes of an artifact, checked against its hash.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub(crate) async fn artifact(&self, artifact: ArtifactHash) -> Result<Bytes, ObjectError> {
        let shelf = Arc::clone(&self.shelf);
        blocking(move || shelf.objects.get(&artifact).map(Bytes::from)).await
    }

    /// An artifact, checked against its hash, for reading in pieces.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub(crate) async fn open_artifact(&self, artifact: ArtifactHash) -> Result<CheckedFile, ObjectError> {
        let shelf = Arc::clone(&self.shelf);
        blocking(move || shelf.objects.open_checked(&artifact)).await
    }

    /// Adds bytes to an artifact that is being written; begins one if there is none yet.
    ///
    /// # Errors
    /// [`ObjectError`]; nothing is left behind then.
    pub(crate) async fn write(
        &self,
        writer: Option<ObjectWriter>,
        bytes: Vec<u8>,
    ) -> Result<ObjectWriter, ObjectError> {
        let shelf = Arc::clone(&self.shelf);
        let write = move || {
            if shelf.objects.free_bytes()? < RESERVE_BYTES + bytes.len() as u64 {
                return Err(shelf.objects.full());
            }
            let mut writer = match writer {
                Some(writer) => writer,
                None => shelf.objects.writer()?,
            };
            writer.write(&bytes)?;
            Ok(writer)
        };
        blocking(write).await
    }

    /// Makes a pinned artifact that was written durable.
    ///
    /// # Errors
    /// [`ObjectError`]; nothing is left behind then.
    pub(crate) async fn commit(&self, pin: &Pin, writer: ObjectWriter) -> Result<(), ObjectError> {
        let artifact = pin.artifact;
        blocking(move || writer.commit(artifact)).await
    }

    /// Finishes what was begun and closes the database. Blocks.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn close(self) -> Result<(), StoreError> {
        let Self {
            database,
            committer,
            shelf,
            ..
        } = self;
        drop(committer);
        drop(shelf);
        match Arc::into_inner(database) {
            Some(database) => database.close(),
            // A task that was cut off still reads: it is closed when that ends.
            None => Ok(()),
        }
    }

    async fn remove(&self, artifacts: Vec<ArtifactHash>) {
        let shelf = Arc::clone(&self.shelf);
        let remove = move || {
            for artifact in artifacts {
                shelf.remove_unneeded(artifact);
            }
        };
        blocking(remove).await;
    }
}

impl Shelf {
    /// Removes an artifact that nobody needs and nobody is about to need.
    fn remove_unneeded(&self, artifact: ArtifactHash) {
        // Held throughout: a publish that begins now sees either the file or its absence.
        let pins = lock(&self.pins);
        if pins.contains_key(&artifact) {
            return;
        }
        match self
            .database
            .read(|txn| RegistryTables::is_needed(txn, &artifact))
        {
            Ok(true) => {}
            Ok(false) => match self.objects.remove(&artifact) {
                Ok(()) => tracing::debug!(%artifact, "an artifact that nobody needs was removed"),
                Err(error) => tracing::warn!(%artifact, %error, "an artifact stays"),
            },
            Err(error) => tracing::warn!(%artifact, %error, "an artifact stays"),
        }
    }

    fn sweep(&self) -> Result<(), OpenError> {
        let unneeded: BTreeSet<ArtifactHash> = {
            let stored = self.objects.list()?;
            self.database.read(|txn| {
                let mut unneeded = BTreeSet::new();
                for (artifact, _) in stored {
                    if !RegistryTables::is_needed(txn, &artifact)? {
                        unneeded.insert(artifact);
                    }
                }
                Ok(unneeded)
            })?
        };
        for artifact in unneeded {
            self.remove_unneeded(artifact);
        }
        Ok(())
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let (shelf, artifact) = (Arc::clone(&self.shelf), self.artifact);
        let unpin = move || {
            let mut pins = lock(&shelf.pins);
            if let Some(count) = pins.get_mut(&artifact) {
                *count -= 1;
                if *count > 0 {
                    return;
                }
            }
            pins.remove(&artifact);
            drop(pins);
            // If the publish failed, nobody may need what it stored.
            shelf.remove_unneeded(artifact);
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(unpin)),
            Err(_) => unpin(),
        }
    }
}

impl LiveCache {
    fn keep(&mut self, manifest: &Arc<Verified>) {
        if self.manifests.len() >= LIVE_CACHED_MAX {
            // Any will do: what is asked for all the time is soon back.
            let victim = self.manifests.keys().next().copied();
            victim.map(|function| self.manifests.remove(&function));
        }
        self.manifests.insert(manifest.function(), Arc::clone(manifest));
    }

    fn forget(&mut self, function: &FunctionId) {
        self.changes += 1;
        self.manifests.remove(function);
    }
}

fn fresh_log() -> std::io::Result<LogId> {
    let mut log = LogId::default();
    getrandom::fill(&mut log)?;
    Ok(log)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::store::datadir::Role;
    use crate::store::testing::{end, head, manifest, owner, publish, version};

    const PLENTY: OwnerLimits = OwnerLimits {
        functions: 10,
        bytes: 1 << 20,
    };

    fn open(folder: &tempfile::TempDir) -> (DataDir, Storage) {
        let dir = DataDir::open(folder.path(), Role::Super).unwrap();
        let storage = Storage::open(&dir).unwrap();
        (dir, storage)
    }

    async fn put(storage: &Storage, pin: &Pin, bytes: &[u8]) {
        let writer = storage.write(None, bytes.to_vec()).await.unwrap();
        storage.commit(pin, writer).await.unwrap();
    }

    async fn is_here(storage: &Storage, bytes: &[u8]) -> bool {
        storage.artifact(ArtifactHash::of(bytes)).await.is_ok()
    }

    async fn publish_bytes(storage: &Storage, number: u64, bytes: &'static [u8]) -> Arc<Verified> {
        let key = owner(1);
        let manifest = Arc::new(manifest(&key, "f", version(0, number), publish(bytes)));
        let pin = storage.pin(ArtifactHash::of(bytes)).await;
        put(storage, &pin, bytes).await;
        let recorded = storage
            .record(&manifest, head(&key, &manifest), PLENTY, false)
            .await
            .unwrap();
        assert!(matches!(recorded, Recorded::Stored { .. }));
        manifest
    }

    fn copy(from: &Path, to: &Path) {
        for entry in std::fs::read_dir(from).unwrap() {
            let (entry, to) = (
                entry.as_ref().unwrap(),
                to.join(entry.as_ref().unwrap().file_name()),
            );
            if entry.path().is_dir() {
                std::fs::create_dir(&to).unwrap();
                copy(&entry.path(), &to);
            } else {
                std::fs::copy(entry.path(), to).unwrap();
            }
        }
    }

    #[tokio::test]
    async fn what_was_recorded_is_there_after_a_kill_and_half_a_publish_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, storage) = open(&folder);
        let stored = publish_bytes(&storage, 1, b"whole").await;
        let pin = storage.pin(ArtifactHash::of(b"half")).await;
        put(&storage, &pin, b"half").await;
        // What a kill between the artifact and the manifest leaves.
        let left = tempfile::tempdir().unwrap();
        copy(folder.path(), left.path());
        drop((pin, dir, storage));
        let (dir, storage) = open(&left);
        assert!(dir.stopped_uncleanly());
        assert_eq!(storage.live(stored.function()).await.unwrap(), Some(stored));
        assert!(is_here(&storage, b"whole").await);
        assert!(!is_here(&storage, b"half").await);
    }

    #[tokio::test]
    async fn the_newest_manifest_is_read_however_often_it_was_read_before() {
        let folder = tempfile::tempdir().unwrap();
        let (_dir, storage) = open(&folder);
        for number in 1..=3 {
            let stored = publish_bytes(&storage, number, b"bytes").await;
            for _ in 0..2 {
                assert_eq!(
                    storage.live(stored.function()).await.unwrap(),
                    Some(Arc::clone(&stored))
                );
            }
        }
    }

    #[tokio::test]
    async fn a_decommission_purges_the_bytes_unless_they_are_about_to_be_needed() {
        let folder = tempfile::tempdir().unwrap();
        let (_dir, storage) = open(&folder);
        publish_bytes(&storage, 1, b"bytes").await;
        let artifact = ArtifactHash::of(b"bytes");
        let pin = storage.pin(artifact).await;
        let key = owner(1);
        let tombstone = Arc::new(manifest(&key, "f", version(0, 2), end()));
        storage
            .record(&tombstone, head(&key, &tombstone), PLENTY, false)
            .await
            .unwrap();
        assert!(is_here(&storage, b"bytes").await);
        // The publish that pinned it fails: now it goes.
        blocking(move || drop(pin)).await;
        while is_here(&storage, b"bytes").await {
            tokio::task::yield_now().await;
        }
    }
}
