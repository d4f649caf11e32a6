//! Super nodes among themselves: who is there, who is linked to whom, and who has missed what.
//!
//! A state machine without I/O: the daemon tells it what happened and when (milliseconds of a monotonic
//! clock), and does what [`Federation::poll_effect`] hands out.
//!
//! Every super node knows all others ([`record`]) and keeps a link to each: a federation is small (a
//! thousand at most), and every function's directory may be anywhere in it. So a change goes straight to
//! everybody in one hop, and nobody has to pass it on. What a broken link or a stop made somebody miss
//! shows when clocks ([`clock`]) differ for a while; then it is pulled from whoever has it.
//!
//! | link | on | becomes |
//! | --- | --- | --- |
//! | (none) | a record, or its time to be dialled again | dialling: `Dial` |
//! | dialling | not reached | (none), tried again after a growing delay |
//! | any | link up | linked: members and clocks are compared |
//! | linked | link down, or silent for 6 s | absent |
//! | absent | link up | linked, as if nothing had been |
//! | absent | 4 s later | (none): its hosts and its directory share are others' |

pub mod clock;
pub mod reconcile;
pub mod record;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::id::NodeId;
use crate::wire::extension::Extensions;
use crate::wire::federation::{
    Cursor, LogId, MEMBERS_PAGE_MAX, Members, PEER_BEAT_INTERVAL_MS, PeerBeat, PeerMessage, RegistryChange,
    SignedRecord,
};
use clock::Clock;
use record::VerifiedRecord;

/// The most super nodes that one keeps in mind, itself not counted; a link costs about 35 KiB.
pub const MEMBERS_MAX: usize = 1_000;
/// The first delay before a super node that was not reached is dialled again, in milliseconds; it doubles
/// up to [`DIAL_MAX_MS`].
pub const DIAL_MIN_MS: u64 = 1_000;
/// The longest delay, in milliseconds: after a partition everybody is linked again within it.
pub const DIAL_MAX_MS: u64 = 15_000;
/// A link on which nothing was heard for so long is closed, in milliseconds: three beats.
pub const SILENT_AFTER_MS: u64 = 3 * PEER_BEAT_INTERVAL_MS;
/// How long a link may be down before others take the super node's place, in milliseconds. A restart takes
/// less; together with [`SILENT_AFTER_MS`] it is about as long as a host may be silent before it is lost.
pub const ABSENT_MAX_MS: u64 = 4_000;
/// Beats in a row that show another clock, before what is missing is pulled: changes that are on their
/// way need no help.
pub const BEATS_DIFFERENT_MAX: u32 = 3;
/// Changes in a log of which nothing is known, from which on it is not replayed but compared.
pub const RECONCILED_MIN: u64 = 256;
/// How long one pull may take before another one is begun, in milliseconds.
pub const PULL_MAX_MS: u64 = 60_000;

/// What the daemon has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Open a link to a super node at one of its addresses; then [`Federation::on_link_up`] or
    /// [`Federation::on_not_reached`].
    Dial(NodeId, Vec<String>),
    /// Send this on a link. What goes to everybody is kept once.
    Send(NodeId, Arc<PeerMessage>),
    /// Fetch from a super node what is not known here; then [`Federation::on_pulled`].
    Pull(NodeId),
    /// Close a link, and say why.
    Close(NodeId, &'static str),
    /// A super node that was not there is linked.
    Joined(NodeId),
    /// A super node is gone for good, or for longer than it may be.
    Left(NodeId),
    /// Keep a record across restarts.
    Keep(SignedRecord),
}

#[derive(Debug)]
struct Member {
    record: VerifiedRecord,
    /// Dialled next; `None` while it is being dialled, or linked.
    dial_at_ms: Option<u64>,
    failures: u32,
}

#[derive(Debug)]
struct Link {
    heard_ms: u64,
    /// Since when it is down.
    absent_since_ms: Option<u64>,
    own: Cursor,
    beats_different: u32,
    /// A beat has shown this node's clock since the link is up.
    settled: bool,
}

/// See the module's text.
#[derive(Debug)]
pub struct Federation {
    record: VerifiedRecord,
    log: LogId,
    clock: Clock,
    members: BTreeMap<NodeId, Member>,
    links: BTreeMap<NodeId, Link>,
    /// From whom, and since when.
    pulling: Option<(NodeId, u64)>,
    beat_at_ms: u64,
    effects: VecDeque<Effect>,
}

impl Federation {
    /// A super node with this record, whose own changes go into `log`, and which knows so much.
    pub fn new(record: VerifiedRecord, log: LogId, clock: Clock) -> Self {
        Self {
            record,
            log,
            clock,
            members: BTreeMap::new(),
            links: BTreeMap::new(),
            pulling: None,
            beat_at_ms: 0,
            effects: VecDeque::new(),
        }
    }

    /// The next thing to do. Drain it after every `on_*`.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    // -- members -----------------------------------------------------------------------------------

    /// A record came, from `from` or out of what was kept.
    pub fn on_record(&mut self, now_ms: u64, from: Option<NodeId>, record: VerifiedRecord) {
        let node = record.node();
        let known = self.members.get_mut(&node);
        let is_news = match &known {
            Some(member) => record.record().number > member.record.record().number,
            None => self.members.len() < MEMBERS_MAX,
        };
        if node == self.node() || !is_news {
            return;
        }
        self.effects.push_back(Effect::Keep(record.signed().clone()));
        let signed = record.signed().clone();
        let linked = self.links.contains_key(&node);
        match self.members.get_mut(&node) {
            Some(member) => member.record = record,
            None => {
                // Both hear of each other at the same time: one dials first.
                let turn = if self.record.node() < node { 0 } else { DIAL_MIN_MS };
                let dial_at_ms = (!linked).then_some(now_ms + turn);
                let member = Member {
                    record,
                    dial_at_ms,
                    failures: 0,
                };
                self.members.insert(node, member);
            }
        }
        // Who hears it from the super node itself tells all others; they need not tell each other.
        if from == Some(node) {
            self.send_records(|other| other != node, &[signed]);
        }
    }

    /// A super node could not be reached.
    pub fn on_not_reached(&mut self, now_ms: u64, node: NodeId) {
        if let Some(member) = self.members.get_mut(&node) {
            let delay = DIAL_MIN_MS
                .saturating_mul(1 << member.failures.min(16))
                .min(DIAL_MAX_MS);
            member.failures += 1;
            member.dial_at_ms = Some(now_ms + delay);
        }
    }

    // -- links -------------------------------------------------------------------------------------

    /// A link is up, and this is what the other side said of itself.
    pub fn on_link_up(&mut self, now_ms: u64, record: VerifiedRecord, own: Cursor) {
        let node = record.node();
        if node == self.node() {
            return;
        }
        let link = Link {
            heard_ms: now_ms,
            absent_since_ms: None,
            own,
            beats_different: 0,
            settled: false,
        };
        let is_new = self.links.insert(node, link).is_none();
        self.on_record(now_ms, Some(node), record);
        if let Some(member) = self.members.get_mut(&node) {
            member.dial_at_ms = None;
            member.failures = 0;
        }
        if is_new {
            self.effects.push_back(Effect::Joined(node));
        }
        let known: Vec<SignedRecord> = self
            .members
            .iter()
            .filter(|(other, _)| **other != node)
            .map(|(_, member)| member.record.signed().clone())
            .collect();
        self.send_records(|other| other == node, &known);
        self.send_beat(node);
        if !self.clock.covers(own) && !self.is_news_to_others(&node) {
            self.pull(now_ms, node);
        }
    }

    /// A link is down.
    pub fn on_link_down(&mut self, now_ms: u64, node: NodeId) {
        if let Some(link) = self.links.get_mut(&node) {
            link.absent_since_ms.get_or_insert(now_ms);
        }
        if let Some(member) = self.members.get_mut(&node) {
            member.dial_at_ms.get_or_insert(now_ms + DIAL_MIN_MS);
        }
        if self.pulling.is_some_and(|(from, _)| from == node) {
            self.pulling = None;
        }
    }

    /// A heart-beat came. Returns whether it shows for the first time since the link is up that the other side
    /// knows what is known here.
    pub fn on_beat(&mut self, now_ms: u64, node: NodeId, beat: &PeerBeat) -> bool {
        let (sum, behind) = (self.clock.sum(), !self.clock.covers(beat.own));
        let Some(link) = self.links.get_mut(&node) else {
            return false;
        };
        link.heard_ms = now_ms;
        link.own = beat.own;
        let even = beat.known == sum;
        link.beats_different = if even { 0 } else { link.beats_different + 1 };
        let settles = even && !link.settled;
        link.settled |= even;
        let beats_different = link.beats_different;
        // One that lacks its own peer's changes waits less: nobody else is about to bring them.
        let patience = match behind && !self.is_news_to_others(&node) {
            true => 1,
            false => BEATS_DIFFERENT_MAX,
        };
        if beats_different > patience {
            self.pull(now_ms, node);
        }
        settles
    }

    /// Whether changes of this log may come on a link: its other side's own.
    pub fn is_own_log(&self, node: &NodeId, log: &LogId) -> bool {
        self.links.get(node).is_some_and(|link| link.own.log == *log)
    }

    // -- changes -----------------------------------------------------------------------------------

    /// An owner's revision was taken in here, durably, under the next number of this node's log: everybody
    /// is told.
    pub fn on_published(&mut self, change: &RegistryChange) {
        self.raise(change.at);
        let up: Vec<NodeId> = self.up().collect();
        self.send_all(&up, change.clone().into());
    }

    /// Another super node's change is durable here.
    pub fn on_stored(&mut self, at: Cursor) {
        if self.clock.is_next(at) {
            self.raise(at);
        }
    }

    /// A pull ended: with what is known now, or `None` if it failed.
    pub fn on_pulled(&mut self, node: NodeId, known: Option<&[Cursor]>) {
        if self.pulling.is_some_and(|(from, _)| from == node) {
            self.pulling = None;
        }
        for cursor in known.unwrap_or_default() {
            self.raise(*cursor);
        }
        if let Some(link) = self.links.get_mut(&node) {
            link.beats_different = 0;
        }
    }

    /// Time passed; call it about every second.
    pub fn on_tick(&mut self, now_ms: u64) {
        self.dial_due(now_ms);
        self.give_up_absent(now_ms);
        if now_ms >= self.beat_at_ms {
            self.beat_at_ms = now_ms + PEER_BEAT_INTERVAL_MS;
            let up: Vec<NodeId> = self.up().collect();
            up.into_iter().for_each(|node| self.send_beat(node));
        }
    }

    // -- to look at --------------------------------------------------------------------------------

    /// This node.
    pub fn node(&self) -> NodeId {
        self.record.node()
    }

    /// This node's record.
    pub fn record(&self) -> &VerifiedRecord {
        &self.record
    }

    /// How far this node's own log goes.
    pub fn own(&self) -> Cursor {
        Cursor {
            log: self.log,
            number: self.clock.get(&self.log),
        }
    }

    /// What is known of all logs.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Whether this node's clock does not tell what it lacks of what a super node knows: it knows nothing of that one's
    /// own log, or of anybody's but its own, and yet has functions that the other may have, too. So it is where
    /// federations meet, and where a database lost its clock.
    pub fn is_beyond_clock(&self, node: &NodeId) -> bool {
        let cursors = self.clock.cursors();
        let only_own = cursors.iter().all(|cursor| cursor.log == self.log);
        let own = self.links.get(node).map(|link| link.own);
        let is_news = own.is_some_and(|own| own.number >= RECONCILED_MIN && self.clock.get(&own.log) == 0);
        !cursors.is_empty() && (only_own || is_news)
    }

    /// Whether a super node's log is one that nothing is known of, while others' are. If that one lost its clock, it
    /// begins a new log and compares what it has with everybody at once. Who waits for that finds nothing left to fetch
    /// where two comparisons at a time would each bring all.
    fn is_news_to_others(&self, node: &NodeId) -> bool {
        let knows_others = self.clock.cursors().iter().any(|cursor| cursor.log != self.log);
        knows_others && self.is_beyond_clock(node)
    }

    /// Super nodes whose links are up.
    pub fn up(&self) -> impl Iterator<Item = NodeId> {
        let is_up = |link: &Link| link.absent_since_ms.is_none();
        self.links
            .iter()
            .filter(move |(_, link)| is_up(link))
            .map(|(node, _)| *node)
    }

    /// Whether a record is known already, byte for byte: then it need not be verified.
    pub fn is_known(&self, signed: &SignedRecord) -> bool {
        let known = record::node_of(signed).and_then(|node| self.members.get(&node));
        known.is_some_and(|member| member.record.signed() == signed)
    }

    /// Super nodes that count: linked, or away for a short time.
    pub fn present(&self) -> BTreeSet<NodeId> {
        self.links.keys().copied().collect()
    }

    /// The best address of a super node.
    pub fn address(&self, node: &NodeId) -> Option<&str> {
        let member = self.members.get(node)?;
        member.record.record().addresses.first().map(String::as_str)
    }

    // -- helpers -----------------------------------------------------------------------------------

    fn raise(&mut self, cursor: Cursor) {
        self.clock.raise(cursor);
    }

    fn pull(&mut self, now_ms: u64, node: NodeId) {
        let busy = self
            .pulling
            .is_some_and(|(_, since)| now_ms.saturating_sub(since) < PULL_MAX_MS);
        if !busy {
            self.pulling = Some((node, now_ms));
            self.effects.push_back(Effect::Pull(node));
        }
    }

    fn dial_due(&mut self, now_ms: u64) {
        for (&node, member) in &mut self.members {
            if member.dial_at_ms.is_some_and(|at| at <= now_ms) {
                member.dial_at_ms = None;
                let addresses = member.record.record().addresses.clone();
                self.effects.push_back(Effect::Dial(node, addresses));
            }
        }
    }

    fn give_up_absent(&mut self, now_ms: u64) {
        let mut gone = Vec::new();
        for (&node, link) in &self.links {
            match link.absent_since_ms {
                None if now_ms.saturating_sub(link.heard_ms) > SILENT_AFTER_MS => {
                    self.effects
                        .push_back(Effect::Close(node, "nothing was heard for too long"));
                }
                Some(since) if now_ms.saturating_sub(since) > ABSENT_MAX_MS => gone.push(node),
                _ => {}
            }
        }
        for node in gone {
            self.links.remove(&node);
            self.effects.push_back(Effect::Left(node));
        }
    }

    fn send(&mut self, node: NodeId, message: PeerMessage) {
        self.send_all(&[node], message);
    }

    fn send_all(&mut self, nodes: &[NodeId], message: PeerMessage) {
        let message = Arc::new(message);
        let each = nodes.iter().map(|node| Effect::Send(*node, Arc::clone(&message)));
        self.effects.extend(each);
    }

    fn send_beat(&mut self, node: NodeId) {
        let beat = PeerBeat {
            own: self.own(),
            known: self.clock.sum(),
            extensions: Extensions::none(),
        };
        self.send(node, beat.into());
    }

    fn send_records(&mut self, whom: impl Fn(NodeId) -> bool, records: &[SignedRecord]) {
        let receivers: Vec<NodeId> = self.up().filter(|node| whom(*node)).collect();
        for page in records.chunks(MEMBERS_PAGE_MAX) {
            let message = Members {
                records: page.to_vec(),
                extensions: Extensions::none(),
            };
            self.send_all(&receivers, message.into());
        }
    }
}

#[cfg(test)]
mod tests;
