//! Artifacts: emitted, recognised, refused.

use super::*;
use crate::javy::engine::{NAMESPACE, engine_hash};
use crate::javy::pack::unpack;
use crate::javy::{Kind, NotOurs, emit, recognise};
use miniz_oxide::deflate::compress_to_vec;
use wasm_encoder::{EntityType, ImportSection, TypeSection};
use wasmparser::{Parser, Payload, Validator};

const FUNCTION: &str = "export default (input) => ({ hello: input.name })";

fn artifact(source: &str) -> Vec<u8> {
    emit(&compile(source).bytecode, &engine_hash())
}

/// The outline of a module: section, and what tells it apart.
fn outline(wasm: &[u8]) -> Vec<String> {
    Parser::new(0)
        .parse_all(wasm)
        .map(Result::unwrap)
        .filter_map(|payload| match payload {
            Payload::Version { .. } | Payload::CodeSectionEntry(_) | Payload::End(_) => None,
            Payload::CustomSection(s) => Some(format!("custom {} {}", s.name(), s.data().len())),
            Payload::TypeSection(s) => Some(format!("types {}", s.count())),
            Payload::ImportSection(s) => Some(
                s.into_imports()
                    .map(Result::unwrap)
                    .map(|i| format!("import {}.{}", i.module, i.name))
                    .collect::<Vec<_>>()
                    .join(", "),
            ),
            Payload::FunctionSection(s) => Some(format!("functions {}", s.count())),
            Payload::ExportSection(s) => Some(
                s.into_iter()
                    .map(|e| format!("export {}", e.unwrap().name))
                    .collect(),
            ),
            Payload::DataCountSection { count, .. } => Some(format!("data count {count}")),
            Payload::CodeSectionStart { count, .. } => Some(format!("code {count}")),
            Payload::DataSection(s) => Some(format!("data {}", s.count())),
            other => Some(format!("{other:?}")),
        })
        .collect()
}

#[test]
fn an_artifact_is_made_the_same_way_each_time() {
    let wasm = artifact(FUNCTION);
    assert_eq!(wasm, artifact(FUNCTION));
    Validator::new().validate_all(&wasm).unwrap();
    insta::assert_debug_snapshot!(outline(&wasm), @r#"
    [
        "custom orb.javy 42",
        "types 3",
        "import orb-javy-1.memory, import orb-javy-1.cabi_realloc, import orb-javy-1.invoke",
        "functions 1",
        "export _start",
        "data count 1",
        "code 1",
        "data 1",
    ]
    "#);
}

#[test]
fn an_artifact_is_recognised() {
    let long = format!("console.log(1); {}", "f(1, 2); ".repeat(1000));
    for (source, kind) in [(FUNCTION, Kind::Function), (&long, Kind::Script)] {
        let compiled = compile(source);
        let wasm = emit(&compiled.bytecode, &engine_hash());
        let found = recognise(&wasm).unwrap().unwrap();
        assert_eq!(found.engine, engine_hash());
        assert_eq!(found.kind, kind);
        assert_eq!(found.bytecode, unpack(&compiled.bytecode).unwrap());
    }
}

#[test]
fn any_single_changed_byte_is_refused() {
    let wasm = artifact(FUNCTION);
    for at in 0..wasm.len() {
        for bit in 0..8 {
            let mut changed = wasm.clone();
            changed[at] ^= 1 << bit;
            assert!(
                !matches!(recognise(&changed), Ok(Some(_))),
                "byte {at}, bit {bit}"
            );
        }
    }
}

#[test]
fn a_cut_or_lengthened_artifact_is_refused() {
    let wasm = artifact(FUNCTION);
    for len in 0..wasm.len() {
        assert!(!matches!(recognise(&wasm[..len]), Ok(Some(_))), "{len}");
    }
    let mut longer = wasm.clone();
    longer.extend([0, 2, 1, b'x']);
    assert_eq!(recognise(&longer), Err(NotOurs::Altered));
    longer.extend(&wasm);
    assert_eq!(recognise(&longer), Err(NotOurs::Altered));
}

#[test]
fn bytecode_that_does_not_inflate_is_refused() {
    let deflated = 2;
    let mut bomb = vec![deflated];
    bomb.extend(compress_to_vec(&vec![0; 10_000_000], 9));
    for bytecode in [&bomb[..], &[deflated, 0xff], &[]] {
        assert_eq!(recognise(&emit(bytecode, &engine_hash())), Err(NotOurs::Altered));
    }
}

#[test]
fn other_modules_are_not_judged() {
    for other in [&b""[..], b"\0asm\x01\0\0\0", b"no wasm at all", ENGINE_WASM] {
        assert_eq!(recognise(other), Ok(None));
    }
}

#[test]
fn a_module_that_only_imports_the_engine_is_refused() {
    for namespace in [NAMESPACE, "orb-javy-9"] {
        let mut types = TypeSection::new();
        types.ty().function([], []);
        let mut module = wasm_encoder::Module::new();
        module.section(&types);
        module.section(ImportSection::new().import(namespace, "invoke", EntityType::Function(0)));
        assert_eq!(recognise(&module.finish()), Err(NotOurs::Altered));
    }
}

#[test]
fn engines_and_emitters_of_other_versions_are_named() {
    let bytecode = compile(FUNCTION).bytecode;
    assert_eq!(
        recognise(&emit(&bytecode, &[7; 32])),
        Err(NotOurs::EngineUnknown { engine: [7; 32] })
    );
    let mut newer = emit(&bytecode, &engine_hash());
    let at = newer.windows(8).position(|w| w == b"orb.javy").unwrap() + 8;
    newer[at] = 2;
    assert_eq!(recognise(&newer), Err(NotOurs::EmitterUnknown { version: 2 }));
}

/// Runs the artifact as any runtime would that knows nothing of Orb: engine, WASI, `_start`.
fn run_alone(wasm: &[u8], stdin: &[u8]) -> (Result<(), wasmtime::Error>, Vec<u8>, String) {
    let shared = shared();
    let (stdout, stderr) = (
        MemoryOutputPipe::new(PIPE_BYTES),
        MemoryOutputPipe::new(PIPE_BYTES),
    );
    let ended = block_on(async {
        let mut store = store(stdin, &stdout, &stderr);
        let engine = shared.pre.instantiate_async(&mut store).await?;
        let mut linker = Linker::new(&shared.engine);
        linker.instance(&mut store, NAMESPACE, engine)?;
        let module = Module::new(&shared.engine, wasm)?;
        let instance = linker.instantiate_async(&mut store, &module).await?;
        let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
        start.call_async(&mut store, ()).await
    });
    let log = String::from_utf8(stderr.contents().to_vec()).unwrap();
    (ended, stdout.contents().to_vec(), log)
}

#[test]
fn an_artifact_runs_on_any_runtime_that_has_the_engine() {
    let (ended, stdout, log) = run_alone(&artifact(FUNCTION), br#"{"name":"Ada"}"#);
    ended.unwrap();
    assert_eq!(stdout, br#"{"hello":"Ada"}"#);
    assert_eq!(log, "");
    let script = "Javy.IO.writeSync(1, new TextEncoder().encode('raw'))";
    let (ended, stdout, _) = run_alone(&artifact(script), b"");
    ended.unwrap();
    assert_eq!(stdout, b"raw");
}

#[test]
fn an_artifact_that_fails_alone_says_why_and_exits() {
    for (source, input, why) in [
        (
            "export default () => { throw new Error('no') }",
            "0",
            "Error: no\n    at ",
        ),
        (FUNCTION, "{", "the input is not JSON: "),
        ("export default () => 1n", "0", "the answer has no JSON form: "),
        (
            "await new Promise(() => {})",
            "0",
            "the function's promise never settles",
        ),
    ] {
        let (ended, stdout, log) = run_alone(&artifact(source), input.as_bytes());
        let exit = ended.unwrap_err();
        assert_eq!(exit.downcast_ref::<wasmtime_wasi::I32Exit>().unwrap().0, 1);
        assert!(stdout.is_empty());
        assert!(log.starts_with(why), "{log}");
    }
}
