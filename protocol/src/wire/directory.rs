//! Client to super node: publish, resolve, list; anybody to a holder: fetch.

use serde::{Deserialize, Serialize};

use super::call::Credential;
use super::extension::Extensions;
use crate::head::SignedHead;
use crate::id::{ArtifactHash, FunctionId, NodeId, OwnerId};
use crate::manifest::{SignedManifest, Version};

/// The most functions in a page of a listing: with manifests of ordinary size it fits a message.
pub const PAGE_MAX: u16 = 100;
/// The most hosts named in one answer.
pub const HOSTS_MAX: usize = 16;

/// The extension of [`Resolved`] and [`Inspected`] that says why nobody, or too few, hold the function,
/// for a person. UTF-8.
pub const NOTE: u16 = 1;
/// The extension of [`Publish`] that shows an invitation, where the super node's policy asks for one.
/// UTF-8.
pub const INVITE: u16 = 2;

/// The extension of [`HostHint`] that names the host's super node, if it is another one than the one that
/// answers: `NODEID@host:port`. A session with the host is opened there. Within [`Inspected`] every host has it that a
/// super node is known of, without `@host:port` where that is not known. UTF-8.
pub const VIA: u16 = 1;
/// The extension of [`Summary`] of a super node that knows of its own hosts only: others may have more. Empty.
pub const OWN_HOSTS: u16 = 1;
/// The extension of [`Resolve`], [`Inspect`], [`Versions`], [`WaitReady`] and [`Fetch`] between super nodes: answer from
/// what is here, and ask no other one. Empty. Clients send it with [`Versions`] if the newest one will do.
pub const LOCAL: u16 = 3;

/// The extension of [`Resolve`] of whoever looks in the DHT already: answer from what this federation knows, and look
/// no further. Empty.
pub const NEARBY: u16 = 4;

/// Asks for a function's live manifest and the hosts to call. Answer: [`Resolved`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolve {
    /// Which function.
    pub function: FunctionId,
    /// Who the asker acts for, where the function asks.
    pub credential: Option<Credential>,
    /// For what comes later.
    pub extensions: Extensions,
}

/// A function's state, and who can answer for it, best first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// The live manifest.
    pub manifest: SignedManifest,
    /// Hosts that are ready, at most [`HOSTS_MAX`], best first.
    pub hosts: Vec<HostHint>,
    /// For what comes later.
    pub extensions: Extensions,
}

/// What a super node knows of a host: the inputs of [`crate::ranking`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostHint {
    /// The host.
    pub node: NodeId,
    /// The version that it is ready for.
    pub version: Version,
    /// Smoothed round trip between the super node and the host, in microseconds.
    pub rtt_us: u32,
    /// Calls waiting or running there.
    pub queue: u32,
    /// Calls that it runs at the same time.
    pub capacity: u32,
    /// The function's mean time in guest there, in microseconds; 0 if not known.
    pub run_us: u32,
    /// Probability that a call fails there through the host's fault, in thousandths.
    pub failure_permille: u16,
    /// For what comes later.
    pub extensions: Extensions,
}

impl HostHint {
    /// Which super node the host is connected to ([`VIA`]), and where that is reached, as far as it is said.
    pub fn super_node(&self) -> Option<(NodeId, Option<&str>)> {
        let via = std::str::from_utf8(self.extensions.get(VIA)?).ok()?;
        let (node, address) = match via.split_once('@') {
            Some((node, address)) => (node, Some(address)),
            None => (via, None),
        };
        Some((node.parse().ok()?, address))
    }
}

/// Hands in a revision. Answer: [`PublishStep`]; if bytes are wanted, the publisher sends the
/// artifact in chunks and gets a second reply, [`Published`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// The revision.
    pub manifest: SignedManifest,
    /// Its head, for the DHT.
    pub head: SignedHead,
    /// For what comes later.
    pub extensions: Extensions,
}

/// How a publish goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishStep {
    /// Whether the artifact's bytes are to follow.
    pub want_artifact: bool,
    /// For what comes later.
    pub extensions: Extensions,
}

/// The revision is stored durably.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// What is stored.
    pub version: Version,
    /// Hosts that it was assigned to at once.
    pub assigned: Vec<NodeId>,
    /// Why there are fewer than wanted, for a person; empty if there are not.
    pub note: String,
    /// For what comes later.
    pub extensions: Extensions,
}

/// Asks for a page of the functions. Answer: [`Listed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// Only this owner's.
    pub owner: Option<OwnerId>,
    /// Only functions after this one, in the order of ids.
    pub after: Option<FunctionId>,
    /// At most so many, and at most [`PAGE_MAX`].
    pub limit: u16,
    /// Decommissioned ones too.
    pub decommissioned: bool,
    /// For what comes later.
    pub extensions: Extensions,
}

/// A page of the functions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// In the order of their ids.
    pub functions: Vec<Summary>,
    /// Whether there are more.
    pub more: bool,
    /// For what comes later.
    pub extensions: Extensions,
}

/// A function in a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The live manifest.
    pub manifest: SignedManifest,
    /// Hosts that are ready for its version, as far as the super node knows ([`OWN_HOSTS`]).
    pub ready: u16,
    /// For what comes later.
    pub extensions: Extensions,
}

/// Asks for a function's revisions. Answer: [`VersionsListed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// Which function.
    pub function: FunctionId,
    /// Only versions below this one.
    pub before: Option<Version>,
    /// For what comes later.
    pub extensions: Extensions,
}

/// A page of a function's revisions, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionsListed {
    /// Newest first, at most [`PAGE_MAX`].
    pub revisions: Vec<RevisionEntry>,
    /// Whether there are older ones.
    pub more: bool,
    /// For what comes later.
    pub extensions: Extensions,
}

/// A revision in a function's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionEntry {
    /// The revision.
    pub manifest: SignedManifest,
    /// Whether the super node still has its artifact's bytes, or another one that it has asked.
    pub has_artifact: bool,
}

/// Asks where a function's replicas are. Answer: [`Inspected`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspect {
    /// Which function.
    pub function: FunctionId,
    /// For what comes later.
    pub extensions: Extensions,
}

/// A function's replicas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspected {
    /// The live manifest.
    pub manifest: SignedManifest,
    /// Every host that holds it, should hold it, or refused to.
    pub replicas: Vec<Replica>,
    /// For what comes later.
    pub extensions: Extensions,
}

/// How far a host is with a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "u16", into = "u16")]
pub enum ReplicaState {
    /// It was told to hold the function, and is not ready yet.
    Assigned,
    /// Durable, verified, and compiled where that is needed.
    Ready,
    /// It said no.
    Refused,
    /// It has not been heard of for a while.
    Silent,
    /// It holds the function, and takes no calls for a while.
    Paused,
    /// A state that this version does not know.
    Unknown(u16),
}

impl From<u16> for ReplicaState {
    fn from(tag: u16) -> Self {
        match tag {
            1 => Self::Assigned,
            2 => Self::Ready,
            3 => Self::Refused,
            4 => Self::Silent,
            5 => Self::Paused,
            other => Self::Unknown(other),
        }
    }
}

impl From<ReplicaState> for u16 {
    fn from(state: ReplicaState) -> Self {
        match state {
            ReplicaState::Assigned => 1,
            ReplicaState::Ready => 2,
            ReplicaState::Refused => 3,
            ReplicaState::Silent => 4,
            ReplicaState::Paused => 5,
            ReplicaState::Unknown(tag) => tag,
        }
    }
}

/// A host and a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// The host, and what is known of it.
    pub host: HostHint,
    /// How far it is.
    pub state: ReplicaState,
    /// Why it refused, for a person; empty if it did not.
    pub reason: String,
}

/// Waits until `count` hosts are ready for `version` or a newer one. Answer: [`ReadyReport`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitReady {
    /// Which function.
    pub function: FunctionId,
    /// For which version.
    pub version: Version,
    /// How many hosts.
    pub count: u16,
    /// How long at most, in milliseconds.
    pub wait_ms: u32,
    /// For what comes later.
    pub extensions: Extensions,
}

/// Who is ready, and who will not be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyReport {
    /// Hosts that are ready for the version.
    pub ready: Vec<NodeId>,
    /// Hosts that were told to hold it and are not ready yet.
    pub pending: Vec<NodeId>,
    /// Hosts that refused, and why.
    pub refused: Vec<(NodeId, String)>,
    /// Hosts that are connected at all.
    pub hosts: u32,
    /// For what comes later.
    pub extensions: Extensions,
}

/// Waits until `count` hosts have removed a function that was decommissioned, or all that held it. Answer:
/// [`RemovalReport`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitRemoved {
    /// Which function.
    pub function: FunctionId,
    /// How many hosts.
    pub count: u16,
    /// How long at most, in milliseconds.
    pub wait_ms: u32,
    /// For what comes later.
    pub extensions: Extensions,
}

/// The hosts that held a function when it was decommissioned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovalReport {
    /// Those that have confirmed that they removed it.
    pub removed: Vec<NodeId>,
    /// Those that were told and have not confirmed yet.
    pub pending: Vec<NodeId>,
    /// Those that cannot be told now. They are when they come back, before they answer any call.
    pub offline: Vec<NodeId>,
    /// For what comes later.
    pub extensions: Extensions,
}

/// Asks for an artifact. Answer: [`Fetched`], then the bytes in chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// Which artifact.
    pub artifact: ArtifactHash,
    /// From which byte on.
    pub offset: u64,
    /// For what comes later.
    pub extensions: Extensions,
}

/// The bytes follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// The whole artifact's length, in bytes.
    pub len: u64,
    /// For what comes later.
    pub extensions: Extensions,
}
