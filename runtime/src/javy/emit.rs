//! Bytecode to artifact.
//!
//! An artifact is a module of about 300 bytes around packed bytecode. It runs by itself on
//! any WebAssembly runtime that is given the engine under its [`NAMESPACE`] and WASI; Orb's
//! hosts take the bytecode out of it and call the engine themselves.
//!
//! Everything in it follows from the bytecode and the engine's hash, so that
//! [`recognise()`](super::recognise()) can tell whether this emitter made a module.

use super::abi::Kind;
use super::engine::NAMESPACE;
use super::pack::kind_of;
use wasm_encoder::{
    CodeSection, CustomSection, DataCountSection, DataSection, EntityType, ExportKind, ExportSection,
    Function, FunctionSection, ImportSection, MemoryType, Module, TypeSection, ValType,
};

/// Name of the custom section that says what an artifact is.
pub(super) const SECTION: &str = "orb.javy";

/// Version of this emitter's output. Raised with any change of a single byte of it.
pub(super) const EMITTER_VERSION: u8 = 1;

/// Bytes of the digest that guards the bytecode against damage (not against malice: the
/// artifact's own hash does that).
const CHECK_BYTES: usize = 8;

/// Length of [`SECTION`]'s contents.
pub(super) const RECORD_BYTES: usize = 2 + 32 + CHECK_BYTES;

/// Makes the artifact of `bytecode`, which the engine with hash `engine` compiled
/// ([`Compiled::bytecode`](super::Compiled)).
pub fn emit(bytecode: &[u8], engine: &[u8; 32]) -> Vec<u8> {
    let mut module = Module::new();
    module.section(&CustomSection {
        name: SECTION.into(),
        data: record(bytecode, engine).as_slice().into(),
    });
    module.section(&types());
    module.section(&imports());
    module.section(FunctionSection::new().function(START_TYPE));
    module.section(ExportSection::new().export("_start", ExportKind::Func, START));
    module.section(&DataCountSection { count: 1 });
    module.section(CodeSection::new().function(&start(bytecode.len())));
    module.section(DataSection::new().passive(bytecode.iter().copied()));
    module.finish()
}

const REALLOC_TYPE: u32 = 0;
const INVOKE_TYPE: u32 = 1;
const START_TYPE: u32 = 2;

const REALLOC: u32 = 0;
const INVOKE: u32 = 1;
const START: u32 = 2;

/// Emitter version, kind, engine, digest of the bytecode.
fn record(bytecode: &[u8], engine: &[u8; 32]) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    record[0] = EMITTER_VERSION;
    record[1] = u8::from(kind_of(bytecode) == Some(Kind::Script));
    record[2..34].copy_from_slice(engine);
    record[34..].copy_from_slice(&blake3::hash(bytecode).as_bytes()[..CHECK_BYTES]);
    record
}

fn types() -> TypeSection {
    let mut types = TypeSection::new();
    types.ty().function([ValType::I32; 4], [ValType::I32]);
    types.ty().function([ValType::I32; 2], []);
    types.ty().function([], []);
    types
}

fn imports() -> ImportSection {
    let mut imports = ImportSection::new();
    let memory = MemoryType {
        minimum: 0,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    };
    imports.import(NAMESPACE, "memory", memory);
    imports.import(NAMESPACE, "cabi_realloc", EntityType::Function(REALLOC_TYPE));
    imports.import(NAMESPACE, "invoke", EntityType::Function(INVOKE_TYPE));
    imports
}

/// Copies the bytecode into the engine's memory and has it run.
fn start(len: usize) -> Function {
    let len = i32::try_from(len).expect("bytecode is bounded by BYTECODE_BYTES_MAX");
    let at = 0;
    let mut function = Function::new([(1, ValType::I32)]);
    let mut code = function.instructions();
    // at = cabi_realloc(0, 0, 1, len)
    code.i32_const(0).i32_const(0).i32_const(1).i32_const(len);
    code.call(REALLOC).local_set(at);
    // memory.init(at, 0, len)
    code.local_get(at).i32_const(0).i32_const(len).memory_init(0, 0);
    // invoke(at, len)
    code.local_get(at).i32_const(len).call(INVOKE).end();
    function
}
