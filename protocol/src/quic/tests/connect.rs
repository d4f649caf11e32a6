//! Who gets a connection, and who does not.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::proxy::Proxy;
use super::*;
use crate::id::NodeId;

#[tokio::test]
async fn both_ends_know_each_other() {
    let (alice, bob) = (endpoint(1), endpoint(2));
    let (to_bob, to_alice) = pair(&alice, &bob).await;
    assert_eq!(to_bob.peer(), bob.node_id());
    assert_eq!(to_alice.peer(), alice.node_id());
    assert_eq!(to_bob.path(), PathKind::Direct);
    assert_eq!(to_bob.remote_address(), bob.local_addr().unwrap());
    assert_eq!(to_alice.remote_address(), alice.local_addr().unwrap());
}

#[tokio::test]
async fn somebody_else_is_not_accepted() {
    let (alice, bob) = (endpoint(1), endpoint(2));
    let wanted = NodeKey::from_seed([3; 32]).id();
    let to = NodeAddr {
        id: wanted,
        ..addr(&bob)
    };
    let server = bob.clone();
    let accepted = tokio::spawn(async move { server.accept().await.unwrap().handshake().await });
    match alice.connect(to).await.unwrap_err() {
        ConnectError::WrongPeer { wanted: w, found } => {
            assert_eq!((w, found), (wanted, bob.node_id()));
        }
        other => panic!("{other}"),
    }
    assert!(matches!(
        accepted.await.unwrap().unwrap_err(),
        ConnectError::Handshake(_)
    ));
    let stats = bob.handshake_stats();
    assert_eq!((stats.begun, stats.failed, stats.completed), (1, 1, 0));
}

#[tokio::test]
async fn a_wrong_id_for_an_address_leaves_its_connection_alone() {
    let (alice, bob) = (endpoint(1), endpoint(2));
    let (to_bob, to_alice) = pair(&alice, &bob).await;
    let to = NodeAddr {
        id: NodeKey::from_seed([3; 32]).id(),
        ..addr(&bob)
    };
    let server = bob.clone();
    tokio::spawn(async move { server.accept().await.unwrap().handshake().await });
    alice.connect(to).await.unwrap_err();
    stream::echo_once(&to_bob, &to_alice).await;
}

#[tokio::test]
async fn another_protocol_version_is_named_on_both_sides() {
    let newer = Endpoint::bind_for(config(2), b"orb/2");
    let (alice, bob) = (endpoint(1), newer.unwrap());
    let server = bob.clone();
    let accepted = tokio::spawn(async move { server.accept().await.unwrap().handshake().await });
    let error = alice.connect(addr(&bob)).await.unwrap_err();
    assert!(matches!(error, ConnectError::VersionMismatch), "{error}");
    let error = accepted.await.unwrap().unwrap_err();
    assert!(matches!(error, ConnectError::VersionMismatch), "{error}");
}

#[tokio::test]
async fn nobody_there_is_a_timeout() {
    let silent = std::net::UdpSocket::bind(LOOPBACK).unwrap();
    let mut config = config(1);
    config.handshake_timeout = Duration::from_millis(300);
    let alice = Endpoint::bind(config).unwrap();
    let to = NodeAddr {
        id: NodeId::from_bytes([9; 32]),
        addr: silent.local_addr().unwrap(),
    };
    let error = alice.connect(to).await.unwrap_err();
    assert!(matches!(error, ConnectError::TimedOut), "{error}");
}

#[tokio::test]
async fn a_caller_takes_no_connections() {
    let caller = Endpoint::bind(EndpointConfig {
        listen: LOOPBACK,
        ..EndpointConfig::client(NodeKey::from_seed([2; 32]))
    })
    .unwrap();
    let mut config = config(1);
    config.handshake_timeout = Duration::from_millis(300);
    let alice = Endpoint::bind(config).unwrap();
    alice.connect(addr(&caller)).await.unwrap_err();
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let alice = endpoint(1);
    let mut config = config(2);
    config.listen = alice.local_addr().unwrap();
    let error = Endpoint::bind(config).unwrap_err().to_string();
    assert!(
        error.contains(&alice.local_addr().unwrap().to_string()),
        "{error}"
    );
}

#[tokio::test]
async fn addresses_that_cannot_be_dialled_are_refused_at_once() {
    let alice = endpoint(1);
    for text in ["0.0.0.0:5", "127.0.0.1:0", "[fd6f:7262::1]:1", "[2001:db8::1]:5"] {
        let to = NodeAddr {
            id: NodeId::from_bytes([9; 32]),
            addr: text.parse().unwrap(),
        };
        let error = alice.connect(to).await.unwrap_err();
        assert!(
            matches!(error, ConnectError::BadAddress { .. }),
            "{text}: {error}"
        );
    }
}

#[tokio::test]
async fn ipv6_and_ipv4_callers_reach_a_dual_stack_node() {
    let listen = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0);
    let Ok(bob) = Endpoint::bind(EndpointConfig::new(NodeKey::from_seed([2; 32]), listen)) else {
        return assert_no_ipv6();
    };
    let port = bob.local_addr().unwrap().port();
    for (seed, from, to) in [(3, "127.0.0.1:0", "127.0.0.1"), (4, "[::1]:0", "::1")] {
        let mut config = config(seed);
        config.listen = from.parse().unwrap();
        let caller = Endpoint::bind(config).unwrap();
        let to = NodeAddr {
            id: bob.node_id(),
            addr: SocketAddr::new(to.parse().unwrap(), port),
        };
        let (there, here) = tokio::join!(caller.connect(to), accept(&bob));
        stream::echo_once(&there.unwrap(), &here).await;
        assert_eq!(here.remote_address(), caller.local_addr().unwrap());
    }
}

#[tokio::test]
async fn garbage_harms_nobody() {
    let (alice, bob) = (endpoint(1), endpoint(2));
    let (to_bob, to_alice) = pair(&alice, &bob).await;
    let stranger = std::net::UdpSocket::bind(LOOPBACK).unwrap();
    let to = bob.local_addr().unwrap();
    for first in 0..=255_u8 {
        for len in [0, 1, 8, 9, 10, 60, 1_200, 2_000] {
            stranger.send_to(&vec![first; len], to).unwrap();
        }
    }
    stream::echo_once(&to_bob, &to_alice).await;
    let stats = bob.socket_stats();
    assert!(
        stats.malformed > 0 && stats.stray > 0 && stats.unconnected > 0,
        "{stats:?}"
    );
}

#[tokio::test]
async fn half_open_handshakes_are_bounded() {
    let mut config = config(2);
    config.handshakes = 2;
    config.handshakes_unvalidated = 1;
    // However slow this machine is.
    config.handshake_patience = Duration::from_secs(3_600);
    let bob = Endpoint::bind(config).unwrap();
    let (alice, carol, dave) = (endpoint(3), endpoint(4), endpoint(5));
    let dial = |from: &Endpoint| {
        let (from, to) = (from.clone(), addr(&bob));
        tokio::spawn(async move { from.connect(to).await })
    };
    // The first is taken as it is, the second after it has shown its address, the third not at all.
    let first = dial(&alice);
    let held = bob.accept().await.unwrap();
    let second = dial(&carol);
    let also_held = bob.accept().await.unwrap();
    let third = dial(&dave);
    let refused = tokio::select! {
        refused = third => refused.unwrap(),
        _ = bob.accept() => panic!("a third handshake"),
    };
    assert!(matches!(refused, Err(ConnectError::Refused)), "{refused:?}");
    // Room comes back.
    held.handshake().await.unwrap();
    also_held.handshake().await.unwrap();
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    pair(&dave, &bob).await;
}

#[tokio::test]
async fn a_handshake_that_hangs_gives_way() {
    let mut config = config(2);
    config.handshakes = 1;
    config.handshake_patience = Duration::ZERO;
    let bob = Endpoint::bind(config).unwrap();
    let hung = Endpoint::bind(super::config(3)).unwrap();
    let to = addr(&bob);
    let hanging = tokio::spawn(async move { hung.connect(to).await });
    let held = bob.accept().await.unwrap();
    pair(&endpoint(4), &bob).await;
    let displaced = held.handshake().await;
    assert!(matches!(displaced, Err(ConnectError::Displaced)), "{displaced:?}");
    hanging.await.unwrap().unwrap_err();
    let stats = bob.handshake_stats();
    assert_eq!((stats.begun, stats.displaced, stats.completed), (2, 1, 1));
}

#[tokio::test]
async fn a_held_connection_outlives_the_idle_timeout() {
    let short = |seed| {
        let mut config = config(seed);
        config.idle_timeout = Duration::from_millis(2_500);
        Endpoint::bind(config).unwrap()
    };
    let (alice, bob) = (short(1), short(2));
    let (held, at_bob) = pair(&alice, &bob).await;
    let (idle, also_at_bob) = pair(&alice, &bob).await;
    let guard = held.hold();
    drop(held.hold());
    idle.closed().await;
    also_at_bob.closed().await;
    assert!(!held.is_closed());
    stream::echo_once(&held, &at_bob).await;
    drop(guard);
    held.closed().await;
}

#[tokio::test]
async fn a_node_that_was_killed_and_is_back_disowns_its_connections_at_once() {
    let mut config = config(2);
    let before = Endpoint::bind(config.clone()).unwrap();
    config.listen = before.local_addr().unwrap();
    let alice = endpoint(1);
    // What a kill leaves behind: a closed socket and a peer that was told nothing.
    let proxy = Proxy::start(config.listen).await;
    let to_bob = NodeAddr {
        id: before.node_id(),
        addr: proxy.addr,
    };
    let (near, far) = tokio::join!(alice.connect(to_bob), accept(&before));
    let near = near.unwrap();
    proxy.cut();
    far.close(0, "killed");
    before.close(0, "killed");
    before.wait_idle().await;
    drop((far, before));
    let after = loop {
        // The old socket goes when its driver is done.
        match Endpoint::bind(config.clone()) {
            Ok(endpoint) => break endpoint,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    proxy.mend();
    let _guard = near.hold();
    let why = near.closed().await;
    assert!(matches!(why, quinn::ConnectionError::Reset), "{why}");
    drop(after);
}

#[tokio::test]
async fn whoever_is_at_an_address_proves_who_it_is() {
    let (alice, bob) = (endpoint(1), endpoint(2));
    let at = bob.local_addr().unwrap();
    let (to_bob, to_alice) = tokio::join!(alice.connect_to_whoever(at), accept(&bob));
    let to_bob = to_bob.unwrap();
    assert_eq!((to_bob.peer(), to_alice.peer()), (bob.node_id(), alice.node_id()));
    assert_eq!(to_bob.path(), PathKind::Direct);
    stream::echo_once(&to_bob, &to_alice).await;
    // Who is known by now is dialled by name, at the same address.
    let (again, _) = pair(&alice, &bob).await;
    assert_eq!(again.peer(), bob.node_id());
    let nowhere = alice.connect_to_whoever("127.0.0.1:0".parse().unwrap()).await;
    assert!(matches!(nowhere.unwrap_err(), ConnectError::BadAddress { .. }));
}
