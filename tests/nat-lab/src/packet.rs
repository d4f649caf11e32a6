//! What a captured packet says about itself: just addresses, ports and direction.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// A packet from its IP header on.
#[derive(Debug, Clone)]
pub(crate) struct Packet(pub(crate) Vec<u8>);

/// From where to where, by which transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// "udp" or "tcp".
    pub(crate) transport: &'static str,
    /// Where the packet comes from.
    pub(crate) from: SocketAddr,
    /// Where it goes.
    pub(crate) to: SocketAddr,
}

impl Packet {
    /// The addresses of a UDP or TCP packet; `None` for all others, and for fragments but the first.
    pub(crate) fn header(&self) -> Option<Header> {
        let bytes = &self.0;
        let (protocol, from, to, transport): (u8, IpAddr, IpAddr, &[u8]) = match bytes.first()? >> 4 {
            4 => {
                let fragment_offset = u16::from_be_bytes([*bytes.get(6)?, *bytes.get(7)?]) & 0x1fff;
                if fragment_offset != 0 {
                    return None;
                }
                let from: [u8; 4] = bytes.get(12..16)?.try_into().ok()?;
                let to: [u8; 4] = bytes.get(16..20)?.try_into().ok()?;
                let header_len = usize::from(bytes[0] & 0x0f) * 4;
                let (from, to) = (Ipv4Addr::from(from), Ipv4Addr::from(to));
                (*bytes.get(9)?, from.into(), to.into(), bytes.get(header_len..)?)
            }
            6 => {
                let from: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
                let to: [u8; 16] = bytes.get(24..40)?.try_into().ok()?;
                let (from, to) = (Ipv6Addr::from(from), Ipv6Addr::from(to));
                (*bytes.get(6)?, from.into(), to.into(), bytes.get(40..)?)
            }
            _ => return None,
        };
        let port = |at: usize| Some(u16::from_be_bytes([*transport.get(at)?, *transport.get(at + 1)?]));
        Some(Header {
            transport: match protocol {
                UDP => "udp",
                TCP => "tcp",
                _ => return None,
            },
            from: SocketAddr::new(from, port(0)?),
            to: SocketAddr::new(to, port(2)?),
        })
    }

    /// Whether these bytes occur in it.
    pub(crate) fn contains(&self, needle: &[u8]) -> bool {
        self.0.windows(needle.len()).any(|window| window == needle)
    }
}

/// A conversation between an address of this side and one of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Flow {
    /// "udp" or "tcp".
    pub(crate) transport: &'static str,
    /// This side.
    pub(crate) local: SocketAddr,
    /// The other.
    pub(crate) remote: SocketAddr,
}

/// What is known of a flow.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    /// Whether its first packet came from the other side.
    pub(crate) opened_by_remote: bool,
    /// Bytes that came, headers included.
    pub(crate) bytes_in: usize,
    /// Bytes that went.
    pub(crate) bytes_out: usize,
}

/// The flows between `local` and anybody, each with who began it.
pub(crate) fn flows(packets: &[Packet], local: IpAddr) -> BTreeMap<Flow, Seen> {
    let mut flows: BTreeMap<Flow, Seen> = BTreeMap::new();
    for packet in packets {
        let Some(header) = packet.header() else { continue };
        let inbound = header.to.ip() == local;
        if !inbound && header.from.ip() != local {
            continue;
        }
        let (local, remote) = if inbound {
            (header.to, header.from)
        } else {
            (header.from, header.to)
        };
        let flow = Flow {
            transport: header.transport,
            local,
            remote,
        };
        let seen = flows.entry(flow).or_insert(Seen {
            opened_by_remote: inbound,
            ..Seen::default()
        });
        let bytes = if inbound {
            &mut seen.bytes_in
        } else {
            &mut seen.bytes_out
        };
        *bytes += packet.0.len();
    }
    flows
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} - {}", self.transport, self.local, self.remote)
    }
}
