//! Several real super nodes with their hosts, each at a machine of its own at one switch.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::machine::Machine;
use crate::orb::{User, eventually};
use crate::switch::{Port, Switch};

/// The super nodes' port.
const PORT: u16 = 4433;

/// See the module's text.
pub(crate) struct Federation {
    /// The super nodes.
    pub(crate) supers: Vec<Node>,
    /// The hosts.
    pub(crate) hosts: Vec<Node>,
    /// For each super node, a machine on its side from which people use it.
    pub(crate) desks: Vec<Desk>,
    /// What connects all of them.
    pub(crate) switch: Switch,
    // The last field: folders go after the processes that write to them.
    folder: TempDir,
}

/// A super node or a host.
pub(crate) struct Node {
    /// The process.
    pub(crate) daemon: Daemon,
    /// Where its machine is.
    pub(crate) port: Port,
    /// Which super node it is, or which one it was started with.
    pub(crate) super_node: usize,
}

/// A machine for people.
pub(crate) struct Desk {
    /// The machine.
    pub(crate) machine: Arc<dyn Machine>,
    /// Where it is.
    pub(crate) port: Port,
    /// The address of its super node.
    pub(crate) address: String,
}

impl Federation {
    /// As many super nodes as there are numbers, each with so many hosts. All are linked and registered.
    pub(crate) fn start(hosts: &[usize]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("orb-lab-").tempdir()?;
        let mut federation = Self {
            supers: Vec::new(),
            hosts: Vec::new(),
            desks: Vec::new(),
            switch: Switch::new()?,
            folder,
        };
        for place in 0..hosts.len() {
            federation.add_super(place)?;
        }
        for (place, &count) in hosts.iter().enumerate() {
            for _ in 0..count {
                federation.add_host(place)?;
            }
        }
        let others = hosts.len() - 1;
        for super_node in &mut federation.supers {
            super_node
                .daemon
                .wait_for(|log| (log.matches("a super node is linked").count() >= others).then_some(()))?;
        }
        for host in &mut federation.hosts {
            host.daemon
                .wait_for(|log| log.contains("connected to a super node").then_some(()))?;
        }
        Ok(federation)
    }

    /// Starts one more super node, which knows of those before it.
    fn add_super(&mut self, place: usize) -> Result<()> {
        let name = format!("super{place}");
        let (port, machine) = self.switch.plug(&name)?;
        let listen = format!("{}:{PORT}", port.ip());
        let mut arguments = vec!["super", "--listen", &listen, "--open-peers"];
        for desk in &self.desks {
            arguments.extend(["--peer", &desk.address]);
        }
        let mut daemon = Daemon::start(machine, &self.folder.path().join(&name), &arguments)?;
        let file = daemon.data().join("address");
        let address = daemon.wait_for(|_| {
            let text = std::fs::read_to_string(&file).ok()?;
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        })?;
        self.supers.push(Node {
            daemon,
            port,
            super_node: place,
        });
        let (port, machine) = self.switch.plug(&format!("desk{place}"))?;
        self.desks.push(Desk {
            machine,
            port,
            address,
        });
        Ok(())
    }

    /// Starts one more host of a super node.
    fn add_host(&mut self, super_node: usize) -> Result<()> {
        let name = format!("host{}", self.hosts.len());
        let (port, machine) = self.switch.plug(&name)?;
        // Each a small machine: what a process costs counts here, and not how fast it is.
        let cache = self.folder.path().join("cache");
        let cache = cache.to_str().context("a path that is text")?;
        let address = &self.desks[super_node].address;
        let arguments = [
            "node",
            "--super",
            address,
            "--executors",
            "1",
            "--capacity",
            "4",
            "--cache",
            cache,
        ];
        let daemon = Daemon::start(machine, &self.folder.path().join(&name), &arguments)?;
        self.hosts.push(Node {
            daemon,
            port,
            super_node,
        });
        Ok(())
    }

    /// Somebody new, who uses one of the super nodes.
    pub(crate) fn user(&self, name: &str, super_node: usize) -> Result<User> {
        let desk = &self.desks[super_node];
        let home = self.folder().join(name);
        User::new(Arc::clone(&desk.machine), home, &desk.address)
    }

    /// The same person at another super node.
    pub(crate) fn move_to(&self, user: &User, super_node: usize) -> User {
        let desk = &self.desks[super_node];
        user.at(&desk.machine, &desk.address)
    }

    /// All daemons.
    pub(crate) fn nodes(&mut self) -> impl Iterator<Item = &mut Node> {
        self.supers.iter_mut().chain(&mut self.hosts)
    }

    /// The folder that everything lies in.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Memory of all daemons that is resident, in bytes.
    pub(crate) fn resident_bytes(&mut self) -> u64 {
        self.nodes().map(|node| node.daemon.resident_bytes()).sum()
    }

    /// The ends of all logs.
    pub(crate) fn log_tails(&mut self) -> String {
        let tails: Vec<String> = self.nodes().map(|node| node.daemon.log_tail()).collect();
        tails.join("\n")
    }

    /// A new folder with a function in it.
    pub(crate) fn project(&self, name: &str, replicas: usize, module: &[u8]) -> Result<PathBuf> {
        let folder = tempfile::Builder::new()
            .prefix("project-")
            .tempdir_in(self.folder())?
            .keep();
        std::fs::write(folder.join("function.wasm"), module)?;
        let settings = format!(
            "schema = 1\nname = {name:?}\nwasm = \"function.wasm\"\nreplicas = {replicas}\nidempotent = true\n"
        );
        std::fs::write(folder.join("orb.toml"), settings)?;
        Ok(folder)
    }

    /// Publishes a function that answers with a text, and waits for so many hosts.
    pub(crate) fn deploy(
        &self,
        user: &User,
        name: &str,
        (replicas, ready): (usize, usize),
        says: &str,
    ) -> Result<Value> {
        let project = self.project(name, replicas, &crate::guest::say(says, 0)?)?;
        let deployed = user.run(&project, &["deploy", "--wait", &ready.to_string()], b"")?;
        let hosts = deployed["ready"].as_array().map_or(0, Vec::len);
        ensure!(
            hosts >= ready,
            "{hosts} hosts are ready, and not {ready}: {deployed}"
        );
        Ok(deployed)
    }

    /// Ends all partitions.
    pub(crate) fn heal(&self) -> Result<()> {
        self.switch.set_cuts(&[])
    }

    /// Starts what does not run, and waits until the super nodes serve.
    pub(crate) fn start_all(&mut self) -> Result<()> {
        for node in self.nodes() {
            node.daemon.start_again()?;
        }
        Ok(())
    }

    /// Waits until the registries agree, see [`crate::registry`].
    pub(crate) fn agree(&self) -> Result<crate::registry::Registry> {
        let onlookers: Vec<User> = (0..self.supers.len())
            .map(|place| self.user("onlooker", place))
            .collect::<Result<_>>()?;
        let mut last = String::new();
        eventually("the registries agree", || {
            match crate::registry::agreed(&onlookers) {
                Ok(registry) => Ok(Some(registry)),
                Err(difference) => {
                    last = difference;
                    Ok(None)
                }
            }
        })
        .with_context(|| format!("what differs:\n{last}"))
    }
}
