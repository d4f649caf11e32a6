//! The exchanges that set up a packet relay session. The packets themselves: [`crate::relay`].

use serde::{Deserialize, Serialize};

use super::extension::Extensions;
use crate::id::NodeId;

/// Asks a super node to carry packets to and from `target`. Answer: [`RelayOpened`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenRelay {
    /// The node that the asker wants a connection to.
    pub target: NodeId,
    /// For what comes later.
    pub extensions: Extensions,
}

/// The session stands on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayOpened {
    /// What the asker puts before its packets, and finds before those that come.
    pub token: u64,
    /// For what comes later.
    pub extensions: Extensions,
}

/// Tells a node that `peer` wants a connection to it. Answer: [`RelayAccepted`] or a fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayOffer {
    /// Who asks; its handshake will prove it.
    pub peer: NodeId,
    /// What this side puts before its packets, and finds before those that come.
    pub token: u64,
    /// For what comes later.
    pub extensions: Extensions,
}

/// The offered session is registered: packets may come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayAccepted {
    /// For what comes later.
    pub extensions: Extensions,
}
