//! The sandbox against bare wasmtime, and a first call against a warm one.
//!
//! Baselines: the same pool (copy-on-write, `pagemap_scan` where the kernel has it, the same memory kept
//! resident), a fresh store and instance per call from an `InstancePre`; neither fuel nor limits. The
//! empty command imports nothing, so that it has two: with `wasmtime-wasi` on in-memory pipes, as a host
//! of commands needs it, and with nothing at all. JavaScript's is the artifact's interchange form on the
//! same plugin. Pin the run to one core (`taskset -c 0`) to keep wake-ups out of it. What counting fuel costs is
//! measured in `peers -- walled`.

use std::path::Path;

use anyhow::Result;
use bytes::Bytes;
use criterion::{BatchSize, Criterion};
use orb_benches::bare::{Bare, Naked};
use orb_benches::{EMPTY_COMMAND, JAVASCRIPT, build_javascript, run};
use orb_runtime::{Artifact, Sandbox, SandboxConfig};
use tempfile::TempDir;
use tokio::runtime::Runtime;

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
    run(sandbox, artifact)
        .await
        .expect("the bench's guests do not fail")
}

fn warm(criterion: &mut Criterion, runtime: &Runtime, programs: &Programs) -> Result<()> {
    let bare = Bare::new(None)?;
    let naked = Naked::new(&bare.engine)?;
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
