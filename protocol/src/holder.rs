//! A host's decisions about what it holds: what to seed, what to fetch, what to answer.
//!
//! A state machine without I/O: the daemon tells it what happened and when (milliseconds of a
//! monotonic clock) and does what [`Holder::poll_effect`] hands out.
//!
//! | replica | on | becomes |
//! | --- | --- | --- |
//! | (none) | assigned, policy agrees | wanted: `Obtain` |
//! | (none) | assigned, policy refuses | (none): `ReportRefused` |
//! | wanted | obtained (durable, verified, prepared) | ready: `ReportReady` |
//! | wanted | could not be obtained | wanted, tried again after a growing delay |
//! | ready | newer revision | ready for the old one and wanted for the new |
//! | any | tombstone | (none), for good: `Purge`, `ReportDropped` |
//! | any | released | (none): `Purge`, `ReportDropped` |
//! | ready for an old one | another one needs the room | without the old bytes: `Purge`, `ReportDropped` |
//! | ready, not called for long | another one needs the room, and the policy lets it go | (none): `Purge`, `ReportDropped` |
//!
//! A tombstone is kept, so that no later message, however late or stale, brings the function back.

mod eviction;
mod policy;
mod replicas;
mod room;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub use self::policy::SeedPolicy;
use replicas::{Replica, Replicas};

use crate::id::{ArtifactHash, FunctionId};
use crate::manifest::{Rank, Verified, Version};
use crate::wire::control::Held;

/// How long a host cut off from every super node goes on answering, in milliseconds (the brief: 24 hours).
pub const CUT_OFF_MAX_MS: u64 = 24 * 60 * 60 * 1_000;
/// The most tombstones that a host keeps: beyond, the oldest generations go first. They cost about 200
/// bytes each.
pub const TOMBSTONES_MAX: usize = 100_000;
/// The first delay before an artifact that could not be obtained is tried again, in milliseconds; it
/// doubles up to [`RETRY_MAX_MS`].
pub const RETRY_MIN_MS: u64 = 500;
/// The longest delay, in milliseconds.
pub const RETRY_MAX_MS: u64 = 60_000;
/// For so long nothing else has to go for a function that went for another one, in milliseconds: a super
/// node may assign it again at once, and two functions would push each other out for ever.
pub const EVICTED_FOR_MS: u64 = 60 * 60 * 1_000;
/// The most functions that a host remembers as evicted; beyond, those that went first are forgotten first.
/// As many as a host holds; 40 bytes each.
pub const EVICTED_MAX: usize = 10_000;

/// What the daemon has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Get the artifact, verify and store it durably with its manifest, prepare it; then call
    /// [`Holder::on_obtained`] or [`Holder::on_failed`].
    Obtain(Box<Verified>),
    /// Remove the function's manifest and whatever of its artifacts nobody else needs. `Some`: store
    /// this tombstone durably in its place.
    Purge(FunctionId, Option<Box<Verified>>),
    /// Remove an artifact that no function here needs any more.
    RemoveArtifact(ArtifactHash),
    /// Tell the super nodes.
    ReportReady(FunctionId, Version),
    /// Tell the super nodes.
    ReportRefused(FunctionId, Version, String),
    /// Tell the super nodes.
    ReportDropped(FunctionId),
    /// Tell the operator: this function, or its old bytes, went to make room. The text says for which.
    LogEvicted(FunctionId, String),
}

/// What a host may do about a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Run this revision.
    Serve(Box<Verified>),
    /// The caller knows a newer version: wait until it is here, or let the caller go elsewhere.
    Refresh(Version),
    /// Not held here, or not yet.
    NotHeld,
    /// The function is no more.
    Decommissioned,
    /// The host does not know yet, or no longer, what changed meanwhile.
    CutOff,
}

/// See the module's text.
#[derive(Debug)]
pub struct Holder {
    policy: SeedPolicy,
    replicas: Replicas,
    tombstones: BTreeMap<FunctionId, Rank>,
    /// Super nodes that told everything, now.
    synced: usize,
    /// When the last one of them went away. `None` before the first.
    cut_off_at_ms: Option<u64>,
    /// When functions went to make room for others.
    evicted: BTreeMap<FunctionId, u64>,
    /// The time of the last tick or call: exact enough for what counts in minutes.
    now_ms: u64,
    effects: VecDeque<Effect>,
}

impl Holder {
    /// A host that holds nothing.
    pub fn new(policy: SeedPolicy) -> Self {
        Self {
            policy,
            replicas: Replicas::default(),
            tombstones: BTreeMap::new(),
            synced: 0,
            cut_off_at_ms: None,
            evicted: BTreeMap::new(),
            now_ms: 0,
            effects: VecDeque::new(),
        }
    }

    /// The next thing to do. Drain it after every `on_*`.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// At start-up: a manifest that was stored. `present`: its artifact is there, verified and prepared.
    pub fn restore(&mut self, stored: Verified, present: bool) {
        if stored.is_tombstone() {
            self.bury(&stored);
        } else if present {
            let replica = Replica {
                live: stored.clone(),
                ready: Some(stored.clone()),
                wanted: false,
                failures: 0,
                retry_at_ms: None,
                used_ms: self.now_ms,
            };
            self.replicas.insert(stored.function(), replica);
        } else {
            self.want(stored);
        }
    }

    /// A super node says: hold this.
    pub fn on_assign(&mut self, manifest: Verified) {
        if !self.is_news(&manifest) {
            // Told again, perhaps by another super node: say again where we are.
            self.report(&manifest.function());
            return;
        }
        if manifest.is_tombstone() {
            self.end(manifest);
            return;
        }
        let Some(publish) = manifest.publish() else {
            let (function, version) = (manifest.function(), manifest.version());
            let reason = "this host does not know what the revision does: update orb".to_owned();
            self.effects
                .push_back(Effect::ReportRefused(function, version, reason));
            return;
        };
        match self.admit(&manifest, publish) {
            Ok(()) => self.want(manifest),
            Err(reason) => self.refuse(&manifest, reason),
        }
    }

    /// A super node says: this function changed.
    pub fn on_changed(&mut self, manifest: Verified) {
        let function = manifest.function();
        if manifest.is_tombstone() {
            if self.is_news(&manifest) {
                self.end(manifest);
            }
        } else if let Some(replica) = self.replicas.get(&function)
            && manifest.rank() > replica.live.rank()
        {
            // Not assigned (yet): the old revision may answer those who know no newer one.
            self.replicas.change(&function, |replica| {
                replica.live = manifest;
                replica.wanted = false;
                replica.retry_at_ms = None;
            });
        }
    }

    /// A super node says: this need not be held any more.
    pub fn on_release(&mut self, function: FunctionId) {
        if let Some(replica) = self.replicas.remove(&function) {
            self.effects.push_back(Effect::Purge(function, None));
            self.remove_unneeded(&replica);
        }
        // Always, so that whoever released it knows which report belongs to which message.
        self.effects.push_back(Effect::ReportDropped(function));
    }

    /// A revision's artifact is durable, verified and prepared.
    pub fn on_obtained(&mut self, manifest: &Verified) {
        let (function, version) = (manifest.function(), manifest.version());
        let live = self.replicas.get(&function).map(|replica| replica.live.rank());
        if live != Some(manifest.rank()) {
            return;
        }
        let old = self.replicas.change(&function, |replica| {
            replica.wanted = false;
            replica.failures = 0;
            replica.used_ms = self.now_ms;
            replica.ready.replace(replica.live.clone())
        });
        self.effects.push_back(Effect::ReportReady(function, version));
        if let Some(artifact) = old.flatten().and_then(|old| old.publish().map(|p| p.artifact)) {
            self.remove_if_unneeded(artifact);
        }
    }

    /// A revision's artifact could not be obtained; it is tried again later.
    pub fn on_failed(&mut self, now_ms: u64, manifest: &Verified) {
        if !self.wants(manifest) {
            return;
        }
        self.replicas.change(&manifest.function(), |replica| {
            let delay = RETRY_MIN_MS
                .saturating_mul(1 << replica.failures.min(16))
                .min(RETRY_MAX_MS);
            replica.failures += 1;
            replica.retry_at_ms = Some(now_ms + delay);
        });
    }

    /// A revision cannot run here, however often it is tried: the sandbox does not take it.
    pub fn on_unfit(&mut self, manifest: &Verified, reason: String) {
        if self.wants(manifest) {
            self.refuse(manifest, reason);
        }
    }

    /// The artifact of a function turned out to be damaged: it must be obtained again and not be run.
    pub fn on_damaged(&mut self, function: FunctionId) {
        let again = self.replicas.change(&function, |replica| {
            replica.ready = None;
            let is_on_its_way = std::mem::replace(&mut replica.wanted, true);
            (!is_on_its_way).then(|| replica.live.clone())
        });
        if let Some(live) = again.flatten() {
            self.effects.push_back(Effect::Obtain(Box::new(live)));
        }
    }

    /// A super node has told everything that changed while it was not heard.
    pub fn on_synced(&mut self) {
        self.synced += 1;
        self.cut_off_at_ms = None;
    }

    /// A super node that had told everything is not heard any more.
    pub fn on_unsynced(&mut self, now_ms: u64) {
        self.synced = self.synced.saturating_sub(1);
        if self.synced == 0 {
            self.cut_off_at_ms = Some(now_ms);
        }
    }

    /// Time passed; call it about once a second.
    pub fn on_tick(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.evicted
            .retain(|_, at| now_ms.saturating_sub(*at) < EVICTED_FOR_MS);
        let due = self.replicas.take_due(now_ms).into_iter();
        self.effects
            .extend(due.map(|live| Effect::Obtain(Box::new(live))));
    }

    /// A call of the function is served: it is not among the least recently called.
    pub fn on_called(&mut self, now_ms: u64, function: &FunctionId) {
        self.now_ms = self.now_ms.max(now_ms);
        self.replicas.touch(function, self.now_ms);
    }

    /// What to do about a call from somebody who knows of version `known`.
    pub fn answer(&self, now_ms: u64, function: &FunctionId, known: Version) -> Answer {
        let Some(replica) = self.replicas.get(function) else {
            // A caller who knows of a later life of the function is right: it is just not held here.
            let over = |rank: &Rank| rank.generation() >= known.generation;
            return match self.tombstones.get(function) {
                Some(rank) if over(rank) => Answer::Decommissioned,
                _ => Answer::NotHeld,
            };
        };
        if self.is_cut_off(now_ms) {
            return Answer::CutOff;
        }
        match &replica.ready {
            Some(ready) if ready.version() >= known => Answer::Serve(Box::new(ready.clone())),
            Some(ready) if replica.wanted || replica.live.version() > ready.version() => {
                Answer::Refresh(replica.live.version())
            }
            Some(_) => Answer::Refresh(known),
            None => Answer::NotHeld,
        }
    }

    /// What is held, for a super node that was just connected.
    pub fn held(&self) -> Vec<Held> {
        let held = |(&function, replica): (&FunctionId, &Replica)| {
            let ready = replica.ready.is_some();
            let manifest = replica.ready.as_ref().unwrap_or(&replica.live);
            Held {
                function,
                version: manifest.version(),
                manifest: manifest.hash(),
                ready,
            }
        };
        self.replicas.iter().map(held).collect()
    }

    /// How many functions are held or wanted.
    pub fn len(&self) -> usize {
        self.replicas.len()
    }

    /// Whether none are.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a function is held or wanted, in whatever version.
    pub fn holds(&self, function: &FunctionId) -> bool {
        self.replicas.get(function).is_some()
    }

    /// Whether this revision is being obtained, and not a rival that has its number.
    pub fn wants(&self, manifest: &Verified) -> bool {
        self.replicas
            .get(&manifest.function())
            .is_some_and(|replica| replica.wanted && replica.live.rank() == manifest.rank())
    }

    /// Whether an artifact belongs to something that is held or wanted.
    pub fn needs(&self, artifact: &ArtifactHash) -> bool {
        self.replicas.needs(artifact)
    }

    /// Bytes of artifacts that are held or wanted.
    pub fn disk_bytes(&self) -> u64 {
        self.replicas.ledger().bytes()
    }

    /// The policy.
    pub fn policy(&self) -> &SeedPolicy {
        &self.policy
    }

    // -- helpers ---------------------------------------------------------------------------------

    fn is_cut_off(&self, now_ms: u64) -> bool {
        match (self.synced, self.cut_off_at_ms) {
            (0, Some(at)) => now_ms.saturating_sub(at) > CUT_OFF_MAX_MS,
            // Never synced since the start: something may have been decommissioned meanwhile.
            (0, None) => true,
            _ => false,
        }
    }

    fn is_news(&self, manifest: &Verified) -> bool {
        let function = manifest.function();
        let replica = self.replicas.get(&function);
        let beaten = self
            .tombstones
            .get(&function)
            .is_some_and(|rank| *rank >= manifest.rank())
            || replica.is_some_and(|r| r.live.rank() > manifest.rank());
        // The same revision is news as long as it is neither here nor on its way.
        let same = replica.is_some_and(|r| {
            let here = r
                .ready
                .as_ref()
                .is_some_and(|ready| ready.rank() == manifest.rank());
            r.live.rank() == manifest.rank() && (here || r.wanted)
        });
        !beaten && !same
    }

    fn want(&mut self, manifest: Verified) {
        let function = manifest.function();
        let old = self.replicas.remove(&function);
        let used_ms = old.as_ref().map_or(self.now_ms, |old| old.used_ms);
        let ready = old.as_ref().and_then(|old| old.ready.clone());
        // A new life of the function does not answer with the bytes of an older one.
        let is_of_this_life = |r: &Verified| r.version().generation == manifest.version().generation;
        let is_reborn = ready.as_ref().is_some_and(|ready| !is_of_this_life(ready));
        let ready = ready.filter(is_of_this_life);
        if is_reborn {
            // Its bytes go: nobody has them any more, so a host that starts again must not ask for them.
            self.effects.push_back(Effect::Purge(function, None));
        }
        self.effects.push_back(Effect::Obtain(Box::new(manifest.clone())));
        let replica = Replica {
            live: manifest,
            ready,
            wanted: true,
            failures: 0,
            retry_at_ms: None,
            used_ms,
        };
        self.replicas.insert(function, replica);
        if let Some(old) = old {
            self.remove_unneeded(&old);
        }
    }

    fn refuse(&mut self, manifest: &Verified, reason: String) {
        let (function, version) = (manifest.function(), manifest.version());
        if let Some(old) = self.replicas.remove(&function) {
            self.effects.push_back(Effect::Purge(function, None));
            self.remove_unneeded(&old);
        }
        self.effects
            .push_back(Effect::ReportRefused(function, version, reason));
    }

    fn end(&mut self, tombstone: Verified) {
        let function = tombstone.function();
        self.bury(&tombstone);
        if let Some(replica) = self.replicas.remove(&function) {
            self.effects
                .push_back(Effect::Purge(function, Some(Box::new(tombstone))));
            self.effects.push_back(Effect::ReportDropped(function));
            self.remove_unneeded(&replica);
        }
    }

    fn bury(&mut self, tombstone: &Verified) {
        let rank = self
            .tombstones
            .entry(tombstone.function())
            .or_insert(tombstone.rank());
        *rank = (*rank).max(tombstone.rank());
        if self.tombstones.len() > TOMBSTONES_MAX {
            let oldest = self
                .tombstones
                .iter()
                .min_by_key(|(_, rank)| **rank)
                .map(|(f, _)| *f);
            oldest.map(|function| self.tombstones.remove(&function));
        }
    }

    fn report(&mut self, function: &FunctionId) {
        let Some(replica) = self.replicas.get(function) else {
            if self.tombstones.contains_key(function) {
                self.effects.push_back(Effect::ReportDropped(*function));
            }
            return;
        };
        if let Some(ready) = &replica.ready {
            self.effects
                .push_back(Effect::ReportReady(*function, ready.version()));
        }
    }

    fn remove_unneeded(&mut self, replica: &Replica) {
        let artifacts: BTreeSet<ArtifactHash> = replica.artifacts().map(|(artifact, _)| artifact).collect();
        for artifact in artifacts {
            self.remove_if_unneeded(artifact);
        }
    }

    fn remove_if_unneeded(&mut self, artifact: ArtifactHash) {
        if !self.needs(&artifact) {
            self.effects.push_back(Effect::RemoveArtifact(artifact));
        }
    }
}

#[cfg(test)]
mod room_tests;
#[cfg(test)]
#[path = "holder_tests.rs"]
mod tests;
