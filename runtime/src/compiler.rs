//! From WebAssembly to machine code.

use std::borrow::Cow;
use std::fmt::Debug;
use std::pin::Pin;

use wasmtime::{Engine, Module};

use crate::library::{blocking, internal_io};
use crate::{GuestFault, SandboxConfig, SealedFile, engine};

/// The future of a compilation.
pub type Compiling<'a> = Pin<Box<dyn Future<Output = Result<SealedFile, GuestFault>> + Send + 'a>>;

/// Who compiles. Admitted modules are still strangers': compiling one may take all the time and
/// memory that it is given, and a compiler has bugs.
pub trait Compiler: Debug + Send + Sync {
    /// Compiles an admitted module.
    ///
    /// The future ends in [`GuestFault::Refused`] if the module is not what the compiler takes,
    /// [`GuestFault::Compile`] at a limit of time or memory, [`GuestFault::Internal`] if it is this
    /// host's fault.
    fn compile(&self, wasm: Cow<'static, [u8]>) -> Compiling<'_>;
}

/// Compiles in this process: for tools that run what their own user built.
pub(crate) struct InProcess(pub Engine);

impl Debug for InProcess {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("InProcess")
    }
}

impl Compiler for InProcess {
    fn compile(&self, wasm: Cow<'static, [u8]>) -> Compiling<'_> {
        let engine = self.0.clone();
        Box::pin(blocking(move || {
            let code = machine_code(&engine, &wasm).map_err(|error| GuestFault::Refused {
                message: format!("{error:#}"),
            })?;
            SealedFile::copy_of(&code).map_err(|error| internal_io(&error))
        }))
    }
}

/// A module with one function, which does nothing.
const LEAST_MODULE: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x0a\x04\x01\x02\0\x0b";

/// Compiles modules for machines of the same configuration, here and now: what a process does that exists only for
/// this.
#[derive(Debug)]
pub struct ModuleCompiler(Engine);

impl ModuleCompiler {
    /// Gets everything ready that does not depend on the module: the first one takes some milliseconds less then.
    ///
    /// # Errors
    /// What wasmtime says of the configuration.
    pub fn new(config: &SandboxConfig) -> Result<Self, String> {
        // What instances there will be is no matter for a compiler, and costs address space.
        let alone = SandboxConfig {
            instances_max: 1,
            ..config.clone()
        };
        let compiler = engine::build(&alone)
            .map(Self)
            .map_err(|error| format!("{error:#}"))?;
        // Its threads are started now, and its tables made.
        compiler.compile(LEAST_MODULE)?;
        Ok(compiler)
    }

    /// Compiles a module.
    ///
    /// # Errors
    /// What wasmtime says of a module that it does not take.
    pub fn compile(&self, wasm: &[u8]) -> Result<Vec<u8>, String> {
        machine_code(&self.0, wasm).map_err(|error| format!("{error:#}"))
    }
}

/// A whole module rather than wasmtime's `precompile_module`, which does not ask whether the pool
/// has room for an instance.
fn machine_code(engine: &Engine, wasm: &[u8]) -> wasmtime::Result<Vec<u8>> {
    Module::from_binary(engine, wasm)?.serialize()
}
