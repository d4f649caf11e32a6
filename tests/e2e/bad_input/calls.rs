//! Calls that cannot be answered.

use orb_tests::{Network, Project, guest};

#[test]
fn a_function_that_does_not_exist() {
    let orb = Network::shared().user();
    orb.run(["call", "nobody", "null", "--json"])
        .fails(6, "not_found")
        .blames("caller")
        .says(&["nobody"]);
    for command in ["inspect", "versions", "rollback"] {
        orb.run([command, "nobody", "--json"])
            .fails(6, "not_found")
            .says(&["nobody"]);
    }
    orb.run(["decommission", "nobody", "--yes", "--json"])
        .fails(6, "not_found");
}

#[test]
fn a_function_that_was_decommissioned() {
    let orb = Network::shared().user();
    Project::wasm("ended", &guest::say("ended")).deploy(&orb);
    orb.run(["decommission", "ended", "--yes"]).ok();
    orb.run(["call", "ended", "null", "--json"])
        .fails(6, "decommissioned")
        .blames("caller")
        .says(&["decommissioned", "--resurrect"]);
    orb.run(["decommission", "ended", "--yes", "--json"])
        .fails(6, "decommissioned");
}

#[test]
fn a_function_that_has_no_live_host() {
    let network = Network::start(0);
    let orb = network.user();
    let deployed = Project::wasm("alone", &guest::say("alone")).deploy_with(&orb, &["--no-wait"]);
    assert_eq!(deployed["revision"], 1);
    orb.run(["call", "alone", "null", "--json"])
        .fails(8, "no_live_host")
        .blames("network")
        .says(&["host"]);
}

#[test]
fn input_that_is_not_json_for_a_javascript_function() {
    let orb = Network::shared().user();
    let project = Project::js("json", "export default (x) => x;");
    project.deploy(&orb);
    for input in ["not json", "{", "[1,]", "", "\"\u{1}\""] {
        orb.run(["call", "json", input, "--json"])
            .fails(2, "input_invalid")
            .blames("caller")
            .says(&["JSON"]);
    }
    orb.run_on(["call", "json", "-", "--json"], b"\xff\xfe")
        .fails(2, "input_invalid")
        .says(&["JSON"]);
    orb.run_in(project.path(), ["run", "--input", "{", "--json"])
        .fails(2, "input_invalid")
        .says(&["JSON"]);
    assert_eq!(orb.answer("json", "[1]"), serde_json::json!([1]));
}

#[test]
fn input_over_the_limit() {
    let orb = Network::shared().user();
    let project = Project::wasm("short", &guest::echo()).limit("input_bytes = 1_000");
    project.deploy(&orb);
    assert_eq!(
        orb.run_on(["call", "short", "-"], &[b'x'; 1_000])
            .ok()
            .stdout
            .len(),
        1_000
    );
    for len in [1_001, 1 << 20] {
        orb.run_on(["call", "short", "-", "--json"], &vec![b'x'; len])
            .fails(2, "input_too_large")
            .blames("caller")
            .says(&["1000", "input_bytes"]);
    }
    orb.run_in(project.path(), ["run", "--json", "--input", &"x".repeat(1_001)])
        .fails(2, "input_too_large");
}

#[test]
fn an_answer_over_the_limit() {
    let orb = Network::shared().user();
    Project::wasm("long", &guest::echo())
        .limit("output_bytes = 1_000")
        .deploy(&orb);
    orb.run_on(["call", "long", "-", "--json"], &[b'x'; 1_001])
        .fails(5, "output_limit")
        .blames("guest");
    assert_eq!(
        orb.run_on(["call", "long", "-"], &[b'x'; 1_000])
            .ok()
            .stdout
            .len(),
        1_000
    );
}

#[test]
fn a_deadline_that_passes() {
    let orb = Network::shared().user();
    Project::wasm("slow", &guest::sleep_then_say(9_000, "late")).deploy(&orb);
    orb.run(["call", "slow", "null", "--timeout", "300ms", "--json"])
        .fails(3, "deadline_exceeded")
        .blames("caller")
        .says(&["--timeout"]);
    Project::wasm("limited", &guest::sleep_then_say(9_000, "late"))
        .limit("time_ms = 300")
        .deploy(&orb);
    orb.run(["call", "limited", "null", "--json"])
        .fails(5, "time_limit")
        .blames("guest")
        .says(&["300"]);
}
