#![expect(clippy::unwrap_used, reason = "a test panics on surprise")]

use bytes::Bytes;
use orb_protocol::client::Client;
use orb_protocol::fault::{Fault, FaultKind};
use orb_protocol::id::{ArtifactHash, FunctionId, NodeId};
use orb_protocol::key::{NodeKey, OwnerKey};
use orb_protocol::manifest::{Action, Verified};
use orb_protocol::quic::PathKind;
use orb_protocol::quic::frames::{read_message, write_message};
use orb_protocol::wire::codec::MESSAGE_LEN_MAX;
use orb_protocol::wire::control::{Draining, Held, Holding, Refused, Registered, SuperMessage};
use orb_protocol::wire::directory::{
    Fetch, INVITE, Inspect, Inspected, List, Listed, NOTE, Publish, ReadyReport, ReplicaState, Resolve,
    Resolved, Versions, VersionsListed, WaitReady,
};
use orb_protocol::wire::extension::Extensions;
use orb_protocol::wire::relay::RelayOffer;
use orb_protocol::wire::tagged::Tagged;
use orb_protocol::wire::{Info, NodeInfo, Reply, Request};

use super::testing::{FakeHost, Guest, Super, register, wasm, wasm_with_import};
use crate::config::Admission;
use crate::shutdown::Shutdown;
use crate::store::testing::{end, head, manifest, owner, publish, version};

mod connections;
mod hosts;
mod publishing;

fn revision(key: &OwnerKey, number: u64, bytes: &[u8]) -> Verified {
    manifest(key, "f", version(0, number), publish(bytes))
}

fn resolve(function: FunctionId) -> Resolve {
    Resolve {
        function,
        credential: None,
        extensions: Extensions::none(),
    }
}

fn versions(function: FunctionId) -> Versions {
    Versions {
        function,
        before: None,
        extensions: Extensions::none(),
    }
}

fn fetch(artifact: ArtifactHash, offset: u64) -> Fetch {
    Fetch {
        artifact,
        offset,
        extensions: Extensions::none(),
    }
}

fn wait_ready(manifest: &Verified, count: u16, wait_ms: u32) -> WaitReady {
    WaitReady {
        function: manifest.function(),
        version: manifest.version(),
        count,
        wait_ms,
        extensions: Extensions::none(),
    }
}

async fn hosts_of(guest: &Guest, function: FunctionId) -> Vec<NodeId> {
    let resolved: Resolved = guest.ask(resolve(function)).await.unwrap();
    resolved.hosts.iter().map(|host| host.node).collect()
}

/// Files under `objects/`, whatever they are.
fn files_in_objects(node: &Super) -> usize {
    fn count(folder: &std::path::Path) -> usize {
        std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| if path.is_dir() { count(&path) } else { 1 })
            .sum()
    }
    count(&node.data().join("objects"))
}

#[track_caller]
fn is(fault: &Fault, kind: FaultKind, says: &str) {
    assert_eq!(fault.kind, kind, "{fault:?}");
    assert!(fault.message.contains(says), "{fault:?} does not say {says:?}");
}
