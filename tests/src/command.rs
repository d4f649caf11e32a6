//! The command line, as a person or a script uses it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::daemon::clean_environment;
use crate::{binary, scratch, warm};

/// How much of an output is shown in messages, in bytes.
const SHOWN_BYTES_MAX: usize = 2_000;

/// Somebody with an `ORB_HOME` of their own, who runs commands.
#[derive(Debug)]
pub struct Orb {
    home: TempDir,
    supers: Option<String>,
    folder: Option<PathBuf>,
}

/// How a command ended.
pub struct Ended {
    /// The command, for messages.
    pub command: String,
    /// Its exit code; a signal counts as 128 and its number.
    pub code: i32,
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// What a command says about a failure with `--json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which one of the taxonomy, or a word of the command line's own.
    pub kind: String,
    /// Whose fault it is.
    pub fault: String,
    /// What happened.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

impl Orb {
    /// Somebody new, who knows no super node.
    pub fn new() -> Self {
        let home = scratch::folder("home");
        warm::home(home.path());
        Self {
            home,
            supers: None,
            folder: None,
        }
    }

    /// Somebody new, who uses a super node.
    pub fn at(address: &str) -> Self {
        Self {
            supers: Some(address.to_owned()),
            ..Self::new()
        }
    }

    /// The same person at another super node.
    pub fn move_to(&mut self, address: &str) {
        self.supers = Some(address.to_owned());
    }

    /// The folder that holds keys, aliases and published artifacts.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Goes to a folder: the commands that follow run there.
    pub fn enter(&mut self, folder: &Path) {
        self.folder = Some(folder.to_owned());
    }

    /// Runs a command.
    pub fn run<I: IntoIterator<Item: AsRef<OsStr>>>(&self, arguments: I) -> Ended {
        self.run_on(arguments, b"")
    }

    /// Runs a command in a folder.
    pub fn run_in<I: IntoIterator<Item: AsRef<OsStr>>>(&self, folder: &Path, arguments: I) -> Ended {
        self.spawn(Some(folder), arguments, b"").wait()
    }

    /// Runs a command with something on its stdin.
    pub fn run_on<I: IntoIterator<Item: AsRef<OsStr>>>(&self, arguments: I, stdin: &[u8]) -> Ended {
        self.spawn(None, arguments, stdin).wait()
    }

    /// Starts a command and goes on.
    pub fn start<I: IntoIterator<Item: AsRef<OsStr>>>(&self, arguments: I) -> Running {
        self.spawn(None, arguments, b"")
    }

    /// Starts a command in a folder and goes on.
    pub fn start_in<I: IntoIterator<Item: AsRef<OsStr>>>(&self, folder: &Path, arguments: I) -> Running {
        self.spawn(Some(folder), arguments, b"")
    }

    /// Calls a function with `--json`; it has to be answered.
    #[track_caller]
    pub fn call(&self, function: &str, input: &str) -> Value {
        self.run(["call", "--json", function, input]).json()
    }

    /// Calls a function with `--json` and gives what it answered.
    #[track_caller]
    pub fn answer(&self, function: &str, input: &str) -> Value {
        self.call(function, input)["output"].clone()
    }

    /// The key that this person's functions belong to.
    #[track_caller]
    pub fn owner(&self) -> String {
        let id = self.run(["id", "--json"]).json();
        id["owner"]
            .as_str()
            .unwrap_or_else(|| panic!("`orb id` names the owner key: {id}"))
            .to_owned()
    }

    fn spawn<I: IntoIterator<Item: AsRef<OsStr>>>(
        &self,
        folder: Option<&Path>,
        arguments: I,
        stdin: &[u8],
    ) -> Running {
        let arguments: Vec<OsString> = arguments.into_iter().map(|a| a.as_ref().to_owned()).collect();
        let mut command = Command::new(binary::orb());
        clean_environment(&mut command);
        command
            .args(&arguments)
            .env("ORB_HOME", self.home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .current_dir(folder.or(self.folder.as_deref()).unwrap_or(self.home.path()));
        if let Some(supers) = &self.supers {
            command.env("ORB_SUPER", supers);
        }
        let mut child = command.spawn().expect("the orb binary starts");
        let mut pipe = child.stdin.take().expect("stdin is piped");
        let stdin = stdin.to_owned();
        let shown: Vec<_> = arguments.iter().map(|a| shorten(a.as_encoded_bytes())).collect();
        Running {
            command: format!("orb {}", shown.join(" ")),
            // A command that does not read its stdin closes it, which is no fault.
            feeder: std::thread::spawn(move || drop(pipe.write_all(&stdin))),
            child,
        }
    }
}

impl Default for Orb {
    fn default() -> Self {
        Self::new()
    }
}

/// A command that was started.
#[derive(Debug)]
pub struct Running {
    command: String,
    feeder: std::thread::JoinHandle<()>,
    child: std::process::Child,
}

impl Running {
    /// Waits for its end.
    pub fn wait(self) -> Ended {
        let output = self.child.wait_with_output().expect("a child can be waited for");
        let _ = self.feeder.join();
        Ended {
            command: self.command,
            code: match crate::Exit::from(output.status) {
                crate::Exit::Code(code) => code,
                crate::Exit::Signal(signal) => 128 + signal,
            },
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGINT, as Ctrl-C sends it.
    ///
    /// # Panics
    /// If it cannot be sent.
    pub fn interrupt(&self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id is positive"), Signal::INT).expect("a child can be signalled");
    }

    /// Waits for its end, but no longer than this.
    pub fn wait_at_most(&mut self, time: Duration) {
        let start = Instant::now();
        while self.is_running() && start.elapsed() < time {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for its end, and kills it if that does not come in time.
    pub fn kill_after(mut self, time: Duration) -> Ended {
        self.wait_at_most(time);
        self.kill()
    }

    /// SIGSTOP: it does nothing more until it is killed, and its sockets stay open.
    ///
    /// # Panics
    /// If it has ended.
    #[track_caller]
    pub fn freeze(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).expect("a child can be signalled");
    }

    /// Kills it.
    pub fn kill(mut self) -> Ended {
        let _ = self.child.kill();
        self.wait()
    }
}

impl Ended {
    /// The same, if the command did what it was asked to.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self}");
        self
    }

    /// What it printed, as text.
    #[track_caller]
    pub fn text(self) -> String {
        let ended = self.ok();
        String::from_utf8(ended.stdout).expect("what the command prints is text")
    }

    /// The JSON document that it printed; it has to have done what it was asked to.
    #[track_caller]
    pub fn json(self) -> Value {
        let ended = self.ok();
        ended.document()
    }

    /// The failure that it printed with `--json`, if it ended as expected.
    ///
    /// # Panics
    /// If it ended with another exit code or kind, does not print just the one document, leaves one
    /// of its fields empty, or says nothing on stderr.
    #[track_caller]
    pub fn fails(self, exit: i32, kind: &str) -> Failure {
        assert_eq!(self.code, exit, "exit code of {self}");
        let document = self.document();
        let field = |name: &str| match document["error"][name].as_str() {
            Some(text) if !text.is_empty() => text.to_owned(),
            _ => panic!("error.{name} says something: {self}"),
        };
        let failure = Failure {
            kind: field("kind"),
            fault: field("fault"),
            message: field("message"),
            help: field("help"),
        };
        assert_eq!(failure.kind, kind, "kind of {self}");
        assert!(
            !self.stderr.trim().is_empty(),
            "a line for people on stderr: {self}"
        );
        failure
    }

    #[track_caller]
    fn document(&self) -> Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|error| panic!("one JSON document on stdout ({error}): {self}"))
    }
}

impl Failure {
    /// The same, if its message or its help names all these things.
    ///
    /// # Panics
    /// If one of them is missing.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        for word in words {
            let named = self.message.contains(word) || self.help.contains(word);
            assert!(named, "{word:?} is named in {self:#?}");
        }
        self
    }

    /// The same, if it blames this party.
    #[track_caller]
    pub fn blames(self, party: &str) -> Self {
        assert_eq!(self.fault, party, "{self:#?}");
        self
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` ended with {}\n--- stdout\n{}\n--- stderr\n{}\n---",
            self.command,
            self.code,
            shorten(&self.stdout),
            shorten(self.stderr.as_bytes())
        )
    }
}

impl fmt::Debug for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn shorten(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES_MAX)]).into_owned();
    if bytes.len() > SHOWN_BYTES_MAX {
        format!("{text}… ({} bytes)", bytes.len())
    } else {
        text
    }
}
