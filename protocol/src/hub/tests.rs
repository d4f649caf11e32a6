#![expect(clippy::unwrap_used, reason = "a test panics on surprise")]

use super::*;
use crate::federation::record::Record;
use crate::key::{NodeKey, OwnerKey};
use crate::manifest::Verified;
use crate::placement::FailureDomain;
use crate::testing::{manifest, offer, publish};
use crate::wire::control::Held;
use crate::wire::extension::Extensions;
use crate::wire::federation::{HOSTS_PAGE_MAX, ReplicaChange};

fn record(seed: u8) -> VerifiedRecord {
    let key = NodeKey::from_seed([seed; 32]);
    let record = Record {
        node: key.id(),
        addresses: vec![format!("192.0.2.{seed}:4433")],
        number: 1,
        software: String::new(),
        extensions: Extensions::none(),
    };
    VerifiedRecord::verify(record.sign(&key)).unwrap()
}

fn host(byte: u8) -> NodeId {
    NodeId::from_bytes([byte; 32])
}

/// A super node that is linked to another one, and has said what there is to say.
fn linked() -> Hub {
    let mut hub = Hub::new(record(0), [0; 16], Clock::default());
    let own = Cursor {
        log: [1; 16],
        number: 0,
    };
    hub.on_link_up(0, record(1), own);
    said(&mut hub);
    hub
}

fn join(hub: &mut Hub, byte: u8, held: &[Held]) {
    let domain = FailureDomain::V4([byte, 0, 0]);
    hub.with_hosts(|c| c.on_registered(0, host(byte), offer(), domain))
        .unwrap();
    hub.with_hosts(|c| c.on_holding(0, host(byte), held, true))
        .unwrap();
}

/// What a hub says to the other super node about hosts and what they hold, and how often it wants to be woken.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    /// The hosts of each message that names some that came.
    up: Vec<Vec<NodeId>>,
    down: Vec<NodeId>,
    ready: Vec<NodeId>,
    wakes: usize,
}

fn said(hub: &mut Hub) -> Said {
    let mut said = Said::default();
    while let Some(effect) = hub.poll_effect() {
        match effect {
            Effect::Wake => said.wakes += 1,
            Effect::Peer(federation::Effect::Send(_, message)) => match &*message {
                PeerMessage::Hosts(hosts) => {
                    let up: Vec<NodeId> = hosts.up.iter().map(|record| record.node).collect();
                    said.up.extend((!up.is_empty()).then_some(up));
                    said.down.extend(&hosts.down);
                }
                PeerMessage::Replicas(replicas) => {
                    let ready = |news: &&ReplicaNews| news.change == ReplicaChange::Ready;
                    said.ready
                        .extend(replicas.news.iter().filter(ready).map(|news| news.host));
                }
                _ => {}
            },
            _ => {}
        }
    }
    said
}

fn function() -> (Verified, Held) {
    let manifest = manifest(&OwnerKey::from_seed([1; 32]), "a", 0, 1, publish(0));
    let held = Held {
        function: manifest.function(),
        version: manifest.version(),
        manifest: manifest.hash(),
        ready: true,
    };
    (manifest, held)
}

#[test]
fn one_host_is_told_at_once_and_those_after_it_together() {
    let mut hub = linked();
    join(&mut hub, 1, &[]);
    let first = said(&mut hub);
    assert_eq!((first.up, first.wakes), (vec![vec![host(1)]], 1));
    for byte in [2, 3, 4] {
        join(&mut hub, byte, &[]);
    }
    assert_eq!(said(&mut hub), Said::default(), "they wait");
    hub.on_wake();
    let rest = said(&mut hub);
    assert_eq!((rest.up, rest.wakes), (vec![vec![host(2), host(3), host(4)]], 1));
    // Nobody came meanwhile: the next one is told at once again.
    hub.on_wake();
    assert_eq!(said(&mut hub), Said::default());
    join(&mut hub, 5, &[]);
    assert_eq!(said(&mut hub).up, [[host(5)]]);
}

#[test]
fn a_full_page_waits_for_nothing() {
    let mut hub = linked();
    for byte in 0..=u8::try_from(HOSTS_PAGE_MAX).unwrap() {
        join(&mut hub, byte, &[]);
    }
    let said = said(&mut hub);
    assert_eq!(
        said.up.iter().map(Vec::len).collect::<Vec<_>>(),
        [1, HOSTS_PAGE_MAX]
    );
    assert_eq!(said.wakes, 1, "only one is asked for at a time");
}

#[test]
fn what_a_host_holds_waits_with_it_and_comes_after_it() {
    let (manifest, held) = function();
    let mut hub = linked();
    hub.with_hosts(|coordinator| coordinator.on_manifest(&manifest));
    join(&mut hub, 1, &[]);
    said(&mut hub);
    join(&mut hub, 2, std::slice::from_ref(&held));
    hub.with_hosts(|coordinator| coordinator.on_ready(0, host(1), held.function, held.version));
    let at_once = said(&mut hub);
    assert_eq!((at_once.up, at_once.ready), (vec![], vec![host(1)]));
    hub.on_wake();
    let order: Vec<&str> = std::iter::from_fn(|| hub.poll_effect())
        .filter_map(|effect| match effect {
            Effect::Peer(federation::Effect::Send(_, message)) => match &*message {
                PeerMessage::Hosts(_) => Some("host"),
                PeerMessage::Replicas(replicas) if replicas.news[0].host == host(2) => Some("replica"),
                _ => None,
            },
            _ => None,
        })
        .collect();
    assert_eq!(order, ["host", "replica"]);
}

#[test]
fn a_host_that_leaves_is_told_at_once_and_did_not_come() {
    let (manifest, held) = function();
    let mut hub = linked();
    hub.with_hosts(|coordinator| coordinator.on_manifest(&manifest));
    join(&mut hub, 1, &[]);
    join(&mut hub, 2, &[held]);
    said(&mut hub);
    hub.with_hosts(|coordinator| coordinator.on_draining(0, host(1)));
    hub.with_hosts(|coordinator| coordinator.on_draining(0, host(2)));
    assert_eq!(said(&mut hub).down, [host(1), host(2)]);
    hub.on_wake();
    assert_eq!(said(&mut hub), Said::default());
}
