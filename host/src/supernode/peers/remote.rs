//! Asks other super nodes on behalf of a client: who can answer, how far replicas are.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use orb_protocol::fault::Fault;
use orb_protocol::id::{FunctionId, NodeId};
use orb_protocol::quic::Connection;
use orb_protocol::quic::frames::{FrameError, read_message_within, write_message};
use orb_protocol::wire::codec::MESSAGE_LEN_MAX;
use orb_protocol::wire::directory::{HOSTS_MAX, HostHint, LOCAL, Resolve, Resolved, VIA};
use orb_protocol::wire::extension::Extensions;
use orb_protocol::wire::federation::{Locate, Located};
use orb_protocol::wire::{Reply, Request};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::SuperNode;

/// How long another super node may take to answer what it has at hand.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Super nodes that are asked for their hosts of one function.
const SITES_MAX: usize = 4;
/// How long what they said is used again: a host that became ready elsewhere is found so much later at
/// most, and one that is lost meanwhile costs a caller an attempt.
const KEPT: Duration = Duration::from_secs(1);
/// Functions of which it is kept, about 1 KiB each.
const KEPT_MAX: usize = 8_192;

/// What other super nodes said lately.
#[derive(Debug, Default)]
pub(crate) struct Remembered(Mutex<HashMap<FunctionId, (Instant, Vec<HostHint>)>>);

impl Remembered {
    fn get(&self, function: &FunctionId) -> Option<Vec<HostHint>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, hosts) = kept.get(function)?;
        (at.elapsed() < KEPT).then(|| hosts.clone())
    }

    fn put(&self, function: FunctionId, hosts: &[HostHint]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(function, (Instant::now(), hosts.to_vec()));
    }
}

/// Hosts at other super nodes that can answer for a function. `needed`: there are none here.
pub(crate) async fn hosts(node: &SuperNode, function: FunctionId, needed: bool) -> Vec<HostHint> {
    if !node.driver.has_peers() {
        return Vec::new();
    }
    if let Some(hosts) = node.remembered.get(&function) {
        return hosts;
    }
    let mut hosts = Vec::new();
    let mut asked = BTreeSet::from([node.endpoint.node_id()]);
    // One that knows nobody, or names those that have none, may be behind, or lie: then the next is asked, unless there
    // are hosts here to call.
    for keeper in keepers(node, &function) {
        let mut sites = sites(node, &keeper, function).await;
        sites.retain(|site| asked.insert(*site));
        hosts = hosts_of(node, sites, function).await;
        if !(needed && hosts.is_empty()) {
            break;
        }
    }
    node.remembered.put(function, &hosts);
    hosts
}

/// Who keeps a function's directory, this node before others: it need not ask itself.
fn keepers(node: &SuperNode, function: &FunctionId) -> Vec<NodeId> {
    let mut keepers = node.driver.directory(function);
    keepers.sort_by_key(|keeper| *keeper != node.endpoint.node_id());
    keepers
}

/// Super nodes that have hosts of a function, as one of its directory says.
async fn sites(node: &SuperNode, keeper: &NodeId, function: FunctionId) -> Vec<NodeId> {
    if *keeper == node.endpoint.node_id() {
        return node.driver.sites(&function);
    }
    let locate = Locate {
        function,
        extensions: Extensions::none(),
    };
    match ask_super::<Located>(node, keeper, locate.into(), ANSWER_MAX).await {
        Some(Ok(located)) => located.supers,
        Some(Err(fault)) => {
            tracing::debug!(super_node = %keeper, %fault, "a function could not be located");
            Vec::new()
        }
        None => Vec::new(),
    }
}

/// Hosts at these super nodes, as each says of its own.
async fn hosts_of(node: &SuperNode, sites: Vec<NodeId>, function: FunctionId) -> Vec<HostHint> {
    let mut asked = JoinSet::new();
    for site in sites.into_iter().take(SITES_MAX) {
        if let Some(connection) = node.driver.peer_connection(&site) {
            let address = node.driver.peer_address(&site);
            asked.spawn(async move { hosts_at(&connection, address?, function).await });
        }
    }
    let mut hosts = Vec::new();
    while let Some(answer) = asked.join_next().await {
        let some = answer.ok().flatten().unwrap_or_default();
        if some.is_empty() {
            node.offences.sites_empty.add();
        }
        hosts.extend(some);
    }
    hosts
}

async fn hosts_at(connection: &Connection, address: String, function: FunctionId) -> Option<Vec<HostHint>> {
    let resolve = Resolve {
        function,
        credential: None,
        extensions: Extensions::none().with(LOCAL, Vec::new()),
    };
    let resolved: Resolved = ask(connection, resolve.into(), ANSWER_MAX).await.ok()?;
    let link_us = u32::try_from(connection.rtt().as_micros()).unwrap_or(u32::MAX);
    let via = format!("{}@{address}", connection.peer());
    let hosts = resolved.hosts.into_iter().take(HOSTS_MAX).map(|mut host| {
        host.rtt_us = host.rtt_us.saturating_add(link_us);
        // Whatever it says itself: it answers for its own hosts only.
        host.extensions = Extensions::none().with(VIA, via.clone().into_bytes());
        host
    });
    Some(hosts.collect())
}

/// Asks a super node for one thing; `None` if it is not linked.
pub(crate) async fn ask_super<T: DeserializeOwned>(
    node: &SuperNode,
    peer: &NodeId,
    request: Request,
    wait: Duration,
) -> Option<Result<T, Fault>> {
    let connection = node.driver.peer_connection(peer)?;
    Some(ask(&connection, request, wait).await)
}

/// Asks a super node for one thing.
pub(super) async fn ask<T: DeserializeOwned>(
    connection: &Connection,
    request: Request,
    wait: Duration,
) -> Result<T, Fault> {
    let exchange = async {
        let (mut send, mut recv) = connection.open_bi().await.map_err(FrameError::Lost)?;
        write_message(&mut send, &request).await?;
        let _ = send.finish();
        read_message_within::<Reply>(&mut recv, MESSAGE_LEN_MAX, wait).await
    };
    let reply = tokio::time::timeout(wait, exchange)
        .await
        .unwrap_or(Err(FrameError::TimedOut(wait)));
    reply
        .map_err(|error| super::super::faults::of_frame(&error))?
        .into_result()
}

#[cfg(test)]
#[path = "remote_tests.rs"]
mod tests;
