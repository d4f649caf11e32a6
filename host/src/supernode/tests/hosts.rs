//! Hosts that come, take functions and go.

use super::*;

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
