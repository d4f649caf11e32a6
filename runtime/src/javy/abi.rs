//! Typed calls into an instance of the JavaScript engine.
//!
//! [`EngineExports`] is resolved once per compiled engine; [`EngineExports::bind`] gives the
//! [`EngineInstance`] of one call. Nothing that the guest hands back is trusted: every
//! pointer and length is checked against the instance's memory and a bound in bytes.

use serde::{Deserialize, Serialize};
use wasmtime::{Instance, Memory, Module, ModuleExport, Store, TypedFunc, WasmParams, WasmResults};

/// Most bytes of an error report (message, stack) that are taken from the guest.
/// The engine cuts both at 16 KiB of text; JSON escapes take up to six bytes each.
const REPORT_BYTES_MAX: usize = 256 * 1024;

/// Most bytes of bytecode that a compilation may give. It is the most that an artifact can hold.
pub const BYTECODE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Stack for compiled code (`Config::max_wasm_stack`) with which JavaScript that recurses without
/// end gets its `RangeError`. With less it traps earlier. Measured over all ways of recursing
/// that QuickJS watches: they need 1.5 to 4 times the 1 MiB that it allows itself in linear memory.
pub const WASM_STACK_BYTES: usize = 4 << 20;

/// How a program wants to be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It has a default export, which gets the parsed JSON input and returns the answer.
    Function,
    /// It has none: a plain Javy program, which reads and writes raw bytes through `Javy.IO`.
    Script,
}

/// A compiled program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// Packed bytecode: opaque, meant only for [`EngineInstance::run`] of the same engine.
    pub bytecode: Vec<u8>,
    /// Whether it has a default export.
    pub kind: Kind,
}

/// A program that is not JavaScript, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyntaxError {
    /// QuickJS's words, without the name of the error.
    pub message: String,
    /// The file as it was named in the call.
    pub file: String,
    /// From 1; 0 when QuickJS does not say (an import that can't be found, for one).
    pub line: u32,
    /// From 1, in UTF-16 code units; 0 when QuickJS does not say.
    pub column: u32,
}

/// Why there is no bytecode.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The developer's fault.
    #[error("{}:{}:{}: {}", .0.file, .0.line, .0.column, .0.message)]
    Syntax(SyntaxError),
    /// The source needs more memory to compile than the instance may have.
    #[error("there is not enough memory to compile the source")]
    OutOfMemory,
    /// The engine trapped (out of fuel, say, or the source is nested too deeply) or broke its
    /// contract.
    #[error("the JavaScript engine failed while compiling: {0}")]
    Engine(#[source] wasmtime::Error),
}

/// What a function's second parameter holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallContext {
    /// The function as its caller named it.
    pub function: String,
    /// The revision that runs.
    pub revision: u64,
    /// The call's id, for logs.
    pub request_id: String,
    /// When the answer must be there, in milliseconds since the Unix epoch.
    pub deadline_ms: u64,
}

/// One call.
#[derive(Debug, Clone, Copy)]
pub struct RunRequest<'a> {
    /// What [`EngineInstance::compile`] gave.
    pub bytecode: &'a [u8],
    /// The second parameter, as JSON text: a [`CallContext`]. Not used for a script.
    pub context_json: &'a [u8],
    /// The input, as JSON text. Not used for a script, which reads its standard input.
    pub input: &'a [u8],
    /// An answer of more bytes is not taken.
    pub output_bytes_max: usize,
}

/// How a call ended, when the engine could say so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunOutcome {
    /// JSON text.
    Answer(Vec<u8>),
    /// The program threw, or its promise was rejected.
    Thrown(Thrown),
    /// Nothing is left to do and the promise is still pending.
    Unsettled,
    /// What the function returned can't become JSON (a `BigInt`, a cycle, a function).
    BadOutput {
        /// Why.
        message: String,
    },
    /// The input is not JSON; nothing of the program has run.
    BadInput {
        /// Why.
        message: String,
    },
    /// A script came to its end. Its answer is what it wrote to standard output.
    ScriptDone,
    /// QuickJS could get no more memory, and the program did not handle that.
    OutOfMemory,
    /// The answer is longer than the request allows.
    OutputTooLarge {
        /// Its length.
        bytes: u64,
    },
}

/// An error that a program did not handle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thrown {
    /// `TypeError: x is not a function`, or the text of a thrown value that is no `Error`.
    pub message: String,
    /// The developer's file in which it was thrown. None for a value that is no `Error`:
    /// QuickJS keeps no position of such.
    pub file: Option<String>,
    /// From 1.
    pub line: Option<u32>,
    /// From 1, in bytes of UTF-8: what QuickJS keeps, and the source is no longer there to convert it.
    pub column: Option<u32>,
    /// One line per frame, innermost first; empty where there is none.
    pub stack: String,
}

/// Where a compiled engine has its exports: found once, used for every instance.
#[derive(Clone, Copy)]
pub struct EngineExports {
    memory: ModuleExport,
    realloc: ModuleExport,
    compile: ModuleExport,
    run: ModuleExport,
}

impl EngineExports {
    /// Finds them. Errors if the module lacks one.
    pub fn resolve(module: &Module) -> Result<Self, wasmtime::Error> {
        let find = |name: &str| {
            module
                .get_export_index(name)
                .ok_or_else(|| wasmtime::Error::msg(format!("the JavaScript engine has no export `{name}`")))
        };
        Ok(Self {
            memory: find("memory")?,
            realloc: find("cabi_realloc")?,
            compile: find("orb-compile")?,
            run: find("orb-run")?,
        })
    }

    /// The exports of one instance. Errors if one has another type than the contract says.
    pub fn bind<T: 'static>(
        &self,
        store: &mut Store<T>,
        instance: &Instance,
    ) -> Result<EngineInstance, wasmtime::Error> {
        let memory = instance
            .get_module_export(&mut *store, &self.memory)
            .and_then(wasmtime::Extern::into_memory)
            .ok_or_else(|| wasmtime::Error::msg("the engine's `memory` is no memory"))?;
        Ok(EngineInstance {
            memory,
            realloc: function(store, instance, &self.realloc)?,
            exports: *self,
            instance: *instance,
        })
    }
}

/// An export of one instance as a function of the type that the contract says.
fn function<T: 'static, P: WasmParams, R: WasmResults>(
    store: &mut Store<T>,
    instance: &Instance,
    export: &ModuleExport,
) -> Result<TypedFunc<P, R>, wasmtime::Error> {
    instance
        .get_module_export(&mut *store, export)
        .and_then(wasmtime::Extern::into_func)
        .ok_or_else(|| wasmtime::Error::msg("an export of the engine is no function"))?
        .typed(&*store)
}

/// The engine, instantiated for one call. After a call it is spent: drop the store.
#[derive(Clone)]
pub struct EngineInstance {
    memory: Memory,
    realloc: TypedFunc<(u32, u32, u32, u32), u32>,
    exports: EngineExports,
    instance: Instance,
}

/// What the guest left for the host to read.
struct Reply {
    status: u32,
    ptr: u32,
    len: u32,
    detail: u32,
}

impl EngineInstance {
    /// Compiles one module's source. Errors name `file_name`.
    pub async fn compile<T: Send + 'static>(
        &self,
        store: &mut Store<T>,
        source: &[u8],
        file_name: &str,
    ) -> Result<Compiled, CompileError> {
        let call = async {
            let [name, src] = self.write(store, [file_name.as_bytes(), source]).await?;
            let compile: TypedFunc<(u32, u32, u32, u32), u32> =
                function(store, &self.instance, &self.exports.compile)?;
            let params = (name.0, name.1, src.0, src.1);
            let area = compile.call_async(&mut *store, params).await?;
            let reply = self.reply(store, area)?;
            let bytes = self.read(store, &reply, BYTECODE_BYTES_MAX)?.to_vec();
            Ok::<_, wasmtime::Error>((reply, bytes))
        };
        let (reply, bytes) = call.await.map_err(CompileError::Engine)?;
        match (reply.status, reply.detail) {
            (0, 0) => Ok(Compiled {
                bytecode: bytes,
                kind: Kind::Function,
            }),
            (0, 1) => Ok(Compiled {
                bytecode: bytes,
                kind: Kind::Script,
            }),
            (1, _) => match serde_json::from_slice(&bytes) {
                Ok(error) => Err(CompileError::Syntax(error)),
                Err(_) => Err(CompileError::Engine(broken("its syntax error can't be read"))),
            },
            (2, _) => Err(CompileError::OutOfMemory),
            _ => Err(CompileError::Engine(broken("unknown status of a compilation"))),
        }
    }

    /// Runs a compiled program once. An `Err` is a trap (out of fuel, an exhausted stack,
    /// an exit) or a breach of the engine's contract.
    pub async fn run<T: Send + 'static>(
        &self,
        store: &mut Store<T>,
        request: RunRequest<'_>,
    ) -> Result<RunOutcome, wasmtime::Error> {
        let [code, context, input] = self
            .write(store, [request.bytecode, request.context_json, request.input])
            .await?;
        let params = (code.0, code.1, context.0, context.1, input.0, input.1);
        let run: TypedFunc<(u32, u32, u32, u32, u32, u32), u32> =
            function(store, &self.instance, &self.exports.run)?;
        let area = run.call_async(&mut *store, params).await?;
        let reply = self.reply(store, area)?;
        self.outcome(store, &reply, request.output_bytes_max)
    }

    fn outcome<T: 'static>(
        &self,
        store: &Store<T>,
        reply: &Reply,
        output_bytes_max: usize,
    ) -> Result<RunOutcome, wasmtime::Error> {
        let text = || {
            let bytes = self.read(store, reply, REPORT_BYTES_MAX)?;
            Ok::<_, wasmtime::Error>(String::from_utf8_lossy(bytes).into_owned())
        };
        Ok(match reply.status {
            0 if reply.len as usize > output_bytes_max => RunOutcome::OutputTooLarge {
                bytes: u64::from(reply.len),
            },
            0 => RunOutcome::Answer(self.read(store, reply, output_bytes_max)?.to_vec()),
            1 => RunOutcome::Thrown(
                serde_json::from_slice(self.read(store, reply, REPORT_BYTES_MAX)?)
                    .map_err(|_| broken("its report of a thrown error can't be read"))?,
            ),
            2 => RunOutcome::Unsettled,
            3 => RunOutcome::BadOutput { message: text()? },
            4 => RunOutcome::BadInput { message: text()? },
            5 => RunOutcome::ScriptDone,
            6 => RunOutcome::OutOfMemory,
            _ => return Err(broken("unknown status of a run")),
        })
    }

    /// Puts the parts into the guest's memory in one allocation, each followed by a zero
    /// byte (QuickJS's parser of JSON wants one). Gives (pointer, length) of each.
    async fn write<T: Send + 'static, const N: usize>(
        &self,
        store: &mut Store<T>,
        parts: [&[u8]; N],
    ) -> Result<[(u32, u32); N], wasmtime::Error> {
        let total: usize = parts.iter().map(|part| part.len() + 1).sum();
        let size =
            u32::try_from(total).map_err(|_| wasmtime::Error::msg("input and bytecode exceed 4 GiB"))?;
        let base = self.realloc.call_async(&mut *store, (0, 0, 1, size)).await?;
        let end = base as usize + total;
        let area = self
            .memory
            .data_mut(&mut *store)
            .get_mut(base as usize..end)
            .ok_or_else(|| broken("it allocated outside of its memory"))?;
        let mut at = 0;
        Ok(parts.map(|part| {
            let next = at + part.len();
            area[at..next].copy_from_slice(part);
            area[next] = 0;
            let place = (base + at as u32, part.len() as u32);
            at = next + 1;
            place
        }))
    }

    fn reply<T: 'static>(&self, store: &Store<T>, area: u32) -> Result<Reply, wasmtime::Error> {
        let at = area as usize;
        let bytes: &[u8; 16] = self
            .memory
            .data(store)
            .get(at..at + 16)
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| broken("its reply is outside of its memory"))?;
        let word = |i: usize| {
            u32::from_le_bytes([bytes[i * 4], bytes[i * 4 + 1], bytes[i * 4 + 2], bytes[i * 4 + 3]])
        };
        Ok(Reply {
            status: word(0),
            ptr: word(1),
            len: word(2),
            detail: word(3),
        })
    }

    fn read<'s, T: 'static>(
        &self,
        store: &'s Store<T>,
        reply: &Reply,
        bytes_max: usize,
    ) -> Result<&'s [u8], wasmtime::Error> {
        let (at, len) = (reply.ptr as usize, reply.len as usize);
        if len > bytes_max {
            return Err(broken("its reply is longer than it may be"));
        }
        self.memory
            .data(store)
            .get(at..at + len)
            .ok_or_else(|| broken("its reply points outside of its memory"))
    }
}

/// What an instance of the engine handed back can't be. The program did that: bytecode which no
/// compiler made can corrupt the memory of its own instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the JavaScript engine broke its contract: {0}")]
pub struct BrokenContract(&'static str);

fn broken(what: &'static str) -> wasmtime::Error {
    BrokenContract(what).into()
}
