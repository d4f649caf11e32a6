//! A daemon as a child process.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{LazyLock, Mutex};

use rustix::process::{Pid, Signal, kill_process};

use crate::binary;
use crate::poll::eventually;

/// How much of a log is shown when a test fails, in lines.
const TAIL_LINES: usize = 40;
/// What begins the line of the log with the counters.
const MISBEHAVIOUR: &str = "misbehaviour of peers since the start";

/// A running `orb super` or `orb node`. Dropping it kills it; if the test has failed, its log's end
/// is printed.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    arguments: Vec<OsString>,
    wrapper: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    log: PathBuf,
    /// How long the log was when the process was started.
    log_before_bytes: usize,
    child: Option<Child>,
}

/// How a daemon ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Daemon {
    /// A daemon that is not started yet; `log` is the file that its output goes to.
    pub fn new(name: &str, log: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            arguments: Vec::new(),
            wrapper: Vec::new(),
            environment: Vec::new(),
            log,
            log_before_bytes: 0,
            child: None,
        }
    }

    /// The same with further arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item: Into<OsString>>>(mut self, arguments: I) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// The same, started by a command that becomes it (with `exec`).
    #[must_use]
    pub fn wrapped<I: IntoIterator<Item: Into<OsString>>>(mut self, wrapper: I) -> Self {
        self.wrapper = wrapper.into_iter().map(Into::into).collect();
        self
    }

    /// The same with an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// What it is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Starts it, once more if it ran before. Its log goes on in the same file.
    ///
    /// # Panics
    /// If it runs already or cannot be started.
    #[track_caller]
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        self.log_before_bytes = self.log().len();
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .expect("a log file can be written");
        let mut words = self.wrapper.clone();
        words.push(binary::orb().into());
        words.extend(self.arguments.iter().cloned());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be doubled"))
            .stderr(log);
        clean_environment(&mut command);
        self.child = Some(spawn_bound_to_this_process(command));
    }

    /// The process's id.
    ///
    /// # Panics
    /// If it does not run.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the daemon runs").id()
    }

    /// Whether it was started and has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.as_mut().map(Child::try_wait), Some(Ok(None)))
    }

    /// SIGTERM: asks it to end in order.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        assert_eq!(
            self.wait(),
            Exit::Signal(Signal::KILL.as_raw()),
            "{} was killed",
            self.name
        );
    }

    /// SIGTERM, and waits until it has ended in order.
    ///
    /// # Panics
    /// If it ends with another exit code than 0.
    #[track_caller]
    pub fn stop(&mut self) {
        self.terminate();
        assert_eq!(self.wait(), Exit::Code(0), "{} ends in order", self.name);
    }

    /// Waits until it has ended.
    #[track_caller]
    pub fn wait(&mut self) -> Exit {
        let name = self.name.clone();
        let child = self.child.as_mut().expect("the daemon runs");
        let status = eventually(&format!("{name} has ended"), || child.try_wait().ok().flatten());
        self.child = None;
        Exit::from(status)
    }

    /// Sends it a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id is positive"), signal).expect("a child can be signalled");
    }

    /// The UDP port that it has bound; the first if there are several.
    ///
    /// # Panics
    /// If it has bound none.
    #[track_caller]
    pub fn udp_port(&self) -> u16 {
        let ports = self.udp_ports();
        *ports
            .first()
            .unwrap_or_else(|| panic!("{} has a UDP socket", self.name))
    }

    /// All UDP ports that it has bound.
    #[track_caller]
    pub fn udp_ports(&self) -> Vec<u16> {
        let process = PathBuf::from(format!("/proc/{}", self.pid()));
        let sockets: Vec<String> = fs::read_dir(process.join("fd"))
            .expect("a child's descriptors can be listed")
            .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
            .filter_map(|link| {
                Some(
                    link.to_str()?
                        .strip_prefix("socket:[")?
                        .strip_suffix(']')?
                        .to_owned(),
                )
            })
            .collect();
        // Columns of /proc/net/udp: number, local address, remote address, …, and the tenth is the inode.
        ["net/udp", "net/udp6"]
            .into_iter()
            .filter_map(|table| fs::read_to_string(process.join(table)).ok())
            .flat_map(|table| table.lines().map(str::to_owned).collect::<Vec<_>>())
            .filter_map(|line| {
                let columns: Vec<&str> = line.split_whitespace().collect();
                let own = sockets
                    .iter()
                    .any(|inode| columns.get(9) == Some(&inode.as_str()));
                let (_, port) = columns.get(1).filter(|_| own)?.rsplit_once(':')?;
                u16::from_str_radix(port, 16).ok()
            })
            .collect()
    }

    /// The process's view of the file system: it may have mounts of its own.
    pub fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.pid()))
    }

    /// All that it wrote since it was started last.
    pub fn log_since_start(&self) -> String {
        self.log().split_off(self.log_before_bytes)
    }

    /// All that it wrote so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// How often it has counted a misbehaviour of a peer, as far as its log tells: it is written every
    /// ten seconds.
    pub fn counted(&self, name: &str) -> u64 {
        let log = self.log_since_start();
        let last = log.lines().rfind(|line| line.contains(MISBEHAVIOUR));
        last.and_then(|line| {
            let number = line
                .split_whitespace()
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
            number.parse().ok()
        })
        .unwrap_or(0)
    }

    /// Waits until it has counted a misbehaviour.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn wait_until_counted(&self, name: &str) {
        eventually(&format!("{} has counted {name}", self.name), || {
            (self.counted(name) > 0).then_some(())
        });
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    /// Waits until a file is there and says something.
    ///
    /// # Panics
    /// If the daemon ends before.
    #[track_caller]
    pub fn wait_for_file(&mut self, path: &Path) -> String {
        eventually(&format!("{} has written {}", self.name, path.display()), || {
            assert!(self.is_running(), "{} has ended:\n{}", self.name, self.log_tail());
            fs::read_to_string(path)
                .ok()
                .map(|text| text.trim().to_owned())
                .filter(|text| !text.is_empty())
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only for a process that is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!(
                "--- the end of the log of {}\n{}\n---",
                self.name,
                self.log_tail()
            );
        }
    }
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => panic!("a process ended neither by itself nor by a signal: {status}"),
        }
    }
}

/// Takes away what would tell an `orb` process more than its test does.
pub(crate) fn clean_environment(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ORB_") {
            command.env_remove(&name);
        }
    }
}

type Order = (Command, Sender<std::io::Result<Child>>);

/// Starts a process that the kernel kills when this one ends, however it ends.
///
/// The kernel's promise is bound to the thread that starts the process, and a test's thread ends
/// with its test, while some networks are shared between tests: so one thread starts all.
fn spawn_bound_to_this_process(command: Command) -> Child {
    static STARTER: LazyLock<Mutex<Sender<Order>>> = LazyLock::new(|| {
        let (orders, receiver) = channel::<Order>();
        std::thread::Builder::new()
            .name("starter".to_owned())
            .spawn(move || {
                for (mut command, reply) in receiver {
                    bind_to_parent(&mut command);
                    // Nobody waits any more if the test's thread has ended.
                    let _ = reply.send(command.spawn());
                }
            })
            .expect("a thread can be started");
        Mutex::new(orders)
    });
    let (reply, child) = channel();
    let orders = STARTER
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .clone();
    orders.send((command, reply)).expect("the starter never ends");
    child
        .recv()
        .expect("the starter answers every order")
        .expect("the orb binary starts")
}

fn bind_to_parent(command: &mut Command) {
    // SAFETY: between fork and exec only functions that are safe in a signal handler may run; this
    // is one system call without allocation.
    unsafe {
        command.pre_exec(|| {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(Into::into)
        });
    }
}
