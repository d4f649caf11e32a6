//! Where each live manifest came into the federation, so that others can be sent exactly what they lack.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `changes` | log, number | the function that changed; only its last change is kept |
//! | `origins` | function | log and number of the change that made its manifest live |
//! | `clock` | log | up to which number this node knows everything |
//! | `members` | node | another super node's record |
//! | `identity` | `log` | the id of this node's own log |
//!
//! Numbers in keys are big-endian. `changes` has at most one entry for each function, so it is never cut.

use std::ops::Bound;

use redb::{
    ReadTransaction, ReadableTable, ReadableTableMetadata, Table, TableDefinition, TableHandle,
    WriteTransaction,
};

use orb_protocol::federation::clock::Clock;
use orb_protocol::federation::reconcile::{function_start, item_of};
use orb_protocol::id::{FunctionId, NodeId};
use orb_protocol::manifest::Action;
use orb_protocol::wire::extension::Extensions;
use orb_protocol::wire::federation::{Cursor, ItemId, LogId, RegistryChange, SignedRecord};
use orb_protocol::wire::packed::{PAGE_BYTES, weight};

use super::database::{Database, StoreError, TxnError, seal, unseal};
use super::registry::RegistryTables;

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;
type Writable<'txn> = Table<'txn, &'static [u8], &'static [u8]>;

const CHANGES: Definition = TableDefinition::new("changes");
const ORIGINS: Definition = TableDefinition::new("origins");
const CLOCK: Definition = TableDefinition::new("clock");
const MEMBERS: Definition = TableDefinition::new("members");
const IDENTITY: Definition = TableDefinition::new("identity");
const LOG: &[u8] = b"log";

/// A page of changes, and where the next one begins.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) changes: Vec<RegistryChange>,
    pub(crate) next: Option<Cursor>,
}

/// The tables. Everything here blocks.
#[derive(Debug)]
pub(crate) struct ChangeTables;

impl ChangeTables {
    /// Makes the tables that are not there, and numbers the functions of a database that has none yet.
    /// Returns the id of this node's own log; `fresh` is taken for it the first time.
    pub(crate) fn prepare(database: &Database, fresh: LogId) -> Result<LogId, StoreError> {
        database.write(|txn| {
            for table in [CHANGES, ORIGINS, CLOCK, MEMBERS, IDENTITY] {
                txn.open_table(table)?;
            }
            let log = identity(&mut txn.open_table(IDENTITY)?, fresh)?;
            if txn.open_table(ORIGINS)?.len()? < RegistryTables::count(txn)? {
                for function in RegistryTables::functions(txn)? {
                    if txn.open_table(ORIGINS)?.get(key(&function))?.is_none() {
                        Self::append(txn, log, &function)?;
                    }
                }
            }
            Ok(log)
        })
    }

    /// Gives a function's change the next number of this node's own log.
    pub(crate) fn append(
        txn: &WriteTransaction,
        log: LogId,
        function: &FunctionId,
    ) -> Result<Cursor, TxnError> {
        let number = number(&txn.open_table(CLOCK)?, &log)? + 1;
        let at = Cursor { log, number };
        Self::note(txn, at, function)?;
        Self::raise(txn, &[at])?;
        Ok(at)
    }

    /// Notes which change made a function's manifest live.
    pub(crate) fn note(txn: &WriteTransaction, at: Cursor, function: &FunctionId) -> Result<(), TxnError> {
        let (mut changes, mut origins) = (txn.open_table(CHANGES)?, txn.open_table(ORIGINS)?);
        if let Some(old) = origin(&origins, function)? {
            changes.remove(change_key(old).as_slice())?;
        }
        let place = change_key(at);
        changes.insert(
            place.as_slice(),
            seal(CHANGES.name(), &place, function).as_slice(),
        )?;
        let value = (at.log, at.number);
        origins.insert(
            key(function),
            seal(ORIGINS.name(), key(function), &value).as_slice(),
        )?;
        Ok(())
    }

    /// Everything up to these is known now.
    pub(crate) fn raise(txn: &WriteTransaction, known: &[Cursor]) -> Result<(), TxnError> {
        let mut clock = txn.open_table(CLOCK)?;
        for cursor in known {
            if cursor.number > number(&clock, &cursor.log)? {
                let value = seal(CLOCK.name(), &cursor.log, &cursor.number);
                clock.insert(cursor.log.as_slice(), value.as_slice())?;
            }
        }
        Ok(())
    }

    /// The same for one change, if nothing before it is missing.
    pub(crate) fn raise_next(txn: &WriteTransaction, at: Cursor) -> Result<(), TxnError> {
        let is_next = number(&txn.open_table(CLOCK)?, &at.log)? + 1 == at.number;
        if is_next { Self::raise(txn, &[at]) } else { Ok(()) }
    }

    /// What this node knows of all logs.
    pub(crate) fn clock(txn: &ReadTransaction) -> Result<Clock, TxnError> {
        let mut clock = Clock::default();
        for entry in txn.open_table(CLOCK)?.iter()? {
            let (log, record) = entry?;
            let Ok(id) = LogId::try_from(log.value()) else {
                continue;
            };
            let number = unseal(CLOCK.name(), log.value(), record.value())?;
            clock.raise(Cursor { log: id, number });
        }
        Ok(clock)
    }

    /// Changes up to `until` that `known` does not cover, from `from` on.
    pub(crate) fn missing(
        txn: &ReadTransaction,
        known: &Clock,
        until: &Clock,
        from: Option<Cursor>,
    ) -> Result<Page, TxnError> {
        let changes = txn.open_table(CHANGES)?;
        let mut page = Page::default();
        let mut bytes = 0;
        for cursor in until.cursors() {
            let mut start = known.get(&cursor.log) + 1;
            match from {
                Some(from) if cursor.log < from.log => continue,
                Some(from) if cursor.log == from.log => start = start.max(from.number),
                _ => {}
            }
            if start > cursor.number {
                continue;
            }
            let of = |number| {
                change_key(Cursor {
                    log: cursor.log,
                    number,
                })
            };
            let (first, last) = (of(start), of(cursor.number));
            let range = (
                Bound::Included(first.as_slice()),
                Bound::Included(last.as_slice()),
            );
            for entry in changes.range::<&[u8]>(range)? {
                let (place, record) = entry?;
                let Some(at) = parse_change_key(place.value()) else {
                    continue;
                };
                let function = unseal(CHANGES.name(), place.value(), record.value())?;
                if bytes >= PAGE_BYTES {
                    page.next = Some(at);
                    return Ok(page);
                }
                if let Some(change) = change(txn, at, &function)? {
                    bytes += weight(&change);
                    page.changes.push(change);
                }
            }
        }
        Ok(page)
    }

    /// An item for each function that is known.
    pub(crate) fn items(txn: &ReadTransaction) -> Result<Vec<ItemId>, TxnError> {
        let mut items = Vec::new();
        RegistryTables::all_live(txn, |function, manifest, hash| {
            let is_end = matches!(manifest.action, Action::Decommission(_));
            items.push(item_of(&function, manifest.version, is_end, &hash));
        })?;
        Ok(items)
    }

    /// What is live of the items' functions, as much as one message takes; and the items that are left. One whose
    /// function is not known here is left out.
    pub(crate) fn wanted(
        txn: &ReadTransaction,
        mut items: Vec<ItemId>,
    ) -> Result<(Vec<RegistryChange>, Vec<ItemId>), TxnError> {
        let origins = txn.open_table(ORIGINS)?;
        let (mut changes, mut bytes) = (Vec::new(), 0);
        while bytes < PAGE_BYTES
            && let Some(item) = items.pop()
        {
            let start = function_start(&item);
            let next = origins.range(start..)?.next().transpose()?;
            let Some((key, _)) = next.filter(|(key, _)| key.value().starts_with(start)) else {
                continue;
            };
            let Ok(function) = key.value().try_into().map(FunctionId::from_bytes) else {
                continue;
            };
            let Some(at) = origin(&origins, &function)? else {
                continue;
            };
            if let Some(change) = change(txn, at, &function)? {
                bytes += weight(&change);
                changes.push(change);
            }
        }
        Ok((changes, items))
    }

    /// Other super nodes' records.
    pub(crate) fn members(txn: &ReadTransaction) -> Result<Vec<SignedRecord>, TxnError> {
        let mut members = Vec::new();
        for entry in txn.open_table(MEMBERS)?.iter()? {
            let (node, record) = entry?;
            // One that is damaged is told anew by the others.
            members.extend(unseal(MEMBERS.name(), node.value(), record.value()).ok());
        }
        Ok(members)
    }

    /// Keeps another super node's record.
    pub(crate) fn keep_member(
        txn: &WriteTransaction,
        node: &NodeId,
        record: &SignedRecord,
    ) -> Result<(), TxnError> {
        let key = node.as_bytes().as_slice();
        let value = seal(MEMBERS.name(), key, record);
        txn.open_table(MEMBERS)?.insert(key, value.as_slice())?;
        Ok(())
    }
}

fn change(
    txn: &ReadTransaction,
    at: Cursor,
    function: &FunctionId,
) -> Result<Option<RegistryChange>, TxnError> {
    let live = RegistryTables::with_head(txn, function)?;
    Ok(live.map(|(manifest, head)| RegistryChange {
        at,
        manifest,
        head_signature: head.signature,
        extensions: Extensions::none(),
    }))
}

fn identity(table: &mut Writable<'_>, fresh: LogId) -> Result<LogId, TxnError> {
    if let Some(record) = table.get(LOG)? {
        return Ok(unseal(IDENTITY.name(), LOG, record.value())?);
    }
    table.insert(LOG, seal(IDENTITY.name(), LOG, &fresh).as_slice())?;
    Ok(fresh)
}

fn number(table: &impl ReadableTable<&'static [u8], &'static [u8]>, log: &LogId) -> Result<u64, TxnError> {
    match table.get(log.as_slice())? {
        Some(record) => Ok(unseal(CLOCK.name(), log, record.value())?),
        None => Ok(0),
    }
}

fn origin(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    function: &FunctionId,
) -> Result<Option<Cursor>, TxnError> {
    let Some(record) = table.get(key(function))? else {
        return Ok(None);
    };
    let (log, number) = unseal(ORIGINS.name(), key(function), record.value())?;
    Ok(Some(Cursor { log, number }))
}

fn key(function: &FunctionId) -> &[u8] {
    function.as_bytes().as_slice()
}

fn change_key(at: Cursor) -> Vec<u8> {
    [at.log.as_slice(), &at.number.to_be_bytes()].concat()
}

fn parse_change_key(key: &[u8]) -> Option<Cursor> {
    let (log, number) = key.split_at_checked(size_of::<LogId>())?;
    Some(Cursor {
        log: log.try_into().ok()?,
        number: u64::from_be_bytes(number.try_into().ok()?),
    })
}

#[cfg(test)]
#[path = "changes_tests.rs"]
mod tests;
