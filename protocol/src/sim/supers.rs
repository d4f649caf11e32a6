//! A simulated super node: a [`Hub`] with a disk and links.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use super::network::Place;
use crate::federation::clock::Clock;
use crate::federation::reconcile::{self, Answerer, Asker, ReconcileError, Step};
use crate::federation::record::{Record, VerifiedRecord};
use crate::head::SignedHead;
use crate::hub::Hub;
use crate::id::{FunctionId, ManifestHash, NodeId};
use crate::key::NodeKey;
use crate::manifest::{Manifest, Verified};
use crate::registry;
use crate::wire::codec;
use crate::wire::extension::Extensions;
use crate::wire::federation::{Cursor, ItemId, LogId, RegistryChange, SignedRecord};
use crate::wire::packed::{self, PackedChanges};

/// What survives a crash: the tables of a super node's database.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    pub(super) log: LogId,
    pub(super) live: BTreeMap<FunctionId, (Arc<Verified>, Arc<SignedHead>)>,
    changes: BTreeMap<(LogId, u64), FunctionId>,
    origins: BTreeMap<FunctionId, Cursor>,
    pub(super) clock: Clock,
    members: BTreeMap<NodeId, SignedRecord>,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Super {
    pub(super) node: NodeId,
    pub(super) place: Place,
    pub(super) up: bool,
    /// Counts starts.
    pub(super) life: u64,
    pub(super) hub: Hub,
    pub(super) disk: Disk,
    key: NodeKey,
}

impl Super {
    pub(super) fn new(number: usize) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("orb 2026-11 simulated node");
        hasher.update(b"super");
        hasher.update(&(number as u64).to_le_bytes());
        let key = NodeKey::from_seed(*hasher.finalize().as_bytes());
        let disk = Disk {
            log: log_id(number, 0),
            ..Disk::default()
        };
        let record = sign(&key, number, 1);
        Self {
            node: key.id(),
            place: number,
            up: true,
            life: 1,
            hub: Hub::new(record, disk.log, Clock::default()),
            disk,
            key,
        }
    }

    /// Its record, for others.
    pub(super) fn record(&self) -> VerifiedRecord {
        self.hub.federation().record().clone()
    }

    /// Its database is gone.
    pub(super) fn lose_disk(&mut self) {
        self.disk = Disk {
            log: log_id(self.place, self.life),
            members: std::mem::take(&mut self.disk.members),
            ..Disk::default()
        };
    }

    /// Its database has the functions only: they are numbered anew, as those of a super node that was alone.
    pub(super) fn lose_clock(&mut self) {
        let old = std::mem::take(&mut self.disk);
        self.disk.log = log_id(self.place, self.life);
        self.disk.members = old.members;
        for (manifest, head) in old.live.values() {
            let at = self.disk.next();
            self.disk.join(manifest, head, at);
            self.disk.clock.raise(at);
        }
    }

    /// Starts anew, with what is on its disk.
    pub(super) fn restart(&mut self, now_ms: u64) {
        self.life += 1;
        let record = sign(&self.key, self.place, self.life);
        self.hub = Hub::new(record, self.disk.log, self.disk.clock.clone());
        let live = self.disk.live.values();
        let read = |each: &mut dyn FnMut(FunctionId, &Manifest, ManifestHash)| {
            live.for_each(|(one, _)| each(one.function(), one.manifest(), one.hash()));
            Ok::<_, Infallible>(())
        };
        let Ok(_) = self.hub.with_hosts(|coordinator| coordinator.restore(read));
        for member in self.disk.members.values() {
            let record = VerifiedRecord::verify(member.clone()).expect("it was verified when it was kept");
            self.hub.on_record(now_ms, None, record);
        }
        self.up = true;
    }

    pub(super) fn keep(&mut self, verified: &VerifiedRecord) {
        self.disk
            .members
            .insert(verified.node(), verified.signed().clone());
    }

    /// Takes an owner's revision in, as a publish does. `None` if it is not newer than what is live.
    pub(super) fn publish(
        &mut self,
        manifest: &Arc<Verified>,
        head: &Arc<SignedHead>,
    ) -> Option<RegistryChange> {
        let at = self.disk.next();
        self.disk.join(manifest, head, at).then(|| {
            self.disk.clock.raise(at);
            change(at, manifest, head)
        })
    }

    /// Takes another super node's change in. Whether it is live now.
    pub(super) fn take_in(&mut self, at: Cursor, manifest: &Arc<Verified>, head: &Arc<SignedHead>) -> bool {
        let news = self.disk.join(manifest, head, at);
        if self.disk.clock.is_next(at) {
            self.disk.clock.raise(at);
        }
        news
    }

    /// What another one has that this one lacks, found out by comparing both; and the bytes that this takes.
    pub(super) fn lacks(&self, other: &Self) -> Result<(Vec<(Cursor, FunctionId)>, u64), ReconcileError> {
        let (mut asker, mut message) = Asker::new(self.disk.items())?;
        let mut answerer = Answerer::new(&other.disk.items())?;
        let mut bytes = 0;
        loop {
            let answer = answerer.answer(&message)?;
            bytes += (message.len() + answer.len()) as u64;
            match asker.on_answer(&answer)? {
                Step::Ask(next) => message = next,
                Step::Done { wanted, .. } => {
                    bytes += size_of_val(wanted.as_slice()) as u64;
                    let found = wanted.iter().filter_map(|item| other.disk.find(item));
                    return Ok((found.collect(), bytes));
                }
            }
        }
    }

    /// What somebody with this clock lacks.
    pub(super) fn missing(&self, known: &Clock) -> Vec<(Cursor, FunctionId)> {
        let mut missing = Vec::new();
        for cursor in self.disk.clock.cursors() {
            let range = (cursor.log, known.get(&cursor.log) + 1)..=(cursor.log, u64::MAX);
            let changes = self.disk.changes.range(range);
            missing.extend(changes.map(|(&(log, number), function)| (Cursor { log, number }, *function)));
        }
        missing
    }
}

impl Disk {
    /// The place of this super node's next change in its log.
    fn next(&self) -> Cursor {
        Cursor {
            log: self.log,
            number: self.clock.get(&self.log) + 1,
        }
    }

    fn items(&self) -> Vec<ItemId> {
        let live = self.live.values();
        live.map(|(manifest, _)| reconcile::item(manifest)).collect()
    }

    fn find(&self, item: &ItemId) -> Option<(Cursor, FunctionId)> {
        let start = reconcile::function_start(item);
        let mut least = [0; 32];
        least[..start.len()].copy_from_slice(start);
        let (function, _) = self.live.range(FunctionId::from_bytes(least)..).next()?;
        let is_it = function.as_bytes().starts_with(start);
        is_it.then_some((*self.origins.get(function)?, *function))
    }

    fn join(&mut self, manifest: &Arc<Verified>, head: &Arc<SignedHead>, at: Cursor) -> bool {
        let function = manifest.function();
        let live = self.live.get(&function).map(|(live, _)| &**live);
        if !registry::compare(live, manifest).changed() {
            return false;
        }
        if let Some(old) = self.origins.insert(function, at) {
            self.changes.remove(&(old.log, old.number));
        }
        self.changes.insert((at.log, at.number), function);
        self.live
            .insert(function, (Arc::clone(manifest), Arc::clone(head)));
        true
    }
}

/// A change, as it goes over a link.
pub(super) fn change(at: Cursor, manifest: &Verified, head: &SignedHead) -> RegistryChange {
    RegistryChange {
        at,
        manifest: manifest.signed().clone(),
        head_signature: head.signature.clone(),
        extensions: Extensions::none(),
    }
}

/// What changes take on the wire, in bytes: in pages, as daemons send them.
pub(super) fn pages_bytes(changes: &[(Cursor, Arc<Verified>, Arc<SignedHead>)]) -> u64 {
    let (mut bytes, mut page, mut filled) = (0, Vec::new(), 0);
    for (at, manifest, head) in changes {
        let change = change(*at, manifest, head);
        filled += packed::weight(&change);
        page.push(change);
        if filled >= packed::PAGE_BYTES {
            bytes += codec::encode(&PackedChanges::pack(&page)).len();
            (page, filled) = (Vec::new(), 0);
        }
    }
    if !page.is_empty() {
        bytes += codec::encode(&PackedChanges::pack(&page)).len();
    }
    bytes as u64
}

fn sign(key: &NodeKey, number: usize, life: u64) -> VerifiedRecord {
    let record = Record {
        node: key.id(),
        addresses: vec![format!("super{number}:4433")],
        number: life,
        software: "simulated".to_owned(),
        extensions: Extensions::none(),
    };
    VerifiedRecord::verify(record.sign(key)).expect("a record that was just signed verifies")
}

fn log_id(number: usize, life: u64) -> LogId {
    let mut log = LogId::default();
    log[..8].copy_from_slice(&(number as u64).to_be_bytes());
    log[8..].copy_from_slice(&life.to_be_bytes());
    log
}
