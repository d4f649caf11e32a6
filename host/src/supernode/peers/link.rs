//! One link, from its first message to its end.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use orb_protocol::fault::{Fault, FaultKind};
use orb_protocol::federation::record::VerifiedRecord;
use orb_protocol::hub::Inbound;
use orb_protocol::id::NodeId;
use orb_protocol::quic::Connection;
use orb_protocol::quic::frames::{FrameError, read_message, read_message_within, write_message};
use orb_protocol::wire::codec::MESSAGE_LEN_MAX;
use orb_protocol::wire::extension::Extensions;
use orb_protocol::wire::federation::{Peer, PeerMessage, Peered, RegistryChange, SignedRecord};
use orb_protocol::wire::{Reply, Request};
use quinn::{RecvStream, SendStream};
use tokio::sync::mpsc::Receiver;
use tokio::time::Instant;

use super::super::SuperNode;
use super::super::connection::Exchange;
use super::links::PeerLink;
use super::sync;

/// How long the other side may take over the first messages.
const OPEN_MAX: Duration = Duration::from_secs(10);
/// How long it may take to read a message.
const SEND_MAX: Duration = Duration::from_secs(10);
/// Streams that a super node may have open at another one: what clients of one ask the other.
const PEER_STREAMS: u32 = 256;
/// Messages that a super node may send at once: the state of a large one.
const MESSAGES_BURST: u32 = 20_000;
/// After that it is read no faster than this.
const MESSAGE_INTERVAL: Duration = Duration::from_micros(500);

/// Why a link did not come to be, or ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the other side says: {0}")]
    Said(Fault),
    #[error("{0}")]
    Record(String),
    #[error("there is another link to this super node")]
    Redundant,
}

/// Opens a link on a connection that this node dialled, and stays with it until it ends.
pub(crate) async fn open(node: &Arc<SuperNode>, connection: Connection) -> Result<Infallible, LinkError> {
    connection.set_peer_streams(PEER_STREAMS);
    let (mut send, mut recv) = connection.open_bi().await.map_err(FrameError::Lost)?;
    let (record, own) = node.driver.introduction();
    let hello = Peer {
        record,
        own,
        extensions: Extensions::none(),
    };
    write_message(&mut send, &Request::from(hello)).await?;
    let reply: Reply = read_message_within(&mut recv, MESSAGE_LEN_MAX, OPEN_MAX).await?;
    let peered: Peered = reply.into_result().map_err(LinkError::Said)?;
    let record = verify(peered.record, connection.peer())?;
    let (link, messages) = PeerLink::new(connection, true);
    attend(
        node,
        (&link, messages),
        record,
        peered.own,
        (&mut send, &mut recv),
    )
    .await
}

/// Answers a super node that opened a link, and stays with it until it ends.
pub(crate) async fn accept(
    node: &Arc<SuperNode>,
    connection: &Connection,
    asked: Peer,
    exchange: &mut Exchange,
) -> Result<Infallible, LinkError> {
    let Exchange { send, recv } = exchange;
    let record = node
        .policy
        .admit_peer(&connection.peer())
        .and_then(|()| verify(asked.record, connection.peer()).map_err(|error| not_verified(&error)));
    let record = match record {
        Ok(record) => record,
        Err(fault) => {
            write_message(send, &Reply::fault(fault.clone())).await?;
            return Err(LinkError::Said(fault));
        }
    };
    connection.set_peer_streams(PEER_STREAMS);
    let (mine, own) = node.driver.introduction();
    let hello = Peered {
        record: mine,
        own,
        extensions: Extensions::none(),
    };
    write_message(send, &Reply::ok(&hello)).await?;
    let (link, messages) = PeerLink::new(connection.clone(), false);
    attend(node, (&link, messages), record, asked.own, (send, recv)).await
}

fn verify(signed: SignedRecord, peer: NodeId) -> Result<VerifiedRecord, LinkError> {
    let record = VerifiedRecord::verify(signed).map_err(|error| LinkError::Record(error.to_string()))?;
    if record.node() != peer {
        return Err(LinkError::Record("the record is another super node's".to_owned()));
    }
    Ok(record)
}

fn not_verified(error: &LinkError) -> Fault {
    Fault::new(FaultKind::Unverified, error.to_string())
}

async fn attend(
    node: &Arc<SuperNode>,
    (link, messages): (&Arc<PeerLink>, Receiver<Arc<PeerMessage>>),
    record: VerifiedRecord,
    own: orb_protocol::wire::federation::Cursor,
    (send, recv): (&mut SendStream, &mut RecvStream),
) -> Result<Infallible, LinkError> {
    let Some(_up) = Up::new(node, link, record, own) else {
        return Err(LinkError::Redundant);
    };
    tokio::select! {
        told = tell(messages, send) => told,
        heard = listen(node, link.peer(), recv) => heard,
    }
}

/// A link that is up. It is down when this is dropped.
struct Up {
    node: Arc<SuperNode>,
    link: Arc<PeerLink>,
}

impl Up {
    fn new(
        node: &Arc<SuperNode>,
        link: &Arc<PeerLink>,
        record: VerifiedRecord,
        own: orb_protocol::wire::federation::Cursor,
    ) -> Option<Self> {
        node.driver.on_peer_up(link, record, own).then(|| Self {
            node: Arc::clone(node),
            link: Arc::clone(link),
        })
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.node.driver.on_peer_down(&self.link);
    }
}

async fn tell(
    mut messages: Receiver<Arc<PeerMessage>>,
    send: &mut SendStream,
) -> Result<Infallible, LinkError> {
    loop {
        let message = messages.recv().await.ok_or(FrameError::Closed)?;
        tokio::time::timeout(SEND_MAX, write_message(send, &*message))
            .await
            .unwrap_or(Err(FrameError::TimedOut(SEND_MAX)))?;
    }
}

async fn listen(node: &Arc<SuperNode>, peer: NodeId, recv: &mut RecvStream) -> Result<Infallible, LinkError> {
    let mut paid = Instant::now();
    loop {
        paid = paid.max(Instant::now()) + MESSAGE_INTERVAL;
        if let Some(turn) = paid.checked_sub(MESSAGE_INTERVAL * MESSAGES_BURST) {
            tokio::time::sleep_until(turn).await;
        }
        let message: PeerMessage = read_message(recv, MESSAGE_LEN_MAX).await?;
        match node.driver.on_peer_message(peer, message) {
            Inbound::Nothing => {}
            Inbound::Records(records) => hear_records(node, peer, records),
            Inbound::Change(change) => hear_change(node, peer, *change).await,
        }
    }
}

fn hear_records(node: &SuperNode, from: NodeId, records: Vec<SignedRecord>) {
    for record in records {
        match VerifiedRecord::verify(record) {
            Ok(record) if node.policy.admit_peer(&record.node()).is_ok() => {
                node.driver.on_record(Some(from), record);
            }
            Ok(_) => {}
            Err(error) => {
                node.offences.peers_unverified.add();
                tracing::warn!(super_node = %from, %error, "a super node passed on a record that is none");
            }
        }
    }
}

async fn hear_change(node: &Arc<SuperNode>, from: NodeId, change: RegistryChange) {
    let taken = sync::take_in(node, change).await;
    // What could not be taken in is pulled later.
    if let Err(error) = taken.expect("taking in a change does not panic") {
        error.count(node);
        tracing::warn!(super_node = %from, %error, "a super node's change was not taken in");
    }
}
