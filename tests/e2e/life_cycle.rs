//! A function from `orb new` to `orb decommission`.

use std::fs;

use orb_tests::{Network, Project, scratch};
use serde_json::json;

#[test]
fn a_function_is_made_published_changed_rolled_back_and_ended() {
    let mut orb = Network::shared().user();
    let folder = scratch::folder("work");
    orb.run_in(folder.path(), ["new", "hello", "--template", "js"])
        .ok();
    let hello = folder.path().join("hello");
    orb.enter(&hello);
    assert!(hello.join("orb.toml").is_file() && hello.join("index.js").is_file());

    orb.run(["build"]).ok();
    assert!(hello.join(".orb/hello.wasm").is_file());
    let local = orb.run(["run", "--json", "--input", r#"{"name":"Ada"}"#]).json();
    assert!(local["fuel"].as_u64() > Some(0), "{local}");
    assert!(local["memory_peak_bytes"].as_u64() > Some(0), "{local}");

    fs::write(
        hello.join("index.js"),
        "export default ({ name }) => `Hello, ${name}!`;\n",
    )
    .unwrap();
    let first = orb.run(["deploy", "--json"]).json();
    assert_eq!(first["revision"], 1, "{first}");
    assert_eq!(
        orb.run(["call", "hello", r#"{"name":"Ada"}"#]).text(),
        "\"Hello, Ada!\"\n"
    );
    let call = orb.call("hello", r#"{"name":"Ada"}"#);
    assert_eq!(call["output"], "Hello, Ada!");
    assert_eq!(call["revision"], 1, "{call}");
    assert_eq!(call["attempts"], 1, "{call}");
    assert_eq!(call["host"].as_str().map(str::len), Some(52), "{call}");
    assert!(call["fuel"].as_u64() > Some(0), "{call}");
    assert!(call["times_ms"]["total"].as_f64() > Some(0.0), "{call}");

    fs::write(
        hello.join("index.js"),
        "export default ({ name }) => `Bye, ${name}!`;\n",
    )
    .unwrap();
    assert_eq!(orb.run(["deploy", "--json"]).json()["revision"], 2);
    assert_eq!(orb.answer("hello", r#"{"name":"Ada"}"#), "Bye, Ada!");

    let versions = orb.run(["versions", "hello", "--json"]).json();
    let numbers: Vec<_> = versions["revisions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| &v["revision"])
        .collect();
    assert_eq!(numbers, [2, 1], "{versions}");

    // Each names the one before it; the newest is live, and somebody holds it.
    let newest = &versions["revisions"][0];
    assert_eq!(newest["parent"], versions["revisions"][1]["hash"], "{versions}");
    assert_eq!(
        (&newest["live"], &newest["has_artifact"]),
        (&json!(true), &json!(true)),
        "{versions}"
    );
    assert!(newest["ready"].as_u64() >= Some(1), "{versions}");
    assert_eq!(versions["revisions"][1]["live"], false);
    assert!(versions["revisions"][1]["parent"].is_null(), "{versions}");
    let shown = orb.run(["versions", "hello"]).text();
    let line = shown.lines().nth(1).unwrap_or_default();
    assert!(
        ["live", "ready", "kept"].iter().all(|word| line.contains(word)),
        "{shown}"
    );

    // A rollback is a new revision with the old bytes.
    assert_eq!(orb.run(["rollback", "hello", "--json"]).json()["revision"], 3);
    assert_eq!(orb.answer("hello", r#"{"name":"Ada"}"#), "Hello, Ada!");
    assert_eq!(
        orb.run(["rollback", "hello", "--to", "2", "--json"]).json()["revision"],
        4
    );
    assert_eq!(orb.answer("hello", r#"{"name":"Ada"}"#), "Bye, Ada!");

    let listed = orb.run(["list", "--json"]).json();
    assert!(
        listed["functions"]
            .as_array()
            .unwrap()
            .iter()
            .any(|f| f["name"] == "hello"),
        "{listed}"
    );
    let inspected = orb.run(["inspect", "hello", "--json"]).json();
    assert_eq!(inspected["revision"], 4, "{inspected}");
    assert!(!inspected["hosts"].as_array().unwrap().is_empty(), "{inspected}");

    orb.run(["decommission", "hello", "--yes"]).ok();
    orb.run(["call", "hello", "null", "--json"])
        .fails(6, "decommissioned")
        .says(&["decommissioned"]);
    orb.run(["rollback", "hello", "--json"])
        .fails(6, "decommissioned");
    // Its name is not free for a plain deploy, and comes back only when its owner says so.
    orb.run(["deploy", "--json"])
        .fails(6, "decommissioned")
        .says(&["--resurrect"]);
    orb.run(["decommission", "hello", "--yes", "--json"])
        .fails(6, "decommissioned")
        .says(&["--resurrect"]);
    let again = orb.run(["deploy", "--resurrect", "--json"]).json();
    assert_eq!(
        (&again["generation"], &again["revision"]),
        (&json!(1), &json!(1)),
        "{again}"
    );
    assert_eq!(orb.answer("hello", r#"{"name":"Ada"}"#), "Bye, Ada!");
}

#[test]
fn a_function_is_called_by_its_owners_key_and_by_an_alias() {
    let network = Network::shared();
    let (developer, friend) = (network.user(), network.user());
    Project::js(
        "sum",
        "export default (numbers) => numbers.reduce((a, b) => a + b, 0);",
    )
    .deploy(&developer);
    let key = developer.owner();
    assert_eq!(friend.answer(&format!("{key}/sum"), "[1, 2, 3]"), 6);
    friend.run(["id", "alias", "colleague", &key]).ok();
    assert_eq!(friend.answer("colleague/sum", "[1, 2]"), 3);
    // One's own functions need only their name, and this one is somebody else's.
    friend.run(["call", "sum", "[]", "--json"]).fails(6, "not_found");
}

#[test]
fn a_deploy_that_changes_nothing_says_so_and_keeps_the_answer() {
    let orb = Network::shared().user();
    let project = Project::js("same", "export default () => 1;");
    project.deploy(&orb);
    project.deploy(&orb);
    assert_eq!(orb.answer("same", "null"), json!(1));
}
