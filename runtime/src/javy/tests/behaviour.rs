//! What programs may count on.

use super::*;
use crate::javy::Kind;

#[test]
fn a_function_gets_its_input_and_gives_its_answer() {
    let source = "export default (input) => ({ hello: input.name, n: input.list.length })";
    let answer = run(source, r#"{"name":"Ada","list":[1,2]}"#).answer();
    assert_eq!(answer, r#"{"hello":"Ada","n":2}"#);
}

#[test]
fn every_kind_of_json_comes_in_and_goes_out() {
    for json in [
        "null",
        "true",
        "0",
        "-1.5",
        "1e+21",
        "\"\"",
        "[]",
        "{}",
        r#"{"a":[1,{"b":null}]}"#,
        r#""\u0000\n\"\\""#,
    ] {
        assert_eq!(eval("input", json), json);
    }
    assert_eq!(eval("input", " [ 1 , 2 ] \n"), "[1,2]");
    assert_eq!(eval("input", r#"{"__proto__":1}"#), r#"{"__proto__":1}"#);
}

#[test]
fn text_beyond_ascii_survives() {
    let json = r#""Grüße, 世界, 🎉, e\u0301""#;
    assert_eq!(eval("input", json), json.replace(r"\u0301", "\u{301}"));
    assert_eq!(eval("'Grüße 🎉'.length", "0"), "8");
    // A lone surrogate is no Unicode text: JSON keeps it as an escape.
    assert_eq!(eval("input", r#""\ud83c""#), r#""\ud83c""#);
}

#[test]
fn no_answer_is_null() {
    assert_eq!(eval("undefined", "0"), "null");
    assert_eq!(run("export default () => {}", "0").answer(), "null");
    assert_eq!(run("export default async () => {}", "0").answer(), "null");
}

#[test]
fn the_second_parameter_describes_the_call() {
    let ctx = r#"{"function":"o/f","revision":7,"request_id":"r-1","deadline_ms":1700000000000}"#;
    assert_eq!(eval("ctx", "0"), ctx);
}

#[test]
fn a_function_may_be_asynchronous() {
    let source = "
        const later = (x) => new Promise((resolve) => resolve(x));
        export default async (input) => {
            let sum = 0;
            for await (const x of input.map(later)) sum += await later(x);
            return sum;
        }";
    assert_eq!(run(source, "[1,2,3]").answer(), "6");
    assert_eq!(run("export default () => Promise.resolve(5)", "0").answer(), "5");
    assert_eq!(
        run("const x = await Promise.resolve(4); export default () => x", "0").answer(),
        "4"
    );
}

#[test]
fn what_a_function_started_runs_to_its_end() {
    let source = "
        export default () => {
            Promise.resolve().then(() => console.log('later'));
            return 1;
        }";
    let ran = run(source, "0");
    assert_eq!(ran.log, "later\n");
    assert_eq!(ran.answer(), "1");
}

#[test]
fn a_default_export_takes_any_of_its_forms() {
    for source in [
        "export default function (x) { return x }",
        "export default function named(x) { return x }",
        "export default async function (x) { return x }",
        "const f = (x) => x; export default f",
        "const f = (x) => x; export { f as default }",
        "#!/usr/bin/env node\nexport default (x) => x",
    ] {
        assert_eq!(compile(source).kind, Kind::Function, "{source}");
        assert_eq!(run(source, "3").answer(), "3", "{source}");
    }
}

#[test]
fn a_default_export_that_is_no_function_is_thrown() {
    let thrown = run("export default 5", "0").thrown();
    assert_eq!(thrown.message, "TypeError: the default export is not a function");
    assert_eq!(thrown.file.as_deref(), Some("index.js"));
}

#[test]
fn the_console_writes_to_the_log_only() {
    let source = "
        export default () => {
            console.log('log', 1, true, null, undefined);
            console.info([1, { a: 'b' }]);
            console.warn(10n, Symbol('s'));
            console.error(new TypeError('bad'));
            console.debug('🎉');
            const cycle = {}; cycle.self = cycle;
            console.log(cycle);
            return 1;
        }";
    let ran = run(source, "0");
    insta::assert_snapshot!(ran.log, @r#"
    log 1 true null undefined
    [1,{"a":"b"}]
    10 Symbol(s)
    TypeError: bad
        at default (index.js:6:31)
    🎉
    [object Object]
    "#);
    assert!(ran.stdout.is_empty());
    assert_eq!(ran.answer(), "1");
}

#[test]
fn a_rejection_that_nobody_handles_is_logged() {
    let source = "
        export default () => {
            Promise.reject(new Error('lost'));
            Promise.reject(new Error('found')).catch(() => {});
            return 1;
        }";
    let ran = run(source, "0");
    assert!(
        ran.log
            .starts_with("Uncaught (in promise) Error: lost\n    at default (index.js:3:")
    );
    assert!(!ran.log.contains("found"));
    assert_eq!(ran.answer(), "1");
}

#[test]
fn a_program_without_default_export_is_a_script_on_raw_bytes() {
    let source = "
        const bytes = new Uint8Array(64);
        let all = [];
        for (;;) {
            const n = Javy.IO.readSync(0, bytes);
            if (n === 0) break;
            all = all.concat([...bytes.subarray(0, n)]);
        }
        console.log('read', all.length);
        Javy.IO.writeSync(1, new Uint8Array(all.reverse()));
        Javy.IO.writeSync(2, new TextEncoder().encode('raw\\n'));";
    let compiled = compile(source);
    assert_eq!(compiled.kind, Kind::Script);
    let ran = run_compiled(&compiled, b"\x00\xff\x01", 0);
    assert_eq!(ran.stdout, b"\x01\xff\x00");
    assert_eq!(ran.log, "read 3\nraw\n");
    assert_eq!(ran.outcome.unwrap(), RunOutcome::ScriptDone);
}

#[test]
fn javys_own_example_runs_unchanged() {
    let source = include_str!("javy_example.js");
    let compiled = compile(source);
    assert_eq!(compiled.kind, Kind::Script);
    let ran = run_compiled(&compiled, br#"{ "n": 2, "bar": "baz" }"#, 0);
    assert_eq!(ran.outcome.unwrap(), RunOutcome::ScriptDone);
    assert_eq!(ran.stdout, br#"{"foo":3,"newBar":"baz!"}"#);
}

#[test]
fn named_exports_alone_make_a_script() {
    assert_eq!(
        compile("export const defaults = 1; export { defaults as x }").kind,
        Kind::Script
    );
    assert_eq!(compile("").kind, Kind::Script);
    assert_eq!(compile("const s = 'export default'").kind, Kind::Script);
}

#[test]
fn the_language_is_whole() {
    for (expression, answer) in [
        ("'e\\u0301'.normalize('NFC').length", "1"),
        ("String(2n ** 64n)", "\"18446744073709551616\""),
        (
            "/(?<year>\\d{4})-(?<month>\\d\\d)/u.exec('on 2026-11').groups.month",
            "\"11\"",
        ),
        ("'aXbX'.replaceAll(/(?<=b)X/g, '-')", "\"aXb-\""),
        ("/\\p{Script=Greek}/u.test('π')", "true"),
        ("new TextDecoder().decode(new TextEncoder().encode('π'))", "\"π\""),
        (
            "[...new Set([1, 1, 2])].concat([...new Map([[3, 4]]).keys()])",
            "[1,2,3]",
        ),
        ("new Proxy({}, { get: (_, key) => key }).hello", "\"hello\""),
        ("new Date(0).toISOString()", "\"1970-01-01T00:00:00.000Z\""),
        ("{ const o = {}; return new WeakRef(o).deref() === o }", "true"),
        ("[3, 1, 2].toSorted().at(-1)", "3"),
        (
            "Object.groupBy([1, 2, 3], (x) => x % 2 ? 'odd' : 'even').odd",
            "[1,3]",
        ),
        ("structuredClone === undefined", "true"),
        ("new Float64Array([0.5])[0]", "0.5"),
        ("eval('1 + 1')", "2"),
        ("(function* () { yield 1; yield 2 })().next().value", "1"),
        ("Reflect.ownKeys({ a: 1 })", "[\"a\"]"),
        ("Intl === undefined", "true"),
    ] {
        let expression = match expression.strip_suffix(" === undefined") {
            Some(name) => format!("typeof {name} === 'undefined'"),
            None => expression.to_owned(),
        };
        assert_eq!(eval(&expression, "0"), answer, "{expression}");
    }
}

#[test]
fn clocks_and_random_numbers_are_of_the_call() {
    assert_eq!(eval("Date.now() > 1.7e12", "0"), "true");
    assert_eq!(eval("performance.now()", "0"), "0");
    assert_eq!(
        eval("{ performance.now(); return performance.now() >= 0 }", "0"),
        "true"
    );
    assert_ne!(eval("Math.random()", "0"), eval("Math.random()", "0"));
    assert_eq!(eval("[Math.random()].every((x) => x >= 0 && x < 1)", "0"), "true");
}

#[test]
fn a_call_finds_nothing_of_the_call_before() {
    let compiled = compile("globalThis.n = (globalThis.n ?? 0) + 1; export default () => n");
    for _ in 0..2 {
        assert_eq!(run_compiled(&compiled, b"0", 9).answer(), "1");
    }
}
