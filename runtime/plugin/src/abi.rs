//! The exports, and how bytes cross.
//!
//! The host puts bytes where [`cabi_realloc`] says. An entry answers with the address of four
//! little-endian words: status, pointer, length, detail. An instance serves one call, so
//! what is handed back is never freed.

use crate::compile::{self, CompileFailure};
use crate::engine;
use crate::pack::Kind;
use crate::run::{self, Outcome, Program};
use std::alloc::{Layout, alloc, handle_alloc_error};
use std::io::{Read, Write};

/// The module name under which stand-alone artifacts import the engine.
const NAMESPACE: [u8; 10] = *b"orb-javy-1";

/// Javy's tools look here for the name.
#[used]
#[unsafe(link_section = "import_namespace")]
static IMPORT_NAMESPACE: [u8; NAMESPACE.len()] = NAMESPACE;

/// What an entry answered. Read by the host before it calls again.
static mut REPLY: [u32; 4] = [0; 4];

fn reply(status: u32, bytes: Vec<u8>, detail: u32) -> *const u32 {
    let bytes = bytes.leak();
    // SAFETY: the module has one thread, and the host reads between calls.
    unsafe {
        REPLY = [status, bytes.as_ptr() as u32, bytes.len() as u32, detail];
        &raw const REPLY as *const u32
    }
}

/// # Safety
/// The host's part of the contract: the bytes are its own writes into a live allocation.
unsafe fn bytes(ptr: *const u8, len: usize) -> &'static [u8] {
    if len == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(ptr, len) }
}

/// Makes the runtime; called once, before the module is snapshotted.
#[unsafe(export_name = "initialize-runtime")]
pub extern "C" fn initialize_runtime() {
    engine::initialize();
}

/// Allocates `new_size` bytes. Nothing is ever given back, so an old block is only copied.
///
/// # Safety
/// `old` is null or has `old_size` readable bytes; `align` is a power of two.
#[unsafe(export_name = "cabi_realloc")]
pub unsafe extern "C" fn cabi_realloc(
    old: *mut u8,
    old_size: usize,
    align: usize,
    new_size: usize,
) -> *mut u8 {
    let layout = Layout::from_size_align(new_size.max(1), align).expect("a valid layout");
    // SAFETY: the size is not zero; the rest is the caller's promise.
    unsafe {
        let new = alloc(layout);
        if new.is_null() {
            handle_alloc_error(layout);
        }
        if !old.is_null() {
            std::ptr::copy_nonoverlapping(old, new, old_size.min(new_size));
        }
        new
    }
}

/// Compiles a module's source. 0: packed bytecode, detail 0 for a function and 1 for a
/// script. 1: a syntax error, as JSON `{message, file, line, column}`.
///
/// # Safety
/// Both ranges are the host's writes.
#[unsafe(export_name = "orb-compile")]
pub unsafe extern "C" fn orb_compile(
    name: *const u8,
    name_len: usize,
    source: *const u8,
    source_len: usize,
) -> *const u32 {
    // SAFETY: the caller's promise.
    let (name, source) = unsafe { (bytes(name, name_len), bytes(source, source_len)) };
    match compile::compile(&String::from_utf8_lossy(name), source) {
        Ok((packed, Kind::Function)) => reply(0, packed, 0),
        Ok((packed, Kind::Script)) => reply(0, packed, 1),
        Err(CompileFailure::Syntax(report)) => reply(1, report, 0),
        Err(CompileFailure::OutOfMemory) => reply(2, Vec::new(), 0),
    }
}

/// Runs packed bytecode once. 0: the answer, JSON · 1: thrown, JSON `{message, file, line,
/// column, stack}` · 2: the promise never settles · 3: the answer has no JSON form, why ·
/// 4: the input is not JSON, why · 5: a script came to its end · 6: out of memory.
///
/// # Safety
/// The ranges are the host's writes, each followed by a zero byte.
#[unsafe(export_name = "orb-run")]
pub unsafe extern "C" fn orb_run(
    code: *const u8,
    code_len: usize,
    context: *const u8,
    context_len: usize,
    input: *const u8,
    input_len: usize,
) -> *const u32 {
    // SAFETY: the caller's promise; zero bytes belong to the ranges handed on.
    let program = unsafe {
        Program {
            packed: bytes(code, code_len),
            context: bytes(context, context_len + 1),
            input: bytes(input, input_len + 1),
        }
    };
    match run::run(&program) {
        Outcome::Answer(json) => reply(0, json, 0),
        Outcome::Thrown(report) => reply(1, report.to_json(), 0),
        Outcome::Unsettled => reply(2, Vec::new(), 0),
        Outcome::BadOutput(why) => reply(3, why.into_bytes(), 0),
        Outcome::BadInput(why) => reply(4, why.into_bytes(), 0),
        Outcome::ScriptDone => reply(5, Vec::new(), 0),
        Outcome::OutOfMemory => reply(6, Vec::new(), 0),
    }
}

/// The entry of a stand-alone artifact: input from standard input, answer to standard
/// output, errors to standard error with exit code 1.
///
/// # Safety
/// The range is the caller's write.
#[unsafe(export_name = "invoke")]
pub unsafe extern "C" fn invoke(code: *const u8, code_len: usize) {
    // SAFETY: the caller's promise.
    let packed = unsafe { bytes(code, code_len) };
    let mut input = Vec::new();
    if Kind::of(packed) == Some(Kind::Function) {
        if let Err(error) = std::io::stdin().read_to_end(&mut input) {
            fail(&format!("the input can't be read: {error}"));
        }
    }
    input.push(0);
    let context = b"{\"function\":\"\",\"revision\":0,\"request_id\":\"\",\"deadline_ms\":0}\0";
    match run::run(&Program { packed, context, input: &input }) {
        Outcome::Answer(json) => {
            let mut stdout = std::io::stdout();
            if let Err(error) = stdout.write_all(&json).and_then(|()| stdout.flush()) {
                fail(&format!("the answer can't be written: {error}"));
            }
        }
        Outcome::ScriptDone => {}
        Outcome::Thrown(report) => fail(&report.to_text()),
        Outcome::Unsettled => fail("the function's promise never settles"),
        Outcome::BadOutput(why) => fail(&format!("the answer has no JSON form: {why}")),
        Outcome::BadInput(why) => fail(&format!("the input is not JSON: {why}")),
        Outcome::OutOfMemory => fail("out of memory"),
    }
}

fn fail(message: &str) -> ! {
    let _ = writeln!(std::io::stderr(), "{message}");
    std::process::exit(1);
}
