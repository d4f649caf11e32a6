//! The database's file, with a sum of every block that was read or written.
//!
//! redb compares its pages with their sums only when it checks the whole file, which is done at every
//! start. What the disk changes after that would be believed: a record is sealed, but a damaged inner
//! page can hide records, and then a function that is live is "not found". So each block read from
//! the disk is compared with what it was when it was last read or written; the check at the start
//! sees to it that every block in use was read.

use std::fs;
use std::io;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError, StorageBackend};

use super::files::{File, Step, watch};

/// redb's pages are multiples of this, and lie at multiples of it.
const BLOCK_LEN: u64 = 4096;

/// A file that redb works with.
#[derive(Debug)]
pub(crate) struct CheckedBackend {
    file: FileBackend,
    /// The same file, to say which one is changed.
    system: fs::File,
    sums: Mutex<Sums>,
}

/// A sum for each block of the file, in their order: 8 bytes of memory for 4 KiB of file.
#[derive(Debug, Default)]
struct Sums(Vec<Option<Sum>>);

/// Never zero, so that a block without one costs no memory of its own. Half of that many bits would
/// do: this is against decay, not against malice.
type Sum = std::num::NonZeroU64;

impl CheckedBackend {
    /// Takes an open file.
    pub(crate) fn new(file: File) -> Result<Self, DatabaseError> {
        let file = file.into_system();
        let system = file.try_clone().map_err(redb::StorageError::from)?;
        Ok(Self {
            file: FileBackend::new(file)?,
            system,
            sums: Mutex::default(),
        })
    }

    fn sums(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sums {
    /// Compares what was read with what is known of it; what is not known yet is from now on.
    fn check(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        for (index, block) in blocks(offset, bytes) {
            let found = Some(sum(block));
            match self.at(index) {
                known @ None => *known = found,
                known if *known == found => {}
                _ => {
                    let at = index as u64 * BLOCK_LEN;
                    let message = format!("the {BLOCK_LEN} bytes at {at} are not what was written there");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, message));
                }
            }
        }
        Ok(())
    }

    /// Notes what is being written.
    fn note(&mut self, offset: u64, bytes: &[u8]) {
        let touched = offset / BLOCK_LEN..(offset + bytes.len() as u64).div_ceil(BLOCK_LEN);
        for index in touched {
            *self.at(usize::try_from(index).unwrap_or(usize::MAX)) = None;
        }
        for (index, block) in blocks(offset, bytes) {
            *self.at(index) = Some(sum(block));
        }
    }

    /// The file has another length now.
    fn cut(&mut self, len: u64) {
        self.0
            .truncate(usize::try_from(len / BLOCK_LEN).unwrap_or(usize::MAX));
    }

    fn at(&mut self, index: usize) -> &mut Option<Sum> {
        if self.0.len() <= index {
            self.0.resize(index + 1, None);
        }
        &mut self.0[index]
    }
}

/// The whole blocks in a piece of the file, with their numbers. The file's header is written in
/// smaller pieces; redb reads it only at the start, and checks it then.
fn blocks(offset: u64, bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let skipped = offset.next_multiple_of(BLOCK_LEN) - offset;
    let first = usize::try_from(offset.div_ceil(BLOCK_LEN)).unwrap_or(usize::MAX);
    let whole = usize::try_from(skipped)
        .ok()
        .and_then(|skipped| bytes.get(skipped..));
    let whole = whole.unwrap_or_default().chunks_exact(BLOCK_LEN as usize);
    whole
        .enumerate()
        .map(move |(index, block)| (first + index, block))
}

fn sum(block: &[u8]) -> Sum {
    let hash = blake3::hash(block);
    let (first, _) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
    Sum::new(u64::from_le_bytes(*first)).unwrap_or(Sum::MAX)
}

impl StorageBackend for CheckedBackend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        // redb does not read what it is writing at the moment.
        self.file.read(offset, out)?;
        self.sums().check(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.sums().cut(len);
        watch(Step::SetLen(&self.system, len), || self.file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        watch(Step::Sync(&self.system), || self.file.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.sums().note(offset, data);
        watch(Step::Write(&self.system, offset, data), || {
            self.file.write(offset, data)
        })
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::store::files;

    #[test]
    fn a_block_that_changed_on_the_disk_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let backend = CheckedBackend::new(files::open_or_create(&path).unwrap()).unwrap();
        backend.set_len(4 * BLOCK_LEN).unwrap();
        backend.write(BLOCK_LEN, &[7; 2 * BLOCK_LEN as usize]).unwrap();
        let read = |index: u64| backend.read(index * BLOCK_LEN, &mut [0; BLOCK_LEN as usize]);
        for index in 0..4 {
            read(index).unwrap();
        }
        let disk = fs::File::options().write(true).open(&path).unwrap();
        for (index, at) in [(0, 0), (2, 3 * BLOCK_LEN - 1)] {
            disk.write_all_at(&[6], at).unwrap();
            let error = read(index).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
        read(1).unwrap();
        // What is written anew is known again, and what is written in part is learned again.
        backend.write(2 * BLOCK_LEN, &[9; BLOCK_LEN as usize]).unwrap();
        backend.write(1, &[9; 5]).unwrap();
        read(2).unwrap();
        read(0).unwrap();
    }
}
