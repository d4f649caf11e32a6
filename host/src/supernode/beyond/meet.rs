//! Super nodes that link with everybody find each other.

use std::sync::Arc;
use std::time::Duration;

use orb_protocol::discovery::InfoHash;
use orb_protocol::discovery::schedule::ROUND_MS;
use orb_protocol::quic::NodeAddr;
use tokio::time::{Instant, sleep, timeout};

use super::super::SuperNode;
use crate::discovery::find::{fresh_endpoint, who_is_at};
use crate::discovery::{Dht, DhtError};

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// The same as long as there is no other super node.
const LOOK_INTERVAL_ALONE: Duration = Duration::from_secs(30);
/// How long it may take to find out who is at an address.
const MEET_MAX: Duration = Duration::from_secs(4);
/// How often this node announces itself.
const ANNOUNCE_INTERVAL: Duration = Duration::from_millis(ROUND_MS);

/// Announces this node, and looks for others, until its place in the DHT is lost.
pub(super) async fn run(node: &Arc<SuperNode>, dht: &Arc<Dht>, port: u16) -> DhtError {
    let hash = InfoHash::of_super_nodes();
    let mut announced: Option<Instant> = None;
    loop {
        // First this: of two that begin at once, one hears of the other.
        if announced.is_none_or(|at| at.elapsed() >= ANNOUNCE_INTERVAL) {
            match dht.announce(hash, port).await {
                Ok(()) => announced = Some(Instant::now()),
                Err(error @ DhtError::Ended(_)) => return error,
                Err(error) => {
                    dht.counters().puts_failed.add();
                    tracing::debug!(%error, "not announced to other super nodes in the DHT");
                }
            }
        }
        match dht.announced(hash).await {
            Ok(candidates) => {
                for at in candidates.ranked() {
                    if let Some(other) = meet(dht, at).await {
                        link(node, other);
                    }
                }
            }
            Err(error) => return error,
        }
        sleep(if node.driver.has_peers() {
            LOOK_INTERVAL
        } else {
            LOOK_INTERVAL_ALONE
        })
        .await;
    }
}

async fn meet(dht: &Dht, at: std::net::SocketAddrV4) -> Option<NodeAddr> {
    let endpoint = fresh_endpoint()
        .inspect_err(|error| tracing::debug!(%error, "no endpoint to meet super nodes with"))
        .ok()?;
    let met = timeout(MEET_MAX, who_is_at(&endpoint, at)).await;
    let other = met.ok().and_then(Result::ok);
    if other.is_none() {
        dht.counters().addresses_silent.add();
    }
    other
}

/// Has a link opened, where the other one proves its record, or refuses.
fn link(node: &SuperNode, other: NodeAddr) {
    let is_new = other.id != node.endpoint.node_id() && node.driver.peer_connection(&other.id).is_none();
    if is_new {
        tracing::info!(super_node = %other.id, address = %other.addr, "found another super node in the DHT");
        node.driver.on_met(other.id, other.addr.to_string());
    }
}
