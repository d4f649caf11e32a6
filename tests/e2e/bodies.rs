//! Commands, and bodies from nothing to the limit.

use orb_tests::{Network, Project, guest};

/// A function's default limit for input and answer, in bytes.
const LIMIT_BYTES: usize = 8 << 20;

#[test]
fn a_command_answers_with_what_it_writes() {
    let orb = Network::shared().user();
    Project::wasm("say", &guest::say("not JSON")).deploy(&orb);
    assert_eq!(orb.run_on(["call", "say", "-"], b"").text(), "not JSON");
}

#[test]
fn a_command_that_fails_says_how() {
    let orb = Network::shared().user();
    Project::wasm("exit", &guest::exit(3, "no luck")).deploy(&orb);
    orb.run(["call", "exit", "null", "--json"])
        .fails(5, "exit_code")
        .blames("guest")
        .says(&["3"]);
    Project::wasm("trap", &guest::trap()).deploy(&orb);
    orb.run(["call", "trap", "null", "--json"])
        .fails(5, "trap")
        .blames("guest");
}

#[test]
fn bodies_of_any_length_up_to_the_limit_come_back_whole() {
    let orb = Network::shared().user();
    Project::wasm("echo", &guest::echo()).deploy(&orb);
    for len in [0, 1, 65_535, 65_536, 65_537, 1_000_000, LIMIT_BYTES] {
        let mut input = vec![0; len];
        getrandom::fill(&mut input).unwrap();
        let answer = orb.run_on(["call", "echo", "-"], &input).ok();
        assert!(
            answer.stdout == input,
            "{len} bytes, and {} came back",
            answer.stdout.len()
        );
    }
}

#[test]
fn many_large_calls_at_once_come_back_whole() {
    let orb = Network::shared().user();
    Project::wasm("echo", &guest::echo()).deploy(&orb);
    std::thread::scope(|scope| {
        for i in 0..6_u8 {
            let orb = &orb;
            scope.spawn(move || {
                let input = vec![i; 2 << 20];
                let answer = orb.run_on(["call", "echo", "-"], &input).ok();
                assert!(answer.stdout == input, "call {i}");
            });
        }
    });
}

#[test]
fn ten_functions_live_side_by_side_on_several_hosts() {
    let orb = Network::shared().user();
    let names: Vec<String> = (0..10).map(|i| format!("f{i}")).collect();
    std::thread::scope(|scope| {
        for (i, name) in names.iter().enumerate() {
            let orb = &orb;
            scope.spawn(move || {
                let source = format!("export default (input) => [{i}, input];");
                Project::js(name, &source).set("replicas = 2").deploy_to(orb, 2);
            });
        }
    });
    let mut hosts = std::collections::BTreeSet::new();
    for (i, name) in names.iter().enumerate() {
        assert_eq!(orb.answer(name, "\"x\""), serde_json::json!([i, "x"]));
        let inspected = orb.run(["inspect", name, "--json"]).json();
        for replica in inspected["hosts"].as_array().unwrap() {
            if replica["state"] == "ready" {
                hosts.insert(replica["host"].as_str().unwrap().to_owned());
            }
        }
    }
    // Twenty replicas on three hosts: placement by distance leaves one out about once in 3^10 networks.
    assert_eq!(hosts.len(), 3, "every host holds some of the functions");
}
