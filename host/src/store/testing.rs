//! Short ways to make manifests in tests.

use orb_protocol::head::SignedHead;
use orb_protocol::id::ArtifactHash;
use orb_protocol::key::OwnerKey;
use orb_protocol::manifest::{
    Action, Decommission, Kind, Limits, Manifest, Publish, Verified, Version, Visibility,
};
use orb_protocol::wire::extension::Extensions;

pub(crate) fn owner(seed: u8) -> OwnerKey {
    OwnerKey::from_seed([seed; 32])
}

/// Publishes these bytes as a command.
pub(crate) fn publish(bytes: &[u8]) -> Action {
    Action::Publish(Publish {
        artifact: ArtifactHash::of(bytes),
        artifact_bytes: bytes.len() as u64,
        kind: Kind::Command,
        engine: None,
        limits: Limits::default(),
        capabilities: Vec::new(),
        visibility: Visibility::default(),
        idempotent: false,
        replicas: 3,
        content_type: "application/json".to_owned(),
        extensions: Extensions::none(),
    })
}

pub(crate) fn end() -> Action {
    Action::Decommission(Decommission::default())
}

pub(crate) fn version(generation: u64, revision: u64) -> Version {
    Version { generation, revision }
}

pub(crate) fn manifest(key: &OwnerKey, name: &str, version: Version, action: Action) -> Verified {
    child(None, key, name, version, action)
}

/// Revisions of a function from the first one on, each of which names the one before it; of other bytes each.
pub(crate) fn chain(key: &OwnerKey, name: &str, bytes: &[&[u8]]) -> Vec<Verified> {
    let mut all: Vec<Verified> = Vec::new();
    for (number, bytes) in (1..).zip(bytes) {
        let next = child(all.last(), key, name, version(0, number), publish(bytes));
        all.push(next);
    }
    all
}

/// A manifest that names another one as its parent.
pub(crate) fn child(
    parent: Option<&Verified>,
    key: &OwnerKey,
    name: &str,
    version: Version,
    action: Action,
) -> Verified {
    let manifest = Manifest {
        owner: key.id(),
        name: name.parse().expect("tests use good names"),
        version,
        parent: parent.map(Verified::hash),
        action,
        message: String::new(),
        time_ms: 1_790_000_000_000,
        extensions: Extensions::none(),
    };
    let signed = manifest.sign(key).expect("tests sign within bounds");
    signed.verify().expect("what was just signed verifies")
}

pub(crate) fn head(key: &OwnerKey, manifest: &Verified) -> SignedHead {
    SignedHead::sign(key, manifest)
}
