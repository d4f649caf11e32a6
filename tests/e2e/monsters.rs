//! Modules that are meant to hurt a host before or while they run, from a stranger, among the
//! functions of others: whoever calls those is answered as ever.

use orb_tests::{Orb, Project, guest};

use crate::peers::Town;

/// A name, a module, and what may become of it: answered, or a fault of some kind.
type Monster = (&'static str, Vec<u8>, &'static [Option<&'static str>]);

/// Guests by name, each with how a call of it may end: the label of a fault, or `None` for an answer.
fn monsters() -> Vec<Monster> {
    const COMMAND: &str = r#"(memory (export "memory") 1) (func (export "_start"))"#;
    let module = |fields: String| guest::module(&format!("{fields} {COMMAND}"));
    vec![
        (
            "start-loop",
            module("(func $forever (loop $l (br $l))) (start $forever)".to_owned()),
            &[Some("fuel_exhausted")],
        ),
        (
            "nested",
            module(format!(
                "(func {} {})",
                "block ".repeat(30_000),
                "end ".repeat(30_000)
            )),
            &[None, Some("compile_limit"), Some("no_live_host")],
        ),
        (
            "tables",
            module("(table 65536 funcref) (table 65536 funcref)".to_owned()),
            &[None],
        ),
        (
            "functions",
            module("(func)".repeat(20_000)),
            &[None, Some("compile_limit"), Some("no_live_host")],
        ),
        // What takes a compiler longest: thousands of variables that live to the end.
        (
            "slow",
            module(slow(8_000, 30_000)),
            &[None, Some("compile_limit"), Some("no_live_host")],
        ),
    ]
}

/// A function in which so many variables are used until its end, in so many steps.
fn slow(locals: usize, steps: usize) -> String {
    let step = |n: usize| {
        let [a, b, c] = [n, n * 3, n * 7].map(|n| n % locals);
        format!("local.get {a} local.get {b} i64.mul local.get {c} i64.add local.set {c} ")
    };
    let body: String = (0..steps).map(step).collect();
    format!("(func (local {}) {body})", "i64 ".repeat(locals))
}

#[test]
fn others_are_served_among_monsters() {
    let town = Town::start();
    let stranger = town.network.user();
    for (name, wasm, _) in monsters() {
        Project::wasm(name, &wasm)
            .limit("fuel = 1_000_000_000")
            .deploy_with(&stranger, &["--no-wait"]);
        town.others_are_served();
    }
    let calls: Vec<_> = monsters()
        .iter()
        .flat_map(|(name, ..)| (0..3).map(|_| stranger.start(["call", name, "null", "--timeout", "5s"])))
        .collect();
    for _ in 0..3 {
        town.others_are_served();
    }
    for call in calls {
        call.kill();
    }
    for (name, _, ends) in monsters() {
        ends_as(&stranger, name, ends);
        town.others_are_served();
    }
}

/// Calls a function until it ends in one of these ways: the host may still be compiling it.
#[track_caller]
fn ends_as(orb: &Orb, name: &str, ends: &[Option<&str>]) {
    orb_tests::eventually(&format!("a call of {name} ends as {ends:?}"), || {
        let ended = orb.run(["call", name, "null", "--json"]);
        let document: serde_json::Value = serde_json::from_slice(&ended.stdout).ok()?;
        ends.contains(&document["error"]["kind"].as_str()).then_some(())
    });
}

#[test]
fn modules_that_do_not_run_here_are_refused_when_they_are_published() {
    let town = Town::start();
    let stranger = town.network.user();
    let start = r#"(memory (export "memory") 1) (func (export "_start"))"#;
    let import = r#"(import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))"#;
    for (name, fields) in [
        ("threads", "(memory 1 1 shared)".to_owned()),
        ("memories", "(memory 1)".to_owned()),
        ("table", "(table 65537 funcref)".to_owned()),
        ("many", "(func)".repeat(65_537)),
        ("imports", import.repeat(1_001)),
    ] {
        let project = Project::wasm(name, &guest::module(&format!("{fields} {start}")));
        let ended = stranger.run_in(project.path(), ["deploy", "--json"]);
        assert_ne!(ended.code, 0, "{name} was taken");
    }
    town.others_are_served();
}
