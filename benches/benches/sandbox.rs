//! The sandbox against bare wasmtime, and a first call against a warm one.
//!
//! Baselines: the same pool (copy-on-write, `pagemap_scan` where the kernel has it, the same memory kept
//! resident), a fresh store and instance per call from an `InstancePre`; neither fuel nor limits. The
//! empty command imports nothing, so that it has two: with `wasmtime-wasi` on in-memory pipes, as a host
//! of commands needs it, and with nothing at all. JavaScript's is the artifact's interchange form on the
//! same plugin; the same again with fuel, set and counted as Orb does, says what metering costs. Pin the run to one core (`taskset -c 0`) to keep wake-ups out of it.

use std::path::Path;

use anyhow::{Context, Result};
use bytes::Bytes;
use criterion::{BatchSize, Criterion};
use orb_benches::{EMPTY_COMMAND, build_javascript};
use orb_runtime::{Artifact, CallContext, Event, Input, Job, Limits, Sandbox, SandboxConfig};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use wasmtime::{
    Config, Enabled, Engine, Instance, InstanceAllocationStrategy, InstancePre, Linker, Module,
    PoolingAllocationConfig, Store,
};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::pipe::{MemoryInputPipe, MemoryOutputPipe};

const JAVASCRIPT: &str =
    "export default (input) => ({ hello: input.name, sum: input.numbers.reduce((a, b) => a + b) })";
const INPUT: &[u8] = br#"{"name":"world","numbers":[1,2,3]}"#;

fn main() -> Result<()> {
    let runtime = Runtime::new()?;
    let mut criterion = Criterion::default().configure_from_args();
    let programs = Programs::new(&runtime)?;
    warm(&mut criterion, &runtime, &programs)?;
    first(&mut criterion, &runtime, &programs);
    criterion.final_summary();
    Ok(())
}

/// The two programs, on disk, with a sandbox whose cache is warm on disk.
struct Programs {
    folder: TempDir,
    sandbox: Sandbox,
    empty: Artifact,
    javascript: Artifact,
}

impl Programs {
    fn new(runtime: &Runtime) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let sandbox = sandbox(folder.path())?;
        let artifact = runtime.block_on(build_javascript(&sandbox, JAVASCRIPT))?;
        Ok(Self {
            empty: store(folder.path(), EMPTY_COMMAND)?,
            javascript: store(folder.path(), &artifact)?,
            folder,
            sandbox,
        })
    }
}

fn sandbox(folder: &Path) -> Result<Sandbox> {
    let config = SandboxConfig {
        cache_dir: Some(folder.join("cache")),
        ..SandboxConfig::default()
    };
    Ok(Sandbox::new(config)?)
}

fn store(folder: &Path, wasm: &[u8]) -> Result<Artifact> {
    let id = orb_protocol::id::ArtifactHash::of(wasm);
    let path = folder.join(id.to_string());
    std::fs::write(&path, wasm)?;
    Ok(Artifact {
        hash: *id.as_bytes(),
        path,
    })
}

async fn call(sandbox: &Sandbox, artifact: &Artifact) -> Bytes {
    let job = Job {
        artifact: artifact.clone(),
        context: CallContext {
            function: "bench".to_owned(),
            revision: 1,
            ..CallContext::default()
        },
        limits: Limits::default(),
        input: Input::Whole(Bytes::from_static(INPUT)),
    };
    let mut output = Bytes::new();
    let outcome = sandbox.run(job, |event| {
        if let Event::Output(bytes) = event {
            output = bytes;
        }
    });
    outcome.await.result.expect("the bench's guests do not fail");
    output
}

fn warm(criterion: &mut Criterion, runtime: &Runtime, programs: &Programs) -> Result<()> {
    let bare = Bare::new(None)?;
    let naked = Naked::new(&bare.engine)?;
    metered(criterion, runtime, programs)?;
    let empty = bare.command(&std::fs::read(&programs.empty.path)?)?;
    let javascript = bare.javascript(&std::fs::read(&programs.javascript.path)?)?;
    let pairs = [
        ("empty command", &programs.empty, empty),
        ("JavaScript", &programs.javascript, javascript),
    ];
    for (name, artifact, bare_program) in pairs {
        let mut group = criterion.benchmark_group(format!("warm call, {name}"));
        if name == "empty command" {
            group.bench_function("bare wasmtime without WASI (baseline)", |b| {
                b.iter(|| naked.call(&bare.engine).expect("it does not fail"));
            });
        }
        group.bench_function("bare wasmtime with WASI (baseline)", |b| {
            b.to_async(runtime)
                .iter(|| async { bare_program.call(&bare).await.expect("it does not fail") });
        });
        group.bench_function("orb, all limits", |b| {
            b.to_async(runtime).iter(|| call(&programs.sandbox, artifact));
        });
        group.finish();
    }
    Ok(())
}

/// What counting fuel costs a JavaScript call, with nothing else of Orb's around it.
fn metered(criterion: &mut Criterion, runtime: &Runtime, programs: &Programs) -> Result<()> {
    let wasm = std::fs::read(&programs.javascript.path)?;
    let mut group = criterion.benchmark_group("fuel, JavaScript");
    for (name, fuel) in [
        ("bare wasmtime without fuel (baseline)", None),
        ("bare wasmtime with fuel", Some(Limits::default().fuel)),
    ] {
        let bare = Bare::new(fuel)?;
        let program = bare.javascript(&wasm)?;
        group.bench_function(name, |b| {
            b.to_async(runtime)
                .iter(|| async { program.call(&bare).await.expect("it does not fail") });
        });
    }
    group.finish();
    Ok(())
}

/// What a function's first call costs. In all of them the JavaScript engine was compiled before, once
/// and for all functions.
fn first(criterion: &mut Criterion, runtime: &Runtime, programs: &Programs) {
    for (name, artifact) in [
        ("empty command", &programs.empty),
        ("JavaScript", &programs.javascript),
    ] {
        let mut group = criterion.benchmark_group(format!("first call, {name}"));
        group.bench_function("warm (baseline)", |b| {
            b.to_async(runtime).iter(|| call(&programs.sandbox, artifact));
        });
        group.sample_size(20);
        // Neither in memory nor compiled on disk: a command is compiled, JavaScript is read and checked.
        group.bench_function("new to the host", |b| {
            b.to_async(runtime).iter_batched(
                || programs.sandbox.forget(&artifact.hash),
                |()| call(&programs.sandbox, artifact),
                BatchSize::PerIteration,
            );
        });
        runtime.block_on(call(&programs.sandbox, artifact));
        // Compiled code, the engine's too, comes from the disk.
        group.bench_function("after a restart", |b| {
            b.to_async(runtime).iter_batched(
                || sandbox(programs.folder.path()).expect("a second sandbox starts"),
                |fresh| async move { call(&fresh, artifact).await },
                BatchSize::PerIteration,
            );
        });
        group.finish();
    }
}

/// Fuel after which a metered guest gives way, as in Orb.
const YIELD_FUEL: u64 = 1_000_000;

/// Wasmtime as one would embed it without Orb.
struct Bare {
    engine: Engine,
    linker: Linker<WasiP1Ctx>,
    /// What each call may burn; not counted if there is none.
    fuel: Option<u64>,
}

/// A program and how it is instantiated.
enum BareProgram {
    Command(InstancePre<WasiP1Ctx>),
    /// The plugin, and the module that imports what it exports.
    JavaScript(InstancePre<WasiP1Ctx>, Module),
}

/// The empty command with nothing around it: what an instance costs.
struct Naked(InstancePre<()>);

impl Naked {
    fn new(engine: &Engine) -> Result<Self> {
        let module = Module::new(engine, EMPTY_COMMAND).map_err(plain)?;
        let pre = Linker::new(engine).instantiate_pre(&module).map_err(plain)?;
        Ok(Self(pre))
    }

    fn call(&self, engine: &Engine) -> Result<()> {
        let mut store = Store::new(engine, ());
        let instance = self.0.instantiate(&mut store).map_err(plain)?;
        let start = instance
            .get_typed_func::<(), ()>(&mut store, "_start")
            .map_err(plain)?;
        start.call(&mut store, ()).map_err(plain)
    }
}

impl Bare {
    fn new(fuel: Option<u64>) -> Result<Self> {
        let mut pool = PoolingAllocationConfig::default();
        pool.total_core_instances(64)
            .total_memories(64)
            .total_tables(64)
            .total_stacks(64)
            .table_keep_resident(16 << 10)
            .pagemap_scan(Enabled::Auto);
        if PoolingAllocationConfig::is_pagemap_scan_available() {
            pool.linear_memory_keep_resident(512 << 10);
        }
        let mut config = Config::new();
        config
            .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
            .consume_fuel(fuel.is_some());
        let engine = Engine::new(&config).map_err(plain)?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p1::add_to_linker_async(&mut linker, |ctx| ctx).map_err(plain)?;
        Ok(Self { engine, linker, fuel })
    }

    fn store(&self, wasi: WasiP1Ctx) -> Result<Store<WasiP1Ctx>> {
        let mut store = Store::new(&self.engine, wasi);
        if let Some(fuel) = self.fuel {
            store.set_fuel(fuel).map_err(plain)?;
            store.fuel_async_yield_interval(Some(YIELD_FUEL)).map_err(plain)?;
        }
        Ok(store)
    }

    fn pre(&self, wasm: &[u8]) -> Result<InstancePre<WasiP1Ctx>> {
        let module = Module::new(&self.engine, wasm).map_err(plain)?;
        self.linker.instantiate_pre(&module).map_err(plain)
    }

    fn command(&self, wasm: &[u8]) -> Result<BareProgram> {
        Ok(BareProgram::Command(self.pre(wasm)?))
    }

    fn javascript(&self, wasm: &[u8]) -> Result<BareProgram> {
        let plugin = self.pre(orb_runtime::javy::engine::ENGINE_WASM)?;
        let module = Module::new(&self.engine, wasm).map_err(plain)?;
        Ok(BareProgram::JavaScript(plugin, module))
    }
}

impl BareProgram {
    async fn call(&self, bare: &Bare) -> Result<Bytes> {
        let stdout = MemoryOutputPipe::new(1 << 20);
        let wasi = WasiCtxBuilder::new()
            .stdin(MemoryInputPipe::new(Bytes::from_static(INPUT)))
            .stdout(stdout.clone())
            .build_p1();
        let mut store = bare.store(wasi)?;
        let instance = self.instantiate(&mut store).await?;
        let start = instance
            .get_typed_func::<(), ()>(&mut store, "_start")
            .map_err(plain)?;
        start.call_async(&mut store, ()).await.map_err(plain)?;
        Ok(stdout.contents())
    }

    async fn instantiate(&self, store: &mut Store<WasiP1Ctx>) -> Result<Instance> {
        match self {
            Self::Command(pre) => pre.instantiate_async(store).await.map_err(plain),
            Self::JavaScript(plugin, module) => {
                let plugin = plugin.instantiate_async(&mut *store).await.map_err(plain)?;
                let imports = module
                    .imports()
                    .map(|import| plugin.get_export(&mut *store, import.name()))
                    .collect::<Option<Vec<_>>>()
                    .context("the plugin exports what its artifacts import")?;
                Instance::new_async(store, module, &imports).await.map_err(plain)
            }
        }
    }
}

/// wasmtime's error as one that `?` takes.
#[expect(clippy::needless_pass_by_value, reason = "made for `map_err`")]
fn plain(error: wasmtime::Error) -> anyhow::Error {
    anyhow::anyhow!("{error}")
}
