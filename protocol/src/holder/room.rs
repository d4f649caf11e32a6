//! Room for what a host holds: what fits, and who goes for whom.

use super::eviction::{Candidate, Goes, Ledger, plan};
use super::{EVICTED_MAX, Effect, Holder, Replica, SeedPolicy};
use crate::id::FunctionId;
use crate::manifest::{Publish, Verified};

impl Holder {
    /// Room for further artifacts, in bytes: what is free within the budget, and what would go for them.
    pub fn disk_free_bytes(&self) -> u64 {
        let mut ledger = self.ledger(None);
        for candidate in self.candidates(None) {
            ledger.let_go(&candidate);
        }
        self.policy.disk_bytes_max.saturating_sub(ledger.bytes())
    }

    /// Whether to hold a revision; others may have gone to make room for it.
    pub(super) fn admit(&mut self, manifest: &Verified, publish: &Publish) -> Result<(), String> {
        let owner = &manifest.manifest().owner;
        // Nothing goes for what is not taken anyway.
        self.policy.decide(owner, publish, 0)?;
        let function = manifest.function();
        self.make_room(&function, publish.artifact_bytes);
        self.policy
            .decide(owner, publish, self.ledger(Some(&function)).bytes())
    }

    /// Lets go of others until so many bytes fit, if that is possible at all.
    fn make_room(&mut self, function: &FunctionId, bytes: u64) {
        let ledger = self.ledger(Some(function));
        let most = self.policy.disk_bytes_max.saturating_sub(bytes);
        if ledger.bytes() <= most || self.evicted.contains_key(function) {
            return;
        }
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
                if let Some(replica) = self.replicas.get_mut(&function) {
                    replica.ready = None;
                }
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

    pub(super) fn ledger(&self, without: Option<&FunctionId>) -> Ledger {
        let mut ledger = Ledger::default();
        for (function, replica) in &self.replicas {
            if Some(function) != without {
                replica
                    .artifacts()
                    .for_each(|(artifact, bytes)| ledger.enter(artifact, bytes));
            }
        }
        ledger
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
