//! Which addresses are on the public Internet.
//!
//! Whoever may name a target could otherwise have this machine ask its own services, or those behind
//! its firewall. `IpAddr::is_global` of std would say it, and is not stable.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether anybody may be at this address: not this machine, its networks, many at once, or nobody
/// (the registries of RFC 6890, and addresses that carry an IPv4 address within them by that one).
pub(crate) fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => match embedded(ip) {
            Some(ip) => is_public_v4(ip),
            None => is_public_v6(ip),
        },
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let special = ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation()
        || ip.is_multicast();
    let shared = a == 100 && (64..128).contains(&b);
    let protocols = (a, b, c) == (192, 0, 0) || (a, b, c) == (192, 88, 99);
    let measured = a == 198 && (b == 18 || b == 19);
    let nobody = a == 0 || a >= 240;
    !(special || shared || protocols || measured || nobody)
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [a, b, ..] = ip.segments();
    // All that is given out so far is within 2000::/3.
    let given_out = a & 0xe000 == 0x2000;
    // Teredo, benchmarks and the like.
    let protocols = a == 0x2001 && b < 0x0200;
    let documentation = matches!((a, b), (0x2001, 0x0db8) | (0x3fff, ..0x1000));
    given_out && !protocols && !documentation
}

/// The IPv4 address that packets to this address end at: mapped, compatible, NAT64, 6to4.
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let low = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match ip.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, g, h] => Some(low(g, h)),
        [0x64, 0xff9b, 0, 0, 0, 0, g, h] => Some(low(g, h)),
        [0x2002, b, c, ..] => Some(low(b, c)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_and_its_networks_are_not_public() {
        for text in [
            "127.0.0.1",
            "127.255.0.1",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::7f00:1",
            "64:ff9b::a00:1",
            "2002:a00:1::1",
            "2001::1",
            "2001:db8::1",
            "3fff:1::1",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fd12:3456::1",
            "ff02::1",
            "64:ff9b:1::1",
        ] {
            assert_eq!(text.parse().map(is_public), Ok(false), "{text}");
        }
    }

    #[test]
    fn others_are() {
        for text in [
            "1.1.1.1",
            "100.63.0.1",
            "100.128.0.1",
            "172.32.0.1",
            "192.0.3.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2a00:1450:4001::1",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
            "2002:101:101::1",
        ] {
            assert_eq!(text.parse().map(is_public), Ok(true), "{text}");
        }
    }
}
