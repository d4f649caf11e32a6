#![expect(clippy::unwrap_used, reason = "a test panics on surprise")]

use orb_protocol::history::Gap;
use orb_protocol::key::OwnerKey;
use orb_protocol::manifest::Version;

use super::keys::history_key;
use super::*;
use crate::store::testing::{chain, end, head, manifest, owner, publish, version};

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
    let database = Database::open(&folder.path().join("orb.redb")).unwrap();
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
            database: Database::open(&path).unwrap(),
        };
        RegistryTables::prepare(&scratch.database).unwrap();
        assert!(matches!(
            scratch.record(&key, &second),
            Recorded::Stored { before: None, .. }
        ));
        assert!(matches!(scratch.record(&key, &second), Recorded::Same));
        assert!(matches!(scratch.record(&key, &first), Recorded::Older(live) if *live == second));
    }
    let database = Database::open(&path).unwrap();
    let live = database.read(|txn| RegistryTables::live(txn, &second.function()));
    assert_eq!(live.unwrap(), Some(second.clone()));
    let mut all = Vec::new();
    database
        .read(|txn| RegistryTables::all_live(txn, |_, _, hash| all.push(hash)))
        .unwrap();
    assert_eq!(all, [second.hash()]);
}

#[test]
fn of_two_devices_with_one_number_the_first_is_taken_whatever_the_hashes() {
    let key = owner(1);
    let revision = |bytes: &[u8]| manifest(&key, "f", version(0, 1), publish(bytes));
    let (one, other) = (revision(b"a"), revision(b"b"));
    let greater = if one.rank() > other.rank() { &one } else { &other };
    for (first, second) in [(&one, &other), (&other, &one)] {
        let scratch = scratch();
        let publish = |manifest: &Verified| {
            let head = head(&key, manifest);
            let record =
                |txn: &WriteTransaction| RegistryTables::record_first(txn, manifest, &head, &PLENTY, false);
            scratch.database.write(record).unwrap()
        };
        assert!(matches!(publish(first), Recorded::Stored { before: None, .. }));
        assert!(matches!(publish(second), Recorded::Taken(winner) if *winner == *first));
        assert!(matches!(publish(first), Recorded::Same));
        assert_eq!(scratch.live(&first.function()), Some(first.clone()));
        // Where two super nodes took one each, the hash decides.
        scratch.record(&key, second);
        assert_eq!(scratch.live(&first.function()), Some(greater.clone()));
    }
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
    scratch.read(|txn| RegistryTables::all_live(txn, |_, _, hash| all.push(hash)));
    assert_eq!(all, []);
}

#[test]
fn a_damaged_revision_is_named_until_the_next_one_takes_its_place() {
    let scratch = scratch();
    let key = owner(1);
    let damaged = manifest(&key, "f", version(0, 1), publish(b"a"));
    scratch.record(&key, &damaged);
    scratch.store(&key, "f", version(0, 2), publish(b"b"));
    scratch.overwrite(HISTORY, &history_key(&damaged), b"garbage");
    let versions = |scratch: &Scratch| {
        scratch
            .database
            .read(|txn| RegistryTables::versions(txn, &damaged.function(), None, 9))
    };
    assert!(matches!(versions(&scratch), Err(StoreError::Damaged(_))));
    scratch.store(&key, "f", version(0, 3), publish(b"c"));
    assert_eq!(versions(&scratch).unwrap().unwrap().0.len(), 2);
}

#[test]
fn a_listing_has_a_function_whose_record_is_damaged_as_long_as_there_is_another_copy() {
    let scratch = scratch();
    let key = owner(1);
    let live = manifest(&key, "f", version(0, 1), publish(b"a"));
    scratch.record(&key, &live);
    scratch.store(&key, "g", version(0, 1), publish(b"a"));
    let listed = || {
        scratch
            .read(|txn| RegistryTables::page(txn, None, None, 9, false))
            .0
            .len()
    };
    scratch.overwrite(LIVE, live.function().as_bytes(), b"garbage");
    assert_eq!(listed(), 2);
    scratch.overwrite(HISTORY, &history_key(&live), b"garbage");
    assert_eq!(listed(), 1);
}

/// Every question that can be asked of a registry with [`filled`]'s functions, and the answers.
fn answers(database: &Database) -> Vec<Result<String, StoreError>> {
    let mut answers = Vec::new();
    let mut ask = |question: &dyn Fn(&ReadTransaction) -> Result<String, TxnError>| {
        answers.push(database.read(question));
    };
    for seed in 1..=3 {
        let key = owner(seed);
        ask(&|txn| Ok(format!("{:?}", RegistryTables::owner_use(txn, &key.id())?)));
        ask(&|txn| {
            Ok(format!(
                "{:?}",
                RegistryTables::page(txn, Some(&key.id()), None, 99, false)?
            ))
        });
        for number in 0..12 {
            let function = manifest(&key, &format!("f{number}"), version(0, 1), end()).function();
            ask(&|txn| Ok(format!("{:?}", RegistryTables::live(txn, &function)?)));
            ask(&|txn| {
                Ok(format!(
                    "{:?}",
                    RegistryTables::versions(txn, &function, None, 99)?
                ))
            });
        }
    }
    ask(&|txn| Ok(format!("{:?}", RegistryTables::page(txn, None, None, 99, true)?)));
    for byte in 0..5 {
        ask(&|txn| {
            Ok(format!(
                "{:?}",
                RegistryTables::is_needed(txn, &ArtifactHash::of(&[byte]))?
            ))
        });
    }
    answers
}

/// A registry with some dozens of functions, closed.
fn filled(path: &std::path::Path) -> Vec<Result<String, StoreError>> {
    let scratch = Scratch {
        _folder: tempfile::tempdir().unwrap(),
        database: Database::open(path).unwrap(),
    };
    RegistryTables::prepare(&scratch.database).unwrap();
    for seed in 1..=3 {
        for number in 0..10u8 {
            let name = format!("f{number}");
            scratch.store(&owner(seed), &name, version(0, 1), publish(&[number % 4]));
            scratch.store(&owner(seed), &name, version(0, 2), publish(&[number % 3]));
        }
        scratch.store(&owner(seed), "f0", version(0, 3), end());
    }
    let answers = answers(&scratch.database);
    assert!(answers.iter().all(Result::is_ok));
    scratch.database.close().unwrap();
    answers
}

/// Bits to flip: in each block of a file that holds anything some, at places drawn by lot.
fn bits(file: &[u8]) -> Vec<(usize, u8)> {
    let mut dice = crate::store::disk::Dice(7);
    let mut bits = Vec::new();
    for (index, block) in file.chunks(4096).enumerate() {
        if block.iter().any(|byte| *byte != 0) {
            let mut draw = |end: usize| usize::try_from(dice.below(end as u64)).unwrap();
            bits.extend((0..BITS_PER_BLOCK).map(|_| (index * 4096 + draw(block.len()), 1 << draw(8))));
        }
    }
    bits
}

const BITS_PER_BLOCK: usize = 24;

/// Nothing that is answered is anything but the truth.
fn assert_no_lie(found: &[Result<String, StoreError>], truth: &[Result<String, StoreError>], at: usize) {
    for (found, truth) in found.iter().zip(truth) {
        if let Ok(found) = found {
            assert_eq!(found, truth.as_ref().unwrap(), "a bit at {at} was flipped");
        }
    }
}

#[test]
fn a_bit_that_flipped_while_the_daemon_was_away_is_repaired_or_refused() {
    let folder = crate::store::disk::scratch();
    let path = folder.path().join("orb.redb");
    let truth = filled(&path);
    let file = std::fs::read(&path).unwrap();
    let (mut refused, mut sound) = (0, 0);
    for (at, bit) in bits(&file) {
        let mut flipped = file.clone();
        flipped[at] ^= bit;
        std::fs::write(&path, flipped).unwrap();
        match Database::open(&path) {
            Ok(database) => {
                assert_no_lie(&answers(&database), &truth, at);
                sound += 1;
            }
            Err(error) => {
                assert!(error.to_string().contains("restore it from a backup"), "{error}");
                refused += 1;
            }
        }
    }
    println!("{refused} refused, {sound} sound");
    assert!(refused > 100, "{refused} of {sound}");
}

#[test]
fn a_bit_that_flips_under_an_open_database_is_never_believed() {
    let folder = crate::store::disk::scratch();
    let path = folder.path().join("orb.redb");
    let truth = filled(&path);
    let file = std::fs::read(&path).unwrap();
    // Nothing is kept in memory: each answer is read from the disk.
    let database = Database::with_cache(&path, 0).unwrap();
    let disk = std::fs::File::options().write(true).open(&path).unwrap();
    let mut noticed = 0;
    for (at, bit) in bits(&file) {
        let mut byte = [0];
        std::os::unix::fs::FileExt::read_exact_at(&std::fs::File::open(&path).unwrap(), &mut byte, at as u64)
            .unwrap();
        let put = |byte: u8| std::os::unix::fs::FileExt::write_all_at(&disk, &[byte], at as u64).unwrap();
        put(byte[0] ^ bit);
        let found = answers(&database);
        assert_no_lie(&found, &truth, at);
        noticed += usize::from(found.iter().any(Result::is_err));
        put(byte[0]);
        // It may have been opened anew meanwhile; what is whole again is believed again.
        assert_no_lie(&answers(&database), &truth, at);
    }
    println!("{noticed} noticed");
    assert!(noticed > 50, "{noticed}");
    assert!(answers(&database).iter().all(Result::is_ok));
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
fn no_page_of_versions_ends_between_two_revisions_of_one_number() {
    let (scratch, key) = (scratch(), owner(1));
    let of = |revision, bytes: &[u8]| manifest(&key, "f", version(0, revision), publish(bytes));
    let mut rivals = [of(2, b"b"), of(2, b"c")];
    rivals.sort_by_key(Verified::rank);
    let first = of(1, b"a");
    let function = first.function();
    for revision in [&first, &rivals[0], &rivals[1], &of(3, b"d")] {
        assert!(matches!(scratch.record(&key, revision), Recorded::Stored { .. }));
    }
    for limit in 1..=4 {
        let (mut all, mut before) = (Vec::new(), None);
        loop {
            let read = |txn: &ReadTransaction| RegistryTables::versions(txn, &function, before, limit);
            let (page, more) = scratch.read(read).unwrap();
            all.extend(
                page.into_iter()
                    .map(|signed| signed.verify().unwrap().version().revision),
            );
            before = all.last().map(|revision| version(0, *revision));
            if !more {
                break;
            }
        }
        // A page that has room for one only cannot do better.
        let wanted: &[u64] = if limit == 1 { &[3, 2, 1] } else { &[3, 2, 2, 1] };
        assert_eq!(all, wanted, "pages of {limit}");
    }
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

/// A registry that has only the last of a function's revisions.
fn with_last(chain: &[Verified]) -> Scratch {
    let scratch = scratch();
    let recorded = scratch.record(&owner(1), chain.last().unwrap());
    assert!(matches!(recorded, Recorded::Stored { .. }));
    scratch
}

impl Scratch {
    fn gap(&self, function: &FunctionId) -> Option<Gap> {
        self.read(|txn| RegistryTables::gap(txn, function))
    }

    fn restore(&self, ancestors: &[Verified]) -> usize {
        let restore = |txn: &WriteTransaction| RegistryTables::restore(txn, ancestors);
        self.database.write(restore).unwrap().added
    }

    fn numbers(&self, function: &FunctionId) -> Vec<u64> {
        let page = self.read(|txn| RegistryTables::versions(txn, function, None, 2_000));
        let numbers = page.unwrap().0.into_iter();
        numbers
            .map(|signed| signed.verify().unwrap().version().revision)
            .collect()
    }
}

#[test]
fn a_gap_is_seen_filled_and_closed_and_what_is_live_stays_so() {
    let chain = chain(&owner(1), "f", &[b"one", b"two", b"three", b"four"]);
    let (function, live) = (chain[0].function(), &chain[3]);
    let scratch = with_last(&chain);
    assert_eq!(scratch.gap(&function), Gap::before(live));
    assert_eq!(scratch.restore(&[chain[2].clone()]), 1);
    assert_eq!(scratch.gap(&function), Gap::before(&chain[2]));
    assert_eq!(scratch.restore(&[chain[1].clone(), chain[0].clone()]), 2);
    assert_eq!(scratch.gap(&function), None);
    assert_eq!(scratch.live(&function).as_ref(), Some(live));
    assert_eq!(scratch.numbers(&function), [4, 3, 2, 1]);
    // Their bytes are needed from now on, and count as the owner's.
    assert!(scratch.is_needed(b"one") && scratch.is_needed(b"three"));
    assert_eq!(scratch.owner_use(&owner(1)).bytes, 3 + 3 + 5 + 4);
    // Twice is once.
    scratch.restore(&chain[..3]);
    assert_eq!(scratch.numbers(&function), [4, 3, 2, 1]);
    assert_eq!(scratch.owner_use(&owner(1)).bytes, 3 + 3 + 5 + 4);
}

#[test]
fn nothing_newer_than_the_live_revision_gets_into_a_history_from_behind() {
    let chain = chain(&owner(1), "f", &[b"one", b"two"]);
    let scratch = with_last(&chain);
    let newer = manifest(&owner(1), "f", version(0, 3), publish(b"three"));
    let tombstone = manifest(&owner(1), "f", version(0, 1), end());
    let other = manifest(&owner(1), "g", version(0, 1), publish(b"other"));
    let function = chain[0].function();
    assert_eq!(scratch.restore(&[newer, tombstone, other]), 0);
    assert_eq!(scratch.numbers(&function), [2]);
    // Nothing is known of that one, so that nothing may be its ancestor.
    assert_eq!(
        scratch.restore(&[manifest(&owner(1), "h", version(0, 1), end())]),
        0
    );
}

#[test]
fn a_damaged_revision_counts_as_a_gap_and_is_mended() {
    let chain = chain(&owner(1), "f", &[b"one", b"two", b"three"]);
    let function = chain[0].function();
    let scratch = scratch();
    for manifest in &chain {
        scratch.record(&owner(1), manifest);
    }
    assert_eq!(scratch.gap(&function), None);
    scratch.overwrite(HISTORY, &history_key(&chain[1]), b"garbage");
    assert_eq!(scratch.gap(&function), Gap::before(&chain[2]));
    scratch.restore(&chain[1..2]);
    assert_eq!(
        (scratch.gap(&function), scratch.numbers(&function)),
        (None, vec![3, 2, 1])
    );
}

#[test]
fn histories_are_looked_through_and_kept_only_so_far() {
    let names: Vec<Vec<u8>> = (0..=HISTORY_MAX).map(|n| n.to_le_bytes().to_vec()).collect();
    let bytes: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
    let chain = chain(&owner(1), "f", &bytes);
    let function = chain[0].function();
    let scratch = with_last(&chain);
    scratch.restore(&chain[..HISTORY_MAX]);
    // The oldest one went, and nobody asks for it again.
    let oldest = scratch.read(|txn| RegistryTables::versions(txn, &function, Some(version(0, 4)), 10));
    let oldest = oldest.unwrap().0.into_iter().map(|signed| signed.hash());
    assert_eq!(oldest.collect::<Vec<_>>(), [chain[2].hash(), chain[1].hash()]);
    assert_eq!(scratch.gap(&function), None);
    let kept = KEPT_REVISIONS as u64 * size_of::<usize>() as u64;
    assert_eq!(scratch.owner_use(&owner(1)).bytes, kept);
}
