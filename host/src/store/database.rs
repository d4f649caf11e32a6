//! The embedded database of a daemon: redb, opened with care.
//!
//! redb checks the sums of its pages only when it is told to. So everything is checked and, after an
//! unclean stop, repaired before it serves; what is read after that is compared with what it was
//! ([`super::backend`]); and every record carries a check of its own ([`seal`]).
//!
//! An error of the disk makes redb refuse everything until the file is opened again; that is done
//! here, so that a disk that was full for a while costs nothing but the writes of that while.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use redb::{ReadTransaction, ReadableDatabase, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

use orb_protocol::wire::codec;

use super::backend::CheckedBackend;
use super::files;

/// Memory for pages, in bytes: the inner nodes of a tree over a million functions fit in several times.
const CACHE_BYTES: usize = 64 << 20;
/// Room that has to be left on the disk for a write to begin: a commit needs some ten pages of 4 KiB,
/// and redb grows its file ahead of need.
const RESERVE_BYTES: u64 = 256 << 10;
/// Bytes of a record's check. It guards against decay, not against malice, so half a hash will do.
const CHECK_LEN: usize = 16;

/// Why something cannot be read from the database or written to it.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum StoreError {
    /// No room.
    #[error("the disk of {} is full", .0.display())]
    Full(PathBuf),
    /// One record does not pass its check.
    #[error("the stored record of {0} is damaged: what it says cannot be trusted")]
    Damaged(String),
    /// The file is damaged.
    #[error(
        "the database {} is damaged ({reason}): restore it from a backup, or move it away to begin anew with nothing in it", path.display()
    )]
    Corrupted {
        /// The file.
        path: PathBuf,
        /// What redb said.
        reason: String,
    },
    /// The disk, or its permissions.
    #[error("the database {} failed: {reason}", path.display())]
    Failed {
        /// The file.
        path: PathBuf,
        /// What redb said.
        reason: String,
    },
    /// As many writes wait as may.
    #[error("as many writes as may are waiting for the disk")]
    Busy,
    /// The daemon is ending.
    #[error("the store is closed")]
    Closed,
}

/// What redb says, by any of its names.
#[derive(Debug)]
pub(crate) enum TxnError {
    /// redb's own trouble.
    Redb(redb::Error),
    /// A record's.
    Store(StoreError),
}

macro_rules! from_redb {
    ($($error:ty),+) => {
        $(impl From<$error> for TxnError {
            fn from(error: $error) -> Self {
                Self::Redb(error.into())
            }
        })+
    };
}

from_redb!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::DatabaseError
);

impl From<StoreError> for TxnError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// An open database. Everything here blocks.
#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    cache_bytes: usize,
    /// `None` after an error of the disk, until it could be opened again.
    open: RwLock<Option<redb::Database>>,
}

impl Database {
    /// Opens the file, made if it is not there; reads all of it, and repairs what an unclean stop left
    /// behind.
    ///
    /// # Errors
    /// [`StoreError`]; a damaged file is left as it was.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        Self::with_cache(path, CACHE_BYTES)
    }

    /// The same with so many bytes of memory for pages.
    pub(super) fn with_cache(path: &Path, cache_bytes: usize) -> Result<Self, StoreError> {
        let database = open(path, cache_bytes)?;
        Ok(Self {
            path: path.to_owned(),
            cache_bytes,
            open: RwLock::new(Some(database)),
        })
    }

    /// Reads one state of all tables.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn read<T>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, TxnError>,
    ) -> Result<T, StoreError> {
        self.with(|database| read(&database.begin_read()?))
    }

    /// Changes tables: all of it, durably, or nothing.
    ///
    /// # Errors
    /// [`StoreError`]. Nothing was changed then, unless it was the last sync that failed: whether that
    /// wrote anything is known when the file was opened again.
    pub(crate) fn write<T>(
        &self,
        write: impl FnOnce(&WriteTransaction) -> Result<T, TxnError>,
    ) -> Result<T, StoreError> {
        // Better to refuse now than to find out in the middle of a commit.
        let folder = self.path.parent().unwrap_or(&self.path);
        if files::free_bytes(folder).is_ok_and(|free| free < RESERVE_BYTES) {
            return Err(StoreError::Full(folder.to_owned()));
        }
        self.with(|database| {
            let transaction = database.begin_write()?;
            let written = write(&transaction)?;
            transaction.commit()?;
            Ok(written)
        })
    }

    /// Closes the file in order. It is closed too when this is dropped, but then nobody hears of errors.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn close(self) -> Result<(), StoreError> {
        let open = self.open.into_inner().unwrap_or_else(PoisonError::into_inner);
        match open {
            Some(database) => database
                .close()
                .map_err(|error| store_error(&self.path, error.into())),
            None => Ok(()),
        }
    }

    fn with<T>(&self, work: impl FnOnce(&redb::Database) -> Result<T, TxnError>) -> Result<T, StoreError> {
        self.reopen()?;
        let guard = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let database = guard.as_ref().ok_or(StoreError::Closed)?;
        // redb may panic on a file that was altered under it: that is the file's fault, and this
        // request's end, not the daemon's.
        let done = catch_unwind(AssertUnwindSafe(|| work(database)));
        drop(guard);
        match done {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(TxnError::Store(error))) => Err(error),
            Ok(Err(TxnError::Redb(error))) => {
                let error = store_error(&self.path, error);
                self.give_up(&error);
                Err(error)
            }
            Err(panic) => {
                let error = StoreError::Corrupted {
                    path: self.path.clone(),
                    reason: panic_message(panic.as_ref()),
                };
                self.give_up(&error);
                Err(error)
            }
        }
    }

    /// After this the file is opened, checked and repaired before it is used again.
    fn give_up(&self, error: &StoreError) {
        tracing::error!(%error, "the database is opened anew");
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn reopen(&self) -> Result<(), StoreError> {
        if self.open.read().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Ok(());
        }
        let mut open_now = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if open_now.is_none() {
            *open_now = Some(open(&self.path, self.cache_bytes)?);
        }
        Ok(())
    }
}

/// Opens the file. A new one is made under another name first, so that a first start that is cut off
/// leaves none, rather than half of one.
fn open(path: &Path, cache_bytes: usize) -> Result<redb::Database, StoreError> {
    if !path.exists() {
        let new = path.with_extension("redb.new");
        let failed = |error| store_error(path, redb::Error::Io(error));
        files::remove(&new).map_err(failed)?;
        let made = open_file(&new, path, cache_bytes)?.close();
        made.map_err(|error| store_error(path, error.into()))?;
        files::open_or_create(&new)
            .and_then(|file| files::settle(&file, &new, path))
            .map_err(failed)?;
    }
    open_file(path, path, cache_bytes)
}

fn open_file(path: &Path, shown: &Path, cache_bytes: usize) -> Result<redb::Database, StoreError> {
    let file = files::open_or_create(path).map_err(|error| store_error(shown, redb::Error::Io(error)))?;
    let opened = catch_unwind(AssertUnwindSafe(|| {
        redb::Builder::new()
            .set_cache_size(cache_bytes)
            .set_check_integrity_on_open(true)
            .create_with_backend(CheckedBackend::new(file)?)
    }));
    match opened {
        Ok(opened) => opened.map_err(|error| store_error(shown, error.into())),
        Err(panic) => Err(StoreError::Corrupted {
            path: shown.to_owned(),
            reason: panic_message(panic.as_ref()),
        }),
    }
}

fn store_error(path: &Path, error: redb::Error) -> StoreError {
    let path = path.to_owned();
    match error {
        redb::Error::Io(error) if files::is_full(&error) => StoreError::Full(path),
        redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => StoreError::Corrupted {
            path,
            reason: error.to_string(),
        },
        redb::Error::Corrupted(reason) => StoreError::Corrupted { path, reason },
        other => StoreError::Failed {
            path,
            reason: other.to_string(),
        },
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "it does not have the form that it should have".to_owned())
}

/// A record as it is stored: the encoded value and its check, which covers the place as well, so
/// that a record is sound only where it belongs.
pub(crate) fn seal<T: Serialize>(table: &str, key: &[u8], value: &T) -> Vec<u8> {
    let mut bytes = codec::encode(value);
    let check = check(table, key, &bytes);
    bytes.extend_from_slice(&check);
    bytes
}

/// The value of a stored record.
///
/// # Errors
/// [`StoreError::Damaged`] for everything that [`seal`] did not make for this place.
pub(crate) fn unseal<T: DeserializeOwned>(table: &str, key: &[u8], record: &[u8]) -> Result<T, StoreError> {
    let sound = record
        .split_last_chunk::<CHECK_LEN>()
        .filter(|(value, sum)| check(table, key, value) == **sum)
        .and_then(|(value, _)| codec::decode(value).ok());
    sound.ok_or_else(|| {
        let key = key.iter().take(8).map(|byte| format!("{byte:02x}"));
        StoreError::Damaged(format!("{table}/{}…", key.collect::<String>()))
    })
}

fn check(table: &str, key: &[u8], value: &[u8]) -> [u8; CHECK_LEN] {
    let mut hasher = blake3::Hasher::new_derive_key("orb 2026-11 stored record");
    for part in [table.as_bytes(), key] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.update(value);
    let mut sum = [0; CHECK_LEN];
    hasher.finalize_xof().fill(&mut sum);
    sum
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use std::fs;

    use redb::TableDefinition;

    use super::*;

    const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("test");

    fn put(database: &Database, value: &[u8]) -> Result<(), StoreError> {
        database.write(|txn| {
            txn.open_table(TABLE)?.insert(b"key".as_slice(), value)?;
            Ok(())
        })
    }

    fn get(database: &Database) -> Vec<u8> {
        let read = |txn: &ReadTransaction| {
            let table = txn.open_table(TABLE)?;
            Ok(table.get(b"key".as_slice())?.unwrap().value().to_vec())
        };
        database.read(read).unwrap()
    }

    #[test]
    fn what_is_written_is_there_after_a_restart() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("orb.redb");
        let database = Database::open(&path).unwrap();
        put(&database, b"value").unwrap();
        database.close().unwrap();
        assert_eq!(get(&Database::open(&path).unwrap()), b"value");
    }

    #[test]
    fn a_failed_write_changes_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        let database = Database::open(&scratch.path().join("orb.redb")).unwrap();
        put(&database, b"value").unwrap();
        let failed: Result<(), _> = database.write(|txn| {
            txn.open_table(TABLE)?
                .insert(b"key".as_slice(), b"other".as_slice())?;
            Err(StoreError::Closed.into())
        });
        failed.unwrap_err();
        assert_eq!(get(&database), b"value");
    }

    #[test]
    fn it_goes_on_after_a_panic_and_after_an_error_of_the_disk() {
        let scratch = tempfile::tempdir().unwrap();
        let database = Database::open(&scratch.path().join("orb.redb")).unwrap();
        put(&database, b"value").unwrap();
        let panicked: Result<(), _> = database.read(|_| panic!("as redb may"));
        assert!(panicked.unwrap_err().to_string().contains("as redb may"));
        let failed: Result<(), _> = database.write(|_| Err(redb::StorageError::PreviousIo.into()));
        failed.unwrap_err();
        assert_eq!(get(&database), b"value");
        put(&database, b"newer").unwrap();
        assert_eq!(get(&database), b"newer");
    }

    #[test]
    fn other_files_are_refused_and_left_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("orb.redb");
        fs::write(&path, [7; 8192]).unwrap();
        let error = Database::open(&path).unwrap_err().to_string();
        assert!(error.contains("orb.redb"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), [7; 8192]);
    }

    #[test]
    fn a_record_holds_only_whole_and_in_its_place() {
        let record = seal("table", b"key", &7u64);
        assert_eq!(unseal::<u64>("table", b"key", &record).unwrap(), 7);
        for (table, key) in [("table", b"yek".as_slice()), ("other", b"key"), ("tablek", b"ey")] {
            assert!(unseal::<u64>(table, key, &record).is_err());
        }
        for at in 0..record.len() {
            let mut flipped = record.clone();
            flipped[at] ^= 1;
            assert!(unseal::<u64>("table", b"key", &flipped).is_err());
            assert!(unseal::<u64>("table", b"key", &record[..at]).is_err());
        }
    }
}
