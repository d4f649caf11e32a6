//! A JavaScript call in a fresh instance, under all limits, against Node with a fresh `vm` context per call.
//!
//! Node times its own calls, so that nothing between the processes counts. Its script is compiled once, as
//! Orb's function is. A `vm` context is no wall, as Node's own documentation says, and has neither fuel nor limits.

use std::time::Instant;

use anyhow::{Result, ensure};
use orb_benches::race::Race;
use orb_benches::script::{Script, present};
use orb_benches::{INPUT, JAVASCRIPT, build_javascript, run};
use orb_runtime::{Artifact, Sandbox, SandboxConfig};
use tokio::runtime::Runtime;

/// What both answer.
const ANSWER: &[u8] = br#"{"hello":"world","sum":6}"#;

pub(crate) fn measure(runtime: &Runtime, short: bool) -> Result<()> {
    let title = "JavaScript call, fresh instance or context";
    if !present(&["node"], title)? {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let sandbox = Sandbox::new(SandboxConfig::default())?;
    let wasm = runtime.block_on(build_javascript(&sandbox, JAVASCRIPT))?;
    let path = folder.path().join("artifact");
    std::fs::write(&path, &wasm)?;
    let artifact = Artifact {
        hash: *blake3::hash(&wasm).as_bytes(),
        path,
    };
    let mut node = Script::start(&super::script("vm.js"), &[JAVASCRIPT], None)?;
    let input = std::str::from_utf8(INPUT)?;
    ensure!(node.ready.as_bytes() == ANSWER, "{} of {input}", node.ready);
    Race::new(title, short)
        .baseline("node, a fresh vm context per call", |calls| node.measure(calls))
        .contender("orb, all limits", |calls| {
            let began = Instant::now();
            for _ in 0..calls {
                let answer = runtime.block_on(run(&sandbox, &artifact))?;
                ensure!(answer == ANSWER, "another answer: {answer:?}");
            }
            Ok(began.elapsed())
        })
        .run()
}
