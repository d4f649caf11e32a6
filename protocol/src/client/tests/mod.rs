//! The client against small super nodes and hosts in this process: real QUIC over loopback, the real
//! relay, and hosts that do what a test tells them.
#![expect(clippy::unwrap_used, reason = "a test panics on surprise")]

mod calls;
mod connects;
mod deploys;
mod failovers;
mod host;
mod streams;
mod super_node;

use bytes::Bytes;

use super::{CallOptions, Client};
use crate::id::FunctionId;
use crate::key::OwnerKey;
use crate::manifest::{Action, Verified};
use crate::testing::{manifest, publish};

use host::{Act, Host};
use super_node::Super;

fn owner() -> OwnerKey {
    OwnerKey::from_seed([200; 32])
}

/// A revision of the function that most tests call.
fn revision(revision: u64, idempotent: bool) -> Verified {
    let Action::Publish(mut publish) = publish(1) else {
        unreachable!("it publishes")
    };
    publish.idempotent = idempotent;
    manifest(&owner(), "hello", 0, revision, publish.into())
}

fn function() -> FunctionId {
    revision(1, false).function()
}

/// A super node that knows the function, hosts that are ready for it in this order, and a client.
struct Network {
    super_node: Super,
    hosts: Vec<Host>,
    client: Client,
}

/// Each host is given what it does with its first calls; after those it answers.
async fn network<const N: usize>(idempotent: bool, acts: [Vec<Act>; N]) -> Network {
    let super_node = Super::start(100);
    super_node.publish(revision(1, idempotent));
    let mut hosts = Vec::new();
    for (seed, acts) in (1u8..).zip(acts) {
        let host = Host::start(seed, super_node.addr(), idempotent, acts).await;
        super_node.ready(function(), host.id());
        hosts.push(host);
    }
    let client = Client::builder()
        .super_nodes(vec![super_node.addr()])
        .connect()
        .await
        .unwrap();
    Network {
        super_node,
        hosts,
        client,
    }
}

impl Network {
    async fn call(&self) -> Result<super::Answer, super::CallError> {
        self.client
            .call(function(), Bytes::from_static(b"in"), CallOptions::default())
            .await
    }

    /// How many calls each host has seen.
    fn calls(&self) -> Vec<usize> {
        self.hosts.iter().map(|host| host.seen().calls.len()).collect()
    }
}
