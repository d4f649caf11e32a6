//! Who holds how many of something that there is only so much of.
//!
//! When all of it is taken, it is taken by somebody: whoever holds most has to give some back
//! before somebody who holds less is turned away. So a flood from one side only ever displaces
//! itself. Every operation takes logarithmic time: it runs while strangers flood.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

/// Where somebody comes from, as far as it costs something to be many: an IPv4 address, or an IPv6
/// network of 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(IpAddr);

impl Origin {
    /// The origin of an address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) if !v6.is_loopback() => {
                let network = v6.to_bits() >> 64 << 64;
                Self(Ipv6Addr::from_bits(network).into())
            }
            other => Self(other),
        }
    }
}

/// Which items each holder has. Items are numbered in the order in which they were taken.
#[derive(Debug, Clone)]
pub struct Shares<Holder> {
    held: BTreeMap<Holder, BTreeSet<u64>>,
    /// The same by how many: the last has most.
    ranked: BTreeSet<(usize, Holder)>,
}

impl<Holder> Default for Shares<Holder> {
    fn default() -> Self {
        Self {
            held: BTreeMap::new(),
            ranked: BTreeSet::new(),
        }
    }
}

impl<Holder: Ord + Copy> Shares<Holder> {
    /// A holder takes an item.
    pub fn take(&mut self, holder: Holder, item: u64) {
        let items = self.held.entry(holder).or_default();
        let before = items.len();
        items.insert(item);
        let now = items.len();
        self.rank(holder, before, now);
    }

    /// A holder gives an item back.
    pub fn give_back(&mut self, holder: Holder, item: u64) {
        let Some(items) = self.held.get_mut(&holder) else {
            return;
        };
        let before = items.len();
        items.remove(&item);
        let now = items.len();
        if now == 0 {
            self.held.remove(&holder);
        }
        self.rank(holder, before, now);
    }

    /// Whose turn it is to give something back for a newcomer: the holder of most, if it would still
    /// have no less than the newcomer then.
    pub fn heaviest_for(&self, newcomer: Holder) -> Option<Holder> {
        let (most, holder) = *self.ranked.last()?;
        let own = self.held.get(&newcomer).map_or(0, BTreeSet::len);
        (most > own + 1).then_some(holder)
    }

    /// Whether nobody holds anything.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The item that a holder took first.
    pub fn oldest_of(&self, holder: Holder) -> Option<u64> {
        self.held.get(&holder)?.first().copied()
    }

    /// The item that a holder took last.
    pub fn newest_of(&self, holder: Holder) -> Option<u64> {
        self.held.get(&holder)?.last().copied()
    }

    fn rank(&mut self, holder: Holder, before: usize, now: usize) {
        self.ranked.remove(&(before, holder));
        if now > 0 {
            self.ranked.insert((now, holder));
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn origin(text: &str) -> Origin {
        Origin::of(text.parse().unwrap())
    }

    #[test]
    fn an_origin_is_an_address_or_a_network() {
        assert_eq!(origin("2001:db8::1"), origin("2001:db8::2"));
        assert_ne!(origin("2001:db8::1"), origin("2001:db8:0:1::1"));
        assert_eq!(origin("::ffff:192.0.2.1"), origin("192.0.2.1"));
        assert_ne!(origin("192.0.2.1"), origin("192.0.2.2"));
    }

    #[test]
    fn whoever_has_most_gives_to_whoever_has_less() {
        let mut shares = Shares::default();
        for item in 0..3 {
            shares.take('a', item);
        }
        assert_eq!(shares.heaviest_for('b'), Some('a'));
        assert_eq!(shares.heaviest_for('a'), None, "nobody displaces itself");
        assert_eq!((shares.oldest_of('a'), shares.newest_of('a')), (Some(0), Some(2)));
        shares.take('b', 3);
        assert_eq!(shares.heaviest_for('b'), Some('a'));
        shares.take('b', 4);
        assert_eq!(shares.heaviest_for('b'), None, "that would only change places");
        shares.give_back('b', 3);
        shares.give_back('b', 4);
        assert_eq!(shares.oldest_of('b'), None);
    }

    proptest! {
        #[test]
        fn the_ranking_follows_what_is_held(events in prop::collection::vec((0u8..4, 0u64..8, any::<bool>()), 0..100)) {
            let mut shares = Shares::default();
            for (holder, item, takes) in events {
                match takes {
                    true => shares.take(holder, item),
                    false => shares.give_back(holder, item),
                }
                let counted: BTreeSet<(usize, u8)> =
                    shares.held.iter().map(|(holder, items)| (items.len(), *holder)).collect();
                prop_assert_eq!(&counted, &shares.ranked);
            }
        }
    }
}
