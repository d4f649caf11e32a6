//! What a disk was told, step by step.
//!
//! The store works on a real folder, whose journal takes down every step
//! ([`files::watch`](super::files)). Afterwards [`Journal::cuts`] goes through the steps and gives, for
//! the moment after each of them, the [disk](super::disk) as it then is.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::disk::{Change, Disk, Id, Node};
use super::files::{self, Step};

/// One entry of the journal.
#[derive(Debug)]
enum Entry {
    Change(Vec<(Id, Change)>),
    Sync(Id),
    /// The test said something.
    Mark(u64),
}

/// The journal of a folder. It is kept for as long as it lives.
#[derive(Debug)]
pub(crate) struct Journal {
    root: PathBuf,
    log: Mutex<Log>,
}

#[derive(Debug)]
struct Log {
    entries: Vec<Entry>,
    /// What was there before, and lasts.
    nodes: Vec<Node>,
    /// What is there now.
    names: BTreeMap<PathBuf, Id>,
    /// How many more steps the disk takes, and how it refuses the ones after that.
    refuse: Option<(usize, Refusal)>,
    refused: bool,
}

/// How a disk refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// One step fails, as from a bad cable.
    Once,
    /// There is no room from then on.
    Full,
    /// Nothing can be changed from then on, as when a file system has found itself damaged.
    ReadOnly,
}

/// Something that the store has synced, and the disk did not: so that a test that looks for losses
/// can be shown to find them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forgotten {
    /// Nothing: a disk that keeps its word.
    Nothing,
    /// The bytes of files.
    Files,
    /// The names in folders.
    Folders,
}

static JOURNALS: Mutex<Vec<Weak<Journal>>> = Mutex::new(Vec::new());

impl Journal {
    /// Begins the journal of a folder; what is in it is taken to last.
    pub(crate) fn of(folder: &Path) -> Arc<Self> {
        let root = fs::canonicalize(folder).expect("a test's folder is there");
        let mut log = Log {
            entries: Vec::new(),
            nodes: Vec::new(),
            names: BTreeMap::new(),
            refuse: None,
            refused: false,
        };
        log.take_in(&root);
        let journal = Arc::new(Self {
            root,
            log: Mutex::new(log),
        });
        let mut journals = lock(&JOURNALS);
        journals.retain(|journal| journal.strong_count() > 0);
        journals.push(Arc::downgrade(&journal));
        journal
    }

    /// Notes something between two steps.
    pub(crate) fn mark(&self, mark: u64) {
        lock(&self.log).entries.push(Entry::Mark(mark));
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        lock(&self.log).entries.len()
    }

    /// Lets so many more steps be done, and then refuses.
    pub(crate) fn refuse_after(&self, steps: usize, how: Refusal) {
        lock(&self.log).refuse = Some((steps, how));
    }

    /// Takes everything again. Returns whether anything was ever refused.
    pub(crate) fn relent(&self) -> bool {
        let mut log = lock(&self.log);
        log.refuse = None;
        log.refused
    }

    /// Goes through the moments after each step. What was marked before it, and the disk as it then
    /// is, are given to `each`.
    pub(crate) fn cuts(&self, each: impl FnMut(usize, &[u64], &Disk)) {
        self.cuts_without(Forgotten::Nothing, each);
    }

    /// The same with a disk that does not keep its word.
    pub(crate) fn cuts_without(&self, forgotten: Forgotten, mut each: impl FnMut(usize, &[u64], &Disk)) {
        let log = lock(&self.log);
        let mut disk = Disk::new(log.nodes.clone());
        let mut marks = Vec::new();
        for (number, entry) in log.entries.iter().enumerate() {
            match entry {
                Entry::Mark(mark) => marks.push(*mark),
                Entry::Sync(id) => {
                    let kind = match disk.node(*id) {
                        Node::Folder(_) => Forgotten::Folders,
                        Node::File(_) => Forgotten::Files,
                    };
                    if kind != forgotten {
                        disk.sync(*id);
                    }
                }
                Entry::Change(changes) => {
                    for (id, change) in changes {
                        disk.change(*id, change.clone());
                    }
                }
            }
            disk.last = log.describe(entry);
            each(number, &marks, &disk);
        }
    }

    fn note(&self, step: &Step<'_>) {
        lock(&self.log).note(step);
    }

    fn admit(&self, step: &Step<'_>) -> io::Result<()> {
        let mut log = lock(&self.log);
        let Some((left, how)) = &mut log.refuse else {
            return Ok(());
        };
        if *left > 0 {
            *left -= 1;
            return Ok(());
        }
        // EIO has no kind of its own.
        let error = match how {
            Refusal::Once => io::Error::from_raw_os_error(5),
            Refusal::Full if !grows(step) => return Ok(()),
            Refusal::Full => io::ErrorKind::StorageFull.into(),
            Refusal::ReadOnly => io::ErrorKind::ReadOnlyFilesystem.into(),
        };
        if *how == Refusal::Once {
            log.refuse = None;
        }
        log.refused = true;
        Err(error)
    }
}

/// Whether a step needs room on the disk.
fn grows(step: &Step<'_>) -> bool {
    match step {
        Step::MakeDir(_) | Step::Create(_) | Step::Write(..) => true,
        Step::SetLen(file, len) => file.metadata().is_ok_and(|now| now.len() < *len),
        Step::Rename(..) | Step::Remove(_) | Step::Sync(_) | Step::SyncDir(_) => false,
    }
}

/// Does a step, under the eyes of the journal whose folder it changes.
#[expect(clippy::needless_pass_by_value, reason = "the same form as the real layer's")]
pub(crate) fn watch<T>(step: Step<'_>, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let Some(journal) = journal_of(&step) else {
        return work();
    };
    journal.admit(&step)?;
    let done = work()?;
    journal.note(&step);
    Ok(done)
}

fn journal_of(step: &Step<'_>) -> Option<Arc<Journal>> {
    let journals: Vec<Arc<Journal>> = lock(&JOURNALS).iter().filter_map(Weak::upgrade).collect();
    if journals.is_empty() {
        return None;
    }
    let path = match step {
        Step::MakeDir(path) | Step::Create(path) | Step::Rename(path, _) | Step::Remove(path) => {
            absolute(files::parent(path))
        }
        Step::SyncDir(path) => absolute(path),
        Step::Write(file, ..) | Step::SetLen(file, _) | Step::Sync(file) => path_of(file),
    };
    journals
        .into_iter()
        .find(|journal| path.starts_with(&journal.root))
}

impl Log {
    /// What is there already.
    fn take_in(&mut self, path: &Path) {
        let id = self.nodes.len();
        self.names.insert(path.to_owned(), id);
        if path.is_file() {
            let bytes = fs::read(path).expect("a test's file can be read");
            self.nodes.push(Node::File(Arc::new(bytes)));
            return;
        }
        self.nodes.push(Node::Folder(BTreeMap::new()));
        for entry in fs::read_dir(path).expect("a test's folder can be read") {
            let entry = entry.expect("a test's folder can be read");
            let child = self.nodes.len();
            self.take_in(&entry.path());
            if let Node::Folder(names) = &mut self.nodes[id] {
                names.insert(entry.file_name(), child);
            }
        }
    }

    fn note(&mut self, step: &Step<'_>) {
        let entry = match step {
            Step::MakeDir(path) => self.link(path, Node::Folder(BTreeMap::new())),
            Step::Create(path) => match self.names.get(&absolute(path)) {
                Some(id) => Some(vec![(*id, Change::SetLen(0))]),
                None => self.link(path, Node::File(Arc::default())),
            },
            Step::Rename(from, to) => self.rename(&absolute(from), &absolute(to)),
            Step::Remove(path) => self.unlink(&absolute(path)),
            Step::Write(file, at, bytes) => self.of(file, Change::Write(*at, Arc::from(*bytes))),
            Step::SetLen(file, len) => self.of(file, Change::SetLen(*len)),
            Step::Sync(file) => {
                let synced = self.names.get(&path_of(file)).map(|id| Entry::Sync(*id));
                return self.entries.extend(synced);
            }
            Step::SyncDir(path) => {
                let synced = self.names.get(&absolute(path)).map(|id| Entry::Sync(*id));
                return self.entries.extend(synced);
            }
        };
        self.entries.extend(entry.map(Entry::Change));
    }

    fn link(&mut self, path: &Path, empty: Node) -> Option<Vec<(Id, Change)>> {
        let path = absolute(path);
        let id = self.nodes.len();
        self.nodes.push(empty);
        let (folder, name) = self.place(&path)?;
        self.names.insert(path, id);
        Some(vec![(folder, Change::Link(name, id))])
    }

    fn unlink(&mut self, path: &Path) -> Option<Vec<(Id, Change)>> {
        self.names.remove(path)?;
        let (folder, name) = self.place(path)?;
        Some(vec![(folder, Change::Unlink(name))])
    }

    fn rename(&mut self, from: &Path, to: &Path) -> Option<Vec<(Id, Change)>> {
        let id = self.names.remove(from)?;
        self.names.insert(to.to_owned(), id);
        let ((old_folder, old), (new_folder, new)) = (self.place(from)?, self.place(to)?);
        Some(if old_folder == new_folder {
            vec![(old_folder, Change::Rename(old, new, id))]
        } else {
            vec![
                (old_folder, Change::Unlink(old)),
                (new_folder, Change::Link(new, id)),
            ]
        })
    }

    /// An entry in a few words. Files are called what they are called in the end.
    fn describe(&self, entry: &Entry) -> String {
        let name = |id: &Id| {
            self.names
                .iter()
                .find(|(_, known)| *known == id)
                .map(|(path, _)| path)
        };
        match entry {
            Entry::Mark(mark) => format!("mark {mark}"),
            Entry::Sync(id) => format!("sync of {id}, {:?}", name(id)),
            Entry::Change(changes) => changes
                .iter()
                .map(|(id, change)| format!("{change:.60?} at {id}, {:?}; ", name(id)))
                .collect(),
        }
    }

    fn of(&self, file: &fs::File, change: Change) -> Option<Vec<(Id, Change)>> {
        Some(vec![(*self.names.get(&path_of(file))?, change)])
    }

    fn place(&self, path: &Path) -> Option<(Id, OsString)> {
        let folder = self.names.get(path.parent()?)?;
        Some((*folder, path.file_name()?.to_owned()))
    }
}

/// The name that an open file has now.
fn path_of(file: &fs::File) -> PathBuf {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    fs::read_link(link).expect("an open file has a name in /proc")
}

/// A path without links on the way.
fn absolute(path: &Path) -> PathBuf {
    match path.file_name() {
        Some(name) => {
            let folder = fs::canonicalize(files::parent(path));
            folder.map_or_else(|_| path.to_owned(), |folder| folder.join(name))
        }
        None => fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::super::disk::Unsynced;
    use super::*;

    /// The files of a folder after a power cut at its journal's end.
    fn left(journal: &Journal, unsynced: Unsynced) -> BTreeMap<String, Vec<u8>> {
        let mut last = None;
        journal.cuts(|_, _, disk| last = Some(disk.clone()));
        let folder = tempfile::tempdir().unwrap();
        last.unwrap().write_to(folder.path(), unsynced);
        let entries = fs::read_dir(folder.path()).unwrap().map(Result::unwrap);
        let file = |entry: fs::DirEntry| {
            let bytes = fs::read(entry.path()).unwrap_or_default();
            (entry.file_name().to_string_lossy().into_owned(), bytes)
        };
        entries.map(file).collect()
    }

    fn scratch() -> (tempfile::TempDir, PathBuf, Arc<Journal>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let journal = Journal::of(folder.path());
        (folder, path, journal)
    }

    #[test]
    fn names_and_bytes_last_each_by_its_own_sync() {
        let (folder, path, journal) = scratch();
        let mut file = files::create(&path).unwrap();
        file.write(b"bytes").unwrap();
        file.sync().unwrap();
        assert!(left(&journal, Unsynced::Lost).is_empty());
        assert_eq!(left(&journal, Unsynced::Kept)["file"], b"bytes");
        files::sync_dir(folder.path()).unwrap();
        file.write(b", and more").unwrap();
        assert_eq!(left(&journal, Unsynced::Lost)["file"], b"bytes");
        assert_eq!(left(&journal, Unsynced::Kept)["file"], b"bytes, and more");
        let other = folder.path().join("other");
        files::rename(&path, &other).unwrap();
        file.sync().unwrap();
        assert_eq!(left(&journal, Unsynced::Lost)["file"], b"bytes, and more");
        files::sync_dir(folder.path()).unwrap();
        assert_eq!(
            left(&journal, Unsynced::Lost).into_keys().collect::<Vec<_>>(),
            ["other"]
        );
        files::remove(&other).unwrap();
        assert_eq!(left(&journal, Unsynced::Lost).len(), 1);
        assert_eq!(left(&journal, Unsynced::Kept).len(), 0);
    }

    #[test]
    fn writes_are_dropped_reordered_and_torn() {
        let (folder, path, journal) = scratch();
        let mut file = files::create(&path).unwrap();
        file.write(&[b'a'; 1024]).unwrap();
        file.sync().unwrap();
        files::sync_dir(folder.path()).unwrap();
        file.write(&[b'b'; 1024]).unwrap();
        file.write(&[b'c'; 1024]).unwrap();
        let images: Vec<Vec<u8>> = (0..64)
            .map(|seed| left(&journal, Unsynced::Mixed(seed)).remove("file").unwrap())
            .collect();
        assert!(images.iter().all(|image| image[..1024] == [b'a'; 1024]));
        let some = |is: &dyn Fn(&[u8]) -> bool| assert!(images.iter().any(|image| is(&image[1024..])));
        some(&|rest| rest.is_empty());
        some(&|rest| rest == [b'b'; 1024]);
        some(&|rest| rest.len() == 2048 && rest[..1024] == [0; 1024] && rest[1024..] == [b'c'; 1024]);
        some(&|rest| rest.len() >= 1024 && rest[..512] == [0; 512] && rest[512..1024] == [b'b'; 512]);
        assert_eq!(
            left(&journal, Unsynced::Mixed(7)),
            left(&journal, Unsynced::Mixed(7))
        );
    }

    #[test]
    fn a_disk_refuses_when_it_is_told_to() {
        let (_folder, path, journal) = scratch();
        let mut file = files::create(&path).unwrap();
        journal.refuse_after(1, Refusal::Once);
        file.write(b"one").unwrap();
        assert_eq!(file.write(b"two").unwrap_err().raw_os_error(), Some(5));
        file.write(b"three").unwrap();
        journal.relent();
        journal.refuse_after(0, Refusal::Full);
        assert!(files::is_full(&file.write(b"four").unwrap_err()));
        file.sync().unwrap();
        journal.refuse_after(0, Refusal::ReadOnly);
        file.sync().unwrap_err();
        assert!(journal.relent());
        assert_eq!(fs::read(&path).unwrap(), b"onethree");
    }
}
