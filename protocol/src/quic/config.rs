//! What an endpoint is set up with, and the QUIC parameters that follow from it.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::{MtuDiscoveryConfig, TransportConfig, VarInt};

use crate::key::NodeKey;
use crate::relay::{RELAY_HEADER_LEN, RelayLimits};

/// A connection that is silent for this long is dead (the brief).
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two keep-alive packets while a call is in flight (the brief).
pub const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// How long a handshake may take. Covers two lost packets at QUIC's first retransmission times.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Streams that a peer may have open before it is known who it is. Measured: an idle connection
/// costs 30 KiB at 8 streams and 114 KiB at 1,024; 7 are what quinn's two tables of streams hold at
/// their smallest size.
pub const STREAMS_UNKNOWN_PEER: u32 = 7;
/// Handshakes at one time. One costs about 40 KiB, so that a flood costs 40 MiB at most.
pub const HANDSHAKES_MAX: usize = 1_024;
/// From so many handshakes on a newcomer first has to show that it is where it says it is (a
/// QUIC Retry), which costs it a round trip and an attacker with forged addresses everything.
pub const HANDSHAKES_UNVALIDATED_MAX: usize = 128;

/// How long a handshake may hang while all places are taken and somebody else waits for one: four
/// round trips to the other side of the world.
pub const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(1);

/// Bytes of one stream that may be under way: 100 Mbit/s over 80 ms, and 16 chunks of a body.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Bytes of all streams together that a connection takes before they are read: four bodies at full
/// speed. What one peer that writes and is never read can pin in memory.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Bytes written and not acknowledged yet, for all streams of a connection.
const SEND_WINDOW_BYTES: u64 = 4 << 20;
/// The largest packet that is tried. What Ethernet with a PPPoE and an IPv6 header carries, less
/// the header that a packet has on a relay, since a connection may move there at any time.
const PACKET_BYTES_MAX: u16 = 1_452 - RELAY_HEADER_LEN as u16;

/// How a node's endpoint is set up.
#[derive(Debug, Clone)]
pub struct EndpointConfig {
    /// Who the node is.
    pub key: NodeKey,
    /// Where it listens. Port 0: any free one.
    pub listen: SocketAddr,
    /// Whether it takes connections that it did not dial. A relayed connection arrives like any
    /// other, so hosts do; a caller need not.
    pub accept: bool,
    /// On a super node: within which bounds it relays.
    pub relay: Option<RelayLimits>,
    /// Streams that a peer may have open at a time, until
    /// [`set_peer_streams`](super::Connection::set_peer_streams) says otherwise.
    pub peer_streams: u32,
    /// Between two keep-alive packets on connections that this node dialled; `None`: they end after
    /// [`IDLE_TIMEOUT`] without traffic, except while [held](super::Connection::hold).
    pub keep_alive: Option<Duration>,
    /// After how much silence a connection is dead.
    pub idle_timeout: Duration,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// Incoming handshakes at one time. Those of whoever has most of them, and those that hang, give
    /// way to newcomers; if there are none, more are refused.
    pub handshakes: usize,
    /// How long a handshake may hang while all places are taken.
    pub handshake_patience: Duration,
    /// Incoming handshakes at one time before newcomers must prove their address.
    pub handshakes_unvalidated: usize,
}

impl EndpointConfig {
    /// The defaults of a node that accepts connections and does not relay.
    pub fn new(key: NodeKey, listen: SocketAddr) -> Self {
        Self {
            key,
            listen,
            accept: true,
            relay: None,
            peer_streams: STREAMS_UNKNOWN_PEER,
            keep_alive: None,
            idle_timeout: IDLE_TIMEOUT,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            handshakes: HANDSHAKES_MAX,
            handshake_patience: HANDSHAKE_PATIENCE,
            handshakes_unvalidated: HANDSHAKES_UNVALIDATED_MAX,
        }
    }

    /// The defaults of a caller: any free port of any address of both families, and nobody dials it.
    pub fn client(key: NodeKey) -> Self {
        Self {
            accept: false,
            ..Self::new(key, SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0))
        }
    }

    pub(crate) fn transport(&self, keep_alive: Option<Duration>) -> Arc<TransportConfig> {
        let mut mtu = MtuDiscoveryConfig::default();
        mtu.upper_bound(PACKET_BYTES_MAX);
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(self.peer_streams.into())
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(None)
            .max_idle_timeout(self.idle_timeout.try_into().ok())
            .keep_alive_interval(keep_alive)
            .stream_receive_window(STREAM_WINDOW_BYTES.into())
            .receive_window(CONNECTION_WINDOW_BYTES.into())
            .send_window(SEND_WINDOW_BYTES)
            .mtu_discovery_config(Some(mtu));
        Arc::new(transport)
    }
}
