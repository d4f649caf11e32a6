//! What a super node keeps of its webhooks.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `webhooks` | target | the last event that was delivered, or given up |
//! | `dead_letters` | target, cursor | an event that was given up, and why |
//!
//! A target is a hash of what the webhook is, so that an edited configuration finds its webhooks again.

use std::collections::BTreeSet;

use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use orb_protocol::wire::events::Event;

use super::database::{Database, StoreError, TxnError, seal, unseal};

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

const CURSORS_NAME: &str = "webhooks";
const DEAD_NAME: &str = "dead_letters";
const CURSORS: Definition = TableDefinition::new(CURSORS_NAME);
const DEAD: Definition = TableDefinition::new(DEAD_NAME);

/// Dead letters that are kept of each webhook; the oldest go. They cost about 500 bytes each.
pub(crate) const DEAD_LETTERS_MAX: u64 = 1_000;
/// What is kept of the reason, in bytes.
const REASON_BYTES_MAX: usize = 256;

/// A webhook, whatever its secret is.
pub(crate) type TargetId = [u8; 32];

/// An event that could not be delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeadLetter {
    /// The event.
    pub(crate) event: Event,
    /// What went wrong the last time.
    pub(crate) reason: String,
    /// How often it was tried.
    pub(crate) attempts: u32,
}

/// The tables. Everything here blocks.
#[derive(Debug)]
pub(crate) struct WebhookTables;

impl WebhookTables {
    /// Makes the tables that are not there, forgets the webhooks that are not among these any more, and
    /// has those that are new begin after `newest`: they are told of what happens from now on.
    pub(crate) fn prepare(
        database: &Database,
        targets: &BTreeSet<TargetId>,
        newest: u64,
    ) -> Result<(), StoreError> {
        database.write(|txn| {
            let mut dead = txn.open_table(DEAD)?;
            dead.retain(|key, _| targets.iter().any(|target| key.starts_with(target)))?;
            let mut cursors = txn.open_table(CURSORS)?;
            cursors.retain(|key, _| targets.iter().any(|target| key == target))?;
            for target in targets {
                if cursors.get(target.as_slice())?.is_none() {
                    let sealed = seal(CURSORS_NAME, target, &newest);
                    cursors.insert(target.as_slice(), sealed.as_slice())?;
                }
            }
            Ok(())
        })
    }

    /// How far a webhook has been told.
    pub(crate) fn cursor(txn: &ReadTransaction, target: &TargetId) -> Result<u64, TxnError> {
        match txn.open_table(CURSORS)?.get(target.as_slice())? {
            Some(record) => Ok(unseal(CURSORS_NAME, target, record.value())?),
            None => Ok(0),
        }
    }

    /// Notes that a webhook has been told everything up to a cursor.
    pub(crate) fn advance(txn: &WriteTransaction, target: &TargetId, cursor: u64) -> Result<(), TxnError> {
        let sealed = seal(CURSORS_NAME, target, &cursor);
        let mut cursors = txn.open_table(CURSORS)?;
        cursors.insert(target.as_slice(), sealed.as_slice())?;
        Ok(())
    }

    /// Gives an event up, and goes on after it: both or neither.
    pub(crate) fn bury(
        txn: &WriteTransaction,
        target: &TargetId,
        letter: &DeadLetter,
    ) -> Result<(), TxnError> {
        let mut dead = txn.open_table(DEAD)?;
        keep(&mut dead, target, letter)?;
        prune(&mut dead, target)?;
        Self::advance(txn, target, letter.event.cursor)
    }

    /// Forgets a dead letter, if it is there: it was delivered.
    pub(crate) fn unbury(txn: &WriteTransaction, target: &TargetId, cursor: u64) -> Result<(), TxnError> {
        let mut dead = txn.open_table(DEAD)?;
        dead.remove(dead_key(target, cursor).as_slice())?;
        Ok(())
    }

    /// Keeps what became of a dead letter since, if it is still there.
    pub(crate) fn mark(
        txn: &WriteTransaction,
        target: &TargetId,
        letter: &DeadLetter,
    ) -> Result<(), TxnError> {
        let mut dead = txn.open_table(DEAD)?;
        let key = dead_key(target, letter.event.cursor);
        let is_there = dead.get(key.as_slice())?.is_some();
        match is_there {
            true => keep(&mut dead, target, letter),
            false => Ok(()),
        }
    }

    /// The dead letters of a webhook, oldest first. One that is damaged is left out, and named in the log.
    pub(crate) fn dead(txn: &ReadTransaction, target: &TargetId) -> Result<Vec<DeadLetter>, TxnError> {
        let dead = txn.open_table(DEAD)?;
        let (from, to) = (dead_key(target, 0), dead_key(target, u64::MAX));
        let mut letters = Vec::new();
        for entry in dead.range(from.as_slice()..to.as_slice())? {
            let (key, record) = entry?;
            match unseal(DEAD_NAME, key.value(), record.value()) {
                Ok(letter) => letters.push(letter),
                Err(error) => tracing::error!(%error, "a dead letter is left out"),
            }
        }
        Ok(letters)
    }
}

fn dead_key(target: &TargetId, cursor: u64) -> Vec<u8> {
    [target.as_slice(), &cursor.to_be_bytes()].concat()
}

fn keep(
    dead: &mut redb::Table<'_, &'static [u8], &'static [u8]>,
    target: &TargetId,
    letter: &DeadLetter,
) -> Result<(), TxnError> {
    let mut letter = letter.clone();
    letter
        .reason
        .truncate(letter.reason.floor_char_boundary(REASON_BYTES_MAX));
    let key = dead_key(target, letter.event.cursor);
    dead.insert(key.as_slice(), seal(DEAD_NAME, &key, &letter).as_slice())?;
    Ok(())
}

/// Forgets the oldest dead letters of a webhook beyond [`DEAD_LETTERS_MAX`].
fn prune(
    dead: &mut redb::Table<'_, &'static [u8], &'static [u8]>,
    target: &TargetId,
) -> Result<(), TxnError> {
    let (from, to) = (dead_key(target, 0), dead_key(target, u64::MAX));
    let mut surplus: Vec<Vec<u8>> = Vec::new();
    let most = usize::try_from(DEAD_LETTERS_MAX).unwrap_or(usize::MAX);
    for entry in dead.range(from.as_slice()..to.as_slice())?.rev().skip(most) {
        surplus.push(entry?.0.value().to_vec());
    }
    for key in surplus {
        dead.remove(key.as_slice())?;
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use orb_protocol::wire::events::EventKind;
    use orb_protocol::wire::extension::Extensions;

    use super::*;

    fn letter(cursor: u64) -> DeadLetter {
        let event = Event {
            cursor,
            kind: EventKind::HostJoined,
            function: None,
            owner: None,
            name: None,
            version: None,
            host: None,
            note: String::new(),
            time_ms: 0,
            extensions: Extensions::none(),
        };
        DeadLetter {
            event,
            reason: "é".repeat(REASON_BYTES_MAX),
            attempts: 3,
        }
    }

    fn scratch(targets: &[TargetId]) -> (tempfile::TempDir, Database) {
        let scratch = tempfile::tempdir().unwrap();
        let database = Database::open(&scratch.path().join("orb.redb")).unwrap();
        prepare(&database, targets, 7);
        (scratch, database)
    }

    fn prepare(database: &Database, targets: &[TargetId], newest: u64) {
        let targets = targets.iter().copied().collect();
        WebhookTables::prepare(database, &targets, newest).unwrap();
    }

    fn cursor(database: &Database, target: TargetId) -> u64 {
        database.read(|txn| WebhookTables::cursor(txn, &target)).unwrap()
    }

    fn dead(database: &Database, target: TargetId) -> Vec<u64> {
        let letters = database.read(|txn| WebhookTables::dead(txn, &target)).unwrap();
        letters.iter().map(|letter| letter.event.cursor).collect()
    }

    #[test]
    fn a_webhook_goes_on_where_it_was_and_one_that_is_gone_is_forgotten() {
        let (one, two) = ([1; 32], [2; 32]);
        let (_scratch, database) = scratch(&[one, two]);
        let write = |txn: &WriteTransaction| {
            WebhookTables::advance(txn, &one, 9)?;
            WebhookTables::bury(txn, &two, &letter(8))
        };
        database.write(write).unwrap();
        prepare(&database, &[one, two], 20);
        assert_eq!((cursor(&database, one), cursor(&database, two)), (9, 8));
        assert_eq!(dead(&database, two), vec![8]);
        prepare(&database, &[one], 30);
        prepare(&database, &[one, two], 40);
        assert_eq!((cursor(&database, one), cursor(&database, two)), (9, 40));
        assert!(dead(&database, two).is_empty());
    }

    #[test]
    fn what_becomes_of_a_dead_letter_moves_no_cursor() {
        let one = [1; 32];
        let (_scratch, database) = scratch(&[one]);
        let write = |txn: &WriteTransaction| {
            for number in [8, 9] {
                WebhookTables::bury(txn, &one, &letter(number))?;
            }
            WebhookTables::advance(txn, &one, 20)?;
            WebhookTables::unbury(txn, &one, 8)?;
            WebhookTables::mark(
                txn,
                &one,
                &DeadLetter {
                    attempts: 4,
                    ..letter(9)
                },
            )?;
            // That one is gone meanwhile.
            WebhookTables::mark(txn, &one, &letter(8))?;
            WebhookTables::unbury(txn, &one, 7)
        };
        database.write(write).unwrap();
        assert_eq!((dead(&database, one), cursor(&database, one)), (vec![9], 20));
        let letters = database.read(|txn| WebhookTables::dead(txn, &one)).unwrap();
        assert_eq!(letters[0].attempts, 4);
    }

    #[test]
    fn so_many_dead_letters_are_kept_of_each_webhook() {
        let (one, two) = ([1; 32], [2; 32]);
        let (_scratch, database) = scratch(&[one, two]);
        let write = |txn: &WriteTransaction| {
            WebhookTables::bury(txn, &two, &letter(1))?;
            for number in 1..=DEAD_LETTERS_MAX + 2 {
                WebhookTables::bury(txn, &one, &letter(number))?;
            }
            Ok(())
        };
        database.write(write).unwrap();
        let kept = dead(&database, one);
        assert_eq!(kept.len() as u64, DEAD_LETTERS_MAX);
        assert_eq!((kept[0], cursor(&database, one)), (3, DEAD_LETTERS_MAX + 2));
        assert_eq!(dead(&database, two), vec![1]);
        let letters = database.read(|txn| WebhookTables::dead(txn, &one)).unwrap();
        assert_eq!(letters[0].reason.len(), REASON_BYTES_MAX);
    }
}
