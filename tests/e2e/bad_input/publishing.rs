//! Revisions that are not taken.

use orb_tests::{Network, Project, guest};

#[test]
fn a_rollback_to_a_revision_that_does_not_exist() {
    let orb = Network::shared().user();
    Project::wasm("one", &guest::say("one")).deploy(&orb);
    orb.run(["rollback", "one", "--to", "9", "--json"])
        .fails(6, "not_found")
        .says(&["9"]);
    orb.run(["rollback", "one", "--to", "0", "--json"])
        .fails(6, "not_found");
    // There is nothing before the first one.
    orb.run(["rollback", "one", "--json"])
        .fails(6, "not_found")
        .says(&["one"]);
    // The live one is what there is already.
    orb.run(["rollback", "one", "--to", "1", "--json"])
        .fails(2, "input_invalid")
        .says(&["nothing to roll back", "revision 1"]);
    let versions = orb.run(["versions", "one", "--json"]).json();
    assert_eq!(versions["revisions"].as_array().map(Vec::len), Some(1));
    assert_eq!(orb.run(["call", "one", "null"]).text(), "one");
}

#[test]
fn a_decommission_with_the_wrong_key() {
    let network = Network::shared();
    let (owner, stranger) = (network.user(), network.user());
    Project::wasm("mine", &guest::say("mine")).deploy(&owner);
    let function = format!("{}/mine", owner.owner());
    for command in [
        &["decommission", &function, "--yes", "--json"][..],
        &["rollback", &function, "--json"],
    ] {
        stranger
            .run(command)
            .fails(7, "refused")
            .blames("caller")
            .says(&["key"]);
    }
    assert_eq!(stranger.run(["call", &function, "null"]).text(), "mine");
}

#[test]
fn an_owner_over_the_number_of_functions() {
    let network = Network::start_with(1, &["--owner-functions-max", "2"], &[]);
    let orb = network.user();
    for name in ["first", "second"] {
        Project::wasm(name, &guest::say(name)).deploy(&orb);
    }
    let third = Project::wasm("third", &guest::say("third"));
    let failure = orb.run_in(third.path(), ["deploy", "--json"]).fails(7, "refused");
    failure.blames("caller").says(&["2", "function"]);
    orb.run(["call", "third", "null", "--json"]).fails(6, "not_found");
    // What is there can still be changed, somebody else has a quota of their own, and there is room
    // again when something ends.
    Project::wasm("second", &guest::say("changed")).deploy(&orb);
    assert_eq!(orb.run(["call", "second", "null"]).text(), "changed");
    Project::wasm("theirs", &guest::say("theirs")).deploy(&network.user());
    orb.run(["decommission", "first", "--yes"]).ok();
    third.deploy(&orb);
    assert_eq!(orb.run(["call", "third", "null"]).text(), "third");
}

#[test]
fn an_owner_over_the_number_of_bytes() {
    let network = Network::start_with(1, &["--owner-bytes-max", "1MiB"], &[]);
    let orb = network.user();
    let project = Project::wasm("big", &guest::padded(guest::say("first"), 700_000));
    project.deploy(&orb);
    project.edit(guest::padded(guest::say("second"), 700_000));
    let failure = orb
        .run_in(project.path(), ["deploy", "--json"])
        .fails(7, "refused");
    failure.blames("caller").says(&["bytes"]);
    assert_eq!(orb.run(["call", "big", "null"]).text(), "first");
    let versions = orb.run(["versions", "big", "--json"]).json();
    assert_eq!(versions["revisions"].as_array().map(Vec::len), Some(1));
}

#[test]
fn an_artifact_over_the_super_nodes_limit() {
    let network = Network::start_with(0, &["--artifact-bytes-max", "100KiB"], &[]);
    let orb = network.user();
    let project = Project::wasm("big", &guest::padded(guest::say("big"), 200_000));
    let failure = orb
        .run_in(project.path(), ["deploy", "--no-wait", "--json"])
        .fails(7, "refused");
    failure.blames("caller").says(&["bytes"]);
    orb.run(["inspect", "big", "--json"]).fails(6, "not_found");
}

#[test]
fn an_owner_who_is_not_on_the_list() {
    let friend = orb_tests::Orb::new();
    let key = friend.owner();
    let network = Network::start_with(1, &["--owners", "list", "--owner", &key], &[]);
    let mut friend = friend;
    friend.move_to(&network.address);
    let project = Project::wasm("listed", &guest::say("listed"));
    project.deploy(&friend);
    let stranger = network.user();
    let failure = stranger
        .run_in(project.path(), ["deploy", "--json"])
        .fails(7, "refused");
    failure.blames("caller").says(&["list"]);
    // Calling needs no place on the list.
    assert_eq!(
        stranger.run(["call", &format!("{key}/listed"), "null"]).text(),
        "listed"
    );
}

#[test]
fn limits_above_every_hosts_ceiling() {
    let network = Network::start_with(1, &[], &["--memory-bytes-max", "32MiB"]);
    let orb = network.user();
    let project = Project::wasm("greedy", &guest::say("greedy"));
    // Stored, and no host takes it: that is said, and is no error.
    let deployed = project.deploy_with(&orb, &[]);
    assert_eq!(deployed["ready"], serde_json::json!([]));
    assert!(
        deployed["note"]
            .as_str()
            .is_some_and(|note| note.contains("memory_bytes")),
        "{deployed}"
    );
    orb.run(["call", "greedy", "null", "--json"])
        .fails(8, "no_live_host");
    Project::wasm("greedy", &guest::say("modest"))
        .limit("memory_bytes = 1_048_576")
        .deploy(&orb);
    assert_eq!(orb.run(["call", "greedy", "null"]).text(), "modest");
}
