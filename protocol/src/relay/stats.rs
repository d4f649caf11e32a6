//! What a relay has done, in numbers that only grow.

/// Why a packet was not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RelayDrop {
    /// No leg has this token: the session ended, or somebody guesses.
    UnknownToken,
    /// The packet came from another address than the leg's node has: somebody spoofs, or the
    /// node's address changed and its connection has not moved yet.
    WrongSource,
    /// The sender is over its rate.
    RateLimited,
    /// Larger than the relay passes on.
    TooLarge,
    /// Neither QUIC nor a relayed packet of a known version.
    Malformed,
    /// The socket's send buffer was full.
    SendBlocked,
    /// The network would not take it: larger than the next link carries, or no route.
    SendFailed,
}

/// Counters since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RelayStats {
    /// Packets passed on.
    pub forwarded_packets: u64,
    /// Their bytes, headers included.
    pub forwarded_bytes: u64,
    /// Packets with a token of no session.
    pub dropped_unknown_token: u64,
    /// Packets from an address that is not the leg's.
    pub dropped_wrong_source: u64,
    /// Packets over their sender's rate.
    pub dropped_rate_limited: u64,
    /// Packets over the size limit.
    pub dropped_too_large: u64,
    /// Datagrams that are neither QUIC nor relayed packets.
    pub dropped_malformed: u64,
    /// Packets for which the socket had no room.
    pub dropped_send_blocked: u64,
    /// Packets that the network would not take.
    pub dropped_send_failed: u64,
    /// Sessions opened.
    pub sessions_opened: u64,
    /// Sessions asked for and refused.
    pub sessions_refused: u64,
    /// Sessions ended to make room for somebody from elsewhere who had fewer.
    pub sessions_displaced: u64,
    /// Sessions ended by idleness or age.
    pub sessions_expired: u64,
    /// Sessions ended because a node's connection ended, or its peer would not take part.
    pub sessions_closed: u64,
    /// Sessions alive now.
    pub sessions_live: u64,
}

impl RelayStats {
    pub(crate) fn count_drop(&mut self, reason: RelayDrop, packets: u64) {
        let counter = match reason {
            RelayDrop::UnknownToken => &mut self.dropped_unknown_token,
            RelayDrop::WrongSource => &mut self.dropped_wrong_source,
            RelayDrop::RateLimited => &mut self.dropped_rate_limited,
            RelayDrop::TooLarge => &mut self.dropped_too_large,
            RelayDrop::Malformed => &mut self.dropped_malformed,
            RelayDrop::SendBlocked => &mut self.dropped_send_blocked,
            RelayDrop::SendFailed => &mut self.dropped_send_failed,
        };
        *counter += packets;
    }
}
