//! Placement: which hosts hold a function.
//!
//! The hosts nearest to the function in XOR space, as in Kademlia, with at most one per operator or
//! network prefix while others are to be had. The choice depends on the set of candidates alone, so
//! every super node that knows the same hosts computes the same assignment, and a host that comes or
//! goes moves only the replicas that are nearest to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::id::{FunctionId, NodeId};

/// Hosts that are likely to fail together: one operator's, or one network's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FailureDomain {
    /// Hosts that name the same operator.
    Operator(String),
    /// Hosts of one IPv4 /24.
    V4([u8; 3]),
    /// Hosts of one IPv6 /48.
    V6([u8; 6]),
}

impl FailureDomain {
    /// The domain of a host that names this operator (or none: empty) and comes from this address.
    pub fn of(operator: &str, address: IpAddr) -> Self {
        if !operator.is_empty() {
            return Self::Operator(operator.to_owned());
        }
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, ..] = v6.octets();
                Self::V6([a, b, c, d, e, f])
            }
        }
    }
}

impl FailureDomain {
    /// An address in the domain, in text, for whoever computes it anew; of no meaning for an operator's.
    pub fn address(&self) -> String {
        match self {
            Self::Operator(_) => IpAddr::from([0, 0, 0, 0]).to_string(),
            Self::V4([a, b, c]) => IpAddr::from([*a, *b, *c, 0]).to_string(),
            Self::V6(prefix) => {
                let mut octets = [0; 16];
                octets[..6].copy_from_slice(prefix);
                IpAddr::from(octets).to_string()
            }
        }
    }
}

/// Super nodes that keep a function's directory: the nearest ones to it.
pub const DIRECTORY_SIZE: usize = 3;

/// The `count` nodes nearest to a function, nearest first.
pub fn nearest<'a>(
    function: &FunctionId,
    count: usize,
    nodes: impl IntoIterator<Item = &'a NodeId>,
) -> Vec<NodeId> {
    let mut nearest: Vec<([u8; 32], NodeId)> = Vec::with_capacity(count + 1);
    for node in nodes {
        let candidate = (function.distance(node), *node);
        let place = nearest.partition_point(|other| *other < candidate);
        if place < count {
            nearest.insert(place, candidate);
            nearest.truncate(count);
        }
    }
    nearest.into_iter().map(|(_, node)| node).collect()
}

/// Chooses at most `replicas` of the candidates for a function, nearest first.
///
/// One pass takes the nearest host of each failure domain; if that is not enough, a second pass
/// fills up with the nearest of the rest. The candidates come nearest first ([`by_distance`]) and are looked
/// at only as far as it takes: until there are enough, or one of each of `domains` was seen.
pub fn choose<'a>(
    function: &FunctionId,
    replicas: usize,
    domains: usize,
    candidates: impl IntoIterator<Item = (NodeId, &'a FailureDomain)>,
) -> Vec<NodeId> {
    let mut taken = BTreeSet::new();
    let (mut chosen, mut rest) = (Vec::new(), Vec::new());
    for (node, domain) in candidates {
        let enough = taken.len() >= replicas;
        let no_more_domains = taken.len() >= domains && chosen.len() + rest.len() >= replicas;
        if enough || no_more_domains {
            break;
        }
        if taken.insert(domain) {
            chosen.push(node);
        } else if rest.len() < replicas {
            rest.push(node);
        }
    }
    let missing = replicas.saturating_sub(chosen.len());
    chosen.extend(rest.into_iter().take(missing));
    chosen.sort_unstable_by_key(|node| function.distance(node));
    chosen
}

/// All entries of a map, nearest to a function first.
///
/// Ids with a prefix in common stand together in the map's order, so that it is walked like a binary
/// trie: at each bit the half that agrees with the function comes before the other one. The first few
/// entries of a large map cost a few dozen look-ups, and not a sort of all.
pub fn by_distance<'a, V>(
    function: &FunctionId,
    map: &'a BTreeMap<NodeId, V>,
) -> impl Iterator<Item = (NodeId, &'a V)> {
    ByDistance {
        target: *function.as_bytes(),
        map,
        stack: vec![Half {
            low: [0; 32],
            bits: 0,
        }],
    }
}

/// All ids that begin with the first `bits` of `low`, whose other bits are zero.
struct Half {
    low: [u8; 32],
    bits: usize,
}

struct ByDistance<'a, V> {
    target: [u8; 32],
    map: &'a BTreeMap<NodeId, V>,
    stack: Vec<Half>,
}

impl Half {
    fn high(&self) -> [u8; 32] {
        let mut high = self.low;
        let (byte, bit) = (self.bits / 8, self.bits % 8);
        if byte < 32 {
            high[byte] |= 0xff >> bit;
            high[byte + 1..].fill(0xff);
        }
        high
    }

    /// Its halves, the one that agrees with `target` first.
    fn split(&self, target: &[u8; 32]) -> [Self; 2] {
        let (byte, mask) = (self.bits / 8, 0x80 >> (self.bits % 8));
        let bits = self.bits + 1;
        let zero = Self { low: self.low, bits };
        let mut low = self.low;
        low[byte] |= mask;
        let one = Self { low, bits };
        if target[byte] & mask == 0 {
            [zero, one]
        } else {
            [one, zero]
        }
    }
}

impl<'a, V> Iterator for ByDistance<'a, V> {
    type Item = (NodeId, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(half) = self.stack.pop() {
            let range = NodeId::from_bytes(half.low)..=NodeId::from_bytes(half.high());
            let mut entries = self.map.range(range);
            match (entries.next(), entries.next()) {
                (None, _) => {}
                (Some((node, value)), None) => return Some((*node, value)),
                _ => {
                    let [near, far] = half.split(&self.target);
                    self.stack.push(far);
                    self.stack.push(near);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(byte: u8) -> NodeId {
        NodeId::from_bytes([byte; 32])
    }

    fn domain(byte: u8) -> FailureDomain {
        FailureDomain::V4([byte, 0, 0])
    }

    fn chosen(replicas: usize, hosts: &[(u8, u8)]) -> Vec<NodeId> {
        let hosts: BTreeMap<_, _> = hosts.iter().map(|&(n, d)| (node(n), domain(d))).collect();
        let domains: BTreeSet<_> = hosts.values().collect();
        let function = FunctionId::from_bytes([0; 32]);
        choose(&function, replicas, domains.len(), by_distance(&function, &hosts))
    }

    #[test]
    fn the_nearest_are_chosen() {
        assert_eq!(chosen(2, &[(9, 0), (1, 1), (4, 2)]), [node(1), node(4)]);
    }

    #[test]
    fn one_per_domain_while_others_are_to_be_had() {
        assert_eq!(chosen(2, &[(1, 0), (2, 0), (9, 1)]), [node(1), node(9)]);
        assert_eq!(chosen(3, &[(1, 0), (2, 0), (9, 1)]), [node(1), node(2), node(9)]);
    }

    #[test]
    fn domains_follow_operator_then_prefix() {
        let v4 = |text: &str| FailureDomain::of("", text.parse().expect("an address"));
        assert_eq!(v4("10.1.2.3"), v4("::ffff:10.1.2.200"));
        assert_ne!(v4("10.1.2.3"), v4("10.1.3.3"));
        assert_eq!(v4("2001:db8:1::1"), v4("2001:db8:1:ffff::1"));
        assert_eq!(
            FailureDomain::of("alice", IpAddr::from([10, 0, 0, 1])),
            FailureDomain::of("alice", IpAddr::from([11, 0, 0, 1]))
        );
    }

    proptest! {
        #[test]
        fn a_walk_by_distance_is_in_order_and_complete(
            nodes in prop::collection::btree_set(any::<[u8; 32]>(), 0..60),
            close in prop::collection::btree_set(any::<u8>(), 0..20),
            target in any::<[u8; 32]>(),
        ) {
            let function = FunctionId::from_bytes(target);
            let beside = close.iter().map(|last| {
                let mut id = target;
                id[31] = *last;
                id
            });
            let map: BTreeMap<NodeId, ()> =
                nodes.iter().copied().chain(beside).map(|id| (NodeId::from_bytes(id), ())).collect();
            let walked: Vec<NodeId> = by_distance(&function, &map).map(|(node, ())| node).collect();
            let mut sorted: Vec<NodeId> = map.keys().copied().collect();
            sorted.sort_by_key(|node| function.distance(node));
            prop_assert_eq!(walked, sorted);
        }

        /// A host that leaves takes only its own replica along.
        #[test]
        fn losing_a_host_moves_one_replica(
            nodes in prop::collection::btree_set(1..=255u8, 2..40),
            replicas in 1..6usize,
            index in any::<prop::sample::Index>(),
        ) {
            let hosts: Vec<_> = nodes.iter().map(|&n| (n, n)).collect();
            let before = chosen(replicas, &hosts);
            let lost = hosts[index.index(hosts.len())];
            let rest: Vec<_> = hosts.iter().copied().filter(|h| *h != lost).collect();
            let after = chosen(replicas, &rest);
            let kept = before.iter().filter(|n| after.contains(n)).count();
            let expected = before.len() - usize::from(before.contains(&node(lost.0)));
            prop_assert_eq!(kept, expected);
        }
    }
}
