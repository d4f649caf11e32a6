//! Heads and announcements, again before they expire.

use std::sync::Arc;
use std::time::Duration;

use orb_protocol::discovery::schedule::{PAGE_LEN, Turn};
use orb_protocol::discovery::{InfoHash, Schedule, Step};
use orb_protocol::id::FunctionId;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::super::SuperNode;
use crate::discovery::{Dht, DhtError};

/// Functions that are published at a time: on the public DHT it takes some seconds each.
const TURNS_AT_ONCE: usize = 8;

/// A turn that ended.
struct Done {
    turn: Turn,
    result: Result<(), DhtError>,
}

/// Publishes until this node's place in the DHT is lost.
pub(super) async fn run(node: &Arc<SuperNode>, dht: &Arc<Dht>, port: u16) -> DhtError {
    let started = Instant::now();
    let now_ms = || u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut schedule = Schedule::new(0);
    let mut turns = JoinSet::new();
    loop {
        for function in node.beyond.take_changed() {
            if is_own(node, &function) {
                schedule.on_changed(function);
            }
        }
        let until_ms = if turns.len() < TURNS_AT_ONCE {
            match schedule.next(now_ms()) {
                Step::Wait { until_ms } => Some(until_ms),
                Step::Read { after } => {
                    let (page, last) = page(node, after).await;
                    schedule.on_page(page, last);
                    continue;
                }
                Step::Publish(turn) => {
                    let (node, dht) = (Arc::clone(node), Arc::clone(dht));
                    turns.spawn(async move {
                        let result = publish(&node, &dht, turn, port).await;
                        Done { turn, result }
                    });
                    continue;
                }
            }
        } else {
            None
        };
        // Without a time it is a turn's end that is waited for.
        let wake = started + Duration::from_millis(until_ms.unwrap_or_default());
        tokio::select! {
            () = sleep_until(wake), if until_ms.is_some() => {}
            () = node.beyond.wake.notified() => {}
            Some(ended) = turns.join_next() => match ended {
                Ok(Done { turn, result }) => {
                    schedule.on_published(now_ms(), turn, result.is_ok());
                    if let Err(error @ DhtError::Ended(_)) = result {
                        return error;
                    }
                }
                Err(error) => return error.into(),
            },
        }
    }
}

/// Whether it is for this super node to publish a function: each function's directory does, so that a large
/// federation does not publish everything as many times as it has super nodes.
fn is_own(node: &SuperNode, function: &FunctionId) -> bool {
    let directory = node.driver.directory(function);
    // A super node that is alone has none.
    directory.is_empty() || directory.contains(&node.endpoint.node_id())
}

/// The next functions, as far as they are this super node's to publish, and the last that was looked at.
async fn page(node: &SuperNode, after: Option<FunctionId>) -> (Vec<FunctionId>, Option<FunctionId>) {
    match node.storage.functions(after, PAGE_LEN).await {
        Ok(mut page) => {
            let last = page.last().copied();
            page.retain(|function| is_own(node, function));
            (page, last)
        }
        Err(error) => {
            tracing::warn!(%error, "the functions to publish in the DHT cannot be read; the next round does");
            (Vec::new(), None)
        }
    }
}

async fn publish(node: &SuperNode, dht: &Dht, turn: Turn, port: u16) -> Result<(), DhtError> {
    let result = async {
        if turn.head {
            put_head(node, dht, turn.function).await?;
        }
        dht.announce(InfoHash::of_function(&turn.function), port).await
    }
    .await;
    match &result {
        Ok(()) => tracing::debug!(function = %turn.function, head = turn.head, "published in the DHT"),
        Err(error) => {
            dht.counters().puts_failed.add();
            tracing::debug!(function = %turn.function, %error, "not published in the DHT");
        }
    }
    result
}

async fn put_head(node: &SuperNode, dht: &Dht, function: FunctionId) -> Result<(), DhtError> {
    let stored = node.storage.with_head(function).await;
    let Some((manifest, head)) = stored.ok().flatten() else {
        // It was there when it was listed: the disk's fault, which is reported where it is served.
        return Ok(());
    };
    let Ok(manifest) = manifest.verify() else {
        return Ok(());
    };
    let signed = manifest.manifest();
    match dht.put_head(&signed.owner, &signed.name, &head).await {
        // Another federation has a newer revision. It still serves this one.
        Err(DhtError::Outdated) => {
            dht.counters().heads_outdated.add();
            Ok(())
        }
        result => result,
    }
}
