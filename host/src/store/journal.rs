//! What a disk was told, step by step, and what it may hold after a power cut.
//!
//! The store works on a real folder, whose journal takes down every step
//! ([`files::watch`](super::files)). Afterwards [`Journal::cuts`] goes through the steps and gives, for
//! the moment after each of them, folders as a power cut may leave them: what was synced is there, and
//! of the rest anything: none of it, all of it, the later without the earlier, sectors of a write
//! without the others. Names last when their folder was synced, bytes when their file was, and neither
//! brings the other along.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::files::{self, Step};

/// What a disk writes whole or not at all, in bytes.
const SECTOR_LEN: usize = 512;

/// Mixtures of what was lost, kept and torn that are tried after each step.
const SEEDS: u64 = 2;

/// A file or folder, for as long as the journal lives.
type Id = usize;

/// The journal's folder itself.
const ROOT: Id = 0;

/// One change, as it is replayed.
#[derive(Debug, Clone)]
enum Change {
    Link(OsString, Id),
    Unlink(OsString),
    /// Within one folder: both or none.
    Rename(OsString, OsString, Id),
    Write(u64, Arc<[u8]>),
    SetLen(u64),
}

/// One entry of the journal.
#[derive(Debug)]
enum Entry {
    Change(Vec<(Id, Change)>),
    Sync(Id),
    /// The test said something.
    Mark(u64),
}

/// What lasts.
#[derive(Debug, Clone)]
enum Node {
    Folder(BTreeMap<OsString, Id>),
    File(Arc<Vec<u8>>),
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
        let mut disk = Disk {
            nodes: log.nodes.clone(),
            pending: BTreeMap::new(),
            last: String::new(),
        };
        let mut marks = Vec::new();
        for (number, entry) in log.entries.iter().enumerate() {
            match entry {
                Entry::Mark(mark) => marks.push(*mark),
                Entry::Sync(id) => {
                    let kind = match &disk.nodes[*id] {
                        Node::Folder(_) => Forgotten::Folders,
                        Node::File(_) => Forgotten::Files,
                    };
                    if kind != forgotten {
                        disk.sync(*id);
                    }
                }
                Entry::Change(changes) => {
                    for (id, change) in changes {
                        disk.pending.entry(*id).or_default().push(change.clone());
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

/// A disk at a moment: what lasts, and what was not synced yet.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    nodes: Vec<Node>,
    pending: BTreeMap<Id, Vec<Change>>,
    /// The last step, for messages.
    pub(crate) last: String,
}

/// What becomes of the changes that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsynced {
    /// None is there.
    Lost,
    /// All are there: the process was killed, and the power stayed.
    Kept,
    /// Some are, and parts of some, by this seed.
    Mixed(u64),
}

impl Unsynced {
    /// What is tried after a step. `ORB_POWER_SEEDS=N` has N mixtures tried rather than [`SEEDS`].
    pub(crate) fn at(step: usize) -> Vec<Self> {
        let seeds = std::env::var("ORB_POWER_SEEDS");
        let seeds = seeds.map_or(SEEDS, |seeds| seeds.parse().expect("ORB_POWER_SEEDS is a number"));
        let mixed = (0..seeds).map(|seed| Self::Mixed((step as u64) << 32 | seed));
        [Self::Lost, Self::Kept].into_iter().chain(mixed).collect()
    }
}

/// A folder in memory where there is one: for disks that are made and thrown away by the thousand.
pub(crate) fn scratch() -> tempfile::TempDir {
    let memory = PathBuf::from("/dev/shm");
    let folder = if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    };
    let made = tempfile::Builder::new().prefix("orb-power-").tempdir_in(folder);
    made.expect("a scratch folder can be made")
}

impl Disk {
    /// Whether everything lasts.
    pub(crate) fn is_synced(&self) -> bool {
        self.pending.is_empty()
    }

    /// Writes what is there after a power cut to an empty folder.
    pub(crate) fn write_to(&self, folder: &Path, unsynced: Unsynced) {
        let mut nodes = self.nodes.clone();
        let mut dice = Dice(match unsynced {
            Unsynced::Mixed(seed) => seed,
            Unsynced::Lost | Unsynced::Kept => 0,
        });
        for (id, changes) in &self.pending {
            for change in changes {
                match unsynced {
                    Unsynced::Lost => {}
                    Unsynced::Kept => nodes[*id].apply(change),
                    Unsynced::Mixed(_) => nodes[*id].apply_some(change, &mut dice),
                }
            }
        }
        write_out(&nodes, ROOT, folder);
    }

    fn sync(&mut self, id: Id) {
        for change in self.pending.remove(&id).unwrap_or_default() {
            self.nodes[id].apply(&change);
        }
    }
}

impl Node {
    fn apply(&mut self, change: &Change) {
        match (self, change) {
            (Self::Folder(names), Change::Link(name, id)) => {
                names.insert(name.clone(), *id);
            }
            (Self::Folder(names), Change::Unlink(name)) => {
                names.remove(name);
            }
            (Self::Folder(names), Change::Rename(old, new, id)) => {
                names.remove(old);
                names.insert(new.clone(), *id);
            }
            (Self::File(bytes), Change::Write(at, written)) => put(Arc::make_mut(bytes), *at, written),
            (Self::File(bytes), Change::SetLen(len)) => Arc::make_mut(bytes).resize(to_usize(*len), 0),
            (node, change) => panic!("{change:?} is nothing for {node:?}"),
        }
    }

    fn apply_some(&mut self, change: &Change, dice: &mut Dice) {
        match (self, change) {
            (Self::File(bytes), Change::Write(at, written)) if dice.below(3) == 0 => {
                let bytes = Arc::make_mut(bytes);
                for (index, sector) in sectors(*at, written) {
                    if dice.below(2) == 0 {
                        put(bytes, index, sector);
                    }
                }
            }
            (node, change) => {
                if dice.below(2) == 0 {
                    node.apply(change);
                }
            }
        }
    }
}

/// The parts of a write that lie in one sector each.
fn sectors(at: u64, bytes: &[u8]) -> Vec<(u64, &[u8])> {
    let to_boundary = SECTOR_LEN - to_usize(at) % SECTOR_LEN;
    let (first, rest) = bytes.split_at(to_boundary.min(bytes.len()));
    let mut parts = vec![(at, first)];
    let start = at + first.len() as u64;
    let rest = rest.chunks(SECTOR_LEN).enumerate();
    parts.extend(rest.map(|(index, part)| (start + (index * SECTOR_LEN) as u64, part)));
    parts
}

fn put(bytes: &mut Vec<u8>, at: u64, written: &[u8]) {
    let (start, end) = (to_usize(at), to_usize(at) + written.len());
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[start..end].copy_from_slice(written);
}

fn write_out(nodes: &[Node], id: Id, path: &Path) {
    match &nodes[id] {
        Node::File(bytes) => fs::write(path, bytes.as_slice()).expect("a scratch file can be written"),
        Node::Folder(names) => {
            if !path.is_dir() {
                fs::create_dir(path).expect("a scratch folder can be made");
            }
            for (name, child) in names {
                write_out(nodes, *child, &path.join(name));
            }
        }
    }
}

/// Numbers that are the same for the same seed (Steele, Lea, Flood: "Fast splittable pseudorandom
/// number generators", `SplitMix64`).
#[derive(Debug, Clone)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).expect("a test's file fits into memory")
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
