//! The manifests of what this host holds, and the tombstones of what it held, in `orb.redb`.
//!
//! Each is kept as the bytes that its owner signed, and verified again when it is read: a record
//! that was damaged on disk is no record.

use std::path::Path;
use std::sync::Arc;

use orb_protocol::id::FunctionId;
use orb_protocol::manifest::{SignedManifest, Verified};
use orb_protocol::wire::codec;
use redb::{ReadTransaction, ReadableTable, TableDefinition};

use crate::store::database::{Database, StoreError, TxnError};
use crate::store::files;

const TABLE: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("held");

/// Why the manifests cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("what this host holds cannot be {doing}: {source}")]
pub(crate) struct ManifestsError {
    doing: &'static str,
    #[source]
    source: StoreError,
}

/// The table. Cheap to clone. Everything here blocks.
#[derive(Debug, Clone)]
pub(crate) struct HeldManifests {
    database: Arc<Database>,
}

impl HeldManifests {
    /// Opens the database, made if it is not there, and checked. A damaged one is set aside: super
    /// nodes tell again what is to be held, and before they have done so nothing is answered.
    ///
    /// # Errors
    /// The disk.
    pub(crate) fn open(path: &Path) -> Result<Self, ManifestsError> {
        let opened = match Database::open(path) {
            Err(StoreError::Corrupted { reason, .. }) => {
                let aside = path.with_extension("redb.damaged");
                tracing::error!(set_aside = %aside.display(), %reason, "the database is damaged: super nodes tell again what this host holds");
                set_aside(path, &aside).and_then(|()| Database::open(path))
            }
            opened => opened,
        };
        let database = opened.and_then(|database| {
            database.write(|txn| txn.open_table(TABLE).map(drop).map_err(Into::into))?;
            Ok(database)
        });
        let database = Arc::new(database.map_err(failed("opened"))?);
        Ok(Self { database })
    }

    /// All that verify. Others are reported and removed: a super node tells again what is to be held.
    ///
    /// # Errors
    /// The disk.
    pub(crate) fn all(&self) -> Result<Vec<Verified>, ManifestsError> {
        let mut broken = Vec::new();
        let mut good = Vec::new();
        for (function, bytes) in self.read()? {
            match decode(&bytes) {
                Some(manifest) if manifest.function() == function => good.push(manifest),
                _ => broken.push(function),
            }
        }
        for function in broken {
            tracing::error!(%function, "a stored manifest does not verify: it is removed");
            self.remove(function)?;
        }
        Ok(good)
    }

    /// Stores a function's manifest durably, in place of an older one.
    ///
    /// # Errors
    /// The disk.
    pub(crate) fn put(&self, manifest: &Verified) -> Result<(), ManifestsError> {
        let bytes = codec::encode(manifest.signed());
        self.change(|table| {
            table.insert(manifest.function().as_bytes(), bytes.as_slice())?;
            Ok(())
        })
    }

    /// Removes a function's manifest durably.
    ///
    /// # Errors
    /// The disk.
    pub(crate) fn remove(&self, function: FunctionId) -> Result<(), ManifestsError> {
        self.change(|table| {
            table.remove(function.as_bytes())?;
            Ok(())
        })
    }

    fn read(&self) -> Result<Vec<(FunctionId, Vec<u8>)>, ManifestsError> {
        let read = |txn: &ReadTransaction| {
            let mut records = Vec::new();
            for record in txn.open_table(TABLE)?.iter()? {
                let (function, bytes) = record?;
                records.push((FunctionId::from_bytes(*function.value()), bytes.value().to_vec()));
            }
            Ok(records)
        };
        self.database.read(read).map_err(failed("read"))
    }

    fn change(
        &self,
        change: impl FnOnce(&mut redb::Table<'_, &'static [u8; 32], &'static [u8]>) -> Result<(), TxnError>,
    ) -> Result<(), ManifestsError> {
        let write = |txn: &redb::WriteTransaction| change(&mut txn.open_table(TABLE)?);
        self.database.write(write).map_err(failed("written"))
    }
}

fn set_aside(path: &Path, aside: &Path) -> Result<(), StoreError> {
    files::rename(path, aside).map_err(|error| StoreError::Failed {
        path: path.to_owned(),
        reason: format!("it is damaged, and cannot be set aside: {error}"),
    })
}

fn failed(doing: &'static str) -> impl FnOnce(StoreError) -> ManifestsError {
    move |source| ManifestsError { doing, source }
}

fn decode(bytes: &[u8]) -> Option<Verified> {
    codec::decode::<SignedManifest>(bytes).ok()?.verify().ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;
    use crate::node::testing;

    #[test]
    fn what_is_put_is_there_after_a_restart() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("orb.redb");
        let owner = testing::owner(1);
        let (first, second) = (
            testing::manifest(&owner, "f", 1, b"x"),
            testing::manifest(&owner, "f", 2, b"y"),
        );
        let other = testing::manifest(&owner, "g", 1, b"x");
        {
            let manifests = HeldManifests::open(&path).unwrap();
            for manifest in [&first, &second, &other] {
                manifests.put(manifest).unwrap();
            }
            manifests.remove(other.function()).unwrap();
            manifests.remove(other.function()).unwrap();
        }
        let manifests = HeldManifests::open(&path).unwrap();
        assert_eq!(manifests.all().unwrap(), [second]);
    }

    #[test]
    fn a_record_that_does_not_verify_is_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let manifests = HeldManifests::open(&scratch.path().join("orb.redb")).unwrap();
        let manifest = testing::manifest(&testing::owner(1), "f", 1, b"x");
        let mut forged = manifest.signed().clone();
        forged.signature[0] ^= 1;
        manifests
            .change(|table| {
                table.insert(manifest.function().as_bytes(), codec::encode(&forged).as_slice())?;
                Ok(())
            })
            .unwrap();
        assert_eq!(manifests.all().unwrap(), []);
        assert_eq!(manifests.read().unwrap(), []);
    }

    #[test]
    fn a_damaged_database_is_set_aside() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("orb.redb");
        let garbage = b"something else, and long enough to be looked at";
        std::fs::write(&path, garbage).unwrap();
        let manifest = testing::manifest(&testing::owner(1), "f", 1, b"x");
        HeldManifests::open(&path).unwrap().put(&manifest).unwrap();
        assert_eq!(HeldManifests::open(&path).unwrap().all().unwrap(), [manifest]);
        let aside = scratch.path().join("orb.redb.damaged");
        assert_eq!(std::fs::read(aside).unwrap(), garbage);
    }
}
