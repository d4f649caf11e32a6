//! What is let in, and what is said to the rest.

use orb_runtime::{AdmissionError, AdmissionLimits, Kind, admit, admit_within};

use crate::support::wat;

/// A module in text form, as its inside.
fn module(fields: &str) -> Vec<u8> {
    wat(&format!("(module {fields})"))
}

/// What every command has.
const COMMAND: &str = r#"(memory (export "memory") 1) (func (export "_start"))"#;

fn refused(fields: &str) -> AdmissionError {
    admit(&module(fields)).unwrap_err()
}

#[test]
fn a_command_is_a_command() {
    let admitted = admit(&module(COMMAND)).unwrap();
    assert_eq!(admitted.kind, Kind::Command);
    assert_eq!(admitted.engine, None);
}

#[test]
fn all_of_wasi_preview_1_is_offered() {
    // One import of each function with the type that it has, in another notation.
    let imports = [
        ("args_get", "(param i32 i32) (result i32)"),
        ("args_sizes_get", "(param i32 i32) (result i32)"),
        ("clock_res_get", "(param i32 i32) (result i32)"),
        ("clock_time_get", "(param i32 i64 i32) (result i32)"),
        ("environ_get", "(param i32 i32) (result i32)"),
        ("environ_sizes_get", "(param i32 i32) (result i32)"),
        ("fd_advise", "(param i32 i64 i64 i32) (result i32)"),
        ("fd_allocate", "(param i32 i64 i64) (result i32)"),
        ("fd_close", "(param i32) (result i32)"),
        ("fd_datasync", "(param i32) (result i32)"),
        ("fd_fdstat_get", "(param i32 i32) (result i32)"),
        ("fd_fdstat_set_flags", "(param i32 i32) (result i32)"),
        ("fd_fdstat_set_rights", "(param i32 i64 i64) (result i32)"),
        ("fd_filestat_get", "(param i32 i32) (result i32)"),
        ("fd_filestat_set_size", "(param i32 i64) (result i32)"),
        ("fd_filestat_set_times", "(param i32 i64 i64 i32) (result i32)"),
        ("fd_pread", "(param i32 i32 i32 i64 i32) (result i32)"),
        ("fd_prestat_dir_name", "(param i32 i32 i32) (result i32)"),
        ("fd_prestat_get", "(param i32 i32) (result i32)"),
        ("fd_pwrite", "(param i32 i32 i32 i64 i32) (result i32)"),
        ("fd_read", "(param i32 i32 i32 i32) (result i32)"),
        ("fd_readdir", "(param i32 i32 i32 i64 i32) (result i32)"),
        ("fd_renumber", "(param i32 i32) (result i32)"),
        ("fd_seek", "(param i32 i64 i32 i32) (result i32)"),
        ("fd_sync", "(param i32) (result i32)"),
        ("fd_tell", "(param i32 i32) (result i32)"),
        ("fd_write", "(param i32 i32 i32 i32) (result i32)"),
        ("path_create_directory", "(param i32 i32 i32) (result i32)"),
        ("path_filestat_get", "(param i32 i32 i32 i32 i32) (result i32)"),
        (
            "path_filestat_set_times",
            "(param i32 i32 i32 i32 i64 i64 i32) (result i32)",
        ),
        ("path_link", "(param i32 i32 i32 i32 i32 i32 i32) (result i32)"),
        (
            "path_open",
            "(param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)",
        ),
        ("path_readlink", "(param i32 i32 i32 i32 i32 i32) (result i32)"),
        ("path_remove_directory", "(param i32 i32 i32) (result i32)"),
        ("path_rename", "(param i32 i32 i32 i32 i32 i32) (result i32)"),
        ("path_symlink", "(param i32 i32 i32 i32 i32) (result i32)"),
        ("path_unlink_file", "(param i32 i32 i32) (result i32)"),
        ("poll_oneoff", "(param i32 i32 i32 i32) (result i32)"),
        ("proc_exit", "(param i32)"),
        ("proc_raise", "(param i32) (result i32)"),
        ("random_get", "(param i32 i32) (result i32)"),
        ("sched_yield", "(result i32)"),
        ("sock_accept", "(param i32 i32 i32) (result i32)"),
        ("sock_recv", "(param i32 i32 i32 i32 i32 i32) (result i32)"),
        ("sock_send", "(param i32 i32 i32 i32 i32) (result i32)"),
        ("sock_shutdown", "(param i32 i32) (result i32)"),
    ];
    let imports: String = imports
        .map(|(name, ty)| format!(r#"(import "wasi_snapshot_preview1" "{name}" (func {ty}))"#))
        .concat();
    let wasm = module(&format!("{imports} {COMMAND}"));
    assert_eq!(admit(&wasm).unwrap().kind, Kind::Command);
    // And it links.
    crate::support::block_on(async {
        let artifact = crate::support::store(&wasm);
        assert_eq!(
            crate::support::run(crate::support::job(&artifact)).await.text(),
            ""
        );
    });
}

#[test]
fn what_is_not_webassembly_is_told_so() {
    for bytes in [&b""[..], b"\0as", b"#!/bin/sh\n", b"\x7fELF\x02\x01\x01\0", b"{}"] {
        assert_eq!(admit(bytes).unwrap_err(), AdmissionError::NotWasm { text: false });
    }
    let text = b"  (module (func))";
    assert_eq!(admit(text).unwrap_err(), AdmissionError::NotWasm { text: true });
}

#[test]
fn a_component_is_told_from_a_module() {
    let component = b"\0asm\x0d\0\x01\0";
    assert_eq!(admit(component).unwrap_err(), AdmissionError::Component);
}

#[test]
fn broken_modules_are_invalid() {
    let good = module(COMMAND);
    for cut in 8..good.len() {
        let error = admit(&good[..cut]).unwrap_err();
        assert!(
            matches!(
                error,
                AdmissionError::Invalid { .. } | AdmissionError::NoStart { .. }
            ),
            "{cut}: {error:?}"
        );
    }
    let unknown_version = b"\0asm\x02\0\0\0";
    assert!(matches!(
        admit(unknown_version).unwrap_err(),
        AdmissionError::Invalid { .. }
    ));
    let mut badly_typed = module(r#"(func (export "_start") (drop (i32.const 1)))"#);
    let drop = badly_typed.iter().rposition(|byte| *byte == 0x1a).unwrap();
    badly_typed[drop] = 0x01;
    assert!(matches!(
        admit(&badly_typed).unwrap_err(),
        AdmissionError::Invalid { .. }
    ));
}

#[test]
fn other_proposals_are_named_as_such() {
    for fields in [
        "(memory 1) (memory 1)",
        "(memory i64 1)",
        "(memory 1 1 shared)",
        "(tag (param i32))",
        "(func (param externref))",
        "(func (result v128) (f32x4.relaxed_min (v128.const i64x2 0 0) (v128.const i64x2 0 0)))",
    ] {
        let error = refused(fields);
        assert!(
            matches!(error, AdmissionError::ProposalNotEnabled { .. }),
            "{fields}: {error:?}"
        );
    }
}

#[test]
fn usual_proposals_are_enabled() {
    let fields = format!(
        r"{COMMAND}
          (func (result i32 i32) (i32.const 1) (i32.const 2))
          (func (result v128) (v128.const i64x2 0 0))
          (func (result i32) (i32.trunc_sat_f32_s (f32.const 1)))
          (func (result i64) (i64.extend8_s (i64.const 1)))
          (func $self (return_call $self))
          (table 4 funcref)
          (global i32 (i32.add (i32.const 1) (i32.const 2)))
          (global (mut i32) (i32.const 0))"
    );
    assert_eq!(admit(&module(&fields)).unwrap().kind, Kind::Command);
}

#[test]
fn an_import_that_is_not_offered_is_named() {
    for (name, module, field) in [
        (r#""env" "launch" (func)"#, "env", "launch"),
        (r#""env" "state" (global i32)"#, "env", "state"),
        (
            r#""wasi_snapshot_preview1" "sock_open" (func)"#,
            "wasi_snapshot_preview1",
            "sock_open",
        ),
        (
            r#""wasi_unstable" "fd_write" (func)"#,
            "wasi_unstable",
            "fd_write",
        ),
    ] {
        let error = refused(&format!("(import {name}) {COMMAND}"));
        let (module, field) = (module.to_owned(), field.to_owned());
        assert!(
            error.to_string().contains(&format!("{module}.{field}")),
            "{error}"
        );
        assert_eq!(error, AdmissionError::ImportNotOffered { module, field });
    }
}

#[test]
fn an_import_of_the_wrong_type_is_told_the_right_one() {
    let error = refused(&format!(
        r#"(import "wasi_snapshot_preview1" "fd_write" (func (param i32))) {COMMAND}"#
    ));
    let AdmissionError::ImportType { expected, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(expected, "(i32, i32, i32, i32) -> (i32)");
}

#[test]
fn a_strangers_long_or_odd_name_stays_readable() {
    let error = refused(&format!(
        r#"(import "{}" "\1b[2Jx" (func)) {COMMAND}"#,
        "x".repeat(9000)
    ));
    let message = error.to_string();
    assert!(message.len() < 600 && !message.contains('\u{1b}'), "{message}");
}

#[test]
fn a_strangers_long_or_odd_name_is_cut_in_the_validators_words_too() {
    let export = format!(r#"(func (export "\1b[2J{}"))"#, "x".repeat(9000));
    let error = refused(&format!("{export} {export} {COMMAND}"));
    assert!(matches!(error, AdmissionError::Invalid { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.len() < 600 && !message.contains('\u{1b}'), "{message}");
}

#[test]
fn a_library_has_no_start() {
    let error = refused(r#"(memory (export "memory") 1) (func (export "run"))"#);
    assert_eq!(error, AdmissionError::NoStart { exists: false });
    for start in [
        r#"(func (export "_start") (param i32))"#,
        r#"(func (export "_start") (result i32) (i32.const 0))"#,
        r#"(global (export "_start") i32 (i32.const 0))"#,
    ] {
        let error = refused(&format!(r#"(memory (export "memory") 1) {start}"#));
        assert_eq!(error, AdmissionError::NoStart { exists: true });
    }
}

#[test]
fn a_memory_must_be_exported() {
    assert_eq!(
        refused(r#"(memory 1) (func (export "_start"))"#),
        AdmissionError::NoMemory
    );
    let error = refused(r#"(func (export "memory")) (func (export "_start"))"#);
    assert_eq!(error, AdmissionError::NoMemory);
}

#[test]
fn what_is_too_large_is_told_the_limit() {
    let wasm = module(COMMAND);
    let (bytes, max) = (wasm.len() as u64, wasm.len() as u64 - 1);
    let limits = AdmissionLimits {
        module_bytes: max,
        ..AdmissionLimits::default()
    };
    let error = admit_within(&wasm, &limits).unwrap_err();
    assert_eq!(error, AdmissionError::TooLarge { bytes, max });
    assert!(error.is_compile_limit());
}

#[test]
fn too_much_of_anything_is_told_so() {
    let tight = AdmissionLimits {
        functions: 2,
        function_bytes: 10,
        globals: 1,
        locals: 5,
        ..AdmissionLimits::default()
    };
    for (fields, what) in [
        ("(func) (func) (func)", "functions"),
        ("(global i32 (i32.const 0)) (global i32 (i32.const 0))", "globals"),
        (
            "(func (nop) (nop) (nop) (nop) (nop) (nop) (nop) (nop) (nop))",
            "bytes in one function",
        ),
        ("(table 100000 funcref)", "elements in one table"),
        (
            "(type (func)) (type (func (param i32))) (type (func (param i64)))",
            "types",
        ),
        (
            "(func (local i32 i32 i32)) (func (param i32 i32 i32))",
            "local variables",
        ),
        ("(table 1 funcref) (table 1 funcref) (table 1 funcref)", "tables"),
    ] {
        let error = admit_within(&module(fields), &tight).unwrap_err();
        assert!(error.is_compile_limit());
        assert!(
            matches!(&error, AdmissionError::TooMany { what: found, .. } if found == what),
            "{error:?}"
        );
    }
}
