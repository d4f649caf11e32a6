//! What happened, as `orb events` shows it.

use std::time::Duration;

use orb_tests::{Federation, Network, Orb, Project, eventually, guest};
use serde_json::Value;

fn kinds(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .map(|event| event["kind"].as_str().unwrap())
        .collect()
}

#[test]
fn a_functions_events_are_listed_and_followed() {
    let orb = Network::shared().user();
    let project = Project::js("noted", "export default () => 1;");
    project.deploy(&orb);
    let list = || {
        orb.run(["events", "noted", "--json"]).json()["events"]
            .as_array()
            .unwrap()
            .clone()
    };
    // Hosts are written down a moment later than they become ready.
    eventually("a replica's event is there", || {
        kinds(&list()).contains(&"seeded").then_some(())
    });
    let events = list();
    assert_eq!(kinds(&events)[0], "published");
    let (function, cursor) = (events[0]["function"].as_str().unwrap(), &events[0]["cursor"]);
    assert_eq!(function, format!("{}/noted", orb.owner()));
    assert!(events[0]["id"].as_str().unwrap().ends_with(&format!("-{cursor}")));
    assert_eq!(events[1]["host"].as_str().map(str::len), Some(52));

    let follow = ["events", "noted", "-f", "--json", "--since", &cursor.to_string()];
    let mut running = orb.start(follow);
    project.edit(b"export default () => 2;");
    project.deploy(&orb);
    running.wait_at_most(Duration::from_secs(3));
    running.interrupt();
    let text = running.wait().text();
    let followed: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    // From where it was told to go on, and what happened after it had begun.
    assert_eq!(followed[0], events[1]);
    assert!(kinds(&followed).contains(&"edited"), "{text}");

    let text = orb.run(["events", "--owner", &orb.owner()]).text();
    assert!(text.contains("noted@2") && text.contains("edited"), "{text}");
    orb.run(["events", "noted", "--limit", "0", "--json"])
        .fails(2, "usage");
}

#[test]
fn one_goes_on_after_an_event_of_the_super_node_that_is_asked_and_of_no_other() {
    let federation = Federation::start(&[1, 0]);
    let mut orb = federation.user(0);
    Project::wasm("noted", &guest::say("hello")).deploy_to(&orb, 1);
    let list = |orb: &Orb, since: &[&str]| {
        let listed = orb.run([&["events", "--json"], since].concat()).json();
        listed["events"].as_array().unwrap().clone()
    };
    // What hosts do is written down a moment later.
    let all = eventually("two events", || {
        let all = list(&orb, &["--since", "0"]);
        (all.len() > 1).then_some(all)
    });
    let id = all[0]["id"].as_str().unwrap();
    for after in [id, &all[0]["cursor"].to_string()] {
        assert_eq!(list(&orb, &["--since", after])[0], all[1]);
    }
    for order in ["--limit=1", "-f"] {
        orb.run(["events", order, "--json", "--since", "1000000"])
            .fails(2, "input_invalid")
            .says(&["does not go as far as event 1000000", "--since"]);
    }
    orb.run(["events", "--json", "--since", "yesterday"])
        .fails(2, "usage")
        .says(&["an event's id"]);
    // The other super node has a log of its own.
    orb.move_to(&federation.addresses[1]);
    let other = list(&orb, &["--since", "0"])[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_ne!(id[..10], other[..10]);
    for order in ["--limit=1", "-f"] {
        orb.run(["events", order, "--json", "--since", id])
            .fails(2, "input_invalid")
            .says(&[&id[..10], &other[..10], "ask that super node"]);
    }
}
