//! One peer's connection: a task for each of its streams.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use orb_protocol::fault::{Fault, FaultKind};
use orb_protocol::quic::frames::{FrameError, read_message_within, write_message};
use orb_protocol::quic::{Connection, Incoming, RelayLink};
use orb_protocol::wire::codec::MESSAGE_LEN_MAX;
use orb_protocol::wire::{Reply, Request};
use serde::Serialize;
use tokio::task::JoinSet;

use super::driver::Registration;
use super::limits::ConnectionSlot;
use super::peers::{link, reconcile, sync};
use super::{SuperNode, directory, events, faults, fetch, hosts, publish, ready, relay};

/// How long a peer may take over the first message of a stream.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a peer may take to read an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams that a caller may have open at a time: a busy program that opens relay sessions to many
/// hosts. Hosts and whoever has not asked for anything yet make do with the endpoint's default.
const CALLER_STREAMS: u32 = 64;

/// Who is at the other end.
#[derive(Debug)]
pub(crate) struct Peer {
    /// The connection.
    pub(crate) connection: Connection,
    /// Where it came from.
    pub(crate) address: IpAddr,
    /// Lets it open relay sessions and be their target.
    pub(crate) relay: RelayLink,
}

/// One stream.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// Towards the peer.
    pub(crate) send: quinn::SendStream,
    /// From the peer.
    pub(crate) recv: quinn::RecvStream,
}

impl Exchange {
    /// Sends a reply.
    ///
    /// # Errors
    /// The stream or the connection ended, or the peer does not read.
    pub(crate) async fn reply<T: Serialize>(&mut self, answer: Result<T, Fault>) -> Result<(), FrameError> {
        let reply = Reply::from_result(answer);
        tokio::time::timeout(ANSWER_TIMEOUT, write_message(&mut self.send, &reply))
            .await
            .unwrap_or(Err(FrameError::TimedOut(ANSWER_TIMEOUT)))
    }
}

/// Shakes hands, and serves the peer until its connection ends.
///
/// Hosts are many, and stay. So what is over when one has registered is kept in boxes, and the tasks that wait
/// for an idle one are small.
pub(crate) fn serve(
    node: Arc<SuperNode>,
    incoming: Incoming,
    slot: ConnectionSlot,
) -> impl Future<Output = ()> + Send {
    let handshake = Box::pin(shake_hands(Arc::clone(&node), incoming));
    async move {
        let Some(peer) = handshake.await else { return };
        streams(&node, &peer).await;
        drop(slot);
    }
}

/// Serves the peer's streams until its connection ends.
///
/// Not an `async fn`, which would keep its parameters twice.
#[expect(
    clippy::manual_async_fn,
    reason = "an `async fn` is larger, and there is one for each idle host"
)]
pub(super) fn streams<'a>(
    node: &'a Arc<SuperNode>,
    peer: &'a Arc<Peer>,
) -> impl Future<Output = ()> + Send + 'a {
    async move {
        // When this ends, so do the tasks: what they hold of the peer goes with them.
        let mut streams = JoinSet::new();
        loop {
            tokio::select! {
                stream = peer.connection.accept_bi() => match stream {
                    // QUIC lets the peer have only so many streams at a time.
                    Ok((send, recv)) => {
                        let exchange = Exchange { send, recv };
                        streams.spawn(handle(Arc::clone(node), Arc::clone(peer), exchange));
                    }
                    Err(error) => {
                        tracing::debug!(peer = %peer.connection.peer(), %error, "disconnected");
                        break;
                    }
                },
                Some(ended) = streams.join_next() => if let Err(error) = ended {
                    tracing::error!(%error, "a request's task failed");
                },
            }
        }
    }
}

/// A super node that this one has dialled, as one whose requests are served.
pub(super) fn dialled(node: &SuperNode, connection: &Connection) -> Option<Arc<Peer>> {
    let relay = node.endpoint.relay()?.register(connection);
    Some(Arc::new(Peer {
        connection: connection.clone(),
        address: connection.remote_address().ip(),
        relay,
    }))
}

async fn shake_hands(node: Arc<SuperNode>, incoming: Incoming) -> Option<Arc<Peer>> {
    let address = incoming.remote_address();
    let connection = incoming
        .handshake()
        .await
        .inspect_err(|error| tracing::debug!(%address, %error, "a handshake failed"))
        .ok()?;
    let relay = node.endpoint.relay()?.register(&connection);
    tracing::debug!(peer = %connection.peer(), %address, "connected");
    Some(Arc::new(Peer {
        connection,
        address: address.ip(),
        relay,
    }))
}

/// Not an `async fn`, which would keep its parameters twice.
#[expect(
    clippy::manual_async_fn,
    reason = "an `async fn` is larger, and there is one for each idle host"
)]
fn handle(node: Arc<SuperNode>, peer: Arc<Peer>, mut exchange: Exchange) -> impl Future<Output = ()> + Send {
    async move {
        if let Some(registration) = Box::pin(begin(&node, &peer, &mut exchange)).await {
            hosts::attend(&node, &peer, &registration, &mut exchange).await;
        }
        // It may have been given up: then there is nothing to finish.
        let _ = exchange.send.finish();
    }
}

/// Answers the stream's request. If it was a host's to register, the stream goes on.
async fn begin(node: &Arc<SuperNode>, peer: &Peer, exchange: &mut Exchange) -> Option<Registration> {
    let request = read_message_within(&mut exchange.recv, MESSAGE_LEN_MAX, REQUEST_TIMEOUT).await;
    let done = match request {
        Ok(request) => answer(node, peer, request, exchange).await,
        // Nobody is there to be answered.
        Err(FrameError::Lost(_) | FrameError::Reset(_) | FrameError::Closed) => return None,
        Err(error) => {
            node.offences.on_request(&error);
            tracing::debug!(peer = %peer.connection.peer(), %error, "a request cannot be read");
            refuse(exchange, faults::of_frame(&error)).await.map(|()| None)
        }
    };
    done.unwrap_or_else(|error| {
        node.offences.on_answer(&error);
        tracing::debug!(peer = %peer.connection.peer(), %error, "an answer was not taken");
        None
    })
}

async fn answer(
    node: &Arc<SuperNode>,
    peer: &Peer,
    request: Request,
    exchange: &mut Exchange,
) -> Result<Option<Registration>, FrameError> {
    // Memory follows what is allowed, so hosts, of which there are many, are left with less.
    if matches!(request, Request::Resolve(_) | Request::OpenRelay(_)) {
        peer.connection.set_peer_streams(CALLER_STREAMS);
    }
    let answered = match request {
        Request::Resolve(asked) => exchange.reply(directory::resolve(node, &asked).await).await,
        Request::List(asked) => exchange.reply(directory::list(node, &asked).await).await,
        Request::Versions(asked) => exchange.reply(directory::versions(node, &asked).await).await,
        Request::Inspect(asked) => exchange.reply(directory::inspect(node, &asked).await).await,
        Request::Info(asked) => exchange.reply(directory::info(peer, &asked)).await,
        Request::OpenRelay(asked) => exchange.reply(relay::open(node, peer, &asked).await).await,
        Request::WaitReady(asked) => {
            let answer = tokio::select! {
                answer = ready::wait(node, &asked) => answer,
                _ = exchange.send.stopped() => return Ok(None),
            };
            exchange.reply(answer).await
        }
        Request::WaitRemoved(asked) => {
            let answer = tokio::select! {
                answer = ready::wait_removed(node, &asked) => answer,
                _ = exchange.send.stopped() => return Ok(None),
            };
            exchange.reply(answer).await
        }
        Request::Publish(asked) => {
            let published = publish::publish(node, peer, asked, exchange).await;
            log_refusal(node, peer, &published);
            exchange.reply(published).await
        }
        Request::Fetch(asked) => match fetch::fetch(node, &asked, exchange).await {
            Ok(()) => Ok(()),
            Err(fault) => refuse(exchange, fault).await,
        },
        Request::Events(asked) => match Box::pin(events::answer(node, &asked, exchange)).await {
            Ok(()) => Ok(()),
            Err(fault) => refuse(exchange, fault).await,
        },
        Request::Register(asked) => match hosts::register(node, peer, asked) {
            Ok(registration) => return Ok(Some(registration)),
            Err(fault) => {
                tracing::info!(host = %peer.connection.peer(), reason = %fault, "host refused");
                refuse(exchange, fault).await
            }
        },
        Request::Peer(asked) => {
            let Err(error) = link::accept(node, &peer.connection, asked, exchange).await;
            tracing::debug!(super_node = %peer.connection.peer(), %error, "a link ended");
            Ok(())
        }
        Request::Changes(asked) => match node.policy.admit_peer(&peer.connection.peer()) {
            Ok(()) => sync::send(node, asked, exchange).await,
            Err(fault) => refuse(exchange, fault).await,
        },
        Request::Reconcile(asked) => match node.policy.admit_peer(&peer.connection.peer()) {
            Ok(()) => Box::pin(reconcile::answer(node, asked, exchange)).await,
            Err(fault) => refuse(exchange, fault).await,
        },
        Request::Locate(asked) => exchange.reply(directory::locate(node, &asked)).await,
        Request::Call(_) | Request::Attach(_) | Request::RelayOffer(_) => {
            let fault = Fault::new(FaultKind::Refused, "a super node runs no functions")
                .help("resolve the function, and call one of its hosts");
            refuse(exchange, fault).await
        }
        Request::Unknown(unknown) => {
            let message = format!("this super node does not know requests of type {}", unknown.tag);
            let fault = Fault::new(FaultKind::VersionMismatch, message).help("update the super node");
            refuse(exchange, fault).await
        }
    };
    answered.map(|()| None)
}

fn log_refusal<T>(node: &SuperNode, peer: &Peer, answer: &Result<T, Fault>) {
    if let Err(fault) = answer
        && matches!(fault.kind, FaultKind::Refused | FaultKind::Overloaded)
    {
        node.offences.publishes_refused.add();
        tracing::info!(peer = %peer.connection.peer(), address = %peer.address, rule = %fault, "publish refused");
    }
}

async fn refuse(exchange: &mut Exchange, fault: Fault) -> Result<(), FrameError> {
    exchange.reply::<()>(Err(fault)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of the future that a function of three parameters gives.
    fn task_bytes<A, B, C, F: Future>(_: impl FnOnce(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn what_waits_for_an_idle_host_is_small() {
        let (connection, stream) = (task_bytes(serve), task_bytes(handle));
        assert!(connection <= 512, "{connection} bytes for each connection");
        assert!(stream <= 768, "{stream} bytes for each control stream");
    }
}
