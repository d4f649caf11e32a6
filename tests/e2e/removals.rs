//! How a decommission goes on at the hosts, as its owner sees it.

use std::time::{Duration, Instant};

use orb_tests::{Network, Project, eventually};
use rustix::process::Signal;

fn count(document: &serde_json::Value, state: &str) -> usize {
    document[state].as_array().map_or(usize::MAX, Vec::len)
}

#[test]
fn a_decommission_ends_when_the_hosts_that_can_be_reached_have_confirmed() {
    let network = Network::start(3);
    let orb = network.user();
    for name in ["all", "two"] {
        Project::js(name, "export default () => 1;").deploy_to(&orb, 3);
    }
    // With --json: who it was. Nobody is told of it twice.
    let all = orb.run(["decommission", "all", "--yes", "--json"]).json();
    assert_eq!(
        (
            count(&all, "removed"),
            count(&all, "pending"),
            count(&all, "offline")
        ),
        (3, 0, 0),
        "{all}"
    );

    network.hosts[2].signal(Signal::STOP);
    let ended = orb.run(["decommission", "two", "--yes"]).ok();
    let progress = ended.stderr.clone();
    let said = ended.text();
    assert!(said.contains("removed on 2 of 3 hosts, 1 offline"), "{said}");
    assert!(progress.contains("of 3 hosts"), "{progress}");
    // Nobody answers for it, whoever is still to be told.
    orb.run(["call", "two", "null", "--json"])
        .fails(6, "decommissioned");
    network.hosts[2].signal(Signal::CONT);
    eventually("the host that was away has dropped it", || {
        let log = network.hosts[2].log_since_start();
        (log.matches("not held any more").count() >= 2).then_some(())
    });
}

#[test]
fn a_person_says_whom_a_decommission_waits_for() {
    let network = Network::start(2);
    let orb = network.user();
    for name in ["nobody", "one", "everybody"] {
        Project::js(name, "export default () => 1;").deploy_to(&orb, 2);
    }
    network.hosts[1].signal(Signal::STOP);
    let began = Instant::now();
    let nobody = orb.run(["decommission", "nobody", "--yes", "--no-wait"]).text();
    assert!(nobody.contains("hosts are being told"), "{nobody}");
    let one = orb.run(["decommission", "one", "--yes", "--wait", "1"]).text();
    assert!(one.contains("removed on 1 of 2 hosts"), "{one}");
    // A host that is silent counts as offline after five seconds: neither waited for that.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let mut everybody = orb.start(["decommission", "everybody", "--yes", "--json", "--wait", "all"]);
    everybody.wait_at_most(Duration::from_secs(10));
    assert!(everybody.is_running(), "it waits for the host that is away");
    network.hosts[1].signal(Signal::CONT);
    let everybody = everybody.wait().json();
    assert_eq!(
        (count(&everybody, "removed"), count(&everybody, "offline")),
        (2, 0),
        "{everybody}"
    );
    orb.run(["decommission", "one", "--yes", "--wait", "some", "--json"])
        .fails(2, "usage")
        .says(&["all"]);
}

#[test]
fn a_rollback_ends_when_every_host_is_ready_for_it() {
    let network = Network::start(3);
    let orb = network.user();
    let project = Project::js("back", "export default () => 1;");
    project.deploy_to(&orb, 3);
    project.edit("export default () => 2;");
    project.deploy_to(&orb, 3);
    let back = orb.run(["rollback", "back", "--json"]).json();
    assert_eq!((count(&back, "ready"), count(&back, "pending")), (3, 0), "{back}");
    let all = orb.run(["rollback", "back", "--json", "--wait", "all"]).json();
    assert_eq!(count(&all, "ready"), 3, "{all}");
}
