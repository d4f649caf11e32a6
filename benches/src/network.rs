//! The real daemons, each a process of its own with a data folder of its own.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// How long a daemon may take until it is ready: the first one compiles the JavaScript engine.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Connections from one address: everybody here comes from the loopback address.
const CONNECTIONS_MAX: &str = "32768";

/// A super node and hosts; all ended and their folders removed when dropped.
#[derive(Debug)]
pub struct Network {
    folder: TempDir,
    children: Vec<Child>,
    /// `NODEID@IP:PORT` of the super node.
    pub address: String,
}

impl Network {
    /// Starts a super node and so many hosts.
    ///
    /// # Errors
    /// There is no `orb` beside this binary, or a daemon does not get ready.
    pub fn start(hosts: usize) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let data = folder.path().join("super");
        let listen = ["super", "--listen", "127.0.0.1:0", "--data"].map(str::to_owned);
        let child = daemon(folder.path(), &listen, &data)?;
        let mut network = Self {
            folder,
            children: vec![child],
            address: String::new(),
        };
        network.address = until("the super node's address", || {
            std::fs::read_to_string(data.join("address"))
                .ok()
                .filter(|a| a.contains('@'))
        })?
        .trim()
        .to_owned();
        for index in 0..hosts {
            let data = network.folder.path().join(format!("node-{index}"));
            let args = ["node", "--super", &network.address, "--data"].map(str::to_owned);
            network
                .children
                .push(daemon(network.folder.path(), &args, &data)?);
        }
        Ok(network)
    }

    /// Ends the super node in order and starts it again at the same address.
    ///
    /// # Errors
    /// It does not end, or does not get ready.
    pub fn restart_super(&mut self) -> Result<()> {
        let data = self.folder.path().join("super");
        let process = rustix::process::Pid::from_child(&self.children[0]);
        rustix::process::kill_process(process, rustix::process::Signal::TERM)?;
        self.children[0].wait()?;
        let address = data.join("address");
        let _ = std::fs::remove_file(&address);
        // Port 0: the one that it had.
        let again = ["super", "--listen", "127.0.0.1:0", "--data"].map(str::to_owned);
        self.children[0] = daemon(self.folder.path(), &again, &data)?;
        until("the super node's address", || {
            std::fs::read_to_string(&address).ok().filter(|a| a.contains('@'))
        })?;
        Ok(())
    }

    /// The super node's process id.
    pub fn super_pid(&self) -> u32 {
        self.children[0].id()
    }

    /// The hosts' process ids.
    pub fn host_pids(&self) -> Vec<u32> {
        self.children[1..].iter().map(Child::id).collect()
    }

    /// Publishes a function from these files and waits until a host is ready.
    ///
    /// # Errors
    /// `orb deploy` fails.
    pub fn deploy(&self, name: &str, files: &[(&str, &[u8])]) -> Result<()> {
        let project = self.folder.path().join(format!("project-{name}"));
        std::fs::create_dir_all(&project)?;
        for (file, content) in files {
            std::fs::File::create(project.join(file))?.write_all(content)?;
        }
        until("a host that takes the function", || {
            let deployed = self.orb(&["deploy", &project.to_string_lossy(), "--json"]).ok()?;
            let document: serde_json::Value = serde_json::from_slice(&deployed).ok()?;
            document["ready"]
                .as_array()
                .is_some_and(|ready| !ready.is_empty())
                .then_some(())
        })
    }

    /// Runs `orb` against this network and returns what it printed.
    ///
    /// # Errors
    /// It ends with an exit code other than zero.
    pub fn orb(&self, args: &[&str]) -> Result<Vec<u8>> {
        let output = Command::new(orb()?)
            .args(args)
            .env("ORB_HOME", self.home())
            .env("ORB_SUPER", &self.address)
            .stdin(Stdio::null())
            .output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "orb {}: {text}", args.join(" "));
        Ok(output.stdout)
    }

    /// The owner's folder.
    pub fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn daemon(folder: &Path, args: &[String], data: &Path) -> Result<Child> {
    let log = std::fs::File::create(folder.join(format!("{}.log", data.display()).replace('/', "_")))?;
    Command::new(orb()?)
        .args(args)
        .arg(data)
        .env("ORB_HOME", folder.join("daemon-home"))
        .env("ORB_ADDRESS_CONNECTIONS_MAX", CONNECTIONS_MAX)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .context("cannot start orb")
}

/// The `orb` of the same profile: two folders above a bench's binary.
///
/// # Errors
/// It was not built.
pub fn orb() -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let orb = this
        .ancestors()
        .nth(2)
        .context("a bench lies in target/release/deps")?
        .join("orb");
    ensure!(
        orb.exists(),
        "{} is missing: run `cargo build --release -p orb-host` first",
        orb.display()
    );
    Ok(orb)
}

fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(found) = probe() {
            return Ok(found);
        }
        ensure!(
            started.elapsed() < READY_WITHIN,
            "{what} did not come within {READY_WITHIN:?}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
