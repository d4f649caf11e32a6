//! A daemon at a machine of the lab, which may be killed and started again on the same folder.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use crate::machine::Machine;
use crate::orb::{command, eventually};

/// How much of a log is shown, in lines.
const TAIL_LINES: usize = 30;

/// See the module's text. Dropping it kills it.
pub(crate) struct Daemon {
    machine: Arc<dyn Machine>,
    name: String,
    arguments: Vec<String>,
    folder: PathBuf,
    child: Option<Child>,
    /// How long its log was when it was started last, in bytes.
    log_start: usize,
}

impl Daemon {
    /// Starts it; its data and its log go to `folder`.
    pub(crate) fn start(machine: Arc<dyn Machine>, folder: &Path, arguments: &[&str]) -> Result<Self> {
        let name = machine.name().to_owned();
        Self::start_as(name, machine, folder, arguments)
    }

    /// The same under another name than the machine's.
    pub(crate) fn start_as(
        name: String,
        machine: Arc<dyn Machine>,
        folder: &Path,
        arguments: &[&str],
    ) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut daemon = Self {
            name,
            machine,
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            folder: folder.to_owned(),
            child: None,
            log_start: 0,
        };
        daemon.start_again()?;
        Ok(daemon)
    }

    /// Starts it if it does not run.
    pub(crate) fn start_again(&mut self) -> Result<()> {
        if self.child.is_some() {
            return Ok(());
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.join("log"))?;
        self.log_start = file.metadata()?.len() as usize;
        let mut command = command(&self.arguments);
        command
            .arg("--data")
            .arg(self.data())
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        self.child = Some(self.machine.spawn(command)?);
        Ok(())
    }

    /// Kills it with SIGKILL, if it runs.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only for a process that is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// What it is called in results.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its data folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Waits until its log since it was started, or a file, says something.
    pub(crate) fn wait_for<T>(&mut self, mut ask: impl FnMut(&str) -> Option<T>) -> Result<T> {
        let name = self.name.clone();
        let found = eventually(&format!("waiting for {name}"), || {
            self.check_alive()?;
            let log = self.log();
            Ok(ask(log.get(self.log_start..).unwrap_or_default()))
        });
        found.with_context(|| self.log_tail())
    }

    /// That it has not ended by itself.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait()?
        {
            bail!("{} ended by itself with {status}\n{}", self.name, self.log_tail());
        }
        Ok(())
    }

    /// Memory that is resident, its children's too, in bytes; 0 if it does not run.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let Some(child) = &self.child else { return 0 };
        let id = child.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        let children = children.unwrap_or_default();
        let children = children.split_whitespace().filter_map(|id| id.parse().ok());
        resident_bytes(id) + children.map(resident_bytes).sum::<u64>()
    }

    /// The end of its log.
    pub(crate) fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        format!(
            "--- log of {}\n{}",
            self.name,
            lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
        )
    }

    fn log(&self) -> String {
        let mut bytes = Vec::new();
        let read = File::open(self.folder.join("log"))
            .and_then(|mut file| std::io::Read::read_to_end(&mut file, &mut bytes));
        // A log that is not there yet says nothing.
        read.map(|_| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }
}

fn resident_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or_default() * 1_024
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}
