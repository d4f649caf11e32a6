//! All of a super node's decisions: its hosts ([`Coordinator`]) and its peers ([`Federation`]), joined.
//!
//! What the coordinator has to say to other super nodes goes out on their links, gathered: one message
//! to each, whatever one event caused. What they say goes to whichever of the two it concerns.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::coordinator::{self, Coordinator, News};
use crate::federation::clock::Clock;
use crate::federation::record::VerifiedRecord;
use crate::federation::{self, Federation};
use crate::id::{FunctionId, NodeId};
use crate::manifest::Verified;
use crate::wire::extension::Extensions;
use crate::wire::federation::{
    Cursor, HOSTS_PAGE_MAX, HostRecord, Hosts, LogId, Order, Orders, PeerMessage, REPLICAS_PAGE_MAX,
    RegistryChange, ReplicaNews, Replicas,
};

/// What the daemon has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// For one of its hosts.
    Host(coordinator::Effect),
    /// For one of its peers.
    Peer(federation::Effect),
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
    effects: VecDeque<Effect>,
}

impl Hub {
    /// A super node with this record, whose own changes go into `log`, and which knows so much.
    pub fn new(record: VerifiedRecord, log: LogId, clock: Clock) -> Self {
        Self {
            coordinator: Coordinator::federated(record.node()),
            federation: Federation::new(record, log, clock),
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
        let pages = hosts.len().div_ceil(HOSTS_PAGE_MAX).max(1);
        for page in 0..pages {
            let up = hosts.iter().skip(page * HOSTS_PAGE_MAX).take(HOSTS_PAGE_MAX);
            let (reset, last) = (page == 0, page + 1 == pages);
            self.send(
                node,
                hosts_message(reset, last, up.cloned().collect(), Vec::new()),
            );
        }
        let replicas = self.coordinator.replicas_for(&node);
        let news = replicas
            .into_iter()
            .filter_map(|(function, host)| self.coordinator.replica_news(function, host));
        let news: Vec<ReplicaNews> = news.collect();
        self.send_replicas(node, &news);
        let orders = self.coordinator.orders_for(&node);
        self.send_orders(node, &orders);
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
        let mut news = Gathered::default();
        while let Some(one) = self.coordinator.poll_news() {
            news.add(one, &self.coordinator);
        }
        if !(news.up.is_empty() && news.down.is_empty()) {
            let peers: Vec<NodeId> = self.federation.up().collect();
            let (up, down): (Vec<_>, Vec<_>) =
                (news.up.into_values().collect(), news.down.into_iter().collect());
            for message in host_pages(&up, &down) {
                self.send_all(&peers, message);
            }
        }
        for (node, replicas) in news.replicas {
            self.send_replicas(node, &replicas);
        }
        for (node, orders) in news.orders {
            self.send_orders(node, &orders);
        }
    }

    fn send_replicas(&mut self, node: NodeId, news: &[ReplicaNews]) {
        for page in news.chunks(REPLICAS_PAGE_MAX) {
            let message = Replicas {
                news: page.to_vec(),
                extensions: Extensions::none(),
            };
            self.send(node, message.into());
        }
    }

    fn send_orders(&mut self, node: NodeId, orders: &[Order]) {
        for page in orders.chunks(REPLICAS_PAGE_MAX) {
            let message = Orders {
                orders: page.to_vec(),
                extensions: Extensions::none(),
            };
            self.send(node, message.into());
        }
    }

    fn send(&mut self, node: NodeId, message: PeerMessage) {
        self.send_all(&[node], message);
    }

    fn send_all(&mut self, nodes: &[NodeId], message: PeerMessage) {
        let message = Arc::new(message);
        let send = |node: &NodeId| Effect::Peer(federation::Effect::Send(*node, Arc::clone(&message)));
        self.effects.extend(nodes.iter().map(send));
    }
}

/// What one event has for each peer.
#[derive(Default)]
struct Gathered {
    up: BTreeMap<NodeId, HostRecord>,
    down: BTreeSet<NodeId>,
    replicas: BTreeMap<NodeId, Vec<ReplicaNews>>,
    orders: BTreeMap<NodeId, Vec<Order>>,
}

impl Gathered {
    fn add(&mut self, news: News, coordinator: &Coordinator) {
        match news {
            News::HostUp(node) => {
                self.down.remove(&node);
                let record = coordinator.host_record(&node);
                record.map(|record| self.up.insert(node, record));
            }
            News::HostDown(node) => {
                self.up.remove(&node);
                self.down.insert(node);
            }
            News::Replica(function, host) => self.add_replica(function, host, coordinator),
            News::Order(site, function, host, hold) => {
                let order = Order { function, host, hold };
                self.orders.entry(site).or_default().push(order);
            }
        }
    }

    fn add_replica(&mut self, function: FunctionId, host: NodeId, coordinator: &Coordinator) {
        let Some(news) = coordinator.replica_news(function, host) else {
            return;
        };
        for node in coordinator.directory(&function) {
            if !coordinator.is_me(&node) {
                self.replicas.entry(node).or_default().push(news.clone());
            }
        }
    }
}

fn host_pages(up: &[HostRecord], down: &[NodeId]) -> Vec<PeerMessage> {
    let pages = up.len().max(down.len()).div_ceil(HOSTS_PAGE_MAX);
    let page = |page: usize| {
        let (from, most) = (page * HOSTS_PAGE_MAX, HOSTS_PAGE_MAX);
        let up = up.iter().skip(from).take(most).cloned().collect();
        let down = down.iter().skip(from).take(most).copied().collect();
        hosts_message(false, false, up, down)
    };
    (0..pages).map(page).collect()
}

fn hosts_message(reset: bool, last: bool, up: Vec<HostRecord>, down: Vec<NodeId>) -> PeerMessage {
    Hosts {
        reset,
        last,
        up,
        down,
        extensions: Extensions::none(),
    }
    .into()
}
