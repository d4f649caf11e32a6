//! What a relay gives at most, to all and to each.

use std::time::Duration;

/// Bounds of a relay. The defaults suit a small public server; every one may be set by its operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayLimits {
    /// Sessions at one time. A session costs about 600 bytes, so the default costs 10 MiB.
    pub sessions: usize,
    /// Sessions that one node has asked for. A caller needs one for each host that it talks to;
    /// 64 is many more hosts than a function has replicas.
    pub sessions_per_caller: usize,
    /// Sessions that lead to one node. A host that serves thousands of callers needs one each;
    /// the default leaves room for four such hosts.
    pub sessions_per_target: usize,
    /// Bytes per second that one node may send, over all its sessions, headers included. The
    /// default is a gigabit: no home line sends more, and one node cannot fill a server's ten.
    pub bytes_per_s: u64,
    /// Bytes that one node may send at once above its rate: two full receive windows of the
    /// largest default input.
    pub burst_bytes: u64,
    /// A session without a packet for this long ends. Twice the idle timeout of QUIC: no
    /// connection can be alive in it any more.
    pub idle: Duration,
    /// A session ends at this age, however busy, so that no state is kept for ever by a peer's
    /// wish alone. Its nodes open another one, at the price of two round trips.
    pub lifetime: Duration,
    /// Bytes of the largest datagram that is passed on, header included. Above what a node sends
    /// (1,452): larger ones would only be cut up or refused by the next link.
    pub datagram_bytes: usize,
}

impl Default for RelayLimits {
    fn default() -> Self {
        Self {
            sessions: 16_384,
            sessions_per_caller: 64,
            sessions_per_target: 4_096,
            bytes_per_s: 125_000_000,
            burst_bytes: 16 << 20,
            idle: Duration::from_secs(30),
            lifetime: Duration::from_secs(6 * 60 * 60),
            datagram_bytes: 1_472,
        }
    }
}
