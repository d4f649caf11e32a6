//! Short ways to the things that tests of this folder need.

use orb_protocol::id::ArtifactHash;
use orb_protocol::key::OwnerKey;
use orb_protocol::manifest::{
    Action, Decommission, Kind, Limits, Manifest, Publish, Verified, Version, Visibility,
};
use orb_protocol::wire::extension::Extensions;

pub(crate) fn owner(byte: u8) -> OwnerKey {
    OwnerKey::from_seed([byte; 32])
}

/// What publishes a command.
pub(crate) fn publish(wasm: &[u8]) -> Publish {
    Publish {
        artifact: ArtifactHash::of(wasm),
        artifact_bytes: wasm.len() as u64,
        kind: Kind::Command,
        engine: None,
        limits: Limits::default(),
        capabilities: Vec::new(),
        visibility: Visibility::default(),
        idempotent: false,
        replicas: 1,
        content_type: "application/octet-stream".to_owned(),
        extensions: Extensions::none(),
    }
}

pub(crate) fn revision(key: &OwnerKey, name: &str, revision: u64, action: Action) -> Verified {
    Manifest {
        owner: key.id(),
        name: name.parse().expect("tests use good names"),
        version: Version {
            generation: 0,
            revision,
        },
        parent: None,
        action,
        message: String::new(),
        time_ms: 0,
        extensions: Extensions::none(),
    }
    .sign(key)
    .expect("tests sign within bounds")
    .verify()
    .expect("what was just signed verifies")
}

/// A revision that publishes a command.
pub(crate) fn manifest(key: &OwnerKey, name: &str, number: u64, wasm: &[u8]) -> Verified {
    revision(key, name, number, Action::Publish(publish(wasm)))
}

/// A revision that ends the function.
pub(crate) fn tombstone(key: &OwnerKey, name: &str, number: u64) -> Verified {
    revision(key, name, number, Action::Decommission(Decommission::default()))
}
