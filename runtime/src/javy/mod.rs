//! JavaScript functions: the shared engine, and everything that is said to it.
//!
//! One engine (QuickJS, built as a Javy plugin, see `runtime/plugin/`) serves every
//! JavaScript function. A function's artifact is QuickJS bytecode in a small module.
//!
//! - [`engine`]: the engine's bytes, its hash, and which engines are known
//! - [`abi`]: typed calls into an instance of it: compile source, run bytecode

pub mod abi;

pub use abi::{
    CallContext, CompileError, Compiled, EngineExports, EngineInstance, Kind, RunOutcome, RunRequest,
    SyntaxError, Thrown,
};
