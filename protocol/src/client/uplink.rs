//! The connection to a super node: whichever of the list answers first.

use std::fmt::Write;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::error::{Broken, not_connected};
use super::exchange;
use super::slot::Slot;
use crate::fault::{Fault, FaultKind};
use crate::quic::{Connection, Endpoint, SuperAddr};
use crate::wire::Request;

/// Super nodes that a client may be given; all of them may be tried at once.
pub(super) const SUPER_NODES_MAX: usize = 16;
/// How much later the next super node of the list is tried, while the ones before have not answered:
/// about a round trip around the world, so that the first of the list is taken if it is well.
const STAGGER: Duration = Duration::from_millis(250);
/// How long a super node may take for a reply that it has at hand.
pub(super) const REPLY_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a request is made: a connection that was at rest may have been lost unnoticed.
const TRIES_MAX: usize = 2;

pub(super) struct Uplink {
    endpoint: Endpoint,
    super_nodes: Vec<SuperAddr>,
    slot: Slot<Connection>,
}

impl Uplink {
    pub(super) fn new(endpoint: Endpoint, super_nodes: Vec<SuperAddr>) -> Self {
        Self {
            endpoint,
            super_nodes,
            slot: Slot::default(),
        }
    }

    /// The connection, made anew if it was lost.
    pub(super) async fn connection(&self) -> Result<Connection, Fault> {
        let dial = || connect_any(&self.endpoint, &self.super_nodes);
        let (connection, _) = self.slot.get(|c| !c.is_closed(), dial).await?;
        Ok(connection)
    }

    /// Asks for one thing.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        request: impl Into<Request>,
        wait: Duration,
    ) -> Result<T, Fault> {
        let request = request.into();
        let mut tries = Tries::default();
        loop {
            let connection = self.connection().await?;
            let result = exchange::ask(&connection, &request, wait).await;
            if let Some(result) = tries.settle(&connection, result) {
                return result;
            }
        }
    }
}

/// Counts how often a request was made. Every request to a super node may be made twice without harm.
#[derive(Default)]
pub(super) struct Tries(usize);

impl Tries {
    /// The result of a request, unless it should be made once more on a new connection.
    pub(super) fn settle<T>(
        &mut self,
        connection: &Connection,
        result: Result<T, Broken>,
    ) -> Option<Result<T, Fault>> {
        self.0 += 1;
        match result {
            Err(Broken::Lost(_)) if self.0 < TRIES_MAX => {
                connection.close(exchange::CODE_DONE, "lost");
                None
            }
            result => Some(result.map_err(Broken::at_super_node)),
        }
    }
}

/// Connects to the first super node that answers; those after it are given up.
async fn connect_any(endpoint: &Endpoint, super_nodes: &[SuperAddr]) -> Result<Connection, Fault> {
    let mut dials = JoinSet::new();
    for (place, address) in (0u32..).zip(super_nodes) {
        let (endpoint, address) = (endpoint.clone(), address.clone());
        dials.spawn(async move {
            sleep(STAGGER * place).await;
            connect_one(&endpoint, &address)
                .await
                .map_err(|fault| (place, address, fault))
        });
    }
    let mut failures = Vec::new();
    while let Some(done) = dials.join_next().await {
        match done {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(failure)) => failures.push(failure),
            Err(error) => return Err(Fault::new(FaultKind::Internal, error.to_string())),
        }
    }
    failures.sort_by_key(|(place, ..)| *place);
    Err(none_answered(&failures))
}

/// Tries the addresses that a super node's host name stands for, one after the other.
pub(super) async fn connect_one(endpoint: &Endpoint, address: &SuperAddr) -> Result<Connection, Fault> {
    let addresses = address
        .resolve()
        .await
        .map_err(|error| Fault::new(FaultKind::NoLiveHost, error.to_string()))?;
    let mut failure = Fault::new(FaultKind::NoLiveHost, "it has no address");
    for address in addresses {
        match endpoint.connect(address).await {
            Ok(connection) => return Ok(connection),
            Err(error) => failure = not_connected(error),
        }
    }
    Err(failure)
}

/// What is said when no super node can be used: each with its reason.
fn none_answered(failures: &[(u32, SuperAddr, Fault)]) -> Fault {
    let mut message = "no super node can be used:".to_owned();
    for (_, address, fault) in failures {
        let _ = write!(message, "\n  {address}: {fault}");
    }
    let mut kinds = failures.iter().map(|(.., fault)| fault.kind);
    let first = kinds.next().unwrap_or(FaultKind::NoLiveHost);
    let kind = if kinds.all(|kind| kind == first) {
        first
    } else {
        FaultKind::NoLiveHost
    };
    let help = match kind {
        FaultKind::Unverified => {
            "check the id in the address: it must be the one that the super node wrote into its address file"
        }
        FaultKind::VersionMismatch => "update the older side",
        FaultKind::Overloaded => "try again later, or name another super node",
        _ => "check that the super node runs, its address and port, and that the network lets UDP through",
    };
    Fault::new(kind, message).help(help)
}
