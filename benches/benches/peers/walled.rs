//! Guests where they really run: behind the second wall, in a process like an executor, against bare
//! wasmtime in that same process.
//!
//! Everything is compiled and called once before the wall is up: afterwards there are no files and no
//! threads to be had. Nothing goes from process to process while it is measured.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use orb_benches::bare::{Bare, BareProgram};
use orb_benches::process::ROLE;
use orb_benches::race::Race;
use orb_benches::{EMPTY_COMMAND, JAVASCRIPT, build_javascript, run};
use orb_runtime::{Artifact, Limits, Sandbox, SandboxConfig};
use tokio::runtime::Runtime;

/// The role of the process that is walled in; its argument says whether it is to be short.
pub(crate) const WALLED: &str = "walled";
const SHORT: &str = "short";
/// What the process may take: as an executor by default.
const MEMORY_BYTES: u64 = 4 << 30;

pub(crate) fn measure(_: &Runtime, short: bool) -> Result<()> {
    let length = if short { SHORT } else { "long" };
    let ended = Command::new(std::env::current_exe()?)
        .env(ROLE, format!("{WALLED} {length}"))
        .status()
        .context("cannot start the bench's own binary")?;
    ensure!(ended.success(), "the walled process failed: {ended}");
    Ok(())
}

/// In the process of its own.
pub(crate) fn inside(length: &str) -> Result<()> {
    let short = length == SHORT;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let folder = tempfile::tempdir()?;
    let sandbox = Sandbox::new(SandboxConfig::default())?;
    let javascript = runtime.block_on(build_javascript(&sandbox, JAVASCRIPT))?;
    let store = |name: &str, wasm: &[u8]| -> Result<Artifact> {
        let path = folder.path().join(name);
        std::fs::write(&path, wasm)?;
        let hash = *blake3::hash(wasm).as_bytes();
        Ok(Artifact { hash, path })
    };
    let programs = [
        (store("empty", EMPTY_COMMAND)?, EMPTY_COMMAND),
        (store("javascript", &javascript)?, javascript.as_slice()),
    ];
    let (plain, metered) = (Bare::new(None)?, Bare::new(Some(Limits::default().fuel))?);
    let bare = |bare: &Bare| -> Result<[BareProgram; 2]> {
        let [(_, command), (_, script)] = &programs;
        Ok([bare.command(command)?, bare.javascript(script)?])
    };
    let (on_plain, on_metered) = (bare(&plain)?, bare(&metered)?);
    for (at, (artifact, _)) in programs.iter().enumerate() {
        runtime.block_on(run(&sandbox, artifact))?;
        runtime.block_on(on_plain[at].call(&plain))?;
        runtime.block_on(on_metered[at].call(&metered))?;
    }
    drop(folder);
    for wall in orb_host::executor::enclose(MEMORY_BYTES) {
        if let Some(gap) = wall.gap() {
            println!("{}: {gap}", wall.name);
        }
    }
    let of_bare = |program: &BareProgram, bare: &Bare, calls| -> Result<Duration> {
        let began = Instant::now();
        for _ in 0..calls {
            runtime.block_on(program.call(bare))?;
        }
        Ok(began.elapsed())
    };
    for (at, title) in ["empty command", "JavaScript"].into_iter().enumerate() {
        Race::new(format!("{title}, behind the second wall"), short)
            .baseline("bare wasmtime with WASI", |calls| {
                of_bare(&on_plain[at], &plain, calls)
            })
            .contender("bare wasmtime, counting fuel", |calls| {
                of_bare(&on_metered[at], &metered, calls)
            })
            .contender("orb, all limits", |calls| {
                let began = Instant::now();
                for _ in 0..calls {
                    runtime.block_on(run(&sandbox, &programs[at].0))?;
                }
                Ok(began.elapsed())
            })
            .run()?;
    }
    Ok(())
}
