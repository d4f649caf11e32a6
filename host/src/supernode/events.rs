//! Telling clients what happened, and what happens from now on.

use std::time::Duration;

use orb_protocol::fault::Fault;
use orb_protocol::quic::frames::FrameError;
use orb_protocol::wire::events::{EVENTS_PAGE_MAX, EventPage, Events};
use orb_protocol::wire::extension::Extensions;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::sleep;

use super::connection::Exchange;
use super::{SuperNode, close, directory, faults};
use crate::store::database::StoreError;
use crate::store::events::{Filter, Found};

/// How many may follow at once: each looks through what is new after every event, so they cost time,
/// not memory.
pub(crate) const FOLLOWERS_MAX: usize = 1_024;
/// Reads of the log at once: each takes a core for up to a tenth of a second, if it looks through all.
pub(crate) const READS_MAX: usize = 4;
/// Between two pages for a follower who has all that there was: so often a second all of them together
/// are served by less than a core.
const PAUSE: Duration = Duration::from_millis(100);

/// Why no more pages are sent.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Fault(Fault),
}

impl From<Fault> for Broken {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Sends a page of events, or, to who follows, one after the other until nobody reads them any more.
///
/// # Errors
/// The fault to answer with.
pub(crate) async fn answer(node: &SuperNode, asked: &Events, exchange: &mut Exchange) -> Result<(), Fault> {
    directory::check(&asked.extensions)?;
    let _place = place(&node.followers, asked.follow)?;
    match send(node, asked, exchange).await {
        Ok(()) => Ok(()),
        Err(Broken::Fault(fault)) => Err(fault),
        Err(Broken::Frame(error)) => {
            node.offences.on_answer(&error);
            tracing::debug!(%error, "events are not read any more");
            // Not an end that looks like one in order.
            let _ = exchange.send.reset(quinn::VarInt::from_u32(close::TOO_SLOW));
            Ok(())
        }
    }
}

fn place(followers: &Semaphore, follow: bool) -> Result<Option<SemaphorePermit<'_>>, Fault> {
    if !follow {
        return Ok(None);
    }
    let place = followers.try_acquire();
    place
        .map(Some)
        .map_err(|_| faults::overloaded("as many follow the events of this super node as may"))
}

async fn send(node: &SuperNode, asked: &Events, exchange: &mut Exchange) -> Result<(), Broken> {
    let mut newest = node.storage.newest_event();
    newest.borrow_and_update();
    let mut found = first(node, asked).await?;
    loop {
        let (cursor, more) = (found.cursor, found.more);
        exchange.reply(Ok(page(node, found))).await?;
        if !asked.follow {
            return Ok(());
        }
        if !more {
            sleep(PAUSE).await;
        }
        found = tokio::select! {
            found = next(node, asked, cursor, &mut newest) => found?,
            // Whoever follows says so when it is enough.
            _ = exchange.send.stopped() => return Ok(()),
        };
    }
}

async fn first(node: &SuperNode, asked: &Events) -> Result<Found, Fault> {
    match asked.after {
        Some(after) => read_after(node, asked, after).await,
        None => {
            let _turn = turn(node).await?;
            let latest = node.storage.latest_events(filter(asked), limit(asked)).await;
            latest.map_err(|error| faults::of_store(&error))
        }
    }
}

/// The next page that has anything in it.
async fn next(
    node: &SuperNode,
    asked: &Events,
    mut cursor: u64,
    newest: &mut tokio::sync::watch::Receiver<u64>,
) -> Result<Found, Fault> {
    loop {
        newest.borrow_and_update();
        let found = read_after(node, asked, cursor).await?;
        if found.gap || !found.events.is_empty() {
            return Ok(found);
        }
        cursor = found.cursor;
        if !found.more {
            // The storage lives as long as the node, so there always is somebody to say it.
            let _ = newest.changed().await;
        }
    }
}

async fn read_after(node: &SuperNode, asked: &Events, after: u64) -> Result<Found, Fault> {
    let _turn = turn(node).await?;
    let found = node
        .storage
        .events_after(filter(asked), after, limit(asked))
        .await;
    found.map_err(|error| faults::of_store(&error))
}

async fn turn(node: &SuperNode) -> Result<SemaphorePermit<'_>, Fault> {
    let turn = node.event_reads.acquire().await;
    turn.map_err(|_| faults::of_store(&StoreError::Closed))
}

fn filter(asked: &Events) -> Filter {
    Filter {
        owner: asked.owner,
        function: asked.function,
    }
}

fn limit(asked: &Events) -> usize {
    asked.limit.clamp(1, EVENTS_PAGE_MAX).into()
}

fn page(node: &SuperNode, found: Found) -> EventPage {
    EventPage {
        node: node.endpoint.node_id(),
        events: found.events,
        cursor: found.cursor,
        more: found.more,
        gap: found.gap,
        extensions: Extensions::none(),
    }
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
