//! Short ways to make manifests in tests.

use crate::id::ArtifactHash;
use crate::key::OwnerKey;
use crate::manifest::{Action, Kind, Limits, Manifest, Publish, Verified, Version, Visibility};
use crate::wire::control::Offer;
use crate::wire::extension::Extensions;

pub(crate) fn publish(artifact: u8) -> Action {
    Action::Publish(Publish {
        artifact: ArtifactHash::of(&[artifact]),
        artifact_bytes: 1,
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

pub(crate) fn manifest(
    key: &OwnerKey,
    name: &str,
    generation: u64,
    revision: u64,
    action: Action,
) -> Verified {
    Manifest {
        owner: key.id(),
        name: name.parse().expect("tests use good names"),
        version: Version { generation, revision },
        parent: None,
        action,
        message: String::new(),
        time_ms: 1_790_000_000_000,
        extensions: Extensions::none(),
    }
    .sign(key)
    .expect("tests sign within bounds")
    .verify()
    .expect("what was just signed verifies")
}

/// The first revisions of a function, each of which names the one before it.
pub(crate) fn chain(key: &OwnerKey, name: &str, count: u64) -> Vec<Verified> {
    let mut all: Vec<Verified> = Vec::new();
    for revision in 1..=count {
        let parent = all.last().map(Verified::hash);
        let next = Manifest {
            parent,
            ..manifest(key, name, 0, revision, publish(0)).manifest().clone()
        };
        let signed = next.sign(key).expect("tests sign within bounds");
        all.push(signed.verify().expect("what was just signed verifies"));
    }
    all
}

/// A function's manifests with these numbers: of each number two rivals, and a tombstone.
pub(crate) fn manifests(key: &OwnerKey, generations: &[u64], revisions: &[u64]) -> Vec<Verified> {
    let mut all = Vec::new();
    for &generation in generations {
        for &revision in revisions {
            for action in [publish(0), publish(1), Action::Decommission(Default::default())] {
                all.push(manifest(key, "a", generation, revision, action));
            }
        }
    }
    all
}

/// A host with room for everything.
pub(crate) fn offer() -> Offer {
    Offer {
        capacity: 4,
        ceiling: Limits::default(),
        artifact_bytes_max: 1 << 20,
        disk_free_bytes: 1 << 30,
        engines: Vec::new(),
        operator: String::new(),
        extensions: Extensions::none(),
    }
}
