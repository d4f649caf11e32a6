#![expect(clippy::unwrap_used, reason = "a test panics on surprise")]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use proptest::prelude::*;
use quinn_udp::BATCH_SIZE;

use super::*;
use crate::id::NodeId;
use crate::relay::{RelayLimits, RelayStats, SessionTokens};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Bytes of each datagram of a batch, except the last.
const STRIDE: usize = 64;

/// What a super node may send in one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Quic,
    /// Of one of three sessions that the receiver has.
    Session(u64),
    /// Of a session that it does not have.
    Stray,
    Garbage,
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        2 => Just(Kind::Quic),
        5 => (0u64..3).prop_map(Kind::Session),
        1 => Just(Kind::Stray),
        1 => Just(Kind::Garbage),
    ]
}

/// A datagram with its number in it, and room for a header where it is relayed.
fn datagram(kind: Kind, number: u32, len: usize) -> Vec<u8> {
    let header = |token| RelayHeader::encode(RelayToken::new(token)).to_vec();
    let mut bytes = match kind {
        Kind::Quic => Vec::new(),
        Kind::Session(token) => header(token),
        Kind::Stray => header(99),
        Kind::Garbage => vec![0],
    };
    let first = if kind == Kind::Garbage { 0 } else { 0x40 };
    bytes.push(first);
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.resize(len, 0xee);
    bytes
}

fn number(datagram: &[u8]) -> u32 {
    u32::from_be_bytes(datagram[1..5].try_into().unwrap())
}

fn socket() -> NodeSocket {
    NodeSocket::bind(LOOPBACK, |_| Ok(None)).unwrap()
}

/// Sends datagrams of one size, the last one shorter, as one batch where the system can.
async fn send_batch(from: &NodeSocket, to: SocketAddr, bytes: &[u8]) {
    let per_send = from.max_transmit_segments().min(10) * STRIDE;
    for part in bytes.chunks(per_send) {
        let transmit = Transmit {
            destination: to,
            ecn: None,
            contents: part,
            segment_size: Some(STRIDE),
            src_ip: None,
        };
        while from.try_send(&transmit).is_err() {
            from.io.writable().await.unwrap();
        }
    }
}

/// Takes one poll's worth of datagrams, by the address that QUIC would see, without batches.
async fn receive(socket: &NodeSocket, got: &mut Vec<(SocketAddr, Vec<u8>)>) {
    let mut memory = vec![vec![0; 65_536]; BATCH_SIZE];
    let mut bufs: Vec<_> = memory.iter_mut().map(|m| IoSliceMut::new(m)).collect();
    let mut metas = [RecvMeta::default(); BATCH_SIZE];
    let count = std::future::poll_fn(|cx| socket.poll_recv(cx, &mut bufs, &mut metas))
        .await
        .unwrap();
    for (meta, buf) in metas.iter().zip(&bufs).take(count) {
        for datagram in buf[..meta.len].chunks(meta.stride) {
            got.push((meta.addr, datagram.to_vec()));
        }
    }
}

async fn check_mixture(kinds: &[Kind]) {
    let (sender, receiver) = (socket(), socket());
    let (via, to) = (sender.bound_addr().unwrap(), receiver.bound_addr().unwrap());
    let mut senders = BTreeMap::from([(canonical(via), Kind::Quic)]);
    for token in 0..3 {
        let path = Path::Relay {
            via,
            token: RelayToken::new(token),
        };
        let node = NodeId::from_bytes([token as u8; 32]);
        let remote = receiver
            .paths_mut(|paths, now| paths.dial(node, path, now))
            .unwrap();
        senders.insert(remote.addr(), Kind::Session(token));
    }
    let last = kinds.len() - 1;
    let mut wanted: BTreeMap<SocketAddr, Vec<u32>> = BTreeMap::new();
    let mut bytes = Vec::new();
    for (number, kind) in (0u32..).zip(kinds) {
        let len = if number as usize == last {
            STRIDE / 2
        } else {
            STRIDE
        };
        bytes.extend(datagram(*kind, number, len));
        if let Some((addr, _)) = senders.iter().find(|(_, k)| *k == kind) {
            wanted.entry(*addr).or_default().push(number);
        }
    }
    send_batch(&sender, to, &bytes).await;
    let expected: usize = wanted.values().map(Vec::len).sum();
    let mut got = Vec::new();
    while got.len() < expected {
        receive(&receiver, &mut got).await;
    }
    let mut found: BTreeMap<SocketAddr, Vec<u32>> = BTreeMap::new();
    for (addr, datagram) in &got {
        assert_eq!(datagram[0], 0x40, "a whole QUIC packet without a header");
        assert!(datagram[5..].iter().all(|b| *b == 0xee));
        found.entry(*addr).or_default().push(number(datagram));
    }
    assert_eq!(found, wanted, "each sender's packets, all and in order");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn mixed_batches_come_apart_in_order(kinds in prop::collection::vec(kind(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(check_mixture(&kinds));
    }
}

#[tokio::test]
async fn a_source_that_only_exists_in_here_is_not_believed() {
    let receiver = socket();
    let remote = receiver
        .paths_mut(|paths, now| {
            let path = Path::Direct("192.0.2.1:5".parse().unwrap());
            paths.dial(NodeId::from_bytes([1; 32]), path, now)
        })
        .unwrap();
    let meta = RecvMeta {
        addr: remote.addr(),
        len: STRIDE,
        stride: STRIDE,
        ..RecvMeta::default()
    };
    let mut buf = datagram(Kind::Quic, 1, STRIDE);
    let mut bufs = [IoSliceMut::new(&mut buf)];
    assert_eq!(receiver.sort(&mut bufs, &mut [meta], 1), 0);
    assert_eq!(receiver.stats().spoofed, 1);
}

#[tokio::test]
async fn what_has_no_way_is_dropped_and_counted() {
    let sender = socket();
    let contents = [0x40; 10];
    for destination in ["[fd6f:7262::5]:1", "[2001:db8::1]:5"] {
        let transmit = Transmit {
            destination: destination.parse().unwrap(),
            ecn: None,
            contents: &contents,
            segment_size: None,
            src_ip: None,
        };
        sender.try_send(&transmit).unwrap();
    }
    assert_eq!(sender.stats().unroutable, 2);
}

/// Two nodes' sockets with a session between them on a super node's.
struct Relayed {
    server: NodeSocket,
    caller: NodeSocket,
    target: NodeSocket,
    remote: RemoteId,
}

impl Relayed {
    fn new(batches: bool) -> Self {
        let server = NodeSocket::bind(LOOPBACK, |io| {
            let mut forwarder = Forwarder::new(io, RelayLimits::default())?;
            forwarder.set_batches(batches);
            Ok(Some(forwarder))
        });
        let (server, caller, target) = (server.unwrap(), socket(), socket());
        let now = server.now();
        let [caller_token, target_token] = [1, 2].map(RelayToken::new);
        server.forwarder().unwrap().table(|table| {
            let link = |socket: &NodeSocket| canonical(socket.bound_addr().unwrap());
            let from = table.link_up(NodeId::from_bytes([1; 32]), link(&caller), None, now);
            table.link_up(NodeId::from_bytes([2; 32]), link(&target), None, now);
            let tokens = SessionTokens {
                caller: caller_token,
                target: target_token,
            };
            table
                .open(from, NodeId::from_bytes([2; 32]), tokens, now)
                .unwrap();
        });
        let via = server.bound_addr().unwrap();
        let register = |socket: &NodeSocket, token| {
            let path = Path::Relay { via, token };
            let node = NodeId::from_bytes([9; 32]);
            socket
                .paths_mut(|paths, now| paths.dial(node, path, now))
                .unwrap()
        };
        register(&target, target_token);
        let remote = register(&caller, caller_token);
        Self {
            server,
            caller,
            target,
            remote,
        }
    }

    fn stats(&self) -> RelayStats {
        self.server.forwarder().unwrap().table(|table| table.stats())
    }
}

#[tokio::test]
async fn batches_are_relayed_whole_with_and_without_offload() {
    for batches in [true, false] {
        let relayed = Relayed::new(batches);
        let bytes: Vec<u8> = (0..25)
            .flat_map(|number| datagram(Kind::Quic, number, STRIDE))
            .collect();
        send_batch(&relayed.caller, relayed.remote.addr(), &bytes).await;
        let (mut got, mut leaked) = (Vec::new(), Vec::new());
        // The super node's socket has nothing for QUIC: its poll never ends by itself.
        while got.len() < 25 {
            tokio::select! {
                biased;
                () = receive(&relayed.target, &mut got) => {}
                () = receive(&relayed.server, &mut leaked) => panic!("relayed packets reached QUIC"),
            }
        }
        let numbers: Vec<u32> = got.iter().map(|(_, datagram)| number(datagram)).collect();
        assert_eq!(numbers, (0..25).collect::<Vec<_>>());
        let stats = relayed.stats();
        assert_eq!(stats.forwarded_packets, 25);
        assert_eq!(stats.forwarded_bytes, 25 * (STRIDE + RELAY_HEADER_LEN) as u64);
    }
}
