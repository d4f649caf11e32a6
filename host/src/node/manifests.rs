//! The manifests of what this host holds, and the tombstones of what it held, in `orb.redb`.
//!
//! Each is kept as the bytes that its owner signed, and verified again when it is read: a record
//! that was damaged on disk is no record.

use std::path::Path;
use std::sync::Arc;

use orb_protocol::id::FunctionId;
use orb_protocol::manifest::{SignedManifest, Verified};
use orb_protocol::wire::codec;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

const TABLE: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("held");

/// Why the manifests cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error(
    "the database {path} cannot be {doing}: {source}; a host can be given an empty data folder: what it held is assigned again"
)]
pub(crate) struct ManifestsError {
    path: String,
    doing: &'static str,
    #[source]
    source: Box<redb::Error>,
}

/// The table. Cheap to clone. Everything here blocks.
#[derive(Debug, Clone)]
pub(crate) struct HeldManifests {
    database: Arc<Database>,
    path: Arc<str>,
}

impl HeldManifests {
    /// Opens the database, made if it is not there. `check`: the daemon before this one did not stop
    /// in order, so all of it is read and repaired first.
    ///
    /// # Errors
    /// The disk, or a file that is no database.
    pub(crate) fn open(path: &Path, check: bool) -> Result<Self, ManifestsError> {
        let name = path.display().to_string();
        let opened = (|| -> Result<Database, redb::Error> {
            let mut database = Database::create(path)?;
            if check && !database.check_integrity()? {
                tracing::warn!(path = %name, "the database was repaired after an unclean stop");
            }
            let transaction = database.begin_write()?;
            transaction.open_table(TABLE)?;
            transaction.commit()?;
            Ok(database)
        })();
        let failed = |source| error(&name, "opened", source);
        Ok(Self {
            database: Arc::new(opened.map_err(failed)?),
            path: name.into(),
        })
    }

    /// All that verify. Others are reported and removed: a super node tells again what is to be held.
    ///
    /// # Errors
    /// The disk.
    pub(crate) fn all(&self) -> Result<Vec<Verified>, ManifestsError> {
        let mut broken = Vec::new();
        let mut good = Vec::new();
        for (function, bytes) in self.read().map_err(|source| error(&self.path, "read", source))? {
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

    fn read(&self) -> Result<Vec<(FunctionId, Vec<u8>)>, redb::Error> {
        let table = self.database.begin_read()?.open_table(TABLE)?;
        let mut records = Vec::new();
        for record in table.iter()? {
            let (function, bytes) = record?;
            records.push((FunctionId::from_bytes(*function.value()), bytes.value().to_vec()));
        }
        Ok(records)
    }

    fn change(
        &self,
        change: impl FnOnce(
            &mut redb::Table<'_, &'static [u8; 32], &'static [u8]>,
        ) -> Result<(), redb::StorageError>,
    ) -> Result<(), ManifestsError> {
        let changed = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            change(&mut transaction.open_table(TABLE)?)?;
            Ok(transaction.commit()?)
        };
        changed().map_err(|source| error(&self.path, "written", source))
    }
}

fn decode(bytes: &[u8]) -> Option<Verified> {
    codec::decode::<SignedManifest>(bytes).ok()?.verify().ok()
}

fn error(path: &str, doing: &'static str, source: redb::Error) -> ManifestsError {
    ManifestsError {
        path: path.to_owned(),
        doing,
        source: Box::new(source),
    }
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
            let manifests = HeldManifests::open(&path, false).unwrap();
            for manifest in [&first, &second, &other] {
                manifests.put(manifest).unwrap();
            }
            manifests.remove(other.function()).unwrap();
            manifests.remove(other.function()).unwrap();
        }
        let manifests = HeldManifests::open(&path, true).unwrap();
        assert_eq!(manifests.all().unwrap(), [second]);
    }

    #[test]
    fn a_record_that_does_not_verify_is_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let manifests = HeldManifests::open(&scratch.path().join("orb.redb"), false).unwrap();
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
    fn a_file_that_is_no_database_is_refused_with_its_name() {
        let scratch = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(scratch.path(), b"something else, and long enough to be looked at").unwrap();
        let error = HeldManifests::open(scratch.path(), false)
            .unwrap_err()
            .to_string();
        assert!(error.contains(&scratch.path().display().to_string()), "{error}");
    }
}
