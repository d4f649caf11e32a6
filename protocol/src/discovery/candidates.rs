//! Which of the addresses that a DHT gives are tried, and in which order.
//!
//! Whoever takes part in a DHT can announce any address under any hash, and answer lookups with any list.
//! So these are hints: their number is bounded, what nobody should be sent to is left out, and those that
//! many nodes of the DHT name come first, since a genuine announcement is stored at some twenty of them.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;

/// Addresses that are tried in one lookup. Whoever fills a hash with more lies than that hides a function.
pub const CANDIDATES_MAX: usize = 16;
/// Addresses that are remembered in one lookup: what twenty nodes answer that follow BEP 5, ten times over.
pub const HEARD_MAX: usize = 2_048;

/// What came back from one lookup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Candidates {
    /// How often each was named, and which one it was in the order of hearing.
    heard: BTreeMap<SocketAddrV4, (u32, usize)>,
    /// Addresses that were left out: nobody may be sent there, or there were too many.
    refused: u64,
}

impl Candidates {
    /// Takes in what one node of the DHT answered. `may_be_asked` says where this node may be sent.
    pub fn hear(&mut self, addresses: &[SocketAddrV4], may_be_asked: impl Fn(&SocketAddrV4) -> bool) {
        // A node that names an address twice has not said more than one that names it once.
        let mut answer = addresses.to_vec();
        answer.sort_unstable();
        answer.dedup();
        for address in answer {
            if address.port() == 0 || !may_be_asked(&address) {
                self.refused += 1;
                continue;
            }
            let (room, place) = (self.heard.len() < HEARD_MAX, self.heard.len());
            match self.heard.get_mut(&address) {
                Some((named, _)) => *named += 1,
                None if room => drop(self.heard.insert(address, (1, place))),
                None => self.refused += 1,
            }
        }
    }

    /// Whom to try, the one that most nodes named first; at most [`CANDIDATES_MAX`].
    pub fn ranked(&self) -> Vec<SocketAddrV4> {
        let mut ranked: Vec<_> = self.heard.iter().collect();
        ranked.sort_by_key(|(_, (named, place))| (std::cmp::Reverse(*named), *place));
        let addresses = ranked.into_iter().map(|(address, _)| *address);
        addresses.take(CANDIDATES_MAX).collect()
    }

    /// How many addresses were left out.
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn at(host: u8, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(1, 1, 1, host), port)
    }

    #[test]
    fn who_is_named_most_comes_first() {
        let mut candidates = Candidates::default();
        candidates.hear(&[at(1, 1), at(2, 1), at(2, 1), at(2, 1)], |_| true);
        candidates.hear(&[at(3, 1)], |_| true);
        candidates.hear(&[at(3, 1)], |_| true);
        assert_eq!(candidates.ranked(), [at(3, 1), at(1, 1), at(2, 1)]);
        assert_eq!(candidates.refused(), 0);
    }

    #[test]
    fn nobody_is_sent_where_nobody_may_be_sent() {
        let mut candidates = Candidates::default();
        candidates.hear(&[at(1, 0), at(1, 1), at(2, 1)], |address| {
            address.ip().octets()[3] == 1
        });
        assert_eq!(candidates.ranked(), [at(1, 1)]);
        assert_eq!(candidates.refused(), 2);
    }

    #[test]
    fn a_flood_is_bounded() {
        let mut candidates = Candidates::default();
        let flood: Vec<_> = (1..=u16::MAX).map(|port| at(1, port)).collect();
        for _ in 0..3 {
            candidates.hear(&flood, |_| true);
        }
        assert_eq!(candidates.heard.len(), HEARD_MAX);
        assert_eq!(candidates.ranked().len(), CANDIDATES_MAX);
        assert_eq!(candidates.refused(), 3 * (u64::from(u16::MAX) - HEARD_MAX as u64));
    }
}
