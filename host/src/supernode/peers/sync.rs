//! Changes that somebody has missed: asking for them, and sending them.

use std::sync::Arc;
use std::time::Duration;

use orb_protocol::federation::clock::Clock;
use orb_protocol::federation::reconcile::ReconcileError;
use orb_protocol::head::SignedHead;
use orb_protocol::id::NodeId;
use orb_protocol::manifest::ManifestError;
use orb_protocol::quic::Connection;
use orb_protocol::quic::frames::{FrameError, read_message_within, write_message};
use orb_protocol::wire::codec::MESSAGE_LEN_MAX;
use orb_protocol::wire::extension::Extensions;
use orb_protocol::wire::federation::{CURSORS_MAX, Changes, ChangesPage, Cursor, RegistryChange};
use orb_protocol::wire::packed::{PackedChanges, UnpackError};
use orb_protocol::wire::{Reply, Request};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::super::connection::Exchange;
use super::super::{SuperNode, faults, publish};
use super::reconcile;
use crate::store::blocking;
use crate::store::database::StoreError;
use crate::store::registry::Recorded;

/// How long the other side may take for the next page.
pub(super) const PAGE_MAX: Duration = Duration::from_secs(20);

/// How long all of a pull may take. What it has brought by then is kept.
const PULL_MAX: Duration = Duration::from_secs(300);
/// By how much a log may be longer than it is known to be here.
const LEAP_MAX: u64 = 1 << 32;

/// Why changes were not taken in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SyncError {
    #[error("the super node is not linked any more")]
    NotLinked,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Said(orb_protocol::fault::Fault),
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("the head that came with a manifest is not its own")]
    Head,
    #[error(transparent)]
    Reconcile(#[from] ReconcileError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SyncError {
    /// Whether the other side sent what does not verify, or is nothing that it may send.
    fn is_unverified(&self) -> bool {
        match self {
            Self::Unpack(_) | Self::Manifest(_) | Self::Head | Self::Reconcile(_) => true,
            Self::NotLinked | Self::Frame(_) | Self::Said(_) | Self::Store(_) => false,
        }
    }

    /// Counts it, if it is the other side's doing.
    pub(super) fn count(&self, node: &SuperNode) {
        if self.is_unverified() {
            node.offences.peers_unverified.add();
        }
    }
}

/// Verifies a change, joins it into the registry, durably, and tells whom it concerns. In a task of its own: what is
/// stored has to be known here, whatever becomes of the link that it came on.
pub(crate) fn take_in(node: &Arc<SuperNode>, change: RegistryChange) -> JoinHandle<Result<(), SyncError>> {
    let node = Arc::clone(node);
    tokio::spawn(async move {
        let at = change.at;
        let manifest = Arc::new(change.manifest.verify()?);
        let head = SignedHead::of(&manifest, change.head_signature);
        head.verify_for(&manifest).map_err(|_| SyncError::Head)?;
        let recorded = node.storage.take_in(&manifest, head, at).await;
        if recorded.is_err() {
            publish::tell_if_stored(&node, &manifest).await;
        }
        let recorded = recorded?;
        if let Recorded::Stored { before, .. } = &recorded {
            node.histories.on_news(&manifest, before.as_deref());
        }
        let is_news = matches!(recorded, Recorded::Stored { .. });
        node.driver.on_stored(at, is_news.then_some(&manifest));
        if is_news {
            node.beyond.on_changed(manifest.function());
        }
        Ok(())
    })
}

/// Takes in a page of changes, all of them in few commits. Returns how many they were.
pub(super) async fn take_in_all(node: &Arc<SuperNode>, changes: PackedChanges) -> Result<usize, SyncError> {
    let changes = blocking(move || changes.unpack()).await?;
    let count = changes.len();
    let tasks: Vec<_> = changes.into_iter().map(|change| take_in(node, change)).collect();
    let mut result = Ok(());
    for task in tasks {
        result = result.and(task.await.expect("taking in a change does not panic"));
    }
    result.map(|()| count)
}

/// In a thread that may take its time: some milliseconds for a full page.
pub(super) async fn pack(changes: Vec<RegistryChange>) -> PackedChanges {
    blocking(move || PackedChanges::pack(&changes)).await
}

/// Fetches from a super node what is not known here. Returns what is known then.
pub(crate) async fn pull(node: &Arc<SuperNode>, from: NodeId) -> Result<Vec<Cursor>, SyncError> {
    timeout(PULL_MAX, pull_all(node, from))
        .await
        .unwrap_or(Err(FrameError::TimedOut(PULL_MAX).into()))
        .inspect_err(|error| error.count(node))
}

async fn pull_all(node: &Arc<SuperNode>, from: NodeId) -> Result<Vec<Cursor>, SyncError> {
    let connection = node.driver.peer_connection(&from).ok_or(SyncError::NotLinked)?;
    let mut known = if node.driver.is_beyond_clock(&from) {
        match reconcile::ask(node, &connection).await {
            // An older one cannot compare, and another one has no time for it: both can tell everything.
            Err(error) => {
                tracing::debug!(super_node = %from, %error, "not compared: all changes are pulled");
                replay(node, &connection).await?
            }
            Ok(known) => known,
        }
    } else {
        replay(node, &connection).await?
    };
    known.truncate(CURSORS_MAX);
    let own = node.storage.clock().await?;
    // Numbers go up one by one: one that leaps would leave none for what comes after it.
    known.retain(|cursor| cursor.number.saturating_sub(own.get(&cursor.log)) <= LEAP_MAX);
    node.storage.raise(known.clone()).await?;
    Ok(known)
}

/// Fetches what this node's clock says that it lacks.
async fn replay(node: &Arc<SuperNode>, connection: &Connection) -> Result<Vec<Cursor>, SyncError> {
    let (mut send, mut recv) = connection.open_bi().await.map_err(FrameError::Lost)?;
    let known = node.storage.clock().await?;
    let request = Changes {
        known: known.cursors(),
        extensions: Extensions::none(),
    };
    write_message(&mut send, &Request::from(request)).await?;
    let _ = send.finish();
    let reply: Reply = read_message_within(&mut recv, MESSAGE_LEN_MAX, PAGE_MAX).await?;
    let mut page: ChangesPage = reply.into_result().map_err(SyncError::Said)?;
    let mut count = 0;
    loop {
        count += take_in_all(node, page.changes).await?;
        if page.last {
            break;
        }
        page = read_message_within(&mut recv, MESSAGE_LEN_MAX, PAGE_MAX).await?;
    }
    tracing::debug!(super_node = %connection.peer(), count, "changes pulled");
    Ok(page.known)
}

/// Sends a super node what it lacks.
pub(crate) async fn send(
    node: &SuperNode,
    asked: Changes,
    exchange: &mut Exchange,
) -> Result<(), FrameError> {
    let known = Clock::from_cursors(asked.known.into_iter().take(CURSORS_MAX));
    // Read before the changes: what comes later is told on the link.
    let until = match node.storage.clock().await {
        Ok(until) => until,
        Err(error) => return exchange.reply::<ChangesPage>(Err(faults::of_store(&error))).await,
    };
    let (mut from, mut first) = (None, true);
    loop {
        let page = match node.storage.missing(known.clone(), until.clone(), from).await {
            Ok(page) => page,
            Err(error) if first => {
                return exchange.reply::<ChangesPage>(Err(faults::of_store(&error))).await;
            }
            // Not the end that the other side waits for.
            Err(error) => {
                tracing::error!(%error, "changes could not be read to their end");
                return Ok(());
            }
        };
        let last = page.next.is_none();
        let message = ChangesPage {
            changes: pack(page.changes).await,
            known: if last { until.cursors() } else { Vec::new() },
            last,
            extensions: Extensions::none(),
        };
        if std::mem::take(&mut first) {
            exchange.reply(Ok(message)).await?;
        } else {
            tokio::time::timeout(PAGE_MAX, write_message(&mut exchange.send, &message))
                .await
                .unwrap_or(Err(FrameError::TimedOut(PAGE_MAX)))?;
        }
        if last {
            return Ok(());
        }
        from = page.next;
    }
}

#[cfg(test)]
#[path = "sync_tests.rs"]
mod tests;
