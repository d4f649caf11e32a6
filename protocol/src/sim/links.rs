//! Links between super nodes: dialled, up, broken, noticed to be down; and what goes over them.

use std::sync::Arc;

use super::network::Micros;
use super::world::{Event, World};
use crate::federation::record::VerifiedRecord;
use crate::hub::Inbound;
use crate::id::NodeId;
use crate::wire::federation::{PeerMessage, SignedRecord};

/// How long a dial to nobody takes.
pub(super) const DIAL_TIMEOUT: Micros = 5_000_000;
/// QUIC's idle timeout: after it one side knows that the other is gone.
pub(super) const IDLE_TIMEOUT: Micros = 15_000_000;

/// A link between two super nodes: its epoch, and whether each side still takes it for up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    pub(super) epoch: u64,
    /// Nothing gets through any more, though not everybody knows.
    pub(super) broken: bool,
    /// The side with the smaller number, and the other.
    pub(super) seen_by: [bool; 2],
}

impl World<'_> {
    pub(super) fn dial(&mut self, number: usize, node: NodeId) {
        let Some(&other) = self.super_numbers.get(&node) else {
            return;
        };
        let life = self.supers[number].life;
        if self.supers[other].up && self.network.is_open_both_ways(number, other) {
            let delay = 3 * self.network.latency(number, other);
            let dialler = number;
            self.after(delay, Event::LinkUp { dialler, other });
        } else {
            self.after(DIAL_TIMEOUT, Event::NotReached(number, node, life));
        }
    }

    pub(super) fn on_link_up(&mut self, dialler: usize, other: usize) {
        let key = (dialler.min(other), dialler.max(other));
        let up = self.supers[dialler].up && self.supers[other].up;
        let open = up && self.network.is_open_both_ways(dialler, other);
        let exists = self.links.get(&key).is_some_and(|link| !link.broken);
        let life = self.supers[dialler].life;
        if !open {
            let node = self.supers[other].node;
            return self.after(DIAL_TIMEOUT, Event::NotReached(dialler, node, life));
        }
        if exists {
            return;
        }
        if let Some(old) = self.links.get(&key).copied() {
            for (side, at, peer) in [(0, key.0, key.1), (1, key.1, key.0)] {
                if old.seen_by[side] {
                    self.link_down(at, peer);
                }
            }
        }
        self.epochs += 1;
        let link = Link {
            epoch: self.epochs,
            broken: false,
            seen_by: [true, true],
        };
        self.links.insert(key, link);
        let now_ms = self.now_ms();
        for (at, peer) in [(dialler, other), (other, dialler)] {
            let (record, own) = (
                self.supers[peer].record(),
                self.supers[peer].hub.federation().own(),
            );
            self.supers[at].hub.on_link_up(now_ms, record, own);
        }
        self.drain(dialler);
        self.drain(other);
    }

    pub(super) fn send_peer(&mut self, from: usize, node: NodeId, message: Arc<PeerMessage>) {
        let Some(&to) = self.super_numbers.get(&node) else {
            return;
        };
        let Some(link) = self.links.get(&(from.min(to), from.max(to))).copied() else {
            return;
        };
        self.measured.count(&message);
        if link.broken {
            return;
        }
        if !self.network.is_open_both_ways(from, to) || !self.supers[to].up {
            return self.break_link(from, to);
        }
        let epoch = link.epoch;
        if self.network.is_doubled() {
            self.deliver(from, to, epoch, Arc::clone(&message));
        }
        self.deliver(from, to, epoch, message);
    }

    fn deliver(&mut self, from: usize, to: usize, epoch: u64, message: Arc<PeerMessage>) {
        let arrival = self.network.arrival(self.now, from, to);
        let event = Event::Peer {
            from,
            to,
            epoch,
            message,
        };
        self.at(arrival, event);
    }

    /// Nothing gets through a link any more. Each side finds out by itself.
    pub(super) fn break_link(&mut self, a: usize, b: usize) {
        if let Some(link) = self.links.get_mut(&(a.min(b), a.max(b)))
            && !link.broken
        {
            link.broken = true;
            let epoch = link.epoch;
            self.after(
                IDLE_TIMEOUT,
                Event::LinkDown {
                    at: a,
                    peer: b,
                    epoch,
                },
            );
            self.after(
                IDLE_TIMEOUT,
                Event::LinkDown {
                    at: b,
                    peer: a,
                    epoch,
                },
            );
        }
    }

    pub(super) fn on_link_down(&mut self, at: usize, peer: usize, epoch: u64) {
        let link = self.links.get(&(at.min(peer), at.max(peer)));
        if link.is_some_and(|link| link.epoch == epoch) {
            self.notice(at, peer);
        }
    }

    /// A side of a link finds out that it is down.
    pub(super) fn notice(&mut self, at: usize, peer: usize) {
        let side = usize::from(at > peer);
        let link = self.links.get_mut(&(at.min(peer), at.max(peer)));
        if let Some(link) = link
            && std::mem::replace(&mut link.seen_by[side], false)
        {
            self.link_down(at, peer);
        }
    }

    fn link_down(&mut self, at: usize, peer: usize) {
        let (now_ms, node) = (self.now_ms(), self.supers[peer].node);
        let hub = &mut self.supers[at].hub;
        hub.with_peers(|federation| federation.on_link_down(now_ms, node));
        hub.with_peers(|federation| federation.on_not_reached(now_ms, node));
        self.drain(at);
    }

    pub(super) fn on_peer(&mut self, from: usize, to: usize, epoch: u64, message: Arc<PeerMessage>) {
        let link = self.links.get(&(from.min(to), from.max(to)));
        if !link.is_some_and(|link| link.epoch == epoch && !link.broken) || !self.supers[to].up {
            return;
        }
        let (now_ms, node) = (self.now_ms(), self.supers[from].node);
        let message = Arc::unwrap_or_clone(message);
        match self.supers[to].hub.on_message(now_ms, node, message) {
            Inbound::Nothing => {}
            Inbound::Records(records) => {
                for record in records {
                    let record = self.verified(&record);
                    self.supers[to].hub.on_record(now_ms, Some(node), record);
                }
            }
            Inbound::Change(change) => {
                let (manifest, head) = self.manifests[&change.manifest.hash()].clone();
                self.store(to, change.at, &manifest, &head);
            }
        }
        self.drain(to);
    }

    /// A super node's record, which is verified once for all others.
    pub(super) fn verified(&mut self, signed: &SignedRecord) -> VerifiedRecord {
        let verify = || VerifiedRecord::verify(signed.clone()).expect("simulated super nodes sign");
        self.records
            .entry(signed.bytes.clone())
            .or_insert_with(verify)
            .clone()
    }
}
