//! Compiled code on disk, which nobody but this node can have written.
//!
//! Compiled code is machine code: loading a forged file would be running it. So every file carries
//! a keyed BLAKE3 over what it is for and what it holds, under a random key that never leaves this
//! folder. A file is copied into sealed memory and checked there, so that the very bytes that were
//! checked are what is loaded. What does not check is deleted, counted and compiled again.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::sealed::{SealedFile, read_header};

/// First bytes of a file: format and version.
const MAGIC: &[u8; 16] = b"orb compiled v1\n";
const MAC_BYTES: usize = 32;
const HEADER_BYTES: usize = MAGIC.len() + MAC_BYTES;
const KEY_FILE: &str = "key";
const EXTENSION: &str = "cwasm";

/// A folder of compiled modules.
#[derive(Debug)]
pub(crate) struct DiskCache {
    folder: PathBuf,
    key: [u8; 32],
    fingerprint: [u8; 32],
    bytes_max: u64,
    /// Held while files are counted and removed.
    trimming: Mutex<()>,
    rejected: AtomicU64,
}

impl DiskCache {
    /// Opens the cache, making the folder and its key if they are missing.
    ///
    /// # Errors
    ///
    /// When the folder can't be made, or is not writable.
    pub(crate) fn open(folder: &Path, fingerprint: [u8; 32], bytes_max: u64) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
            key: open_key(folder)?,
            fingerprint,
            bytes_max,
            trimming: Mutex::new(()),
            rejected: AtomicU64::new(0),
        })
    }

    /// Files that were there but did not check.
    pub(crate) fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// Loads a module's code, if it is there: a sealed copy that was checked as such, so that what
    /// becomes of the file does not matter any more.
    pub(crate) fn load(&self, artifact: &[u8; 32]) -> Option<SealedFile> {
        let path = self.path(artifact);
        let mut file = File::open(&path).ok()?;
        match self.read(artifact, &mut file) {
            Ok(Some(code)) => {
                touch(&file);
                Some(code)
            }
            Ok(None) => {
                tracing::warn!(path = %path.display(), "a compiled module does not verify: deleted, to be compiled again");
                self.reject(artifact);
                None
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a compiled module can't be read: to be compiled again");
                None
            }
        }
    }

    /// Keeps a module's code. A cache that can't be written is slow, not broken: that is logged only.
    pub(crate) fn store(&self, artifact: &[u8; 32], code: &SealedFile) {
        let kept = self.write(artifact, code).and_then(|()| self.trim());
        if let Err(error) = kept {
            tracing::warn!(folder = %self.folder.display(), %error, "can't keep a compiled module on disk");
        }
    }

    /// Removes a module that is not what it should be, and counts it.
    pub(crate) fn reject(&self, artifact: &[u8; 32]) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        self.forget(artifact);
    }

    /// Removes a module.
    pub(crate) fn forget(&self, artifact: &[u8; 32]) {
        let _ = fs::remove_file(self.path(artifact));
    }

    /// Not synced: what a power cut leaves of it does not verify, and is compiled again. Whoever waits for a function
    /// to be ready does not wait for the disk here.
    fn write(&self, artifact: &[u8; 32], code: &SealedFile) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(MAGIC)?;
        file.write_all(self.mac(artifact, code)?.as_bytes())?;
        code.for_each_piece(|piece| file.write_all(piece))?;
        file.persist(self.path(artifact)).map_err(|error| error.error)?;
        Ok(())
    }

    /// The code in a file; none if it is not what this node wrote there.
    fn read(&self, artifact: &[u8; 32], file: &mut File) -> io::Result<Option<SealedFile>> {
        let header = match read_header::<HEADER_BYTES>(file) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            header => header?,
        };
        let (magic, mac) = header.split_at(MAGIC.len());
        let Ok(mac) = <[u8; MAC_BYTES]>::try_from(mac) else {
            return Ok(None);
        };
        let code = SealedFile::copy_of_rest(file)?;
        // `blake3::Hash` compares in constant time.
        let verifies = magic == MAGIC && self.mac(artifact, &code)? == mac;
        Ok(verifies.then_some(code))
    }

    fn mac(&self, artifact: &[u8; 32], code: &SealedFile) -> io::Result<blake3::Hash> {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(MAGIC).update(artifact).update(&self.fingerprint);
        code.for_each_piece(|piece| {
            hasher.update(piece);
            Ok(())
        })?;
        Ok(hasher.finalize())
    }

    /// `ARTIFACT-ENGINE.cwasm`, so that a new engine configuration never meets old code.
    fn path(&self, artifact: &[u8; 32]) -> PathBuf {
        let artifact = blake3::Hash::from_bytes(*artifact).to_hex();
        let engine = blake3::Hash::from_bytes(self.fingerprint).to_hex();
        self.folder
            .join(format!("{artifact}-{}.{EXTENSION}", &engine[..16]))
    }

    /// Removes the files that were used longest ago until the rest is within the bound.
    fn trim(&self) -> io::Result<()> {
        let _alone = self.trimming.lock().unwrap_or_else(PoisonError::into_inner);
        let mut files = self.files()?;
        let mut total: u64 = files.iter().map(|file| file.bytes).sum();
        files.sort_unstable_by_key(|file| file.used);
        for file in files {
            if total <= self.bytes_max {
                break;
            }
            fs::remove_file(&file.path)?;
            total -= file.bytes;
        }
        Ok(())
    }

    fn files(&self) -> io::Result<Vec<CacheFile>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != EXTENSION) {
                continue;
            }
            if let Ok(metadata) = fs::metadata(&path) {
                let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                files.push(CacheFile {
                    path,
                    bytes: metadata.len(),
                    used,
                });
            }
        }
        Ok(files)
    }
}

#[derive(Debug)]
struct CacheFile {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

/// Reads the folder's key, or makes one: what an older key wrote is then rejected file by file.
fn open_key(folder: &Path) -> io::Result<[u8; 32]> {
    let path = folder.join(KEY_FILE);
    if let Some(key) = read_key(&path) {
        return Ok(key);
    }
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(io::Error::other)?;
    // A named temporary file has mode 0600 from the start.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(&key)?;
    file.as_file().sync_all()?;
    file.persist(&path).map_err(|error| error.error)?;
    sync_folder(folder)?;
    Ok(key)
}

/// The key, if it is whole and nobody else could have read or written it.
fn read_key(path: &Path) -> Option<[u8; 32]> {
    let metadata = fs::metadata(path).ok()?;
    if metadata.permissions().mode() & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "others could read the key of the compile cache: making a new one");
        return None;
    }
    fs::read(path).ok()?.try_into().ok()
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Notes that a file was used. If that fails it merely counts as older than it is.
fn touch(file: &File) {
    let _ = file.set_modified(SystemTime::now());
}
