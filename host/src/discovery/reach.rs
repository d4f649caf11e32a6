//! Where the answers of strangers may send this machine.
//!
//! Anybody can announce any address in a DHT. Who looks something up would otherwise have its own services,
//! or those behind its firewall, sent packets by whoever wishes it.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::public_ip::is_public;

/// Which addresses may be dialled that a DHT named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Those on the public Internet.
    Public,
    /// Those of local networks too: the DHT itself is one of a local network.
    Local,
    /// Those of this machine and local networks too: the DHT is on this machine.
    Loopback,
}

impl Reach {
    /// The reach of a DHT that is entered by these nodes. One of them on the public Internet makes it a
    /// public one.
    pub(crate) fn of(bootstrap: &[SocketAddrV4]) -> Self {
        let any = |is: fn(&Ipv4Addr) -> bool| bootstrap.iter().any(|node| is(node.ip()));
        if bootstrap.is_empty() || any(|ip| is_public((*ip).into())) {
            Self::Public
        } else if any(Ipv4Addr::is_loopback) {
            Self::Loopback
        } else {
            Self::Local
        }
    }

    /// Whether somebody at this address may be dialled.
    pub(crate) fn allows(self, address: &SocketAddrV4) -> bool {
        let ip = *address.ip();
        let is_local = ip.is_private() || ip.is_link_local();
        is_public(ip.into())
            || match self {
                Self::Public => false,
                Self::Local => is_local,
                Self::Loopback => is_local || ip.is_loopback(),
            }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;

    fn at(ip: &str) -> SocketAddrV4 {
        SocketAddrV4::new(ip.parse().unwrap(), 1)
    }

    #[test]
    fn a_public_dht_sends_nobody_to_local_services() {
        let cases: [(&[&str], Reach); 6] = [
            (&[], Reach::Public),
            (&["1.1.1.1"], Reach::Public),
            (&["127.0.0.1", "1.1.1.1"], Reach::Public),
            (&["10.0.0.1", "1.1.1.1"], Reach::Public),
            (&["10.0.0.1"], Reach::Local),
            (&["127.0.0.1"], Reach::Loopback),
        ];
        for (bootstrap, reach) in cases {
            let nodes: Vec<_> = bootstrap.iter().map(|ip| at(ip)).collect();
            assert_eq!(Reach::of(&nodes), reach, "{bootstrap:?}");
        }
        for (ip, public, local, loopback) in [
            ("1.1.1.1", true, true, true),
            ("192.168.0.1", false, true, true),
            ("169.254.169.254", false, true, true),
            ("127.0.0.1", false, false, true),
            ("0.0.0.0", false, false, false),
            ("224.0.0.1", false, false, false),
            ("255.255.255.255", false, false, false),
        ] {
            let allowed = [Reach::Public, Reach::Local, Reach::Loopback].map(|reach| reach.allows(&at(ip)));
            assert_eq!(allowed, [public, local, loopback], "{ip}");
        }
    }
}
