//! The relay: its packet header, and its table under any sequence of events.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use orb_protocol::id::NodeId;
use orb_protocol::relay::{
    LinkId, RELAY_HEADER_LEN, RelayBatch, RelayHeader, RelayLimits, RelayTable, RelayToken, SessionTokens,
};

/// Any datagram: the first byte alone tells QUIC from the rest; a header that is read is written as it
/// was; another token changes the token and nothing else.
pub(crate) fn header(bytes: &[u8]) {
    let parsed = RelayHeader::parse(bytes);
    let quic = bytes.first().is_some_and(|first| first & 0xc0 != 0);
    assert_eq!(parsed == RelayHeader::Quic, quic);
    let RelayHeader::Packet(token) = parsed else {
        return;
    };
    assert_eq!(RelayHeader::encode(token), bytes[..RELAY_HEADER_LEN]);
    let mut other = bytes.to_vec();
    RelayHeader::rewrite(&mut other, RelayToken::new(!token.bits()));
    assert_eq!(
        RelayHeader::parse(&other),
        RelayHeader::Packet(RelayToken::new(!token.bits()))
    );
    assert_eq!(other[RELAY_HEADER_LEN..], bytes[RELAY_HEADER_LEN..]);
    RelayHeader::rewrite(&mut other, token);
    assert_eq!(other, bytes);
}

/// Limits that few events reach.
fn limits() -> RelayLimits {
    RelayLimits {
        sessions: 6,
        sessions_per_caller: 3,
        sessions_per_target: 4,
        bytes_per_s: 10_000,
        burst_bytes: 5_000,
        ..RelayLimits::default()
    }
}

/// Three bytes are an event: what happens, and two numbers for it. Packets go only to live links of
/// somebody else, no bound is passed, and when all links are gone nothing is left.
pub(crate) fn table(bytes: &[u8]) {
    let mut scene = Scene {
        table: RelayTable::new(limits()),
        links: Vec::new(),
        tokens: 0,
        now: Duration::ZERO,
    };
    for event in bytes.chunks_exact(3) {
        scene.on(event[0], event[1], event[2]);
        let live = scene.table.stats().sessions_live;
        assert!(live <= limits().sessions as u64);
        assert_eq!(live == 0, scene.table.is_idle());
    }
    for (link, _) in std::mem::take(&mut scene.links) {
        scene.table.link_down(link);
    }
    assert!(scene.table.is_idle(), "sessions outlive their links");
}

struct Scene {
    table: RelayTable,
    links: Vec<(LinkId, SocketAddr)>,
    tokens: u64,
    now: Duration,
}

impl Scene {
    fn on(&mut self, what: u8, one: u8, other: u8) {
        match what % 7 {
            0 => self.link_up(one, other),
            1 => {
                if let Some(at) = self.at(one) {
                    let (link, _) = self.links.swap_remove(at);
                    self.table.link_down(link);
                }
            }
            2 => {
                if let Some(at) = self.at(one) {
                    self.links[at].1 = address(other);
                    self.table.link_moved(self.links[at].0, address(other));
                }
            }
            3 => self.open(one, other),
            4 => self.forward(u64::from(one), address(other), 1),
            5 => self.forward(u64::from(one), address(other), 3),
            _ => {
                self.now += Duration::from_millis(u64::from(one) * u64::from(other));
                self.table.expire(self.now);
            }
        }
    }

    fn at(&self, which: u8) -> Option<usize> {
        usize::from(which).checked_rem(self.links.len())
    }

    fn link_up(&mut self, who: u8, port: u8) {
        let link = self.table.link_up(node(who), address(port), None, self.now);
        self.links.push((link, address(port)));
    }

    fn open(&mut self, from: u8, to: u8) {
        let Some(at) = self.at(from) else {
            return;
        };
        let tokens = SessionTokens {
            caller: RelayToken::new(self.tokens),
            target: RelayToken::new(self.tokens + 1),
        };
        self.tokens += 2;
        let (caller, _) = self.links[at];
        if let Ok(opened) = self.table.open(caller, node(to), tokens, self.now) {
            assert_ne!(opened.target, caller, "a session with oneself");
            assert_eq!(self.table.link_of(tokens.caller), Some(caller));
            assert_eq!(self.table.link_of(tokens.target), Some(opened.target));
        }
    }

    fn forward(&mut self, token: u64, from: SocketAddr, datagrams: usize) {
        let token = RelayToken::new(token);
        let batch = RelayBatch {
            from,
            token,
            datagrams,
            datagram_bytes: 1_200,
        };
        let Ok(forward) = self.table.forward(batch, self.now) else {
            return;
        };
        assert!((1..=datagrams).contains(&forward.datagrams));
        let live = |token| {
            let link = self.table.link_of(token).expect("the leg of a live session");
            self.links
                .iter()
                .find(|(known, _)| *known == link)
                .expect("a live link")
        };
        assert_eq!(live(token).1, from, "a packet from elsewhere is passed on");
        assert_eq!(live(forward.token).1, forward.to);
        assert_ne!(live(forward.token).0, live(token).0, "a packet comes back");
    }
}

/// A few nodes, so that they meet.
fn node(which: u8) -> NodeId {
    NodeId::from_bytes([which % 4; 32])
}

fn address(port: u8) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 1 + u16::from(port % 8)))
}
