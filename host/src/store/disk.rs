//! What a disk may hold after a power cut.
//!
//! What was synced is there, and of the rest anything: none of it, all of it, the later without the
//! earlier, sectors of a write without the others. Names last when their folder was synced, bytes when
//! their file was, and neither brings the other along.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a disk writes whole or not at all, in bytes.
const SECTOR_LEN: usize = 512;

/// Mixtures of what was lost, kept and torn that are tried after each step.
const SEEDS: u64 = 2;

/// A file or folder, for as long as the journal lives.
pub(super) type Id = usize;

/// The journal's folder itself.
const ROOT: Id = 0;

/// One change, as it is replayed.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Link(OsString, Id),
    Unlink(OsString),
    /// Within one folder: both or none.
    Rename(OsString, OsString, Id),
    Write(u64, Arc<[u8]>),
    SetLen(u64),
}

/// What lasts.
#[derive(Debug, Clone)]
pub(super) enum Node {
    Folder(BTreeMap<OsString, Id>),
    File(Arc<Vec<u8>>),
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
    /// A disk on which these last, of which the first is the folder itself.
    pub(super) fn new(nodes: Vec<Node>) -> Self {
        Self {
            nodes,
            pending: BTreeMap::new(),
            last: String::new(),
        }
    }

    /// What lasts of a file or folder.
    pub(super) fn node(&self, id: Id) -> &Node {
        &self.nodes[id]
    }

    /// One more change that is not synced.
    pub(super) fn change(&mut self, id: Id, change: Change) {
        self.pending.entry(id).or_default().push(change);
    }

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

    /// What was changed of a file or folder lasts from now on.
    pub(super) fn sync(&mut self, id: Id) {
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
