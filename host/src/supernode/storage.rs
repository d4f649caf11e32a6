//! What a super node keeps, for its tasks: the registry, the artifacts, and what happened, without
//! blocking them.

mod events;
mod history;
mod shelf;
mod webhooks;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use orb_protocol::federation::clock::Clock;
use orb_protocol::head::SignedHead;
use orb_protocol::id::{FunctionId, ManifestHash, NodeId, OwnerId};
use orb_protocol::manifest::{Manifest, SignedManifest, Verified};
use orb_protocol::wire::federation::{Cursor, ItemId, LogId, RegistryChange, SignedRecord};
use tokio::sync::watch;

use crate::store::blocking;
use crate::store::changes::{ChangeTables, Page};
use crate::store::committer::Committer;
use crate::store::database::{Database, StoreError, TxnError};
use crate::store::datadir::DataDir;
use crate::store::events::EventTable;
use crate::store::objects::ObjectError;
use crate::store::registry::{OwnerLimits, OwnerUse, Recorded, RegistryTables};

use shelf::Shelf;

pub(crate) use shelf::Pin;

/// Live manifests that are kept in memory: the functions that are called all the time. They cost about
/// 1 KiB each.
const LIVE_CACHED_MAX: usize = 8_192;

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
        let shelf = Shelf::open(Arc::clone(&database), &dir.objects())?;
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

    /// See [`RegistryTables::all_live`]. Blocks.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn all_live(
        &self,
        each: impl FnMut(FunctionId, &Manifest, ManifestHash),
    ) -> Result<(), StoreError> {
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

    /// What an owner uses.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn owner_use(&self, owner: OwnerId) -> Result<OwnerUse, StoreError> {
        let database = Arc::clone(&self.database);
        blocking(move || database.read(|txn| RegistryTables::owner_use(txn, &owner))).await
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
#[path = "storage/tests.rs"]
mod tests;
