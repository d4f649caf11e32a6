//! A super node and some hosts, as real processes over loopback.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use orb_protocol::keyfile;
use tempfile::TempDir;

use crate::command::Orb;
use crate::daemon::Daemon;
use crate::poll::eventually;
use crate::{scratch, warm};

/// What a host logs when a super node knows it.
const CONNECTED: &str = "connected to a super node";

/// A super node, its hosts, and the folder that all of them keep their data in.
#[derive(Debug)]
pub struct Network {
    /// The super node.
    pub super_node: Daemon,
    /// The hosts.
    pub hosts: Vec<Daemon>,
    /// The super node's address, `NODEID@IP:PORT`.
    pub address: String,
    // The last field: folders go after the processes that write to them.
    folder: TempDir,
}

impl Network {
    /// A network with so many hosts, all registered.
    pub fn start(hosts: usize) -> Self {
        Self::start_with(hosts, &[], &[])
    }

    /// The same with further arguments for the super node and for each host.
    #[track_caller]
    pub fn start_with(hosts: usize, super_arguments: &[&str], host_arguments: &[&str]) -> Self {
        let folder = scratch::folder("network");
        let data = folder.path().join("super");
        let mut super_node = Daemon::new("super", folder.path().join("super.log"))
            .args(["super", "--listen", "127.0.0.1:0", "--data"])
            .args([&data])
            .args(super_arguments);
        super_node.start();
        let address = super_node.wait_for_file(&data.join("address"));
        let mut network = Self {
            super_node,
            hosts: Vec::new(),
            address,
            folder,
        };
        for _ in 0..hosts {
            network.add_host(host_arguments);
        }
        network.wait_for_hosts();
        network
    }

    /// A network with three hosts that is there for all tests that only publish and call: they must
    /// not stop a daemon, nor count on being alone.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Network> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(3))
    }

    /// Starts one more host.
    pub fn add_host(&mut self, arguments: &[&str]) {
        let name = format!("host{}", self.hosts.len());
        warm::host_folder(&self.folder.path().join(&name));
        let mut host = Daemon::new(&name, self.folder.path().join(format!("{name}.log")))
            .args(["node", "--super", &self.address, "--data"])
            .args([self.folder.path().join(&name)])
            .args(arguments);
        host.start();
        self.hosts.push(host);
    }

    /// The folder that the network keeps everything in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The super node's data folder.
    pub fn super_data(&self) -> PathBuf {
        self.folder.path().join("super")
    }

    /// A host's data folder.
    pub fn host_data(&self, host: usize) -> PathBuf {
        self.folder.path().join(format!("host{host}"))
    }

    /// Somebody new who uses this network.
    pub fn user(&self) -> Orb {
        Orb::at(&self.address)
    }

    /// Starts the super node after it has ended, and waits until it serves.
    #[track_caller]
    pub fn restart_super(&mut self) {
        // It is written last, so that its age tells whether the new process is ready.
        let file = self.super_data().join("address");
        let _ = std::fs::remove_file(&file);
        self.super_node.start();
        let address = self.super_node.wait_for_file(&file);
        assert_eq!(address, self.address, "a super node keeps its address");
    }

    /// Waits until every running host is registered at the super node.
    #[track_caller]
    pub fn wait_for_hosts(&mut self) {
        for host in &mut self.hosts {
            if !host.is_running() {
                continue;
            }
            eventually(&format!("{} is registered", host.name()), || {
                host.log_since_start().contains(CONNECTED).then_some(())
            });
        }
    }

    /// Which of the hosts has this id.
    #[track_caller]
    pub fn host_named(&self, id: &str) -> usize {
        (0..self.hosts.len())
            .find(|&host| self.host_id(host) == id)
            .unwrap_or_else(|| panic!("{id} is a host of this network"))
    }

    /// A host's id.
    #[track_caller]
    pub fn host_id(&self, host: usize) -> String {
        let key = keyfile::load_or_create_node_key(&self.host_data(host).join("node.key"));
        key.expect("a host makes its key").id().to_string()
    }

    /// The first host that runs a call of a function or has one waiting, as far as the super node knows.
    #[track_caller]
    pub fn busy_host(&self, orb: &Orb, function: &str) -> Option<usize> {
        let inspected = orb.run(["inspect", function, "--json"]).json();
        let busy = inspected["hosts"]
            .as_array()?
            .iter()
            .find(|host| host["queue"].as_u64() > Some(0))?;
        Some(self.host_named(busy["host"].as_str()?))
    }

    /// Waits until so many hosts can answer for a function.
    #[track_caller]
    pub fn wait_until_ready(&self, orb: &Orb, function: &str, hosts: u64) {
        eventually(&format!("{hosts} hosts are ready for {function}"), || {
            let inspected = orb.run(["inspect", function, "--json"]).json();
            (inspected["healthy"].as_u64()? >= hosts).then_some(())
        });
    }

    /// The file that holds an artifact in a daemon's data folder.
    pub fn object(&self, data: &Path, artifact: &str) -> Option<PathBuf> {
        let is_it = |file: &PathBuf| file.file_name().is_some_and(|name| name == artifact);
        files(&data.join("objects"))
            .into_iter()
            .filter(|file| file.parent().is_none_or(|folder| !folder.ends_with("damaged")))
            .find(is_it)
    }

    /// Whether a daemon's data folder holds an artifact.
    pub fn holds_object(&self, data: &Path, artifact: &str) -> bool {
        self.object(data, artifact).is_some()
    }
}

/// All files in a folder and the folders in it. What vanishes meanwhile is left out.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.is_file() {
            found.push(path);
        }
    }
    found
}
