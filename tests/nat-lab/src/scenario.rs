//! What has to hold: every caller reaches every host, nobody knocks at a NAT, nothing is readable on
//! the way.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use patchbay::Device;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::capture::Capture;
use crate::daemon::Daemon;
use crate::machine::Machine;
use crate::orb::User;
use crate::packet::{Packet, flows};
use crate::report::Report;
use crate::topology::{Site, Topology, ip};

/// The super node's port.
const PORT: u16 = 4433;
/// A port at the super node's machine where nobody listens, for controls.
const IDLE_PORT: u16 = 9;
/// How often the marker stands in an input: so much more than fits into a packet that a packet in
/// the clear would hold it whole.
const MARKER_REPEATS: usize = 500;

/// The function under test answers with what it got, and with the same in another form.
const SOURCE: &str =
    r#"export default ({ text }) => ({ text, reversed: text.split("").reverse().join("") });"#;

/// Sets everything up, calls, and looks at what was captured.
///
/// # Errors
/// If the lab does not stand. What is under test goes to the report.
pub(crate) fn run(report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let topology = runtime.block_on(Topology::build())?;
    let folder = tempfile::Builder::new().prefix("orb-nat-lab-").tempdir()?;
    let mut stage = Stage::set(&topology, folder)?;
    for caller in &topology.callers {
        for host in 0..topology.hosts.len() {
            let kind = topology.hosts[host].kind;
            let name = format!("caller_behind_{}_calls_host_behind_{kind}", caller.kind);
            report.record(name, stage.call(&topology, caller, host));
        }
    }
    stage.knock_and_shout(&topology)?;
    if report.has_failures() {
        stage.print_logs();
    }
    let Evidence { nodes, super_node } = stage.finish(ip(&topology.developer)?.into())?;
    let super_address = SocketAddr::new(ip(&topology.super_node)?.into(), PORT);
    for node in &nodes {
        let name = format!("{}_talks_to_nobody_but_the_super_node", node.name);
        report.record(name, node.talked_only_to(super_address));
        let name = format!("nobody_knocks_at_the_nat_of_{}", node.name);
        report.record(name, node.nobody_knocked(super_address));
    }
    report.record(
        "the_super_node_forwards_nothing_in_the_clear",
        super_node.nothing_in_the_clear(),
    );
    Ok(())
}

/// Everything that runs while calls are made.
struct Stage {
    super_node: Daemon,
    hosts: Vec<Host>,
    captures: Vec<NodeCapture>,
    super_capture: Capture,
    super_address: String,
    marker: String,
    shouted_at: usize,
    folder: TempDir,
}

/// A host and the one function that only it seeds.
struct Host {
    daemon: Daemon,
    function: String,
}

/// Captures on both sides of a node's NAT.
struct NodeCapture {
    name: String,
    site: Site,
    inside: Capture,
    outside: Capture,
    /// How many packets there were outside before somebody knocked on purpose.
    outside_before_knock: usize,
}

impl Stage {
    fn set(topology: &Topology, folder: TempDir) -> Result<Self> {
        // Before anything runs, so that no packet is missed.
        let super_capture = Capture::start(|open| topology.super_node.run_sync(open))?;
        let captures = sites(topology)
            .into_iter()
            .map(|(name, site)| NodeCapture::start(name, site))
            .collect::<Result<Vec<_>>>()?;

        let listen = format!("{}:{PORT}", ip(&topology.super_node)?);
        let super_folder = folder.path().join("super");
        let mut super_node = Daemon::start(
            at(&topology.super_node),
            &super_folder,
            &["super", "--listen", &listen],
        )?;
        let super_address = super_node.wait_for(|_| {
            let text = std::fs::read_to_string(super_folder.join("data/address")).ok()?;
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        })?;

        let mut hosts = Vec::new();
        for site in &topology.hosts {
            hosts.push(Host::start(topology, site, folder.path(), &super_address)?);
        }
        Ok(Self {
            super_node,
            hosts,
            captures,
            super_capture,
            super_address,
            marker: marker()?,
            shouted_at: 0,
            folder,
        })
    }

    /// Calls the function that only this host has, and checks that the call went as it should.
    fn call(&self, topology: &Topology, caller: &Site, host: usize) -> Result<()> {
        let home = self.folder.path().join(format!("caller-{}", caller.kind));
        let user = User::new(at(&caller.machine), home, &self.super_address)?;
        let before = self.super_capture.len();
        let text = self.marker.repeat(MARKER_REPEATS);
        let input = json!({ "text": text }).to_string();
        let answer = user.run(
            self.folder.path(),
            &["call", &self.hosts[host].function, "-"],
            input.as_bytes(),
        )?;
        let expected = json!({ "text": text, "reversed": text.chars().rev().collect::<String>() });
        ensure!(answer["output"] == expected, "another answer than the function's");
        ensure!(
            answer["path"] == "relay",
            "the path is {}, not \"relay\"",
            answer["path"]
        );

        // That the path is what the client says it is: the super node passed that much on.
        let super_ip = IpAddr::from(ip(&topology.super_node)?);
        let seen = flows(&self.super_capture.since(before), super_ip);
        for (party, site) in [("the caller", caller), ("the host", &topology.hosts[host])] {
            let public = site.public_ip()?;
            let (mut bytes_in, mut bytes_out) = (0, 0);
            for (_, seen) in seen.iter().filter(|(flow, _)| flow.remote.ip() == public) {
                bytes_in += seen.bytes_in;
                bytes_out += seen.bytes_out;
            }
            ensure!(
                bytes_in > input.len() / 2 && bytes_out > input.len() / 2,
                "the super node and {party} exchanged only {bytes_in} and {bytes_out} bytes"
            );
        }
        Ok(())
    }

    /// The controls: a stranger sends a packet to each NAT, unasked, and the marker to the super
    /// node's machine in the clear. Captures that do not show this show nothing.
    fn knock_and_shout(&mut self, topology: &Topology) -> Result<()> {
        for capture in &mut self.captures {
            capture.outside_before_knock = capture.outside.len();
            let port = capture.a_mapped_port()?;
            send(
                &topology.developer,
                SocketAddr::new(capture.site.public_ip()?, port),
                b"knock".to_vec(),
            )?;
        }
        self.shouted_at = self.super_capture.len();
        let to = SocketAddr::new(ip(&topology.super_node)?.into(), IDLE_PORT);
        let clear = self.marker.repeat(2).into_bytes();
        send(&topology.developer, to, clear)
    }

    fn print_logs(&self) {
        println!("{}", self.super_node.log_tail());
        for host in &self.hosts {
            println!("{}", host.daemon.log_tail());
        }
    }

    /// Ends everything, and gives what was captured.
    fn finish(self, stranger: IpAddr) -> Result<Evidence> {
        drop(self.hosts);
        drop(self.super_node);
        let nodes = self
            .captures
            .into_iter()
            .map(|capture| capture.finish(stranger))
            .collect::<Result<Vec<_>>>()?;
        let mut packets = self.super_capture.stop()?;
        let control = packets.split_off(self.shouted_at.min(packets.len()));
        Ok(Evidence {
            nodes,
            super_node: SuperEvidence {
                marker: self.marker,
                packets,
                control,
            },
        })
    }
}

impl Host {
    /// Starts a host that seeds for one owner only, and publishes that owner's function.
    fn start(topology: &Topology, site: &Site, folder: &Path, super_address: &str) -> Result<Self> {
        let owner = User::new(
            at(&topology.developer),
            folder.join(format!("owner-{}", site.kind)),
            super_address,
        )?;
        let key = owner.owner()?;
        let mut daemon = Daemon::start(
            at(&site.machine),
            &folder.join(format!("host-{}", site.kind)),
            &["node", "--super", super_address, "--allow", &key],
        )?;
        daemon.wait_for(|log| log.contains("connected to a super node").then_some(()))?;
        let project = folder.join(format!("function-{}", site.kind));
        std::fs::create_dir_all(&project)?;
        std::fs::write(project.join("index.js"), SOURCE)?;
        std::fs::write(
            project.join("orb.toml"),
            "schema = 1\nname = \"mirror\"\nmain = \"index.js\"\nreplicas = 1\n",
        )?;
        let deployed = owner.run(&project, &["deploy"], b"")?;
        ensure_ready(&deployed).with_context(|| daemon.log_tail())?;
        Ok(Self {
            daemon,
            function: format!("{key}/mirror"),
        })
    }
}

fn ensure_ready(deployed: &Value) -> Result<()> {
    let ready = deployed["ready"].as_array().map_or(0, Vec::len);
    ensure!(ready >= 1, "no host is ready for the function: {deployed}");
    Ok(())
}

impl NodeCapture {
    fn start(name: String, site: &Site) -> Result<Self> {
        Ok(Self {
            name,
            site: site.clone(),
            inside: Capture::start(|open| site.machine.run_sync(open))?,
            outside: Capture::start(|open| site.router.run_sync(open))?,
            outside_before_knock: 0,
        })
    }

    /// A port of the NAT's public address behind which a flow of the node lives.
    fn a_mapped_port(&self) -> Result<u16> {
        let flows = flows(&self.outside.since(0), self.site.public_ip()?);
        let flow = flows
            .keys()
            .next_back()
            .with_context(|| format!("{} sent nothing", self.name))?;
        Ok(flow.local.port())
    }

    fn finish(self, stranger: IpAddr) -> Result<NodeEvidence> {
        let mut outside = self.outside.stop()?;
        Ok(NodeEvidence {
            name: self.name,
            ip: ip(&self.site.machine)?.into(),
            public_ip: self.site.public_ip()?,
            inside: self.inside.stop()?,
            knock: outside.split_off(self.outside_before_knock.min(outside.len())),
            outside,
            stranger,
        })
    }
}

/// What was captured.
struct Evidence {
    nodes: Vec<NodeEvidence>,
    super_node: SuperEvidence,
}

/// What was captured at a node behind a NAT.
struct NodeEvidence {
    name: String,
    ip: IpAddr,
    public_ip: IpAddr,
    /// At the node's own interface.
    inside: Vec<Packet>,
    /// At its router.
    outside: Vec<Packet>,
    /// At its router, from when a stranger knocked on purpose.
    knock: Vec<Packet>,
    /// Who knocked.
    stranger: IpAddr,
}

impl NodeEvidence {
    /// At the node's interface: each flow was opened by it, and goes to the super node.
    fn talked_only_to(&self, super_address: SocketAddr) -> Result<()> {
        check_flows(&self.inside, self.ip, super_address)
    }

    /// Outside of its NAT: the same, so that nothing that reached the router was unasked for. The
    /// control shows that the capture would have told.
    fn nobody_knocked(&self, super_address: SocketAddr) -> Result<()> {
        check_flows(&self.outside, self.public_ip, super_address)?;
        let knocked = flows(&self.knock, self.public_ip)
            .iter()
            .any(|(flow, seen)| flow.remote.ip() == self.stranger && seen.opened_by_remote);
        ensure!(
            knocked,
            "control: a stranger knocked, and the capture does not show it"
        );
        Ok(())
    }
}

fn check_flows(packets: &[Packet], local: IpAddr, super_address: SocketAddr) -> Result<()> {
    let flows = flows(packets, local);
    ensure!(!flows.is_empty(), "the capture shows nothing of the node");
    for (flow, seen) in flows {
        if seen.opened_by_remote {
            bail!("an inbound flow that the node did not open: {flow}");
        }
        ensure!(flow.remote == super_address, "a flow to somebody else: {flow}");
    }
    Ok(())
}

/// What was captured at the super node.
struct SuperEvidence {
    marker: String,
    packets: Vec<Packet>,
    /// From when the marker was sent in the clear on purpose.
    control: Vec<Packet>,
}

impl SuperEvidence {
    /// The marker occurs neither as it was sent nor as the guest turned it around.
    fn nothing_in_the_clear(&self) -> Result<()> {
        let reversed: String = self.marker.chars().rev().collect();
        let shows = |packets: &[Packet], text: &str| packets.iter().any(|p| p.contains(text.as_bytes()));
        ensure!(
            !shows(&self.packets, &self.marker),
            "a call's input is readable at the super node"
        );
        ensure!(
            !shows(&self.packets, &reversed),
            "a call's answer is readable at the super node"
        );
        ensure!(
            shows(&self.control, &self.marker),
            "control: the marker was sent in the clear, and the capture does not show it"
        );
        Ok(())
    }
}

/// All nodes behind NATs, and what they are called in results.
fn sites(topology: &Topology) -> Vec<(String, &Site)> {
    let mut sites = Vec::new();
    for (role, behind) in [("caller", &topology.callers), ("host", &topology.hosts)] {
        for site in behind {
            sites.push((format!("{role}_behind_{}", site.kind), site));
        }
    }
    sites
}

/// A machine to run commands at.
fn at(device: &Device) -> Arc<dyn Machine> {
    Arc::new(device.clone())
}

/// Sends one datagram from a machine.
fn send(from: &Device, to: SocketAddr, bytes: Vec<u8>) -> Result<()> {
    from.run_sync(move || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.send_to(&bytes, to)?;
        Ok(())
    })
}

/// 32 letters that nobody else sends.
fn marker() -> Result<String> {
    let mut bytes = [0; 16];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
