//! Relay sessions for callers.

use std::time::Duration;

use orb_protocol::fault::{Fault, FaultKind};
use orb_protocol::id::NodeId;
use orb_protocol::relay::RelayRefusal;
use orb_protocol::wire::relay::{OpenRelay, RelayOpened};

use super::connection::Peer;
use super::{SuperNode, directory, faults};

/// How long a target may take to agree. A caller has other hosts to turn to, and better soon.
const OFFER_TIMEOUT: Duration = Duration::from_secs(1);

/// Opens a session between a peer and the node that it wants to reach.
pub(crate) async fn open(node: &SuperNode, peer: &Peer, asked: &OpenRelay) -> Result<RelayOpened, Fault> {
    directory::check(&asked.extensions)?;
    let relay = node
        .endpoint
        .relay()
        .ok_or_else(|| fault(asked.target, RelayRefusal::Full))?;
    let opened = tokio::time::timeout(OFFER_TIMEOUT, relay.open(&peer.relay, asked))
        .await
        .unwrap_or(Err(RelayRefusal::TargetSilent));
    opened.map_err(|refusal| {
        tracing::debug!(caller = %peer.connection.peer(), target = %asked.target, %refusal, "no relay session");
        if matches!(refusal, RelayRefusal::TargetSilent | RelayRefusal::TargetNotConnected) {
            node.driver.on_unreachable(asked.target);
        }
        fault(asked.target, refusal)
    })
}

fn fault(target: NodeId, refusal: RelayRefusal) -> Fault {
    let message = format!("node {}: {refusal}", target.short());
    match refusal {
        RelayRefusal::TargetSilent | RelayRefusal::TargetNotConnected => {
            Fault::new(FaultKind::NoLiveHost, message)
        }
        RelayRefusal::SelfTarget => Fault::new(FaultKind::InputInvalid, message),
        RelayRefusal::CallerNotConnected => Fault::new(FaultKind::Refused, message),
        RelayRefusal::Full
        | RelayRefusal::CallerOverLimit
        | RelayRefusal::TargetOverLimit
        | RelayRefusal::TokensTaken => faults::overloaded(message),
    }
}
