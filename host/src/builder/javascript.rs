//! JavaScript to Wasm: compiled by the very engine that hosts run it on.

use std::path::Path;

use orb_runtime::CompileJavaScriptError;
use orb_runtime::javy::{self, CompileError, diagnose};

use crate::failure::Failure;
use crate::local_sandbox::LocalSandbox;

/// The artifact of a source. Errors name `main`.
pub(super) async fn compile(source: &[u8], main: &Path, sandbox: &LocalSandbox) -> Result<Vec<u8>, Failure> {
    let file = main.display().to_string();
    let compiled = sandbox.get()?.compile_javascript(source, &file);
    match sandbox.patiently(compiled).await {
        Ok(compiled) => Ok(javy::emit(&compiled.bytecode, &javy::engine_hash())),
        Err(CompileJavaScriptError::Source(CompileError::Syntax(error))) => {
            let shown = diagnose::render(&String::from_utf8_lossy(source), &error);
            Err(Failure::new("syntax", shown)
                .exit(2)
                .help("mend the line above the caret, and build again"))
        }
        Err(CompileJavaScriptError::Source(error)) => Err(Failure::new("syntax", format!("{file}: {error}"))
            .exit(2)
            .help("the source may be too large or too deeply nested for the engine: split it")),
        Err(error @ CompileJavaScriptError::Host(_)) => Err(Failure::local(error.to_string())),
    }
}
