//! Asks other super nodes on behalf of a client: who can answer, how far replicas are.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use orb_protocol::fault::Fault;
use orb_protocol::id::{FunctionId, NodeId};
use orb_protocol::quic::Connection;
use orb_protocol::quic::frames::{FrameError, read_message_within, write_message};
use orb_protocol::wire::codec::MESSAGE_LEN_MAX;
use orb_protocol::wire::directory::{HostHint, LOCAL, Resolve, Resolved, VIA};
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

/// Hosts at other super nodes that can answer for a function.
pub(crate) async fn hosts(node: &SuperNode, function: FunctionId) -> Vec<HostHint> {
    if !node.driver.has_peers() {
        return Vec::new();
    }
    if let Some(hosts) = node.remembered.get(&function) {
        return hosts;
    }
    let mut asked = JoinSet::new();
    for site in sites(node, function).await.into_iter().take(SITES_MAX) {
        if let Some(connection) = node.driver.peer_connection(&site) {
            let address = node.driver.peer_address(&site);
            asked.spawn(async move { hosts_at(&connection, address?, function).await });
        }
    }
    let mut hosts = Vec::new();
    while let Some(answer) = asked.join_next().await {
        hosts.extend(answer.ok().flatten().unwrap_or_default());
    }
    node.remembered.put(function, &hosts);
    hosts
}

/// Super nodes that have hosts of a function: as the first of its directory that can be asked says.
async fn sites(node: &SuperNode, function: FunctionId) -> Vec<NodeId> {
    let me = node.endpoint.node_id();
    let directory = node.driver.directory(&function);
    if directory.contains(&me) {
        return node
            .driver
            .sites(&function)
            .into_iter()
            .filter(|site| *site != me)
            .collect();
    }
    for keeper in directory {
        let locate = Locate {
            function,
            extensions: Extensions::none(),
        };
        match ask_super::<Located>(node, &keeper, locate.into(), ANSWER_MAX).await {
            Some(Ok(located)) => return located.supers.into_iter().filter(|site| *site != me).collect(),
            Some(Err(fault)) => {
                tracing::debug!(super_node = %keeper, %fault, "a function could not be located");
            }
            None => {}
        }
    }
    Vec::new()
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
    let hosts = resolved.hosts.into_iter().map(|mut host| {
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

async fn ask<T: DeserializeOwned>(
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
