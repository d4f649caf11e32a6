//! Super nodes and hosts as child processes in a temporary folder.
//!
//! They end with the demo, however that ends: each is killed when it is dropped, and the kernel kills
//! those of a demo that was killed itself.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use orb_protocol::client::SuperAddr;
use orb_protocol::id::{ArtifactHash, NodeId};
use orb_protocol::keyfile;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use tempfile::TempDir;

use crate::failure::Failure;

/// Hosts in the demo: one more than replicas, so that one of them holds nothing.
pub(super) const HOSTS: usize = 3;
/// How long a daemon may take until it is ready: it makes keys and a database, on a disk that may be slow.
const START_MAX: Duration = Duration::from_secs(30);
/// Between two looks whether it is.
const POLL: Duration = Duration::from_millis(5);
/// Lines of a daemon's log that are shown when the demo fails.
const LOG_LINES: usize = 6;

/// The folder, and what runs in it.
#[derive(Debug)]
pub(super) struct Network {
    folder: TempDir,
    super_nodes: Vec<Daemon>,
    /// Hosts that were killed, by their names.
    off: Vec<String>,
    hosts: Vec<Daemon>,
}

/// A daemon in a process of its own.
#[derive(Debug)]
pub(super) struct Daemon {
    name: String,
    child: Child,
    data: PathBuf,
    log: PathBuf,
}

impl Network {
    /// An empty folder.
    ///
    /// # Errors
    /// When there is no place for one.
    pub(super) fn new() -> Result<Self, Failure> {
        let folder = tempfile::Builder::new()
            .prefix("orb-demo-")
            .tempdir()
            .map_err(|error| Failure::local(format!("cannot make a temporary folder: {error}")))?;
        Ok(Self {
            folder,
            super_nodes: Vec::new(),
            off: Vec::new(),
            hosts: Vec::new(),
        })
    }

    /// The folder.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of compiled code, for all of the demo: the engine is compiled once.
    pub(super) fn cache(&self) -> PathBuf {
        self.folder().join("cache")
    }

    /// Starts a super node that links with those that were started before, and returns when it serves.
    ///
    /// # Errors
    /// When it ends or is not ready in time.
    pub(super) async fn start_super_node(&mut self, others: &[SuperAddr]) -> Result<SuperAddr, Failure> {
        let name = format!("super-{}", self.super_nodes.len() + 1);
        let mut arguments = vec!["super", "--listen", "127.0.0.1:0", "--open-peers"];
        let others: Vec<String> = others.iter().map(ToString::to_string).collect();
        for other in &others {
            arguments.extend(["--peer", other]);
        }
        let mut daemon = Daemon::start(self.folder.path(), &name, &arguments)?;
        let file = daemon.data.join("address");
        let text = daemon.wait_for(|| std::fs::read_to_string(&file).ok()).await?;
        self.super_nodes.push(daemon);
        let address = text.trim().parse();
        address.map_err(|error| Failure::local(format!("the super node's address is none: {error}")))
    }

    /// Starts the hosts, and returns when each has its key. They are not connected yet.
    ///
    /// # Errors
    /// When one ends or is not ready in time.
    pub(super) async fn start_hosts(&mut self, super_nodes: &[SuperAddr]) -> Result<(), Failure> {
        for number in 1..=HOSTS {
            self.start_host(&format!("host-{number}"), super_nodes)?;
        }
        for host in &mut self.hosts {
            let key = host.data.join("node.key");
            host.wait_for(|| key.exists().then_some(())).await?;
        }
        Ok(())
    }

    fn start_host(&mut self, name: &str, super_nodes: &[SuperAddr]) -> Result<(), Failure> {
        let addresses: Vec<String> = super_nodes.iter().map(ToString::to_string).collect();
        let (addresses, cache) = (addresses.join(","), self.cache().display().to_string());
        // Not one operator: replicas are spread over operators while there are others.
        let arguments = [
            "node",
            "--super",
            &addresses,
            "--operator",
            name,
            "--cache",
            &cache,
        ];
        self.hosts
            .push(Daemon::start(self.folder.path(), name, &arguments)?);
        Ok(())
    }

    /// Starts a host that was killed, with what it has on its disk. Returns which one.
    ///
    /// # Errors
    /// When none was killed, or it cannot be started.
    pub(super) fn start_again(&mut self, super_nodes: &[SuperAddr]) -> Result<NodeId, Failure> {
        let name = self.off.pop();
        let name = name.ok_or_else(|| Failure::local("no host was killed"))?;
        self.start_host(&name, super_nodes)?;
        let node = self.hosts.last().and_then(Daemon::node);
        node.ok_or_else(|| Failure::local(format!("{name} has lost its key")))
    }

    /// Whether a host keeps an artifact.
    pub(super) fn keeps(&self, node: NodeId, artifact: &ArtifactHash) -> bool {
        let host = self.hosts.iter().find(|host| host.node() == Some(node));
        host.is_some_and(|host| contains(&host.data.join("objects"), &artifact.to_string()))
    }

    /// Ends the super node that was started first as `kill -9` does. Returns its process.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn kill_first_super_node(&mut self) -> Result<u32, Failure> {
        if self.super_nodes.is_empty() {
            return Err(Failure::local("there is no super node to kill"));
        }
        Ok(self.super_nodes.remove(0).child.id())
    }

    /// Fails if a daemon has ended by itself.
    ///
    /// # Errors
    /// Which one, and the end of its log.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        self.super_nodes
            .iter_mut()
            .chain(&mut self.hosts)
            .try_for_each(Daemon::check)
    }

    /// The process of a host; `None` if it is not one of the demo's.
    pub(super) fn process_of(&self, node: NodeId) -> Option<u32> {
        self.hosts
            .iter()
            .find(|host| host.node() == Some(node))
            .map(|host| host.child.id())
    }

    /// Ends a host as `kill -9` does.
    ///
    /// # Errors
    /// When it is not one of the demo's, or cannot be killed.
    pub(super) fn kill(&mut self, node: NodeId) -> Result<(), Failure> {
        let position = self.hosts.iter().position(|host| host.node() == Some(node));
        let position =
            position.ok_or_else(|| Failure::local(format!("{node} is not one of the demo's hosts")))?;
        // What is dropped is killed with SIGKILL, and waited for.
        let host = self.hosts.remove(position);
        self.off.push(host.name.clone());
        drop(host);
        Ok(())
    }

    /// The last lines that each daemon logged, for whoever wants to know why the demo failed.
    pub(super) fn last_log_lines(&self) -> String {
        let daemons = self.super_nodes.iter().chain(&self.hosts);
        daemons
            .map(|daemon| format!("--- {}\n{}", daemon.name, daemon.last_log_lines()))
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Ends all processes and removes the folder.
    pub(super) async fn end(self) {
        let ended = tokio::task::spawn_blocking(move || drop(self)).await;
        if let Err(error) = ended {
            tracing::error!("cannot clean up: {error}");
        }
    }
}

impl Daemon {
    fn start(folder: &Path, name: &str, arguments: &[&str]) -> Result<Self, Failure> {
        let (data, log) = (folder.join(name), folder.join(format!("{name}.log")));
        let failed = |error: io::Error| Failure::local(format!("cannot start {name}: {error}"));
        let file = File::create(&log).map_err(failed)?;
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command
            .args(arguments)
            .arg("--data")
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            // Ctrl-C goes to the demo alone, which then ends them.
            .process_group(0);
        for (variable, _) in std::env::vars_os() {
            let text = variable.to_string_lossy();
            if text.starts_with("ORB_") && text != "ORB_LOG" {
                command.env_remove(&variable);
            }
        }
        end_with_this_process(&mut command);
        Ok(Self {
            name: name.to_owned(),
            child: command.spawn().map_err(failed)?,
            data,
            log,
        })
    }

    /// The node's id, once its key is there.
    fn node(&self) -> Option<NodeId> {
        let key = self.data.join("node.key");
        key.exists()
            .then(|| keyfile::load_or_create_node_key(&key).ok())?
            .map(|key| key.id())
    }

    async fn wait_for<T>(&mut self, ready: impl Fn() -> Option<T>) -> Result<T, Failure> {
        let deadline = Instant::now() + START_MAX;
        loop {
            if let Some(value) = ready() {
                return Ok(value);
            }
            self.check()?;
            if Instant::now() > deadline {
                return Err(Failure::local(format!(
                    "{} is not ready after {START_MAX:?}",
                    self.name
                )));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn check(&mut self) -> Result<(), Failure> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                let lines = self.last_log_lines();
                Err(Failure::local(format!(
                    "{} has ended ({status}): {}",
                    self.name,
                    lines.lines().last().unwrap_or_default()
                )))
            }
            Err(error) => Err(Failure::local(format!(
                "{} cannot be waited for: {error}",
                self.name
            ))),
        }
    }

    fn last_log_lines(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

/// Whether a folder, or one in it, has a file of this name.
fn contains(folder: &Path, name: &str) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .any(|path| path.file_name().is_some_and(|file| file == name) || contains(&path, name))
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Neither can fail for a child that was not waited for before; and if it was, it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Has the kernel kill the child when the thread that starts it ends: the main thread, in which the
/// demo runs, so when the demo ends.
fn end_with_this_process(command: &mut Command) {
    let parent = rustix::process::getpid();
    let bind = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // It may have ended before the line above.
        if getppid() == Some(parent) {
            Ok(())
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    };
    // SAFETY: between fork and exec, `bind` makes two system calls, and neither allocates nor locks.
    unsafe { command.pre_exec(bind) };
}
