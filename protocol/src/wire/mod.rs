//! What goes over a stream.
//!
//! One bidirectional stream per exchange. A frame is a length (u32, little-endian) and that many
//! bytes of message. The opener sends a [`Request`]; the other side answers with a [`Reply`]; bodies
//! go in chunks: a length (u32, little-endian, at most [`CHUNK_LEN_MAX`]) and that many bytes, and a
//! length of zero ends the body. A call's answer ends with a [`call::Trailer`] frame.
//!
//! Nothing positional breaks another version: every message ends in [`extension::Extensions`]
//! (decoding refuses unknown critical ones), enums carry a tag and a length ([`tagged`]), and signed
//! objects travel as the bytes signed.

pub mod call;
pub mod codec;
pub mod control;
pub mod directory;
pub mod events;
pub mod extension;
pub mod federation;
pub mod packed;
pub mod relay;
pub mod tagged;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::fault::{Fault, FaultKind};
use codec::DecodeError;
use extension::Extensions;
use tagged::wire_enum;

/// The application protocol that both sides of a connection must name (ALPN).
pub const ALPN: &[u8] = b"orb/1";
/// The longest chunk of a body, in bytes.
pub const CHUNK_LEN_MAX: usize = 64 * 1024;

wire_enum! {
    /// The first frame of a stream: what its opener wants.
    pub enum Request {
        /// Client to super node: the live manifest of a function and who can answer for it.
        1 => Resolve(directory::Resolve),
        /// Client to super node: take this revision.
        2 => Publish(directory::Publish),
        /// Client to super node: a page of the functions.
        3 => List(directory::List),
        /// Client to super node: the revisions of a function.
        4 => Versions(directory::Versions),
        /// Client to super node: where a function's replicas are.
        5 => Inspect(directory::Inspect),
        /// Client to super node: answer when hosts are ready for a revision.
        6 => WaitReady(directory::WaitReady),
        /// Anybody to a holder: an artifact's bytes.
        7 => Fetch(directory::Fetch),
        /// A node to its super node: carry packets between me and that node.
        8 => OpenRelay(relay::OpenRelay),
        /// A super node to a node: somebody's packets will come with this token.
        9 => RelayOffer(relay::RelayOffer),
        /// Host to super node: I am here; opens the control stream.
        10 => Register(control::Register),
        /// Client to host: run a function.
        11 => Call(call::Call),
        /// Client to host: go on with a call whose connection was lost.
        12 => Attach(call::Attach),
        /// Anybody to anybody: who are you.
        13 => Info(Info),
        /// Client to super node: what happened, and what happens from now on.
        14 => Events(events::Events),
        /// Client to super node: answer when hosts have removed a function that was decommissioned.
        15 => WaitRemoved(directory::WaitRemoved),
        /// Super node to super node: let us be linked; opens the link.
        20 => Peer(federation::Peer),
        /// Super node to super node: what changed beyond what I know.
        21 => Changes(federation::Changes),
        /// Super node to super node: who has hosts of a function.
        22 => Locate(federation::Locate),
        /// Super node to super node: what do you have that I do not.
        23 => Reconcile(federation::Reconcile),
    }
}

/// Asks a node about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// For what comes later.
    pub extensions: Extensions,
}

/// What a node says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// "super" or "node".
    pub role: String,
    /// The version of its software, for display.
    pub software: String,
    /// Its UTC clock, in milliseconds since the Unix epoch, for `orb doctor`.
    pub time_ms: u64,
    /// The asker's address as this node sees it.
    pub observed: String,
    /// For what comes later.
    pub extensions: Extensions,
}

/// The answer to a request: a message of the type that goes with it, or a fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    fault: Option<Fault>,
    #[serde(with = "serde_bytes")]
    body: Vec<u8>,
    extensions: Extensions,
}

impl Reply {
    /// An answer.
    pub fn ok<T: Serialize>(message: &T) -> Self {
        Self {
            fault: None,
            body: codec::encode(message),
            extensions: Extensions::none(),
        }
    }

    /// A fault in place of the answer.
    pub fn fault(fault: Fault) -> Self {
        Self {
            fault: Some(fault),
            body: Vec::new(),
            extensions: Extensions::none(),
        }
    }

    /// The reply that says how something ended.
    pub fn from_result<T: Serialize>(result: Result<T, Fault>) -> Self {
        match result {
            Ok(message) => Self::ok(&message),
            Err(fault) => Self::fault(fault),
        }
    }

    /// Whether it says that something went wrong.
    pub fn is_fault(&self) -> bool {
        self.fault.is_some()
    }

    /// The answer, or the fault.
    ///
    /// # Errors
    /// The peer's fault; [`FaultKind::VersionMismatch`] for an answer that does not decode.
    pub fn into_result<T: DeserializeOwned>(self) -> Result<T, Fault> {
        match self.fault {
            Some(fault) => Err(fault),
            None => codec::decode(&self.body).map_err(|error| undecodable(&error)),
        }
    }
}

/// The fault for a peer's message that does not decode.
pub fn undecodable(error: &DecodeError) -> Fault {
    Fault::new(FaultKind::VersionMismatch, format!("what the peer sent: {error}"))
        .help("make sure that both sides run the same version of orb")
}
