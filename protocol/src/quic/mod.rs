//! Connectivity: a QUIC connection to a node, by whatever way.
//!
//! ```text
//! Endpoint, Connection, frames and bodies        what daemons and the SDK use
//! quinn, rustls with raw public keys             streams, loss, back pressure, encryption
//! NodeSocket with its path table and forwarder   which way a packet goes; relaying others' packets
//! one UDP socket
//! ```
//!
//! - [`Endpoint`] binds, [dials](Endpoint::connect), [dials by a relay](Endpoint::connect_relayed) and
//!   [accepts](Endpoint::accept).
//! - [`Connection`] knows its peer's id, proven by the handshake, and survives a change of path.
//! - [`RelayServer`] is the super node's side of relaying; nodes answer its offers with
//!   [`Endpoint::accept_relayed`].
//! - [`frames`] and [`body`] put [wire](crate::wire) messages and bodies on streams.

pub mod body;
pub mod frames;

mod address;
mod config;
mod connection;
mod endpoint;
mod error;
mod forward;
mod handshakes;
mod incoming;
mod overflow;
mod path;
mod relay;
mod reset;
mod segments;
mod socket;
mod tls;

#[cfg(test)]
mod tests;

pub use address::{AddressError, NodeAddr, SuperAddr};
pub use config::{
    EndpointConfig, HANDSHAKE_PATIENCE, HANDSHAKE_TIMEOUT, HANDSHAKES_MAX, HANDSHAKES_UNVALIDATED_MAX,
    IDLE_TIMEOUT, KEEP_ALIVE, STREAMS_UNKNOWN_PEER,
};
pub use connection::{Connection, Hold};
pub use endpoint::Endpoint;
pub use error::{BindError, ConnectError};
pub use handshakes::HandshakeStats;
pub use incoming::Incoming;
pub use path::{Path, PathKind, TableFull};
pub use relay::{RelayLink, RelayServer};
pub use socket::SocketStats;
