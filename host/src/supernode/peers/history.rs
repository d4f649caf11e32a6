//! Revisions that this node missed: those after them name them, and other super nodes are asked for them.
//!
//! Functions whose new revision has a parent that is not here wait in a queue, and are seen to one after the other; a
//! client that asks for a history with a gap has it seen to at once. Only what was named by hash is taken
//! ([`orb_protocol::history`]), so that whoever sends something else, or nothing, costs no more than an answer.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use orb_protocol::history::{Gap, ancestors};
use orb_protocol::id::{FunctionId, ManifestHash};
use orb_protocol::manifest::{SignedManifest, Verified};
use orb_protocol::quic::Connection;
use orb_protocol::wire::directory::{LOCAL, Versions, VersionsListed};
use orb_protocol::wire::extension::Extensions;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::super::SuperNode;
use super::{artifacts, remote};
use crate::store::blocking;
use crate::store::database::StoreError;
use crate::store::registry::KEPT_REVISIONS;

/// Functions that wait, 32 bytes each. What finds no room is seen to when somebody asks for it.
const WAITING_MAX: usize = 4_096;
/// Between two of them: a node to which all is new asks the others fifty times a second at most.
const PAUSE: Duration = Duration::from_millis(20);
/// Functions that are seen to at once; each may have a few answers of 256 KiB in memory.
const FILLS_MAX: usize = 8;
/// Before a gap that nobody could fill is looked at again.
const RETRY: Duration = Duration::from_secs(10);
/// Functions of which it is known when they were last seen to, about 100 bytes each.
const ATTEMPTS_MAX: usize = 4_096;
/// Super nodes that are asked about one function: its directory, and some more.
const ASKED_MAX: usize = 16;
/// How long one may take before the next one is asked beside it.
const HEDGE: Duration = Duration::from_millis(300);
/// How long one may take to answer at all.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How long a client waits for it; what comes later is there when it asks again.
const PATIENCE: Duration = Duration::from_secs(3);

/// Functions whose history has gaps, and who is about to fill them.
#[derive(Debug)]
pub(crate) struct Histories {
    state: Mutex<State>,
    wake: Notify,
    places: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<FunctionId>,
    attempts: HashMap<FunctionId, Attempt>,
}

#[derive(Debug)]
struct Attempt {
    begun: Instant,
    done: watch::Receiver<bool>,
}

/// Who sees to a function.
enum Turn {
    /// Whoever asked: this says when it is done.
    Mine(watch::Sender<bool>),
    /// Somebody does already.
    Theirs(watch::Receiver<bool>),
    /// Somebody has just done so.
    Over,
}

impl Default for Histories {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            wake: Notify::new(),
            places: Arc::new(Semaphore::new(FILLS_MAX)),
        }
    }
}

impl Histories {
    /// A revision of another super node is live now, after this one. If that is not the one that its owner saw before
    /// it, some may be missing.
    pub(crate) fn on_news(&self, manifest: &Verified, before: Option<&Verified>) {
        let parent = manifest.manifest().parent;
        if parent.is_none() || parent == before.map(Verified::hash) {
            return;
        }
        let mut state = self.lock();
        let function = manifest.function();
        if state.waiting.len() < WAITING_MAX && !state.waiting.contains(&function) {
            state.waiting.push_back(function);
            self.wake.notify_one();
        }
    }

    fn next(&self) -> Option<FunctionId> {
        self.lock().waiting.pop_front()
    }

    fn turn(&self, function: FunctionId, now: Instant) -> Turn {
        let mut state = self.lock();
        if let Some(attempt) = state.attempts.get(&function) {
            let is_done = *attempt.done.borrow() || attempt.done.has_changed().is_err();
            if !is_done {
                return Turn::Theirs(attempt.done.clone());
            }
            if now.duration_since(attempt.begun) < RETRY {
                return Turn::Over;
            }
        }
        if state.attempts.len() >= ATTEMPTS_MAX {
            // As many as have a place are left.
            state.attempts.retain(|_, attempt| !*attempt.done.borrow());
        }
        let sender = watch::Sender::new(false);
        let attempt = Attempt {
            begun: now,
            done: sender.subscribe(),
        };
        state.attempts.insert(function, attempt);
        Turn::Mine(sender)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sees to the functions that wait, until it is dropped.
pub(crate) async fn run(node: Arc<SuperNode>) {
    loop {
        let Some(function) = node.histories.next() else {
            node.histories.wake.notified().await;
            continue;
        };
        // It is never closed.
        if let Ok(place) = Arc::clone(&node.histories.places).acquire_owned().await {
            see_to(&node, function, place).await;
        }
        sleep(PAUSE).await;
    }
}

/// Has a function's gap filled for a client, as far as that is quickly done.
pub(crate) async fn complete(node: &Arc<SuperNode>, function: FunctionId) {
    if let Ok(place) = Arc::clone(&node.histories.places).try_acquire_owned() {
        see_to(node, function, place).await;
    }
}

async fn see_to(node: &Arc<SuperNode>, function: FunctionId, place: OwnedSemaphorePermit) {
    // A store that fails is reported where what it has is to be shown.
    if !node.driver.has_peers() || !matches!(node.storage.gap(function).await, Ok(Some(_))) {
        return;
    }
    let mut done = match node.histories.turn(function, Instant::now()) {
        Turn::Mine(sender) => {
            let done = sender.subscribe();
            // Whoever waits may go away; what is stored has to be followed up.
            tokio::spawn(fill_and_keep(Arc::clone(node), function, sender, place));
            done
        }
        Turn::Theirs(done) => {
            // For another function meanwhile.
            drop(place);
            done
        }
        Turn::Over => return,
    };
    let _ = timeout(PATIENCE, done.wait_for(|done| *done)).await;
}

async fn fill_and_keep(
    node: Arc<SuperNode>,
    function: FunctionId,
    done: watch::Sender<bool>,
    place: OwnedSemaphorePermit,
) {
    let restored = match fill(&node, function).await {
        Ok(restored) => restored,
        Err(error) => {
            tracing::error!(%function, %error, "missed revisions could not be stored");
            Vec::new()
        }
    };
    done.send_replace(true);
    drop(place);
    if node
        .driver
        .directory(&function)
        .contains(&node.endpoint.node_id())
    {
        for manifest in restored.iter().take(KEPT_REVISIONS) {
            if let Some(publish) = manifest.publish() {
                artifacts::obtain_named(&node, publish.artifact).await;
            }
        }
    }
}

/// Asks others until the gap is filled, or all have been asked. Returns what was found.
async fn fill(node: &SuperNode, function: FunctionId) -> Result<Vec<Verified>, StoreError> {
    let mut restored = Vec::new();
    let Some(mut gap) = node.storage.gap(function).await? else {
        return Ok(restored);
    };
    let mut peers = node.driver.peers_for(&function).into_iter().take(ASKED_MAX);
    let mut asked = JoinSet::new();
    loop {
        if let Some(peer) = peers.next() {
            asked.spawn(async move { revisions_below(&peer, gap).await });
        }
        let answer = tokio::select! {
            answer = asked.join_next() => answer,
            () = sleep(HEDGE), if peers.len() > 0 => continue,
        };
        let Some(answer) = answer else { break };
        let offered = answer.unwrap_or_default();
        let found = blocking(move || ancestors(gap, offered)).await;
        if found.is_empty() {
            continue;
        }
        node.storage.restore(found.clone()).await?;
        restored.extend(found);
        match node.storage.gap(function).await? {
            Some(next) => gap = next,
            None => {
                tracing::debug!(%function, count = restored.len(), "missed revisions were had from others");
                return Ok(restored);
            }
        }
    }
    tracing::debug!(%function, parent = %gap.parent, "a missed revision is with nobody who is linked");
    Ok(restored)
}

async fn revisions_below(peer: &Connection, gap: Gap) -> Vec<SignedManifest> {
    let asked = Versions {
        function: gap.function,
        before: Some(gap.below),
        extensions: Extensions::none().with(LOCAL, Vec::new()),
    };
    match remote::ask::<VersionsListed>(peer, asked.into(), ANSWER_MAX).await {
        Ok(page) => page.revisions.into_iter().map(|entry| entry.manifest).collect(),
        Err(fault) => {
            tracing::debug!(super_node = %peer.peer(), %fault, "a history was not had from there");
            Vec::new()
        }
    }
}

/// Of which of a function's newest revisions others of its directory have the bytes.
pub(crate) async fn kept_elsewhere(node: &SuperNode, function: FunctionId) -> BTreeSet<ManifestHash> {
    let mut kept = BTreeSet::new();
    let Ok(_place) = node.histories.places.try_acquire() else {
        return kept;
    };
    let mut asked = JoinSet::new();
    for keeper in node.driver.directory(&function) {
        if let Some(peer) = node.driver.peer_connection(&keeper) {
            asked.spawn(async move { kept_at(&peer, function).await });
        }
    }
    while let Some(answer) = asked.join_next().await {
        kept.extend(answer.unwrap_or_default());
    }
    kept
}

async fn kept_at(peer: &Connection, function: FunctionId) -> Vec<ManifestHash> {
    let asked = Versions {
        function,
        before: None,
        extensions: Extensions::none().with(LOCAL, Vec::new()),
    };
    let answer = remote::ask::<VersionsListed>(peer, asked.into(), ANSWER_MAX).await;
    let revisions = answer.map(|page| page.revisions).unwrap_or_default();
    revisions
        .into_iter()
        .filter(|entry| entry.has_artifact)
        .map(|entry| entry.manifest.hash())
        .collect()
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
