//! Drives the hub: gives it events with the time, and sends what it decides.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use orb_protocol::coordinator::{Coordinator, CoordinatorError, Effect, Losing};
use orb_protocol::federation::Effect as PeerEffect;
use orb_protocol::federation::record::VerifiedRecord;
use orb_protocol::hub::{self, GATHER_MS, Hub, Inbound};
use orb_protocol::id::{FunctionId, ManifestHash, NodeId};
use orb_protocol::manifest::{Manifest, Verified, Version};
use orb_protocol::placement::FailureDomain;
use orb_protocol::quic::Connection;
use orb_protocol::wire::control::{Offer, SUPERS_MAX};
use orb_protocol::wire::directory::{HostHint, ReadyReport, RemovalReport, Replica, VIA};
use orb_protocol::wire::extension::Extensions;
use orb_protocol::wire::federation::{Cursor, PeerMessage, RegistryChange, SignedRecord};
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::close;
use super::outbox::{Outbox, Outgoing};
use super::peers::links::{Links, PeerLink, Todo};

/// The hub, and those that it talks to.
#[derive(Debug)]
pub(crate) struct Driver {
    state: Mutex<State>,
    /// Wakes those who wait for hosts to become ready.
    changes: watch::Sender<()>,
    /// The hub wants to be woken in a moment.
    wakes: Arc<Notify>,
    started: Instant,
}

#[derive(Debug)]
struct State {
    hub: Hub,
    /// The newest registration of each host.
    links: HashMap<NodeId, Arc<HostLink>>,
    peers: Links,
    wakes: Arc<Notify>,
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
    /// A driver of this hub.
    pub(crate) fn new(hub: Hub) -> Arc<Self> {
        let wakes = Arc::<Notify>::default();
        let state = State {
            hub,
            links: HashMap::new(),
            peers: Links::default(),
            wakes: Arc::clone(&wakes),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            changes: watch::Sender::new(()),
            wakes,
            started: Instant::now(),
        })
    }

    /// Takes up what is stored, before anything else; see [`Coordinator::restore`].
    ///
    /// # Errors
    /// What `read` returns.
    pub(crate) fn restore<E>(
        &self,
        read: impl FnOnce(&mut dyn FnMut(FunctionId, &Manifest, ManifestHash)) -> Result<(), E>,
    ) -> Result<usize, E> {
        self.drive(|coordinator, _| coordinator.restore(read))
    }

    /// Takes in a manifest that is stored, and was told to other super nodes before.
    pub(crate) fn on_manifest(&self, manifest: &Verified) {
        self.drive(|coordinator, _| coordinator.on_manifest(manifest));
        self.changes.send_replace(());
    }

    /// Takes in a manifest that an owner handed in here, and that is stored. Returns who was told to hold it,
    /// and why there are fewer than wanted.
    pub(crate) fn on_published(
        &self,
        manifest: &Verified,
        change: &RegistryChange,
    ) -> (Vec<NodeId>, Option<String>) {
        let function = manifest.function();
        let mut state = self.lock();
        state.hub.on_published(manifest, change);
        state.carry_out();
        drop(state);
        self.changes.send_replace(());
        self.placed(&function)
    }

    /// Who was told to hold a function, and why there are fewer than wanted.
    pub(crate) fn placed(&self, function: &FunctionId) -> (Vec<NodeId>, Option<String>) {
        let state = self.lock();
        let coordinator = state.hub.coordinator();
        (
            coordinator.assigned(function).to_vec(),
            coordinator.shortage(function),
        )
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
        state
            .hub
            .with_hosts(|coordinator| coordinator.on_registered(now_ms, node, offer, domain))?;
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
            let losing = state.hub.coordinator().losing(now_ms);
            state.hub.with_hosts(|coordinator| coordinator.on_tick(now_ms));
            state.hub.with_peers(|federation| federation.on_tick(now_ms));
            (losing, state.carry_out())
        };
        if lost {
            self.changes.send_replace(());
        }
        losing
    }

    /// Wakes the hub whenever it wants to be, without end.
    pub(crate) async fn keep_waking(self: Arc<Self>) {
        loop {
            self.wakes.notified().await;
            sleep(Duration::from_millis(GATHER_MS)).await;
            let mut state = self.lock();
            state.hub.on_wake();
            state.carry_out();
        }
    }

    /// Hosts that can answer for a function, best first.
    pub(crate) fn route(&self, function: &FunctionId) -> Vec<HostHint> {
        let now_ms = self.now_ms();
        self.lock().hub.coordinator().route(now_ms, function)
    }

    /// Why nobody, or too few, hold a function.
    pub(crate) fn shortage(&self, function: &FunctionId) -> Option<String> {
        self.lock().hub.coordinator().shortage(function)
    }

    /// Who is ready for a version or a newer one, and who is not.
    pub(crate) fn ready_report(&self, function: &FunctionId, version: Version) -> ReadyReport {
        self.lock().hub.coordinator().ready_report(function, version)
    }

    /// Who has removed a function that was decommissioned.
    pub(crate) fn removal_report(&self, function: &FunctionId) -> RemovalReport {
        let now_ms = self.now_ms();
        self.lock().hub.coordinator().removal_report(now_ms, function)
    }

    /// Every host that has to do with a function, at most so many, and the super node that each is connected to.
    pub(crate) fn replicas(&self, function: &FunctionId, most: usize) -> Vec<Replica> {
        let now_ms = self.now_ms();
        let state = self.lock();
        let (coordinator, federation) = (state.hub.coordinator(), state.hub.federation());
        let mut replicas = coordinator.replicas(now_ms, function);
        replicas.truncate(most);
        for replica in &mut replicas {
            let Some(site) = coordinator.site(&replica.host.node) else {
                continue;
            };
            let address = match site == federation.node() {
                true => federation.record().record().addresses.first().map(String::as_str),
                false => federation.address(&site),
            };
            let via = address.map_or_else(|| site.to_string(), |address| format!("{site}@{address}"));
            replica.host.extensions = Extensions::none().with(VIA, via.into_bytes());
        }
        replicas
    }

    /// Whether this node hears of a function's hosts at all super nodes: it is alone, or in the function's directory.
    pub(crate) fn knows_all_hosts(&self, function: &FunctionId) -> bool {
        let state = self.lock();
        let directory = state.hub.coordinator().directory(function);
        directory.is_empty() || directory.contains(&state.hub.federation().node())
    }

    /// How many hosts are registered.
    pub(crate) fn hosts(&self) -> usize {
        self.lock().hub.coordinator().hosts()
    }

    /// Says that something changed that somebody may wait for.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    // -- other super nodes -------------------------------------------------------------------------

    /// What this node says of itself when a link is opened.
    pub(crate) fn introduction(&self) -> (SignedRecord, Cursor) {
        let state = self.lock();
        let federation = state.hub.federation();
        (federation.record().signed().clone(), federation.own())
    }

    /// A link to another super node is up. Returns false if there is one already that stays.
    pub(crate) fn on_peer_up(&self, link: &Arc<PeerLink>, record: VerifiedRecord, own: Cursor) -> bool {
        let now_ms = self.now_ms();
        let mut state = self.lock();
        let me = state.hub.federation().node();
        let stays = state.peers.insert(&me, link);
        if stays {
            state.hub.on_link_up(now_ms, record, own);
            state.carry_out();
        }
        stays
    }

    /// A link is down.
    pub(crate) fn on_peer_down(&self, link: &Arc<PeerLink>) {
        let (now_ms, node) = (self.now_ms(), link.peer());
        let mut state = self.lock();
        if state.peers.remove(link) {
            state
                .hub
                .with_peers(|federation| federation.on_link_down(now_ms, node));
            state.carry_out();
        }
    }

    /// A super node could not be reached, or its link ended.
    pub(crate) fn on_peer_not_reached(&self, node: NodeId) {
        self.with_peers(|federation, now_ms| federation.on_not_reached(now_ms, node));
    }

    /// Somebody who may be a super node was met: a link is tried.
    pub(crate) fn on_met(&self, node: NodeId, address: String) {
        self.lock().peers.dial(node, address);
    }

    /// A record of another super node came.
    pub(crate) fn on_record(&self, from: Option<NodeId>, record: VerifiedRecord) {
        self.with_peers(|federation, now_ms| federation.on_record(now_ms, from, record));
    }

    /// A super node said something on its link.
    pub(crate) fn on_peer_message(&self, node: NodeId, message: PeerMessage) -> Inbound {
        let now_ms = self.now_ms();
        let wakes = matches!(message, PeerMessage::Replicas(_));
        let mut state = self.lock();
        let inbound = state.hub.on_message(now_ms, node, message);
        state.carry_out();
        drop(state);
        if wakes {
            self.changes.send_replace(());
        }
        inbound
    }

    /// Another super node's change is durable here. `news`: what is live now because of it.
    pub(crate) fn on_stored(&self, at: Cursor, news: Option<&Arc<Verified>>) {
        let mut state = self.lock();
        state.hub.on_stored(at, news.map(AsRef::as_ref));
        if let Some(manifest) = news {
            let directory = state.hub.coordinator().directory(&manifest.function());
            if directory.contains(&state.hub.federation().node()) {
                state.peers.obtain(Arc::clone(manifest));
            }
        }
        state.carry_out();
        drop(state);
        self.changes.send_replace(());
    }

    /// A pull ended.
    pub(crate) fn on_pulled(&self, node: NodeId, known: Option<&[Cursor]>) {
        self.with_peers(|federation, _| federation.on_pulled(node, known));
    }

    /// The next thing for the keeper to do.
    pub(crate) fn next_todo(&self) -> Option<Todo> {
        self.lock().peers.pop()
    }

    /// Says when there may be something for the keeper to do.
    pub(crate) fn peers_wake(&self) -> Arc<Notify> {
        self.lock().peers.wake()
    }

    /// Whether this node's clock does not tell what it lacks of what a super node knows.
    pub(crate) fn is_beyond_clock(&self, node: &NodeId) -> bool {
        self.lock().hub.federation().is_beyond_clock(node)
    }

    /// The connection to a super node, if it is linked.
    pub(crate) fn peer_connection(&self, node: &NodeId) -> Option<Connection> {
        self.lock().peers.connection(node)
    }

    /// Whether any super node is linked.
    pub(crate) fn has_peers(&self) -> bool {
        self.lock().hub.federation().up().next().is_some()
    }

    /// Whom an artifact of these functions may be had from, the most likely first: hosts here that are ready for
    /// one, super nodes of its directory, all other super nodes.
    pub(crate) fn sources(&self, functions: &[FunctionId]) -> Vec<Connection> {
        let now_ms = self.now_ms();
        let state = self.lock();
        let coordinator = state.hub.coordinator();
        let mut hosts = Vec::new();
        let mut directory = BTreeSet::new();
        for function in functions {
            hosts.extend(
                coordinator
                    .route(now_ms, function)
                    .into_iter()
                    .map(|hint| hint.node),
            );
            directory.extend(coordinator.directory(function));
        }
        let host = |node: &NodeId| Some(state.links.get(node)?.connection.clone());
        let mut peers = state.peers.connections();
        peers.sort_by_key(|connection| !directory.contains(&connection.peer()));
        hosts.iter().filter_map(host).chain(peers).collect()
    }

    /// Other super nodes that may know a function, those of its directory first.
    pub(crate) fn peers_for(&self, function: &FunctionId) -> Vec<Connection> {
        let state = self.lock();
        let directory = state.hub.coordinator().directory(function);
        let mut peers = state.peers.connections();
        peers.sort_by_key(|connection| !directory.contains(&connection.peer()));
        peers
    }

    /// Where a super node is reached.
    pub(crate) fn peer_address(&self, node: &NodeId) -> Option<String> {
        self.lock().hub.federation().address(node).map(ToOwned::to_owned)
    }

    /// Where the super nodes are reached that are linked, at most [`SUPERS_MAX`] of them.
    pub(crate) fn peer_addresses(&self) -> Vec<String> {
        let state = self.lock();
        let federation = state.hub.federation();
        let address = |node: NodeId| Some(format!("{node}@{}", federation.address(&node)?));
        federation.up().filter_map(address).take(SUPERS_MAX).collect()
    }

    /// The super nodes that keep a function's directory, nearest first.
    pub(crate) fn directory(&self, function: &FunctionId) -> Vec<NodeId> {
        self.lock().hub.coordinator().directory(function)
    }

    /// Super nodes with hosts that can answer for a function.
    pub(crate) fn sites(&self, function: &FunctionId) -> Vec<NodeId> {
        self.lock()
            .hub
            .coordinator()
            .sites(function)
            .into_iter()
            .collect()
    }

    fn with_peers(&self, event: impl FnOnce(&mut orb_protocol::federation::Federation, u64)) {
        let now_ms = self.now_ms();
        let mut state = self.lock();
        state.hub.with_peers(|federation| event(federation, now_ms));
        state.carry_out();
    }

    fn drive<T>(&self, event: impl FnOnce(&mut Coordinator, u64) -> T) -> T {
        let now_ms = self.now_ms();
        let mut state = self.lock();
        let outcome = state.hub.with_hosts(|coordinator| event(coordinator, now_ms));
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
    /// Hands the hub's effects on. Returns whether a host was lost.
    fn carry_out(&mut self) -> bool {
        let mut lost = false;
        while let Some(effect) = self.hub.poll_effect() {
            match effect {
                // It is remembered should nobody wait for it yet.
                hub::Effect::Wake => self.wakes.notify_one(),
                hub::Effect::Host(effect) => lost |= self.tell_host(&effect),
                hub::Effect::Peer(effect) => {
                    if matches!(effect, PeerEffect::Joined(_) | PeerEffect::Left(_)) {
                        self.links
                            .keys()
                            .for_each(|node| self.push(*node, Outgoing::Supers));
                    }
                    self.peers.carry_out(effect);
                }
            }
        }
        lost
    }

    fn tell_host(&mut self, effect: &Effect) -> bool {
        match *effect {
            Effect::Assign(node, function) => self.push(node, Outgoing::Assign(function)),
            Effect::Release(node, function) => self.push(node, Outgoing::Release(function)),
            Effect::Notify(node, function) => self.push(node, Outgoing::Changed(function)),
            Effect::Synced(node) => {
                self.push(node, Outgoing::Synced);
                if self.hub.federation().up().next().is_some() {
                    self.push(node, Outgoing::Supers);
                }
            }
            Effect::Lost(node) => {
                tracing::warn!(host = %node, "host lost: nothing was heard of it; its replicas are assigned elsewhere");
                if let Some(link) = self.links.remove(&node) {
                    link.connection
                        .close(close::LOST, "nothing was heard for too long");
                }
                return true;
            }
        }
        false
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
        let outcome = state
            .hub
            .with_hosts(|coordinator| event(coordinator, now_ms, node));
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
            state.hub.with_hosts(|coordinator| coordinator.on_closed(node));
            state.carry_out();
            drop(state);
            tracing::info!(host = %node, "host left: its connection ended");
            self.driver.changes.send_replace(());
        }
    }
}
