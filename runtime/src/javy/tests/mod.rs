//! The engine as it is used: source in, outcome out.

mod artifact;
mod behaviour;
mod errors;
mod guards;
mod size;

use super::{CompileError, Compiled, EngineExports, RunOutcome, RunRequest, Thrown};
use crate::javy::abi::WASM_STACK_BYTES;
use crate::javy::engine::ENGINE_WASM;
use std::sync::OnceLock;
use wasmtime::{
    Config, Engine, InstancePre, Linker, Module, ResourceLimiter, Store, StoreLimits, StoreLimitsBuilder,
};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p1::{WasiP1Ctx, add_to_linker_async};
use wasmtime_wasi::p2::pipe::{MemoryInputPipe, MemoryOutputPipe};

const FUEL: u64 = 2_000_000_000;
const MEMORY_BYTES: usize = 32 << 20;
const PIPE_BYTES: usize = 1 << 20;
const CONTEXT: &[u8] = br#"{"function":"o/f","revision":7,"request_id":"r-1","deadline_ms":1700000000000}"#;

struct State {
    wasi: WasiP1Ctx,
    limits: StoreLimits,
}

/// The compiled engine, shared by all tests of the process.
struct Shared {
    engine: Engine,
    pre: InstancePre<State>,
    exports: EngineExports,
}

fn shared() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(|| {
        let mut config = Config::new();
        config.consume_fuel(true);
        config
            .max_wasm_stack(WASM_STACK_BYTES)
            .async_stack_size(WASM_STACK_BYTES + (1 << 20));
        let engine = Engine::new(&config).unwrap();
        let module = Module::new(&engine, ENGINE_WASM).unwrap();
        let mut linker = Linker::new(&engine);
        add_to_linker_async(&mut linker, |state: &mut State| &mut state.wasi).unwrap();
        let pre = linker.instantiate_pre(&module).unwrap();
        let exports = EngineExports::resolve(&module).unwrap();
        Shared { engine, pre, exports }
    })
}

/// What came of one call.
struct Ran {
    outcome: Result<RunOutcome, wasmtime::Error>,
    stdout: Vec<u8>,
    log: String,
}

impl Ran {
    #[track_caller]
    fn answer(self) -> String {
        match self.outcome {
            Ok(RunOutcome::Answer(json)) => String::from_utf8(json).unwrap(),
            other => panic!("no answer but {other:?}, log: {}", self.log),
        }
    }

    #[track_caller]
    fn thrown(self) -> Thrown {
        match self.outcome {
            Ok(RunOutcome::Thrown(thrown)) => thrown,
            other => panic!("nothing thrown but {other:?}, log: {}", self.log),
        }
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

fn store(stdin: &[u8], stdout: &MemoryOutputPipe, stderr: &MemoryOutputPipe) -> Store<State> {
    let mut wasi = WasiCtxBuilder::new();
    wasi.stdin(MemoryInputPipe::new(stdin.to_vec()))
        .stdout(stdout.clone())
        .stderr(stderr.clone());
    let limits = StoreLimitsBuilder::new().memory_size(MEMORY_BYTES).build();
    let state = State {
        wasi: wasi.build_p1(),
        limits,
    };
    let mut store = Store::new(&shared().engine, state);
    store.limiter(|state| &mut state.limits as &mut dyn ResourceLimiter);
    store.set_fuel(FUEL).unwrap();
    store
}

fn compile_as(file_name: &str, source: &[u8]) -> Result<Compiled, CompileError> {
    let shared = shared();
    block_on(async {
        let pipe = MemoryOutputPipe::new(PIPE_BYTES);
        let mut store = store(b"", &pipe, &pipe);
        let instance = shared.pre.instantiate_async(&mut store).await.unwrap();
        let bound = shared.exports.bind(&mut store, &instance).unwrap();
        bound.compile(&mut store, source, file_name).await
    })
}

#[track_caller]
fn compile(source: &str) -> Compiled {
    compile_as("index.js", source.as_bytes()).unwrap()
}

/// Runs a program. `input` is both the JSON input and standard input.
fn run_compiled(compiled: &Compiled, input: &[u8], output_bytes_max: usize) -> Ran {
    let shared = shared();
    let (stdout, stderr) = (
        MemoryOutputPipe::new(PIPE_BYTES),
        MemoryOutputPipe::new(PIPE_BYTES),
    );
    let outcome = block_on(async {
        let mut store = store(input, &stdout, &stderr);
        let instance = shared.pre.instantiate_async(&mut store).await.unwrap();
        let bound = shared.exports.bind(&mut store, &instance).unwrap();
        let request = RunRequest {
            bytecode: &compiled.bytecode,
            context_json: CONTEXT,
            input,
            output_bytes_max,
        };
        bound.run(&mut store, request).await
    });
    Ran {
        outcome,
        stdout: stdout.contents().to_vec(),
        log: String::from_utf8(stderr.contents().to_vec()).unwrap(),
    }
}

#[track_caller]
fn run(source: &str, input: &str) -> Ran {
    run_compiled(&compile(source), input.as_bytes(), PIPE_BYTES)
}

/// The answer of a function whose body is the given expression of `input` and `ctx`.
#[track_caller]
fn eval(expression: &str, input: &str) -> String {
    run(&format!("export default (input, ctx) => {expression}"), input).answer()
}
