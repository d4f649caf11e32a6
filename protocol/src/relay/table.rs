//! Who may send to whom through the relay: links, sessions and their bounds.
//!
//! | event | effect |
//! | --- | --- |
//! | [`link_up`](RelayTable::link_up) | a node's authenticated connection is live; it may open sessions and be their target |
//! | [`open`](RelayTable::open) | a session between a caller's link and the newest link of the target, or a refusal |
//! | [`forward`](RelayTable::forward) | a packet goes to the other leg, or is dropped for a counted reason |
//! | [`link_moved`](RelayTable::link_moved) | the connection migrated: from now on this is the leg's address |
//! | [`link_down`](RelayTable::link_down) | the connection ended, and with it every session of the link |
//! | [`expire`](RelayTable::expire) | idle and old sessions end |
//!
//! A node may have several links, when several programs use one key: each has its own address and
//! its own sessions. Rates and numbers are counted per node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::{RelayDrop, RelayLimits, RelayStats, RelayToken, TokenBucket};
use crate::fault::{Fault, FaultKind};
use crate::id::NodeId;
use crate::shares::{Origin, Shares};

/// One live connection of a node to the super node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(u64);

/// One session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(u64);

/// The two tokens of a new session. Draw them from a cryptographic random source.
#[derive(Debug, Clone, Copy)]
pub struct SessionTokens {
    /// What the caller puts before its packets, and finds before the target's.
    pub caller: RelayToken,
    /// The same for the target.
    pub target: RelayToken,
}

/// A session that was opened: the target has to be told, or the session closed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// The new session.
    pub session: SessionId,
    /// The target's connection.
    pub target: LinkId,
}

/// Datagrams that came together: same source, same token, all of one size except the last.
#[derive(Debug, Clone, Copy)]
pub struct RelayBatch {
    /// Where they came from.
    pub from: SocketAddr,
    /// The token that they carry.
    pub token: RelayToken,
    /// How many.
    pub datagrams: usize,
    /// Bytes of the largest, header included.
    pub datagram_bytes: usize,
}

/// Where a batch goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// The other leg's address.
    pub to: SocketAddr,
    /// The address of this server that the other leg's node talks to, where it is known.
    pub src_ip: Option<IpAddr>,
    /// The token to put in.
    pub token: RelayToken,
    /// How many of the batch, from its start; the rest is over the sender's rate.
    pub datagrams: usize,
}

/// Why a session was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum RelayRefusal {
    /// The asking node has no live connection.
    #[error("the asking node has no live connection to this super node")]
    CallerNotConnected,
    /// The target has no live connection here.
    #[error("the target node is not connected to this super node")]
    TargetNotConnected,
    /// A node asked for a session with itself.
    #[error("a node cannot be relayed to itself")]
    SelfTarget,
    /// The relay is full.
    #[error("this super node relays as many sessions as it may; try another or try later")]
    Full,
    /// The asking node has too many sessions.
    #[error("the asking node has as many relay sessions as it may; close some first")]
    CallerOverLimit,
    /// Too many sessions lead to the target.
    #[error("as many relay sessions as allowed lead to the target node; try another host")]
    TargetOverLimit,
    /// The target did not take part.
    #[error("the target node did not accept the relay session in time")]
    TargetSilent,
    /// A token is in use already: draw others.
    #[error("the session's tokens are taken")]
    TokensTaken,
}

impl From<RelayRefusal> for Fault {
    fn from(refusal: RelayRefusal) -> Self {
        let kind = match refusal {
            RelayRefusal::TargetNotConnected | RelayRefusal::TargetSilent => FaultKind::NoLiveHost,
            RelayRefusal::CallerNotConnected | RelayRefusal::SelfTarget => FaultKind::Refused,
            RelayRefusal::Full | RelayRefusal::CallerOverLimit | RelayRefusal::TargetOverLimit => {
                FaultKind::Overloaded
            }
            RelayRefusal::TokensTaken => FaultKind::Internal,
        };
        Self::new(kind, refusal.to_string())
    }
}

/// The state of a relay.
#[derive(Debug)]
pub struct RelayTable {
    limits: RelayLimits,
    links: BTreeMap<LinkId, Link>,
    nodes: BTreeMap<NodeId, Node>,
    sessions: BTreeMap<SessionId, Session>,
    legs: BTreeMap<RelayToken, Leg>,
    /// Sessions by where their caller comes from.
    shares: Shares<Origin>,
    next_id: u64,
    stats: RelayStats,
}

#[derive(Debug)]
struct Link {
    node: NodeId,
    addr: SocketAddr,
    src_ip: Option<IpAddr>,
    sessions: BTreeSet<SessionId>,
}

#[derive(Debug)]
struct Node {
    /// Oldest first.
    links: Vec<LinkId>,
    calls_out: usize,
    calls_in: usize,
    /// The sessions that lead to it, by where their caller comes from.
    shares: Shares<Origin>,
    bucket: TokenBucket,
}

#[derive(Debug)]
struct Session {
    tokens: SessionTokens,
    caller: LinkId,
    target: LinkId,
    /// Where the caller was when it opened the session.
    origin: Origin,
    opened_at: Duration,
    used_at: Duration,
}

/// One direction of a session, by the token of its sender.
#[derive(Debug, Clone, Copy)]
struct Leg {
    session: SessionId,
    from: LinkId,
    to: LinkId,
    to_token: RelayToken,
}

impl RelayTable {
    /// An empty table.
    pub fn new(limits: RelayLimits) -> Self {
        Self {
            limits,
            links: BTreeMap::new(),
            nodes: BTreeMap::new(),
            sessions: BTreeMap::new(),
            legs: BTreeMap::new(),
            shares: Shares::default(),
            next_id: 0,
            stats: RelayStats::default(),
        }
    }

    /// The bounds in force.
    pub fn limits(&self) -> &RelayLimits {
        &self.limits
    }

    /// The counters, with the number of live sessions filled in.
    pub fn stats(&self) -> RelayStats {
        RelayStats {
            sessions_live: self.sessions.len() as u64,
            ..self.stats
        }
    }

    /// Whether any session exists: where none does, no packet need be looked at.
    pub fn is_idle(&self) -> bool {
        self.sessions.is_empty()
    }

    /// A node's authenticated connection is live at `addr`. `src_ip` is this server's address that
    /// the node talks to, where it is known.
    pub fn link_up(
        &mut self,
        node: NodeId,
        addr: SocketAddr,
        src_ip: Option<IpAddr>,
        now: Duration,
    ) -> LinkId {
        let id = LinkId(self.take_id());
        let limits = &self.limits;
        let state = self.nodes.entry(node).or_insert_with(|| Node {
            links: Vec::new(),
            calls_out: 0,
            calls_in: 0,
            shares: Shares::default(),
            bucket: TokenBucket::new(limits.bytes_per_s, limits.burst_bytes, now),
        });
        state.links.push(id);
        let link = Link {
            node,
            addr,
            src_ip,
            sessions: BTreeSet::new(),
        };
        self.links.insert(id, link);
        id
    }

    /// The link's connection now comes from `addr`.
    pub fn link_moved(&mut self, link: LinkId, addr: SocketAddr) {
        if let Some(link) = self.links.get_mut(&link) {
            link.addr = addr;
        }
    }

    /// The link's connection ended: so do its sessions.
    pub fn link_down(&mut self, link: LinkId) {
        let Some(state) = self.links.get(&link) else {
            return;
        };
        let node = state.node;
        for session in state.sessions.clone() {
            self.close(session);
        }
        self.links.remove(&link);
        if let Some(state) = self.nodes.get_mut(&node) {
            state.links.retain(|l| *l != link);
            if state.links.is_empty() {
                self.nodes.remove(&node);
            }
        }
    }

    /// Links that have sessions: those whose address has to be watched.
    pub fn busy_links(&self) -> impl Iterator<Item = LinkId> + '_ {
        let busy = self.links.iter().filter(|(_, l)| !l.sessions.is_empty());
        busy.map(|(id, _)| *id)
    }

    /// Opens a session between a caller's link and the newest link of `target`. Where there is no
    /// room, the newest session of the origin that has most of them ends, if that is not the
    /// caller's own: a flood from one side displaces itself.
    ///
    /// # Errors
    ///
    /// The reason for which it is refused; nothing has changed then, except the count.
    pub fn open(
        &mut self,
        caller: LinkId,
        target: NodeId,
        tokens: SessionTokens,
        now: Duration,
    ) -> Result<Opened, RelayRefusal> {
        self.make_room(caller, target);
        match self.check_open(caller, target, tokens) {
            Ok(target) => Ok(self.insert(caller, target, tokens, now)),
            Err(refusal) => {
                self.stats.sessions_refused += 1;
                Err(refusal)
            }
        }
    }

    /// Ends a session, because its target would not take part.
    pub fn abandon(&mut self, session: SessionId) {
        if self.remove(session) {
            self.stats.sessions_refused += 1;
        }
    }

    /// Decides about a batch of packets, and counts it.
    ///
    /// # Errors
    ///
    /// Why all of it is dropped. With [`RelayDrop::WrongSource`] the address of the leg's link
    /// ([`link_of`](Self::link_of)) should be asked for again: it may have moved.
    pub fn forward(&mut self, batch: RelayBatch, now: Duration) -> Result<Forward, RelayDrop> {
        let result = self.check_forward(batch, now);
        match result {
            Ok(forward) => {
                let over = batch.datagrams - forward.datagrams;
                self.stats.count_drop(RelayDrop::RateLimited, over as u64);
            }
            Err(reason) => self.stats.count_drop(reason, batch.datagrams as u64),
        }
        result
    }

    /// Counts what was sent after [`forward`](Self::forward) had allowed it.
    pub fn on_sent(&mut self, packets: usize, bytes: usize) {
        self.stats.forwarded_packets += packets as u64;
        self.stats.forwarded_bytes += bytes as u64;
    }

    /// Counts packets that were dropped outside this table.
    pub fn on_dropped(&mut self, reason: RelayDrop, packets: usize) {
        self.stats.count_drop(reason, packets as u64);
    }

    /// The link that sends with this token.
    pub fn link_of(&self, token: RelayToken) -> Option<LinkId> {
        self.legs.get(&token).map(|leg| leg.from)
    }

    /// Ends the sessions that are idle or old, and says how many.
    pub fn expire(&mut self, now: Duration) -> usize {
        let RelayLimits { idle, lifetime, .. } = self.limits;
        let over = |s: &Session| {
            now.saturating_sub(s.used_at) >= idle || now.saturating_sub(s.opened_at) >= lifetime
        };
        let ended: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, s)| over(s))
            .map(|(id, _)| *id)
            .collect();
        for session in &ended {
            self.remove(*session);
        }
        self.stats.sessions_expired += ended.len() as u64;
        ended.len()
    }

    fn check_open(
        &self,
        caller: LinkId,
        target: NodeId,
        tokens: SessionTokens,
    ) -> Result<LinkId, RelayRefusal> {
        let link = self.links.get(&caller).ok_or(RelayRefusal::CallerNotConnected)?;
        if link.node == target {
            return Err(RelayRefusal::SelfTarget);
        }
        let node = self.nodes.get(&target).ok_or(RelayRefusal::TargetNotConnected)?;
        let newest = node.links.last().ok_or(RelayRefusal::TargetNotConnected)?;
        let calls_out = self.nodes.get(&link.node).map_or(0, |n| n.calls_out);
        if self.sessions.len() >= self.limits.sessions {
            Err(RelayRefusal::Full)
        } else if calls_out >= self.limits.sessions_per_caller {
            Err(RelayRefusal::CallerOverLimit)
        } else if node.calls_in >= self.limits.sessions_per_target {
            Err(RelayRefusal::TargetOverLimit)
        } else if self.tokens_taken(tokens) {
            Err(RelayRefusal::TokensTaken)
        } else {
            Ok(*newest)
        }
    }

    /// Ends one session of the origin that has most, where the bounds in all or of the target are met.
    fn make_room(&mut self, caller: LinkId, target: NodeId) {
        let Some(link) = self.links.get(&caller) else {
            return;
        };
        let (origin, from) = (Origin::of(link.addr.ip()), link.node);
        let calls_out = self.nodes.get(&from).map_or(0, |node| node.calls_out);
        let Some(node) = self.nodes.get(&target) else {
            return;
        };
        if calls_out >= self.limits.sessions_per_caller || from == target {
            // It is refused whatever happens to others.
            return;
        }
        let crowded = if node.calls_in >= self.limits.sessions_per_target {
            &node.shares
        } else if self.sessions.len() >= self.limits.sessions {
            &self.shares
        } else {
            return;
        };
        let newest = crowded
            .heaviest_for(origin)
            .and_then(|heaviest| crowded.newest_of(heaviest));
        if newest.is_some_and(|newest| self.remove(SessionId(newest))) {
            self.stats.sessions_displaced += 1;
        }
    }

    fn tokens_taken(&self, tokens: SessionTokens) -> bool {
        tokens.caller == tokens.target
            || self.legs.contains_key(&tokens.caller)
            || self.legs.contains_key(&tokens.target)
    }

    fn insert(&mut self, caller: LinkId, target: LinkId, tokens: SessionTokens, now: Duration) -> Opened {
        let session = SessionId(self.take_id());
        let leg = |from, to, to_token| Leg {
            session,
            from,
            to,
            to_token,
        };
        self.legs
            .insert(tokens.caller, leg(caller, target, tokens.target));
        self.legs
            .insert(tokens.target, leg(target, caller, tokens.caller));
        for link in [caller, target] {
            if let Some(link) = self.links.get_mut(&link) {
                link.sessions.insert(session);
            }
        }
        self.count_calls(caller, target, |calls| calls + 1);
        // The caller is live: its open was checked.
        let at = self
            .links
            .get(&caller)
            .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |link| link.addr.ip());
        let origin = Origin::of(at);
        self.shares.take(origin, session.0);
        if let Some(node) = self.node_of(target) {
            node.shares.take(origin, session.0);
        }
        let state = Session {
            tokens,
            caller,
            target,
            origin,
            opened_at: now,
            used_at: now,
        };
        self.sessions.insert(session, state);
        self.stats.sessions_opened += 1;
        Opened { session, target }
    }

    fn check_forward(&mut self, batch: RelayBatch, now: Duration) -> Result<Forward, RelayDrop> {
        let leg = *self.legs.get(&batch.token).ok_or(RelayDrop::UnknownToken)?;
        let from = self.links.get(&leg.from).ok_or(RelayDrop::UnknownToken)?;
        let to = self.links.get(&leg.to).ok_or(RelayDrop::UnknownToken)?;
        if from.addr != batch.from {
            return Err(RelayDrop::WrongSource);
        }
        if batch.datagram_bytes > self.limits.datagram_bytes {
            return Err(RelayDrop::TooLarge);
        }
        let sender = self.nodes.get_mut(&from.node).ok_or(RelayDrop::UnknownToken)?;
        let piece = batch.datagram_bytes as u64;
        let datagrams = sender.bucket.take_pieces(batch.datagrams, piece, now);
        if datagrams == 0 {
            return Err(RelayDrop::RateLimited);
        }
        if let Some(session) = self.sessions.get_mut(&leg.session) {
            session.used_at = now;
        }
        Ok(Forward {
            to: to.addr,
            src_ip: to.src_ip,
            token: leg.to_token,
            datagrams,
        })
    }

    fn close(&mut self, session: SessionId) -> bool {
        let closed = self.remove(session);
        if closed {
            self.stats.sessions_closed += 1;
        }
        closed
    }

    fn remove(&mut self, id: SessionId) -> bool {
        let Some(session) = self.sessions.remove(&id) else {
            return false;
        };
        self.legs.remove(&session.tokens.caller);
        self.legs.remove(&session.tokens.target);
        for link in [session.caller, session.target] {
            if let Some(link) = self.links.get_mut(&link) {
                link.sessions.remove(&id);
            }
        }
        self.count_calls(session.caller, session.target, |calls| calls.saturating_sub(1));
        self.shares.give_back(session.origin, id.0);
        if let Some(node) = self.node_of(session.target) {
            node.shares.give_back(session.origin, id.0);
        }
        true
    }

    fn count_calls(&mut self, caller: LinkId, target: LinkId, change: impl Fn(usize) -> usize) {
        if let Some(node) = self.node_of(caller) {
            node.calls_out = change(node.calls_out);
        }
        if let Some(node) = self.node_of(target) {
            node.calls_in = change(node.calls_in);
        }
    }

    fn node_of(&mut self, link: LinkId) -> Option<&mut Node> {
        let node = self.links.get(&link)?.node;
        self.nodes.get_mut(&node)
    }

    fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

#[cfg(test)]
mod tests;
