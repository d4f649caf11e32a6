//! What owners hand in, and what is listed of it.

use super::*;

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
