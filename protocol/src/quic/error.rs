//! Why there is no connection.

use std::io;
use std::net::SocketAddr;

use quinn::ConnectionError;

use super::frames::FrameError;
use crate::fault::{Fault, FaultKind};
use crate::id::NodeId;

/// TLS alert 120, `no_application_protocol` (RFC 7301): the peer speaks another version of Orb.
const ALERT_NO_PROTOCOL: u8 = 120;

/// Why an endpoint could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address cannot be bound: in use, not this machine's, or a port that needs privileges.
    #[error("cannot bind UDP {addr}: {source}; choose another address or port")]
    Address {
        /// The address that was asked for.
        addr: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The node's key cannot be used.
    #[error("this node's key cannot be used for TLS: {0}")]
    Key(String),
}

/// Why a dial, or an incoming handshake, did not become a connection.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// Somebody else is there.
    #[error("wanted node {wanted}, but the node at this address is {found}; check the address")]
    WrongPeer {
        /// Who was dialled.
        wanted: NodeId,
        /// Who answered.
        found: NodeId,
    },
    /// The peer speaks another protocol, or another version of this one.
    #[error("the peer does not speak this version of the Orb protocol (orb/1); update the older side")]
    VersionMismatch,
    /// Nothing answered in time.
    #[error("no answer in time: nothing is there, or the network does not let UDP through")]
    TimedOut,
    /// The peer takes no more connections at the moment.
    #[error("the peer takes no more connections at the moment; try again later")]
    Refused,
    /// An incoming handshake had to give its place to another one.
    #[error("the handshake hung, and another one got its place")]
    Displaced,
    /// The peer did not prove an Ed25519 key, or broke the handshake in another way.
    #[error("the handshake failed: {0}")]
    Handshake(String),
    /// The peer ended the connection at once.
    #[error("the peer closed the connection: {reason} (code {code})")]
    Closed {
        /// Its code.
        code: u64,
        /// Its reason, for a person.
        reason: String,
    },
    /// The address cannot be dialled from here.
    #[error("{addr} cannot be reached from this endpoint: {reason}")]
    BadAddress {
        /// The address.
        addr: SocketAddr,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// This node has as many connections as it may, or is closing.
    #[error("this node cannot open another connection: {0}")]
    Local(String),
    /// The super node would not relay.
    #[error("the super node does not relay to this peer: {0}")]
    RelayRefused(Fault),
    /// The exchange with the super node about relaying failed.
    #[error("the super node could not be asked to relay: {0}")]
    RelayUnasked(#[from] FrameError),
}

impl ConnectError {
    /// Reads what ended a handshake.
    pub(crate) fn from_quic(error: ConnectionError) -> Self {
        match error {
            ConnectionError::VersionMismatch => Self::VersionMismatch,
            ConnectionError::TimedOut => Self::TimedOut,
            ConnectionError::TransportError(error) => Self::from_code(error.code, &error.reason),
            ConnectionError::ConnectionClosed(close) => {
                Self::from_code(close.error_code, &String::from_utf8_lossy(&close.reason))
            }
            ConnectionError::ApplicationClosed(close) => Self::Closed {
                code: close.error_code.into_inner(),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            ConnectionError::Reset => Self::Handshake("the peer has no such connection".to_owned()),
            ConnectionError::LocallyClosed => Self::Local("it is closing".to_owned()),
            ConnectionError::CidsExhausted => Self::Local("no connection id is free".to_owned()),
        }
    }

    /// The same in the taxonomy that callers see.
    pub fn fault(&self) -> Fault {
        let kind = match self {
            Self::RelayRefused(fault) => return fault.clone(),
            Self::WrongPeer { .. } | Self::Handshake(_) => FaultKind::Unverified,
            Self::VersionMismatch => FaultKind::VersionMismatch,
            Self::TimedOut
            | Self::Refused
            | Self::Displaced
            | Self::Closed { .. }
            | Self::BadAddress { .. }
            | Self::Local(_)
            | Self::RelayUnasked(_) => FaultKind::NoLiveHost,
        };
        Fault::new(kind, self.to_string())
    }

    fn from_code(code: quinn::TransportErrorCode, reason: &str) -> Self {
        if code == quinn::TransportErrorCode::crypto(ALERT_NO_PROTOCOL) {
            Self::VersionMismatch
        } else if code == quinn::TransportErrorCode::CONNECTION_REFUSED {
            Self::Refused
        } else {
            Self::Handshake(format!("{code}: {reason}"))
        }
    }

    pub(crate) fn from_dial(error: quinn::ConnectError, addr: SocketAddr) -> Self {
        match error {
            quinn::ConnectError::InvalidRemoteAddress(_) => Self::BadAddress {
                addr,
                reason: "it is no address that packets can be sent to",
            },
            other => Self::Local(other.to_string()),
        }
    }
}
