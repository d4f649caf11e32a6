//! What JavaScript functions may do, and how they fail.

use orb_tests::{Network, Project};
use serde_json::json;

#[test]
fn functions_are_synchronous_or_asynchronous() {
    let orb = Network::shared().user();
    Project::js("now", "export default ({ a, b }) => a + b;").deploy(&orb);
    assert_eq!(orb.answer("now", r#"{"a": 2, "b": 3}"#), 5);
    let later = "export default async ({ a, b }) => { await null; return Promise.all([a, b]); };";
    Project::js("later", later).deploy(&orb);
    assert_eq!(orb.answer("later", r#"{"a": 2, "b": 3}"#), json!([2, 3]));
    Project::js("nothing", "export default () => {};").deploy(&orb);
    assert_eq!(orb.run(["call", "nothing", "null"]).text(), "null\n");
}

#[test]
fn the_context_tells_what_is_called_and_under_which_name() {
    let orb = Network::shared().user();
    let deployed = Project::js("who", "export default (_, ctx) => ctx;").deploy(&orb);
    let context = orb.answer("who", "null");
    assert_eq!(context["revision"], deployed["revision"], "{context}");
    assert!(
        context["function"]
            .as_str()
            .is_some_and(|name| name.contains("who")),
        "{context}"
    );
    assert!(
        context["request_id"].is_string() && context["deadline_ms"].is_number(),
        "{context}"
    );
}

#[test]
fn a_thrown_error_names_its_line_in_the_developers_source() {
    let orb = Network::shared().user();
    let source = "// The first line.\nexport default ({ name }) => {\n  if (!name) throw new TypeError(\"no name\");\n  return name;\n};\n";
    Project::js("strict", source).deploy(&orb);
    orb.run(["call", "strict", "{}", "--json"])
        .fails(5, "thrown")
        .blames("guest")
        .says(&["no name", "index.js:3"]);
    let rejected = "export default async () => {\n  await null;\n  throw new Error(\"too late\");\n};\n";
    Project::js("rejects", rejected).deploy(&orb);
    orb.run(["call", "rejects", "{}", "--json"])
        .fails(5, "thrown")
        .says(&["too late", "index.js:3"]);
    assert_eq!(orb.answer("strict", r#"{"name": "Ada"}"#), "Ada");
}

#[test]
fn each_fault_of_a_guest_has_its_kind_and_the_next_call_is_unharmed() {
    let orb = Network::shared().user();
    let source = r"export default (what) => {
        switch (what) {
            case 'loop': for (;;) {}
            case 'memory': { const all = []; for (;;) all.push(new Uint8Array(1 << 20).fill(1)); }
            case 'never': return new Promise(() => {});
            case 'big': return 10n;
            default: return what;
        }
    };";
    Project::js("moods", source)
        .limit("fuel = 500_000_000")
        .deploy(&orb);
    for (what, kind) in [
        ("loop", "fuel_exhausted"),
        ("memory", "memory_limit"),
        ("never", "unsettled_promise"),
        ("big", "bad_output"),
    ] {
        let input = format!("{what:?}");
        orb.run(["call", "moods", &input, "--json"])
            .fails(5, kind)
            .blames("guest");
        assert_eq!(orb.answer("moods", "\"fine\""), "fine", "after {what}");
    }
}

#[test]
fn nothing_is_left_from_one_call_for_the_next() {
    let orb = Network::shared().user();
    Project::js("count", "let n = 0; export default () => { globalThis.m = (globalThis.m ?? 0) + 1; return [++n, globalThis.m]; };")
        .deploy(&orb);
    for _ in 0..3 {
        assert_eq!(orb.answer("count", "null"), json!([1, 1]));
    }
}

#[test]
fn a_script_without_a_default_export_reads_and_writes_bytes() {
    let orb = Network::shared().user();
    let source = r"
        const input = [];
        for (;;) {
            const part = new Uint8Array(1024);
            const read = Javy.IO.readSync(0, part);
            if (read === 0) break;
            input.push(...part.subarray(0, read));
        }
        Javy.IO.writeSync(1, new Uint8Array(input.map((byte) => byte ^ 0xff)));
    ";
    Project::js("invert", source).deploy(&orb);
    let input: Vec<u8> = (0..=255).collect();
    let answer = orb.run_on(["call", "invert", "-"], &input).ok();
    assert_eq!(answer.stdout, (0..=255).rev().collect::<Vec<u8>>());
    // Bytes that are not JSON come as base64.
    let document = orb.run_on(["call", "invert", "-", "--json"], &[0, 1]).json();
    assert_eq!(document["output_base64"], "//4=", "{document}");
}
