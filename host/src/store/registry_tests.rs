#![expect(clippy::unwrap_used, reason = "a test panics on surprise")]

use orb_protocol::key::OwnerKey;

use super::*;
use crate::store::testing::{end, head, manifest, owner, publish, version};

const PLENTY: OwnerLimits = OwnerLimits {
    functions: 1_000,
    bytes: 1 << 30,
};

struct Scratch {
    _folder: tempfile::TempDir,
    database: Database,
}

fn scratch() -> Scratch {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&folder.path().join("orb.redb"), false).unwrap();
    RegistryTables::prepare(&database).unwrap();
    Scratch {
        _folder: folder,
        database,
    }
}

impl Scratch {
    fn record_within(&self, key: &OwnerKey, manifest: &Verified, limits: &OwnerLimits) -> Recorded {
        let head = head(key, manifest);
        let record = |txn: &WriteTransaction| RegistryTables::record(txn, manifest, &head, limits, false);
        self.database.write(record).unwrap()
    }

    fn record(&self, key: &OwnerKey, manifest: &Verified) -> Recorded {
        self.record_within(key, manifest, &PLENTY)
    }

    /// Records a revision and returns the artifacts that nobody needs any more.
    fn store(&self, key: &OwnerKey, name: &str, version: Version, action: Action) -> Vec<ArtifactHash> {
        match self.record(key, &manifest(key, name, version, action)) {
            Recorded::Stored { unneeded, .. } => unneeded,
            other => panic!("{other:?}"),
        }
    }

    fn read<T>(&self, read: impl FnOnce(&ReadTransaction) -> Result<T, TxnError>) -> T {
        self.database.read(read).unwrap()
    }

    fn live(&self, function: &FunctionId) -> Option<Verified> {
        self.read(|txn| RegistryTables::live(txn, function))
    }

    fn owner_use(&self, key: &OwnerKey) -> OwnerUse {
        self.read(|txn| RegistryTables::owner_use(txn, &key.id()))
    }

    fn is_needed(&self, bytes: &[u8]) -> bool {
        self.read(|txn| RegistryTables::is_needed(txn, &ArtifactHash::of(bytes)))
    }

    fn overwrite(&self, table: Definition, key: &[u8], record: &[u8]) {
        let write = |txn: &WriteTransaction| {
            txn.open_table(table)?.insert(key, record)?;
            Ok(())
        };
        self.database.write(write).unwrap();
    }
}

#[test]
fn the_registry_is_the_join_and_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("orb.redb");
    let key = owner(1);
    let second = manifest(&key, "f", version(0, 2), publish(b"b"));
    let first = manifest(&key, "f", version(0, 1), publish(b"a"));
    {
        let scratch = Scratch {
            _folder: tempfile::tempdir().unwrap(),
            database: Database::open(&path, false).unwrap(),
        };
        RegistryTables::prepare(&scratch.database).unwrap();
        assert!(matches!(
            scratch.record(&key, &second),
            Recorded::Stored { before: None, .. }
        ));
        assert!(matches!(scratch.record(&key, &second), Recorded::Same));
        assert!(matches!(scratch.record(&key, &first), Recorded::Older(live) if *live == second));
    }
    let database = Database::open(&path, true).unwrap();
    let live = database.read(|txn| RegistryTables::live(txn, &second.function()));
    assert_eq!(live.unwrap(), Some(second.clone()));
    let mut all = Vec::new();
    database
        .read(|txn| RegistryTables::all_live(txn, |manifest| all.push(manifest)))
        .unwrap();
    assert_eq!(all, [second]);
}

#[test]
fn artifacts_are_needed_for_ten_revisions() {
    let scratch = scratch();
    let key = owner(1);
    let artifact = |revision: u64| revision.to_le_bytes().to_vec();
    for revision in 1..=10 {
        assert_eq!(
            scratch.store(&key, "f", version(0, revision), publish(&artifact(revision))),
            []
        );
    }
    assert_eq!(scratch.owner_use(&key).bytes, 80);
    let unneeded = scratch.store(&key, "f", version(0, 11), publish(&artifact(11)));
    assert_eq!(unneeded, [ArtifactHash::of(&artifact(1))]);
    assert!(!scratch.is_needed(&artifact(1)) && scratch.is_needed(&artifact(2)));
    // A rollback keeps what it names, and adds no bytes.
    assert_eq!(
        scratch.store(&key, "f", version(0, 12), publish(&artifact(2))),
        []
    );
    assert_eq!(scratch.owner_use(&key).bytes, 80);
}

#[test]
fn a_shared_artifact_is_kept_while_anyone_needs_it() {
    let scratch = scratch();
    let (one, two) = (owner(1), owner(2));
    scratch.store(&one, "f", version(0, 1), publish(b"shared"));
    scratch.store(&two, "g", version(0, 1), publish(b"shared"));
    assert_eq!(scratch.store(&one, "f", version(0, 2), end()), []);
    assert!(scratch.is_needed(b"shared"));
    assert_eq!(
        scratch.store(&two, "g", version(0, 2), end()),
        [ArtifactHash::of(b"shared")]
    );
    assert!(!scratch.is_needed(b"shared"));
}

#[test]
fn a_decommission_frees_everything_but_the_name() {
    let scratch = scratch();
    let key = owner(1);
    for revision in 1..=3 {
        scratch.store(&key, "f", version(0, revision), publish(&[7, revision as u8]));
    }
    assert_eq!(scratch.store(&key, "f", version(0, 4), end()).len(), 3);
    let used = scratch.owner_use(&key);
    assert_eq!((used.names, used.functions, used.bytes), (1, 0, 0));
    // A new life counts anew.
    scratch.store(&key, "f", version(1, 1), publish(b"new"));
    let used = scratch.owner_use(&key);
    assert_eq!((used.names, used.functions, used.bytes), (1, 1, 3));
}

#[test]
fn quotas_hold_back_only_what_grows() {
    let scratch = scratch();
    let key = owner(1);
    let limits = OwnerLimits {
        functions: 1,
        bytes: 4,
    };
    let record = |name: &str, number, action| {
        scratch.record_within(&key, &manifest(&key, name, version(0, number), action), &limits)
    };
    assert!(matches!(
        record("f", 1, publish(b"abcd")),
        Recorded::Stored { .. }
    ));
    assert!(matches!(
        record("g", 1, publish(b"abcd")),
        Recorded::OverQuota(OverQuota::Functions(1))
    ));
    let wanted = OverQuota::Bytes { limit: 4, wanted: 9 };
    assert!(matches!(record("f", 2, publish(b"12345")), Recorded::OverQuota(over) if over == wanted));
    // Nothing of the refused ones was kept, and what does not grow is taken.
    assert_eq!(scratch.owner_use(&key).bytes, 4);
    assert!(matches!(
        record("f", 2, publish(b"abcd")),
        Recorded::Stored { .. }
    ));
    assert!(matches!(record("f", 3, end()), Recorded::Stored { .. }));
    for number in 1..NAMES_PER_FUNCTION {
        let name = format!("n{number}");
        assert!(matches!(record(&name, 1, publish(b"a")), Recorded::Stored { .. }));
        assert!(matches!(record(&name, 2, end()), Recorded::Stored { .. }));
    }
    assert!(matches!(
        record("one-more", 1, publish(b"a")),
        Recorded::OverQuota(OverQuota::Names(_))
    ));
}

#[test]
fn a_damaged_live_record_is_read_from_the_history() {
    let scratch = scratch();
    let key = owner(1);
    scratch.store(&key, "f", version(0, 1), publish(b"a"));
    let live = manifest(&key, "f", version(0, 2), publish(b"b"));
    scratch.record(&key, &live);
    let function = live.function();
    scratch.overwrite(LIVE, function.as_bytes(), b"garbage");
    assert_eq!(scratch.live(&function), Some(live.clone()));
    // Without a sound copy nobody can know which revision is live: no answer rather than a wrong one.
    scratch.overwrite(HISTORY, &history_key(&live), b"garbage");
    let read = scratch.database.read(|txn| RegistryTables::live(txn, &function));
    assert!(matches!(read, Err(StoreError::Damaged(_))));
    let mut all = Vec::new();
    scratch.read(|txn| RegistryTables::all_live(txn, |manifest| all.push(manifest)));
    assert_eq!(all, []);
}

#[test]
fn pages_go_through_all_functions_in_order() {
    let scratch = scratch();
    let (one, two) = (owner(1), owner(2));
    for number in 0..7 {
        scratch.store(&one, &format!("f{number}"), version(0, 1), publish(b"a"));
        scratch.store(&two, &format!("f{number}"), version(0, 1), publish(b"a"));
    }
    scratch.store(&one, "f0", version(0, 2), end());
    let functions = |owner: Option<OwnerId>, decommissioned: bool| {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let (page, more) = scratch
                .read(|txn| RegistryTables::page(txn, owner.as_ref(), after.as_ref(), 3, decommissioned));
            assert!(page.len() <= 3);
            found.extend(page.into_iter().map(|signed| signed.verify().unwrap().function()));
            after = found.last().copied();
            if !more {
                break found;
            }
        }
    };
    let all = functions(None, true);
    assert_eq!(all.len(), 14);
    assert!(all.is_sorted());
    assert_eq!(functions(None, false).len(), 13);
    assert_eq!(functions(Some(one.id()), false).len(), 6);
    assert_eq!(functions(Some(one.id()), true).len(), 7);
    assert_eq!(functions(Some(owner(3).id()), true), []);
}

#[test]
fn versions_come_newest_first() {
    let scratch = scratch();
    let key = owner(1);
    for revision in 1..=5 {
        scratch.store(&key, "f", version(0, revision), publish(b"a"));
    }
    scratch.store(&key, "f", version(0, 6), end());
    scratch.store(&key, "f", version(1, 1), publish(b"a"));
    let function = manifest(&key, "f", version(0, 1), publish(b"a")).function();
    let page = |before| {
        let versions = |txn: &ReadTransaction| RegistryTables::versions(txn, &function, before, 4);
        let (page, more) = scratch.read(versions).unwrap();
        let versions = page.into_iter().map(|signed| signed.verify().unwrap().version());
        (
            versions.map(|v| (v.generation, v.revision)).collect::<Vec<_>>(),
            more,
        )
    };
    assert_eq!(page(None), (vec![(1, 1), (0, 6), (0, 5), (0, 4)], true));
    assert_eq!(page(Some(version(0, 4))), (vec![(0, 3), (0, 2), (0, 1)], false));
    let unknown = FunctionId::from_bytes([9; 32]);
    assert!(
        scratch
            .read(|txn| RegistryTables::versions(txn, &unknown, None, 4))
            .is_none()
    );
}

#[test]
fn old_manifests_go_in_the_end() {
    let scratch = scratch();
    let key = owner(1);
    let count = u64::try_from(HISTORY_MAX).unwrap() + 5;
    let manifests: Vec<Verified> = (1..=count)
        .map(|revision| manifest(&key, "f", version(0, revision), publish(b"a")))
        .collect();
    let write = |txn: &WriteTransaction| {
        for manifest in &manifests {
            RegistryTables::record(txn, manifest, &head(&key, manifest), &PLENTY, false)?;
        }
        Ok(())
    };
    scratch.database.write(write).unwrap();
    let function = manifests[0].function();
    let oldest = scratch.read(|txn| RegistryTables::versions(txn, &function, Some(version(0, 7)), 10));
    let oldest: Vec<u64> = oldest
        .unwrap()
        .0
        .into_iter()
        .map(|signed| signed.verify().unwrap().version().revision)
        .collect();
    assert_eq!(oldest, [6]);
}

#[test]
fn keys_after_a_prefix() {
    assert_eq!(next_key(&[1, 2]), [1, 3]);
    assert_eq!(next_key(&[1, 255]), [2]);
    assert!(next_key(&[255, 255]) > vec![255, 255]);
}
