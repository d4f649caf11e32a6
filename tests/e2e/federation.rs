//! Several super nodes: what is handed in at one is found, called and ended at every other one.

use orb_tests::{Federation, Project, eventually, guest};

/// Whether a super node knows a function, and that it lives.
fn lives_at(federation: &Federation, place: usize, function: &str) -> Option<bool> {
    let ended = federation.user(place).run(["versions", function, "--json"]);
    let told: serde_json::Value = serde_json::from_slice(&ended.stdout).ok()?;
    let newest = told["revisions"].as_array()?.first()?.clone();
    newest["live"].as_bool()
}

#[test]
fn what_is_deployed_at_one_super_node_is_called_through_another() {
    // The first super node has no host at all.
    let federation = Federation::start(&[0, 2]);
    let owner = federation.user(0);
    Project::wasm("say", &guest::say("hello")).deploy_to(&owner, 1);
    let name = format!("{}/say", owner.owner());
    for place in [0, 1] {
        let call = federation.user(place).call(&name, "null");
        assert_eq!(call["attempts"], 1, "through super{place}: {call}");
    }
    // An edit and the end are heard at both.
    Project::wasm("say", &guest::say("bye")).deploy_to(&owner, 1);
    for place in [0, 1] {
        assert_eq!(federation.user(place).run(["call", &name, "null"]).text(), "bye");
    }
    owner.run(["decommission", "say", "--yes"]).ok();
    eventually("the other super node has heard of the end", || {
        (lives_at(&federation, 1, &name) == Some(false)).then_some(())
    });
    for place in [0, 1] {
        federation
            .user(place)
            .run(["call", &name, "null", "--json"])
            .fails(6, "decommissioned");
    }
}

#[test]
fn a_function_has_as_many_replicas_as_its_owner_wants_over_all_super_nodes() {
    let federation = Federation::start(&[2, 2, 2]);
    let owner = federation.user(0);
    Project::wasm("three", &guest::say("hello")).deploy_to(&owner, 3);
    for place in 0..3 {
        let user = federation.user(place);
        let name = format!("{}/three", owner.owner());
        federation.wait_until_ready(&user, &name, 3);
        let inspected = user.run(["inspect", &name, "--json"]).json();
        assert_eq!(inspected["healthy"], 3, "as super{place} says: {inspected}");
        assert_eq!(user.run(["call", &name, "null"]).text(), "hello");
    }
}

#[test]
fn a_super_node_that_was_away_hears_what_it_missed_and_one_that_is_lost_is_done_without() {
    let mut federation = Federation::start(&[0, 1, 1]);
    let owner = federation.user(1);
    let name = |function: &str| format!("{}/{function}", owner.owner());
    Project::wasm("before", &guest::say("before")).deploy_to(&owner, 1);
    federation.supers[0].kill();
    Project::wasm("meanwhile", &guest::say("meanwhile")).deploy_to(&owner, 1);
    owner.run(["decommission", "before", "--yes"]).ok();
    // The others go on.
    assert_eq!(
        federation
            .user(2)
            .run(["call", &name("meanwhile"), "null"])
            .text(),
        "meanwhile"
    );
    federation.restart_super(0);
    eventually("it has heard what it missed", || {
        let live = |function| lives_at(&federation, 0, &name(function));
        (live("meanwhile") == Some(true) && live("before") == Some(false)).then_some(())
    });
    eventually("it finds hosts of others again", || {
        let ended = federation.user(0).run(["call", &name("meanwhile"), "null"]);
        (ended.code == 0).then_some(())
    });
}

#[test]
fn hosts_of_a_lost_super_node_go_to_another_one_and_back() {
    let mut federation = Federation::start(&[1, 0]);
    let owner = federation.user(1);
    let name = format!("{}/stay", owner.owner());
    Project::wasm("stay", &guest::say("here")).deploy_to(&owner, 1);
    federation.supers[0].kill();
    // It was started with the address of the first one only.
    eventually("the host is at the other super node", || {
        let ended = federation.user(1).run(["call", &name, "null", "--timeout", "4s"]);
        (ended.code == 0).then_some(())
    });
    federation.restart_super(0);
    eventually("the host is back", || {
        let log = federation.hosts[0].1.log_since_start();
        (log.matches("connected to a super node").count() >= 2).then_some(())
    });
    assert_eq!(federation.user(1).run(["call", &name, "null"]).text(), "here");
}
