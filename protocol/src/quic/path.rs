//! Which way packets go, below QUIC.
//!
//! QUIC sees a *remote*: one made-up IPv6 address for each peer that this node dialled or that comes
//! by relay. The table here says which real ways lead there and which one is in use, so a way may
//! change under a live connection, and nothing in it notices more than another round trip time.
//! Pure: the time comes in, and so do all events.
//!
//! | event | effect |
//! | --- | --- |
//! | [`PathTable::dial`] | a remote with one path; the same one for a direct address that has one already |
//! | [`PathTable::offer`] | one more way to a remote; used as soon as it is better than the one in use |
//! | [`PathTable::withdraw`] | a way less; the best of the others is used |
//! | packets from a path | belong to the path's remote, whether it is in use or not |
//! | nothing sent for a while | the remote is forgotten: QUIC's idle timeout ended its connections |

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::id::NodeId;
use crate::relay::RelayToken;

/// Remotes at one time. Only dials and offers of super nodes make them; each costs about 300 bytes.
const REMOTES_MAX: usize = 65_536;
/// Relayed remotes by way of one super node, so that one that misbehaves leaves room for others.
const REMOTES_PER_VIA_MAX: usize = 16_384;
/// Paths to one remote: LAN, direct and relayed, each by both address families, and room to change.
const PATHS_MAX: usize = 8;

/// The upper half of every made-up address: a unique local prefix (RFC 4193) with "orb" in it.
const PREFIX: u64 = 0xfd6f_7262_0000_0000;
/// The port of made-up addresses. QUIC only asks that it is not zero.
const PORT: u16 = 1;

/// What kind of way leads to a peer, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum PathKind {
    /// Straight to an address in the same network.
    Lan,
    /// Straight to a public or hole-punched address.
    Direct,
    /// By a super node's packet relay.
    Relay,
    /// Inside a TLS WebSocket to a super node.
    WebSocket,
}

impl PathKind {
    /// The name in output and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::Direct => "direct",
            Self::Relay => "relay",
            Self::WebSocket => "websocket",
        }
    }
}

impl fmt::Display for PathKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// One way to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Path {
    /// Straight to this address.
    Direct(SocketAddr),
    /// By the relay at this address, with this leg's token.
    Relay {
        /// The super node.
        via: SocketAddr,
        /// What it knows this leg by.
        token: RelayToken,
    },
}

impl Path {
    /// What kind of way it is.
    pub fn kind(&self) -> PathKind {
        match self {
            Self::Direct(_) => PathKind::Direct,
            Self::Relay { .. } => PathKind::Relay,
        }
    }

    /// The same way with the address in the form that the table compares.
    fn canonical(self) -> Self {
        match self {
            Self::Direct(addr) => Self::Direct(canonical(addr)),
            Self::Relay { via, token } => Self::Relay {
                via: canonical(via),
                token,
            },
        }
    }
}

/// The IPv6 form of an address, without what the kernel adds to it: one address, one form.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    let (ip, scope) = match addr {
        SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped(), 0),
        SocketAddr::V6(v6) => (*v6.ip(), v6.scope_id()),
    };
    SocketAddrV6::new(ip, addr.port(), 0, scope).into()
}

/// The form of an address for people and for IPv4 sockets.
pub(crate) fn unmapped(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(v4.into(), addr.port()),
            None => addr,
        },
        IpAddr::V4(_) => addr,
    }
}

/// A remote, as QUIC sees it. Never used again for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RemoteId(u64);

impl RemoteId {
    /// The made-up address.
    pub(crate) fn addr(self) -> SocketAddr {
        let bits = (u128::from(PREFIX) << 64) | u128::from(self.0);
        SocketAddr::new(Ipv6Addr::from_bits(bits).into(), PORT)
    }

    /// The remote that an address was made up for, if it was made up.
    pub(crate) fn of(addr: SocketAddr) -> Option<Self> {
        let IpAddr::V6(ip) = addr.ip() else {
            return None;
        };
        let (high, low) = ((ip.to_bits() >> 64) as u64, ip.to_bits() as u64);
        (high == PREFIX).then_some(Self(low))
    }
}

/// The table holds as many remotes as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this node has paths to as many peers as it may")]
pub struct TableFull;

/// Remotes and the ways that lead to them.
#[derive(Debug, Default)]
pub(crate) struct PathTable {
    remotes: BTreeMap<RemoteId, Remote>,
    owners: BTreeMap<Path, RemoteId>,
    per_via: BTreeMap<SocketAddr, usize>,
    next_id: u64,
}

#[derive(Debug)]
struct Remote {
    node: NodeId,
    /// Best first; the first one is in use.
    paths: Vec<Path>,
    /// Milliseconds since the epoch of the caller's clock. Atomic, so that sending needs no
    /// exclusive access to the table.
    sent_at_ms: AtomicU64,
}

impl Remote {
    fn touch(&self, now: Duration) {
        self.sent_at_ms.store(millis(now), Ordering::Relaxed);
    }
}

impl PathTable {
    /// A remote to which `path` leads, for a dial to `node` or by `node`.
    ///
    /// A direct address has one remote however many connections go there, and whoever they hope
    /// to find: packets from an address can belong to one remote only, and the handshake tells
    /// who is there. Every relay session is a remote of its own, so that an offer of one super
    /// node cannot disturb connections that go by way of another.
    ///
    /// # Errors
    ///
    /// [`TableFull`].
    pub(crate) fn dial(&mut self, node: NodeId, path: Path, now: Duration) -> Result<RemoteId, TableFull> {
        let path = path.canonical();
        if let Some(id) = self.owners.get(&path)
            && let Some(remote) = self.remotes.get(id)
            && remote.paths.first() == Some(&path)
        {
            remote.touch(now);
            return Ok(*id);
        }
        if self.remotes.len() >= REMOTES_MAX {
            return Err(TableFull);
        }
        self.count_via(path)?;
        self.next_id += 1;
        let id = RemoteId(self.next_id);
        self.take_over(path, id);
        let remote = Remote {
            node,
            paths: vec![path],
            sent_at_ms: AtomicU64::new(millis(now)),
        };
        self.remotes.insert(id, remote);
        Ok(id)
    }

    /// Adds a way to a remote. It is in use from now on if it is of a better kind than all others.
    ///
    /// Call this only for a way that has been proven to lead to the remote's node.
    ///
    /// # Errors
    ///
    /// [`TableFull`], also when the remote has as many paths as it may or is not known.
    pub(crate) fn offer(&mut self, id: RemoteId, path: Path) -> Result<(), TableFull> {
        let path = path.canonical();
        let remote = self.remotes.get(&id).ok_or(TableFull)?;
        if remote.paths.contains(&path) {
            return Ok(());
        }
        if remote.paths.len() >= PATHS_MAX {
            return Err(TableFull);
        }
        self.count_via(path)?;
        self.take_over(path, id);
        let remote = self.remotes.get_mut(&id).ok_or(TableFull)?;
        let at = remote.paths.partition_point(|p| p.kind() <= path.kind());
        remote.paths.insert(at, path);
        Ok(())
    }

    /// Takes a way from a remote: it is lost. Where it is the only one, it stays.
    pub(crate) fn withdraw(&mut self, id: RemoteId, path: Path) {
        let path = path.canonical();
        let Some(remote) = self.remotes.get_mut(&id) else {
            return;
        };
        if remote.paths.len() > 1 && remote.paths.contains(&path) {
            remote.paths.retain(|p| *p != path);
            self.release(path, id);
        }
    }

    /// The way to send by, noting that something is sent.
    pub(crate) fn route(&self, id: RemoteId, now: Duration) -> Option<Path> {
        let remote = self.remotes.get(&id)?;
        remote.touch(now);
        remote.paths.first().copied()
    }

    /// The way in use.
    pub(crate) fn path(&self, id: RemoteId) -> Option<Path> {
        self.remotes.get(&id)?.paths.first().copied()
    }

    /// The node that a super node announced for a remote that it relays to. Only a handshake proves
    /// that it is there.
    pub(crate) fn announced(&self, id: RemoteId) -> Option<NodeId> {
        let remote = self.remotes.get(&id)?;
        let relayed = remote.paths.first()?.kind() == PathKind::Relay;
        relayed.then_some(remote.node)
    }

    /// The remote that packets on this path belong to. `path` is in canonical form.
    pub(crate) fn owner(&self, path: &Path) -> Option<RemoteId> {
        self.owners.get(path).copied()
    }

    /// Forgets remotes to which nothing was sent for `idle`, and says how many.
    pub(crate) fn expire(&mut self, now: Duration, idle: Duration) -> usize {
        let limit_ms = millis(now.saturating_sub(idle));
        let before = self.remotes.len();
        let stale: Vec<RemoteId> = self
            .remotes
            .iter()
            .filter(|(_, r)| r.sent_at_ms.load(Ordering::Relaxed) < limit_ms)
            .map(|(id, _)| *id)
            .collect();
        for id in stale {
            if let Some(remote) = self.remotes.remove(&id) {
                for path in remote.paths {
                    self.release(path, id);
                }
            }
        }
        before - self.remotes.len()
    }

    /// How many remotes there are.
    pub(crate) fn len(&self) -> usize {
        self.remotes.len()
    }

    /// Packets on `path` belong to `id` from now on, whoever had it before.
    fn take_over(&mut self, path: Path, id: RemoteId) {
        let Some(old) = self.owners.insert(path, id) else {
            return;
        };
        // Counted again for the new owner.
        self.uncount_via(path);
        if let Some(remote) = self.remotes.get_mut(&old)
            && remote.paths.len() > 1
        {
            remote.paths.retain(|p| *p != path);
        }
    }

    fn release(&mut self, path: Path, id: RemoteId) {
        if self.owners.get(&path) == Some(&id) {
            self.owners.remove(&path);
            self.uncount_via(path);
        }
    }

    fn count_via(&mut self, path: Path) -> Result<(), TableFull> {
        if let Path::Relay { via, .. } = path {
            let count = self.per_via.entry(via).or_default();
            if *count >= REMOTES_PER_VIA_MAX {
                return Err(TableFull);
            }
            *count += 1;
        }
        Ok(())
    }

    fn uncount_via(&mut self, path: Path) {
        if let Path::Relay { via, .. } = path
            && let Some(count) = self.per_via.get_mut(&via)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.per_via.remove(&via);
            }
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn node(byte: u8) -> NodeId {
        NodeId::from_bytes([byte; 32])
    }

    fn direct(text: &str) -> Path {
        Path::Direct(canonical(text.parse().unwrap()))
    }

    fn relay(via: &str, token: u64) -> Path {
        Path::Relay {
            via: canonical(via.parse().unwrap()),
            token: RelayToken::new(token),
        }
    }

    #[test]
    fn made_up_addresses_name_their_remote() {
        let id = RemoteId(0x1_0000_0007);
        assert_eq!(RemoteId::of(id.addr()), Some(id));
        assert_eq!(RemoteId::of("[2001:db8::1]:5".parse().unwrap()), None);
        assert_eq!(RemoteId::of("10.0.0.1:5".parse().unwrap()), None);
    }

    #[test]
    fn an_address_has_one_form() {
        let v4: SocketAddr = "192.0.2.1:5".parse().unwrap();
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:5".parse().unwrap();
        assert_eq!(canonical(v4), mapped);
        assert_eq!(unmapped(mapped), v4);
    }

    #[test]
    fn a_direct_address_has_one_remote() {
        let mut table = PathTable::default();
        let path = direct("192.0.2.1:5");
        let first = table.dial(node(1), path, NOW).unwrap();
        assert_eq!(table.dial(node(2), path, NOW).unwrap(), first);
        assert_eq!(table.owner(&path), Some(first));
        assert_eq!(table.announced(first), None, "anybody may dial from there");
    }

    #[test]
    fn every_relay_session_has_a_remote_of_its_own() {
        let mut table = PathTable::default();
        let first = table.dial(node(1), relay("192.0.2.9:5", 1), NOW).unwrap();
        let second = table.dial(node(1), relay("192.0.2.9:5", 2), NOW).unwrap();
        assert_ne!(first, second);
        assert_eq!(table.announced(first), Some(node(1)));
        // A token belongs to its super node: from elsewhere it is nobody's.
        assert_eq!(table.owner(&relay("192.0.2.8:5", 1)), None);
    }

    #[test]
    fn the_best_way_is_used_and_the_next_one_after_it() {
        let mut table = PathTable::default();
        let (slow, fast) = (relay("192.0.2.9:5", 1), direct("192.0.2.1:5"));
        let id = table.dial(node(1), slow, NOW).unwrap();
        assert_eq!(table.path(id), Some(slow));
        table.offer(id, fast).unwrap();
        assert_eq!(table.path(id), Some(fast));
        // Late packets on the old way still belong to the remote.
        assert_eq!(table.owner(&slow), Some(id));
        table.withdraw(id, fast);
        assert_eq!(table.path(id), Some(slow));
        assert_eq!(table.owner(&fast), None);
        table.withdraw(id, slow);
        assert_eq!(table.path(id), Some(slow), "the last way stays");
    }

    #[test]
    fn a_direct_address_that_is_no_longer_in_use_may_be_dialled_afresh() {
        let mut table = PathTable::default();
        let (old, new) = (direct("192.0.2.1:5"), relay("192.0.2.9:5", 1));
        let first = table.dial(node(1), old, NOW).unwrap();
        table.offer(first, new).unwrap();
        table.withdraw(first, old);
        let second = table.dial(node(2), old, NOW).unwrap();
        assert_ne!(first, second);
        assert_eq!(table.owner(&old), Some(second));
        assert_eq!(table.path(first), Some(new));
    }

    #[test]
    fn the_number_of_ways_is_bounded() {
        let mut table = PathTable::default();
        let id = table.dial(node(1), direct("192.0.2.1:1"), NOW).unwrap();
        for port in 2..=PATHS_MAX {
            table.offer(id, direct(&format!("192.0.2.1:{port}"))).unwrap();
        }
        assert_eq!(table.offer(id, direct("192.0.2.2:1")), Err(TableFull));
    }

    #[test]
    fn one_super_node_cannot_fill_the_table() {
        let mut table = PathTable::default();
        for token in 0..REMOTES_PER_VIA_MAX as u64 {
            table.dial(node(1), relay("192.0.2.9:5", token), NOW).unwrap();
        }
        let one_more = relay("192.0.2.9:5", u64::MAX);
        assert_eq!(table.dial(node(1), one_more, NOW), Err(TableFull));
        table.dial(node(1), relay("192.0.2.8:5", 1), NOW).unwrap();
        // What has expired makes room again.
        let later = NOW + Duration::from_secs(60);
        table.expire(later, Duration::from_secs(30));
        table.dial(node(1), one_more, later).unwrap();
    }

    #[test]
    fn what_is_not_used_is_forgotten() {
        let mut table = PathTable::default();
        let (idle, busy) = (direct("192.0.2.1:5"), direct("192.0.2.2:5"));
        table.dial(node(1), idle, NOW).unwrap();
        let kept = table.dial(node(2), busy, NOW).unwrap();
        let later = NOW + Duration::from_secs(40);
        table.route(kept, later);
        assert_eq!(table.expire(later, Duration::from_secs(30)), 1);
        assert_eq!(table.owner(&idle), None);
        assert_eq!(table.owner(&busy), Some(kept));
        assert_eq!(table.len(), 1);
    }
}
