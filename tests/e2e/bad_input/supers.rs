//! Super nodes that are not there, or not who they should be.

use std::net::UdpSocket;

use orb_tests::{Daemon, Exit, Network, Orb, eventually, scratch};

/// Somebody else's id.
fn stranger() -> String {
    orb_protocol::key::NodeKey::from_seed([7; 32]).id().to_string()
}

#[test]
fn an_address_that_is_none() {
    for (address, says) in [
        ("127.0.0.1:4433", "NODEID@HOST:PORT"),
        ("abc@127.0.0.1:4433", "id"),
        (&format!("{}@127.0.0.1", stranger()), "PORT"),
    ] {
        Orb::at(address)
            .run(["list", "--json"])
            .fails(2, "usage")
            .says(&[says]);
    }
    let orb = Orb::new();
    orb.run(["list", "--json"]).fails(2, "usage").says(&["ORB_SUPER"]);
    // An empty one is none.
    Orb::at("")
        .run(["list", "--json"])
        .fails(2, "usage")
        .says(&["no super node is named"]);
}

#[test]
fn a_wrong_address_is_in_nobodys_way_who_needs_none() {
    let orb = Orb::at("nonsense");
    orb.run(["id", "--json"]).ok();
    let doctor = orb.run(["doctor", "--json"]);
    assert_eq!(doctor.code, 1, "{doctor}");
    let told: serde_json::Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let names_it = |check: &serde_json::Value| {
        check["state"] == "wrong"
            && check["detail"]
                .as_str()
                .is_some_and(|text| text.contains("nonsense"))
    };
    assert!(told["checks"].as_array().unwrap().iter().any(names_it), "{told}");
}

#[test]
fn an_address_where_nobody_answers() {
    // Bound, so that nobody else takes the port, and silent.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = format!("{}@{}", stranger(), silent.local_addr().unwrap());
    let failure = Orb::at(&address).run(["list", "--json"]).fails(8, "no_live_host");
    failure
        .blames("network")
        .says(&[&silent.local_addr().unwrap().to_string()]);
    let nowhere = format!("{}@no-such-host.invalid:4433", stranger());
    Orb::at(&nowhere)
        .run(["list", "--json"])
        .fails(8, "no_live_host")
        .says(&["no-such-host.invalid"]);
}

#[test]
fn the_next_super_node_is_used_where_the_first_is_not_there() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let first = format!("{}@{}", stranger(), silent.local_addr().unwrap());
    let orb = Orb::at(&format!("{first},{}", Network::shared().address));
    orb.run(["list", "--json"]).ok();
}

#[test]
fn a_super_node_with_another_id() {
    let network = Network::shared();
    let (id, socket) = network.address.split_once('@').unwrap();
    let address = format!("{}@{socket}", stranger());
    let failure = Orb::at(&address).run(["list", "--json"]).fails(4, "unverified");
    // Both ids are named: who was wanted, and who is there.
    failure.says(&[&stranger()[..10], &id[..10]]);

    let folder = scratch::folder("node");
    let mut node = Daemon::new("node", folder.path().join("log"))
        .args(["node", "--super", &address, "--data"])
        .args([folder.path().join("data")]);
    node.start();
    // It cannot know whether that mends itself, so it says what is wrong and goes on trying.
    eventually("the node says who is there", || {
        let log = node.log();
        (log.contains(&stranger()[..10]) && log.contains(&id[..10])).then_some(())
    });
    node.terminate();
    assert_eq!(node.wait(), Exit::Code(0));
}
