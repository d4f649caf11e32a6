//! Does what the federation wants done: dials, pulls, keeps records.

use std::sync::Arc;
use std::time::Duration;

use orb_protocol::federation::record::VerifiedRecord;
use orb_protocol::id::NodeId;
use orb_protocol::quic::{ConnectError, Connection, SuperAddr};
use orb_protocol::wire::federation::SignedRecord;
use tokio::task::JoinSet;

use super::super::notes::Note;
use super::super::{SuperNode, connection};
use super::links::Todo;
use super::{artifacts, link, sync};

/// Between two looks whether a super node that the operator named is linked.
const SEED_INTERVAL: Duration = Duration::from_secs(5);
/// The first pause, so that a federation that starts all at once is linked at once.
const SEED_FIRST: Duration = Duration::from_millis(300);

/// Why a super node was not reached.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("its address makes no sense: {0}")]
    Address(String),
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

/// Works until it is dropped, and all that it began with it.
pub(crate) async fn run(node: Arc<SuperNode>, seeds: Vec<SuperAddr>) {
    let mut tasks = JoinSet::new();
    for seed in seeds {
        tasks.spawn(keep_seed(Arc::clone(&node), seed));
    }
    let wake = node.driver.peers_wake();
    loop {
        while let Some(todo) = node.driver.next_todo() {
            begin(&node, todo, &mut tasks);
        }
        tokio::select! {
            () = wake.notified() => {}
            Some(ended) = tasks.join_next() => if let Err(error) = ended {
                tracing::error!(%error, "a task for a super node failed");
            },
        }
    }
}

fn begin(node: &Arc<SuperNode>, todo: Todo, tasks: &mut JoinSet<()>) {
    let node = Arc::clone(node);
    match todo {
        Todo::Dial(peer, addresses) => {
            tasks.spawn(async move { dial(&node, peer, &addresses).await });
        }
        Todo::Pull(from) => {
            tasks.spawn(async move {
                let pulled = sync::pull(&node, from).await;
                if let Err(error) = &pulled {
                    tracing::warn!(super_node = %from, %error, "changes could not be pulled; it is tried again");
                }
                node.driver.on_pulled(from, pulled.ok().as_deref());
            });
        }
        Todo::Keep(record) => {
            tasks.spawn(async move { keep(&node, record).await });
        }
        Todo::Note(kind, peer) => node.events.note(Note::of_node(kind, peer, "")),
        Todo::Obtain(manifest) => {
            tasks.spawn(async move { artifacts::obtain_for(&node, &manifest).await });
        }
    }
}

async fn keep(node: &SuperNode, record: SignedRecord) {
    // It was verified when it came.
    let Ok(verified) = VerifiedRecord::verify(record) else {
        return;
    };
    let kept = node
        .storage
        .keep_member(verified.node(), verified.signed().clone());
    if let Err(error) = kept.await {
        tracing::warn!(%error, "a super node's record could not be kept");
    }
}

/// Sees to it that a super node that the operator named is linked.
async fn keep_seed(node: Arc<SuperNode>, seed: SuperAddr) {
    let mut pause = SEED_FIRST;
    let mut last_error = String::new();
    loop {
        if node.driver.peer_connection(&seed.id()).is_none() {
            let error = match connect(&node, &seed).await {
                Ok(connection) => serve(&node, connection).await,
                Err(error) => error.to_string(),
            };
            if error != last_error {
                tracing::warn!(address = %seed, %error, "not linked with a super node; trying again");
                last_error = error;
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(SEED_INTERVAL);
    }
}

async fn dial(node: &Arc<SuperNode>, peer: NodeId, addresses: &[String]) {
    if node.driver.peer_connection(&peer).is_none() {
        for address in addresses {
            match connect_to(node, peer, address).await {
                Ok(connection) => {
                    serve(node, connection).await;
                    break;
                }
                Err(error) => tracing::debug!(super_node = %peer, %address, %error, "not reached"),
            }
        }
    }
    node.driver.on_peer_not_reached(peer);
}

async fn connect_to(node: &SuperNode, peer: NodeId, address: &str) -> Result<Connection, DialError> {
    let address: SuperAddr = format!("{peer}@{address}")
        .parse()
        .map_err(|error: orb_protocol::quic::AddressError| DialError::Address(error.to_string()))?;
    connect(node, &address).await
}

async fn connect(node: &SuperNode, address: &SuperAddr) -> Result<Connection, DialError> {
    let resolved = address.resolve().await;
    let mut last = ConnectError::TimedOut;
    for address in resolved.map_err(|error| DialError::Address(error.to_string()))? {
        match node.endpoint.connect(address).await {
            Ok(connection) => return Ok(connection),
            Err(error) => last = error,
        }
    }
    Err(last.into())
}

/// Opens a link on a connection, and serves what the other side asks on it, until either ends. Returns why.
async fn serve(node: &Arc<SuperNode>, connection: Connection) -> String {
    let Some(peer) = connection::dialled(node, &connection) else {
        return "this node relays nothing".to_owned();
    };
    let error = tokio::select! {
        Err(error) = link::open(node, connection.clone()) => error.to_string(),
        () = connection::streams(node, &peer) => "the connection ended".to_owned(),
    };
    tracing::debug!(super_node = %connection.peer(), %error, "a link ended");
    connection.close(super::super::close::ENDING, "the link ended");
    error
}
