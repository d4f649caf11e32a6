//! Node, for what is measured against it: scripts that stand beside the benches.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// Whether what a comparison needs is on this machine. Says what is missing.
///
/// # Errors
/// Something is missing, and in CI (`CI=true`) nothing may be.
pub fn present(programs: &[&str], for_what: &str) -> Result<bool> {
    let missing: Vec<_> = programs.iter().copied().filter(|p| !runs(p)).collect();
    if missing.is_empty() {
        return Ok(true);
    }
    let missing = missing.join(", ");
    if std::env::var("CI").is_ok_and(|ci| ci == "true") {
        bail!("{for_what} needs {missing}, which this machine has not got");
    }
    println!("\n{for_what}: not measured, {missing} is missing on this machine");
    Ok(false)
}

fn runs(program: &str) -> bool {
    let mut version = Command::new(program);
    version
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    version.status().is_ok_and(|status| status.success())
}

/// Installs packages by name into a folder of the build's target folder, and returns it.
///
/// # Errors
/// npm fails: what it printed went to stderr.
pub fn packages(wanted: &[&str]) -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let target = this
        .ancestors()
        .nth(3)
        .context("a bench lies in target/release/deps")?;
    let folder = target.join("benches-npm");
    std::fs::create_dir_all(&folder)?;
    let status = Command::new("npm")
        .args(["install", "--no-save", "--no-package-lock", "--ignore-scripts"])
        .args(["--no-audit", "--no-fund", "--prefer-offline", "--prefix"])
        .arg(&folder)
        .args(wanted)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()?;
    ensure!(status.success(), "npm cannot install {}", wanted.join(", "));
    Ok(folder.join("node_modules"))
}

/// A script in a process of its own; ended when dropped.
///
/// It prints one line when it is ready. A script that measures reads a number of calls from each line on its
/// standard input, makes them, and prints how long they took in nanoseconds.
#[derive(Debug)]
pub struct Script {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// The line that it printed when it was ready.
    pub ready: String,
}

impl Script {
    /// Starts a script with arguments; it finds packages in `packages`.
    ///
    /// # Errors
    /// It does not get ready.
    pub fn start(script: &Path, args: &[&str], packages: Option<&Path>) -> Result<Self> {
        let mut command = Command::new("node");
        command.arg(script).args(args);
        if let Some(packages) = packages {
            command.env("NODE_PATH", packages);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take().context("a piped stdin")?;
        let stdout = BufReader::new(child.stdout.take().context("a piped stdout")?);
        let mut script = Self {
            child,
            stdin,
            stdout,
            ready: String::new(),
        };
        script.ready = script.line()?;
        Ok(script)
    }

    /// Lets it make so many calls; the time that it measured.
    ///
    /// # Errors
    /// It ended.
    pub fn measure(&mut self, calls: u64) -> Result<Duration> {
        writeln!(self.stdin, "{calls}")?;
        Ok(Duration::from_nanos(self.line()?.parse()?))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        ensure!(
            !line.is_empty(),
            "the script ended: see what it printed on stderr"
        );
        Ok(line.trim().to_owned())
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
