//! The artifacts: written by whoever pins them first, removed when nobody needs them any more.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use orb_protocol::id::{ArtifactHash, FunctionId};

use super::{OpenError, Storage, lock};
use crate::store::blocking;
use crate::store::database::Database;
use crate::store::objects::{CheckedFile, ObjectError, ObjectStore, ObjectWriter};
use crate::store::registry::RegistryTables;

/// Room that artifacts leave on the disk, in bytes: the database has to be able to go on, be it only
/// to store the decommission that makes room.
const RESERVE_BYTES: u64 = 512 << 10;

/// The artifacts, and who is about to need one.
#[derive(Debug)]
pub(super) struct Shelf {
    pub(super) database: Arc<Database>,
    pub(super) objects: ObjectStore,
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

impl Storage {
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

    /// Removes artifacts that nobody needs.
    pub(super) async fn remove(&self, artifacts: Vec<ArtifactHash>) {
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
    /// What is in a folder, without what nobody needs. Blocks.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(super) fn open(database: Arc<Database>, folder: &Path) -> Result<Arc<Self>, OpenError> {
        let shelf = Self {
            database,
            objects: ObjectStore::open(folder)?,
            pins: Mutex::default(),
        };
        shelf.sweep()?;
        Ok(Arc::new(shelf))
    }

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
