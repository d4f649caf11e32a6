#![expect(clippy::unwrap_used, reason = "a test panics on surprise")]

use orb_protocol::manifest::Verified;

use super::*;
use crate::store::registry::OwnerLimits;
use crate::store::testing::{end, head, manifest, owner, publish, version};

const OWN: LogId = [1; 16];
const OTHER: LogId = [2; 16];

struct Scratch {
    folder: tempfile::TempDir,
    database: Database,
}

fn open(folder: &tempfile::TempDir) -> Database {
    let database = Database::open(&folder.path().join("orb.redb")).unwrap();
    RegistryTables::prepare(&database).unwrap();
    database
}

fn scratch() -> Scratch {
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder);
    assert_eq!(ChangeTables::prepare(&database, OWN).unwrap(), OWN);
    Scratch { folder, database }
}

fn revision(name: &str, number: u64) -> Verified {
    manifest(&owner(1), name, version(0, number), publish(name.as_bytes()))
}

fn record(txn: &WriteTransaction, manifest: &Verified) -> Result<(), TxnError> {
    let head = head(&owner(1), manifest);
    RegistryTables::record(txn, manifest, &head, &OwnerLimits::NONE, false).map(drop)
}

impl Scratch {
    fn publish(&self, manifest: &Verified) -> Cursor {
        let write = |txn: &WriteTransaction| {
            record(txn, manifest)?;
            ChangeTables::append(txn, OWN, &manifest.function())
        };
        self.database.write(write).unwrap()
    }

    fn missing(&self, known: &[Cursor]) -> Vec<Cursor> {
        let known = Clock::from_cursors(known.iter().copied());
        let (mut from, mut all) = (None, Vec::new());
        loop {
            let read = |txn: &ReadTransaction| {
                let until = ChangeTables::clock(txn)?;
                ChangeTables::missing(txn, &known, &until, from)
            };
            let page = self.database.read(read).unwrap();
            all.extend(page.changes.iter().map(|change| change.at));
            match page.next {
                Some(next) => from = Some(next),
                None => return all,
            }
        }
    }

    fn clock(&self) -> Clock {
        self.database.read(ChangeTables::clock).unwrap()
    }
}

fn at(log: LogId, number: u64) -> Cursor {
    Cursor { log, number }
}

#[test]
fn changes_are_numbered_and_only_the_last_of_a_function_is_kept() {
    let scratch = scratch();
    assert_eq!(scratch.publish(&revision("a", 1)), at(OWN, 1));
    assert_eq!(scratch.publish(&revision("b", 1)), at(OWN, 2));
    assert_eq!(scratch.publish(&revision("a", 2)), at(OWN, 3));
    assert_eq!(scratch.missing(&[]), [at(OWN, 2), at(OWN, 3)]);
    assert_eq!(scratch.missing(&[at(OWN, 2)]), [at(OWN, 3)]);
    assert_eq!(scratch.missing(&[at(OWN, 3)]), []);
    let end = manifest(&owner(1), "b", version(0, 2), end());
    scratch.publish(&end);
    assert_eq!(scratch.missing(&[]), [at(OWN, 3), at(OWN, 4)]);
}

#[test]
fn changes_of_others_are_passed_on_under_their_own_numbers() {
    let scratch = scratch();
    scratch.publish(&revision("a", 1));
    let theirs = revision("b", 1);
    let take_in = |number| {
        let write = |txn: &WriteTransaction| {
            record(txn, &theirs)?;
            ChangeTables::note(txn, at(OTHER, number), &theirs.function())?;
            ChangeTables::raise_next(txn, at(OTHER, number))
        };
        scratch.database.write(write).unwrap();
    };
    take_in(2);
    assert_eq!(scratch.clock().get(&OTHER), 0, "number 1 is missing");
    let raise = |txn: &WriteTransaction| ChangeTables::raise(txn, &[at(OTHER, 2)]);
    scratch.database.write(raise).unwrap();
    assert_eq!(scratch.missing(&[at(OWN, 1)]), [at(OTHER, 2)]);
    take_in(3);
    assert_eq!(scratch.clock().get(&OTHER), 3);
}

#[test]
fn a_page_has_an_end_and_the_next_one_begins_there() {
    let scratch = scratch();
    let write = |txn: &WriteTransaction| {
        for number in 0..400 {
            let manifest = revision(&format!("f{number}"), 1);
            record(txn, &manifest)?;
            ChangeTables::append(txn, OWN, &manifest.function())?;
        }
        Ok(())
    };
    scratch.database.write(write).unwrap();
    let first = scratch.database.read(|txn| {
        let until = ChangeTables::clock(txn)?;
        ChangeTables::missing(txn, &Clock::default(), &until, None)
    });
    assert!(first.unwrap().next.is_some(), "one page does not hold them all");
    let expected: Vec<Cursor> = (1..=400).map(|number| at(OWN, number)).collect();
    assert_eq!(scratch.missing(&[]), expected);
}

#[test]
fn an_older_database_is_numbered_once_and_a_log_keeps_its_id() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder);
    let write = |txn: &WriteTransaction| {
        record(txn, &revision("a", 1))?;
        record(txn, &revision("b", 1))
    };
    database.write(write).unwrap();
    assert_eq!(ChangeTables::prepare(&database, OWN).unwrap(), OWN);
    database.close().unwrap();
    let database = open(&folder);
    assert_eq!(ChangeTables::prepare(&database, OTHER).unwrap(), OWN);
    let scratch = Scratch { folder, database };
    assert_eq!(scratch.missing(&[]), [at(OWN, 1), at(OWN, 2)]);
    assert!(scratch.folder.path().exists());
}
