//! A switch with many machines, which can be told whose packets to whom it drops.
//!
//! ```text
//!   10.77.0.1 ──┐
//!   10.77.0.2 ──┤ switch: forwards by route, and drops
//!   10.77.0.3 ──┘         what (from, to) is in `cut`
//! ```
//!
//! Each machine is a network namespace with one address; the switch is one that forwards. A pair is cut in
//! one direction only, so that a partition may be asymmetric: packets arrive, and what answers them does not.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::Result;

use crate::namespace::Namespace;

/// The table that drops.
const RULES: &str = "\
table ip lab {
    set cut { type ipv4_addr . ipv4_addr; }
    chain forward {
        type filter hook forward priority 0; policy accept;
        ip saddr . ip daddr @cut drop
    }
}
";

/// Where packets from one machine to another are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cut {
    /// Whose packets.
    pub(crate) from: Port,
    /// To whom.
    pub(crate) to: Port,
}

/// A machine's place at the switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Port(u16);

impl Port {
    /// Its address.
    pub(crate) fn ip(self) -> Ipv4Addr {
        let [high, low] = self.0.to_be_bytes();
        Ipv4Addr::new(10, 77, high, low)
    }
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Switch {
    namespace: Namespace,
    machines: Vec<Arc<Namespace>>,
}

impl Switch {
    /// A switch without machines.
    pub(crate) fn new() -> Result<Self> {
        let namespace = Namespace::new("switch")?;
        namespace.sysctl("net/ipv4/ip_forward", "1")?;
        namespace.nft(RULES)?;
        Ok(Self {
            namespace,
            machines: Vec::new(),
        })
    }

    /// One more machine, connected.
    pub(crate) fn plug(&mut self, name: &str) -> Result<(Port, Arc<Namespace>)> {
        let machine = Arc::new(Namespace::new(name)?);
        self.machines.push(Arc::clone(&machine));
        let port = Port(self.machines.len() as u16);
        let (ip, link) = (port.ip(), format!("port{}", port.0));
        self.namespace.ip(&format!(
            "link add {link} type veth peer name eth0 netns {}\n\
             link set {link} up\n\
             addr add 169.254.0.1/32 dev {link}\n\
             route add {ip}/32 dev {link}\n",
            machine.path()
        ))?;
        machine.ip(&format!(
            "link set eth0 up\n\
             addr add {ip}/32 dev eth0\n\
             route add 169.254.0.1/32 dev eth0\n\
             route add default via 169.254.0.1 dev eth0\n"
        ))?;
        Ok((port, machine))
    }

    /// Drops exactly these from now on.
    pub(crate) fn set_cuts(&self, cuts: &[Cut]) -> Result<()> {
        let mut rules = "flush set ip lab cut\n".to_owned();
        if !cuts.is_empty() {
            let pairs: Vec<String> = cuts
                .iter()
                .map(|cut| format!("{} . {}", cut.from.ip(), cut.to.ip()))
                .collect();
            rules += &format!("add element ip lab cut {{ {} }}\n", pairs.join(", "));
        }
        self.namespace.nft(&rules)
    }
}
