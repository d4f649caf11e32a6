//! Daemons that end in order, and start again.

use orb_tests::{Network, Project, eventually, guest};
use serde_json::Value;

#[test]
fn sigterm_lets_running_calls_finish_and_sends_new_ones_elsewhere() {
    let mut network = Network::start(2);
    let orb = network.user();
    // One host holds `slow`; both hold `quick`.
    Project::wasm("slow", &guest::sleep_then_say(8_000, "awake"))
        .set("replicas = 1")
        .limit("time_ms = 30_000")
        .deploy(&orb);
    Project::wasm("quick", &guest::say("here"))
        .set("replicas = 2")
        .deploy_to(&orb, 2);
    let slow_host = network.host_named(only_replica(&orb.run(["inspect", "slow", "--json"]).json()));

    let slow = orb.start(["call", "slow", "null", "--json"]);
    eventually("the slow call runs", || network.busy_host(&orb, "slow"));
    network.hosts[slow_host].terminate();
    let other_host = network.host_id(1 - slow_host);
    for _ in 0..3 {
        assert_eq!(orb.call("quick", "null")["host"], other_host.as_str());
    }
    let slow = slow.wait().json();
    assert_eq!(
        slow["output_base64"].as_str().or(slow["output"].as_str()),
        Some("YXdha2U="),
        "{slow}"
    );
    assert_eq!(slow["attempts"], 1, "{slow}");
    assert_eq!(network.hosts[slow_host].wait(), orb_tests::Exit::Code(0));
    network.super_node.stop();
}

#[test]
fn what_was_published_outlives_a_restart_of_every_daemon() {
    let mut network = Network::start(2);
    let orb = network.user();
    let project = Project::js("kept", "export default () => 1;");
    project.deploy(&orb);
    project.edit("export default () => 2;");
    project.deploy_to(&orb, 2);
    Project::wasm("gone", &guest::say("gone")).deploy(&orb);
    orb.run(["decommission", "gone", "--yes"]).ok();
    let before = state(&orb);

    network.super_node.stop();
    orb.run(["call", "kept", "null", "--json"])
        .fails(8, "no_live_host");
    network.restart_super();
    assert_eq!(state(&orb), before);
    // The hosts come back by themselves.
    eventually("the hosts are back", || {
        let call = orb.run(["call", "kept", "null"]);
        (call.code == 0 && call.stdout == b"2\n").then_some(())
    });

    for host in &mut network.hosts {
        host.stop();
    }
    orb.run(["call", "kept", "null", "--json"])
        .fails(8, "no_live_host");
    for host in &mut network.hosts {
        host.start();
    }
    eventually("the hosts answer again", || {
        let call = orb.run(["call", "kept", "null"]);
        (call.code == 0 && call.stdout == b"2\n").then_some(())
    });
    assert_eq!(state(&orb), before);
    orb.run(["call", "gone", "null", "--json"])
        .fails(6, "decommissioned");
    // The artifact before the last one is still there.
    orb.run(["rollback", "kept"]).ok();
    assert_eq!(orb.answer("kept", "null"), 1);
}

#[test]
fn a_host_that_was_away_during_a_decommission_never_answers_again() {
    let mut network = Network::start(1);
    let orb = network.user();
    let deployed = Project::wasm("late", &guest::say("late")).deploy(&orb);
    let artifact = deployed["artifact"].as_str().unwrap().to_owned();
    assert_eq!(orb.run(["call", "late", "null"]).text(), "late");
    assert!(network.holds_object(&network.host_data(0), &artifact));

    network.hosts[0].stop();
    orb.run(["decommission", "late", "--yes"]).ok();
    network.hosts[0].start();
    // A caller who has not heard of the decommission asks the host itself, from its first moment on.
    let mut stale = crate::peers::StaleCaller::of(&network, &orb, "late");
    eventually("the host has heard of the decommission", || {
        let answer = stale.call();
        assert_ne!(
            answer,
            Ok(b"late".to_vec()),
            "the host answers for what was decommissioned"
        );
        (answer == Err("decommissioned".to_owned())).then_some(())
    });
    for _ in 0..3 {
        assert_eq!(stale.call(), Err("decommissioned".to_owned()));
    }
    orb.run(["call", "late", "null", "--json"])
        .fails(6, "decommissioned");
    eventually("its bytes are gone everywhere", || {
        let folders = [network.host_data(0), network.super_data()];
        folders
            .iter()
            .all(|folder| !network.holds_object(folder, &artifact))
            .then_some(())
    });
}

fn only_replica(inspected: &Value) -> &str {
    match inspected["hosts"].as_array().map(Vec::as_slice) {
        Some([host]) => host["host"].as_str().unwrap(),
        _ => panic!("one host holds the function: {inspected}"),
    }
}

/// What does not change when nothing is published.
fn state(orb: &orb_tests::Orb) -> [Value; 2] {
    let mut list = orb.run(["list", "--decommissioned", "--json"]).json();
    // How many hosts are ready changes while they come back.
    for function in list["functions"].as_array_mut().unwrap() {
        function["ready"].take();
    }
    let mut versions = orb.run(["versions", "kept", "--json"]).json();
    versions["revisions"][0]["ready"].take();
    [list, versions]
}
