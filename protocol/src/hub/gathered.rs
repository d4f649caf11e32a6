//! What there is to say to each peer, in as few messages as it fits in.

use std::collections::BTreeMap;

use crate::coordinator::Coordinator;
use crate::id::{FunctionId, NodeId};
use crate::wire::extension::Extensions;
use crate::wire::federation::{
    HOSTS_PAGE_MAX, HostRecord, Hosts, Order, Orders, PeerMessage, REPLICAS_PAGE_MAX, ReplicaNews, Replicas,
};

/// For each peer what concerns it.
#[derive(Default)]
pub(super) struct Gathered {
    replicas: BTreeMap<NodeId, Vec<ReplicaNews>>,
    orders: BTreeMap<NodeId, Vec<Order>>,
}

impl Gathered {
    /// What became of a function at a host concerns the function's directory.
    pub(super) fn add_replica(&mut self, function: FunctionId, host: NodeId, coordinator: &Coordinator) {
        let Some(news) = coordinator.replica_news(function, host) else {
            return;
        };
        for node in coordinator.directory(&function) {
            if !coordinator.is_me(&node) {
                self.replicas.entry(node).or_default().push(news.clone());
            }
        }
    }

    pub(super) fn add_order(&mut self, site: NodeId, order: Order) {
        self.orders.entry(site).or_default().push(order);
    }

    /// The messages, and for whom they are.
    pub(super) fn into_messages(self) -> impl Iterator<Item = (NodeId, PeerMessage)> {
        let to = |node| move |message| (node, message);
        let replicas = self.replicas.into_iter();
        let replicas = replicas.flat_map(move |(node, news)| replica_pages(&news).into_iter().map(to(node)));
        let orders = self.orders.into_iter();
        let orders = orders.flat_map(move |(node, orders)| order_pages(&orders).into_iter().map(to(node)));
        replicas.chain(orders)
    }
}

pub(super) fn replica_pages(news: &[ReplicaNews]) -> Vec<PeerMessage> {
    let page = |news: &[ReplicaNews]| Replicas {
        news: news.to_vec(),
        extensions: Extensions::none(),
    };
    news.chunks(REPLICAS_PAGE_MAX)
        .map(|news| page(news).into())
        .collect()
}

pub(super) fn order_pages(orders: &[Order]) -> Vec<PeerMessage> {
    let page = |orders: &[Order]| Orders {
        orders: orders.to_vec(),
        extensions: Extensions::none(),
    };
    orders
        .chunks(REPLICAS_PAGE_MAX)
        .map(|orders| page(orders).into())
        .collect()
}

/// All hosts there are, for a peer that is to forget all others.
pub(super) fn listing_pages(all: &[HostRecord]) -> Vec<PeerMessage> {
    let pages = all.len().div_ceil(HOSTS_PAGE_MAX).max(1);
    let page = |page: usize| {
        let up = all.iter().skip(page * HOSTS_PAGE_MAX).take(HOSTS_PAGE_MAX);
        let (reset, last) = (page == 0, page + 1 == pages);
        hosts(reset, last, up.cloned().collect(), Vec::new())
    };
    (0..pages).map(page).collect()
}

pub(super) fn up_pages(up: &[HostRecord]) -> Vec<PeerMessage> {
    let page = |up: &[HostRecord]| hosts(false, false, up.to_vec(), Vec::new());
    up.chunks(HOSTS_PAGE_MAX).map(page).collect()
}

pub(super) fn down_pages(down: &[NodeId]) -> Vec<PeerMessage> {
    let page = |down: &[NodeId]| hosts(false, false, Vec::new(), down.to_vec());
    down.chunks(HOSTS_PAGE_MAX).map(page).collect()
}

fn hosts(reset: bool, last: bool, up: Vec<HostRecord>, down: Vec<NodeId>) -> PeerMessage {
    Hosts {
        reset,
        last,
        up,
        down,
        extensions: Extensions::none(),
    }
    .into()
}
