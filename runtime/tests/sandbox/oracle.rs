//! Our WASI beside `wasmtime-wasi`'s: the same call, the same answer.

use std::fmt::Write as _;

use wasmtime::{Engine, Linker, Module, Store};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::p2::pipe::{MemoryInputPipe, MemoryOutputPipe};

use crate::support::{block_on, job_on, run, store, wat};

const INPUT: &str = "some input";

/// Functions by name and type, with arguments to call them with. Memory holds zeros, but for a
/// buffer of five bytes at 300, described at 200, and a subscription to a millisecond at 400.
///
/// Left out is where we differ on purpose: pointers that are out of memory or not aligned are an
/// error number here and a trap there, reading into no buffers reads nothing, and `poll_oneoff` says of each stream by itself that it is
/// not open, as its specification has it.
const CASES: &[(&str, &str, &[&str])] = &[
    ("fd_read", "iiii", &["0 200 1 104", "1 200 1 104", "3 200 1 104"]),
    (
        "fd_write",
        "iiii",
        &[
            "1 200 1 104",
            "2 200 1 104",
            "0 200 1 104",
            "3 200 1 104",
            "1 200 0 104",
        ],
    ),
    ("fd_close", "i", &["0", "2", "3", "-1"]),
    ("fd_renumber", "ii", &["3 0", "0 3"]),
    ("fd_prestat_get", "ii", &["0 104", "3 104"]),
    ("fd_prestat_dir_name", "iii", &["3 100 10"]),
    ("fd_seek", "iIii", &["0 0 1 104", "1 5 0 104", "3 0 0 104"]),
    ("fd_tell", "ii", &["0 104", "3 104"]),
    ("fd_pread", "iiiIi", &["0 200 1 0 104", "3 200 1 0 104"]),
    ("fd_pwrite", "iiiIi", &["1 200 1 0 104", "3 200 1 0 104"]),
    ("fd_fdstat_get", "ii", &["0 104", "1 104", "2 104", "3 104"]),
    ("fd_filestat_get", "ii", &["0 104", "1 104", "3 104"]),
    ("fd_readdir", "iiiIi", &["3 100 10 0 104"]),
    ("fd_sync", "i", &["3"]),
    ("fd_datasync", "i", &["3"]),
    ("fd_advise", "iIIi", &["3 0 0 0"]),
    ("fd_allocate", "iII", &["3 0 0"]),
    ("fd_filestat_set_size", "iI", &["3 0"]),
    ("path_open", "iiiiiIIii", &["3 0 300 5 0 0 0 0 104"]),
    ("path_filestat_get", "iiiii", &["3 0 300 5 104"]),
    ("path_unlink_file", "iii", &["3 300 5"]),
    ("path_create_directory", "iii", &["3 300 5"]),
    ("path_readlink", "iiiiii", &["3 300 5 100 10 90"]),
    ("sock_shutdown", "ii", &["3 0"]),
    ("sock_recv", "iiiiii", &["3 200 1 0 104 112"]),
    ("environ_sizes_get", "ii", &["104 112"]),
    ("environ_get", "ii", &["104 112"]),
    ("args_sizes_get", "ii", &["104 112"]),
    ("args_get", "ii", &["104 112"]),
    ("poll_oneoff", "iiii", &["400 600 0 104", "400 600 1 104"]),
    ("sched_yield", "", &[""]),
];

/// A command that calls a function, then says what it answered and what it left in memory.
fn guest(name: &str, types: &str, arguments: &str) -> Vec<u8> {
    let mut call = String::new();
    for (ty, argument) in types.bytes().zip(arguments.split(' ')) {
        let ty = if ty == b'i' { "i32" } else { "i64" };
        write!(call, " ({ty}.const {argument})").unwrap();
    }
    let params = types.replace('i', " i32").replace('I', " i64");
    wat(&format!(
        r#"(module
            (import "wasi_snapshot_preview1" "{name}" (func $call (param {params}) (result i32)))
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 200) "\2c\01\00\00\05\00\00\00")
            (data (i32.const 208) "\58\02\00\00\c0\00\00\00")
            (data (i32.const 216) "\60\00\00\00\20\00\00\00")
            (data (i32.const 300) "hello")
            (data (i32.const 400) "\01\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\01\00\00\00\00\00\00\00\40\42\0f")
            (func (export "_start")
                (i32.store (i32.const 96) (call $call{call}))
                ;; 600 to 792: events; 96 to 128: the answer and what it left.
                (drop (call $write (i32.const 1) (i32.const 208) (i32.const 1) (i32.const 60000)))
                (drop (call $write (i32.const 1) (i32.const 216) (i32.const 1) (i32.const 60000)))))"#
    ))
}

/// What the guest writes on `wasmtime-wasi`.
async fn reference(wasm: &[u8]) -> Vec<u8> {
    let engine = Engine::default();
    let mut linker: Linker<WasiP1Ctx> = Linker::new(&engine);
    p1::add_to_linker_async(&mut linker, |context| context).unwrap();
    let output = MemoryOutputPipe::new(1 << 16);
    let context = WasiCtxBuilder::new()
        .arg("owner/test")
        .stdin(MemoryInputPipe::new(INPUT))
        .stdout(output.clone())
        .build_p1();
    let mut store = Store::new(&engine, context);
    let module = Module::from_binary(&engine, wasm).unwrap();
    let instance = linker.instantiate_async(&mut store, &module).await.unwrap();
    let start = instance.get_typed_func::<(), ()>(&mut store, "_start").unwrap();
    start.call_async(&mut store, ()).await.unwrap();
    drop(store);
    output.contents().to_vec()
}

#[test]
fn every_call_answers_as_the_reference_does() {
    block_on(async {
        let mut differences = Vec::new();
        for (name, types, arguments) in CASES {
            for arguments in *arguments {
                let wasm = guest(name, types, arguments);
                let ours = run(job_on(&store(&wasm), INPUT)).await;
                let theirs = reference(&wasm).await;
                if ours.output != theirs {
                    differences.push(format!("{name} {arguments}: {:?}, not {theirs:?}", ours.output));
                }
            }
        }
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    });
}
