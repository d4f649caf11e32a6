//! What keeps a hostile program inside.

use super::*;
use wasmtime::Trap;

#[test]
fn endless_recursion_is_thrown_and_can_be_caught() {
    let thrown = run("const f = () => f() + 1;\nexport default () => f()", "0").thrown();
    assert_eq!(thrown.message, "RangeError: Maximum call stack size exceeded");
    assert_eq!(thrown.line, Some(1));
    let source = "
        const f = () => f() + 1;
        export default () => { try { f() } catch (e) { return e.name } }";
    assert_eq!(run(source, "0").answer(), "\"RangeError\"");
}

#[test]
fn every_way_of_nesting_ends_in_an_error() {
    for body in [
        "return JSON.parse('['.repeat(1e6))",
        "return JSON.parse('{\"a\":'.repeat(1e6))",
        "let a = []; for (let i = 0; i < 1e5; i++) a = [a]; return a.flat(Infinity)",
        "let a = []; for (let i = 0; i < 1e5; i++) a = [a]; return String(a)",
        "return new RegExp('(?:'.repeat(1e6))",
        "const p = new Proxy({}, { get: (t, k, r) => r[k] }); return p.x",
        "let p = {}; for (let i = 0; i < 1e5; i++) p = new Proxy(p, {}); return p.x",
        "const o = { toString() { return `${o}` } }; return `${o}`",
        "const o = { get x() { return this.x } }; return o.x",
        "class A { constructor() { this.x = new A() } } return new A()",
        "const f = () => [1].map(f); return f()",
        "const f = () => [2, 1].sort(f); return f()",
        "const f = () => 'x'.replace(/x/, f); return f()",
        "const f = () => Reflect.apply(f, null, []); return f()",
        "const f = () => JSON.parse('[1]', f); return f()",
        "const f = () => Array.from({ length: 1 }, f); return f()",
        "function* g() { yield* g() } return [...g()]",
        "const o = { toJSON() { return JSON.stringify(o) } }; return JSON.stringify(o)",
        "const f = () => eval('f()'); return f()",
        "const f = { [Symbol.iterator]() { return [...f] } }; return [...f]",
        "async function f() { await f() } await f()",
    ] {
        let thrown = run(&format!("export default async () => {{ {body} }}"), "0").thrown();
        assert!(
            ["RangeError: Maximum call", "SyntaxError: stack overflow"]
                .iter()
                .any(|start| thrown.message.starts_with(start)),
            "{body}: {}",
            thrown.message
        );
    }
}

/// QuickJS's own parser does not look at the stack everywhere. It traps then, which does no harm.
#[test]
fn source_that_is_nested_too_deeply_does_no_harm() {
    let source = "(".repeat(1_000_000);
    assert!(matches!(
        compile_as("index.js", source.as_bytes()),
        Err(CompileError::Engine(_) | CompileError::Syntax(_))
    ));
}

#[test]
fn deep_input_is_refused() {
    let input = "[".repeat(1_000_000);
    assert!(matches!(
        run("export default (x) => 1", &input).outcome.unwrap(),
        RunOutcome::BadInput { .. }
    ));
}

fn trap(source: &str) -> Option<Trap> {
    let error = run(source, "0").outcome.unwrap_err();
    error.downcast_ref::<Trap>().copied()
}

#[test]
fn endless_work_burns_its_fuel() {
    for source in [
        "export default () => { for (;;); }",
        "for (;;); export default () => 1",
        "export default () => /^(a+)+$/.test('a'.repeat(40) + 'b')",
        "export default async () => { for (;;) await null }",
        "const f = () => { Promise.resolve().then(f) }; export default () => { f(); return 1 }",
        "export default () => { throw { get message() { for (;;); }, toJSON() { for (;;); } } }",
    ] {
        assert_eq!(trap(source), Some(Trap::OutOfFuel), "{source}");
    }
}

#[test]
fn memory_that_is_used_up_is_told_as_such() {
    for source in [
        "export default () => { const a = []; for (;;) a.push(new Uint8Array(1e6)) }",
        "export default () => { const a = []; for (;;) a.push({}) }",
        "export default () => 'x'.repeat(3e7) + '🎉'",
        "export default () => new ArrayBuffer(1e9)",
        "const a = []; for (;;) a.push('x'.repeat(1e5) + a.length)",
    ] {
        assert_eq!(
            run(source, "0").outcome.unwrap(),
            RunOutcome::OutOfMemory,
            "{source}"
        );
    }
}

#[test]
fn memory_in_cycles_is_collected() {
    let source = "
        export default () => {
            for (let i = 0; i < 2000; i++) { const a = { b: new Uint8Array(1e5) }; a.a = a }
            return 'done';
        }";
    assert_eq!(run(source, "0").answer(), "\"done\"");
}

#[test]
fn an_answer_over_the_limit_is_not_taken() {
    let compiled = compile("export default (n) => 'x'.repeat(n)");
    let ran = run_compiled(&compiled, b"8", 10);
    assert_eq!(ran.answer(), "\"xxxxxxxx\"");
    let ran = run_compiled(&compiled, b"9", 10);
    assert_eq!(ran.outcome.unwrap(), RunOutcome::OutputTooLarge { bytes: 11 });
}

#[test]
fn bytecode_that_is_damaged_does_no_harm() {
    let whole = compile("export default (x) => [x, 'text', 1.5, /re/]");
    for at in 0..whole.bytecode.len() {
        let mut damaged = whole.clone();
        damaged.bytecode[at] ^= 0x55;
        let outcome = run_compiled(&damaged, b"1", 99).outcome;
        if let Ok(RunOutcome::Thrown(thrown)) = &outcome {
            assert!(thrown.message.contains("bytecode"), "{}", thrown.message);
        }
    }
    for len in 0..whole.bytecode.len() {
        let cut = Compiled {
            bytecode: whole.bytecode[..len].to_vec(),
            ..whole.clone()
        };
        let thrown = run_compiled(&cut, b"1", 99).thrown();
        assert_eq!(thrown.message, "InternalError: the bytecode is damaged");
    }
}
