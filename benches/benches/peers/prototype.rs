//! Relayed JavaScript calls, against the shape of the 2018 prototype, written anew: caller, relay and host are
//! Node programs on socket.io, and the host evaluates the function's source in itself, or in a fresh `vm` context.
//!
//! All callers keep 64 calls in flight. Every program on every side is a process of its own.

use std::path::Path;

use anyhow::Result;
use bytes::Bytes;
use orb_benches::caller::Caller;
use orb_benches::network::Network;
use orb_benches::race::Race;
use orb_benches::script::{Script, packages, present};
use orb_benches::{INPUT, JAVASCRIPT};
use tokio::runtime::Runtime;

const IN_FLIGHT: u64 = 64;
/// Several full sets in flight, so that a short measurement is not a latency.
const CALLS_MIN: u64 = 4 * IN_FLIGHT;
const PACKAGES: [&str; 2] = ["socket.io@4.8.4", "socket.io-client@4.8.4"];

pub(crate) fn measure(runtime: &Runtime, short: bool) -> Result<()> {
    let title = "relayed JavaScript calls, 64 in flight";
    if !present(&["node", "npm"], title)? {
        return Ok(());
    }
    let packages = packages(&PACKAGES)?;
    let mut plain = Prototype::start(&packages, "function")?;
    let mut context = Prototype::start(&packages, "vm")?;
    let network = Network::start(1)?;
    let toml = b"schema = 1\nreplicas = 1\nname = \"js\"\nmain = \"index.js\"\n";
    network.deploy("js", &[("orb.toml", toml), ("index.js", JAVASCRIPT.as_bytes())])?;
    let caller = runtime.block_on(Caller::connect(&network, "js"))?;
    let input = Bytes::from_static(INPUT);
    Race::new(title, short)
        .at_least(CALLS_MIN)
        .baseline("socket.io, new Function in the host itself", |calls| {
            plain.caller.measure(calls)
        })
        .baseline("socket.io, a fresh vm context per call", |calls| {
            context.caller.measure(calls)
        })
        .contender("orb, all limits", |calls| {
            runtime.block_on(caller.many(&input, calls, IN_FLIGHT))
        })
        .run()
}

/// A caller, a relay and a host.
struct Prototype {
    caller: Script,
    _host: Script,
    _relay: Script,
}

impl Prototype {
    fn start(packages: &Path, mode: &str) -> Result<Self> {
        let start = |args: &[&str]| Script::start(&super::script("prototype.js"), args, Some(packages));
        let relay = start(&["relay"])?;
        let host = start(&["host", &relay.ready, mode, JAVASCRIPT])?;
        let caller = start(&["caller", &relay.ready, &IN_FLIGHT.to_string()])?;
        Ok(Self {
            caller,
            _host: host,
            _relay: relay,
        })
    }
}
