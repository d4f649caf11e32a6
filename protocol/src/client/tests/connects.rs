//! Connecting to super nodes, and asking them.

use super::*;
use crate::fault::FaultKind;
use crate::id::{ArtifactHash, NodeId};
use crate::key::NodeKey;
use crate::quic::SuperAddr;

fn at(id: NodeId, super_node: &Super) -> SuperAddr {
    format!("{id}@{}", super_node.listen()).parse().unwrap()
}

async fn connect(addresses: Vec<SuperAddr>) -> Result<Client, crate::client::ClientError> {
    Client::builder().super_nodes(addresses).connect().await
}

#[tokio::test]
async fn the_wrong_id_is_an_error_that_names_both() {
    let super_node = Super::start(100);
    let wanted = NodeKey::from_seed([7; 32]).id();
    let error = connect(vec![at(wanted, &super_node)]).await.unwrap_err();
    assert_eq!(error.kind(), FaultKind::Unverified);
    let found = super_node.addr().id();
    let text = error.to_string();
    assert!(
        text.contains(&wanted.to_string()) && text.contains(&found.to_string()),
        "{text}"
    );
}

#[tokio::test]
async fn the_error_names_each_address_with_its_reason() {
    let super_node = Super::start(100);
    let wanted = NodeKey::from_seed([7; 32]).id();
    let unknown: SuperAddr = format!("{wanted}@no-such-host.invalid:4433").parse().unwrap();
    let addresses = vec![unknown.clone(), at(wanted, &super_node)];
    let error = connect(addresses.clone()).await.unwrap_err();
    assert_eq!(error.kind(), FaultKind::NoLiveHost);
    for address in addresses {
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
    assert!(!error.fault.help.is_empty());
    assert_eq!(
        connect(Vec::new()).await.unwrap_err().kind(),
        FaultKind::NoLiveHost
    );
}

#[tokio::test]
async fn another_super_node_is_used_if_the_first_does_not_answer() {
    let super_node = Super::start(100);
    // Taken, and answered by nobody.
    let deaf = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let first: SuperAddr = format!(
        "{}@{}",
        NodeKey::from_seed([7; 32]).id(),
        deaf.local_addr().unwrap()
    )
    .parse()
    .unwrap();
    let client = connect(vec![first, super_node.addr()]).await.unwrap();
    assert_eq!(client.info().await.unwrap().role, "super");
}

#[tokio::test]
async fn a_super_node_that_comes_back_is_used_again() {
    let super_node = Super::start(100);
    let client = connect(vec![super_node.addr()]).await.unwrap();
    client.info().await.unwrap();
    let listen = super_node.listen();
    super_node.stop().await;
    let again = loop {
        // The old one's socket is closed when its last task has ended.
        match std::net::UdpSocket::bind(listen) {
            Ok(free) => {
                drop(free);
                break Super::start_at(100, listen);
            }
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert_eq!(again.listen(), listen);
    client.info().await.unwrap();
}

#[tokio::test]
async fn artifacts_are_fetched_and_checked() {
    let super_node = Super::start(100);
    let client = connect(vec![super_node.addr()]).await.unwrap();
    let bytes = Bytes::from(vec![7; 200_000]);
    let hash = ArtifactHash::of(&bytes);
    assert_eq!(
        client.fetch_artifact(hash).await.unwrap_err().kind(),
        FaultKind::NotFound
    );
    super_node.state().artifacts.insert(hash, bytes.clone());
    assert_eq!(client.fetch_artifact(hash).await.unwrap(), bytes);
    super_node.state().artifacts.insert(hash, bytes.slice(1..));
    assert_eq!(
        client.fetch_artifact(hash).await.unwrap_err().kind(),
        FaultKind::Unverified
    );
}

#[tokio::test]
async fn listings_come_whole_page_by_page() {
    let super_node = Super::start(100);
    let client = connect(vec![super_node.addr()]).await.unwrap();
    assert!(client.list(None, false).await.unwrap().is_empty());
    for name in ["a", "b", "c", "d", "e"] {
        super_node.publish(manifest(&owner(), name, 0, 1, publish(1)));
    }
    for revision in 2..6 {
        super_node.publish(manifest(&owner(), "a", 0, revision, publish(1)));
    }
    assert_eq!(client.list(None, false).await.unwrap().len(), 5);
    let function = manifest(&owner(), "a", 0, 1, publish(1)).function();
    let versions = client.versions(function).await.unwrap();
    let numbers: Vec<u64> = versions.iter().map(|r| r.manifest.version().revision).collect();
    assert_eq!(numbers, [5, 4, 3, 2, 1]);
    let nobodys = FunctionId::from_bytes([9; 32]);
    assert_eq!(
        client.versions(nobodys).await.unwrap_err().kind(),
        FaultKind::NotFound
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hosts_hear_that_a_client_is_done_before_the_super_node_does() {
    // Many times, since it was a race that the super node won now and then: then its relay was gone, and
    // a host found out by itself after the idle timeout.
    let network = network(false, [vec![]]).await;
    for _ in 0..32 {
        let client = connect(vec![network.super_node.addr()]).await.unwrap();
        let options = CallOptions::default();
        client.call(function(), Bytes::new(), options).await.unwrap();
        client.close().await;
        match network.hosts[0].ended().await {
            quinn::ConnectionError::ApplicationClosed(close) => assert_eq!(close.reason, "done"),
            other => panic!("the host was not told: {other}"),
        }
    }
}
