//! A simulated host: a [`Holder`] with a disk and a session.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::network::Place;
use crate::holder::{Answer, Holder, SeedPolicy};
use crate::id::{FunctionId, NodeId};
use crate::key::NodeKey;
use crate::manifest::{Limits, Verified, Version};
use crate::wire::control::{HOLDINGS_ONLY, Offer};
use crate::wire::extension::Extensions;

/// What a super node tells a host.
#[derive(Debug, Clone)]
pub(super) enum Told {
    Assign(Arc<Verified>),
    Changed(Arc<Verified>),
    Release(FunctionId),
    Synced,
}

/// What a host tells its super node.
#[derive(Debug, Clone)]
pub(super) enum Said {
    Register,
    Beat,
    Ready(FunctionId, Version),
    Refused(FunctionId, Version, String),
    Dropped(FunctionId),
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) node: NodeId,
    pub(super) place: Place,
    /// The super node that it was started with.
    pub(super) home: usize,
    /// The one that it is connected to.
    pub(super) site: Option<usize>,
    /// Counts sessions: what was sent in an older one does not arrive.
    pub(super) session: u64,
    pub(super) synced: bool,
    pub(super) online: bool,
    pub(super) lying: bool,
    pub(super) holder: Holder,
    /// What a restart finds.
    pub(super) disk: BTreeMap<FunctionId, Arc<Verified>>,
    /// Generations that it has heard the end of.
    pub(super) ended: BTreeMap<FunctionId, u64>,
    pub(super) failures: u32,
}

impl Host {
    pub(super) fn new(number: usize, place: Place, home: usize) -> Self {
        Self {
            node: id(b"host", number),
            place,
            home,
            site: None,
            session: 0,
            synced: false,
            online: true,
            lying: false,
            holder: Holder::new(policy()),
            disk: BTreeMap::new(),
            ended: BTreeMap::new(),
            failures: 0,
        }
    }

    /// What it offers. Hosts of one in twenty share an operator.
    pub(super) fn offer(number: usize) -> Offer {
        Offer {
            capacity: 4,
            ceiling: Limits::default(),
            artifact_bytes_max: 32 << 20,
            disk_free_bytes: 1 << 30,
            engines: Vec::new(),
            operator: if number.is_multiple_of(20) {
                format!("operator {}", number / 100)
            } else {
                String::new()
            },
            extensions: Extensions::none().with(HOLDINGS_ONLY, Vec::new()),
        }
    }

    /// Starts anew, with what is on its disk.
    pub(super) fn restart(&mut self) {
        self.holder = Holder::new(policy());
        for manifest in self.disk.values() {
            self.holder.restore((**manifest).clone(), true);
        }
        self.online = true;
        self.synced = false;
    }

    /// What a caller hears who asks for a function.
    pub(super) fn answer(&self, now_ms: u64, function: &FunctionId, known: Version) -> Answer {
        if self.lying {
            return Answer::NotHeld;
        }
        self.holder.answer(now_ms, function, known)
    }

    /// Whether an answer would be one that it must not give: it has heard of this life's end.
    pub(super) fn is_forbidden(&self, function: &FunctionId, version: Version) -> bool {
        self.ended
            .get(function)
            .is_some_and(|ended| version.generation <= *ended)
    }

    /// Notes that it has heard of an end.
    pub(super) fn hear_of(&mut self, manifest: &Verified) {
        if manifest.is_tombstone() {
            let generation = manifest.version().generation;
            let ended = self.ended.entry(manifest.function()).or_default();
            *ended = (*ended).max(generation);
        }
    }
}

/// An id that looks random, and is the same in every run.
pub(super) fn id(kind: &[u8], number: usize) -> NodeId {
    let mut hasher = blake3::Hasher::new_derive_key("orb 2026-11 simulated node");
    hasher.update(kind);
    hasher.update(&(number as u64).to_le_bytes());
    if kind == b"super" {
        // Super nodes sign.
        return NodeKey::from_seed(*hasher.finalize().as_bytes()).id();
    }
    NodeId::from_bytes(*hasher.finalize().as_bytes())
}

fn policy() -> SeedPolicy {
    SeedPolicy {
        allow_owners: None,
        deny_owners: BTreeSet::new(),
        artifact_bytes_max: 32 << 20,
        disk_bytes_max: 1 << 40,
        evict_after_ms: None,
        ceiling: Limits::default(),
        engines: BTreeSet::new(),
        capabilities: BTreeSet::new(),
    }
}
