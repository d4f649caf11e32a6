//! kill -9 at bad moments.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use orb_protocol::id::ArtifactHash;
use orb_tests::network::files;
use orb_tests::{Network, Project, eventually, guest};

#[test]
fn a_killed_super_node_keeps_what_it_acknowledged() {
    let mut network = Network::start(1);
    let orb = network.user();
    let project = Project::js("kept", "export default () => 0;");
    for revision in 1..=3 {
        project.edit(format!("export default () => {revision};"));
        assert_eq!(project.deploy(&orb)["revision"], revision);
        network.super_node.kill();
        network.restart_super();
        let versions = orb.run(["versions", "kept", "--json"]).json();
        assert_eq!(
            versions["revisions"].as_array().map(Vec::len),
            Some(revision),
            "{versions}"
        );
        eventually("the host is back and answers with the newest revision", || {
            let call = orb.run(["call", "kept", "null"]);
            (call.code == 0).then(|| assert_eq!(call.stdout, format!("{revision}\n").as_bytes()))
        });
    }
}

#[test]
fn a_super_node_killed_during_deploys_has_all_that_was_acknowledged_and_nothing_by_halves() {
    let mut network = Network::start(0);
    let orb = network.user();
    let project = Project::wasm("big", &guest::say("0"));
    let mut acknowledged = BTreeMap::new();
    let mut cut_off = 0;
    // From before the first byte arrives until after the acknowledgement, in steps; the last one waits
    // for it, so that there is one on any machine.
    for delay_ms in [5, 20, 35, 50, 65, 80, 110, 150, 200, 300, u64::MAX] {
        project.edit(guest::padded(guest::say("more"), 4 << 20));
        let mut deploy = orb.start_in(project.path(), ["deploy", "--no-wait", "--json"]);
        deploy.wait_at_most(Duration::from_millis(delay_ms));
        network.super_node.kill();
        let deploy = deploy.kill_after(Duration::from_secs(2));
        network.restart_super();
        if deploy.code == 0 {
            let deployed = deploy.json();
            acknowledged.insert(
                deployed["revision"].as_u64().unwrap(),
                deployed["artifact"].as_str().unwrap().to_owned(),
            );
        } else {
            cut_off += 1;
        }
        check_objects(&network.super_data().join("objects"));
        if let Some((last, _)) = acknowledged.last_key_value() {
            let versions = orb.run(["versions", "big", "--json"]).json();
            let stored: BTreeMap<u64, &str> = versions["revisions"]
                .as_array()
                .unwrap()
                .iter()
                .map(|v| (v["revision"].as_u64().unwrap(), v["artifact"].as_str().unwrap()))
                .collect();
            assert!(stored.keys().last() >= Some(last), "{versions}");
            for (revision, artifact) in &acknowledged {
                assert_eq!(stored.get(revision), Some(&artifact.as_str()), "{versions}");
                assert!(
                    network.holds_object(&network.super_data(), artifact),
                    "revision {revision}"
                );
            }
        }
    }
    assert!(cut_off > 0, "no deploy was cut off");
    assert!(!acknowledged.is_empty(), "no deploy was acknowledged");
    // The folder works as if nothing had happened.
    project.edit(guest::say("at last"));
    project.deploy_with(&orb, &["--no-wait"]);
    network.add_host(&[]);
    eventually("a host answers", || {
        let call = orb.run(["call", "big", "null"]);
        (call.code == 0).then(|| assert_eq!(call.stdout, b"at last"))
    });
}

#[test]
fn a_call_whose_host_is_killed_goes_to_another_one_if_it_may_run_twice() {
    let mut network = Network::start(2);
    let orb = network.user();
    Project::wasm("again", &guest::sleep_then_say(6_000, "done"))
        .set("idempotent = true")
        .set("replicas = 2")
        .deploy_to(&orb, 2);
    // Which host will take the call is not known before, so that now and then the other one is killed.
    for attempt in 0.. {
        assert!(attempt < 8, "the killed host was never the one that ran the call");
        let call = orb.start(["call", "again", "null", "--json"]);
        let running = eventually("the call runs", || network.busy_host(&orb, "again"));
        network.hosts[running].kill();
        let answer = call.wait().json();
        assert_eq!(answer["host"], network.host_id(1 - running).as_str(), "{answer}");
        if answer["attempts"] == 2 {
            break;
        }
        network.hosts[running].start();
        network.wait_until_ready(&orb, "again", 2);
    }
}

#[test]
fn a_call_whose_host_is_killed_is_lost_if_it_must_not_run_twice() {
    let mut network = Network::start(2);
    let orb = network.user();
    Project::wasm("once", &guest::sleep_then_say(9_000, "done"))
        .set("replicas = 2")
        .deploy_to(&orb, 2);
    let call = orb.start(["call", "once", "null", "--json"]);
    let running = eventually("the call runs", || network.busy_host(&orb, "once"));
    network.hosts[running].kill();
    call.wait()
        .fails(3, "host_lost")
        .blames("host")
        .says(&["after the call had started", "call again"]);
}

#[test]
fn calls_go_on_when_the_host_that_answered_last_is_killed() {
    let mut network = Network::start(2);
    let orb = network.user();
    Project::js("steady", "export default () => 'still here';")
        .set("replicas = 2")
        .deploy_to(&orb, 2);
    let last = network.host_named(orb.call("steady", "null")["host"].as_str().unwrap());
    network.hosts[last].kill();
    for _ in 0..3 {
        let answer = orb.call("steady", "null");
        assert_eq!(answer["output"], "still here");
        assert_eq!(answer["host"], network.host_id(1 - last).as_str(), "{answer}");
    }
}

/// Every file that bears a hash as its name holds the bytes of that hash.
pub(crate) fn check_objects(folder: &Path) {
    for file in files(folder) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let Ok(hash) = name.parse::<ArtifactHash>() else {
            continue;
        };
        match fs::read(&file) {
            Ok(bytes) => assert_eq!(ArtifactHash::of(&bytes), hash, "{}", file.display()),
            // The daemon runs: what it needs no more may go between the listing and here.
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{}", file.display()),
        }
    }
}
