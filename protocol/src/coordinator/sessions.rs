//! What hosts that are connected here say, and what comes of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::host::{Host, Session};
use super::{Coordinator, CoordinatorError, Effect, HOLDINGS_MAX, HOSTS_TOTAL_MAX, News};
use crate::id::{FunctionId, NodeId};
use crate::manifest::Version;
use crate::placement::FailureDomain;
use crate::wire::control::{Beat, HOLDINGS_ONLY, Held, Offer, SILENT_AFTER_MS};
use crate::wire::federation::HostPause;

impl Coordinator {
    /// A host has authenticated and registered; an older registration of the same id is replaced.
    ///
    /// # Errors
    /// [`CoordinatorError::TooManyHosts`].
    pub fn on_registered(
        &mut self,
        now_ms: u64,
        node: NodeId,
        offer: Offer,
        domain: FailureDomain,
    ) -> Result<(), CoordinatorError> {
        if self.here.len() >= HOSTS_TOTAL_MAX && !self.here.contains(&node) {
            return Err(CoordinatorError::TooManyHosts);
        }
        // What it held is told anew. Its assignments stay: a connection that broke and came back
        // moves nothing. Should it be lost before it has told, they are looked at again.
        let mut sites = Vec::new();
        if let Some(old) = self.remove(&node) {
            for function in old.holds {
                self.erase(&node, &function);
                self.unsettled.insert(function);
            }
            sites = old.sites;
        }
        let session = Session {
            hears_all: offer.extensions.get(HOLDINGS_ONLY).is_none(),
            heard_ms: now_ms,
            ..Session::default()
        };
        let host = Host {
            disk_free_bytes: offer.disk_free_bytes,
            offer: Arc::new(offer),
            domain,
            session: Some(Box::new(session)),
            told_pause: HostPause::Off,
            sites,
            live: false,
            draining: false,
            holds: BTreeSet::new(),
        };
        self.insert(node, host);
        Ok(())
    }

    /// The host tells what it holds.
    ///
    /// # Errors
    /// [`CoordinatorError`] for a host that is not registered or holds too much: close it.
    pub fn on_holding(
        &mut self,
        now_ms: u64,
        node: NodeId,
        held: &[Held],
        last: bool,
    ) -> Result<(), CoordinatorError> {
        let host = self.hosts.get_mut(&node).ok_or(CoordinatorError::NotRegistered)?;
        host.heard(now_ms).ok_or(CoordinatorError::NotRegistered)?;
        if host.holds.len() + held.len() > HOLDINGS_MAX {
            return Err(CoordinatorError::TooManyHoldings);
        }
        self.removals.on_holding(node, held, last);
        for held in held {
            let known = self.functions.get(&held.function);
            if known.is_some_and(|desired| !desired.is_held(held)) {
                self.effects.push_back(Effect::Notify(node, held.function));
            }
            if let Some(desired) = known.filter(|desired| desired.wish.is_some()) {
                let version = desired.worth(held);
                self.record(node, held.function, version, held.ready);
            }
        }
        if last {
            self.join(node);
        }
        Ok(())
    }

    /// A heart-beat, with the round trip that the connection measures.
    pub fn on_beat(&mut self, now_ms: u64, node: NodeId, rtt_us: u32, beat: &Beat) {
        let Some(host) = self.hosts.get_mut(&node) else {
            return;
        };
        let Some(session) = host.heard(now_ms) else {
            return;
        };
        session.rtt_us = rtt_us;
        session.load = beat.running.saturating_add(beat.waiting);
        session.failure_permille = beat.failure_permille;
        session.pause.hear(now_ms, beat.pause());
        host.disk_free_bytes = beat.disk_free_bytes;
        for (function, run_us) in &beat.run_times_us {
            if let Some(record) = self.replicas.get_mut(function).and_then(|r| r.get_mut(&node)) {
                record.run_us = *run_us;
            }
        }
    }

    /// The host can answer for a version.
    pub fn on_ready(&mut self, now_ms: u64, node: NodeId, function: FunctionId, version: Version) {
        if !self.heard(now_ms, node) {
            return;
        }
        let Some(desired) = self.functions.get(&function) else {
            return;
        };
        if desired.wish.is_none() {
            // It was told to hold the function before it was told of the end.
            self.effects.push_back(Effect::Notify(node, function));
            return;
        }
        let version = desired.believable(version);
        if !self
            .replicas
            .get(&function)
            .is_some_and(|r| r.contains_key(&node))
            && self.hosts[&node].holds.len() >= HOLDINGS_MAX
        {
            return;
        }
        self.record(node, function, version, true);
        self.say(node, function);
        self.release_surplus(function);
    }

    /// The host will not hold a function: the next nearest is asked.
    pub fn on_refused(
        &mut self,
        now_ms: u64,
        node: NodeId,
        function: FunctionId,
        version: Version,
        reason: String,
    ) {
        if !self.heard(now_ms, node) {
            return;
        }
        let Some(desired) = self.functions.get_mut(&function) else {
            return;
        };
        if desired.version() != version || !desired.assigned.contains(&node) {
            return;
        }
        if self.hosts[&node].is_paused() {
            // It is asked again afterwards.
            self.erase(&node, &function);
        } else {
            self.refuse_record(node, function, version, reason);
        }
        self.say(node, function);
        self.give_up(&node, &function);
        self.place(function);
    }

    /// The host holds a function no more.
    pub fn on_dropped(&mut self, now_ms: u64, node: NodeId, function: FunctionId) {
        if !self.heard(now_ms, node) {
            return;
        }
        self.removals.on_dropped(&node, &function);
        let session = self.session(&node);
        if session.is_some_and(|session| session.releasing.remove(&function)) {
            // It was released; whatever it was told since then holds.
            return;
        }
        self.say_dropped(node, function);
        // It may have made room for others' sake; if it is still among the nearest it is asked again.
        self.give_up(&node, &function);
        self.place(function);
    }

    /// The host takes no new calls and is about to leave.
    pub fn on_draining(&mut self, now_ms: u64, node: NodeId) {
        if !self.heard(now_ms, node) {
            return;
        }
        if let Some(host) = self.hosts.get_mut(&node) {
            host.draining = true;
            if host.live {
                self.news.push_back(News::HostDown(node));
            }
        }
        self.place_all_of(node);
    }

    /// The host's connection ended. It may come back within the time after which it is lost, unless
    /// it said that it leaves.
    pub fn on_closed(&mut self, node: NodeId) {
        let Some(host) = self.hosts.get_mut(&node) else {
            return;
        };
        if host.draining {
            self.leave(&node);
        } else if let Some(session) = &mut host.session {
            session.closed = true;
        }
    }

    /// The host could not be reached for a caller: it is not routed to until it is heard again.
    pub fn on_unreachable(&mut self, now_ms: u64, node: NodeId) {
        if let Some(session) = self.session(&node) {
            session.heard_ms = session.heard_ms.min(now_ms.saturating_sub(SILENT_AFTER_MS + 1));
        }
    }

    fn heard(&mut self, now_ms: u64, node: NodeId) -> bool {
        let host = self.hosts.get_mut(&node);
        host.is_some_and(|host| host.heard(now_ms).is_some())
    }

    pub(super) fn session(&mut self, node: &NodeId) -> Option<&mut Session> {
        self.hosts.get_mut(node)?.session.as_deref_mut()
    }

    /// The hosts that are connected here.
    pub(super) fn sessions(&self) -> impl Iterator<Item = (NodeId, &Host, &Session)> {
        self.here.iter().filter_map(|node| {
            let host = self.hosts.get(node)?;
            Some((*node, host, host.session.as_deref()?))
        })
    }

    fn join(&mut self, node: NodeId) {
        if let Some(host) = self.hosts.get_mut(&node) {
            host.live = true;
            self.news.push_back(News::HostUp(node));
            let held = host.holds.clone();
            for function in held {
                self.say(node, function);
                self.tell_assigned(function);
            }
        }
        self.reconsider(node);
        self.effects.push_back(Effect::Synced(node));
    }
}
