//! JavaScript: functions, scripts, and their faults.

use std::time::Duration;

use bytes::Bytes;
use orb_runtime::javy::{self, CompileError};
use orb_runtime::{
    AdmissionError, Artifact, CompileJavaScriptError, GuestFault, Input, Job, Kind, Limits, Location,
    Sandbox, admit,
};
use tokio::sync::mpsc;

use crate::support::{SANDBOX, Seen, block_on, job, job_on, run, store, with_deadline, with_limits};

/// Compiles JavaScript as `orb build` does.
async fn javascript(source: &str) -> Artifact {
    javascript_in(&SANDBOX, source).await
}

/// As above, in a given sandbox.
pub(crate) async fn javascript_in(sandbox: &Sandbox, source: &str) -> Artifact {
    let compiled = sandbox
        .compile_javascript(source.as_bytes(), "index.js")
        .await
        .unwrap();
    store(&javy::emit(&compiled.bytecode, &javy::engine_hash()))
}

/// Runs a function whose body this is, under the default limits, on `null`.
fn call(body: &str) -> Seen {
    call_on(body, "null")
}

fn call_on(body: &str, input: &'static str) -> Seen {
    block_on(async {
        let guest = javascript(&format!("export default (input, ctx) => {{ {body} }}")).await;
        run(job_on(&guest, input)).await
    })
}

/// Runs a hostile function; the next call must be unharmed.
fn misbehave(body: &str) -> Seen {
    let seen = call(body);
    assert_eq!(call("return 'well'").text(), "\"well\"");
    seen
}

#[test]
fn json_goes_in_and_comes_out() {
    let seen = call_on(
        "return { hello: input.name, twice: input.n * 2 }",
        r#"{"name":"ö","n":21}"#,
    );
    assert_eq!(seen.text(), r#"{"hello":"ö","twice":42}"#);
    assert!(seen.log.is_empty());
    assert!(seen.outcome.fuel > 0 && seen.outcome.memory_peak_bytes > 0);
}

#[test]
fn undefined_answers_null() {
    assert_eq!(call("").text(), "null");
}

#[test]
fn an_async_function_is_waited_for() {
    block_on(async {
        let source = "export default async input => { await null; return input + 1 }";
        assert_eq!(run(job_on(&javascript(source).await, "41")).await.text(), "42");
    });
}

#[test]
fn the_context_is_the_second_parameter() {
    let body = "return [ctx.function, ctx.revision, ctx.request_id, typeof ctx.deadline_ms]";
    let json: serde_json::Value = serde_json::from_str(call(body).text()).unwrap();
    assert_eq!(json[0], "owner/test");
    assert_eq!(json[1], 1);
}

#[test]
fn the_console_is_the_log() {
    let seen = call("console.log('out', 1); console.error('err'); return 1");
    assert_eq!(seen.text(), "1");
    assert_eq!(String::from_utf8_lossy(&seen.log), "out 1\nerr\n");
}

#[test]
fn kinds_are_told_apart() {
    block_on(async {
        let function = javascript("export default () => 1").await;
        let script = javascript("console.log(1)").await;
        assert_eq!(SANDBOX.prepare(&function).await.unwrap().kind, Kind::JavyFunction);
        assert_eq!(SANDBOX.prepare(&script).await.unwrap().kind, Kind::JavyScript);
        let admitted = admit(&std::fs::read(&function.path).unwrap()).unwrap();
        assert_eq!(admitted.engine, Some(javy::engine_hash()));
    });
}

/// Copies its input to its output in upper case, with Javy's own interface.
const SCRIPT: &str = r"
    const bytes = new Uint8Array(4096);
    let n;
    while ((n = Javy.IO.readSync(0, bytes)) > 0) {
        const text = new TextDecoder().decode(bytes.subarray(0, n));
        Javy.IO.writeSync(1, new TextEncoder().encode(text.toUpperCase()));
    }
";

#[test]
fn a_script_works_on_raw_bytes() {
    block_on(async {
        let guest = javascript(SCRIPT).await;
        assert_eq!(run(job_on(&guest, "not json")).await.text(), "NOT JSON");
    });
}

#[test]
fn a_script_reads_while_its_input_arrives() {
    block_on(async {
        let guest = javascript(SCRIPT).await;
        let (sender, receiver) = mpsc::channel(1);
        let call = tokio::spawn(run(Job {
            input: Input::Stream(receiver),
            ..job(&guest)
        }));
        for piece in ["a", "b", "c"] {
            sender.send(Bytes::from(piece)).await.unwrap();
        }
        drop(sender);
        assert_eq!(call.await.unwrap().text(), "ABC");
    });
}

#[test]
fn a_function_gets_streamed_input_whole() {
    block_on(async {
        let guest = javascript("export default input => input.length").await;
        let (sender, receiver) = mpsc::channel(1);
        let call = tokio::spawn(run(Job {
            input: Input::Stream(receiver),
            ..job(&guest)
        }));
        for piece in ["[1,", "2,", "3]"] {
            sender.send(Bytes::from(piece)).await.unwrap();
        }
        drop(sender);
        assert_eq!(call.await.unwrap().text(), "3");
    });
}

#[test]
fn streamed_input_over_the_limit_starts_nothing() {
    block_on(async {
        let guest = javascript("export default input => input").await;
        let (sender, receiver) = mpsc::channel(2);
        sender.send(Bytes::from_static(b"\"123")).await.unwrap();
        sender.send(Bytes::from_static(b"456\"")).await.unwrap();
        let job = Job {
            input: Input::Stream(receiver),
            ..job(&guest)
        };
        let seen = run(with_limits(job, |limits| limits.input_bytes = 7)).await;
        assert_eq!(*seen.fault(), GuestFault::InputTooLarge { limit: 7 });
        assert!(!seen.started);
    });
}

#[test]
fn input_that_is_not_json_is_the_callers_fault() {
    for input in ["{", "", "nul", "{} x"] {
        let seen = call_on("return 1", input);
        assert!(
            matches!(seen.fault(), GuestFault::InputInvalid { .. }),
            "{input}: {seen:?}"
        );
    }
}

#[test]
fn an_answer_that_is_not_json_is_bad_output() {
    for body in [
        "return 1n",
        "const a = {}; a.a = a; return a",
        "return () => 1",
        "return Symbol('x')",
    ] {
        let seen = misbehave(body);
        assert!(
            matches!(seen.fault(), GuestFault::BadOutput { .. }),
            "{body}: {seen:?}"
        );
    }
}

#[test]
fn an_error_that_is_thrown_says_where() {
    block_on(async {
        let source =
            "function inner() {\n  throw new TypeError('no good');\n}\n\nexport default () => inner();\n";
        let seen = run(job_on(&javascript(source).await, "null")).await;
        let GuestFault::Thrown {
            message,
            stack,
            location,
        } = seen.fault()
        else {
            panic!("{seen:?}")
        };
        assert_eq!(message, "TypeError: no good");
        let Location { file, line, .. } = location.as_ref().unwrap();
        assert_eq!((file.as_str(), *line), ("index.js", 2));
        assert!(stack.as_ref().unwrap().contains("inner"), "{stack:?}");
        assert!(
            seen.fault().to_string().contains("index.js:2"),
            "{}",
            seen.fault()
        );
    });
}

#[test]
fn a_rejected_promise_is_thrown() {
    let seen = misbehave("return Promise.reject(new Error('later'))");
    let GuestFault::Thrown { message, .. } = seen.fault() else {
        panic!("{seen:?}")
    };
    assert_eq!(message, "Error: later");
}

#[test]
fn a_promise_that_never_settles_is_told_as_such() {
    let seen = misbehave("return new Promise(() => {})");
    assert_eq!(*seen.fault(), GuestFault::UnsettledPromise);
}

#[test]
fn an_endless_loop_runs_out_of_fuel() {
    let seen = misbehave("for (;;) {}");
    assert_eq!(
        *seen.fault(),
        GuestFault::Fuel {
            limit: Limits::default().fuel
        }
    );
}

#[test]
fn an_endless_chain_of_promises_runs_out_of_fuel() {
    let seen = misbehave("const f = () => Promise.resolve().then(f); return f()");
    // Whichever comes first: the chain may keep all of its promises.
    let limits = Limits::default();
    let expected = [
        GuestFault::Fuel { limit: limits.fuel },
        GuestFault::Memory {
            limit: limits.memory_bytes,
        },
    ];
    assert!(expected.contains(seen.fault()), "{seen:?}");
}

#[test]
fn a_catastrophic_regular_expression_runs_out_of_fuel() {
    let seen = misbehave("return /^(a+)+$/.test('a'.repeat(64) + 'b')");
    assert_eq!(
        *seen.fault(),
        GuestFault::Fuel {
            limit: Limits::default().fuel
        }
    );
}

#[test]
fn endless_recursion_is_thrown() {
    let seen = misbehave("const f = n => 1 + f(n + 1); return f(0)");
    let GuestFault::Thrown { message, .. } = seen.fault() else {
        panic!("{seen:?}")
    };
    assert!(message.contains("stack"), "{message}");
}

#[test]
fn endless_recursion_in_the_parser_is_no_trap() {
    let seen = misbehave("return JSON.parse('['.repeat(1000000))");
    assert!(matches!(seen.fault(), GuestFault::Thrown { .. }), "{seen:?}");
}

#[test]
fn memory_growth_is_stopped_at_the_limit() {
    let limit = Limits::default().memory_bytes;
    for body in [
        "const all = []; for (;;) all.push(new Uint8Array(1000000))",
        "const all = []; for (;;) { try { all.push('x'.repeat(100000) + all.length) } catch {} }",
    ] {
        let seen = misbehave(body);
        assert_eq!(*seen.fault(), GuestFault::Memory { limit }, "{body}");
        assert!(seen.outcome.memory_peak_bytes <= limit);
    }
}

#[test]
fn a_flood_of_output_is_stopped_at_the_limit() {
    let limit = Limits::default().output_bytes;
    let seen = misbehave("return 'x'.repeat(10000000)");
    assert_eq!(*seen.fault(), GuestFault::Output { limit });
    assert!(seen.output.is_empty());
    block_on(async {
        let source = "const b = new Uint8Array(65536); for (;;) Javy.IO.writeSync(1, b)";
        let seen = run(job(&javascript(source).await)).await;
        assert_eq!(*seen.fault(), GuestFault::Output { limit });
        assert_eq!(seen.output.len() as u64, limit);
    });
}

#[test]
fn a_flood_of_log_is_cut_and_is_no_fault() {
    let seen = misbehave("for (let i = 0; i < 10000; i++) console.log('x'.repeat(100)); return 1");
    assert_eq!(seen.text(), "1");
    assert_eq!(seen.log.len() as u64, Limits::default().log_bytes);
    assert!(seen.outcome.log_truncated);
}

#[test]
fn what_a_function_writes_by_itself_is_not_its_answer() {
    let seen = call("Javy.IO.writeSync(1, new TextEncoder().encode('stray')); return 1");
    assert_eq!(seen.text(), "1");
    assert_eq!(seen.log, b"stray");
}

#[test]
fn there_are_no_files_and_no_environment() {
    let body = "return [typeof process, typeof require, typeof fetch, typeof std, typeof os]";
    assert_eq!(
        misbehave(body).text(),
        r#"["undefined","undefined","undefined","undefined","undefined"]"#
    );
    for fd in [3, 4, 100] {
        let body = format!("return Javy.IO.readSync({fd}, new Uint8Array(10))");
        let seen = misbehave(&body);
        assert!(matches!(seen.fault(), GuestFault::Thrown { .. }), "{seen:?}");
    }
}

#[test]
fn waiting_in_a_loop_past_the_deadline_is_stopped() {
    block_on(async {
        let guest = javascript("export default () => { for (;;) {} }").await;
        let job = with_deadline(job_on(&guest, "null"), Duration::from_millis(100));
        assert_eq!(*run(job).await.fault(), GuestFault::Deadline);
    });
    assert_eq!(call("return 'well'").text(), "\"well\"");
}

#[test]
fn nothing_survives_from_one_call_to_the_next() {
    block_on(async {
        let source = "let calls = 0; globalThis.seen ??= 0; Array.prototype.mine ??= 0;
            export default () => [++calls, ++globalThis.seen, ++Array.prototype.mine, ++Object.prototype.x || (Object.prototype.x = 1)]";
        let guest = javascript(source).await;
        for _ in 0..20 {
            assert_eq!(run(job_on(&guest, "null")).await.text(), "[1,1,1,1]");
        }
        let other = javascript("export default () => [globalThis.seen ?? null, [].mine ?? null]").await;
        assert_eq!(run(job_on(&other, "null")).await.text(), "[null,null]");
    });
}

#[test]
fn randomness_differs_from_call_to_call() {
    let (one, other) = (call("return Math.random()"), call("return Math.random()"));
    assert_ne!(one.text(), other.text());
}

#[test]
fn a_syntax_error_says_where() {
    block_on(async {
        let source = b"export default () => {\n  return 1 +;\n}\n";
        let error = SANDBOX.compile_javascript(source, "index.js").await.unwrap_err();
        let CompileJavaScriptError::Source(CompileError::Syntax(error)) = error else {
            panic!("{error:?}")
        };
        assert_eq!((error.file.as_str(), error.line), ("index.js", 2));
    });
}

#[test]
fn an_artifact_that_was_changed_is_not_ours() {
    block_on(async {
        let artifact = javascript("export default () => 1").await;
        let good = std::fs::read(&artifact.path).unwrap();
        for at in [good.len() - 1, good.len() / 2] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let error = admit(&bad).unwrap_err();
            assert!(
                matches!(
                    error,
                    AdmissionError::ForeignJavy { .. } | AdmissionError::Invalid { .. }
                ),
                "{at}: {error:?}"
            );
            let seen = run(job_on(&store(&bad), "null")).await;
            assert!(matches!(seen.fault(), GuestFault::Refused { .. }), "{seen:?}");
        }
    });
}

#[test]
fn an_artifact_for_an_unknown_engine_is_told_so() {
    block_on(async {
        let compiled = SANDBOX
            .compile_javascript(b"export default () => 1", "index.js")
            .await
            .unwrap();
        let error = admit(&javy::emit(&compiled.bytecode, &[7; 32])).unwrap_err();
        assert!(matches!(error, AdmissionError::EngineUnknown { .. }), "{error:?}");
    });
}

#[test]
fn the_engine_itself_is_no_function() {
    let error = admit(javy::ENGINE_WASM).unwrap_err();
    assert!(matches!(error, AdmissionError::NoStart { .. }), "{error:?}");
}

#[test]
fn bytecode_that_is_garbage_is_contained() {
    block_on(async {
        let good = SANDBOX
            .compile_javascript(b"export default () => 1", "index.js")
            .await
            .unwrap();
        for n in 0..64 {
            let mut bytecode = good.bytecode.clone();
            let at = 1 + n * (bytecode.len() - 1) / 64;
            bytecode[at] ^= 0x55;
            let guest = store(&javy::emit(&bytecode, &javy::engine_hash()));
            let job = with_limits(job_on(&guest, "null"), |limits| limits.fuel = 100_000_000);
            let seen = run(job).await;
            assert!(
                !matches!(seen.outcome.result, Err(GuestFault::Internal { .. })),
                "{seen:?}"
            );
        }
    });
    assert_eq!(call("return 'well'").text(), "\"well\"");
}
