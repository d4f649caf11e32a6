//! All of a super node's decisions: its hosts ([`Coordinator`]) and its peers ([`Federation`]), joined.
//!
//! What the coordinator has to say to other super nodes goes out on their links, gathered: one message
//! to each, whatever one event caused, and hosts that come together are told together (`arrivals.rs`). What they
//! say goes to whichever of the two it concerns.

mod arrivals;
mod gathered;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use arrivals::Arrivals;
use gathered::{Gathered, down_pages, listing_pages, order_pages, replica_pages, up_pages};

use crate::coordinator::{self, Coordinator, News};
use crate::federation::clock::Clock;
use crate::federation::record::VerifiedRecord;
use crate::federation::{self, Federation};
use crate::id::NodeId;
use crate::manifest::Verified;
use crate::wire::federation::{
    Cursor, HOSTS_PAGE_MAX, HostRecord, Hosts, LogId, Order, PeerMessage, REPLICAS_PAGE_MAX, RegistryChange,
    ReplicaNews,
};

/// How long hosts that come wait for those that come after them, in milliseconds: not much longer than a message takes
/// to another super node, so that nobody notices. Ten thousand hosts that come to a hundred super nodes within a
/// second are a tenth of the messages then.
pub const GATHER_MS: u64 = 100;

/// What the daemon has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// For one of its hosts.
    Host(coordinator::Effect),
    /// For one of its peers.
    Peer(federation::Effect),
    /// Call [`Hub::on_wake`] in [`GATHER_MS`]. Only one is asked for at a time.
    Wake,
}

/// A message from a peer that the daemon has to deal with: it wants a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inbound {
    /// Verify and store this, then call [`Hub::on_stored`].
    Change(Box<RegistryChange>),
    /// Verify these records, then call [`Hub::on_record`] for each.
    Records(Vec<crate::wire::federation::SignedRecord>),
    /// It was dealt with.
    Nothing,
}

/// See the module's text.
#[derive(Debug)]
pub struct Hub {
    coordinator: Coordinator,
    federation: Federation,
    arrivals: Arrivals,
    effects: VecDeque<Effect>,
}

impl Hub {
    /// A super node with this record, whose own changes go into `log`, and which knows so much.
    pub fn new(record: VerifiedRecord, log: LogId, clock: Clock) -> Self {
        Self {
            coordinator: Coordinator::federated(record.node()),
            federation: Federation::new(record, log, clock),
            arrivals: Arrivals::default(),
            effects: VecDeque::new(),
        }
    }

    /// The decisions about hosts, to look at.
    pub fn coordinator(&self) -> &Coordinator {
        &self.coordinator
    }

    /// The decisions about peers, to look at.
    pub fn federation(&self) -> &Federation {
        &self.federation
    }

    /// Something happened that concerns hosts.
    pub fn with_hosts<T>(&mut self, event: impl FnOnce(&mut Coordinator) -> T) -> T {
        let outcome = event(&mut self.coordinator);
        self.settle();
        outcome
    }

    /// Something happened that concerns peers.
    pub fn with_peers<T>(&mut self, event: impl FnOnce(&mut Federation) -> T) -> T {
        let outcome = event(&mut self.federation);
        self.settle();
        outcome
    }

    /// The next thing to do. Drain it after every event.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// An owner's revision is durable here, with its place in this node's own log.
    pub fn on_published(&mut self, manifest: &Verified, change: &RegistryChange) {
        self.federation.on_published(change);
        self.with_hosts(|coordinator| coordinator.on_manifest(manifest));
    }

    /// Another super node's change is durable here. `news`: it is what is live now.
    pub fn on_stored(&mut self, at: Cursor, news: Option<&Verified>) {
        self.federation.on_stored(at);
        if let Some(manifest) = news {
            self.coordinator.on_manifest(manifest);
        }
        self.settle();
    }

    /// The time that [`Effect::Wake`] asked for has passed.
    pub fn on_wake(&mut self) {
        self.arrivals.gathering = false;
        if self.arrivals.are_due() {
            self.tell_arrivals();
        }
    }

    /// A record of another super node was verified.
    pub fn on_record(&mut self, now_ms: u64, from: Option<NodeId>, record: VerifiedRecord) {
        self.with_peers(|federation| federation.on_record(now_ms, from, record));
    }

    /// A link is up: what the other side has to know goes out.
    pub fn on_link_up(&mut self, now_ms: u64, record: VerifiedRecord, own: Cursor) {
        let node = record.node();
        self.with_peers(|federation| federation.on_link_up(now_ms, record, own));
        self.brief(node);
    }

    /// A peer said something on its link.
    pub fn on_message(&mut self, now_ms: u64, node: NodeId, message: PeerMessage) -> Inbound {
        match message {
            PeerMessage::Members(mut members) => {
                members.records.retain(|record| !self.federation.is_known(record));
                return Inbound::Records(members.records);
            }
            PeerMessage::Changed(change) if self.federation.is_own_log(&node, &change.at.log) => {
                return Inbound::Change(Box::new(change));
            }
            PeerMessage::Hosts(hosts) => self.on_hosts(node, hosts),
            PeerMessage::Replicas(replicas) => {
                for news in replicas.news.into_iter().take(REPLICAS_PAGE_MAX) {
                    self.coordinator.on_replica_news(node, news);
                }
            }
            PeerMessage::Orders(orders) => {
                for order in orders.orders.iter().take(REPLICAS_PAGE_MAX) {
                    self.coordinator.on_order(node, order);
                }
            }
            PeerMessage::Beat(beat) => {
                // What was said of functions that it did not know yet was said in vain.
                if self.federation.on_beat(now_ms, node, &beat) {
                    self.brief(node);
                }
            }
            PeerMessage::Changed(_) | PeerMessage::Unknown(_) => {}
        }
        self.settle();
        Inbound::Nothing
    }

    fn on_hosts(&mut self, site: NodeId, hosts: Hosts) {
        if hosts.reset {
            self.coordinator.on_hosts_reset(site);
        }
        for record in hosts.up.into_iter().take(HOSTS_PAGE_MAX) {
            self.coordinator.on_remote_up(site, record);
        }
        for node in hosts.down.into_iter().take(HOSTS_PAGE_MAX) {
            self.coordinator.on_remote_down(site, node);
        }
        if hosts.last {
            self.coordinator.on_hosts_listed(site);
        }
    }

    /// Tells a peer all that it has to know of this node's hosts, and what its own should do.
    fn brief(&mut self, node: NodeId) {
        let hosts = self.coordinator.host_records();
        let replicas = self.coordinator.replicas_for(&node);
        let news = replicas
            .into_iter()
            .filter_map(|(function, host)| self.coordinator.replica_news(function, host));
        let news: Vec<ReplicaNews> = news.collect();
        let orders = self.coordinator.orders_for(&node);
        let messages = listing_pages(&hosts)
            .into_iter()
            .chain(replica_pages(&news))
            .chain(order_pages(&orders));
        for message in messages {
            self.send_all(&[node], message);
        }
    }

    /// Passes on what each half has for the other, and what both have for the daemon.
    fn settle(&mut self) {
        while let Some(effect) = self.federation.poll_effect() {
            match &effect {
                federation::Effect::Joined(_) => self.coordinator.on_supers(self.federation.present()),
                federation::Effect::Left(node) => {
                    self.coordinator.on_supers(self.federation.present());
                    self.coordinator.on_site_lost(*node);
                }
                _ => {}
            }
            self.effects.push_back(Effect::Peer(effect));
        }
        while let Some(effect) = self.coordinator.poll_effect() {
            self.effects.push_back(Effect::Host(effect));
        }
        self.pass_news_on();
    }

    fn pass_news_on(&mut self) {
        let (mut down, mut gathered) = (BTreeSet::new(), Gathered::default());
        while let Some(news) = self.coordinator.poll_news() {
            match news {
                News::HostUp(node) => {
                    down.remove(&node);
                    self.arrivals.add(node);
                }
                News::HostDown(node) => {
                    self.arrivals.remove(&node);
                    down.insert(node);
                }
                News::Replica(function, host) => {
                    if !self.arrivals.add_replica(function, host) {
                        gathered.add_replica(function, host, &self.coordinator);
                    }
                }
                News::Order(site, function, host, hold) => {
                    gathered.add_order(site, Order { function, host, hold });
                }
            }
        }
        let down: Vec<NodeId> = down.into_iter().collect();
        self.tell_everybody(down_pages(&down));
        self.send_gathered(gathered);
        if self.arrivals.are_due() {
            self.tell_arrivals();
        }
    }

    fn tell_arrivals(&mut self) {
        let (hosts, replicas) = self.arrivals.take();
        let records = hosts.iter().filter_map(|host| self.coordinator.host_record(host));
        let records: Vec<HostRecord> = records.collect();
        let mut gathered = Gathered::default();
        for (host, function) in replicas {
            gathered.add_replica(function, host, &self.coordinator);
        }
        self.tell_everybody(up_pages(&records));
        self.send_gathered(gathered);
        if !std::mem::replace(&mut self.arrivals.gathering, true) {
            self.effects.push_back(Effect::Wake);
        }
    }

    fn tell_everybody(&mut self, messages: Vec<PeerMessage>) {
        if messages.is_empty() {
            return;
        }
        let peers: Vec<NodeId> = self.federation.up().collect();
        for message in messages {
            self.send_all(&peers, message);
        }
    }

    fn send_gathered(&mut self, gathered: Gathered) {
        for (node, message) in gathered.into_messages() {
            self.send_all(&[node], message);
        }
    }

    fn send_all(&mut self, nodes: &[NodeId], message: PeerMessage) {
        let message = Arc::new(message);
        let send = |node: &NodeId| Effect::Peer(federation::Effect::Send(*node, Arc::clone(&message)));
        self.effects.extend(nodes.iter().map(send));
    }
}

#[cfg(test)]
mod tests;
