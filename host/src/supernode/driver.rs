//! Drives the coordinator: gives it events with the time, and sends what it decides.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use orb_protocol::coordinator::{Coordinator, CoordinatorError, Effect, Losing};
use orb_protocol::id::{FunctionId, NodeId};
use orb_protocol::manifest::{Verified, Version};
use orb_protocol::placement::FailureDomain;
use orb_protocol::quic::Connection;
use orb_protocol::wire::control::Offer;
use orb_protocol::wire::directory::{HostHint, ReadyReport, Replica};
use tokio::sync::watch;

use super::close;
use super::outbox::{Outbox, Outgoing};

/// The coordinator, and the hosts that it talks to.
#[derive(Debug)]
pub(crate) struct Driver {
    state: Mutex<State>,
    /// Wakes those who wait for hosts to become ready.
    changes: watch::Sender<()>,
    started: Instant,
}

#[derive(Debug, Default)]
struct State {
    coordinator: Coordinator,
    /// The newest registration of each host.
    links: HashMap<NodeId, Arc<HostLink>>,
}

/// One registration of a host.
#[derive(Debug)]
pub(crate) struct HostLink {
    /// The host's connection.
    pub(crate) connection: Connection,
    /// What it is still to be told.
    pub(crate) outbox: Outbox,
}

/// A host's registration, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    driver: Arc<Driver>,
    link: Arc<HostLink>,
}

impl Driver {
    /// A driver that knows nothing yet.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            changes: watch::Sender::new(()),
            started: Instant::now(),
        })
    }

    /// Takes in a manifest that is stored. Returns who was told to hold it, and why there are fewer than
    /// wanted.
    pub(crate) fn on_manifest(&self, manifest: &Verified) -> (Vec<NodeId>, Option<String>) {
        let function = manifest.function();
        let placed = self.drive(|coordinator, _| {
            coordinator.on_manifest(manifest);
            let assigned = coordinator.assigned(&function).to_vec();
            (assigned, coordinator.shortage(&function))
        });
        self.changes.send_replace(());
        placed
    }

    /// Takes in a host. An older registration of the same id is ended.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub(crate) fn register(
        self: &Arc<Self>,
        offer: Offer,
        domain: FailureDomain,
        connection: Connection,
    ) -> Result<Registration, CoordinatorError> {
        let node = connection.peer();
        let link = Arc::new(HostLink {
            connection,
            outbox: Outbox::default(),
        });
        let now_ms = self.now_ms();
        let mut state = self.lock();
        state.coordinator.on_registered(now_ms, node, offer, domain)?;
        let old = state.links.insert(node, Arc::clone(&link));
        state.carry_out();
        drop(state);
        if let Some(old) =
            old.filter(|old| old.connection.quinn().stable_id() != link.connection.quinn().stable_id())
        {
            tracing::info!(host = %node, "a host came back on a new connection: the old one is closed");
            old.connection
                .close(close::REPLACED, "replaced by a newer connection of the same node");
        }
        Ok(Registration {
            driver: Arc::clone(self),
            link,
        })
    }

    /// A host could not be reached for a caller.
    pub(crate) fn on_unreachable(&self, node: NodeId) {
        self.drive(|coordinator, now_ms| coordinator.on_unreachable(now_ms, node));
    }

    /// To be called about once a second. Returns the hosts that are lost.
    pub(crate) fn tick(&self) -> Vec<Losing> {
        let (losing, lost) = {
            let now_ms = self.now_ms();
            let mut state = self.lock();
            let losing = state.coordinator.losing(now_ms);
            state.coordinator.on_tick(now_ms);
            (losing, state.carry_out())
        };
        if lost {
            self.changes.send_replace(());
        }
        losing
    }

    /// Hosts that can answer for a function, best first.
    pub(crate) fn route(&self, function: &FunctionId) -> Vec<HostHint> {
        let now_ms = self.now_ms();
        self.lock().coordinator.route(now_ms, function)
    }

    /// Why nobody, or too few, hold a function.
    pub(crate) fn shortage(&self, function: &FunctionId) -> Option<String> {
        self.lock().coordinator.shortage(function)
    }

    /// Who is ready for a version or a newer one, and who is not.
    pub(crate) fn ready_report(&self, function: &FunctionId, version: Version) -> ReadyReport {
        self.lock().coordinator.ready_report(function, version)
    }

    /// Every host that has to do with a function.
    pub(crate) fn replicas(&self, function: &FunctionId) -> Vec<Replica> {
        let now_ms = self.now_ms();
        self.lock().coordinator.replicas(now_ms, function)
    }

    /// How many hosts are registered.
    pub(crate) fn hosts(&self) -> usize {
        self.lock().coordinator.hosts()
    }

    /// Says that something changed that somebody may wait for.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    fn drive<T>(&self, event: impl FnOnce(&mut Coordinator, u64) -> T) -> T {
        let now_ms = self.now_ms();
        let mut state = self.lock();
        let outcome = event(&mut state.coordinator, now_ms);
        state.carry_out();
        outcome
    }

    fn now_ms(&self) -> u64 {
        // 2^64 milliseconds are half a billion years.
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Hands the coordinator's effects on. Returns whether a host was lost.
    fn carry_out(&mut self) -> bool {
        let mut lost = false;
        while let Some(effect) = self.coordinator.poll_effect() {
            match effect {
                Effect::Assign(node, function) => self.push(node, Outgoing::Assign(function)),
                Effect::Release(node, function) => self.push(node, Outgoing::Release(function)),
                Effect::Notify(node, function) => self.push(node, Outgoing::Changed(function)),
                Effect::Synced(node) => self.push(node, Outgoing::Synced),
                Effect::Lost(node) => {
                    lost = true;
                    tracing::warn!(host = %node, "host lost: nothing was heard of it; its replicas are assigned elsewhere");
                    if let Some(link) = self.links.remove(&node) {
                        link.connection
                            .close(close::LOST, "nothing was heard for too long");
                    }
                }
            }
        }
        lost
    }

    fn push(&self, node: NodeId, message: Outgoing) {
        let Some(link) = self.links.get(&node) else {
            return;
        };
        if let Err(full) = link.outbox.push(message) {
            tracing::warn!(host = %node, error = %full, "host cut off");
            link.connection
                .close(close::TOO_SLOW, "the host does not read what it is sent");
        }
    }
}

impl Registration {
    /// The host's link.
    pub(crate) fn link(&self) -> &Arc<HostLink> {
        &self.link
    }

    /// Tells the coordinator of something that the host said, unless a newer registration took its
    /// place: then `None`. `wakes`: somebody may wait for it.
    pub(crate) fn event<T>(
        &self,
        wakes: bool,
        event: impl FnOnce(&mut Coordinator, u64, NodeId) -> T,
    ) -> Option<T> {
        let node = self.link.connection.peer();
        let now_ms = self.driver.now_ms();
        let mut state = self.driver.lock();
        if !self.is_current(&state) {
            return None;
        }
        let outcome = event(&mut state.coordinator, now_ms, node);
        state.carry_out();
        drop(state);
        if wakes {
            self.driver.changes.send_replace(());
        }
        Some(outcome)
    }

    fn is_current(&self, state: &State) -> bool {
        let newest = state.links.get(&self.link.connection.peer());
        newest.is_some_and(|newest| Arc::ptr_eq(newest, &self.link))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let node = self.link.connection.peer();
        let mut state = self.driver.lock();
        if self.is_current(&state) {
            state.links.remove(&node);
            state.coordinator.on_closed(node);
            state.carry_out();
            drop(state);
            tracing::info!(host = %node, "host left: its connection ended");
            self.driver.changes.send_replace(());
        }
    }
}
