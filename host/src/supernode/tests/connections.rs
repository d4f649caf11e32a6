//! Relay sessions, garbage, bounds, and starting.

use super::*;

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
    let error = super::super::run(super::super::testing::config(node.data()), shutdown.clone())
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
    let error = super::super::run(super::super::testing::config(data.path()), shutdown.clone())
        .await
        .unwrap_err();
    let error = format!("{error:#}");
    assert!(
        error.contains("had so far") && error.contains(&port.to_string()),
        "{error}"
    );
    // Nothing was served, so that the next start has nothing to check.
    assert_eq!(std::fs::read_to_string(data.path().join("lock")).unwrap(), "");
    let mut config = super::super::testing::config(&data.path().join("new"));
    config.listen.set_port(port);
    super::super::run(config, shutdown).await.unwrap_err();
    assert!(!data.path().join("new").exists(), "nothing was made");
}

#[test]
fn an_unspecified_address_becomes_one_to_dial() {
    let bound = "127.0.0.1:9".parse().unwrap();
    assert_eq!(super::super::reachable(bound), bound);
    let anywhere = super::super::reachable("0.0.0.0:9".parse().unwrap());
    assert!(!anywhere.ip().is_unspecified());
    assert_eq!(anywhere.port(), 9);
}
