//! A host as a super node knows it, and how far it is with a function.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::desired::{Desired, Wish};
use crate::id::{FunctionId, NodeId};
use crate::manifest::Version;
use crate::pause::Pause;
use crate::placement::FailureDomain;
use crate::wire::control::{LOST_AFTER_MS, Offer, SILENT_AFTER_MS};
use crate::wire::directory::{HostHint, ReplicaState};
use crate::wire::extension::Extensions;
use crate::wire::federation::HostPause;

#[derive(Debug, Clone)]
pub(super) struct ReplicaRecord {
    pub(super) version: Version,
    pub(super) ready: bool,
    pub(super) refused: Option<String>,
    /// The version that the host was told to hold since it registered.
    pub(super) told: Option<Version>,
    /// Another super node was told that its host need not hold it any more.
    pub(super) releasing: bool,
    pub(super) run_us: u32,
}

/// A host, here or elsewhere. Most are those of other super nodes, so that it is small.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) offer: Arc<Offer>,
    pub(super) domain: FailureDomain,
    /// It is connected here.
    pub(super) session: Option<Box<Session>>,
    /// What another super node says of its pause.
    pub(super) told_pause: HostPause,
    /// Other super nodes that it is connected to, the first of them gets the orders.
    pub(super) sites: Vec<NodeId>,
    /// Its holdings are known.
    pub(super) live: bool,
    pub(super) draining: bool,
    pub(super) disk_free_bytes: u64,
    /// Functions with a record in `replicas`.
    pub(super) holds: BTreeSet<FunctionId>,
}

/// What a super node knows of the hosts that are connected to itself only.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// It wants to hear of every change, not only of what it holds.
    pub(super) hears_all: bool,
    pub(super) pause: Pause,
    /// Its connection ended; it may come back.
    pub(super) closed: bool,
    pub(super) heard_ms: u64,
    pub(super) rtt_us: u32,
    pub(super) load: u32,
    pub(super) failure_permille: u16,
    /// Functions that it was released from, and has not said that it dropped.
    pub(super) releasing: BTreeSet<FunctionId>,
}

impl Session {
    pub(super) fn is_silent(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.heard_ms) > SILENT_AFTER_MS
    }

    pub(super) fn is_lost(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.heard_ms) > LOST_AFTER_MS
    }
}

impl Host {
    pub(super) fn is_here(&self) -> bool {
        self.session.is_some()
    }

    pub(super) fn is_silent(&self, now_ms: u64) -> bool {
        // Those of others are as alive as their super nodes say.
        self.session
            .as_ref()
            .is_some_and(|session| session.is_silent(now_ms))
    }

    /// It said something, if it is connected here.
    pub(super) fn heard(&mut self, now_ms: u64) -> Option<&mut Session> {
        let session = self.session.as_deref_mut()?;
        session.heard_ms = now_ms;
        Some(session)
    }

    pub(super) fn routable(&self, now_ms: u64) -> bool {
        let reached =
            |session: &Session| !session.closed && !session.is_silent(now_ms) && !session.pause.is_on();
        self.live && !self.draining && self.session.as_deref().is_some_and(reached)
    }

    /// Whether it takes calls and functions: its own connection tells, if it has one here.
    pub(super) fn pause(&self) -> HostPause {
        let session = self.session.as_ref();
        session.map_or(self.told_pause, |session| session.pause.for_others())
    }

    pub(super) fn is_paused(&self) -> bool {
        self.pause().is_on()
    }

    /// Why it pauses, if it does.
    pub(super) fn pause_reason(&self) -> Option<&str> {
        match &self.session {
            Some(session) => session.pause.reason(),
            None => self.is_paused().then_some("as another super node says"),
        }
    }

    /// Whether a function may be placed at it, which has to do with it already (`known`) or not.
    pub(super) fn lets_in(&self, known: bool) -> bool {
        self.live && !self.draining && self.pause().lets_in(known)
    }

    /// Why the host would not take the function, as far as it said so when it registered.
    pub(super) fn unwilling(&self, wish: &Wish) -> Option<String> {
        let offer = &self.offer;
        if wish.artifact_bytes > offer.artifact_bytes_max {
            let (is, most) = (wish.artifact_bytes, offer.artifact_bytes_max);
            return Some(format!(
                "the artifact has {is} bytes, a host takes at most {most}"
            ));
        }
        if wish.artifact_bytes > self.disk_free_bytes {
            return Some(format!("a host has room for {} bytes only", self.disk_free_bytes));
        }
        if let Some((name, wanted, most)) = wish.terms.limits.above(&offer.ceiling) {
            return Some(format!("limits.{name} is {wanted}, a host takes at most {most}"));
        }
        match &wish.terms.engine {
            Some(engine) if !offer.engines.contains(engine) => {
                Some(format!("a host does not have engine {}", engine.short()))
            }
            _ => None,
        }
    }

    pub(super) fn hint(&self, node: NodeId, record: &ReplicaRecord) -> HostHint {
        let session = self.session.as_deref();
        HostHint {
            node,
            version: record.version,
            rtt_us: session.map_or(0, |session| session.rtt_us),
            queue: session.map_or(0, |session| session.load),
            capacity: self.offer.capacity,
            run_us: record.run_us,
            failure_permille: session.map_or(0, |session| session.failure_permille),
            extensions: Extensions::none(),
        }
    }
}

impl ReplicaRecord {
    /// Whether a host holds what it need not.
    pub(super) fn is_surplus(&self, node: &NodeId, desired: &Desired) -> bool {
        self.refused.is_none() && !desired.assigned.contains(node)
    }

    /// Why it does not answer, if somebody said so.
    pub(super) fn reason(&self, host: &Host) -> String {
        let pause = || host.pause_reason().map(str::to_owned);
        self.refused.clone().or_else(pause).unwrap_or_default()
    }

    pub(super) fn state(&self, host: &Host, now_ms: u64, live: Version) -> ReplicaState {
        match () {
            () if self.refused.is_some() => ReplicaState::Refused,
            () if host.is_silent(now_ms) => ReplicaState::Silent,
            () if host.is_paused() && self.ready => ReplicaState::Paused,
            () if self.ready && self.version >= live => ReplicaState::Ready,
            () => ReplicaState::Assigned,
        }
    }
}
