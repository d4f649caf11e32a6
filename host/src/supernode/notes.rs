//! What happens to hosts and their replicas, until it is written down.
//!
//! [`Notes::note`] takes a note at once and never waits: it is called where the driver's lock may be
//! held. [`keep_writing`] writes notes to the log of events, some at a time. A revision's event does
//! not come this way: it is written together with the revision.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use orb_protocol::coordinator::Losing;
use orb_protocol::id::{FunctionId, NodeId};
use orb_protocol::manifest::Version;
use orb_protocol::wire::events::{Event, EventKind, NOTE_BYTES_MAX};
use orb_protocol::wire::extension::Extensions;
use tokio::sync::Notify;

use super::SuperNode;
use super::limits::PublishRate;
use super::losses::Losses;
use super::storage::Storage;
use crate::counters::Counter;
use crate::format;

/// Notes that wait: a thousand hosts that come back at once, with some replicas each. They cost about
/// 200 bytes each.
const NOTES_MAX: usize = 4_096;
/// Notes that are written at once.
const BATCH_MAX: usize = 256;
/// How long is gathered before something is written: what happens to hosts is not worth a sync of the
/// disk each.
const GATHER: Duration = Duration::from_millis(100);

/// Something that happened to a host, a replica or a super node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    kind: EventKind,
    node: NodeId,
    replica: Option<(FunctionId, Option<Version>)>,
    text: String,
    time_ms: u64,
}

impl Note {
    /// About a host or a super node.
    pub(crate) fn of_node(kind: EventKind, node: NodeId, text: &str) -> Self {
        let mut text = text.to_owned();
        text.truncate(text.floor_char_boundary(NOTE_BYTES_MAX));
        Self {
            kind,
            node,
            replica: None,
            text,
            time_ms: format::now_ms(),
        }
    }

    /// About a function at a host.
    pub(crate) fn of_replica(
        kind: EventKind,
        node: NodeId,
        function: FunctionId,
        version: Option<Version>,
        text: &str,
    ) -> Self {
        Self {
            replica: Some((function, version)),
            ..Self::of_node(kind, node, text)
        }
    }
}

/// Takes notes.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    state: Mutex<State>,
    wake: Notify,
    /// How much each address has to be noted.
    rate: PublishRate,
    /// Notes that there was no room for.
    pub(crate) dropped: Counter,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Note>,
    losses: Losses,
    /// The node ends: what happens to its connections now is no news.
    ended: bool,
}

impl Notes {
    /// Takes a note. If there are too many already it is dropped, and counted.
    pub(crate) fn note(&self, note: Note) {
        let mut state = self.lock();
        if state.ended {
            return;
        }
        if state.waiting.len() >= NOTES_MAX {
            self.dropped.add();
            return;
        }
        state.waiting.push_back(note);
        drop(state);
        self.wake.notify_one();
    }

    /// The same for what somebody at this address did, who may want to fill the log: so much of it is
    /// noted as an address may publish.
    pub(crate) fn note_of_peer(&self, address: IpAddr, note: Note) {
        if self.rate.admit(Instant::now(), address).is_err() {
            self.dropped.add();
            return;
        }
        self.note(note);
    }

    /// A host has joined.
    pub(crate) fn on_joined(&self, address: IpAddr, host: NodeId) {
        self.lock().losses.back(&host);
        self.note_of_peer(address, Note::of_node(EventKind::HostJoined, host, ""));
    }

    /// A host is ready for a version that it was not ready for; `held`: it had another one.
    pub(crate) fn on_seeded(
        &self,
        address: IpAddr,
        host: NodeId,
        (function, version): (FunctionId, Version),
        held: bool,
    ) {
        let repaired = !held && self.lock().losses.mend(&function, &host);
        let kind = match repaired {
            true => EventKind::Repaired,
            false => EventKind::Seeded,
        };
        let note = Note::of_replica(kind, host, function, Some(version), "");
        self.note_of_peer(address, note);
    }

    /// Hosts are lost.
    pub(crate) fn on_lost(&self, losing: Vec<Losing>) {
        const SILENT: &str = "nothing was heard of it for too long";
        // Whoever holds most can have most written: all that are lost share one rate.
        let shared = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        for Losing { host, closed, ready } in losing {
            for function in ready {
                self.lock().losses.lose(function, host);
                let note = Note::of_replica(EventKind::Lost, host, function, None, SILENT);
                self.note_of_peer(shared, note);
            }
            if !closed {
                self.note_of_peer(shared, Note::of_node(EventKind::HostLeft, host, SILENT));
            }
        }
    }

    /// Takes no more notes.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
    }

    fn take(&self) -> Vec<Note> {
        let mut state = self.lock();
        let count = state.waiting.len().min(BATCH_MAX);
        state.waiting.drain(..count).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes notes down for as long as it runs.
pub(crate) async fn keep_writing(node: Arc<SuperNode>) {
    loop {
        node.events.wake.notified().await;
        tokio::time::sleep(GATHER).await;
        write_all(&node.events, &node.storage).await;
    }
}

/// Writes down what was noted so far.
pub(crate) async fn write_all(notes: &Notes, storage: &Storage) {
    loop {
        let batch = notes.take();
        if batch.is_empty() {
            return;
        }
        let mut events = Vec::with_capacity(batch.len());
        for note in batch {
            events.extend(event(storage, note).await);
        }
        let count = events.len();
        if let Err(error) = storage.write_events(events).await {
            (0..count).for_each(|_| notes.dropped.add());
            tracing::warn!(%error, count, "events of hosts are lost");
        }
    }
}

/// The event of a note; `None` for what is about a function that is not known here.
async fn event(storage: &Storage, note: Note) -> Option<Event> {
    let mut event = Event {
        cursor: 0,
        kind: note.kind,
        function: None,
        owner: None,
        name: None,
        version: None,
        host: Some(note.node),
        note: note.text,
        time_ms: note.time_ms,
        extensions: Extensions::none(),
    };
    if let Some((function, version)) = note.replica {
        let live = storage.live(function).await.ok()??;
        event.function = Some(function);
        event.version = version;
        event.owner = Some(live.manifest().owner);
        event.name = Some(live.manifest().name.clone());
    }
    Some(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    #[test]
    fn what_there_is_no_room_for_is_dropped_and_counted() {
        let notes = Notes::default();
        for _ in 0..NOTES_MAX + 3 {
            notes.note(Note::of_node(EventKind::SuperJoined, host(1), "é"));
        }
        assert_eq!(notes.dropped.get(), 3);
        assert_eq!(notes.take().len(), BATCH_MAX);
        notes.note(Note::of_node(EventKind::SuperLeft, host(1), ""));
        assert_eq!(notes.dropped.get(), 3);
    }

    #[test]
    fn one_address_has_only_so_much_written() {
        let notes = Notes::default();
        let (one, two) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([198, 51, 100, 1]));
        for _ in 0..2_000 {
            notes.on_joined(one, host(1));
        }
        let dropped = notes.dropped.get();
        assert!((1..1_000).contains(&dropped), "{dropped}");
        notes.on_joined(two, host(2));
        assert_eq!(notes.dropped.get(), dropped);
    }

    #[test]
    fn nothing_is_news_after_the_end() {
        let notes = Notes::default();
        notes.end();
        notes.note(Note::of_node(EventKind::HostLeft, host(1), ""));
        assert_eq!(notes.take(), []);
    }

    #[test]
    fn a_replica_after_a_loss_is_a_repair() {
        let notes = Notes::default();
        let function = FunctionId::from_bytes([9; 32]);
        let version = Version {
            generation: 0,
            revision: 1,
        };
        let address = IpAddr::from([127, 0, 0, 1]);
        let lost = Losing {
            host: host(1),
            closed: true,
            ready: vec![function],
        };
        notes.on_lost(vec![lost]);
        // A host that had an older version repairs nothing, and the second one neither.
        notes.on_seeded(address, host(2), (function, version), true);
        notes.on_seeded(address, host(3), (function, version), false);
        notes.on_seeded(address, host(4), (function, version), false);
        let kinds: Vec<EventKind> = notes.take().iter().map(|note| note.kind).collect();
        let expected = [
            EventKind::Lost,
            EventKind::Seeded,
            EventKind::Repaired,
            EventKind::Seeded,
        ];
        assert_eq!(kinds, expected);
    }
}
