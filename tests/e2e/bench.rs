//! `orb bench` against real hosts.

use orb_tests::{Network, Project, eventually, guest};
use serde_json::Value;

/// How long the guests of these tests sleep, in milliseconds.
const SLEEP_MS: u64 = 20;

#[test]
fn a_closed_loop_makes_the_calls_that_were_asked_for_and_says_where_their_time_went() {
    let orb = Network::shared().user();
    Project::wasm("sleep", &guest::sleep_then_say(SLEEP_MS, "done")).deploy(&orb);
    let arguments = [
        "bench",
        "sleep",
        "--concurrency",
        "4",
        "--requests",
        "40",
        "--warm-up",
        "100ms",
    ];
    let measured = orb.run([&arguments[..], &["--json"]].concat()).json();
    assert_eq!(
        (&measured["loop"], &measured["concurrency"]),
        (&"closed".into(), &4.into())
    );
    assert_eq!(
        (&measured["calls"], &measured["answered"]),
        (&40.into(), &40.into()),
        "{measured}"
    );
    assert_eq!(
        (&measured["errors"], &measured["interrupted"]),
        (&serde_json::json!({}), &false.into())
    );
    let (latency, guest) = (&measured["latency_ms"], &measured["breakdown_ms"]["guest"]);
    assert_rising(latency);
    assert_rising(guest);
    assert!(number(guest, "min") >= SLEEP_MS as f64 * 0.99, "{measured}");
    assert!(number(guest, "p50") <= number(latency, "p50"), "{measured}");
    assert!(number(&measured, "answers_per_second") > 0.0, "{measured}");
    let of_hosts = measured["hosts"].as_array().unwrap().iter();
    assert_eq!(
        of_hosts
            .map(|host| host["answered"].as_u64().unwrap())
            .sum::<u64>(),
        40
    );
    // And for people.
    let ended = orb.run(arguments).ok();
    assert!(ended.stderr.contains("warming up"), "{ended}");
    let text = ended.text();
    for word in [
        "40 answers",
        "p99.9",
        "latency",
        "queue",
        "network",
        "guest",
        "hosts",
    ] {
        assert!(text.contains(word), "{word} in {text}");
    }
    assert!(!text.contains("errors"), "{text}");
}

#[test]
fn in_an_open_loop_latency_counts_from_when_a_call_should_have_begun() {
    // One at a time, 200 ms each, and a call wanted every 100 ms: each waits longer than the one before.
    let network = Network::start_with(1, &[], &["--capacity", "1", "--queue-wait-ms-max", "60000"]);
    let orb = network.user();
    Project::wasm("slow", &guest::sleep_then_say(200, "done")).deploy(&orb);
    let measured = orb
        .run([
            "bench",
            "slow",
            "--rate",
            "10",
            "--requests",
            "12",
            "--warm-up",
            "0",
            "--json",
        ])
        .json();
    assert_eq!(
        (&measured["loop"], number(&measured, "rate")),
        (&"open".into(), 10.0)
    );
    assert_eq!(
        (&measured["calls"], &measured["answered"]),
        (&12.into(), &12.into()),
        "{measured}"
    );
    // The last one began after 1.1 s, and could not end before twelve of them had run.
    let (latency, queue) = (&measured["latency_ms"], &measured["breakdown_ms"]["queue"]);
    assert!(number(latency, "max") >= 1_250.0, "{measured}");
    assert!(number(queue, "max") >= 1_000.0, "{measured}");
    assert!(
        number(&measured["breakdown_ms"]["late"], "max") >= 0.0,
        "{measured}"
    );
}

#[test]
fn what_fails_is_counted_by_kind() {
    let orb = Network::shared().user();
    Project::js("moody", "export default () => { throw new Error('no'); };").deploy(&orb);
    let ended = orb.run([
        "bench",
        "moody",
        "null",
        "--requests",
        "5",
        "--warm-up",
        "0",
        "--json",
    ]);
    assert_eq!(ended.code, 5, "nothing was answered: {ended}");
    let measured: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(
        (&measured["answered"], &measured["errors"]["thrown"]),
        (&0.into(), &5.into()),
        "{measured}"
    );
    let ended = orb.run(["bench", "moody", "null", "--requests", "5", "--warm-up", "0"]);
    assert_eq!(ended.code, 5, "{ended}");
    assert!(ended.stderr.contains("nothing was answered: "), "{ended}");
    // Before anything is measured.
    orb.run(["bench", "nobody", "null", "--json"])
        .fails(6, "not_found");
    orb.run(["bench", "moody", "{", "--json"])
        .fails(2, "input_invalid");
    orb.run(["bench", "moody", "null", "--rate", "0", "--json"])
        .fails(2, "usage");
    orb.run([
        "bench",
        "moody",
        "null",
        "--rate",
        "1",
        "--concurrency",
        "1",
        "--json",
    ])
    .fails(2, "usage");
}

#[test]
fn an_interrupted_measurement_tells_what_it_has() {
    let network = Network::start(1);
    let orb = network.user();
    Project::wasm("sleep", &guest::sleep_then_say(SLEEP_MS, "done")).deploy(&orb);
    let bench = orb.start(["bench", "sleep", "--duration", "1h", "--warm-up", "0", "--json"]);
    eventually("the calls run", || network.busy_host(&orb, "sleep"));
    bench.interrupt();
    let measured = bench.wait().json();
    assert_eq!(measured["interrupted"], true, "{measured}");
    assert!(measured["answered"].as_u64() > Some(0), "{measured}");
    assert_rising(&measured["latency_ms"]);
}

fn number(value: &Value, name: &str) -> f64 {
    value[name]
        .as_f64()
        .unwrap_or_else(|| panic!("{name} in {value}"))
}

#[track_caller]
fn assert_rising(percentiles: &Value) {
    let values = ["min", "p50", "p90", "p99", "p999", "max"].map(|name| number(percentiles, name));
    assert!(values.is_sorted(), "{percentiles}");
}
