//! A super node whose power is cut after every step that it takes on its disk.
//!
//! A [`story`] of deploys, edits, rollbacks and decommissions is told to a real [`Storage`], whose disk
//! keeps a [`Journal`]. Then, for the moment after each step, the store is opened on what a power cut
//! may leave, and has to be what the owners were told, or that and the whole of what was under way.
#![expect(clippy::unwrap_used, reason = "a test panics on surprise")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use orb_protocol::id::{ArtifactHash, FunctionId};
use orb_protocol::key::OwnerKey;
use orb_protocol::manifest::{Action, Verified, Version};

use super::storage::{Pin, Storage};
use crate::store::blocking;
use crate::store::datadir::{DataDir, Role};
use crate::store::disk::{Dice, Disk, Unsynced, scratch};
use crate::store::events::Filter;
use crate::store::journal::{Forgotten, Journal, Refusal};
use crate::store::registry::{KEPT_REVISIONS, OwnerLimits, OwnerUse, Recorded};
use crate::store::testing::{end, head, manifest, owner, publish, version};

/// How many of the disks after a cut are cut off a second time, while they are being opened: one in so many.
const SECOND_CUTS: u64 = 150;
/// Artifacts go to the disk in pieces of so many bytes, some of them in several.
const PIECE_BYTES: usize = 2_000;
const PLENTY: OwnerLimits = OwnerLimits {
    functions: 10,
    bytes: 1 << 20,
};

/// What happens to a super node.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there is a handful of them, in a test")]
enum Act {
    /// An owner's new revision, with its artifact's bytes.
    Record(OwnerKey, Box<Verified>, Vec<u8>),
    /// The daemon ends in order and starts again.
    Restart,
    /// It is killed and starts again.
    Kill,
}

/// Deploys, edits, a rollback, an eviction, decommissions, a new life.
fn story() -> Vec<Act> {
    let (one, two) = (owner(1), owner(2));
    let act = |key: &OwnerKey, name: &str, at: Version, bytes: Option<&[u8]>| {
        let action = bytes.map_or_else(end, publish);
        let manifest = manifest(key, name, at, action);
        Act::Record(
            key.clone(),
            Box::new(manifest),
            bytes.unwrap_or_default().to_vec(),
        )
    };
    let long: Vec<u8> = (0..3 * PIECE_BYTES).map(|at| (at % 251) as u8).collect();
    let mut acts = vec![
        act(&one, "f", version(0, 1), Some(&long)),
        act(&two, "g", version(0, 1), Some(&long)),
        Act::Restart,
    ];
    for revision in 2..=u64::try_from(KEPT_REVISIONS).unwrap() + 2 {
        acts.push(act(
            &one,
            "f",
            version(0, revision),
            Some(&revision.to_le_bytes()),
        ));
    }
    acts.extend([
        // A rollback, to bytes that are here.
        act(&one, "f", version(0, 13), Some(&5u64.to_le_bytes())),
        Act::Kill,
        act(&two, "g", version(0, 2), None),
        act(&one, "h", version(0, 1), Some(b"h")),
        act(&one, "f", version(0, 14), None),
        act(&one, "f", version(1, 1), Some(b"a new life")),
        act(&two, "g", version(1, 1), Some(&long)),
        Act::Restart,
    ]);
    acts
}

/// The data folder on a disk: a new one in a new one, whose names have to last as well.
fn data(disk: &Path) -> PathBuf {
    disk.join("new").join("data")
}

/// A super node's folder and store.
struct Daemon {
    dir: DataDir,
    storage: Storage,
}

impl Daemon {
    fn start(disk: &Path) -> Self {
        let dir = DataDir::open(&data(disk), Role::Super).unwrap();
        let storage = Storage::open(&dir).unwrap();
        Self { dir, storage }
    }

    /// As `publish` does it.
    async fn record(&self, key: &OwnerKey, manifest: &Verified, bytes: &[u8]) -> Result<Recorded, String> {
        let pin = match manifest.publish() {
            None => None,
            Some(wanted) => Some(self.storage.pin(wanted.artifact).await),
        };
        let stored = match &pin {
            Some(pin) => self.store(pin, bytes).await,
            None => Ok(()),
        };
        let recorded = match stored {
            Ok(()) => {
                let manifest = Arc::new(manifest.clone());
                let head = head(key, &manifest);
                let recorded = self.storage.record(&manifest, head, PLENTY, false).await;
                recorded.map_err(|error| error.to_string())
            }
            Err(error) => Err(error),
        };
        // Outside the runtime it has done its work when it is gone, and holds the store no longer.
        std::thread::spawn(move || drop(pin)).join().unwrap();
        recorded
    }

    async fn store(&self, pin: &Pin, bytes: &[u8]) -> Result<(), String> {
        if self.storage.artifact(ArtifactHash::of(bytes)).await.is_ok() {
            return Ok(());
        }
        let mut writer = None;
        for piece in bytes.chunks(PIECE_BYTES) {
            let written = self.storage.write(writer, piece.to_vec()).await;
            writer = Some(written.map_err(|error| error.to_string())?);
        }
        let stored = self.storage.commit(pin, writer.unwrap()).await;
        stored.map_err(|error| error.to_string())
    }

    async fn stop(self) {
        blocking(move || {
            self.storage.close().unwrap();
            self.dir.close().unwrap();
        })
        .await;
    }
}

/// What was begun and what was acknowledged, by the marks of the journal.
fn begun(act: usize) -> u64 {
    2 * act as u64
}

fn acknowledged(act: usize) -> u64 {
    2 * act as u64 + 1
}

/// Tells the story to a super node in a folder.
async fn tell(journal: &Journal, folder: &Path, acts: &[Act]) {
    let mut daemon = Daemon::start(folder);
    for (number, act) in acts.iter().enumerate() {
        journal.mark(begun(number));
        match act {
            Act::Record(key, manifest, bytes) => {
                let recorded = daemon.record(key, manifest, bytes).await.unwrap();
                assert!(matches!(recorded, Recorded::Stored { .. }));
            }
            Act::Restart => {
                daemon.stop().await;
                daemon = Daemon::start(folder);
            }
            Act::Kill => {
                blocking(move || drop(daemon)).await;
                daemon = Daemon::start(folder);
            }
        }
        journal.mark(acknowledged(number));
    }
    daemon.stop().await;
}

/// The revisions of one function that are stored, oldest first.
type Revisions<'a> = Vec<(&'a OwnerKey, &'a Verified, &'a [u8])>;

/// What a super node has to be.
#[derive(Default)]
struct Expected<'a> {
    /// By function: what the story says of it, how much of that was begun, and how much acknowledged.
    functions: BTreeMap<FunctionId, (Revisions<'a>, usize, usize)>,
}

impl<'a> Expected<'a> {
    fn of(acts: &'a [Act], marks: &BTreeSet<u64>) -> Self {
        let mut expected = Self::default();
        for (number, act) in acts.iter().enumerate() {
            let Act::Record(key, manifest, bytes) = act else {
                continue;
            };
            let (revisions, begun_, acknowledged_) =
                expected.functions.entry(manifest.function()).or_default();
            revisions.push((key, manifest, bytes));
            *begun_ += usize::from(marks.contains(&begun(number)));
            *acknowledged_ += usize::from(marks.contains(&acknowledged(number)));
        }
        expected
    }
}

/// The artifacts that a function's stored revisions keep.
fn kept<'a>(stored: &[(&OwnerKey, &Verified, &'a [u8])]) -> BTreeMap<ArtifactHash, &'a [u8]> {
    let Some((_, live, _)) = stored.last().filter(|(_, live, _)| !live.is_tombstone()) else {
        return BTreeMap::new();
    };
    let generation = live.version().generation;
    let of_this_life = stored.iter().rev().filter(|(_, manifest, _)| {
        manifest.version().generation == generation
            && matches!(manifest.manifest().action, Action::Publish(_))
    });
    of_this_life
        .take(KEPT_REVISIONS)
        .map(|(_, _, bytes)| (ArtifactHash::of(bytes), *bytes))
        .collect()
}

/// Opens what a cut left, and compares everything that can be asked with what it has to be. Then goes
/// on with what was under way.
async fn check(folder: &Path, expected: &Expected<'_>) {
    let daemon = Daemon::start(folder);
    let mut artifacts: BTreeMap<ArtifactHash, &[u8]> = BTreeMap::new();
    let mut uses: BTreeMap<_, OwnerUse> = BTreeMap::new();
    let mut live = Vec::new();
    for (function, (revisions, begun, acknowledged)) in &expected.functions {
        let stored = stored(&daemon.storage, *function, revisions, *begun).await;
        assert!(
            stored >= *acknowledged,
            "{stored} revisions of {acknowledged} are there"
        );
        let stored = &revisions[..stored];
        let Some((key, newest, _)) = stored.last() else {
            continue;
        };
        let kept = kept(stored);
        let used = uses.entry(key.id()).or_default();
        used.names += 1;
        used.functions += u64::from(!newest.is_tombstone());
        used.bytes += kept.values().map(|bytes| bytes.len() as u64).sum::<u64>();
        artifacts.extend(kept);
        live.push((*newest).clone());
    }
    for (owner, used) in uses {
        assert_eq!(daemon.storage.owner_use(owner).await.unwrap(), used);
    }
    let (page, more) = daemon.storage.page(None, None, 100, true).await.unwrap();
    let page: Vec<Verified> = page.into_iter().map(|signed| signed.verify().unwrap()).collect();
    assert_eq!((page, more), (live, false));
    for (artifact, bytes) in &artifacts {
        assert_eq!(daemon.storage.artifact(*artifact).await.unwrap(), bytes);
    }
    assert_eq!(
        names(&data(folder).join("objects")),
        artifacts.keys().copied().collect()
    );
    go_on(&daemon, expected).await;
    daemon.stop().await;
}

/// How many of a function's revisions are stored: the live one says it, and the history and the log of
/// events have to agree.
async fn stored(storage: &Storage, function: FunctionId, revisions: &Revisions<'_>, begun: usize) -> usize {
    let live = storage.live(function).await.unwrap();
    let stored = live.map_or(0, |live| {
        let is_it = |(_, manifest, _): &(_, &Verified, _)| **manifest == *live;
        1 + revisions[..begun]
            .iter()
            .position(is_it)
            .expect("it was published")
    });
    let history = storage.versions(function, None, 100).await.unwrap();
    let history: Vec<Verified> = history.map_or_else(Vec::new, |(page, _)| {
        page.into_iter()
            .map(|(signed, _)| signed.verify().unwrap())
            .collect()
    });
    let newest_first: Vec<Verified> = revisions[..stored].iter().rev().map(|r| r.1.clone()).collect();
    assert_eq!(history, newest_first);
    let filter = Filter {
        function: Some(function),
        ..Filter::default()
    };
    let found = storage.events_after(filter, 0, 100).await.unwrap();
    let told: Vec<Version> = found.events.iter().filter_map(|event| event.version).collect();
    let versions: Vec<Version> = revisions[..stored].iter().map(|r| r.1.version()).collect();
    assert_eq!(told, versions);
    stored
}

/// What was under way is done again, and then it is there.
async fn go_on(daemon: &Daemon, expected: &Expected<'_>) {
    for (function, (revisions, begun, _)) in &expected.functions {
        let Some((key, manifest, bytes)) = begun.checked_sub(1).map(|last| revisions[last]) else {
            continue;
        };
        let recorded = daemon.record(key, manifest, bytes).await.unwrap();
        assert!(matches!(recorded, Recorded::Stored { .. } | Recorded::Same));
        let live = daemon.storage.live(*function).await.unwrap();
        assert_eq!(live.as_deref(), Some(manifest));
        for (artifact, bytes) in kept(&revisions[..*begun]) {
            assert_eq!(daemon.storage.artifact(artifact).await.unwrap(), bytes);
        }
    }
}

/// The artifacts in a folder, by their names; nothing else is in it.
fn names(objects: &Path) -> BTreeSet<ArtifactHash> {
    let mut names = BTreeSet::new();
    for shelf in fs::read_dir(objects).unwrap().map(Result::unwrap) {
        for file in fs::read_dir(shelf.path()).unwrap().map(Result::unwrap) {
            assert!(shelf.file_name().len() == 2, "{} is left", file.path().display());
            names.insert(file.file_name().to_str().unwrap().parse().unwrap());
        }
    }
    names
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// Cuts the power once more while a disk is opened after a first cut.
fn cut_again(disk: &Disk, unsynced: Unsynced, expected: &Expected<'_>, dice: &mut Dice) {
    let first = scratch();
    disk.write_to(first.path(), unsynced);
    let journal = Journal::of(first.path());
    runtime().block_on(async { Daemon::start(first.path()).stop().await });
    let step = dice.below(journal.len() as u64);
    let seed = dice.below(u64::MAX);
    journal.cuts(|number, _, disk| {
        if number as u64 == step {
            let second = scratch();
            disk.write_to(second.path(), Unsynced::Mixed(seed));
            runtime().block_on(check(second.path(), expected));
        }
    });
}

/// Whether a super node is what it has to be after a power cut. If not, the reason was printed.
fn survives(disk: &Disk, unsynced: Unsynced, expected: &Expected<'_>) -> bool {
    let left = scratch();
    disk.write_to(left.path(), unsynced);
    let checking = || runtime().block_on(check(left.path(), expected));
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(checking)).is_ok()
}

#[test]
fn a_power_cut_after_any_step_loses_nothing_and_leaves_nothing_by_halves() {
    let folder = scratch();
    let journal = Journal::of(folder.path());
    let acts = story();
    runtime().block_on(tell(&journal, folder.path(), &acts));
    let (mut cuts, mut dice) = (0, Dice(1));
    journal.cuts(|step, marks, disk| {
        let expected = Expected::of(&acts, &marks.iter().copied().collect());
        for unsynced in Unsynced::at(step) {
            let survived = survives(disk, unsynced, &expected);
            assert!(survived, "after step {step} ({}), with {unsynced:?}", disk.last);
            cuts += 1;
            if dice.below(SECOND_CUTS) == 0 {
                cut_again(disk, unsynced, &expected, &mut dice);
            }
            if disk.is_synced() {
                break;
            }
        }
    });
    println!("{cuts} power cuts at {} steps", journal.len());
}

/// What the test above would miss if it were blind.
#[test]
fn a_disk_that_forgets_what_was_synced_is_found_out() {
    let folder = scratch();
    let journal = Journal::of(folder.path());
    let acts = story();
    runtime().block_on(tell(&journal, folder.path(), &acts));
    for forgotten in [Forgotten::Files, Forgotten::Folders] {
        let mut found = false;
        journal.cuts_without(forgotten, |_, marks, disk| {
            // Losses that are found early are printed once.
            let marks: BTreeSet<u64> = marks.iter().copied().collect();
            let acknowledged = marks.contains(&acknowledged(0));
            found = found || acknowledged && !survives(disk, Unsynced::Lost, &Expected::of(&acts, &marks));
        });
        assert!(found, "{forgotten:?}");
    }
}

/// How many of the steps are refused in turn: one in so many, each in all ways.
const REFUSED: usize = 11;

/// One owner's revision on a disk that refuses a step. What is answered meanwhile is what was there or
/// what is there; and once the disk takes everything again, so does the super node.
async fn record_in_spite_of(journal: &Journal, daemon: &Daemon, act: (&OwnerKey, &Verified, &[u8])) {
    let (key, manifest, bytes) = act;
    let function = manifest.function();
    // It is remembered from here on.
    let before = daemon.storage.live(function).await.ok().flatten();
    if daemon.record(key, manifest, bytes).await.is_err() {
        journal.relent();
        let live = daemon.storage.live(function).await.unwrap();
        assert!(live == before || live.as_deref() == Some(manifest));
        daemon.record(key, manifest, bytes).await.unwrap();
    }
    let live = daemon.storage.live(function).await.unwrap();
    assert_eq!(live.as_deref(), Some(manifest));
}

fn start_in_spite_of(journal: &Journal, folder: &Path) -> Daemon {
    let start = || {
        let dir = DataDir::open(&data(folder), Role::Super).map_err(|error| error.to_string())?;
        let storage = Storage::open(&dir).map_err(|error| error.to_string())?;
        Ok::<_, String>(Daemon { dir, storage })
    };
    match start() {
        Ok(daemon) => daemon,
        Err(_) => {
            journal.relent();
            start().unwrap()
        }
    }
}

/// Tells the story to a super node whose disk refuses one step, or everything from one step on.
async fn tell_in_spite_of(acts: &[Act], step: usize, how: Refusal) -> bool {
    let folder = scratch();
    let journal = Journal::of(folder.path());
    journal.refuse_after(step, how);
    let mut daemon = start_in_spite_of(&journal, folder.path());
    for act in acts {
        if let Act::Record(key, manifest, bytes) = act {
            record_in_spite_of(&journal, &daemon, (key, manifest, bytes)).await;
        } else {
            blocking(move || drop(daemon)).await;
            daemon = start_in_spite_of(&journal, folder.path());
        }
    }
    blocking(move || drop(daemon)).await;
    let refused = journal.relent();
    let everything = (0..2 * acts.len() as u64).collect();
    check(folder.path(), &Expected::of(acts, &everything)).await;
    refused
}

#[test]
fn a_disk_that_refuses_any_step_spoils_nothing_that_was_acknowledged() {
    let acts = story();
    for how in [Refusal::Once, Refusal::Full, Refusal::ReadOnly] {
        let mut step = 0;
        while runtime().block_on(tell_in_spite_of(&acts, step, how)) {
            step += REFUSED;
        }
        println!("{how:?}: up to step {step}");
    }
}
