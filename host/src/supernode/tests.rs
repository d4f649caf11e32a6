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

// -- publishing ------------------------------------------------------------------------------------

#[tokio::test]
async fn what_was_published_is_there_after_a_restart_at_the_same_address() {
    let node = Super::start().await;
    let address = node.address.clone();
    let key = owner(1);
    let first = revision(&key, 1, &wasm(1));
    {
        let guest = Guest::connect(&node).await;
        let published = guest.publish(&key, &first, &wasm(1)).await.unwrap();
        assert_eq!(
            (published.version, published.assigned.len()),
            (first.version(), 0)
        );
        assert!(
            published.note.contains("0 of 3 replicas placed"),
            "{}",
            published.note
        );
    }
    let data = node.stop().await;
    assert!(!data.path().join("address").exists());

    let node = Super::start_with(data, |_| {}).await;
    assert_eq!(node.address, address);
    let guest = Guest::connect(&node).await;
    let resolved: Resolved = guest.ask(resolve(first.function())).await.unwrap();
    assert_eq!(&resolved.manifest, first.signed());
    let note = resolved.extensions.get(NOTE).unwrap().to_vec();
    assert!(String::from_utf8(note).unwrap().contains("hosts connected: 0"));
    let artifact = ArtifactHash::of(&wasm(1));
    assert_eq!(
        guest.fetch(fetch(artifact, 0)).await.unwrap(),
        (wasm(1).len() as u64, wasm(1).to_vec())
    );
}

#[tokio::test]
async fn a_functions_life() {
    let node = Super::start().await;
    let guest = Guest::connect(&node).await;
    let key = owner(1);
    let (first, second) = (revision(&key, 1, &wasm(1)), revision(&key, 2, &wasm(2)));
    let function = first.function();
    guest.publish(&key, &first, &wasm(1)).await.unwrap();
    guest.publish(&key, &second, &wasm(2)).await.unwrap();
    // Again, and again without the bytes: the same revision is stored once.
    guest.publish(&key, &second, &Bytes::new()).await.unwrap();
    is(
        &guest.publish(&key, &first, &wasm(1)).await.unwrap_err(),
        FaultKind::Refused,
        "not newer than revision 2",
    );
    // Back to the first artifact, which need not be sent again.
    let third = revision(&key, 3, &wasm(1));
    guest.publish(&key, &third, &Bytes::new()).await.unwrap();
    let listed: VersionsListed = guest.ask(versions(function)).await.unwrap();
    let numbers: Vec<u64> = listed
        .revisions
        .iter()
        .map(|entry| entry.manifest.clone().verify().unwrap().version().revision)
        .collect();
    assert_eq!(numbers, [3, 2, 1]);
    assert!(listed.revisions.iter().all(|entry| entry.has_artifact));

    let tombstone = manifest(&key, "f", version(0, 4), end());
    guest.publish(&key, &tombstone, &Bytes::new()).await.unwrap();
    is(
        &guest.ask::<Resolved>(resolve(function)).await.unwrap_err(),
        FaultKind::Decommissioned,
        "revision 4",
    );
    // Nothing of this life comes back, and nobody ends it twice.
    for late in [
        revision(&key, 99, &wasm(3)),
        manifest(&key, "f", version(0, 5), end()),
    ] {
        let refusal = guest.publish(&key, &late, &wasm(3)).await.unwrap_err();
        assert_eq!(refusal.kind, FaultKind::Decommissioned);
    }
    let listed: VersionsListed = guest.ask(versions(function)).await.unwrap();
    assert!(listed.revisions.iter().all(|entry| !entry.has_artifact));
    assert_eq!(files_in_objects(&node), 0);
    let again = manifest(&key, "f", version(1, 1), publish(&wasm(3)));
    guest.publish(&key, &again, &wasm(3)).await.unwrap();
    assert_eq!(hosts_of(&guest, function).await, []);
}

#[tokio::test]
async fn what_does_not_verify_leaves_nothing_behind() {
    let node = Super::start().await;
    let guest = Guest::connect(&node).await;
    let key = owner(1);
    let first = revision(&key, 1, &wasm(1));
    let other = revision(&key, 2, &wasm(1));
    let handed = |manifest: &Verified, head| Publish {
        manifest: manifest.signed().clone(),
        head,
        extensions: Extensions::none(),
    };
    let mut forged = handed(&first, head(&key, &first));
    forged.manifest.signature[0] ^= 1;
    is(
        &guest.hand_in(forged, &wasm(1)).await.unwrap_err(),
        FaultKind::Unverified,
        "signature",
    );
    let foreign_head = handed(&first, head(&key, &other));
    is(
        &guest.hand_in(foreign_head, &wasm(1)).await.unwrap_err(),
        FaultKind::Unverified,
        "head",
    );
    // Other bytes of the same length, too few, too many.
    is(
        &guest.publish(&key, &first, &wasm(2)).await.unwrap_err(),
        FaultKind::Unverified,
        "the bytes that came are",
    );
    let cut = wasm(1).slice(..5);
    is(
        &guest.publish(&key, &first, &cut).await.unwrap_err(),
        FaultKind::Unverified,
        "it has 5",
    );
    let long = Bytes::from([wasm(1), wasm(1)].concat());
    is(
        &guest.publish(&key, &first, &long).await.unwrap_err(),
        FaultKind::Unverified,
        "it has more",
    );
    is(
        &guest
            .ask::<Resolved>(resolve(first.function()))
            .await
            .unwrap_err(),
        FaultKind::NotFound,
        "does not know the function",
    );
    assert_eq!(files_in_objects(&node), 0);
    // After all that the real one is taken.
    guest.publish(&key, &first, &wasm(1)).await.unwrap();
}

#[tokio::test]
async fn what_does_not_run_here_is_refused_by_name() {
    let node = Super::start().await;
    let guest = Guest::connect(&node).await;
    let key = owner(1);
    let text = Bytes::from_static(b"export default () => 1");
    let refusal = guest
        .publish(&key, &revision(&key, 1, &text), &text)
        .await
        .unwrap_err();
    is(&refusal, FaultKind::Refused, "not WebAssembly");
    let imports = wasm_with_import();
    let refusal = guest
        .publish(&key, &revision(&key, 1, &imports), &imports)
        .await
        .unwrap_err();
    is(&refusal, FaultKind::Refused, "env.nope");
    let Action::Publish(mut lie) = publish(&wasm(1)) else {
        unreachable!()
    };
    lie.kind = orb_protocol::manifest::Kind::JavyFunction;
    let lie = manifest(&key, "f", version(0, 1), Action::Publish(lie));
    is(
        &guest.publish(&key, &lie, &wasm(1)).await.unwrap_err(),
        FaultKind::Unverified,
        "another kind",
    );
    assert_eq!(files_in_objects(&node), 0);
}

#[tokio::test]
async fn numbers_follow_the_rules() {
    let node = Super::start().await;
    let guest = Guest::connect(&node).await;
    let key = owner(1);
    let tombstone = manifest(&key, "f", version(0, 1), end());
    is(
        &guest.publish(&key, &tombstone, &Bytes::new()).await.unwrap_err(),
        FaultKind::NotFound,
        "no such function",
    );
    guest
        .publish(&key, &revision(&key, 1, &wasm(1)), &wasm(1))
        .await
        .unwrap();
    is(
        &guest
            .publish(&key, &revision(&key, 1 << 30, &wasm(1)), &wasm(1))
            .await
            .unwrap_err(),
        FaultKind::Refused,
        "too far ahead",
    );
    let early = manifest(&key, "f", version(1, 1), publish(&wasm(1)));
    is(
        &guest.publish(&key, &early, &wasm(1)).await.unwrap_err(),
        FaultKind::Refused,
        "only a function that was decommissioned",
    );
}

#[tokio::test]
async fn a_quota_is_named() {
    let data = tempfile::tempdir().unwrap();
    let node = Super::start_with(data, |config| {
        config.owner_functions_max = 1;
        config.artifact_bytes_max = wasm(1).len() as u64;
    })
    .await;
    let guest = Guest::connect(&node).await;
    let key = owner(1);
    guest
        .publish(&key, &revision(&key, 1, &wasm(1)), &wasm(1))
        .await
        .unwrap();
    let more = manifest(&key, "g", version(0, 1), publish(&wasm(2)));
    is(
        &guest.publish(&key, &more, &wasm(2)).await.unwrap_err(),
        FaultKind::Refused,
        "over quota: an owner may have 1 functions",
    );
    let long = Bytes::from([wasm(1), Bytes::from_static(b"\0\x02\x01y")].concat());
    let long_one = revision(&key, 2, &long);
    is(
        &guest.publish(&key, &long_one, &long).await.unwrap_err(),
        FaultKind::Refused,
        "artifact_bytes_max",
    );
    // What the refused ones brought along is gone again, sooner or later.
    while files_in_objects(&node) > 1 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn owners_and_hosts_are_let_in_by_policy() {
    let data = tempfile::tempdir().unwrap();
    let node = Super::start_with(data, |config| {
        config.owners = Admission::Invite {
            list: Vec::new(),
            invites: vec!["please".to_owned()],
        };
        config.hosts = Admission::List(vec![NodeKey::from_seed([7; 32]).id()]);
    })
    .await;
    let guest = Guest::connect(&node).await;
    let key = owner(1);
    let first = revision(&key, 1, &wasm(1));
    is(
        &guest.publish(&key, &first, &wasm(1)).await.unwrap_err(),
        FaultKind::Refused,
        "\"invite\"",
    );
    let with_invitation = Publish {
        manifest: first.signed().clone(),
        head: head(&key, &first),
        extensions: Extensions::none().with(INVITE, b"please".to_vec()),
    };
    guest.hand_in(with_invitation, &wasm(1)).await.unwrap();
    // Once is enough.
    guest
        .publish(&key, &revision(&key, 2, &wasm(2)), &wasm(2))
        .await
        .unwrap();

    let refusal = guest.ask::<Registered>(register("")).await.unwrap_err();
    is(&refusal, FaultKind::Refused, "\"list\"");
    let listed = Guest::connect_as(&node, NodeKey::from_seed([7; 32])).await;
    FakeHost::join(listed).await;
}

#[tokio::test]
async fn a_damaged_artifact_is_never_sent_and_can_be_mended() {
    let node = Super::start().await;
    let guest = Guest::connect(&node).await;
    let key = owner(1);
    let first = revision(&key, 1, &wasm(1));
    guest.publish(&key, &first, &wasm(1)).await.unwrap();
    let artifact = ArtifactHash::of(&wasm(1));
    let name = artifact.to_string();
    let file = node.data().join("objects").join(&name[..2]).join(&name);
    std::fs::write(&file, wasm(2)).unwrap();
    is(
        &guest.fetch(fetch(artifact, 0)).await.unwrap_err(),
        FaultKind::Unverified,
        "set aside",
    );
    is(
        &guest.fetch(fetch(artifact, 0)).await.unwrap_err(),
        FaultKind::NotFound,
        "does not have artifact",
    );
    guest.publish(&key, &first, &wasm(1)).await.unwrap();
    let (len, tail) = guest.fetch(fetch(artifact, 8)).await.unwrap();
    assert_eq!((len, tail.as_slice()), (wasm(1).len() as u64, &wasm(1)[8..]));
    is(
        &guest.fetch(fetch(artifact, 1 << 40)).await.unwrap_err(),
        FaultKind::InputInvalid,
        "left out",
    );
}

#[tokio::test]
async fn a_publisher_that_goes_away_leaves_nothing_half() {
    let node = Super::start().await;
    let key = owner(1);
    let first = revision(&key, 1, &wasm(1));
    let guest = Guest::connect(&node).await;
    let (mut send, mut recv) = guest.connection.open_bi().await.unwrap();
    let request = Request::from(Publish {
        manifest: first.signed().clone(),
        head: head(&key, &first),
        extensions: Extensions::none(),
    });
    write_message(&mut send, &request).await.unwrap();
    let _: Reply = read_message(&mut recv, MESSAGE_LEN_MAX).await.unwrap();
    send.write_all(b"\x20\0\0\0half").await.unwrap();
    guest.connection.close(0, "gone");

    let guest = Guest::connect(&node).await;
    is(
        &guest
            .ask::<Resolved>(resolve(first.function()))
            .await
            .unwrap_err(),
        FaultKind::NotFound,
        "",
    );
    guest.publish(&key, &first, &wasm(1)).await.unwrap();
    node.stop().await;
}

#[tokio::test]
async fn listings_come_in_pages() {
    let node = Super::start().await;
    let guest = Guest::connect(&node).await;
    let key = owner(1);
    for number in 0..5 {
        let manifest = manifest(&key, &format!("f{number}"), version(0, 1), publish(&wasm(1)));
        guest.publish(&key, &manifest, &wasm(1)).await.unwrap();
    }
    let mut found: Vec<FunctionId> = Vec::new();
    loop {
        let list = List {
            owner: Some(key.id()),
            after: found.last().copied(),
            limit: 2,
            decommissioned: false,
            extensions: Extensions::none(),
        };
        let page: Listed = guest.ask(list).await.unwrap();
        found.extend(
            page.functions
                .into_iter()
                .map(|summary| summary.manifest.verify().unwrap().function()),
        );
        if !page.more {
            break;
        }
    }
    assert_eq!(found.len(), 5);
    assert!(found.is_sorted());
}

// -- hosts -----------------------------------------------------------------------------------------

#[tokio::test]
async fn a_host_registers_is_assigned_becomes_ready_and_is_resolved() {
    let node = Super::start().await;
    let key = owner(1);
    let client = Guest::connect(&node).await;
    let mut host = FakeHost::join(Guest::connect(&node).await).await;
    host.hear_synced().await;
    let host_id = host.guest.endpoint.node_id();

    let first = revision(&key, 1, &wasm(1));
    let published = client.publish(&key, &first, &wasm(1)).await.unwrap();
    assert_eq!(published.assigned, [host_id]);
    assert!(
        published.note.contains("1 of 3 replicas placed"),
        "{}",
        published.note
    );
    host.hear_assign(&first).await;
    assert_eq!(hosts_of(&client, first.function()).await, []);
    let report: ReadyReport = client.ask(wait_ready(&first, 1, 0)).await.unwrap();
    assert_eq!((report.ready.len(), report.pending), (0, vec![host_id]));

    // Somebody waits; the host fetches and reports.
    let waiting = client.ask::<ReadyReport>(wait_ready(&first, 1, 30_000));
    let becoming_ready = async {
        let artifact = first.publish().unwrap().artifact;
        let (_, bytes) = host.guest.fetch(fetch(artifact, 0)).await.unwrap();
        assert_eq!(bytes, wasm(1));
        host.ready(&first).await;
    };
    let (report, ()) = tokio::join!(waiting, becoming_ready);
    assert_eq!(report.unwrap().ready, [host_id]);
    assert_eq!(hosts_of(&client, first.function()).await, [host_id]);

    // An edit: the old revision answers until the host is ready for the new one.
    let second = revision(&key, 2, &wasm(2));
    client.publish(&key, &second, &wasm(2)).await.unwrap();
    host.hear_assign(&second).await;
    let resolved: Resolved = client.ask(resolve(first.function())).await.unwrap();
    assert_eq!(&resolved.manifest, second.signed());
    assert_eq!(resolved.hosts[0].version, first.version());
    host.ready(&second).await;

    // The end is told, and nobody is routed to any more.
    let tombstone = manifest(&key, "f", version(0, 3), end());
    client.publish(&key, &tombstone, &Bytes::new()).await.unwrap();
    match host.hear().await {
        SuperMessage::Changed(changed) => assert_eq!(&changed.manifest, tombstone.signed()),
        other => panic!("{other:?}"),
    }
    node.stop().await;
}

#[tokio::test]
async fn a_host_that_comes_back_hears_what_it_missed() {
    let node = Super::start().await;
    let key = owner(1);
    let client = Guest::connect(&node).await;
    let first = revision(&key, 1, &wasm(1));
    client.publish(&key, &first, &wasm(1)).await.unwrap();
    let tombstone = manifest(&key, "f", version(0, 2), end());
    client.publish(&key, &tombstone, &Bytes::new()).await.unwrap();

    let mut host = FakeHost::register(Guest::connect(&node).await).await;
    let held = Held {
        function: first.function(),
        version: first.version(),
        manifest: first.hash(),
        ready: true,
    };
    host.say(Holding {
        replicas: vec![held],
        last: true,
        extensions: Extensions::none(),
    })
    .await;
    match host.hear().await {
        SuperMessage::Changed(changed) => assert_eq!(&changed.manifest, tombstone.signed()),
        other => panic!("{other:?}"),
    }
    host.hear_synced().await;
}

#[tokio::test]
async fn a_refusal_is_shown_and_a_leaving_host_is_replaced() {
    let node = Super::start().await;
    let key = owner(1);
    let client = Guest::connect(&node).await;
    let first = revision(&key, 1, &wasm(1));
    let mut unwilling = FakeHost::join(Guest::connect(&node).await).await;
    unwilling.hear_synced().await;
    client.publish(&key, &first, &wasm(1)).await.unwrap();
    unwilling.hear_assign(&first).await;
    let (function, version) = (first.function(), first.version());
    let mut changes = 0;
    let refusal = Refused {
        function,
        version,
        reason: "not today\u{1b}[2J".to_owned(),
        extensions: Extensions::none(),
    };
    unwilling.say(refusal).await;
    let replica = loop {
        let inspect = Inspect {
            function,
            extensions: Extensions::none(),
        };
        let inspected: Inspected = client.ask(inspect).await.unwrap();
        let replica = inspected.replicas.into_iter().next().unwrap();
        if replica.state == ReplicaState::Refused {
            break replica;
        }
        changes += 1;
        assert!(changes < 10_000, "{replica:?}");
    };
    assert_eq!(replica.reason, "not today[2J");

    let mut leaving = FakeHost::join(Guest::connect(&node).await).await;
    leaving.hear_assign(&first).await;
    leaving.hear_synced().await;
    leaving.ready(&first).await;
    let _: ReadyReport = client.ask(wait_ready(&first, 1, 30_000)).await.unwrap();
    leaving.say(Draining::default()).await;
    let mut next = FakeHost::join(Guest::connect(&node).await).await;
    next.hear_assign(&first).await;
    assert_eq!(hosts_of(&client, function).await, []);
}

#[tokio::test]
async fn a_new_connection_of_a_host_replaces_the_old_one() {
    let node = Super::start().await;
    let key = owner(1);
    let client = Guest::connect(&node).await;
    let first = revision(&key, 1, &wasm(1));
    client.publish(&key, &first, &wasm(1)).await.unwrap();
    let host_key = NodeKey::from_seed([9; 32]);
    let mut old = FakeHost::join(Guest::connect_as(&node, host_key.clone()).await).await;
    old.hear_assign(&first).await;
    let mut new = FakeHost::join(Guest::connect_as(&node, host_key.clone()).await).await;
    let why = old.guest.connection.closed().await.to_string();
    assert!(why.contains("replaced"), "{why}");
    // The end of the old connection is not taken for the host's.
    new.hear_assign(&first).await;
    new.ready(&first).await;
    let _: ReadyReport = client.ask(wait_ready(&first, 1, 30_000)).await.unwrap();
    assert_eq!(hosts_of(&client, first.function()).await, [host_key.id()]);
}

#[tokio::test]
async fn a_host_whose_connection_ends_is_not_routed_to() {
    let node = Super::start().await;
    let key = owner(1);
    let client = Guest::connect(&node).await;
    let first = revision(&key, 1, &wasm(1));
    client.publish(&key, &first, &wasm(1)).await.unwrap();
    let mut host = FakeHost::join(Guest::connect(&node).await).await;
    host.hear_assign(&first).await;
    host.ready(&first).await;
    let _: ReadyReport = client.ask(wait_ready(&first, 1, 30_000)).await.unwrap();
    host.guest.connection.close(0, "gone");
    while !hosts_of(&client, first.function()).await.is_empty() {
        tokio::task::yield_now().await;
    }
}

// -- relay, and all the rest -----------------------------------------------------------------------

#[tokio::test]
async fn a_caller_reaches_a_host_through_the_relay() {
    let node = Super::start().await;
    let caller = Guest::connect(&node).await;
    let host = Guest::connect(&node).await;
    let host_id = host.endpoint.node_id();
    // Both have to be known to the super node before they can be told of each other.
    let _: NodeInfo = caller.ask(Info::default()).await.unwrap();
    let _: NodeInfo = host.ask(Info::default()).await.unwrap();
    let serving = tokio::spawn(async move {
        let (mut send, mut recv) = host.connection.accept_bi().await.unwrap();
        let offer: Request = read_message(&mut recv, MESSAGE_LEN_MAX).await.unwrap();
        let Request::RelayOffer(offer) = offer else {
            panic!("{offer:?}")
        };
        let accepted = host.endpoint.accept_relayed(&host.connection, &offer);
        write_message(&mut send, &Reply::from_result(accepted))
            .await
            .unwrap();
        send.finish().unwrap();
        let relayed = host.endpoint.accept().await.unwrap().handshake().await.unwrap();
        let (mut send, mut recv) = relayed.accept_bi().await.unwrap();
        let heard = recv.read_to_end(100).await.unwrap();
        send.write_all(&heard).await.unwrap();
        send.finish().unwrap();
        (relayed.peer(), relayed.closed().await)
    });
    let relayed = caller
        .endpoint
        .connect_relayed(host_id, &caller.connection)
        .await
        .unwrap();
    assert_eq!((relayed.peer(), relayed.path()), (host_id, PathKind::Relay));
    let (mut send, mut recv) = relayed.open_bi().await.unwrap();
    send.write_all(b"hello").await.unwrap();
    send.finish().unwrap();
    assert_eq!(recv.read_to_end(100).await.unwrap(), b"hello");
    relayed.close(0, "done");
    assert_eq!(serving.await.unwrap().0, caller.endpoint.node_id());
}

#[tokio::test]
async fn a_node_that_is_not_there_or_does_not_answer_is_no_live_host() {
    let node = Super::start().await;
    let caller = Guest::connect(&node).await;
    let silent = Guest::connect(&node).await;
    let _: NodeInfo = silent.ask(Info::default()).await.unwrap();
    for target in [NodeKey::from_seed([3; 32]).id(), silent.endpoint.node_id()] {
        let open = orb_protocol::wire::relay::OpenRelay {
            target,
            extensions: Extensions::none(),
        };
        let refusal = caller
            .ask::<orb_protocol::wire::relay::RelayOpened>(open)
            .await
            .unwrap_err();
        is(&refusal, FaultKind::NoLiveHost, &target.short());
    }
}

#[tokio::test]
async fn garbage_is_answered_and_harms_nobody_else() {
    let node = Super::start().await;
    let bystander = Guest::connect(&node).await;
    let vandal = Guest::connect(&node).await;
    let reply = async |bytes: &[u8]| {
        let (mut send, mut recv) = vandal.connection.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        let reply: Reply = read_message(&mut recv, MESSAGE_LEN_MAX).await.unwrap();
        reply.into_result::<NodeInfo>().unwrap_err()
    };
    is(
        &reply(b"\x04\0\0\0\xff\xff\xff\xff").await,
        FaultKind::VersionMismatch,
        "",
    );
    is(
        &reply(b"\xff\xff\xff\xff").await,
        FaultKind::InputTooLarge,
        "announced",
    );
    let unknown = Request::Unknown(Tagged {
        tag: 999,
        payload: b"future".to_vec(),
    });
    is(
        &vandal.ask::<NodeInfo>(unknown).await.unwrap_err(),
        FaultKind::VersionMismatch,
        "type 999",
    );
    let offer = RelayOffer {
        peer: vandal.endpoint.node_id(),
        token: 1,
        extensions: Extensions::none(),
    };
    is(
        &vandal.ask::<NodeInfo>(offer).await.unwrap_err(),
        FaultKind::Refused,
        "runs no functions",
    );
    // Half a frame, and the end.
    let (mut send, _recv) = vandal.connection.open_bi().await.unwrap();
    send.write_all(b"\x10\0").await.unwrap();
    vandal.connection.close(0, "bye");

    let info: NodeInfo = bystander.ask(Info::default()).await.unwrap();
    assert_eq!(info.role, "super");
    assert!(info.observed.starts_with("127.0.0.1:"), "{}", info.observed);
}

#[tokio::test]
async fn connections_of_one_address_are_counted() {
    let data = tempfile::tempdir().unwrap();
    let node = Super::start_with(data, |config| config.address_connections_max = 2).await;
    let first = Guest::connect(&node).await;
    let _second = Guest::connect(&node).await;
    let address = node.address.resolve().await.unwrap()[0];
    let third = first.endpoint.connect(address).await.unwrap_err();
    assert!(third.to_string().contains("no more connections"), "{third}");
}

#[tokio::test]
async fn the_sdk_deploys_lists_and_rolls_back() {
    let node = Super::start().await;
    let client = Client::builder()
        .super_nodes(vec![node.address.clone()])
        .connect()
        .await
        .unwrap();
    let key = owner(1);
    let draft = |bytes: &Bytes| {
        let Action::Publish(publish) = publish(bytes) else {
            unreachable!()
        };
        orb_protocol::client::Draft {
            name: "f".parse().unwrap(),
            publish,
            message: String::new(),
        }
    };
    for salt in 1..=3 {
        let deployed = client
            .deploy(&key, draft(&wasm(salt)), wasm(salt), false)
            .await
            .unwrap();
        assert_eq!(deployed.manifest.version().revision, u64::from(salt));
    }
    let name = "f".parse().unwrap();
    let back = client.rollback(&key, &name, None, |_| None).await.unwrap();
    assert_eq!(
        back.manifest.publish().unwrap().artifact,
        ArtifactHash::of(&wasm(2))
    );
    assert_eq!(client.list(Some(key.id()), false).await.unwrap().len(), 1);
    assert_eq!(client.versions(back.manifest.function()).await.unwrap().len(), 4);
    client.decommission(&key, &name, String::new()).await.unwrap();
    let gone = client.resolve(back.manifest.function()).await.unwrap_err();
    assert_eq!(gone.kind(), FaultKind::Decommissioned);
}

#[tokio::test]
async fn a_folder_and_a_port_have_one_super_node() {
    let node = Super::start().await;
    let (_trigger, shutdown) = Shutdown::new();
    let error = super::run(super::testing::config(node.data()), shutdown.clone())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("in use by another orb daemon"));
    let data = node.stop().await;
    let port: u16 = std::fs::read_to_string(data.path().join("port"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let _squatter = std::net::UdpSocket::bind(("127.0.0.1", port)).unwrap();
    let error = super::run(super::testing::config(data.path()), shutdown.clone())
        .await
        .unwrap_err();
    let error = format!("{error:#}");
    assert!(
        error.contains("had so far") && error.contains(&port.to_string()),
        "{error}"
    );
    // Nothing was served, so that the next start has nothing to check.
    assert_eq!(std::fs::read_to_string(data.path().join("lock")).unwrap(), "");
    let mut config = super::testing::config(&data.path().join("new"));
    config.listen.set_port(port);
    super::run(config, shutdown).await.unwrap_err();
    assert!(!data.path().join("new").exists(), "nothing was made");
}

#[test]
fn an_unspecified_address_becomes_one_to_dial() {
    let bound = "127.0.0.1:9".parse().unwrap();
    assert_eq!(super::reachable(bound), bound);
    let anywhere = super::reachable("0.0.0.0:9".parse().unwrap());
    assert!(!anywhere.ip().is_unspecified());
    assert_eq!(anywhere.port(), 9);
}
