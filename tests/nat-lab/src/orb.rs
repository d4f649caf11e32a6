//! The binary, run as a command at a machine of the lab.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::interrupt;
use crate::machine::Machine;
use crate::requirements::orb_path;

/// After this long a thing that should happen is taken never to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks whether it has happened.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Somebody with an `ORB_HOME`, at a machine.
#[derive(Clone)]
pub(crate) struct User {
    machine: Arc<dyn Machine>,
    home: PathBuf,
    super_node: String,
}

impl User {
    /// Somebody whose keys lie in `home`.
    pub(crate) fn new(machine: Arc<dyn Machine>, home: PathBuf, super_node: &str) -> Result<Self> {
        std::fs::create_dir_all(&home)?;
        Ok(Self {
            machine,
            home,
            super_node: super_node.to_owned(),
        })
    }

    /// The same person, at another machine and super node.
    pub(crate) fn at(&self, machine: &Arc<dyn Machine>, super_node: &str) -> Self {
        Self {
            machine: Arc::clone(machine),
            home: self.home.clone(),
            super_node: super_node.to_owned(),
        }
    }

    /// Another device of the same person: the owner's key, and nothing else.
    pub(crate) fn another_device(&self, home: PathBuf) -> Result<Self> {
        self.owner()?;
        std::fs::create_dir_all(&home)?;
        std::fs::copy(self.home.join("owner.key"), home.join("owner.key"))?;
        Ok(Self { home, ..self.clone() })
    }

    /// Begins a command with `--json`.
    pub(crate) fn begin(&self, folder: &Path, arguments: &[&str], stdin: &[u8]) -> Result<Running> {
        let mut input = tempfile::tempfile()?;
        input.write_all(stdin)?;
        input.rewind()?;
        let (out, err) = (tempfile::tempfile()?, tempfile::tempfile()?);
        let mut command = command(arguments);
        command
            .arg("--json")
            .env("ORB_HOME", &self.home)
            .env("ORB_SUPER", &self.super_node)
            .current_dir(folder)
            .stdin(input)
            .stdout(out.try_clone()?)
            .stderr(err.try_clone()?);
        Ok(Running {
            line: format!("`orb {}` at {}", arguments.join(" "), self.machine.name()),
            child: self.machine.spawn(command)?,
            out,
            err,
        })
    }

    /// Runs a command with `--json` to its end, whatever that is.
    pub(crate) fn try_run(&self, folder: &Path, arguments: &[&str], stdin: &[u8]) -> Result<Ended> {
        self.begin(folder, arguments, stdin)?.wait()
    }

    /// Runs a command with `--json` and gives its document.
    pub(crate) fn run(&self, folder: &Path, arguments: &[&str], stdin: &[u8]) -> Result<Value> {
        let ended = self.try_run(folder, arguments, stdin)?;
        ensure!(ended.code == 0, "failed: {ended}");
        ended.document()
    }

    /// The id of the key that this person's functions belong to.
    pub(crate) fn owner(&self) -> Result<String> {
        let id = self.run(&self.home, &["id"], b"")?;
        let owner = id["owner"]
            .as_str()
            .with_context(|| format!("`orb id` names the owner: {id}"))?;
        Ok(owner.to_owned())
    }

    /// A folder that is surely there.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }
}

/// A command that runs; dropping it kills it.
pub(crate) struct Running {
    line: String,
    child: Child,
    out: File,
    err: File,
}

impl Running {
    /// Waits until it ends by itself.
    pub(crate) fn wait(mut self) -> Result<Ended> {
        let status = eventually(&format!("{} ends", self.line), || Ok(self.child.try_wait()?))?;
        self.end(status.code())
    }

    /// Waits until `until`, and kills it if it has not ended by then. Killed by a signal it has no exit code.
    pub(crate) fn wait_until(mut self, until: Instant) -> Result<Ended> {
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait()? {
                return self.end(status.code());
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        self.child.kill()?;
        let status = self.child.wait()?;
        self.end(status.code())
    }

    fn end(mut self, code: Option<i32>) -> Result<Ended> {
        let [mut out, mut err] = [String::new(), String::new()];
        for (file, text) in [(&mut self.out, &mut out), (&mut self.err, &mut err)] {
            file.rewind()?;
            file.read_to_string(text)?;
        }
        Ok(Ended {
            line: std::mem::take(&mut self.line),
            code: code.unwrap_or(-1),
            out,
            err,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a command ended.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    line: String,
    /// Its exit code; -1 if it was killed.
    pub(crate) code: i32,
    out: String,
    err: String,
}

impl Ended {
    /// What it printed on stdout.
    pub(crate) fn document(&self) -> Result<Value> {
        serde_json::from_str(&self.out).with_context(|| self.to_string())
    }

    /// The kind of its failure, as `{"error": {"kind": …}}` says; empty if it says none.
    pub(crate) fn error_kind(&self) -> String {
        let document = self.document().unwrap_or_default();
        document["error"]["kind"].as_str().unwrap_or_default().to_owned()
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} ended with {}\n{}\n{}",
            self.line, self.code, self.out, self.err
        )
    }
}

/// The binary with arguments, and without settings of whoever runs the lab.
pub(crate) fn command(arguments: &[impl AsRef<std::ffi::OsStr>]) -> Command {
    let mut command = Command::new(orb_path());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ORB_") {
            command.env_remove(name);
        }
    }
    command.args(arguments);
    command
}

/// Asks again and again until there is an answer.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        interrupt::check()?;
        std::thread::sleep(LOOK_INTERVAL);
    }
    bail!("nothing after {PATIENCE:?}: {what}")
}
