//! A super node's log of events: table `events`, from cursor (big-endian) to event.
//!
//! Cursors count up from 1 without gaps. The oldest events go when there are [`EVENTS_MAX`]; at least
//! the newest one always stays, so that a cursor is never given twice.

use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use orb_protocol::id::{FunctionId, OwnerId};
use orb_protocol::wire::events::Event;

use super::database::{Database, StoreError, TxnError, seal, unseal};

const EVENTS: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new(NAME);
const NAME: &str = "events";

/// Events that are kept. At some 250 bytes each they take 25 MiB, and cover a day on which something
/// happens every second.
pub(crate) const EVENTS_MAX: u64 = 100_000;
/// Events that go at once when there are too many: one by one it would cost every write something.
const PRUNED_AT_ONCE: u64 = 1_000;
/// Events that are looked through for one page: about 10 ms of a core, whatever the filter finds.
const LOOKED_THROUGH_MAX: u64 = 10_000;

/// Which events somebody wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Only about this owner's functions.
    pub(crate) owner: Option<OwnerId>,
    /// Only about this function.
    pub(crate) function: Option<FunctionId>,
}

/// Some events that were looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Oldest first.
    pub(crate) events: Vec<Event>,
    /// The last one that was looked at.
    pub(crate) cursor: u64,
    /// Whether there are events after the cursor.
    pub(crate) more: bool,
    /// Whether some after the cursor that was begun with are not kept any more.
    pub(crate) gap: bool,
}

/// The table. Everything here blocks.
#[derive(Debug)]
pub(crate) struct EventTable;

impl Filter {
    /// Whether it wants this event.
    pub(crate) fn takes(&self, event: &Event) -> bool {
        self.owner.is_none_or(|owner| event.owner == Some(owner))
            && self
                .function
                .is_none_or(|function| event.function == Some(function))
    }
}

impl EventTable {
    /// Makes the table if it is not there. Returns the newest event's cursor, 0 if there is none.
    pub(crate) fn prepare(database: &Database) -> Result<u64, StoreError> {
        database.write(|txn| last(&txn.open_table(EVENTS)?))
    }

    /// Writes an event down under the next cursor, which is returned, and makes room for it.
    pub(crate) fn append(txn: &WriteTransaction, event: &Event) -> Result<u64, TxnError> {
        Self::append_within(txn, event, EVENTS_MAX, PRUNED_AT_ONCE)
    }

    fn append_within(
        txn: &WriteTransaction,
        event: &Event,
        most: u64,
        at_once: u64,
    ) -> Result<u64, TxnError> {
        let mut table = txn.open_table(EVENTS)?;
        let cursor = last(&table)? + 1;
        let first = first(&table)?.unwrap_or(cursor);
        if cursor - first >= most {
            let kept = (first + at_once).min(cursor - 1).to_be_bytes();
            table.retain_in(..kept.as_slice(), |_, _| false)?;
        }
        let (key, event) = (
            cursor.to_be_bytes(),
            Event {
                cursor,
                ..event.clone()
            },
        );
        table.insert(key.as_slice(), seal(NAME, &key, &event).as_slice())?;
        Ok(cursor)
    }

    /// Events after a cursor that the filter takes, at most `limit`.
    pub(crate) fn after(
        txn: &ReadTransaction,
        filter: &Filter,
        after: u64,
        limit: usize,
    ) -> Result<Found, TxnError> {
        let table = txn.open_table(EVENTS)?;
        let newest = last(&table)?;
        let oldest = first(&table)?.unwrap_or(1);
        // Nobody has seen an event that is still to come: the log is another one than it was.
        let gap = after > newest || after.saturating_add(1) < oldest;
        let after = if gap { oldest - 1 } else { after };
        let mut found = Found {
            cursor: after,
            gap,
            ..Found::default()
        };
        let end = newest.min(after + LOOKED_THROUGH_MAX);
        let (from, to) = ((after + 1).to_be_bytes(), (end + 1).to_be_bytes());
        if from < to {
            for entry in table.range(from.as_slice()..to.as_slice())? {
                let (key, record) = entry?;
                found.look_at(filter, key.value(), record.value());
                if found.events.len() >= limit {
                    break;
                }
            }
        }
        found.more = found.cursor < newest;
        Ok(found)
    }

    /// The last events that the filter takes, at most `limit`. All are looked through for them if need
    /// be.
    pub(crate) fn latest(txn: &ReadTransaction, filter: &Filter, limit: usize) -> Result<Found, TxnError> {
        let table = txn.open_table(EVENTS)?;
        let mut found = Found::default();
        for entry in table.iter()?.rev() {
            if found.events.len() >= limit {
                break;
            }
            let (key, record) = entry?;
            found.look_at(filter, key.value(), record.value());
        }
        found.events.reverse();
        found.cursor = last(&table)?;
        Ok(found)
    }
}

impl Found {
    /// Takes a record in, if the filter does. A damaged one is missed by nobody but the log.
    fn look_at(&mut self, filter: &Filter, key: &[u8], record: &[u8]) {
        self.cursor = cursor_of(key).unwrap_or(self.cursor);
        match unseal::<Event>(NAME, key, record) {
            Ok(event) if filter.takes(&event) => self.events.push(event),
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "an event is left out"),
        }
    }
}

fn cursor_of(key: &[u8]) -> Option<u64> {
    key.try_into().map(u64::from_be_bytes).ok()
}

fn first(table: &impl ReadableTable<&'static [u8], &'static [u8]>) -> Result<Option<u64>, TxnError> {
    Ok(table.first()?.and_then(|(key, _)| cursor_of(key.value())))
}

fn last(table: &impl ReadableTable<&'static [u8], &'static [u8]>) -> Result<u64, TxnError> {
    let last = table.last()?.and_then(|(key, _)| cursor_of(key.value()));
    Ok(last.unwrap_or(0))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use orb_protocol::wire::events::EventKind;
    use orb_protocol::wire::extension::Extensions;

    use super::*;

    fn event(function: u8) -> Event {
        Event {
            cursor: 0,
            kind: EventKind::Edited,
            function: Some(FunctionId::from_bytes([function; 32])),
            owner: Some(OwnerId::from_bytes([function / 2; 32])),
            name: Some("f".parse().unwrap()),
            version: None,
            host: None,
            note: String::new(),
            time_ms: 1_790_000_000_000,
            extensions: Extensions::none(),
        }
    }

    fn scratch() -> (tempfile::TempDir, Database) {
        let scratch = tempfile::tempdir().unwrap();
        let database = Database::open(&scratch.path().join("orb.redb")).unwrap();
        assert_eq!(EventTable::prepare(&database).unwrap(), 0);
        (scratch, database)
    }

    /// Writes events about functions 1, 2, 3, 4, 1, 2, …; keeps at most `most`.
    fn fill(database: &Database, count: u8, most: u64) {
        let write = |txn: &WriteTransaction| {
            for number in 0..count {
                EventTable::append_within(txn, &event(number % 4 + 1), most, 3)?;
            }
            Ok(())
        };
        database.write(write).unwrap();
    }

    fn after(database: &Database, filter: Filter, after: u64, limit: usize) -> (Vec<u64>, Found) {
        let found = database
            .read(|txn| EventTable::after(txn, &filter, after, limit))
            .unwrap();
        (found.events.iter().map(|event| event.cursor).collect(), found)
    }

    #[test]
    fn pages_lead_from_the_first_event_to_the_last() {
        let (_scratch, database) = scratch();
        let (cursors, empty) = after(&database, Filter::default(), 0, 3);
        assert_eq!((cursors, empty), (vec![], Found::default()));
        fill(&database, 8, 100);
        assert_eq!(EventTable::prepare(&database).unwrap(), 8);
        let all = Filter::default();
        let (cursors, found) = after(&database, all, 0, 5);
        assert_eq!((cursors, found.cursor), (vec![1, 2, 3, 4, 5], 5));
        assert!(found.more && !found.gap);
        let (cursors, found) = after(&database, all, 5, 5);
        assert_eq!((cursors, found.cursor), (vec![6, 7, 8], 8));
        assert!(!found.more && !found.gap);
        assert_eq!(after(&database, all, 8, 5).1.cursor, 8);
    }

    #[test]
    fn a_filter_passes_over_the_others() {
        let (_scratch, database) = scratch();
        fill(&database, 8, 100);
        let function = Filter {
            function: Some(FunctionId::from_bytes([3; 32])),
            ..Filter::default()
        };
        let owner = Filter {
            owner: Some(OwnerId::from_bytes([1; 32])),
            ..Filter::default()
        };
        let (cursors, found) = after(&database, function, 0, 100);
        assert_eq!((cursors, found.cursor, found.more), (vec![3, 7], 8, false));
        assert_eq!(after(&database, owner, 0, 100).0, [2, 3, 6, 7]);
        let latest = |filter: Filter, limit| {
            let found = database.read(|txn| EventTable::latest(txn, &filter, limit));
            let found = found.unwrap();
            let cursors: Vec<u64> = found.events.iter().map(|event| event.cursor).collect();
            (cursors, found.cursor)
        };
        assert_eq!(latest(owner, 3), (vec![3, 6, 7], 8));
        assert_eq!(latest(Filter::default(), 2), (vec![7, 8], 8));
    }

    #[test]
    fn the_oldest_go_and_whoever_was_behind_is_told() {
        let (_scratch, database) = scratch();
        fill(&database, 12, 5);
        let all = Filter::default();
        let (cursors, found) = after(&database, all, 0, 100);
        assert!(found.gap);
        assert_eq!(*cursors.last().unwrap(), 12);
        assert!((3..=5).contains(&cursors.len()), "{cursors:?}");
        let oldest = cursors[0];
        assert!(!after(&database, all, oldest - 1, 100).1.gap);
        assert!(after(&database, all, oldest - 2, 100).1.gap);
        // A log that was begun anew.
        let (cursors, found) = after(&database, all, 13, 100);
        assert!(found.gap && cursors[0] == oldest);
        assert!(!after(&database, all, 12, 100).1.gap);
        assert!(after(&database, all, u64::MAX, 100).1.gap);
    }

    #[test]
    fn a_damaged_event_is_left_out() {
        let (_scratch, database) = scratch();
        fill(&database, 3, 100);
        let damage = |txn: &WriteTransaction| {
            let key = 2u64.to_be_bytes();
            txn.open_table(EVENTS)?
                .insert(key.as_slice(), b"damaged".as_slice())?;
            Ok(())
        };
        database.write(damage).unwrap();
        let (cursors, found) = after(&database, Filter::default(), 0, 100);
        assert_eq!((cursors, found.cursor), (vec![1, 3], 3));
    }
}
