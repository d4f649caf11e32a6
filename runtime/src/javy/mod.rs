//! JavaScript functions: the shared engine, and everything that is said to it.
//!
//! One engine (QuickJS, built as a Javy plugin, see `runtime/plugin/`) serves every
//! JavaScript function. A function's artifact is QuickJS bytecode in a small module.
//!
//! - [`engine`]: the engine's bytes, its hash, and which engines are known
//! - [`abi`]: typed calls into an instance of it: compile source, run bytecode
//! - [`emit()`]: bytecode to artifact
//! - [`recognise()`]: artifact to bytecode
//! - [`diagnose`]: a syntax error as a person wants to see it

pub mod abi;
pub mod diagnose;
mod emit;
pub mod engine;
mod pack;
mod recognise;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests;

pub use abi::{
    BrokenContract, CallContext, CompileError, Compiled, EngineExports, EngineInstance, Kind, RunOutcome,
    RunRequest, SyntaxError, Thrown,
};
pub use emit::emit;
pub use engine::{ENGINE_WASM, engine_hash, known_engine};
pub use recognise::{JavyArtifact, NotOurs, recognise};
