//! Room for what a host holds: what fits, and who goes for whom.

use super::eviction::{Candidate, Goes, plan};
use super::replicas::Replica;
use super::{EVICTED_MAX, Effect, Holder, SeedPolicy};
use crate::id::FunctionId;
use crate::manifest::{Publish, Verified};

impl Holder {
    /// Room for further artifacts, in bytes: what is free within the budget, and what would go for them.
    pub fn disk_free_bytes(&self) -> u64 {
        let candidates = self.candidates(None);
        let mut bytes = self.disk_bytes();
        if !candidates.is_empty() {
            let mut ledger = self.replicas.ledger().clone();
            candidates.iter().for_each(|candidate| ledger.let_go(candidate));
            bytes = ledger.bytes();
        }
        self.policy.disk_bytes_max.saturating_sub(bytes)
    }

    /// Whether to hold a revision; others may have gone to make room for it.
    pub(super) fn admit(&mut self, manifest: &Verified, publish: &Publish) -> Result<(), String> {
        let owner = &manifest.manifest().owner;
        // Nothing goes for what is not taken anyway.
        self.policy.decide(owner, publish, 0)?;
        let function = manifest.function();
        self.make_room(&function, publish.artifact_bytes);
        let others = self.replicas.bytes_without(&function);
        self.policy.decide(owner, publish, others)
    }

    /// Lets go of others until so many bytes fit, if that is possible at all.
    fn make_room(&mut self, function: &FunctionId, bytes: u64) {
        let most = self.policy.disk_bytes_max.saturating_sub(bytes);
        if self.replicas.bytes_without(function) <= most || self.evicted.contains_key(function) {
            return;
        }
        let ledger = self.replicas.ledger_without(function);
        for candidate in plan(ledger, self.candidates(Some(function)), most) {
            self.evict(&candidate, function);
        }
    }

    fn evict(&mut self, candidate: &Candidate, for_whom: &FunctionId) {
        let function = candidate.function;
        self.effects.push_back(Effect::LogEvicted(
            function,
            format!("{} to make room for {}", candidate.goes, for_whom.short()),
        ));
        match candidate.goes {
            Goes::OldBytes => {
                self.replicas.change(&function, |replica| replica.ready = None);
            }
            Goes::Superseded => drop(self.replicas.remove(&function)),
            Goes::NotCalled => {
                self.replicas.remove(&function);
                self.remember_evicted(function);
            }
        }
        // What stands in the database goes first: after a power cut nothing asks for bytes that are gone.
        self.effects.push_back(Effect::Purge(function, None));
        self.effects.push_back(Effect::ReportDropped(function));
        for (artifact, _) in &candidate.artifacts {
            self.remove_if_unneeded(*artifact);
        }
    }

    fn remember_evicted(&mut self, function: FunctionId) {
        self.evicted.insert(function, self.now_ms);
        if self.evicted.len() > EVICTED_MAX {
            let first = self.evicted.iter().min_by_key(|(_, at)| **at).map(|(f, _)| *f);
            first.map(|function| self.evicted.remove(&function));
        }
    }

    /// What may go to make room for `function`, in the order in which it goes.
    fn candidates(&self, function: Option<&FunctionId>) -> Vec<Candidate> {
        let mut candidates: Vec<Candidate> = self
            .replicas
            .iter()
            .filter(|(other, _)| Some(*other) != function)
            .filter_map(|(&other, replica)| replica.candidate(other, self.now_ms, &self.policy))
            .collect();
        candidates.sort_by_key(|candidate| (candidate.goes, candidate.used_ms));
        candidates
    }
}

impl Replica {
    /// What of it may go to make room for another function, if anything.
    fn candidate(&self, function: FunctionId, now_ms: u64, policy: &SeedPolicy) -> Option<Candidate> {
        let ready = self.ready.as_ref()?;
        let superseded = self.live.rank() > ready.rank();
        let live = self.live.publish().map(|p| p.artifact);
        let idle_ms = now_ms.saturating_sub(self.used_ms);
        let goes = match superseded {
            true if self.wanted => Goes::OldBytes,
            true => Goes::Superseded,
            false if self.wanted => return None,
            false => policy
                .evict_after_ms
                .filter(|after_ms| idle_ms >= *after_ms)
                .map(|_| Goes::NotCalled)?,
        };
        let artifacts = self
            .artifacts()
            .filter(|(artifact, _)| goes != Goes::OldBytes || live != Some(*artifact))
            .collect();
        Some(Candidate {
            function,
            goes,
            used_ms: self.used_ms,
            artifacts,
        })
    }
}
