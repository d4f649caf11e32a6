//! Several super nodes that are linked, each with hosts of its own, as real processes over loopback.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::command::Orb;
use crate::daemon::Daemon;
use crate::poll::eventually;
use crate::{scratch, warm};

/// A federation, and the folder that all of it keeps its data in.
#[derive(Debug)]
pub struct Federation {
    /// The super nodes.
    pub supers: Vec<Daemon>,
    /// The hosts, each with the super node that it was started with.
    pub hosts: Vec<(usize, Daemon)>,
    /// The super nodes' addresses.
    pub addresses: Vec<String>,
    // The last field: folders go after the processes that write to them.
    folder: TempDir,
}

impl Federation {
    /// As many super nodes as there are numbers, each with so many hosts. All of them are linked.
    #[track_caller]
    pub fn start(hosts: &[usize]) -> Self {
        let mut federation = Self {
            supers: Vec::new(),
            hosts: Vec::new(),
            addresses: Vec::new(),
            folder: scratch::folder("federation"),
        };
        for (place, count) in hosts.iter().enumerate() {
            federation.add_super();
            for _ in 0..*count {
                federation.add_host(place);
            }
        }
        federation.wait_until_linked();
        for (_, host) in &federation.hosts {
            eventually(&format!("{} is registered", host.name()), || {
                host.log_since_start()
                    .contains("connected to a super node")
                    .then_some(())
            });
        }
        federation
    }

    /// Starts one more super node, which knows of the first one.
    #[track_caller]
    pub fn add_super(&mut self) {
        self.add_super_with(&[]);
    }

    /// The same, with further flags.
    #[track_caller]
    pub fn add_super_with(&mut self, flags: &[&str]) {
        let name = format!("super{}", self.supers.len());
        let data = self.folder.path().join(&name);
        let mut super_node = Daemon::new(&name, self.folder.path().join(format!("{name}.log")))
            .args(["super", "--listen", "127.0.0.1:0", "--open-peers", "--data"])
            .args([&data])
            .args(flags);
        if let Some(first) = self.addresses.first() {
            super_node = super_node.args(["--peer", first]);
        }
        super_node.start();
        self.addresses
            .push(super_node.wait_for_file(&data.join("address")));
        self.supers.push(super_node);
    }

    /// Starts one more host of a super node.
    pub fn add_host(&mut self, super_node: usize) {
        let name = format!("host{}", self.hosts.len());
        warm::host_folder(&self.folder.path().join(&name));
        let mut host = Daemon::new(&name, self.folder.path().join(format!("{name}.log")))
            .args(["node", "--super", &self.addresses[super_node], "--data"])
            .args([self.folder.path().join(&name)]);
        host.start();
        self.hosts.push((super_node, host));
    }

    /// Starts a super node after it has ended, and waits until it serves.
    #[track_caller]
    pub fn restart_super(&mut self, place: usize) {
        let file = self.super_data(place).join("address");
        let _ = std::fs::remove_file(&file);
        self.supers[place].start();
        self.supers[place].wait_for_file(&file);
    }

    /// Waits until every running super node is linked with all others that run.
    #[track_caller]
    pub fn wait_until_linked(&mut self) {
        let running: Vec<usize> = (0..self.supers.len())
            .filter(|&place| self.supers[place].is_running())
            .collect();
        for &place in &running {
            let (super_node, wanted) = (&self.supers[place], running.len() - 1);
            eventually(&format!("super{place} is linked with {wanted} others"), || {
                (linked(&super_node.log_since_start()) >= wanted).then_some(())
            });
        }
    }

    /// A super node's data folder.
    pub fn super_data(&self, place: usize) -> PathBuf {
        self.folder.path().join(format!("super{place}"))
    }

    /// The folder that the federation keeps everything in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Somebody new who uses one of the super nodes.
    pub fn user(&self, super_node: usize) -> Orb {
        Orb::at(&self.addresses[super_node])
    }

    /// Waits until so many hosts can answer for a function.
    #[track_caller]
    pub fn wait_until_ready(&self, orb: &Orb, function: &str, hosts: u64) {
        eventually(&format!("{hosts} hosts are ready for {function}"), || {
            let inspected = orb.run(["inspect", function, "--json"]).json();
            (inspected["healthy"].as_u64()? >= hosts).then_some(())
        });
    }
}

/// With how many others a super node is linked, as its log tells.
fn linked(log: &str) -> usize {
    let count = |words| log.matches(words).count();
    count("a super node is linked").saturating_sub(count("a super node is gone"))
}
