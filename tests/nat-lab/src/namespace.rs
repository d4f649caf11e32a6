//! A network namespace that nothing but a file descriptor keeps: it is gone when the last process in it
//! and the lab are, however they end.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    /// A new one, in which there is only a loopback interface, which is up.
    pub(crate) fn new(name: &str) -> Result<Self> {
        // On a thread of its own: the namespace that a thread is in is a property of the thread.
        let made = std::thread::spawn(|| {
            // SAFETY: it changes nothing but this thread's network namespace.
            ensure!(
                unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0,
                "unshare: {}",
                std::io::Error::last_os_error()
            );
            Ok(File::open("/proc/thread-self/ns/net")?)
        });
        let file = made.join().expect("the thread does not panic");
        let namespace = Self {
            name: name.to_owned(),
            file: file.with_context(|| format!("the network namespace {name}"))?,
        };
        namespace.ip("link set lo up\n")?;
        Ok(namespace)
    }

    /// What it is called in results.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A path by which other processes find it for as long as this one lives.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// Has a command run in it.
    pub(crate) fn enter_with(&self, command: &mut Command) {
        let descriptor: RawFd = self.file.as_raw_fd();
        // SAFETY: setns is a bare system call, which is safe between fork and exec; the descriptor is
        // open for as long as this namespace lives, and the command is started before that ends.
        unsafe {
            command.pre_exec(move || match libc::setns(descriptor, libc::CLONE_NEWNET) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
    }

    /// Runs lines of `ip -batch` in it.
    pub(crate) fn ip(&self, lines: &str) -> Result<()> {
        self.feed("ip", &["-batch", "-"], lines)
    }

    /// Runs a file of `nft` in it.
    pub(crate) fn nft(&self, rules: &str) -> Result<()> {
        self.feed("nft", &["-f", "-"], rules)
    }

    /// Sets a kernel parameter of it, named by its path below `/proc/sys`.
    pub(crate) fn sysctl(&self, path: &str, value: &str) -> Result<()> {
        self.feed("tee", &[&format!("/proc/sys/{path}")], value)
    }

    fn feed(&self, tool: &str, arguments: &[&str], input: &str) -> Result<()> {
        let mut command = Command::new(tool);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        self.enter_with(&mut command);
        let mut child = command.spawn().with_context(|| tool.to_owned())?;
        let mut stdin = child.stdin.take().context("a pipe to the tool")?;
        stdin.write_all(input.as_bytes())?;
        drop(stdin);
        let ended = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        ensure!(ended.status.success(), "{tool} at {}: {said}\n{input}", self.name);
        Ok(())
    }
}
