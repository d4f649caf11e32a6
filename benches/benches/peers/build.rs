//! `orb build` of a small JavaScript function, against `node --check` of the same file: whole processes.
//!
//! The JavaScript engine was compiled for this machine before, as it is once for each user. Node's figure
//! is for parsing alone; Orb's is for parsing, compiling to bytecode and writing the artifact.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use orb_benches::JAVASCRIPT;
use orb_benches::network::orb;
use orb_benches::race::Race;
use orb_benches::script::present;
use tokio::runtime::Runtime;

pub(crate) fn measure(_: &Runtime, short: bool) -> Result<()> {
    let title = "a small JavaScript function, checked or built by a process of its own";
    if !present(&["node"], title)? {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let project = folder.path().join("project");
    std::fs::create_dir(&project)?;
    std::fs::write(
        project.join("orb.toml"),
        "schema = 1\nname = \"js\"\nmain = \"index.js\"\n",
    )?;
    std::fs::write(project.join("index.js"), JAVASCRIPT)?;
    // So that Node takes the file for the module that it is.
    std::fs::write(project.join("package.json"), r#"{ "type": "module" }"#)?;
    let home = folder.path().join("home");
    Race::new(title, short)
        .single()
        .baseline("node --check", |_| {
            run(
                Command::new("node").arg("--check").arg(project.join("index.js")),
                &home,
            )
        })
        .contender("orb build", |_| {
            run(Command::new(orb()?).arg("build").arg(&project), &home)
        })
        .run()
}

fn run(command: &mut Command, home: &Path) -> Result<Duration> {
    command.env("ORB_HOME", home).stdin(Stdio::null());
    let began = Instant::now();
    let output = command.output()?;
    let took = began.elapsed();
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {text}");
    Ok(took)
}
