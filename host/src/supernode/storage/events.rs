//! The log of events, for tasks.

use orb_protocol::manifest::{Action, Verified};
use orb_protocol::wire::events::{Event, EventKind, NOTE_BYTES_MAX};
use orb_protocol::wire::extension::Extensions;
use redb::WriteTransaction;
use tokio::sync::watch;

use super::Storage;
use crate::format;
use crate::store::blocking;
use crate::store::database::{StoreError, TxnError};
use crate::store::events::{EventTable, Filter, Found};
use crate::store::registry::{Recorded, RegistryTables};

impl Storage {
    /// Writes events down, durably; their cursors are given here.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn write_events(&self, events: Vec<Event>) -> Result<(), StoreError> {
        let write = move |txn: &WriteTransaction| {
            let mut newest = None;
            for event in &events {
                newest = Some(EventTable::append(txn, event)?);
            }
            Ok(newest)
        };
        let newest = self.committer.write(write).await?;
        self.announce(newest);
        Ok(())
    }

    /// Events after a cursor, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn events_after(
        &self,
        filter: Filter,
        after: u64,
        limit: usize,
    ) -> Result<Found, StoreError> {
        let database = self.database.clone();
        blocking(move || database.read(|txn| EventTable::after(txn, &filter, after, limit))).await
    }

    /// The last events, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn latest_events(&self, filter: Filter, limit: usize) -> Result<Found, StoreError> {
        let database = self.database.clone();
        blocking(move || database.read(|txn| EventTable::latest(txn, &filter, limit))).await
    }

    /// Tells the newest event's cursor, and when there is a newer one.
    pub(crate) fn newest_event(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Wakes those who wait for events.
    pub(super) fn announce(&self, cursor: Option<u64>) {
        self.newest.send_if_modified(|newest| {
            let newer = cursor.is_some_and(|cursor| cursor > *newest);
            *newest = cursor.unwrap_or_default().max(*newest);
            newer
        });
    }
}

/// Has a manifest joined into the registry, and writes down what that did, in one transaction: nothing that
/// is acknowledged lacks its event. Returns the event's cursor, if there is one.
pub(super) fn noted(
    txn: &WriteTransaction,
    manifest: &Verified,
    record: impl FnOnce() -> Result<Recorded, TxnError>,
) -> Result<(Recorded, Option<u64>), TxnError> {
    let known = match manifest.publish() {
        Some(publish) => RegistryTables::function_needs(txn, &manifest.function(), &publish.artifact)?,
        None => false,
    };
    let recorded = record()?;
    let Recorded::Stored { before, .. } = &recorded else {
        return Ok((recorded, None));
    };
    let kind = kind_of(manifest, before.as_deref(), known);
    let cursor = EventTable::append(txn, &revised(manifest, kind))?;
    Ok((recorded, Some(cursor)))
}

/// What a revision does; `known`: the function's last revisions had its program before.
fn kind_of(manifest: &Verified, before: Option<&Verified>, known: bool) -> EventKind {
    let old = before.and_then(Verified::publish);
    match (&manifest.manifest().action, old) {
        (Action::Decommission(_), _) => EventKind::Decommissioned,
        (_, None) => EventKind::Published,
        (Action::Publish(new), Some(old)) if known && new.artifact != old.artifact => EventKind::RolledBack,
        _ => EventKind::Edited,
    }
}

fn revised(manifest: &Verified, kind: EventKind) -> Event {
    let content = manifest.manifest();
    let mut note = content.message.clone();
    note.truncate(note.floor_char_boundary(NOTE_BYTES_MAX));
    Event {
        cursor: 0,
        kind,
        function: Some(manifest.function()),
        owner: Some(content.owner),
        name: Some(content.name.clone()),
        version: Some(content.version),
        host: None,
        note,
        time_ms: format::now_ms(),
        extensions: Extensions::none(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::datadir::{DataDir, Role};
    use crate::store::registry::OwnerLimits;
    use crate::store::testing::{end, head, manifest, owner, publish, version};

    const PLENTY: OwnerLimits = OwnerLimits {
        functions: 10,
        bytes: 1 << 20,
    };

    async fn kinds(storage: &Storage) -> Vec<EventKind> {
        let found = storage.events_after(Filter::default(), 0, 100).await.unwrap();
        found.events.iter().map(|event| event.kind).collect()
    }

    async fn record(storage: &Storage, at: (u64, u64), action: Action) {
        let key = owner(1);
        let manifest = Arc::new(manifest(&key, "f", version(at.0, at.1), action));
        let head = head(&key, &manifest);
        let recorded = storage.record(&manifest, head, PLENTY, false).await;
        recorded.unwrap();
    }

    #[tokio::test]
    async fn every_change_of_the_registry_is_an_event_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(folder.path(), Role::Super).unwrap();
        let storage = Storage::open(&dir).unwrap();
        let mut newest = storage.newest_event();
        record(&storage, (0, 1), publish(b"one")).await;
        assert_eq!(*newest.borrow_and_update(), 1);
        record(&storage, (0, 2), publish(b"two")).await;
        record(&storage, (0, 3), publish(b"two")).await;
        record(&storage, (0, 4), publish(b"one")).await;
        // The same again, and one that comes too late.
        record(&storage, (0, 4), publish(b"one")).await;
        record(&storage, (0, 3), publish(b"two")).await;
        record(&storage, (0, 5), end()).await;
        record(&storage, (1, 1), publish(b"one")).await;
        assert_eq!(*newest.borrow_and_update(), 6);
        let expected = [
            EventKind::Published,
            EventKind::Edited,
            EventKind::Edited,
            EventKind::RolledBack,
            EventKind::Decommissioned,
            EventKind::Published,
        ];
        assert_eq!(kinds(&storage).await, expected);
        storage.close().unwrap();
        let storage = Storage::open(&dir).unwrap();
        assert_eq!(*storage.newest_event().borrow(), 6);
        assert_eq!(kinds(&storage).await, expected);
    }
}
