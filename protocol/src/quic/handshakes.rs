//! The handshakes that others have begun and not finished: how many, whose, and what became of them.
//!
//! | all places taken, and | then |
//! | --- | --- |
//! | some origin has clearly more than the newcomer's | that origin's oldest gives way |
//! | else the oldest of all has had its [patience](super::EndpointConfig::handshake_patience) | it gives way |
//! | else | the newcomer is refused |
//!
//! A handshake takes a round trip or two; one that hangs is somebody's who wants the place and not
//! the connection.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::error::ConnectError;
use crate::id::NodeId;
use crate::shares::{Origin, Shares};

/// Whose handshake it is, as far as can be known before it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Claimant {
    /// Somebody at an address.
    At(Origin),
    /// A node that a super node announced.
    Announced(NodeId),
}

impl Claimant {
    /// By what is known of a newcomer.
    pub(crate) fn of(announced: Option<NodeId>, address: SocketAddr) -> Self {
        announced.map_or_else(|| Self::At(Origin::of(address.ip())), Self::Announced)
    }
}

/// What became of the handshakes that others began, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HandshakeStats {
    /// Begun: a place was given.
    pub begun: u64,
    /// Done: the peer's key is proven.
    pub completed: u64,
    /// Failed: a wrong or missing key, another protocol, garbage, or given up by the peer.
    pub failed: u64,
    /// Not done in time.
    pub timed_out: u64,
    /// Relayed, and not the node that the super node had announced.
    pub not_as_announced: u64,
    /// Ended for somebody who had fewer, or because it hung while all places were taken.
    pub displaced: u64,
    /// Turned away: all places were taken.
    pub refused: u64,
    /// Sent back to prove their address first.
    pub asked_to_prove: u64,
}

#[derive(Debug, Default)]
struct Counters {
    begun: AtomicU64,
    completed: AtomicU64,
    failed: AtomicU64,
    timed_out: AtomicU64,
    not_as_announced: AtomicU64,
    displaced: AtomicU64,
    refused: AtomicU64,
    asked_to_prove: AtomicU64,
}

/// All handshakes of an endpoint.
#[derive(Debug)]
pub(crate) struct Handshakes {
    places: usize,
    patience: Duration,
    running: Mutex<Running>,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Running {
    places: BTreeMap<u64, Taken>,
    shares: Shares<Claimant>,
    next: u64,
}

#[derive(Debug)]
struct Taken {
    claimant: Claimant,
    since: Instant,
    displaced: watch::Sender<bool>,
}

/// A place for one handshake, until it is dropped.
#[derive(Debug)]
pub(crate) struct HandshakeSlot {
    handshakes: Arc<Handshakes>,
    number: u64,
    displaced: watch::Receiver<bool>,
}

impl Handshakes {
    pub(crate) fn new(places: usize, patience: Duration) -> Arc<Self> {
        Arc::new(Self {
            places,
            patience,
            running: Mutex::default(),
            counters: Counters::default(),
        })
    }

    /// How many run.
    pub(crate) fn running(&self) -> usize {
        self.lock().places.len()
    }

    /// A place, or `None` if all are taken by others who need not give way.
    pub(crate) fn enter(self: &Arc<Self>, claimant: Claimant) -> Option<HandshakeSlot> {
        let now = Instant::now();
        let mut running = self.lock();
        if running.places.len() >= self.places {
            let Some(victim) = running.victim(claimant, now, self.patience) else {
                drop(running);
                count(&self.counters.refused);
                return None;
            };
            running.end(victim);
            count(&self.counters.displaced);
        }
        count(&self.counters.begun);
        let (displaced, receiver) = watch::channel(false);
        let number = running.next;
        running.next += 1;
        running.shares.take(claimant, number);
        let taken = Taken {
            claimant,
            since: now,
            displaced,
        };
        running.places.insert(number, taken);
        drop(running);
        Some(HandshakeSlot {
            handshakes: Arc::clone(self),
            number,
            displaced: receiver,
        })
    }

    /// A newcomer has to prove its address first.
    pub(crate) fn on_asked_to_prove(&self) {
        count(&self.counters.asked_to_prove);
    }

    pub(crate) fn stats(&self) -> HandshakeStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        HandshakeStats {
            begun: read(&self.counters.begun),
            completed: read(&self.counters.completed),
            failed: read(&self.counters.failed),
            timed_out: read(&self.counters.timed_out),
            not_as_announced: read(&self.counters.not_as_announced),
            displaced: read(&self.counters.displaced),
            refused: read(&self.counters.refused),
            asked_to_prove: read(&self.counters.asked_to_prove),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    fn victim(&self, newcomer: Claimant, now: Instant, patience: Duration) -> Option<u64> {
        if let Some(heaviest) = self.shares.heaviest_for(newcomer) {
            return self.shares.oldest_of(heaviest);
        }
        let (oldest, taken) = self.places.first_key_value()?;
        (now.saturating_duration_since(taken.since) >= patience).then_some(*oldest)
    }

    fn end(&mut self, number: u64) {
        if let Some(taken) = self.places.remove(&number) {
            self.shares.give_back(taken.claimant, number);
            taken.displaced.send_replace(true);
        }
    }
}

impl HandshakeSlot {
    /// Returns when somebody else gets the place.
    pub(crate) async fn displaced(&mut self) {
        if self.displaced.wait_for(|displaced| *displaced).await.is_err() {
            // Its sender only goes with the place, which was then said.
            std::future::pending::<()>().await;
        }
    }

    /// Counts how the handshake ended. A displaced one was counted when it was.
    pub(crate) fn ended<T>(&self, how: &Result<T, ConnectError>) {
        let counters = &self.handshakes.counters;
        count(match how {
            Ok(_) => &counters.completed,
            Err(ConnectError::TimedOut) => &counters.timed_out,
            Err(ConnectError::WrongPeer { .. }) => &counters.not_as_announced,
            Err(_) => &counters.failed,
        });
    }
}

impl Drop for HandshakeSlot {
    fn drop(&mut self) {
        let mut running = self.handshakes.lock();
        if let Some(taken) = running.places.remove(&self.number) {
            running.shares.give_back(taken.claimant, self.number);
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);

    fn node(byte: u8) -> Claimant {
        Claimant::Announced(NodeId::from_bytes([byte; 32]))
    }

    #[tokio::test]
    async fn a_flood_from_one_side_displaces_only_itself() {
        let handshakes = Handshakes::new(4, LONG);
        let mut flood: Vec<_> = (0..4).map(|_| handshakes.enter(node(1)).unwrap()).collect();
        assert!(handshakes.enter(node(1)).is_none());
        let honest = handshakes.enter(node(2)).unwrap();
        flood[0].displaced().await;
        let other = handshakes.enter(node(3)).unwrap();
        flood[1].displaced().await;
        assert!(
            handshakes.enter(node(2)).is_none(),
            "two each would only change places"
        );
        drop((honest, other, flood));
        assert_eq!(handshakes.running(), 0);
        let stats = handshakes.stats();
        assert_eq!((stats.begun, stats.displaced, stats.refused), (6, 2, 2));
    }

    #[tokio::test]
    async fn what_hangs_gives_way_when_there_is_no_room() {
        let handshakes = Handshakes::new(2, Duration::ZERO);
        let mut first = handshakes.enter(node(1)).unwrap();
        let _second = handshakes.enter(node(2)).unwrap();
        let _third = handshakes.enter(node(3)).unwrap();
        first.displaced().await;
        assert_eq!(handshakes.stats().displaced, 1);
    }
}
