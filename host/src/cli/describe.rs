//! How functions, revisions and hosts are described, the same in every command.

use orb_protocol::manifest::{Kind, Limits, Verified};
use orb_protocol::wire::directory::{Replica, ReplicaState};
use serde::Serialize;

use crate::format;

/// A revision, for programs.
#[derive(Debug, Serialize)]
pub(crate) struct Revision {
    /// `OWNER/NAME`.
    function: String,
    owner: String,
    name: String,
    /// The function's id.
    id: String,
    generation: u64,
    revision: u64,
    /// The signed manifest's hash.
    hash: String,
    /// The hash of the revision that its owner saw before; `null` for the first.
    parent: Option<String>,
    /// "published" or "decommissioned".
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_bytes: Option<u64>,
    message: String,
    /// By the owner's clock, RFC 3339.
    time: String,
}

impl Revision {
    /// What the manifest says.
    pub(crate) fn of(verified: &Verified) -> Self {
        let manifest = verified.manifest();
        let publish = verified.publish();
        Self {
            function: format!("{}/{}", manifest.owner, manifest.name),
            owner: manifest.owner.to_string(),
            name: manifest.name.to_string(),
            id: verified.function().to_string(),
            generation: manifest.version.generation,
            revision: manifest.version.revision,
            hash: verified.hash().to_string(),
            parent: manifest.parent.map(|parent| parent.to_string()),
            action: action(verified),
            kind: publish.map(|publish| kind(publish.kind)),
            artifact: publish.map(|publish| publish.artifact.to_string()),
            artifact_bytes: publish.map(|publish| publish.artifact_bytes),
            message: manifest.message.clone(),
            time: format::rfc3339(manifest.time_ms),
        }
    }
}

/// What a revision did.
pub(crate) fn action(verified: &Verified) -> &'static str {
    match (verified.publish(), verified.is_tombstone()) {
        (Some(_), _) => "published",
        (None, true) => "decommissioned",
        (None, false) => "unknown",
    }
}

/// A kind of program, in one word.
pub(crate) fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Command => "command",
        Kind::JavyFunction => "javy-function",
        Kind::JavyScript => "javy-script",
        Kind::Unknown(_) => "unknown",
    }
}

/// Limits, for programs.
#[derive(Debug, Serialize)]
pub(crate) struct LimitsDocument {
    fuel: u64,
    memory_bytes: u64,
    time_ms: u64,
    input_bytes: u64,
    output_bytes: u64,
    log_bytes: u64,
}

impl From<Limits> for LimitsDocument {
    fn from(limits: Limits) -> Self {
        Self {
            fuel: limits.fuel,
            memory_bytes: limits.memory_bytes,
            time_ms: limits.time_ms,
            input_bytes: limits.input_bytes,
            output_bytes: limits.output_bytes,
            log_bytes: limits.log_bytes,
        }
    }
}

/// How far a host is with a function, in one word.
pub(crate) fn replica_state(state: ReplicaState) -> &'static str {
    match state {
        ReplicaState::Assigned => "assigned",
        ReplicaState::Ready => "ready",
        ReplicaState::Refused => "refused",
        ReplicaState::Silent => "silent",
        ReplicaState::Paused => "paused",
        ReplicaState::Unknown(_) => "unknown",
    }
}

/// A replica, for programs.
#[derive(Debug, Serialize)]
pub(crate) struct ReplicaDocument {
    host: String,
    /// The super node that it is connected to, and where that is reached; `null` if it is not said.
    super_node: Option<String>,
    super_address: Option<String>,
    state: &'static str,
    generation: u64,
    revision: u64,
    rtt_ms: f64,
    queue: u32,
    capacity: u32,
    run_ms: f64,
    failure_permille: u16,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
}

impl From<&Replica> for ReplicaDocument {
    fn from(replica: &Replica) -> Self {
        let host = &replica.host;
        let at = host.super_node();
        Self {
            host: host.node.to_string(),
            super_node: at.map(|(node, _)| node.to_string()),
            super_address: at.and_then(|(_, address)| address.map(one_line)),
            state: replica_state(replica.state),
            generation: host.version.generation,
            revision: host.version.revision,
            rtt_ms: f64::from(host.rtt_us) / 1e3,
            queue: host.queue,
            capacity: host.capacity,
            run_ms: f64::from(host.run_us) / 1e3,
            failure_permille: host.failure_permille,
            reason: replica.reason.clone(),
        }
    }
}

/// A stranger's text on one line, without what drives a terminal.
pub(crate) fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>()
        .trim()
        .to_owned()
}
