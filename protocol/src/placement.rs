//! Placement: which hosts hold a function.
//!
//! The hosts nearest to the function in XOR space, as in Kademlia, with at most one per operator or
//! network prefix while others are to be had. The choice depends on the set of candidates alone, so
//! every super node that knows the same hosts computes the same assignment, and a host that comes or
//! goes moves only the replicas that are nearest to it.

use std::collections::BTreeSet;
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
/// fills up with the nearest of the rest.
pub fn choose<'a>(
    function: &FunctionId,
    replicas: usize,
    candidates: impl IntoIterator<Item = (NodeId, &'a FailureDomain)>,
) -> Vec<NodeId> {
    let mut by_distance: Vec<_> = candidates
        .into_iter()
        .map(|(node, domain)| (function.distance(&node), node, domain))
        .collect();
    by_distance.sort_unstable_by_key(|(distance, ..)| *distance);

    let mut taken = BTreeSet::new();
    let (mut chosen, mut rest) = (Vec::new(), Vec::new());
    for (distance, node, domain) in by_distance {
        if taken.insert(domain) {
            chosen.push((distance, node));
        } else {
            rest.push((distance, node));
        }
    }
    chosen.truncate(replicas);
    let missing = replicas - chosen.len();
    chosen.extend(rest.into_iter().take(missing));
    chosen.sort_unstable();
    chosen.into_iter().map(|(_, node)| node).collect()
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
        let hosts: Vec<_> = hosts.iter().map(|&(n, d)| (node(n), domain(d))).collect();
        choose(
            &FunctionId::from_bytes([0; 32]),
            replicas,
            hosts.iter().map(|(n, d)| (*n, d)),
        )
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
