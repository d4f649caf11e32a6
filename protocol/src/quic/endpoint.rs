//! A node's one endpoint: dials, accepts, and looks after what lies below QUIC.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use quinn::{ClientConfig, ServerConfig, TokioRuntime, VarInt};
use tokio::task::JoinHandle;

use super::address::NodeAddr;
use super::config::{EndpointConfig, KEEP_ALIVE};
use super::connection::{Connection, Keeper};
use super::error::{BindError, ConnectError};
use super::forward::Forwarder;
use super::handshakes::{Claimant, HandshakeStats, Handshakes};
use super::incoming::Incoming;
use super::path::{Path, RemoteId};
use super::relay::RelayServer;
use super::reset::{Cids, ResetKey};
use super::socket::{NodeSocket, SocketStats};
use super::tls::{Identity, peer_of};
use crate::id::NodeId;
use crate::wire::ALPN;

/// Bytes kept for a connection attempt before it is accepted: the rest of a large first flight.
const INCOMING_BUFFER_BYTES: u64 = 16 << 10;
/// The same for all attempts together.
const INCOMING_BUFFERS_BYTES: u64 = 4 << 20;

/// The endpoint of a node. Cheap to clone; it closes when the last clone, the last connection and
/// the last stream are gone.
#[derive(Clone)]
pub struct Endpoint(Arc<Inner>);

struct Inner {
    quinn: quinn::Endpoint,
    socket: Arc<NodeSocket>,
    identity: Identity,
    keeper: Arc<Keeper>,
    relay: Option<RelayServer>,
    handshakes: Arc<Handshakes>,
    upkeep: JoinHandle<()>,
    config: EndpointConfig,
}

impl Endpoint {
    /// Binds the node's UDP socket. Must be called inside a Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`BindError`].
    pub fn bind(config: EndpointConfig) -> Result<Self, BindError> {
        Self::bind_for(config, ALPN)
    }

    /// The same for another application protocol, as another version of this crate would have.
    pub(crate) fn bind_for(config: EndpointConfig, alpn: &[u8]) -> Result<Self, BindError> {
        let identity = Identity::new(&config.key, alpn).map_err(|error| BindError::Key(error.to_string()))?;
        let limits = config.relay.clone();
        let at_address = |source| BindError::Address {
            addr: config.listen,
            source,
        };
        let socket = NodeSocket::bind(config.listen, |io| {
            limits.map(|limits| Forwarder::new(io, limits)).transpose()
        })
        .map_err(at_address)?;
        let socket = Arc::new(socket);
        let quinn = quinn_endpoint(&config, &identity, Arc::clone(&socket)).map_err(at_address)?;
        let relay = socket
            .forwarder()
            .is_some()
            .then(|| RelayServer::new(Arc::clone(&socket)));
        Ok(Self(Arc::new_cyclic(|inner| Inner {
            quinn,
            socket,
            identity,
            keeper: Arc::default(),
            relay,
            handshakes: Handshakes::new(config.handshakes, config.handshake_patience),
            upkeep: tokio::spawn(keep_up(inner.clone())),
            config,
        })))
    }

    /// Who this node is.
    pub fn node_id(&self) -> NodeId {
        self.0.config.key.id()
    }

    /// The address that it is bound to.
    ///
    /// # Errors
    ///
    /// If the system does not say.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.socket.bound_addr()
    }

    /// Dials a node at an address.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]; [`ConnectError::WrongPeer`] when somebody else is there.
    pub async fn connect(&self, to: NodeAddr) -> Result<Connection, ConnectError> {
        let remote = self.direct(to)?;
        self.dial(to.id, remote).await
    }

    /// Dials an address without knowing who is there. The handshake proves the key of whoever answers,
    /// [`Connection::peer`] names it; whether to trust that node is for the caller to find out.
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub async fn connect_to_whoever(&self, addr: SocketAddr) -> Result<Connection, ConnectError> {
        // The table of ways wants a name; a direct address has one entry, whoever is there.
        let nobody = NodeId::from_bytes([0; 32]);
        let remote = self.direct(NodeAddr { id: nobody, addr })?;
        let quinn = self.shake_hands(None, remote).await?;
        let peer = peer_of(&quinn)
            .ok_or_else(|| ConnectError::Handshake("the peer showed no Ed25519 key".to_owned()))?;
        Ok(self.connected(quinn, peer))
    }

    /// The remote for a direct address.
    fn direct(&self, to: NodeAddr) -> Result<RemoteId, ConnectError> {
        let bad = |reason| ConnectError::BadAddress {
            addr: to.addr,
            reason,
        };
        if to.addr.port() == 0 || to.addr.ip().is_unspecified() || RemoteId::of(to.addr).is_some() {
            return Err(bad("it is no address that packets can be sent to"));
        }
        if !self.0.socket.can_reach(to.addr) {
            return Err(bad(
                "it is an IPv6 address, and this endpoint is bound to an IPv4 one",
            ));
        }
        self.0
            .socket
            .paths_mut(|paths, now| paths.dial(to.id, Path::Direct(to.addr), now))
            .map_err(|full| ConnectError::Local(full.to_string()))
    }

    /// Waits for the next node that wants a connection; `None` once the endpoint is closed.
    ///
    /// Above [`EndpointConfig::handshakes_unvalidated`] newcomers have to prove their address first, and
    /// above [`EndpointConfig::handshakes`] others have to give way to them, or they are refused; none
    /// of it shows here.
    pub async fn accept(&self) -> Option<Incoming> {
        loop {
            let incoming = self.0.quinn.accept().await?;
            if let Some(incoming) = self.admit(incoming) {
                return Some(incoming);
            }
        }
    }

    fn admit(&self, incoming: quinn::Incoming) -> Option<Incoming> {
        let handshakes = &self.0.handshakes;
        if handshakes.running() >= self.0.config.handshakes_unvalidated
            && !incoming.remote_address_validated()
        {
            handshakes.on_asked_to_prove();
            // Cannot fail: an address that is not validated may be asked to retry.
            let _ = incoming.retry();
            return None;
        }
        let address = incoming.remote_address();
        let announced =
            RemoteId::of(address).and_then(|remote| self.0.socket.paths(|paths| paths.announced(remote)));
        let Some(slot) = handshakes.enter(Claimant::of(announced, address)) else {
            incoming.refuse();
            return None;
        };
        Some(Incoming::new(
            incoming,
            slot,
            announced,
            self.0.config.handshake_timeout,
            Arc::clone(&self.0.socket),
            Arc::clone(&self.0.keeper),
        ))
    }

    /// The packet relay, on a super node.
    pub fn relay(&self) -> Option<&RelayServer> {
        self.0.relay.as_ref()
    }

    /// Datagrams that could not be delivered.
    pub fn socket_stats(&self) -> SocketStats {
        self.0.socket.stats()
    }

    /// What became of the handshakes that others began.
    pub fn handshake_stats(&self) -> HandshakeStats {
        self.0.handshakes.stats()
    }

    /// Connections that are open, whoever opened them.
    pub fn connections(&self) -> usize {
        self.0.quinn.open_connections()
    }

    /// Ends all connections and takes no more.
    pub fn close(&self, code: u32, reason: &str) {
        self.0.quinn.close(VarInt::from_u32(code), reason.as_bytes());
    }

    /// Waits until the peers have been told of all closed connections. Without it a program that
    /// exits leaves them to find out by themselves.
    pub async fn wait_idle(&self) {
        self.0.quinn.wait_idle().await;
    }

    pub(crate) fn socket(&self) -> &Arc<NodeSocket> {
        &self.0.socket
    }

    /// Shakes hands with `peer` by way of a remote.
    pub(crate) async fn dial(&self, peer: NodeId, remote: RemoteId) -> Result<Connection, ConnectError> {
        let quinn = self.shake_hands(Some(peer), remote).await?;
        Ok(self.connected(quinn, peer))
    }

    async fn shake_hands(
        &self,
        peer: Option<NodeId>,
        remote: RemoteId,
    ) -> Result<quinn::Connection, ConnectError> {
        let (crypto, answered) = self
            .0
            .identity
            .client_for(peer)
            .map_err(|error| ConnectError::Local(error.to_string()))?;
        let mut config = ClientConfig::new(crypto);
        config.transport_config(self.0.config.transport(self.0.config.keep_alive));
        // The name is not sent; quinn keeps what it remembers of servers under it.
        let name = peer.map_or_else(|| remote.addr().ip().to_string(), |peer| peer.to_string());
        let connecting = self
            .0
            .quinn
            .connect_with(config, remote.addr(), &name)
            .map_err(|error| ConnectError::from_dial(error, remote.addr()))?;
        let connected = tokio::time::timeout(self.0.config.handshake_timeout, connecting)
            .await
            .map_err(|_| ConnectError::TimedOut)?;
        match (connected, peer, answered.other()) {
            (Ok(quinn), ..) => Ok(quinn),
            (Err(_), Some(wanted), Some(found)) => Err(ConnectError::WrongPeer { wanted, found }),
            (Err(error), ..) => Err(ConnectError::from_quic(error)),
        }
    }

    fn connected(&self, quinn: quinn::Connection, peer: NodeId) -> Connection {
        Connection::new(
            quinn,
            peer,
            Arc::clone(&self.0.socket),
            Arc::clone(&self.0.keeper),
        )
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("node_id", &self.node_id())
            .field("socket", &self.0.socket)
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.upkeep.abort();
    }
}

fn quinn_endpoint(
    config: &EndpointConfig,
    identity: &Identity,
    socket: Arc<NodeSocket>,
) -> std::io::Result<quinn::Endpoint> {
    let mut random = [0; 32];
    getrandom::fill(&mut random)?;
    let unconnected = socket.unconnected();
    let mut quic = quinn::EndpointConfig::new(Arc::new(ResetKey::new(&config.key)));
    // The bit tells QUIC from relayed packets.
    quic.grease_quic_bit(false);
    quic.cid_generator(move || Box::new(Cids::new(random, Arc::clone(&unconnected))));
    let server = config.accept.then(|| {
        let mut server = ServerConfig::with_crypto(identity.server());
        server
            .transport_config(config.transport(None))
            // Those that wait to be refused count too; what comes beyond them is not even answered.
            .max_incoming(config.handshakes.saturating_mul(2))
            .incoming_buffer_size(INCOMING_BUFFER_BYTES)
            .incoming_buffer_size_total(INCOMING_BUFFERS_BYTES);
        server
    });
    quinn::Endpoint::new_with_abstract_socket(quic, server, socket, Arc::new(TokioRuntime))
}

/// Does what has to be done from time to time, as long as the endpoint exists.
async fn keep_up(endpoint: Weak<Inner>) {
    let mut ticks = tokio::time::interval(KEEP_ALIVE);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The endpoint is only being made.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let Some(endpoint) = endpoint.upgrade() else {
            return;
        };
        endpoint.keeper.tick();
        endpoint.expire_remotes();
        if let Some(relay) = &endpoint.relay {
            relay.tick();
        }
    }
}

impl Inner {
    fn expire_remotes(&self) {
        // Twice the time after which QUIC has given up, so that nothing live is forgotten.
        let idle = self
            .config
            .idle_timeout
            .max(self.config.handshake_timeout)
            .saturating_mul(2);
        self.socket.paths_mut(|paths, now| paths.expire(now, idle));
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;
    use crate::key::NodeKey;

    #[tokio::test]
    async fn an_endless_idle_timeout_keeps_the_upkeep_going() {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let endpoint = Endpoint::bind(EndpointConfig {
            idle_timeout: Duration::MAX,
            ..EndpointConfig::new(NodeKey::from_seed([1; 32]), listen)
        });
        endpoint.unwrap().0.expire_remotes();
    }
}
