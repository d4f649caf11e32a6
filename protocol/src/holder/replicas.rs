//! What a host holds and wants, with a ledger of the artifacts that this takes: kept along, since a host may hold a
//! hundred thousand functions, and is asked for room with every one that comes.

use std::collections::BTreeMap;

use super::eviction::Ledger;
use crate::id::{ArtifactHash, FunctionId};
use crate::manifest::Verified;

/// A function that is held or wanted.
#[derive(Debug)]
pub(super) struct Replica {
    /// The newest revision known.
    pub(super) live: Verified,
    /// The newest revision that can answer.
    pub(super) ready: Option<Verified>,
    /// Whether `live` is being obtained.
    pub(super) wanted: bool,
    pub(super) failures: u32,
    pub(super) retry_at_ms: Option<u64>,
    /// When it was last called, or came.
    pub(super) used_ms: u64,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Replicas {
    by_function: BTreeMap<FunctionId, Replica>,
    ledger: Ledger,
}

impl Replicas {
    /// Takes a replica in, in the place of an older one of its function.
    pub(super) fn insert(&mut self, function: FunctionId, replica: Replica) {
        self.remove(&function);
        self.ledger.enter_all(&replica);
        self.by_function.insert(function, replica);
    }

    pub(super) fn remove(&mut self, function: &FunctionId) -> Option<Replica> {
        let replica = self.by_function.remove(function)?;
        self.ledger.strike_all(&replica);
        Some(replica)
    }

    /// Changes a replica, if it is there.
    pub(super) fn change<T>(
        &mut self,
        function: &FunctionId,
        change: impl FnOnce(&mut Replica) -> T,
    ) -> Option<T> {
        let replica = self.by_function.get_mut(function)?;
        self.ledger.strike_all(replica);
        let result = change(replica);
        self.ledger.enter_all(replica);
        Some(result)
    }

    /// It is used now.
    pub(super) fn touch(&mut self, function: &FunctionId, now_ms: u64) {
        if let Some(replica) = self.by_function.get_mut(function) {
            replica.used_ms = now_ms;
        }
    }

    /// Those whose next try is due, which is not due again then.
    pub(super) fn take_due(&mut self, now_ms: u64) -> Vec<Verified> {
        let due = |replica: &mut Replica| {
            replica.retry_at_ms.filter(|at| *at <= now_ms)?;
            replica.retry_at_ms = None;
            Some(replica.live.clone())
        };
        self.by_function.values_mut().filter_map(due).collect()
    }

    pub(super) fn get(&self, function: &FunctionId) -> Option<&Replica> {
        self.by_function.get(function)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&FunctionId, &Replica)> {
        self.by_function.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.by_function.len()
    }

    /// Whether any of them needs an artifact.
    pub(super) fn needs(&self, artifact: &ArtifactHash) -> bool {
        self.ledger.has(artifact)
    }

    /// What all of them take.
    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Bytes of all but one function's artifacts.
    pub(super) fn bytes_without(&mut self, function: &FunctionId) -> u64 {
        let Some(replica) = self.by_function.get(function) else {
            return self.ledger.bytes();
        };
        self.ledger.strike_all(replica);
        let bytes = self.ledger.bytes();
        self.ledger.enter_all(replica);
        bytes
    }

    /// The ledger of all but one function.
    pub(super) fn ledger_without(&self, function: &FunctionId) -> Ledger {
        let mut ledger = self.ledger.clone();
        if let Some(replica) = self.by_function.get(function) {
            ledger.strike_all(replica);
        }
        ledger
    }
}

impl Replica {
    /// The artifacts that it holds or wants, with their sizes in bytes; one that both need comes once.
    pub(super) fn artifacts(&self) -> impl Iterator<Item = (ArtifactHash, u64)> + use<> {
        let of = |manifest: &Verified| manifest.publish().map(|p| (p.artifact, p.artifact_bytes));
        let live = of(&self.live);
        let ready = self.ready.as_ref().and_then(of);
        live.into_iter()
            .chain(ready.filter(|ready| live.map(|l| l.0) != Some(ready.0)))
    }
}

impl Ledger {
    fn enter_all(&mut self, replica: &Replica) {
        replica
            .artifacts()
            .for_each(|(artifact, bytes)| self.enter(artifact, bytes));
    }

    fn strike_all(&mut self, replica: &Replica) {
        replica
            .artifacts()
            .for_each(|(artifact, _)| self.strike(&artifact));
    }
}
