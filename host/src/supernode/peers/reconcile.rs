//! Finding out what this node lacks where its clock does not tell: both sides of [`orb_protocol::federation::reconcile`].

use std::sync::Arc;
use std::time::Duration;

use orb_protocol::fault::{Fault, FaultKind};
use orb_protocol::federation::reconcile::{Answerer, Asker, STEPS_MAX, Step, WANTED_MAX};
use orb_protocol::id::NodeId;
use orb_protocol::quic::Connection;
use orb_protocol::quic::frames::{FrameError, read_message_within, write_message};
use orb_protocol::wire::codec::MESSAGE_LEN_MAX;
use orb_protocol::wire::extension::Extensions;
use orb_protocol::wire::federation::{ChangesPage, Cursor, ItemId, Reconcile, Reconciled, WANTED_PAGE_MAX};
use orb_protocol::wire::{Reply, Request};
use quinn::{RecvStream, SendStream};

use super::super::connection::Exchange;
use super::super::{SuperNode, faults};
use super::sync::{self, PAGE_MAX, SyncError};
use crate::store::blocking;

/// Reconciliations that are answered at one time: each holds all functions in memory, 40 bytes for each.
pub(crate) const ANSWERS_MAX: usize = 2;
/// How long another one may wait for its turn.
const TURN_MAX: Duration = Duration::from_secs(10);
/// How long one may take in all: who is slower is told everything instead.
const ANSWER_MAX: Duration = Duration::from_secs(120);

/// Fetches from a super node what it has and this one lacks. Returns what is known then: nothing if there is more than
/// one reconciliation takes, so that the rest is asked for next.
pub(super) async fn ask(node: &Arc<SuperNode>, connection: &Connection) -> Result<Vec<Cursor>, SyncError> {
    let (mut send, mut recv) = connection.open_bi().await.map_err(FrameError::Lost)?;
    let items = node.storage.items().await?;
    let (mut asker, first) = blocking(move || Asker::new(items)).await?;
    write_message(&mut send, &Request::from(message(first))).await?;
    let reply: Reply = read_message_within(&mut recv, MESSAGE_LEN_MAX, PAGE_MAX).await?;
    let mut answer: Reconciled = reply.into_result().map_err(SyncError::Said)?;
    let (wanted, all) = loop {
        // Fingerprints over all functions take a while.
        let step = blocking(move || {
            let step = asker.on_answer(&answer.message)?;
            Ok::<_, SyncError>((asker, step))
        });
        let (back, step) = step.await?;
        asker = back;
        match step {
            Step::Ask(next) => write_message(&mut send, &message(next)).await?,
            Step::Done { wanted, all } => break (wanted, all),
        }
        answer = read_message_within(&mut recv, MESSAGE_LEN_MAX, PAGE_MAX).await?;
    };
    // It has a copy of all items.
    drop(asker);
    let known = take(node, connection.peer(), wanted, &mut send, &mut recv).await?;
    let _ = send.finish();
    Ok(if all { known } else { Vec::new() })
}

fn message(message: Vec<u8>) -> Reconcile {
    Reconcile {
        message,
        wanted: Vec::new(),
        extensions: Extensions::none(),
    }
}

/// Fetches items, and takes them in. Without any it still asks what is known then.
async fn take(
    node: &Arc<SuperNode>,
    from: NodeId,
    wanted: Vec<ItemId>,
    send: &mut SendStream,
    recv: &mut RecvStream,
) -> Result<Vec<Cursor>, SyncError> {
    tracing::debug!(super_node = %from, count = wanted.len(), "reconciled: these are fetched");
    let mut pages = wanted.chunks(WANTED_PAGE_MAX).map(<[ItemId]>::to_vec);
    let mut page = pages.next().unwrap_or_default();
    loop {
        let asked = Reconcile {
            message: Vec::new(),
            wanted: page,
            extensions: Extensions::none(),
        };
        write_message(send, &asked).await?;
        let known = loop {
            let answer: ChangesPage = read_message_within(recv, MESSAGE_LEN_MAX, PAGE_MAX).await?;
            sync::take_in_all(node, answer.changes).await?;
            if answer.last {
                break answer.known;
            }
        };
        match pages.next() {
            Some(next) => page = next,
            None => return Ok(known),
        }
    }
}

/// Tells a super node what it lacks.
pub(crate) async fn answer(
    node: &SuperNode,
    asked: Reconcile,
    exchange: &mut Exchange,
) -> Result<(), FrameError> {
    tokio::time::timeout(ANSWER_MAX, answer_steps(node, asked, exchange))
        .await
        .unwrap_or(Err(FrameError::TimedOut(ANSWER_MAX)))
}

async fn answer_steps(node: &SuperNode, asked: Reconcile, exchange: &mut Exchange) -> Result<(), FrameError> {
    let turn = tokio::time::timeout(TURN_MAX, node.reconciles.acquire()).await;
    let Ok(Ok(_turn)) = turn else {
        let fault = Fault::new(FaultKind::Overloaded, "others are compared with at the moment");
        return exchange.reply::<Reconciled>(Err(fault.help("try again"))).await;
    };
    // Read before the items: what comes later is told on the link.
    let begun = async { Ok((node.storage.clock().await?, node.storage.items().await?)) };
    let (known, items) = match begun.await {
        Ok(begun) => begun,
        Err(error) => return exchange.reply::<Reconciled>(Err(faults::of_store(&error))).await,
    };
    let mut next = asked;
    let (mut sets, mut first, mut wanted) = (None, true, 0);
    let mut items = Some(items);
    for _ in 0..2 * STEPS_MAX {
        if next.message.is_empty() {
            wanted += next.wanted.len();
            next.wanted.truncate(WANTED_PAGE_MAX);
            if first || wanted > WANTED_MAX {
                return Ok(());
            }
            if !send_wanted(node, next.wanted, &known.cursors(), exchange).await? {
                return Ok(());
            }
        } else {
            let (begin, message) = (items.take(), next.message);
            let answered = blocking(move || {
                let mut sets = match (sets, begin) {
                    (Some(sets), _) => sets,
                    (None, begin) => Answerer::new(&begin.unwrap_or_default())?,
                };
                let answer = sets.answer(&message)?;
                Ok::<_, SyncError>((sets, answer))
            });
            let answer = match answered.await {
                Ok((back, answer)) => {
                    sets = Some(back);
                    answer
                }
                Err(error) => {
                    node.offences.peers_unverified.add();
                    let fault = Fault::new(FaultKind::InputInvalid, error.to_string());
                    return exchange.reply::<Reconciled>(Err(fault)).await;
                }
            };
            let extensions = Extensions::none();
            let answer = Reconciled {
                message: answer,
                extensions,
            };
            if std::mem::take(&mut first) {
                exchange.reply(Ok(answer)).await?;
            } else {
                write(exchange, &answer).await?;
            }
        }
        next = match read_message_within(&mut exchange.recv, MESSAGE_LEN_MAX, PAGE_MAX).await {
            Ok(next) => next,
            // It has all that it wants.
            Err(FrameError::Closed) => return Ok(()),
            Err(error) => return Err(error),
        };
    }
    Ok(())
}

/// Whether all of it was sent.
async fn send_wanted(
    node: &SuperNode,
    wanted: Vec<ItemId>,
    known: &[Cursor],
    exchange: &mut Exchange,
) -> Result<bool, FrameError> {
    let mut left = wanted;
    loop {
        let (changes, rest) = match node.storage.wanted(left).await {
            Ok(page) => page,
            Err(error) => {
                tracing::error!(%error, "manifests that a super node wants could not be read");
                return Ok(false);
            }
        };
        let last = rest.is_empty();
        let page = ChangesPage {
            changes: sync::pack(changes).await,
            known: if last { known.to_vec() } else { Vec::new() },
            last,
            extensions: Extensions::none(),
        };
        write(exchange, &page).await?;
        if last {
            return Ok(true);
        }
        left = rest;
    }
}

async fn write<T: serde::Serialize>(exchange: &mut Exchange, message: &T) -> Result<(), FrameError> {
    tokio::time::timeout(PAGE_MAX, write_message(&mut exchange.send, message))
        .await
        .unwrap_or(Err(FrameError::TimedOut(PAGE_MAX)))
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
