//! Bytes that nobody can change any more.
//!
//! What was checked and is then mapped must be the very same bytes: a file on disk could be changed
//! in between, or while it is mapped. So checked bytes live in anonymous memory that is sealed
//! (`memfd_create(2)`, `F_SEAL_WRITE` and its kin) before anything is said of them. Such memory can
//! be handed to another process as a descriptor.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};

/// Bytes that are read at once while they are hashed or copied: they stay in the processor's cache.
const PIECE_BYTES: usize = 64 << 10;

/// Sealed bytes in anonymous memory.
#[derive(Debug)]
pub struct SealedFile {
    file: File,
    len: u64,
}

/// What makes bytes unchangeable, the seals themselves included.
fn seals() -> SealFlags {
    SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL
}

impl SealedFile {
    /// Seals a copy of `bytes`.
    ///
    /// # Errors
    /// The system has no memory or no descriptor for it.
    pub fn copy_of(bytes: &[u8]) -> io::Result<Self> {
        let mut file = unsealed()?;
        file.write_all(bytes)?;
        Self::seal(file)
    }

    /// Seals a copy of what `file` holds from its current position on.
    ///
    /// # Errors
    /// The file can't be read, or the system has no memory for it.
    pub fn copy_of_rest(file: &mut File) -> io::Result<Self> {
        let mut copy = unsealed()?;
        io::copy(file, &mut copy)?;
        Self::seal(copy)
    }

    /// Seals memory that was made with [`unsealed`], whoever has written into it since.
    ///
    /// # Errors
    /// It is still mapped for writing somewhere.
    pub fn seal(file: File) -> io::Result<Self> {
        fcntl_add_seals(&file, seals())?;
        let len = file.metadata()?.len();
        Ok(Self { file, len })
    }

    /// Takes sealed memory from another process.
    ///
    /// # Errors
    /// It is not sealed.
    pub fn receive(descriptor: OwnedFd) -> io::Result<Self> {
        if !fcntl_get_seals(&descriptor)?.contains(seals()) {
            return Err(io::Error::other("the memory that was handed over is not sealed"));
        }
        let mut file = File::from(descriptor);
        let len = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, len })
    }

    /// The same memory under another descriptor.
    ///
    /// # Errors
    /// The system has no descriptor for it.
    pub fn try_clone(&self) -> io::Result<Self> {
        let file = self.file.try_clone()?;
        Ok(Self { file, len: self.len })
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of it, as a copy.
    ///
    /// # Errors
    /// The system has no memory for it.
    pub fn to_vec(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.len).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// The descriptor: to be mapped, or handed to another process.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The descriptor, for good.
    pub(crate) fn into_file(self) -> File {
        self.file
    }

    /// Passes the bytes on piece by piece.
    pub(crate) fn for_each_piece(&self, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut piece = vec![0; PIECE_BYTES.min(usize::try_from(self.len).unwrap_or(PIECE_BYTES))];
        let mut at = 0;
        while at < self.len {
            let len = self.file.read_at(&mut piece, at)?;
            if len == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            take(&piece[..len])?;
            at += len as u64;
        }
        Ok(())
    }
}

/// Anonymous memory that can be sealed. It is closed when another program is executed.
///
/// # Errors
/// The system has no descriptor for it.
pub fn unsealed() -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    Ok(File::from(memfd_create(c"orb-code", flags)?))
}

/// Fixes the length of memory that was made with [`unsealed`], and lets its bytes be written: memory that
/// is mapped by a process which does not trust the other one.
///
/// # Errors
/// The system does not seal it.
pub fn fixed_len(file: File) -> io::Result<File> {
    fcntl_add_seals(&file, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(file)
}

/// Reads a header of `N` bytes.
pub(crate) fn read_header<const N: usize>(file: &mut File) -> io::Result<[u8; N]> {
    let mut header = [0; N];
    file.read_exact(&mut header)?;
    Ok(header)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;

    #[test]
    fn sealed_bytes_can_be_read_and_nothing_else() {
        let sealed = SealedFile::copy_of(b"code").unwrap();
        assert_eq!(sealed.to_vec().unwrap(), b"code");
        let mut again = sealed.file().try_clone().unwrap();
        assert!(again.write_all(b"evil").is_err());
        assert!(again.set_len(0).is_err());
        assert!(again.set_len(100).is_err());
        assert!(fcntl_add_seals(&again, SealFlags::empty()).is_err());
    }

    #[test]
    fn memory_that_can_still_be_written_is_not_taken_from_others() {
        let mut open = unsealed().unwrap();
        open.write_all(b"code").unwrap();
        assert!(SealedFile::receive(open.try_clone().unwrap().into()).is_err());
        SealedFile::seal(open.try_clone().unwrap()).unwrap();
        let received = SealedFile::receive(open.into()).unwrap();
        assert_eq!(
            (received.len(), received.to_vec().unwrap()),
            (4, b"code".to_vec())
        );
    }
}
