//! Beyond one federation: functions are found through BitTorrent's Mainline DHT, here one on loopback.

use std::net::{Ipv4Addr, UdpSocket};

use mainline::async_dht::AsyncDht;
use mainline::{Dht, Id, MutableItem, Testnet};
use orb_protocol::discovery::InfoHash;
use orb_protocol::head;
use orb_protocol::id::{FunctionId, OwnerId};
use orb_protocol::manifest::Version;
use orb_tests::{Network, Orb, Project, eventually, guest};

/// Nodes of the DHT.
const NODES: usize = 12;

/// A DHT, and somebody who looks into it.
struct World {
    testnet: Testnet,
    watcher: AsyncDht,
    runtime: tokio::runtime::Runtime,
}

impl World {
    fn new() -> Self {
        let testnet = Testnet::builder(NODES).build().unwrap();
        let watcher = Dht::builder()
            .bootstrap(&testnet.bootstrap)
            .bind_address(Ipv4Addr::LOCALHOST)
            .port(0)
            .build()
            .unwrap();
        Self {
            testnet,
            watcher: watcher.as_async(),
            runtime: tokio::runtime::Builder::new_current_thread().build().unwrap(),
        }
    }

    /// Where to enter it.
    fn bootstrap(&self) -> String {
        self.testnet.bootstrap.join(",")
    }

    /// A super node that publishes in it, and so many hosts.
    fn network(&self, hosts: usize) -> Network {
        self.network_with(hosts, &[])
    }

    fn network_with(&self, hosts: usize, arguments: &[&str]) -> Network {
        let bootstrap = self.bootstrap();
        let own = ["--discovery", "mainline", "--dht-bootstrap", &bootstrap];
        Network::start_with(hosts, &[&own, arguments].concat(), &[])
    }

    /// Somebody who knows no super node, and the DHT.
    fn stranger(&self) -> Orb {
        let stranger = Orb::new();
        let nodes = &self.testnet.bootstrap;
        let settings = format!("discovery = \"mainline\"\ndht_bootstrap = {nodes:?}\n");
        std::fs::write(stranger.home().join("config.toml"), settings).unwrap();
        stranger
    }

    /// Ends nodes, those by which it is entered among them.
    fn kill_nodes(&mut self, count: usize) {
        self.testnet.nodes.drain(..count);
    }

    /// The newest item of a function.
    fn item(&self, owner: &OwnerId, name: &str) -> Option<MutableItem> {
        let newest = self
            .watcher
            .get_mutable_most_recent(owner.as_bytes(), Some(name.as_bytes()));
        self.runtime.block_on(newest)
    }

    fn wait_until_head(&self, owner: &OwnerId, name: &str, revision: u64) -> MutableItem {
        eventually(&format!("the head of revision {revision} is in the DHT"), || {
            self.item(owner, name)
                .filter(|item| item.seq() == seq(0, revision))
        })
    }

    /// Announces a port of this machine for a function.
    fn announce(&self, function: &FunctionId, port: u16) {
        let hash = Id::from(*InfoHash::of_function(function).as_bytes());
        // A node of its own each time: one node has one address at each hash.
        let announcer = Dht::builder()
            .bootstrap(&self.testnet.bootstrap)
            .bind_address(Ipv4Addr::LOCALHOST)
            .port(0)
            .build()
            .unwrap()
            .as_async();
        self.runtime
            .block_on(announcer.announce_peer(hash, Some(port)))
            .unwrap();
    }

    /// Which ports are announced for a function.
    fn announced(&self, function: &FunctionId) -> Vec<u16> {
        use futures_lite::StreamExt;
        let hash = Id::from(*InfoHash::of_function(function).as_bytes());
        let answers: Vec<_> = self.runtime.block_on(self.watcher.get_peers(hash).collect());
        answers
            .into_iter()
            .flatten()
            .map(|address| address.port())
            .collect()
    }

    fn wait_until_announced(&self, function: &FunctionId, port: u16) {
        eventually("the super node is announced", || {
            self.announced(function).contains(&port).then_some(())
        });
    }
}

fn seq(generation: u64, revision: u64) -> i64 {
    head::seq(Version { generation, revision }).unwrap()
}

fn function(owner: &OwnerId, name: &str) -> FunctionId {
    FunctionId::derive(owner, &name.parse().unwrap())
}

fn port_of(network: &Network) -> u16 {
    network.address.rsplit_once(':').unwrap().1.parse().unwrap()
}

#[test]
fn a_function_is_called_that_only_the_dht_names_while_nodes_of_it_are_lost() {
    let mut world = World::new();
    let network = world.network(1);
    let owner = network.user();
    let key: OwnerId = owner.owner().parse().unwrap();
    let name = format!("{key}/say");
    Project::wasm("say", &guest::say("hello")).deploy(&owner);
    world.wait_until_head(&key, "say", 1);
    world.wait_until_announced(&function(&key, "say"), port_of(&network));
    assert_eq!(world.stranger().run(["call", &name, "null"]).text(), "hello");
    let versions = world.stranger().run(["versions", &name, "--json"]).json();
    assert_eq!(versions["revisions"][0]["revision"], 1, "{versions}");

    // Half of the DHT goes, and with it half of the ways into it.
    world.kill_nodes(NODES / 2);
    assert_eq!(world.stranger().run(["call", &name, "null"]).text(), "hello");

    // What is published from now on gets around all the same.
    Project::wasm("say", &guest::say("bye")).deploy(&owner);
    Project::wasm("new", &guest::say("new")).deploy(&owner);
    world.wait_until_head(&key, "say", 2);
    world.wait_until_head(&key, "new", 1);
    assert_eq!(world.stranger().run(["call", &name, "null"]).text(), "bye");
    let new = format!("{key}/new");
    world.wait_until_announced(&function(&key, "new"), port_of(&network));
    assert_eq!(world.stranger().run(["call", &new, "null"]).text(), "new");

    // So does the end.
    owner.run(["decommission", "say", "--yes"]).ok();
    world
        .stranger()
        .run(["call", &name, "null", "--json"])
        .fails(6, "decommissioned");
    world.wait_until_head(&key, "say", 3);
}

#[test]
fn whoever_lies_in_the_dht_is_worked_around() {
    let world = World::new();
    let network = world.network(1);
    let owner = network.user();
    let key: OwnerId = owner.owner().parse().unwrap();
    Project::wasm("say", &guest::say("hello")).deploy(&owner);
    // One that never answers, one where nobody is, one that does not know the function.
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let closed_port = {
        let closed = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        closed.local_addr().unwrap().port()
    };
    let other = Network::start(0);
    let lies = [silent_port, closed_port, port_of(&other)];
    let (say, nothing) = (function(&key, "say"), function(&key, "nothing"));
    for port in lies {
        world.announce(&say, port);
        world.announce(&nothing, port);
    }
    for port in lies.into_iter().chain([port_of(&network)]) {
        world.wait_until_announced(&say, port);
    }
    let name = format!("{key}/say");
    assert_eq!(world.stranger().run(["call", &name, "null"]).text(), "hello");
    // With nothing but lies there is nobody to call, and each is named.
    let places: Vec<String> = lies.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let mut words: Vec<&str> = places.iter().map(String::as_str).collect();
    words.extend(["does not know the function", "no answer", "--super"]);
    world
        .stranger()
        .run(["call", &format!("{key}/nothing"), "null", "--json"])
        .fails(8, "no_live_host")
        .says(&words)
        .blames("network");
}

#[test]
fn what_the_dht_does_not_know_and_a_dht_that_is_not_there_are_told_apart() {
    let world = World::new();
    let key = world.stranger().owner();
    world
        .stranger()
        .run(["call", &format!("{key}/nothing"), "null", "--json"])
        .fails(6, "not_found")
        .says(&["nothing", "discovery = \"mainline\""]);
    let closed = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let nobody = format!("127.0.0.1:{}", closed.local_addr().unwrap().port());
    let call = ["call", "nothing", "null", "--json", "--dht-bootstrap", &nobody];
    world
        .stranger()
        .run(call)
        .fails(8, "no_live_host")
        .says(&["no node of the DHT answers", "--dht-bootstrap"]);
    // Nothing is looked for by who has not asked for it, nor where a super node is named.
    Orb::new()
        .run(["call", "nothing", "null", "--json"])
        .fails(2, "usage")
        .says(&["no super node is named"]);
}

#[test]
fn a_super_node_with_an_old_revision_is_passed_over() {
    let world = World::new();
    let (stale, fresh) = (world.network(1), world.network(1));
    let mut owner = stale.user();
    let key: OwnerId = owner.owner().parse().unwrap();
    let name = format!("{key}/say");
    Project::wasm("say", &guest::say("old")).deploy(&owner);
    owner.move_to(&fresh.address);
    let project = Project::wasm("say", &guest::say("older"));
    project.deploy(&owner);
    project.edit(guest::say("new"));
    project.deploy(&owner);
    world.wait_until_head(&key, "say", 2);
    let say = function(&key, "say");
    world.wait_until_announced(&say, port_of(&stale));
    world.wait_until_announced(&say, port_of(&fresh));
    for _ in 0..3 {
        assert_eq!(world.stranger().run(["call", &name, "null"]).text(), "new");
    }
    // Rather nobody than an old answer.
    drop(fresh);
    world
        .stranger()
        .run(["call", &name, "null", "--json"])
        .fails(8, "no_live_host")
        .says(&["shows revision 1", "has signed revision 2"]);
}

#[test]
fn a_head_that_its_owner_did_not_sign_is_not_taken() {
    let world = World::new();
    let network = world.network(1);
    let owner = network.user();
    let key: OwnerId = owner.owner().parse().unwrap();
    Project::wasm("say", &guest::say("hello")).deploy(&owner);
    let genuine = world.wait_until_head(&key, "say", 1);
    world.wait_until_announced(&function(&key, "say"), port_of(&network));
    let mut payload = genuine.value().to_vec();
    payload[15] += 8;
    // The signature of another revision, and none.
    for signature in [*genuine.signature(), [7; 64]] {
        let forged = MutableItem::new_signed_unchecked(
            *key.as_bytes(),
            signature,
            &payload,
            seq(0, 9),
            Some(b"say".as_slice()),
        );
        world
            .runtime
            .block_on(world.watcher.put_mutable(forged, None))
            .unwrap_err();
    }
    assert_eq!(world.item(&key, "say"), Some(genuine));
    let name = format!("{key}/say");
    assert_eq!(world.stranger().run(["call", &name, "null"]).text(), "hello");
}

#[test]
fn super_nodes_that_link_with_everybody_find_each_other() {
    let world = World::new();
    let one = world.network_with(1, &["--open-peers"]);
    let other = world.network_with(0, &["--open-peers"]);
    let owner = one.user();
    Project::wasm("say", &guest::say("hello")).deploy(&owner);
    eventually("they are linked", || {
        let linked = |network: &Network| network.super_node.log().contains("a super node is linked");
        (linked(&one) && linked(&other)).then_some(())
    });
    let name = format!("{}/say", owner.owner());
    eventually("it is called through the other one", || {
        let ended = other.user().run(["call", &name, "null"]);
        (ended.code == 0).then(|| assert_eq!(ended.text(), "hello"))
    });
}

#[test]
fn a_super_node_finds_for_its_clients_what_its_federation_does_not_know() {
    let world = World::new();
    let (one, other) = (world.network(1), world.network(0));
    let owner = one.user();
    let key: OwnerId = owner.owner().parse().unwrap();
    Project::wasm("say", &guest::say("hello")).deploy(&owner);
    world.wait_until_announced(&function(&key, "say"), port_of(&one));
    let name = format!("{key}/say");
    assert_eq!(other.user().run(["call", &name, "null"]).text(), "hello");
    assert!(other.super_node.log().contains("a function was found in the DHT"));
    // It has not become this one's.
    let listed = other.user().run(["list", "--all", "--json"]);
    assert!(
        !String::from_utf8_lossy(&listed.stdout).contains(&key.to_string()),
        "{listed}"
    );
}

#[test]
fn without_the_setting_there_is_no_socket_for_it() {
    let world = World::new();
    let (with, without) = (world.network(0), Network::start(0));
    eventually("it is in the DHT", || {
        with.super_node
            .log()
            .contains("functions are announced in the DHT")
            .then_some(())
    });
    assert_eq!(with.super_node.udp_ports().len(), 2);
    assert_eq!(without.super_node.udp_ports().len(), 1);
}

#[test]
fn what_was_there_before_is_published_in_the_first_round() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("super.toml");
    std::fs::write(&file, "discovery = \"off\"\n").unwrap();
    let mut network = Network::start_with(1, &["--config", file.to_str().unwrap()], &[]);
    let owner = network.user();
    let key: OwnerId = owner.owner().parse().unwrap();
    let names = ["one", "two", "three"];
    for name in names {
        Project::wasm(name, &guest::say(name)).deploy(&owner);
    }
    assert_eq!(network.super_node.udp_ports().len(), 1);
    network.super_node.stop();
    let nodes = &world.testnet.bootstrap;
    let settings = format!("discovery = \"mainline\"\ndht_bootstrap = {nodes:?}\n");
    std::fs::write(&file, settings).unwrap();
    network.restart_super();
    for name in names {
        world.wait_until_head(&key, name, 1);
        world.wait_until_announced(&function(&key, name), port_of(&network));
        eventually("its host is back", || {
            let ended = world.stranger().run(["call", &format!("{key}/{name}"), "null"]);
            (ended.code == 0).then(|| assert_eq!(ended.text(), name))
        });
    }
}
