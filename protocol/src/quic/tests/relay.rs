//! Connections by a super node's relay.

use std::net::UdpSocket;
use std::time::Duration;

use bytes::Bytes;

use super::proxy::Proxy;
use super::*;
use crate::fault::FaultKind;
use crate::id::NodeId;
use crate::quic::body::{BodyReader, write_body};
use crate::quic::frames::{read_message, write_message};
use crate::relay::{RelayHeader, RelayLimits, RelayStats, RelayToken};
use crate::wire::codec::MESSAGE_LEN_MAX;
use crate::wire::{Reply, Request};

/// A super node that relays for all who connect.
struct Super {
    endpoint: Endpoint,
}

impl Super {
    fn start(limits: RelayLimits) -> Self {
        let endpoint = Endpoint::bind(EndpointConfig {
            relay: Some(limits),
            ..config(100)
        })
        .unwrap();
        let server = endpoint.clone();
        tokio::spawn(async move {
            while let Some(incoming) = server.accept().await {
                let server = server.clone();
                tokio::spawn(async move {
                    if let Ok(node) = incoming.handshake().await {
                        serve_node(&server, node).await;
                    }
                });
            }
        });
        Self { endpoint }
    }

    fn stats(&self) -> RelayStats {
        self.endpoint.relay().unwrap().stats()
    }
}

/// What a super node does for a connected node in these tests: opens sessions.
async fn serve_node(server: &Endpoint, node: Connection) {
    let relay = server.relay().unwrap();
    let link = relay.register(&node);
    while let Ok((mut send, mut recv)) = node.accept_bi().await {
        let request = read_message(&mut recv, MESSAGE_LEN_MAX).await;
        let Ok(Request::OpenRelay(request)) = request else {
            continue;
        };
        let opened = relay.open(&link, &request).await;
        let reply = Reply::from_result(opened.map_err(Into::into));
        let _ = write_message(&mut send, &reply).await;
    }
}

/// A node that is connected to a super node and agrees to all sessions.
struct Node {
    endpoint: Endpoint,
    to_super: Connection,
}

impl Node {
    async fn join(seed: u8, to: &Super) -> Self {
        let node = Self::connect(config(seed), to).await;
        node.agree(None);
        node
    }

    async fn connect(config: EndpointConfig, to: &Super) -> Self {
        let to = addr(&to.endpoint);
        Self::connect_at(config, to.id, to.addr).await
    }

    async fn connect_at(config: EndpointConfig, id: NodeId, addr: SocketAddr) -> Self {
        let endpoint = Endpoint::bind(config).unwrap();
        let to_super = endpoint.connect(NodeAddr { id, addr }).await.unwrap();
        let node = Self { endpoint, to_super };
        node.wait_until_registered().await;
        node
    }

    /// The super node registers the link before it answers anything.
    async fn wait_until_registered(&self) {
        let nobody = NodeId::from_bytes([255; 32]);
        let refused = self.endpoint.connect_relayed(nobody, &self.to_super).await;
        assert!(matches!(refused, Err(ConnectError::RelayRefused(_))));
    }

    /// Agrees to every session; with `peer`, taking that node for the caller.
    fn agree(&self, peer: Option<NodeId>) {
        let (endpoint, to_super) = (self.endpoint.clone(), self.to_super.clone());
        tokio::spawn(async move {
            while let Ok((mut send, mut recv)) = to_super.accept_bi().await {
                let request = read_message(&mut recv, MESSAGE_LEN_MAX).await;
                let Ok(Request::RelayOffer(mut offer)) = request else {
                    continue;
                };
                offer.peer = peer.unwrap_or(offer.peer);
                let reply = Reply::from_result(endpoint.accept_relayed(&to_super, &offer));
                write_message(&mut send, &reply).await.unwrap();
            }
        });
    }

    fn id(&self) -> NodeId {
        self.endpoint.node_id()
    }

    async fn call(&self, other: &Node) -> (Connection, Connection) {
        let dial = self.endpoint.connect_relayed(other.id(), &self.to_super);
        let (near, far) = tokio::join!(dial, accept(&other.endpoint));
        (near.unwrap(), far)
    }
}

async fn three(limits: RelayLimits) -> (Super, Node, Node) {
    let server = Super::start(limits);
    let alice = Node::join(1, &server).await;
    let bob = Node::join(2, &server).await;
    (server, alice, bob)
}

/// Sends `body` from one end to the other, and checks what comes.
async fn send_body(from: &Connection, to: &Connection, body: &Bytes) {
    let writer = async {
        let (mut send, _recv) = from.open_bi().await.unwrap();
        write_body(&mut send, body.clone()).await.unwrap();
        send.finish().unwrap();
        send.stopped().await.unwrap();
    };
    let reader = async {
        let (_send, mut recv) = to.accept_bi().await.unwrap();
        let mut reader = BodyReader::new(&mut recv, body.len() as u64);
        blake3::hash(&reader.read_all().await.unwrap())
    };
    let ((), hash) = tokio::join!(writer, reader);
    assert_eq!(hash, blake3::hash(body));
}

fn noise(len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_mebibytes_pass_both_ways_at_once() {
    let (server, alice, bob) = three(RelayLimits::default()).await;
    let (to_bob, to_alice) = alice.call(&bob).await;
    assert_eq!(to_bob.peer(), bob.id());
    assert_eq!(to_alice.peer(), alice.id());
    assert_eq!(
        (to_bob.path(), to_alice.path()),
        (PathKind::Relay, PathKind::Relay)
    );
    assert_eq!(to_bob.remote_address(), server.endpoint.local_addr().unwrap());

    let body = noise(8 << 20);
    tokio::join!(
        send_body(&to_bob, &to_alice, &body),
        send_body(&to_alice, &to_bob, &body),
    );
    let stats = server.stats();
    assert!(stats.forwarded_bytes > 16 << 20, "{stats:?}");
    assert_eq!(stats.dropped_unknown_token + stats.dropped_wrong_source, 0);
}

#[tokio::test]
async fn many_callers_of_one_host_do_not_disturb_each_other() {
    let server = Super::start(RelayLimits::default());
    let host = Node::join(1, &server).await;
    let body = noise(256 << 10);
    let mut callers = Vec::new();
    for seed in 2..10 {
        let caller = Node::join(seed, &server).await;
        let ends = caller.call(&host).await;
        callers.push((caller, ends));
    }
    let transfers = callers.iter().map(|(_, (near, far))| {
        let (near, far, body) = (near.clone(), far.clone(), body.clone());
        tokio::spawn(async move {
            tokio::join!(send_body(&near, &far, &body), send_body(&far, &near, &body));
        })
    });
    for transfer in transfers.collect::<Vec<_>>() {
        transfer.await.unwrap();
    }
    assert_eq!(server.stats().sessions_live, 8);
}

#[tokio::test]
async fn a_target_that_is_not_connected_is_named() {
    let server = Super::start(RelayLimits::default());
    let alice = Node::join(1, &server).await;
    let nobody = NodeId::from_bytes([7; 32]);
    let error = alice.endpoint.connect_relayed(nobody, &alice.to_super).await;
    match error.unwrap_err() {
        ConnectError::RelayRefused(fault) => assert_eq!(fault.kind, FaultKind::NoLiveHost),
        other => panic!("{other}"),
    }
    assert_eq!(server.stats().sessions_live, 0);
}

#[tokio::test]
async fn a_target_that_does_not_answer_costs_no_session() {
    let server = Super::start(RelayLimits::default());
    let alice = Node::join(1, &server).await;
    // Connected, and takes no streams.
    let mute = endpoint(2);
    let _to_super = mute.connect(addr(&server.endpoint)).await.unwrap();
    let error = loop {
        let dial = alice.endpoint.connect_relayed(mute.node_id(), &alice.to_super);
        match dial.await.unwrap_err() {
            // The super node may not have seen its handshake yet.
            ConnectError::RelayRefused(f) if f.message.contains("not connected") => {}
            ConnectError::RelayRefused(fault) => break fault,
            other => panic!("{other}"),
        }
    };
    assert_eq!(error.kind, FaultKind::NoLiveHost);
    assert!(error.message.contains("in time"), "{}", error.message);
    assert_eq!(server.stats().sessions_live, 0);
}

#[tokio::test]
async fn a_caller_gets_as_many_sessions_as_it_may() {
    let limits = RelayLimits {
        sessions_per_caller: 1,
        ..RelayLimits::default()
    };
    let (server, alice, bob) = three(limits).await;
    let _first = alice.call(&bob).await;
    let second = alice.endpoint.connect_relayed(bob.id(), &alice.to_super);
    match second.await.unwrap_err() {
        ConnectError::RelayRefused(fault) => assert_eq!(fault.kind, FaultKind::Overloaded),
        other => panic!("{other}"),
    }
    assert_eq!(server.stats().sessions_live, 1);
}

#[tokio::test]
async fn sessions_end_when_idle_and_with_their_connections() {
    let limits = RelayLimits {
        idle: Duration::from_millis(100),
        ..RelayLimits::default()
    };
    let (server, alice, bob) = three(limits).await;
    let (near, _far) = alice.call(&bob).await;
    near.close(0, "done");
    while server.stats().sessions_expired == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let (server, alice, bob) = three(RelayLimits::default()).await;
    let _ends = alice.call(&bob).await;
    bob.to_super.close(0, "leaving");
    while server.stats().sessions_live > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(server.stats().sessions_closed, 1);
}

#[tokio::test]
async fn forged_packets_are_dropped_and_counted_and_harm_nobody() {
    let (server, alice, bob) = three(RelayLimits::default()).await;
    let (near, far) = alice.call(&bob).await;
    let token = match near.current_path() {
        Path::Relay { token, .. } => token,
        other => panic!("{other:?}"),
    };
    let mallory = UdpSocket::bind(LOOPBACK).unwrap();
    let before = server.stats();
    for (token, to) in [
        (token, &server.endpoint),
        (RelayToken::new(1), &server.endpoint),
        (token, &bob.endpoint),
    ] {
        let mut packet = RelayHeader::encode(token).to_vec();
        packet.extend_from_slice(&[0x40; 100]);
        mallory.send_to(&packet, to.local_addr().unwrap()).unwrap();
    }
    stream::echo_once(&near, &far).await;
    stream::echo_once(&far, &near).await;
    let stats = server.stats();
    assert_eq!(stats.dropped_wrong_source, before.dropped_wrong_source + 1);
    assert_eq!(stats.dropped_unknown_token, before.dropped_unknown_token + 1);
    assert_eq!(bob.endpoint.socket_stats().stray, 1);
}

#[tokio::test]
async fn a_node_over_its_rate_still_gets_through_slowly() {
    let limits = RelayLimits {
        bytes_per_s: 2_000_000,
        burst_bytes: 100_000,
        ..RelayLimits::default()
    };
    let (server, alice, bob) = three(limits).await;
    let (near, far) = alice.call(&bob).await;
    send_body(&near, &far, &noise(1 << 20)).await;
    assert!(server.stats().dropped_rate_limited > 0);
}

#[tokio::test]
async fn a_relayed_peer_that_is_not_the_announced_one_is_turned_away() {
    let server = Super::start(RelayLimits::default());
    let alice = Node::join(1, &server).await;
    let announced = NodeId::from_bytes([8; 32]);
    // As if the super node had lied to it about who calls.
    let bob = Node::connect(config(2), &server).await;
    bob.agree(Some(announced));
    let dial = alice.endpoint.connect_relayed(bob.id(), &alice.to_super);
    let far = async { bob.endpoint.accept().await.unwrap().handshake().await };
    let (near, far) = tokio::join!(dial, far);
    match far.unwrap_err() {
        ConnectError::WrongPeer { wanted, found } => {
            assert_eq!((wanted, found), (announced, alice.id()));
        }
        other => panic!("{other}"),
    }
    near.unwrap().closed().await;
}

#[tokio::test]
async fn a_connection_survives_a_change_from_direct_to_relay_and_back() {
    let (_server, alice, bob) = three(RelayLimits::default()).await;
    // The relay session's path, for the direct connection to move to.
    let (relayed, _relayed_far) = alice.call(&bob).await;
    let relay = relayed.current_path();
    let (near, far) = pair(&alice.endpoint, &bob.endpoint).await;
    stream::echo_once(&near, &far).await;
    let direct = near.current_path();
    assert_eq!((near.path(), far.path()), (PathKind::Direct, PathKind::Direct));

    let (mut send, mut recv) = near.open_bi().await.unwrap();
    write_message(&mut send, &"before".to_owned()).await.unwrap();
    let (mut reply, mut request) = far.accept_bi().await.unwrap();
    let _: String = read_message(&mut request, 100).await.unwrap();

    near.add_path(relay).unwrap();
    assert_eq!(near.path(), PathKind::Direct, "the better one stays in use");
    near.remove_path(direct);
    assert_eq!(near.path(), PathKind::Relay);
    // The stream goes on, and so does a body of some size.
    write_message(&mut send, &"after".to_owned()).await.unwrap();
    let text: String = read_message(&mut request, 100).await.unwrap();
    write_message(&mut reply, &text).await.unwrap();
    let text: String = read_message(&mut recv, 100).await.unwrap();
    assert_eq!(text, "after");
    send_body(&near, &far, &noise(1 << 20)).await;
    assert_eq!(far.path(), PathKind::Relay, "the far end followed");

    near.add_path(direct).unwrap();
    assert_eq!(near.path(), PathKind::Direct);
    send_body(&near, &far, &noise(1 << 20)).await;
    assert_eq!(far.path(), PathKind::Direct);
}

#[tokio::test]
async fn relayed_through_a_dual_stack_super_node_from_both_families() {
    let listen = SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), 0);
    let bind = Endpoint::bind(EndpointConfig {
        relay: Some(RelayLimits::default()),
        ..EndpointConfig::new(NodeKey::from_seed([100; 32]), listen)
    });
    let Ok(endpoint) = bind else {
        return assert_no_ipv6();
    };
    let port = endpoint.local_addr().unwrap().port();
    let server = endpoint.clone();
    tokio::spawn(async move {
        while let Some(incoming) = server.accept().await {
            let server = server.clone();
            tokio::spawn(async move {
                serve_node(&server, incoming.handshake().await.unwrap()).await;
            });
        }
    });
    let mut nodes = Vec::new();
    for (seed, from, to) in [(1, "127.0.0.1:0", "127.0.0.1"), (2, "[::1]:0", "::1")] {
        let endpoint_config = EndpointConfig {
            listen: from.parse().unwrap(),
            ..config(seed)
        };
        let node = Endpoint::bind(endpoint_config).unwrap();
        let to = NodeAddr {
            id: endpoint.node_id(),
            addr: SocketAddr::new(to.parse().unwrap(), port),
        };
        let to_super = node.connect(to).await.unwrap();
        let node = Node {
            endpoint: node,
            to_super,
        };
        node.wait_until_registered().await;
        node.agree(None);
        nodes.push(node);
    }
    let (near, far) = nodes[0].call(&nodes[1]).await;
    let body = noise(300_000);
    tokio::join!(send_body(&near, &far, &body), send_body(&far, &near, &body));
}

#[tokio::test]
async fn a_relayed_connection_survives_a_new_address_of_its_node() {
    let server = Super::start(RelayLimits::default());
    let bob = Node::join(2, &server).await;
    // What a home router does when it restarts: another port, from one packet to the next.
    let router = Proxy::start(server.endpoint.local_addr().unwrap()).await;
    let alice = Node::connect_at(config(1), addr(&server.endpoint).id, router.addr).await;
    alice.agree(None);
    let (near, far) = alice.call(&bob).await;
    stream::echo_once(&near, &far).await;
    let before = server.stats();
    router.move_port().await;
    // Only the connection to the super node can prove the new address.
    alice.wait_until_registered().await;
    stream::echo_once(&near, &far).await;
    stream::echo_once(&far, &near).await;
    send_body(&far, &near, &noise(300_000)).await;
    assert_eq!(server.stats().sessions_live, before.sessions_live);
}
