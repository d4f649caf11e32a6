//! Artifacts as files named by their hash: `objects/xx/HASH`, where `xx` are the hash's first two
//! characters.
//!
//! A file under its final name is whole: bytes go to `objects/tmp/` first, are synced, and are then
//! renamed. Every read checks the hash, so wrong bytes never come out; a file that fails the check
//! is moved to `objects/damaged/`, for the operator to look at.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use orb_protocol::id::ArtifactHash;

use super::files;

/// Damaged files that are kept; older ones go. Enough to see a pattern, and no more disk than that.
const DAMAGED_MAX: usize = 8;
/// Bytes of the pieces in which a [`CheckedFile`] is read.
pub(crate) const PIECE_LEN: usize = 64 << 10;

/// Why an artifact cannot be stored or had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ObjectError {
    /// It is not here.
    #[error("the artifact {} is not stored here", .0.short())]
    Missing(ArtifactHash),
    /// What is here is something else. It was set aside.
    #[error("the stored artifact {} is damaged: its bytes do not have its hash any more; it was set aside", .0.short())]
    Damaged(ArtifactHash),
    /// What was written is not what was announced.
    #[error("the bytes have the hash {}, and {} was announced", found.short(), wanted.short())]
    Mismatch {
        /// What was announced.
        wanted: ArtifactHash,
        /// What came.
        found: ArtifactHash,
    },
    /// No room.
    #[error("the disk of {} is full", .0.display())]
    Full(PathBuf),
    /// The disk or its permissions.
    #[error("{} cannot be {doing}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// The artifacts of a daemon. Cheap to clone. Everything here blocks.
#[derive(Debug, Clone)]
pub(crate) struct ObjectStore {
    root: Arc<Path>,
    /// Tells temporary files of this process apart.
    next: Arc<AtomicU64>,
    /// Whether every shelf that is there lasts. Held while one is made, so that nobody takes it for
    /// durable when it is not yet.
    lasting: Arc<Mutex<bool>>,
}

impl ObjectStore {
    /// Opens the folder, made if it is not there, and clears away what an earlier process left half
    /// written. One process at a time: the data folder's lock sees to it.
    ///
    /// # Errors
    /// [`ObjectError::Io`] or [`ObjectError::Full`].
    pub(crate) fn open(root: &Path) -> Result<Self, ObjectError> {
        let temporary = root.join("tmp");
        files::clear(&temporary).map_err(failed(&temporary, "cleared"))?;
        for folder in [&temporary, &root.join("damaged")] {
            files::make_dir(folder).map_err(failed(folder, "made"))?;
        }
        // From now on every shelf that is there lasts.
        files::sync_dir(root).map_err(failed(root, "written"))?;
        Ok(Self {
            root: root.into(),
            next: Arc::new(AtomicU64::new(0)),
            lasting: Arc::new(Mutex::new(true)),
        })
    }

    /// Stores bytes durably under their hash. Bytes that are there already are written again, which
    /// mends a damaged file.
    ///
    /// # Errors
    /// [`ObjectError::Full`] or [`ObjectError::Io`]; nothing is left behind then.
    #[cfg(test)]
    pub(crate) fn put(&self, bytes: &[u8]) -> Result<ArtifactHash, ObjectError> {
        let mut writer = self.writer()?;
        writer.write(bytes)?;
        let hash = writer.hash();
        writer.commit(hash)?;
        Ok(hash)
    }

    /// Begins to store an artifact that comes in pieces.
    ///
    /// # Errors
    /// [`ObjectError::Full`] or [`ObjectError::Io`].
    pub(crate) fn writer(&self) -> Result<ObjectWriter, ObjectError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join("tmp").join(number.to_string());
        let file = files::create(&path).map_err(failed(&path, "made"))?;
        Ok(ObjectWriter {
            store: self.clone(),
            path,
            file,
            hasher: blake3::Hasher::new(),
            written: 0,
        })
    }

    /// The bytes, checked against the hash.
    ///
    /// # Errors
    /// [`ObjectError::Missing`]; [`ObjectError::Damaged`], and then the file was set aside and the
    /// artifact is missing from now on; [`ObjectError::Io`].
    pub(crate) fn get(&self, hash: &ArtifactHash) -> Result<Vec<u8>, ObjectError> {
        let path = self.path(hash);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ObjectError::Missing(*hash));
            }
            Err(error) => return Err(failed(&path, "read")(error)),
        };
        if ArtifactHash::of(&bytes) == *hash {
            return Ok(bytes);
        }
        self.set_aside(hash);
        Err(ObjectError::Damaged(*hash))
    }

    /// The artifact for reading in pieces, each of which is checked: for what is too long to be held in
    /// memory for as long as somebody takes over reading it.
    ///
    /// # Errors
    /// As [`ObjectStore::get`].
    pub(crate) fn open_checked(&self, hash: &ArtifactHash) -> Result<CheckedFile, ObjectError> {
        let path = self.path(hash);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ObjectError::Missing(*hash));
            }
            Err(error) => return Err(failed(&path, "read")(error)),
        };
        let (mut whole, mut sums, mut len) = (blake3::Hasher::new(), Vec::new(), 0);
        loop {
            let mut piece = Vec::new();
            Read::by_ref(&mut file)
                .take(PIECE_LEN as u64)
                .read_to_end(&mut piece)
                .map_err(failed(&path, "read"))?;
            if piece.is_empty() {
                break;
            }
            whole.update(&piece);
            sums.push(blake3::hash(&piece));
            len += piece.len() as u64;
        }
        if whole.finalize() != blake3::Hash::from_bytes(*hash.as_bytes()) {
            self.set_aside(hash);
            return Err(ObjectError::Damaged(*hash));
        }
        Ok(CheckedFile {
            store: self.clone(),
            hash: *hash,
            file,
            sums,
            len,
        })
    }

    /// Whether there is a file for this hash. Only [`ObjectStore::get`] tells whether it is sound.
    pub(crate) fn contains(&self, hash: &ArtifactHash) -> bool {
        self.path(hash).is_file()
    }

    /// Removes an artifact; no error if there is none.
    ///
    /// # Errors
    /// [`ObjectError::Io`].
    pub(crate) fn remove(&self, hash: &ArtifactHash) -> Result<(), ObjectError> {
        let path = self.path(hash);
        files::remove(&path).map_err(failed(&path, "removed"))
    }

    /// Every artifact with the length of its file in bytes, in no order. Unchecked.
    ///
    /// # Errors
    /// [`ObjectError::Io`].
    pub(crate) fn list(&self) -> Result<Vec<(ArtifactHash, u64)>, ObjectError> {
        let mut found = Vec::new();
        for folder in entries(&self.root)? {
            let is_shelf = folder.file_name().len() == 2;
            if !is_shelf {
                continue;
            }
            for entry in entries(&folder.path())? {
                let hash = entry.file_name().to_str().and_then(|name| name.parse().ok());
                if let (Some(hash), Ok(metadata)) = (hash, entry.metadata()) {
                    found.push((hash, metadata.len()));
                }
            }
        }
        Ok(found)
    }

    /// Bytes that may still be written to the disk beneath.
    ///
    /// # Errors
    /// [`ObjectError::Io`].
    pub(crate) fn free_bytes(&self) -> Result<u64, ObjectError> {
        files::free_bytes(&self.root).map_err(failed(&self.root, "measured"))
    }

    /// The error that says that there is no room here.
    pub(crate) fn full(&self) -> ObjectError {
        ObjectError::Full(self.root.to_path_buf())
    }

    /// Where an artifact is, or would be. For readers that check the hash themselves.
    pub(crate) fn path(&self, hash: &ArtifactHash) -> PathBuf {
        let name = hash.to_string();
        self.root.join(&name[..2]).join(name)
    }

    fn make_shelf(&self, shelf: &Path) -> Result<(), ObjectError> {
        let mut lasting = self.lasting.lock().unwrap_or_else(PoisonError::into_inner);
        if *lasting && shelf.is_dir() {
            return Ok(());
        }
        *lasting = false;
        files::make_dir(shelf)
            .and_then(|()| files::sync_dir(&self.root))
            .map_err(failed(shelf, "made"))?;
        *lasting = true;
        Ok(())
    }

    fn set_aside(&self, hash: &ArtifactHash) {
        let damaged = self.root.join("damaged");
        let moved = files::rename(&self.path(hash), &damaged.join(hash.to_string()));
        tracing::error!(artifact = %hash, set_aside = moved.is_ok(), "a stored artifact is damaged");
        // Whatever happens to the file: it fails the same check the next time.
        let _ = moved.map(|()| keep_newest(&damaged, DAMAGED_MAX));
    }
}

/// An artifact whose bytes were checked as a whole, and are checked again when they are read. Holds 32
/// bytes of memory for each [`PIECE_LEN`] of the artifact.
#[derive(Debug)]
pub(crate) struct CheckedFile {
    store: ObjectStore,
    hash: ArtifactHash,
    file: File,
    sums: Vec<blake3::Hash>,
    len: u64,
}

impl CheckedFile {
    /// The artifact's length in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes from `offset` to the end of the piece that it is in; none at the artifact's end.
    ///
    /// # Errors
    /// [`ObjectError::Damaged`] if they are not what they were, and [`ObjectError::Io`].
    pub(crate) fn read(&self, offset: u64) -> Result<Vec<u8>, ObjectError> {
        let index = offset / PIECE_LEN as u64;
        let Some(sum) = usize::try_from(index).ok().and_then(|index| self.sums.get(index)) else {
            return Ok(Vec::new());
        };
        let start = index * PIECE_LEN as u64;
        let len = (self.len - start).min(PIECE_LEN as u64);
        let mut piece = vec![0; usize::try_from(len).unwrap_or(PIECE_LEN)];
        let path = self.store.path(&self.hash);
        match self.file.read_exact_at(&mut piece, start) {
            // It was cut short.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => piece.clear(),
            read => read.map_err(failed(&path, "read"))?,
        }
        if blake3::hash(&piece) != *sum {
            self.store.set_aside(&self.hash);
            return Err(ObjectError::Damaged(self.hash));
        }
        Ok(piece.split_off(usize::try_from(offset - start).unwrap_or(PIECE_LEN)))
    }
}

/// An artifact that is being written. Dropped without [`ObjectWriter::commit`] it leaves nothing.
#[derive(Debug)]
pub(crate) struct ObjectWriter {
    store: ObjectStore,
    path: PathBuf,
    file: files::File,
    hasher: blake3::Hasher,
    written: u64,
}

impl ObjectWriter {
    /// Adds bytes.
    ///
    /// # Errors
    /// [`ObjectError::Full`] or [`ObjectError::Io`].
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), ObjectError> {
        self.file.write(bytes).map_err(failed(&self.path, "written"))?;
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// How many bytes were written so far.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// The bytes so far.
    ///
    /// # Errors
    /// [`ObjectError::Io`].
    pub(crate) fn read_back(&self) -> Result<Vec<u8>, ObjectError> {
        fs::read(&self.path).map_err(failed(&self.path, "read"))
    }

    /// The hash of the bytes so far.
    pub(crate) fn hash(&self) -> ArtifactHash {
        ArtifactHash::from_bytes(*self.hasher.finalize().as_bytes())
    }

    /// Makes the artifact durable under its name.
    ///
    /// # Errors
    /// [`ObjectError::Mismatch`] if the bytes are not the ones `wanted`, [`ObjectError::Full`],
    /// [`ObjectError::Io`]; nothing is left behind then.
    pub(crate) fn commit(self, wanted: ArtifactHash) -> Result<(), ObjectError> {
        let found = self.hash();
        if found != wanted {
            return Err(ObjectError::Mismatch { wanted, found });
        }
        let path = self.store.path(&found);
        self.store.make_shelf(files::parent(&path))?;
        files::settle(&self.file, &self.path, &path).map_err(failed(&path, "written"))
    }
}

impl Drop for ObjectWriter {
    fn drop(&mut self) {
        // After a commit there is nothing under this name any more.
        let _ = files::remove(&self.path);
    }
}

fn entries(folder: &Path) -> Result<Vec<fs::DirEntry>, ObjectError> {
    fs::read_dir(folder)
        .and_then(Iterator::collect)
        .map_err(failed(folder, "read"))
}

fn keep_newest(folder: &Path, most: usize) -> Result<(), ObjectError> {
    let mut kept = entries(folder)?;
    kept.sort_by_key(|entry| entry.metadata().and_then(|m| m.modified()).ok());
    let surplus = kept.len().saturating_sub(most);
    for entry in &kept[..surplus] {
        let _ = files::remove(&entry.path());
    }
    Ok(())
}

fn failed(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> ObjectError {
    let path = path.to_owned();
    move |source| {
        if files::is_full(&source) {
            ObjectError::Full(path)
        } else {
            ObjectError::Io { path, doing, source }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use std::process::Command;

    use super::*;

    fn store() -> (tempfile::TempDir, ObjectStore) {
        let scratch = tempfile::tempdir().unwrap();
        let store = ObjectStore::open(scratch.path()).unwrap();
        (scratch, store)
    }

    fn leftovers(store: &ObjectStore) -> usize {
        entries(&store.root.join("tmp")).unwrap().len()
    }

    #[test]
    fn what_is_put_is_got() {
        let (_scratch, store) = store();
        let hash = store.put(b"bytes").unwrap();
        assert_eq!(hash, ArtifactHash::of(b"bytes"));
        assert!(store.contains(&hash));
        assert_eq!(store.get(&hash).unwrap(), b"bytes");
        assert_eq!(store.list().unwrap(), [(hash, 5)]);
        assert_eq!(leftovers(&store), 0);
        store.remove(&hash).unwrap();
        store.remove(&hash).unwrap();
        assert!(matches!(store.get(&hash), Err(ObjectError::Missing(h)) if h == hash));
    }

    #[test]
    fn pieces_make_a_whole() {
        let (_scratch, store) = store();
        let mut writer = store.writer().unwrap();
        writer.write(b"by").unwrap();
        writer.write(b"tes").unwrap();
        assert_eq!(
            (writer.written(), writer.read_back().unwrap()),
            (5, b"bytes".to_vec())
        );
        writer.commit(ArtifactHash::of(b"bytes")).unwrap();
        assert_eq!(store.get(&ArtifactHash::of(b"bytes")).unwrap(), b"bytes");
    }

    #[test]
    fn other_bytes_than_announced_leave_nothing() {
        let (_scratch, store) = store();
        let wanted = ArtifactHash::of(b"bytes");
        let mut writer = store.writer().unwrap();
        writer.write(b"others").unwrap();
        assert!(matches!(writer.commit(wanted), Err(ObjectError::Mismatch { .. })));
        assert!(!store.contains(&wanted));
        assert_eq!((leftovers(&store), store.list().unwrap().len()), (0, 0));
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_can_be_put_again() {
        let (scratch, store) = store();
        let hash = store.put(b"bytes").unwrap();
        fs::write(store.path(&hash), b"bites").unwrap();
        assert!(matches!(store.get(&hash), Err(ObjectError::Damaged(_))));
        assert!(!store.contains(&hash));
        assert!(scratch.path().join("damaged").join(hash.to_string()).exists());
        store.put(b"bytes").unwrap();
        assert_eq!(store.get(&hash).unwrap(), b"bytes");
    }

    #[test]
    fn a_long_artifact_is_read_in_checked_pieces() {
        let (_scratch, store) = store();
        let long: Vec<u8> = (0..2 * PIECE_LEN + 5).map(|at| (at % 251) as u8).collect();
        let hash = store.put(&long).unwrap();
        let file = store.open_checked(&hash).unwrap();
        assert_eq!(file.len(), long.len() as u64);
        let from = |mut at: usize| {
            let mut read = Vec::new();
            loop {
                let piece = file.read(at as u64).unwrap();
                if piece.is_empty() {
                    break read;
                }
                at += piece.len();
                read.extend(piece);
            }
        };
        for at in [0, 7, PIECE_LEN, 2 * PIECE_LEN + 4, long.len()] {
            assert_eq!(from(at), long[at..]);
        }
        // Altered between the check and the reading: what is sound still comes, the rest never.
        let mut altered = long.clone();
        altered[PIECE_LEN] ^= 1;
        fs::write(store.path(&hash), &altered[..PIECE_LEN + 1]).unwrap();
        assert_eq!(file.read(0).unwrap(), long[..PIECE_LEN]);
        assert!(matches!(
            file.read(PIECE_LEN as u64),
            Err(ObjectError::Damaged(_))
        ));
        assert!(matches!(store.open_checked(&hash), Err(ObjectError::Missing(_))));
        fs::create_dir_all(store.path(&hash).parent().unwrap()).unwrap();
        fs::write(store.path(&hash), &altered).unwrap();
        assert!(matches!(store.open_checked(&hash), Err(ObjectError::Damaged(_))));
    }

    #[test]
    fn a_put_mends_a_damaged_file() {
        let (_scratch, store) = store();
        let hash = store.put(b"bytes").unwrap();
        fs::write(store.path(&hash), b"").unwrap();
        store.put(b"bytes").unwrap();
        assert_eq!(store.get(&hash).unwrap(), b"bytes");
    }

    #[test]
    fn few_damaged_files_are_kept() {
        let (scratch, store) = store();
        for number in 0..2 * DAMAGED_MAX {
            let hash = store.put(&number.to_le_bytes()).unwrap();
            fs::write(store.path(&hash), b"x").unwrap();
            store.get(&hash).unwrap_err();
        }
        assert_eq!(
            entries(&scratch.path().join("damaged")).unwrap().len(),
            DAMAGED_MAX
        );
    }

    #[test]
    fn half_written_files_go_at_the_next_start() {
        let (scratch, store) = store();
        let hash = store.put(b"bytes").unwrap();
        let mut writer = store.writer().unwrap();
        writer.write(b"half").unwrap();
        // As if the process had been killed.
        std::mem::forget(writer);
        assert_eq!(leftovers(&store), 1);
        let store = ObjectStore::open(scratch.path()).unwrap();
        assert_eq!(leftovers(&store), 0);
        assert_eq!(store.list().unwrap(), [(hash, 5)]);
    }

    /// Runs [`on_a_full_disk`] in a mount namespace of its own, where its folder is a small tmpfs.
    #[test]
    fn a_full_disk_is_named_and_nothing_is_left() {
        let scratch = tempfile::tempdir().unwrap();
        let script = "mount -t tmpfs -o size=256k none \"$1\" && SMALL_DISK=\"$1\" exec \"$2\" --exact \"$3\" --ignored";
        let status = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"])
            .arg(scratch.path())
            .arg(std::env::current_exe().unwrap())
            .arg(format!(
                "{}::on_a_full_disk",
                module_path!().split_once("::").unwrap().1
            ))
            .status();
        match status {
            Ok(status) if status.code() == Some(101) => panic!("see the test on_a_full_disk above"),
            Ok(status) if status.success() => {}
            other => eprintln!("skipped: no mount namespace to be had here ({other:?})"),
        }
    }

    #[test]
    #[ignore = "run by a_full_disk_is_named_and_nothing_is_left"]
    fn on_a_full_disk() {
        let disk = PathBuf::from(std::env::var_os("SMALL_DISK").unwrap());
        let store = ObjectStore::open(&disk).unwrap();
        let small = store.put(b"small").unwrap();
        let large = vec![7; 1 << 20];
        assert!(matches!(store.put(&large), Err(ObjectError::Full(_))));
        assert!(!store.contains(&ArtifactHash::of(&large)));
        assert_eq!(leftovers(&store), 0);
        assert_eq!(store.get(&small).unwrap(), b"small");
        store.put(b"there is room again").unwrap();
    }
}
