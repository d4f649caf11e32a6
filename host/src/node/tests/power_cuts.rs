//! A host whose power is cut after every step that it takes on its disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use orb_protocol::id::{ArtifactHash, FunctionId};
use orb_protocol::manifest::Verified;
use orb_protocol::wire::control::HostMessage;
use orb_runtime::SandboxConfig;

use super::guests;
use super::network::{Net, Super, config};
use crate::executor::{Executors, testing};
use crate::node::driver::{Replicas, Tools};
use crate::node::manifests::HeldManifests;
use crate::node::pause::Pauses;
use crate::node::testing::{manifest, owner, tombstone};
use crate::node::{Node, policy};
use crate::store::datadir::{DataDir, Role};
use crate::store::disk::{Disk, Unsynced, scratch};
use crate::store::journal::{Forgotten, Journal};
use crate::store::objects::ObjectStore;

/// What a super node tells a host about one function, or what happens to the host.
enum Act {
    /// To hold a revision of these bytes.
    Seed(Box<Verified>, Vec<u8>),
    /// To hold it no more.
    Release(FunctionId),
    /// That it is over.
    End(Box<Verified>),
    /// To hold a revision, for which a function has to go that was superseded meanwhile.
    Displace {
        by: Box<Verified>,
        wasm: Vec<u8>,
        newer: Box<Verified>,
    },
    /// The host ends in order and starts again.
    Restart,
}

fn story() -> Vec<Act> {
    let key = owner(1);
    let (long, short) = (guests::says(&"x".repeat(9_000)), guests::says("short"));
    let seed = |name: &str, number, wasm: &[u8]| {
        Act::Seed(Box::new(manifest(&key, name, number, wasm)), wasm.to_vec())
    };
    vec![
        seed("f", 1, &long),
        seed("g", 1, &short),
        // An edit; the bytes before it are still needed by the next one.
        seed("f", 2, &guests::says("edited")),
        seed("g", 2, &long),
        Act::Restart,
        seed("h", 1, &guests::echo()),
        Act::Release(manifest(&key, "h", 1, &short).function()),
        Act::End(Box::new(tombstone(&key, "g", 3))),
        // A rollback.
        seed("f", 3, &long),
    ]
}

/// A story in which there is room for two artifacts, and for no third one.
fn tight_story() -> Vec<Act> {
    let key = owner(1);
    let says = |byte: &str| guests::says(&byte.repeat(9_000));
    let seed =
        |name: &str, number, wasm: Vec<u8>| Act::Seed(Box::new(manifest(&key, name, number, &wasm)), wasm);
    let displace = |name: &str, wasm: Vec<u8>, goes: &str, number| Act::Displace {
        by: Box::new(manifest(&key, name, 1, &wasm)),
        wasm,
        newer: Box::new(manifest(&key, goes, number, b"elsewhere")),
    };
    vec![
        seed("f", 1, says("f")),
        seed("g", 1, says("g")),
        displace("h", says("h"), "f", 2),
        displace("i", says("i"), "g", 2),
        displace("j", says("j"), "h", 2),
        Act::Restart,
    ]
}

/// A disk budget in which the artifacts of the tight story have as much room as it says, in bytes: half
/// of it is for compiled code.
const TIGHT_BYTES: u64 = 2 * 20_000;

/// Tells the story to a host. Its journal is marked when something begins and when the super node has
/// heard of its end.
async fn tell(journal: &Journal, folder: &Path, acts: &[Act], disk_bytes_max: u64) {
    let mut net = Net::with(|config| {
        config.data = folder.to_owned();
        config.disk_bytes_max = disk_bytes_max;
    })
    .await;
    for (number, act) in (0..).zip(acts) {
        journal.mark(2 * number);
        net.upper.forget();
        match act {
            Act::Seed(manifest, wasm) => net.seed(manifest, wasm).await,
            Act::Release(function) => {
                net.upper.release(*function);
                hears_dropped(&net.upper, *function).await;
            }
            Act::End(tombstone) => {
                net.upper.tell(&Super::changed(tombstone));
                hears_dropped(&net.upper, tombstone.function()).await;
            }
            Act::Displace { by, wasm, newer } => {
                net.upper.tell(&Super::changed(newer));
                net.seed(by, wasm).await;
                hears_dropped(&net.upper, newer.function()).await;
            }
            Act::Restart => {
                net.node.drain().await.unwrap();
                let mut config = config(folder, &[&net.upper]);
                config.disk_bytes_max = disk_bytes_max;
                net.node = Node::start(config).await.unwrap();
                net.upper.hears_holdings().await;
            }
        }
        journal.mark(2 * number + 1);
    }
    net.node.drain().await.unwrap();
}

async fn hears_dropped(upper: &Super, function: FunctionId) {
    let dropped = |m: &HostMessage| matches!(m, HostMessage::Dropped(d) if d.function == function);
    upper.hears(dropped).await;
}

/// What is stored of a function after some of the story: a revision, a tombstone, or nothing.
type State<'a> = Option<&'a Verified>;

/// By function: the states that it may be in, from the one that was acknowledged last on.
fn allowed<'a>(acts: &'a [Act], marks: &[u64]) -> BTreeMap<FunctionId, Vec<State<'a>>> {
    let mut allowed = BTreeMap::new();
    for (number, act) in (0..).zip(acts) {
        for (function, state) in changes(act) {
            let states = allowed.entry(function).or_insert_with(|| vec![None]);
            if marks.contains(&(2 * number + 1)) {
                states.clear();
            }
            if marks.contains(&(2 * number)) {
                states.push(state);
            }
        }
    }
    allowed
}

/// What an act makes of functions.
fn changes(act: &Act) -> Vec<(FunctionId, State<'_>)> {
    match act {
        Act::Seed(manifest, _) | Act::End(manifest) => vec![(manifest.function(), Some(&**manifest))],
        Act::Release(function) => vec![(*function, None)],
        Act::Displace { by, newer, .. } => vec![(by.function(), Some(&**by)), (newer.function(), None)],
        Act::Restart => Vec::new(),
    }
}

/// Opens what a cut left, as a host does, and compares it with what it has to be.
async fn check(folder: &Path, allowed: &BTreeMap<FunctionId, Vec<State<'_>>>, executors: &Executors) {
    let dir = DataDir::open(folder, Role::Node).unwrap();
    let objects = ObjectStore::open(&dir.objects()).unwrap();
    let manifests = HeldManifests::open(&dir.database()).unwrap();
    let stored: BTreeMap<FunctionId, Verified> = manifests
        .all()
        .unwrap()
        .into_iter()
        .map(|manifest| (manifest.function(), manifest))
        .collect();
    for (function, states) in allowed {
        let state = stored.get(function);
        assert!(states.contains(&state), "{state:?} is none of {states:?}");
    }
    // Under a hash as its name nothing is there by halves, needed or not.
    for (artifact, _) in objects.list().unwrap() {
        objects.get(&artifact).unwrap();
    }
    let needed = stored
        .values()
        .filter_map(|manifest| Some(manifest.publish()?.artifact));
    let needed: BTreeSet<ArtifactHash> = needed.collect();
    let tools = Tools {
        objects: objects.clone(),
        manifests,
        executors: executors.clone(),
        sources: Arc::default(),
        load: Arc::default(),
        dry_run: false,
        pauses: Pauses::default(),
    };
    let config = config(folder, &[]);
    let replicas = Replicas::start(policy(&config, config.disk_bytes_max), tools)
        .await
        .unwrap();
    let kept: BTreeSet<ArtifactHash> = objects
        .list()
        .unwrap()
        .into_iter()
        .map(|(artifact, _)| artifact)
        .collect();
    assert_eq!(kept, needed);
    assert_eq!(left_over(folder), 0);
    replicas.stop().await;
}

fn left_over(folder: &Path) -> usize {
    let folders = ["objects/tmp", "objects/damaged"].map(|name| folder.join(name));
    folders
        .iter()
        .map(|folder| fs::read_dir(folder).unwrap().count())
        .sum()
}

#[test]
fn a_power_cut_after_any_step_loses_nothing_and_leaves_nothing_by_halves() {
    cut_after_any_step(&story(), 1 << 30);
}

#[test]
fn a_power_cut_while_one_function_makes_room_for_another_leaves_neither_by_halves() {
    cut_after_any_step(&tight_story(), TIGHT_BYTES);
}

fn cut_after_any_step(acts: &[Act], disk_bytes_max: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let folder = scratch();
    let journal = Journal::of(folder.path());
    runtime.block_on(tell(&journal, folder.path(), acts, disk_bytes_max));
    let executors = runtime.block_on(testing::executors(SandboxConfig::default()));
    let survives = |disk: &Disk, unsynced, marks: &[u64]| {
        let left = scratch();
        disk.write_to(left.path(), unsynced);
        let checking = || runtime.block_on(check(left.path(), &allowed(acts, marks), &executors));
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(checking)).is_ok()
    };
    let mut cuts = 0;
    journal.cuts(|step, marks, disk| {
        for unsynced in Unsynced::at(step) {
            let survived = survives(disk, unsynced, marks);
            assert!(survived, "after step {step} ({}), with {unsynced:?}", disk.last);
            cuts += 1;
            if disk.is_synced() {
                break;
            }
        }
    });
    println!("{cuts} power cuts at {} steps", journal.len());
    // It is not blind.
    for forgotten in [Forgotten::Files, Forgotten::Folders] {
        let mut found = false;
        journal.cuts_without(forgotten, |_, marks, disk| {
            found = found || marks.contains(&1) && !survives(disk, Unsynced::Lost, marks);
        });
        assert!(found, "{forgotten:?}");
    }
}
