//! The binary, run in a machine of the lab.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use patchbay::Device;
use serde_json::Value;

use crate::requirements::orb_path;

/// After this long a thing that should happen is taken never to happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much of a log is shown, in lines.
const TAIL_LINES: usize = 30;

/// Somebody with an `ORB_HOME`, at a machine.
pub(crate) struct User {
    device: Device,
    home: PathBuf,
    super_node: String,
}

impl User {
    /// Somebody whose keys lie in `home`.
    pub(crate) fn new(device: &Device, home: PathBuf, super_node: &str) -> Result<Self> {
        std::fs::create_dir_all(&home)?;
        Ok(Self {
            device: device.clone(),
            home,
            super_node: super_node.to_owned(),
        })
    }

    /// Runs a command with `--json` and gives its document.
    pub(crate) fn run(&self, folder: &Path, arguments: &[&str], stdin: &[u8]) -> Result<Value> {
        let input = self.home.join("stdin");
        File::create(&input)?.write_all(stdin)?;
        let (out, err) = (self.home.join("stdout"), self.home.join("stderr"));
        let mut command = command(arguments);
        command
            .arg("--json")
            .env("ORB_HOME", &self.home)
            .env("ORB_SUPER", &self.super_node)
            .current_dir(folder)
            .stdin(File::open(&input)?)
            .stdout(File::create(&out)?)
            .stderr(File::create(&err)?);
        let mut child = self.device.spawn_command_sync(command)?;
        let status = eventually(|| Ok(child.try_wait()?)).inspect_err(|_| {
            // It hangs; that it cannot be killed would be no news.
            let _ = child.kill();
        });
        let said = || {
            let [out, err] = [&out, &err].map(|path| std::fs::read_to_string(path).unwrap_or_default());
            format!(
                "`orb {}` at {}\n{out}\n{err}",
                arguments.join(" "),
                self.device.name()
            )
        };
        ensure!(status.with_context(said)?.success(), "failed: {}", said());
        serde_json::from_slice(&std::fs::read(&out)?).with_context(said)
    }

    /// The id of the key that this person's functions belong to.
    pub(crate) fn owner(&self) -> Result<String> {
        let id = self.run(&self.home, &["id"], b"")?;
        let owner = id["owner"]
            .as_str()
            .with_context(|| format!("`orb id` names the owner: {id}"))?;
        Ok(owner.to_owned())
    }
}

/// A daemon in a machine; dropping it kills it.
pub(crate) struct Daemon {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Daemon {
    /// Starts it; its data and its log go to `folder`.
    pub(crate) fn start(device: &Device, folder: &Path, arguments: &[&str]) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let log = folder.join("log");
        let file = File::create(&log)?;
        let mut command = command(arguments);
        command
            .arg("--data")
            .arg(folder.join("data"))
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let child = device.spawn_command_sync(command)?;
        Ok(Self {
            name: device.name().to_owned(),
            log,
            child,
        })
    }

    /// Waits until its log or a file says something.
    pub(crate) fn wait_for<T>(&mut self, mut ask: impl FnMut(&str) -> Option<T>) -> Result<T> {
        let found = eventually(|| {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}");
            }
            Ok(ask(&std::fs::read_to_string(&self.log).unwrap_or_default()))
        });
        found.with_context(|| format!("waiting for {}:\n{}", self.name, self.log_tail()))
    }

    /// The end of its log.
    pub(crate) fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!(
            "--- log of {}\n{}",
            self.name,
            lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
        )
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(arguments: &[&str]) -> Command {
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
fn eventually<T>(mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("nothing after {PATIENCE:?}")
}
