//! The sandbox against bare wasmtime, and a first call against a warm one.
//!
//! Baselines: the same engine configuration (pooling, copy-on-write, `pagemap_scan` where the kernel has
//! it), a fresh store and instance per call from an `InstancePre`, WASI with in-memory pipes; neither fuel
//! nor limits. JavaScript's baseline is the artifact's interchange form on the same plugin.

use std::path::Path;

use anyhow::{Context, Result};
use bytes::Bytes;
use criterion::{BatchSize, Criterion};
use orb_benches::{EMPTY_COMMAND, build_javascript};
use orb_runtime::{Artifact, CallContext, Event, Input, Job, Limits, Sandbox, SandboxConfig};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, InstancePre, Linker, Module,
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
    let bare = Bare::new()?;
    let empty = bare.command(&std::fs::read(&programs.empty.path)?)?;
    let javascript = bare.javascript(&std::fs::read(&programs.javascript.path)?)?;
    let pairs = [
        ("empty command", &programs.empty, empty),
        ("JavaScript", &programs.javascript, javascript),
    ];
    for (name, artifact, bare_program) in pairs {
        let mut group = criterion.benchmark_group(format!("warm call, {name}"));
        group.bench_function("bare wasmtime (baseline)", |b| {
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

fn first(criterion: &mut Criterion, runtime: &Runtime, programs: &Programs) {
    let mut group = criterion.benchmark_group("first call, artifact on disk");
    for (name, artifact) in [
        ("empty command", &programs.empty),
        ("JavaScript", &programs.javascript),
    ] {
        // The engine stays; the function is new to it, and its compiled form is on disk if it has one.
        group.bench_function(name, |b| {
            b.to_async(runtime).iter_batched(
                || programs.sandbox.forget(&artifact.hash),
                |()| call(&programs.sandbox, artifact),
                BatchSize::PerIteration,
            );
        });
    }
    group.sample_size(10);
    group.bench_function("JavaScript, after a restart (engine from disk)", |b| {
        b.to_async(runtime).iter_batched(
            || sandbox(programs.folder.path()).expect("a second sandbox starts"),
            |fresh| async move { call(&fresh, &programs.javascript).await },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// Wasmtime as one would embed it without Orb.
struct Bare {
    engine: Engine,
    linker: Linker<WasiP1Ctx>,
}

struct BareProgram {
    /// The plugin, where the program needs one.
    plugin: Option<InstancePre<WasiP1Ctx>>,
    module: Module,
    pre: Option<InstancePre<WasiP1Ctx>>,
    namespace: String,
}

impl Bare {
    fn new() -> Result<Self> {
        let mut pool = PoolingAllocationConfig::default();
        pool.total_core_instances(64)
            .total_memories(64)
            .total_tables(64)
            .pagemap_scan(Enabled::Auto);
        let mut config = Config::new();
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        let engine = Engine::new(&config).map_err(|e| anyhow::anyhow!("{e}"))?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p1::add_to_linker_async(&mut linker, |ctx| ctx).map_err(|e| anyhow::anyhow!("{e}"))?;
        Ok(Self { engine, linker })
    }

    fn command(&self, wasm: &[u8]) -> Result<BareProgram> {
        let module = Module::new(&self.engine, wasm).map_err(|e| anyhow::anyhow!("{e}"))?;
        let pre = self
            .linker
            .instantiate_pre(&module)
            .map_err(|e| anyhow::anyhow!("{e}"))?;
        Ok(BareProgram {
            plugin: None,
            module,
            pre: Some(pre),
            namespace: String::new(),
        })
    }

    fn javascript(&self, wasm: &[u8]) -> Result<BareProgram> {
        let module = Module::new(&self.engine, wasm).map_err(|e| anyhow::anyhow!("{e}"))?;
        let plugin = Module::new(&self.engine, orb_runtime::javy::engine::ENGINE_WASM)
            .map_err(|e| anyhow::anyhow!("{e}"))?;
        let plugin = self
            .linker
            .instantiate_pre(&plugin)
            .map_err(|e| anyhow::anyhow!("{e}"))?;
        let namespace = module
            .imports()
            .next()
            .context("a javy artifact imports its engine")?
            .module()
            .to_owned();
        Ok(BareProgram {
            plugin: Some(plugin),
            module,
            pre: None,
            namespace,
        })
    }
}

impl BareProgram {
    async fn call(&self, bare: &Bare) -> Result<Bytes> {
        let stdout = MemoryOutputPipe::new(1 << 20);
        let wasi = WasiCtxBuilder::new()
            .stdin(MemoryInputPipe::new(Bytes::from_static(INPUT)))
            .stdout(stdout.clone())
            .build_p1();
        let mut store = Store::new(&bare.engine, wasi);
        let instance = match (&self.pre, &self.plugin) {
            (Some(pre), _) => pre.instantiate_async(&mut store).await,
            (None, Some(plugin)) => {
                let plugin = plugin
                    .instantiate_async(&mut store)
                    .await
                    .map_err(|e| anyhow::anyhow!("{e}"))?;
                let mut linker = bare.linker.clone();
                linker
                    .instance(&mut store, &self.namespace, plugin)
                    .map_err(|e| anyhow::anyhow!("{e}"))?;
                linker.instantiate_async(&mut store, &self.module).await
            }
            (None, None) => anyhow::bail!("nothing to run"),
        }
        .map_err(|e| anyhow::anyhow!("{e}"))?;
        let start = instance
            .get_typed_func::<(), ()>(&mut store, "_start")
            .map_err(|e| anyhow::anyhow!("{e}"))?;
        start
            .call_async(&mut store, ())
            .await
            .map_err(|e| anyhow::anyhow!("{e}"))?;
        Ok(stdout.contents())
    }
}
