//! Hosts that are asked to end.

use orb_tests::{Network, Project, eventually, guest};

#[test]
fn a_draining_host_answers_its_calls_and_waits_for_nobody_who_has_vanished() {
    let mut network = Network::start(1);
    let orb = network.user();
    Project::wasm("slow", &guest::sleep_then_say(6_000, "done")).deploy_to(&orb, 1);
    let (vanishing, waiting) = (
        orb.start(["call", "slow", "null"]),
        orb.start(["call", "slow", "null"]),
    );
    eventually("both calls run", || {
        let inspected = orb.run(["inspect", "slow", "--json"]).json();
        (inspected["hosts"][0]["queue"].as_u64()? >= 2).then_some(())
    });
    // It gets its answer and acknowledges nothing. QUIC would wait for it for 15 seconds more.
    vanishing.freeze();
    network.hosts[0].stop();
    assert_eq!(waiting.wait().text(), "done");
    let log = network.hosts[0].log();
    assert!(log.contains("a peer is silent: it is not waited for"), "{log}");
    vanishing.kill();
}
