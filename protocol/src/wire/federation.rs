//! Super node to super node: who is there, what changed, who holds what.
//!
//! One long stream for each pair of super nodes (a *link*), opened with [`Peer`] by either side and answered with
//! [`Peered`]; then both send [`PeerMessage`]s. What one side missed is fetched on a stream of its own with
//! [`Changes`], or found out with [`Reconcile`]; [`Locate`] asks who has hosts of a function.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::control::Offer;
use super::extension::Extensions;
use super::packed::PackedChanges;
use super::tagged::wire_enum;
use crate::id::{FunctionId, NodeId};
use crate::key::SIGNATURE_LEN;
use crate::manifest::{SignedManifest, Version};

/// How often each side of a link sends a [`PeerBeat`], in milliseconds.
pub const PEER_BEAT_INTERVAL_MS: u64 = 2_000;
/// The most records in one [`Members`] message.
pub const MEMBERS_PAGE_MAX: usize = 100;
/// The most hosts in one [`Hosts`] message: with all engines that a host may name they fit a message.
pub const HOSTS_PAGE_MAX: usize = 64;
/// The most replicas in one [`Replicas`] message, and orders in one [`Orders`] message.
pub const REPLICAS_PAGE_MAX: usize = 500;
/// The most cursors in one [`Changes`] message: one for each super node that ever published.
pub const CURSORS_MAX: usize = 4_096;

/// The most items in one [`Reconcile`] message.
pub const WANTED_PAGE_MAX: usize = 4_096;

/// Names a function's live manifest in a reconciliation; see [`crate::federation::reconcile::item`].
pub type ItemId = [u8; 32];
/// Names the log of changes that one super node began: 16 random bytes, made with its database.
pub type LogId = [u8; 16];

/// What a super node says of itself, as it signs it; see [`crate::federation::record`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedRecord {
    /// The encoded record.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
    /// Ed25519 over the bytes, in the super node domain.
    #[serde(with = "serde_bytes")]
    pub signature: Vec<u8>,
}

impl SignedRecord {
    /// Whether the signature has the right length at all.
    pub fn signature(&self) -> Option<[u8; SIGNATURE_LEN]> {
        self.signature.as_slice().try_into().ok()
    }
}

/// How far a log is known: everything in it up to this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Which log.
    pub log: LogId,
    /// Up to which number.
    pub number: u64,
}

/// Opens a link. Answer: [`Peered`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Who opens it.
    pub record: SignedRecord,
    /// How far its own log goes.
    pub own: Cursor,
    /// For what comes later.
    pub extensions: Extensions,
}

/// The link is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peered {
    /// Who answers.
    pub record: SignedRecord,
    /// How far its own log goes.
    pub own: Cursor,
    /// For what comes later.
    pub extensions: Extensions,
}

wire_enum! {
    /// What super nodes send on a link.
    pub enum PeerMessage {
        /// Super nodes that the sender knows.
        1 => Members(Members),
        /// A function changed at the sender.
        2 => Changed(RegistryChange),
        /// Hosts that are connected to the sender.
        3 => Hosts(Hosts),
        /// What the sender's hosts hold, for functions in whose directory the receiver is.
        4 => Replicas(Replicas),
        /// What the receiver's hosts shall hold, from the first of a function's directory.
        5 => Orders(Orders),
        /// The sender lives, and knows so much.
        6 => Beat(PeerBeat),
    }
}

/// Super nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// At most [`MEMBERS_PAGE_MAX`].
    pub records: Vec<SignedRecord>,
    /// For what comes later.
    pub extensions: Extensions,
}

/// A change of the registry, with where it stands in the log of the super node that took it in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryChange {
    /// Its place in that log.
    pub at: Cursor,
    /// The revision or tombstone.
    pub manifest: SignedManifest,
    /// The signature of its head, for the DHT. The rest of the head follows from the manifest.
    #[serde(with = "serde_bytes")]
    pub head_signature: Vec<u8>,
    /// For what comes later.
    pub extensions: Extensions,
}

/// Hosts of the sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hosts {
    /// Whether this begins a list of all of them.
    pub reset: bool,
    /// Whether this ends it: those that it does not name are gone.
    pub last: bool,
    /// Came, or changed. At most [`HOSTS_PAGE_MAX`].
    pub up: Vec<HostRecord>,
    /// Left.
    pub down: Vec<NodeId>,
    /// For what comes later.
    pub extensions: Extensions,
}

/// A host, as its super node knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRecord {
    /// It.
    pub node: NodeId,
    /// What it offers: as many keep it in mind as there are super nodes.
    pub offer: Arc<Offer>,
    /// Where it connects from, for placement: an IP address in text.
    pub address: String,
    /// Whether it takes calls and functions.
    pub pause: HostPause,
}

/// Whether a host takes nothing for a while; see [`crate::pause`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "u16", into = "u16")]
pub enum HostPause {
    /// It takes calls and functions.
    #[default]
    Off,
    /// It takes neither, and keeps what it holds.
    On,
    /// It has done so for so long that others are to hold what it holds.
    Lasts,
    /// Something that this version does not know: for it, a pause.
    Unknown(u16),
}

impl From<u16> for HostPause {
    fn from(tag: u16) -> Self {
        match tag {
            1 => Self::Off,
            2 => Self::On,
            3 => Self::Lasts,
            other => Self::Unknown(other),
        }
    }
}

impl From<HostPause> for u16 {
    fn from(pause: HostPause) -> Self {
        match pause {
            HostPause::Off => 1,
            HostPause::On => 2,
            HostPause::Lasts => 3,
            HostPause::Unknown(tag) => tag,
        }
    }
}

/// What hosts of the sender hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replicas {
    /// At most [`REPLICAS_PAGE_MAX`].
    pub news: Vec<ReplicaNews>,
    /// For what comes later.
    pub extensions: Extensions,
}

/// How far a host is with a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaNews {
    /// The function.
    pub function: FunctionId,
    /// The host.
    pub host: NodeId,
    /// The version that it holds, or refused.
    pub version: Version,
    /// How far it is.
    pub change: ReplicaChange,
    /// Why it refused, for a person; empty if it did not.
    pub reason: String,
}

/// See [`ReplicaNews`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "u16", into = "u16")]
pub enum ReplicaChange {
    /// It can answer for the version.
    Ready,
    /// It will not hold the version.
    Refused,
    /// It holds the function no more.
    Dropped,
    /// Something that this version does not know.
    Unknown(u16),
}

impl From<u16> for ReplicaChange {
    fn from(tag: u16) -> Self {
        match tag {
            1 => Self::Ready,
            2 => Self::Refused,
            3 => Self::Dropped,
            other => Self::Unknown(other),
        }
    }
}

impl From<ReplicaChange> for u16 {
    fn from(change: ReplicaChange) -> Self {
        match change {
            ReplicaChange::Ready => 1,
            ReplicaChange::Refused => 2,
            ReplicaChange::Dropped => 3,
            ReplicaChange::Unknown(tag) => tag,
        }
    }
}

/// What hosts of the receiver shall hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// At most [`REPLICAS_PAGE_MAX`].
    pub orders: Vec<Order>,
    /// For what comes later.
    pub extensions: Extensions,
}

/// A host shall hold a function, or need not any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The function.
    pub function: FunctionId,
    /// The host.
    pub host: NodeId,
    /// Whether it shall.
    pub hold: bool,
}

/// A link's heart-beat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerBeat {
    /// How far the sender's own log goes.
    pub own: Cursor,
    /// A sum over everything that the sender knows of all logs: two super nodes with the same one know
    /// the same.
    pub known: u64,
    /// For what comes later.
    pub extensions: Extensions,
}

/// Asks for what changed beyond these cursors. Answer: pages of [`ChangesPage`] until one is the last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// What the asker knows, at most [`CURSORS_MAX`].
    pub known: Vec<Cursor>,
    /// For what comes later.
    pub extensions: Extensions,
}

/// Changes that the asker lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangesPage {
    /// In no particular order.
    pub changes: PackedChanges,
    /// With the last page: what the asker knows once it has taken all of them in.
    pub known: Vec<Cursor>,
    /// Whether there are no more.
    pub last: bool,
    /// For what comes later.
    pub extensions: Extensions,
}

/// Compares what both know where no clock tells, step by step on one stream: the first one is a request, further ones
/// follow bare. Answer to one with a message: [`Reconciled`]. Answer to one without: pages of [`ChangesPage`] with
/// what it wants, until one is the last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconcile {
    /// See [`crate::federation::reconcile`]; empty once it is known what is wanted.
    #[serde(with = "serde_bytes")]
    pub message: Vec<u8>,
    /// What is wanted then, at most [`WANTED_PAGE_MAX`].
    pub wanted: Vec<ItemId>,
    /// For what comes later.
    pub extensions: Extensions,
}

/// A step of a reconciliation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconciled {
    /// See [`crate::federation::reconcile`].
    #[serde(with = "serde_bytes")]
    pub message: Vec<u8>,
    /// For what comes later.
    pub extensions: Extensions,
}

/// Asks who has hosts of a function, of a super node in its directory. Answer: [`Located`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locate {
    /// Which function.
    pub function: FunctionId,
    /// For what comes later.
    pub extensions: Extensions,
}

/// Who has hosts of a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Located {
    /// Super nodes with hosts that can answer.
    pub supers: Vec<NodeId>,
    /// For what comes later.
    pub extensions: Extensions,
}
