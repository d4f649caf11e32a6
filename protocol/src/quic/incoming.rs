//! A node that wants a connection, before it has proven who it is.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::VarInt;

use super::connection::{Connection, Keeper};
use super::error::ConnectError;
use super::handshakes::HandshakeSlot;
use super::path::{Path, RemoteId, unmapped};
use super::socket::NodeSocket;
use super::tls;
use crate::id::NodeId;

/// Counts as one of the endpoint's handshakes until it is dropped or done.
pub struct Incoming {
    quinn: quinn::Incoming,
    slot: HandshakeSlot,
    announced: Option<NodeId>,
    timeout: Duration,
    socket: Arc<NodeSocket>,
    keeper: Arc<Keeper>,
}

impl Incoming {
    pub(crate) fn new(
        quinn: quinn::Incoming,
        slot: HandshakeSlot,
        announced: Option<NodeId>,
        timeout: Duration,
        socket: Arc<NodeSocket>,
        keeper: Arc<Keeper>,
    ) -> Self {
        Self {
            quinn,
            slot,
            announced,
            timeout,
            socket,
            keeper,
        }
    }

    /// Where it comes from: the node, or the super node that relays it.
    pub fn remote_address(&self) -> SocketAddr {
        let addr = self.quinn.remote_address();
        let path = RemoteId::of(addr).and_then(|id| self.socket.paths(|paths| paths.path(id)));
        unmapped(match path {
            Some(Path::Direct(addr)) => addr,
            Some(Path::Relay { via, .. }) => via,
            None => addr,
        })
    }

    /// Turns it away.
    pub fn refuse(self) {
        self.quinn.refuse();
    }

    /// Shakes hands. A relayed peer has to be the one that the super node announced.
    ///
    /// Run this in a task of its own: it takes as long as the peer likes, up to the endpoint's
    /// handshake timeout.
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub async fn handshake(self) -> Result<Connection, ConnectError> {
        let Self {
            quinn,
            mut slot,
            announced,
            timeout,
            socket,
            keeper,
        } = self;
        let connected = tokio::select! {
            biased;
            () = slot.displaced() => return Err(ConnectError::Displaced),
            connected = shake_hands(quinn, announced, timeout) => connected,
        };
        slot.ended(&connected);
        let (quinn, peer) = connected?;
        Ok(Connection::new(quinn, peer, socket, keeper))
    }
}

/// The connection, and who is at its other end.
async fn shake_hands(
    incoming: quinn::Incoming,
    announced: Option<NodeId>,
    timeout: Duration,
) -> Result<(quinn::Connection, NodeId), ConnectError> {
    let connecting = incoming.accept().map_err(ConnectError::from_quic)?;
    let quinn = tokio::time::timeout(timeout, connecting)
        .await
        .map_err(|_| ConnectError::TimedOut)?
        .map_err(ConnectError::from_quic)?;
    let peer = tls::peer_of(&quinn)
        .ok_or_else(|| ConnectError::Handshake("the peer showed no Ed25519 key".to_owned()))?;
    match announced {
        Some(wanted) if wanted != peer => {
            quinn.close(VarInt::from_u32(0), b"this relay session is another node's");
            Err(ConnectError::WrongPeer { wanted, found: peer })
        }
        _ => Ok((quinn, peer)),
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("remote_address", &self.remote_address())
            .finish_non_exhaustive()
    }
}
