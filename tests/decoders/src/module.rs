//! WebAssembly from strangers: what is admitted, and what passes for our emitter's.

use orb_runtime::javy::{emit, engine_hash, recognise};
use orb_runtime::{AdmissionLimits, Kind, admit_within};
use wasmparser::{ExternalKind, Parser, Payload, TypeRef, Validator};

/// How every module begins.
const MAGIC: &[u8] = b"\0asm\x01\0\0\0";

/// Limits that small inputs reach.
fn limits() -> AdmissionLimits {
    AdmissionLimits {
        functions: 64,
        function_bytes: 1_024,
        locals: 4_096,
        globals: 64,
        ..AdmissionLimits::default()
    }
}

/// Any bytes, as they are and behind the head of a module. What is admitted is valid, imports only
/// WASI's functions, and has what it takes to be run.
pub(crate) fn admission(bytes: &[u8]) {
    admitted(bytes);
    admitted(&[MAGIC, bytes].concat());
}

fn admitted(wasm: &[u8]) {
    let Ok(admitted) = admit_within(wasm, &limits()) else {
        return;
    };
    assert_eq!(admitted.engine.is_some(), admitted.kind != Kind::Command);
    Validator::new()
        .validate_all(wasm)
        .expect("what is admitted is valid");
    if admitted.kind == Kind::Command {
        command(wasm);
    }
}

fn command(wasm: &[u8]) {
    let (mut start, mut memory) = (false, false);
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.expect("a valid module parses") {
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let import = import.expect("a valid module's imports parse");
                    assert_eq!(import.module, "wasi_snapshot_preview1");
                    assert!(matches!(import.ty, TypeRef::Func(_)), "WASI is functions");
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    let export = export.expect("a valid module's exports parse");
                    start |= export.name == "_start" && export.kind == ExternalKind::Func;
                    memory |= export.name == "memory" && export.kind == ExternalKind::Memory;
                }
            }
            _ => {}
        }
    }
    assert!(start && memory, "an admitted command can be started");
}

/// The first byte says how many changes come next (position and byte), the rest is bytecode. What the
/// emitter makes of any bytecode is recognised, with that bytecode; with any change it is refused,
/// unless the emitter made that, too.
pub(crate) fn emitter(bytes: &[u8]) {
    recognised(bytes);
    let Some((&changes, rest)) = bytes.split_first() else {
        return;
    };
    let (changes, bytecode) = rest.split_at(rest.len().min(usize::from(changes % 8) * 3));
    let mut artifact = emit(bytecode, &engine_hash());
    made_by_the_emitter(&artifact, bytecode);
    for change in changes.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % artifact.len();
        artifact[at] ^= change[2];
    }
    recognised(&artifact);
}

/// Packed bytecode says in its first byte whether it is deflated; then it may be damaged.
fn made_by_the_emitter(artifact: &[u8], bytecode: &[u8]) {
    let plain = bytecode.first().is_some_and(|tag| tag & 2 == 0);
    match recognise(artifact) {
        Ok(Some(found)) if plain => assert_eq!(found.bytecode.as_ref(), bytecode),
        Ok(Some(found)) => assert!(found.bytecode.len() <= 16 * bytecode.len() + (64 << 10) + 1),
        Ok(None) => panic!("an artifact is taken for something else"),
        Err(error) => assert!(!plain, "an artifact is refused: {error}"),
    }
}

/// What is recognised is byte for byte what the emitter makes of the bytecode in it: some part of the
/// artifact is that bytecode.
fn recognised(wasm: &[u8]) {
    if let Ok(Some(found)) = recognise(wasm) {
        assert_eq!(found.engine, engine_hash(), "only known engines are run");
        let segment = passive_segment(wasm).expect("an artifact holds its bytecode");
        assert_eq!(emit(segment, &found.engine), wasm);
    }
}

fn passive_segment(wasm: &[u8]) -> Option<&[u8]> {
    let mut payloads = Parser::new(0).parse_all(wasm).map_while(Result::ok);
    payloads.find_map(|payload| match payload {
        Payload::DataSection(segments) => segments.into_iter().next()?.ok().map(|segment| segment.data),
        _ => None,
    })
}
