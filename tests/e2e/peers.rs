//! Peers that misbehave: whatever they send, others are served as before.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use orb_protocol::client::SuperAddr;
use orb_protocol::fault::{Fault, FaultKind};
use orb_protocol::id::{FunctionId, NodeId, RequestId};
use orb_protocol::key::NodeKey;
use orb_protocol::manifest::Version;
use orb_protocol::quic::body::BodyReader;
use orb_protocol::quic::frames::{read_message, write_message};
use orb_protocol::quic::{Connection, Endpoint, EndpointConfig, NodeAddr};
use orb_protocol::wire::call::{Call, Started, Trailer};
use orb_protocol::wire::codec::MESSAGE_LEN_MAX;
use orb_protocol::wire::directory::Fetch;
use orb_protocol::wire::extension::Extensions;
use orb_protocol::wire::{Reply, Request};
use orb_tests::{Daemon, Network, Orb, Project, guest};
use quinn::{RecvStream, SendStream};
use tokio::runtime::Runtime;

/// Datagrams, handshakes, streams of each kind: enough to meet every bound on the way.
const DATAGRAMS: usize = 1_000;
const HANDSHAKES: usize = 300;
const STREAMS: usize = 40;

#[test]
fn garbage_datagrams_harm_nobody() {
    let town = Town::start();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut bytes = [0; 1_400];
    for to in [town.super_socket(), town.host_socket()] {
        for i in 0..DATAGRAMS {
            getrandom::fill(&mut bytes).unwrap();
            // Every first byte: QUIC's long and short headers, and what the relay takes for its own.
            bytes[0] = i.to_le_bytes()[0];
            // Every other one claims to be of QUIC's first version.
            if i % 2 == 0 {
                bytes[1..5].copy_from_slice(&1_u32.to_be_bytes());
            }
            let len = if i % 3 == 0 { 1_200 } else { 1 + i % bytes.len() };
            socket.send_to(&bytes[..len], to).unwrap();
        }
        town.others_are_served();
    }
    for daemon in town.daemons() {
        daemon.wait_until_counted("datagrams_malformed");
        daemon.wait_until_counted("datagrams_unconnected");
    }
}

#[test]
fn handshakes_that_never_go_on_harm_nobody() {
    let town = Town::start();
    let runtime = Runtime::new().unwrap();
    let first_packets = runtime.block_on(first_packets(town.address.id()));
    let sockets: Vec<UdpSocket> = first_packets
        .iter()
        .map(|packet| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.send_to(packet, town.super_socket()).unwrap();
            socket
        })
        .collect();
    town.others_are_served();
    assert_eq!(sockets.len(), HANDSHAKES);
    town.network
        .super_node
        .wait_until_counted("handshakes_asked_to_prove");
    town.network.super_node.wait_until_counted("handshakes_timed_out");
}

#[test]
fn handshakes_for_another_key_are_counted() {
    let town = Town::start();
    let runtime = Runtime::new().unwrap();
    let to = NodeAddr {
        id: NodeKey::from_seed(random()).id(),
        ..super_node(&town.network)
    };
    runtime.block_on(async { endpoint().connect(to).await.unwrap_err() });
    town.others_are_served();
    town.network.super_node.wait_until_counted("handshakes_failed");
}

#[test]
fn half_frames_and_wrong_lengths_harm_nobody() {
    let town = Town::start();
    let rogue = Rogue::arrive(&town);
    let frames: [&[u8]; 6] = [
        &[],
        // Half a length; a length and half a message; a message that is none; far too long a length.
        &[9, 0],
        &[200, 0, 0, 0, 1, 2, 3],
        &[3, 0, 0, 0, 255, 255, 255],
        &[255, 255, 255, 255, 0],
        // A tag that nobody knows, with nothing in it.
        &[4, 0, 0, 0, 251, 96, 234, 0],
    ];
    rogue.runtime.block_on(async {
        let mut open = Vec::new();
        for connection in [&rogue.to_super, &rogue.to_host] {
            for frame in frames.iter().cycle().take(STREAMS) {
                // A peer may open only so many streams; then it has to wait, and so does this one.
                let opened = tokio::time::timeout(Duration::from_millis(50), connection.open_bi()).await;
                let Ok(Ok((mut send, receive))) = opened else {
                    break;
                };
                let _ = send.write_all(frame).await;
                // Some are left open, some end in the middle, some are given up.
                match open.len() % 3 {
                    0 => drop(send.finish()),
                    1 => drop(send.reset(0_u32.into())),
                    _ => {}
                }
                open.push((send, receive));
            }
        }
        assert!(
            open.len() >= 2 * frames.len(),
            "only {} streams were opened",
            open.len()
        );
        tokio::task::block_in_place(|| town.others_are_served());
    });
    for daemon in town.daemons() {
        daemon.wait_until_counted("streams_unreadable");
    }
}

#[test]
fn a_peer_that_stops_reading_harms_nobody() {
    let town = Town::start();
    let big = guest::padded(guest::echo(), 6 << 20);
    let project = Project::wasm("echo", &big);
    let deployed = project.deploy(&town.orb);
    let artifact = deployed["artifact"].as_str().unwrap().parse().unwrap();
    let rogue = Rogue::arrive(&town);
    rogue.runtime.block_on(async {
        let mut open = Vec::new();
        for _ in 0..STREAMS {
            let fetch = Fetch {
                artifact,
                offset: 0,
                extensions: Extensions::none(),
            };
            let Some(stream) = ask(&rogue.to_super, fetch.into(), b"").await else {
                break;
            };
            open.push(stream);
        }
        assert!(open.len() >= 4, "only {} fetches were begun", open.len());
        let calls = open.len();
        for _ in 0..STREAMS {
            let call = call(town.function("echo"), Version::default());
            let Some(stream) = ask(&rogue.to_host, call.into(), &[7; 1 << 20]).await else {
                break;
            };
            open.push(stream);
        }
        assert!(
            open.len() >= calls + 4,
            "only {} calls were begun",
            open.len() - calls
        );
        tokio::task::block_in_place(|| {
            town.others_are_served();
            for daemon in town.daemons() {
                daemon.wait_until_counted("readers_stopped");
            }
            town.others_are_served();
        });
    });
}

#[test]
fn a_call_that_is_given_up_is_ended_at_the_host() {
    let town = Town::start();
    Project::wasm("long", &guest::sleep_then_say(50_000, "never read"))
        .limit("time_ms = 60_000")
        .deploy(&town.orb);
    // As many as the host runs at a time, and as wait; all callers then go away.
    for _ in 0..3 {
        let calls: Vec<_> = (0..8).map(|_| town.orb.start(["call", "long", "null"])).collect();
        orb_tests::eventually("the calls run", || town.network.busy_host(&town.orb, "long"));
        for call in calls {
            call.kill();
        }
    }
    town.others_are_served();
    orb_tests::eventually("the host is idle", || {
        town.network.busy_host(&town.orb, "long").is_none().then_some(())
    });
}

/// A network with one host, and somebody who lives there in peace.
pub(crate) struct Town {
    pub(crate) network: Network,
    pub(crate) orb: Orb,
    address: SuperAddr,
}

impl Town {
    pub(crate) fn start() -> Self {
        let network = Network::start_with(1, &[], &["--capacity", "4"]);
        let orb = network.user();
        Project::wasm("peace", &guest::echo()).deploy(&orb);
        let address = network.address.parse().unwrap();
        Self {
            network,
            orb,
            address,
        }
    }

    /// Publishing and calling work as before.
    #[track_caller]
    pub(crate) fn others_are_served(&self) {
        let answer = self.orb.run_on(["call", "peace", "-"], b"and quiet").ok();
        assert_eq!(answer.stdout, b"and quiet");
        let project = Project::wasm("more", &guest::say("more"));
        project.deploy(&self.orb);
        assert_eq!(self.orb.run(["call", "more", "null"]).text(), "more");
    }

    /// The super node and the host.
    pub(crate) fn daemons(&self) -> [&Daemon; 2] {
        [&self.network.super_node, &self.network.hosts[0]]
    }

    pub(crate) fn super_socket(&self) -> SocketAddr {
        let (_, socket) = self.network.address.split_once('@').unwrap();
        socket.parse().unwrap()
    }

    fn host_socket(&self) -> SocketAddr {
        let port = self.network.hosts[0].udp_port();
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    pub(crate) fn function(&self, name: &str) -> FunctionId {
        function(&self.orb, name)
    }
}

/// A peer with a proper identity and connection, and bad manners.
pub(crate) struct Rogue {
    pub(crate) to_super: Connection,
    pub(crate) to_host: Connection,
    _endpoint: Endpoint,
    pub(crate) runtime: Runtime,
}

impl Rogue {
    pub(crate) fn arrive(town: &Town) -> Self {
        Self::arrive_by(town, super_node(&town.network).addr)
    }

    /// The same by way of somebody who passes packets on to the super node.
    pub(crate) fn arrive_by(town: &Town, way: SocketAddr) -> Self {
        let runtime = Runtime::new().unwrap();
        let host = town.network.host_id(0).parse().unwrap();
        let to = NodeAddr {
            addr: way,
            ..super_node(&town.network)
        };
        let (endpoint, to_super, to_host) = runtime.block_on(async {
            let endpoint = endpoint();
            let to_super = endpoint.connect(to).await.unwrap();
            let to_host = endpoint.connect_relayed(host, &to_super).await.unwrap();
            (endpoint, to_super, to_host)
        });
        Self {
            to_super,
            to_host,
            _endpoint: endpoint,
            runtime,
        }
    }
}

/// A caller who found out once where a function runs, and has not heard anything since.
pub(crate) struct StaleCaller {
    runtime: Runtime,
    super_node: NodeAddr,
    host: NodeId,
    function: FunctionId,
}

impl StaleCaller {
    /// Knows the network's first host.
    pub(crate) fn of(network: &Network, owner: &Orb, name: &str) -> Self {
        Self {
            runtime: Runtime::new().unwrap(),
            super_node: super_node(network),
            host: network.host_id(0).parse().unwrap(),
            function: function(owner, name),
        }
    }

    /// Calls the host without asking the super node; gives the answer or the label of the fault.
    pub(crate) fn call(&mut self) -> Result<Vec<u8>, String> {
        let exchange = async {
            let endpoint = endpoint();
            let lost = |error: &dyn std::fmt::Display| Fault::new(FaultKind::NoLiveHost, error.to_string());
            let to_super = endpoint.connect(self.super_node).await.map_err(|e| lost(&e))?;
            let to_host = endpoint
                .connect_relayed(self.host, &to_super)
                .await
                .map_err(|e| lost(&e))?;
            let (send, mut receive) = ask(&to_host, call(self.function, Version::default()).into(), b"null")
                .await
                .ok_or_else(|| lost(&"no stream"))?;
            let reply: Reply = read_message(&mut receive, MESSAGE_LEN_MAX)
                .await
                .map_err(|e| lost(&e))?;
            reply.into_result::<Started>()?;
            let answer = BodyReader::new(&mut receive, 1 << 20)
                .read_all()
                .await
                .map_err(|e| lost(&e))?;
            let trailer: Trailer = read_message(&mut receive, MESSAGE_LEN_MAX)
                .await
                .map_err(|e| lost(&e))?;
            drop(send);
            trailer.fault.map_or(Ok(answer), Err)
        };
        self.runtime
            .block_on(exchange)
            .map_err(|fault| fault.kind.label().to_owned())
    }
}

pub(crate) fn endpoint() -> Endpoint {
    Endpoint::bind(EndpointConfig::client(NodeKey::from_seed(random()))).unwrap()
}

pub(crate) fn super_node(network: &Network) -> NodeAddr {
    let (id, socket) = network.address.split_once('@').unwrap();
    NodeAddr {
        id: id.parse().unwrap(),
        addr: socket.parse().unwrap(),
    }
}

fn function(owner: &Orb, name: &str) -> FunctionId {
    FunctionId::derive(&owner.owner().parse().unwrap(), &name.parse().unwrap())
}

pub(crate) fn call(function: FunctionId, known: Version) -> Call {
    Call {
        request: RequestId::from_bytes(random()),
        function,
        known,
        remaining_us: 30_000_000,
        input_len: None,
        credential: None,
        trace: None,
        hops: 0,
        extensions: Extensions::none(),
    }
}

/// Opens a stream, sends a request and a body, and does not read. `None` where no more can be opened
/// or sent for now.
pub(crate) async fn ask(
    connection: &Connection,
    request: Request,
    body: &[u8],
) -> Option<(SendStream, RecvStream)> {
    let exchange = async {
        let (mut send, receive) = connection.open_bi().await.ok()?;
        write_message(&mut send, &request).await.ok()?;
        for chunk in body.chunks(wire_chunk()) {
            let len = u32::try_from(chunk.len()).ok()?;
            send.write_all(&len.to_le_bytes()).await.ok()?;
            send.write_all(chunk).await.ok()?;
        }
        send.write_all(&0_u32.to_le_bytes()).await.ok()?;
        Some((send, receive))
    };
    tokio::time::timeout(Duration::from_millis(500), exchange)
        .await
        .ok()
        .flatten()
}

fn wire_chunk() -> usize {
    orb_protocol::wire::CHUNK_LEN_MAX
}

/// The first packets of handshakes with a node, each of another connection.
pub(crate) async fn first_packets(with: NodeId) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    let mut buffer = [0; 2_000];
    while packets.len() < HANDSHAKES {
        // One for each: when a dial is given up, its peer is told.
        let trap = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = NodeAddr {
            id: with,
            addr: trap.local_addr().unwrap(),
        };
        let endpoint = endpoint();
        let dial = endpoint.connect(to);
        tokio::select! {
            _ = dial => panic!("nobody answers, so nobody connects"),
            len = trap.recv(&mut buffer) => packets.push(buffer[..len.unwrap()].to_vec()),
        }
    }
    packets
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}
