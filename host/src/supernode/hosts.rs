//! Control streams: what hosts tell, and what they are told.

use std::sync::Arc;
use std::time::Duration;

use orb_protocol::coordinator::{Coordinator, CoordinatorError};
use orb_protocol::fault::{Fault, FaultKind};
use orb_protocol::id::{FunctionId, NodeId};
use orb_protocol::manifest::{Verified, Version};
use orb_protocol::placement::FailureDomain;
use orb_protocol::quic::frames::{FrameError, read_message, write_message};
use orb_protocol::wire::codec::MESSAGE_LEN_MAX;
use orb_protocol::wire::control::{
    Assign, Beat, Changed, HOLDING_MAX, Holding, HostMessage, Offer, RUN_TIMES_MAX, Ready, Refused, Register,
    Registered, Release, SuperMessage, Supers, Synced,
};
use orb_protocol::wire::events::EventKind;
use orb_protocol::wire::extension::Extensions;
use orb_protocol::wire::{Reply, undecodable};

use tokio::time::Instant;

use super::connection::{Exchange, Peer};
use super::driver::{HostLink, Registration};
use super::notes::Note;
use super::outbox::Outgoing;
use super::{SuperNode, close, faults};

/// How long the host may take to read a message before it counts as not reading.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest name of an operator, in bytes.
const OPERATOR_BYTES_MAX: usize = 128;
/// The most engines that a host may name. There is one for each version of the JavaScript plugin.
const ENGINES_MAX: usize = 64;
/// What is kept of a host's reason for a refusal, in bytes.
const REASON_BYTES_MAX: usize = 256;
/// Messages that a host may send at once: what it holds, and what became of it, when it joins.
const MESSAGES_BURST: u32 = 10_000;
/// After that it is read no faster than this: a thousand in a second, each of which may place a
/// function anew, and writes a line to the log.
const MESSAGE_INTERVAL: Duration = Duration::from_millis(1);

/// Why a control stream ends.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Coordinator(#[from] CoordinatorError),
    #[error("a message names more than {0} of something")]
    TooMany(usize),
    #[error("a newer connection of the host took its place")]
    Replaced,
}

/// Registers a host.
///
/// # Errors
/// The fault to answer with.
pub(crate) fn register(
    node: &Arc<SuperNode>,
    peer: &Peer,
    register: Register,
) -> Result<Registration, Fault> {
    register
        .extensions
        .check(&[])
        .map_err(|error| undecodable(&error))?;
    let host = peer.connection.peer();
    node.policy.admit_host(&host, &register.invite)?;
    check(&register.offer)?;
    let observed = peer.connection.remote_address();
    let domain = FailureDomain::of(&register.offer.operator, observed.ip());
    let registration = node
        .driver
        .register(register.offer, domain, peer.connection.clone())
        .map_err(|error| faults::overloaded(error.to_string()))?;
    tracing::info!(%host, software = %printable(&register.software), %observed, "host connected");
    Ok(registration)
}

/// A host that is here; when this is dropped it has left, unless a newer connection took its place or it
/// was given up before. A task that is cut off drops it too.
struct Presence<'a> {
    node: &'a SuperNode,
    peer: &'a Peer,
    registration: &'a Registration,
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        if self.registration.event(false, |_, _, _| ()).is_some() {
            let left = Note::of_node(
                EventKind::HostLeft,
                self.peer.connection.peer(),
                "its connection ended",
            );
            self.node.events.note_of_peer(self.peer.address, left);
        }
    }
}

/// Stays with a host that has registered until its control stream ends.
pub(crate) async fn attend(
    node: &SuperNode,
    peer: &Peer,
    registration: &Registration,
    exchange: &mut Exchange,
) {
    let Exchange { send, recv } = exchange;
    let _presence = Presence {
        node,
        peer,
        registration,
    };
    let ended = async {
        Box::pin(welcome(peer, send)).await?;
        tokio::select! {
            told = tell(node, registration.link(), send) => told,
            heard = listen(node, peer, registration, recv) => heard,
        }
    };
    let Err(error) = ended.await;
    let host = peer.connection.peer();
    match &error {
        Broken::Frame(FrameError::Closed | FrameError::Reset(_) | FrameError::Lost(_)) | Broken::Replaced => {
            tracing::debug!(%host, %error, "control stream ended");
        }
        _ => {
            node.offences.hosts_cut_off.add();
            tracing::warn!(%host, %error, "host cut off");
            peer.connection.close(close::PROTOCOL, &error.to_string());
        }
    }
}

async fn welcome(peer: &Peer, send: &mut quinn::SendStream) -> Result<(), FrameError> {
    let registered = Registered {
        observed: peer.connection.remote_address().to_string(),
        extensions: Extensions::none(),
    };
    write_message(send, &Reply::ok(&registered)).await
}

fn check(offer: &Offer) -> Result<(), Fault> {
    let refuse = |message: String| Err(Fault::new(FaultKind::InputInvalid, message));
    if offer.operator.len() > OPERATOR_BYTES_MAX {
        return refuse(format!(
            "the name of an operator has at most {OPERATOR_BYTES_MAX} bytes"
        ));
    }
    if offer.engines.len() > ENGINES_MAX {
        return refuse(format!("a host names at most {ENGINES_MAX} engines"));
    }
    Ok(())
}

// -- what the host says ------------------------------------------------------------------------------

async fn listen(
    node: &SuperNode,
    peer: &Peer,
    registration: &Registration,
    recv: &mut quinn::RecvStream,
) -> Result<std::convert::Infallible, Broken> {
    let mut paid = Instant::now();
    loop {
        paid = paid.max(Instant::now()) + MESSAGE_INTERVAL;
        if let Some(turn) = paid.checked_sub(MESSAGE_INTERVAL * MESSAGES_BURST) {
            tokio::time::sleep_until(turn).await;
        }
        // Silence is the coordinator's business: it hears nothing and gives the host up.
        let message: HostMessage = read_message(recv, MESSAGE_LEN_MAX).await?;
        hear(node, peer, registration, message)?;
    }
}

fn hear(
    node: &SuperNode,
    peer: &Peer,
    registration: &Registration,
    message: HostMessage,
) -> Result<(), Broken> {
    match message {
        HostMessage::Holding(holding) => hear_holding(node, peer, registration, &holding),
        HostMessage::Beat(beat) => hear_beat(registration, &beat),
        HostMessage::Ready(ready) => hear_ready(node, peer, registration, &ready),
        HostMessage::Refused(refused) => hear_refusal(node, peer, registration, refused),
        HostMessage::Dropped(dropped) => {
            let heard = registration.event(true, |coordinator, now_ms, node| {
                tracing::debug!(host = %node, function = %dropped.function, "replica dropped");
                coordinator.on_dropped(now_ms, node, dropped.function);
            });
            heard.ok_or(Broken::Replaced)
        }
        HostMessage::Draining(_) => {
            let heard = registration.event(true, |coordinator, now_ms, node| {
                tracing::info!(host = %node, "host leaves: its replicas are assigned elsewhere");
                coordinator.on_draining(now_ms, node);
            });
            heard.ok_or(Broken::Replaced)
        }
        // A newer host says what this version need not know.
        HostMessage::Unknown(_) => Ok(()),
    }
}

fn hear_holding(
    node: &SuperNode,
    peer: &Peer,
    registration: &Registration,
    holding: &Holding,
) -> Result<(), Broken> {
    if holding.replicas.len() > HOLDING_MAX {
        return Err(Broken::TooMany(HOLDING_MAX));
    }
    let heard = registration.event(holding.last, |coordinator, now_ms, node| {
        coordinator.on_holding(now_ms, node, &holding.replicas, holding.last)?;
        if holding.last {
            tracing::info!(host = %node, hosts = coordinator.hosts(), "host joined");
        }
        Ok::<(), CoordinatorError>(())
    });
    heard.ok_or(Broken::Replaced)??;
    if holding.last {
        node.events.on_joined(peer.address, peer.connection.peer());
    }
    Ok(())
}

fn hear_ready(
    node: &SuperNode,
    peer: &Peer,
    registration: &Registration,
    ready: &Ready,
) -> Result<(), Broken> {
    let Ready {
        function, version, ..
    } = *ready;
    let heard = registration.event(true, |coordinator, now_ms, host| {
        tracing::info!(%host, %function, ?version, "replica ready");
        let held = is_ready(coordinator, &function, Version::default(), &host);
        let was = is_ready(coordinator, &function, version, &host);
        coordinator.on_ready(now_ms, host, function, version);
        let is = is_ready(coordinator, &function, version, &host);
        (held, is && !was)
    });
    let (held, news) = heard.ok_or(Broken::Replaced)?;
    if news {
        let host = peer.connection.peer();
        node.events
            .on_seeded(peer.address, host, (function, version), held);
    }
    Ok(())
}

fn is_ready(coordinator: &Coordinator, function: &FunctionId, version: Version, host: &NodeId) -> bool {
    coordinator.ready_report(function, version).ready.contains(host)
}

fn hear_beat(registration: &Registration, beat: &Beat) -> Result<(), Broken> {
    if beat.run_times_us.len() > RUN_TIMES_MAX {
        return Err(Broken::TooMany(RUN_TIMES_MAX));
    }
    let rtt = registration.link().connection.rtt();
    let rtt_us = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX);
    let heard = registration.event(false, |coordinator, now_ms, node| {
        coordinator.on_beat(now_ms, node, rtt_us, beat);
    });
    heard.ok_or(Broken::Replaced)
}

fn hear_refusal(
    node: &SuperNode,
    peer: &Peer,
    registration: &Registration,
    refused: Refused,
) -> Result<(), Broken> {
    let Refused {
        function,
        version,
        mut reason,
        ..
    } = refused;
    reason = printable(&reason);
    let note = Note::of_replica(
        EventKind::Refused,
        peer.connection.peer(),
        function,
        Some(version),
        &reason,
    );
    let heard = registration.event(true, |coordinator, now_ms, host| {
        tracing::info!(%host, %function, ?version, %reason, "replica refused");
        // Only whoever was asked can refuse.
        let asked = coordinator.assigned(&function).contains(&host);
        coordinator.on_refused(now_ms, host, function, version, reason);
        asked && !coordinator.assigned(&function).contains(&host)
    });
    if heard.ok_or(Broken::Replaced)? {
        node.events.note_of_peer(peer.address, note);
    }
    Ok(())
}

/// What a peer wrote, fit for logs and for other people's terminals.
fn printable(text: &str) -> String {
    let mut kept = String::new();
    for char in text.chars().filter(|char| !char.is_control()) {
        if kept.len() + char.len_utf8() > REASON_BYTES_MAX {
            break;
        }
        kept.push(char);
    }
    kept
}

// -- what the host is told -----------------------------------------------------------------------------

async fn tell(
    node: &SuperNode,
    link: &HostLink,
    send: &mut quinn::SendStream,
) -> Result<std::convert::Infallible, Broken> {
    loop {
        let outgoing = link.outbox.next().await;
        Box::pin(pass_on(node, outgoing, send)).await?;
    }
}

async fn pass_on(
    node: &SuperNode,
    outgoing: Outgoing,
    send: &mut quinn::SendStream,
) -> Result<(), FrameError> {
    let Some(message) = message(node, outgoing).await else {
        return Ok(());
    };
    tokio::time::timeout(SEND_TIMEOUT, write_message(send, &message))
        .await
        .unwrap_or(Err(FrameError::TimedOut(SEND_TIMEOUT)))
}

/// The message with the manifest as it is now.
async fn message(node: &SuperNode, outgoing: Outgoing) -> Option<SuperMessage> {
    let extensions = Extensions::none();
    match outgoing {
        Outgoing::Assign(function) | Outgoing::Changed(function) => {
            let live = match node.storage.live(function).await {
                Ok(live) => live?,
                Err(error) => {
                    tracing::error!(%function, %error, "a host cannot be told of a function");
                    return None;
                }
            };
            Some(of_manifest(outgoing, &live))
        }
        Outgoing::Release(function) => Some(Release { function, extensions }.into()),
        Outgoing::Synced => Some(Synced { extensions }.into()),
        Outgoing::Supers => {
            let addresses = node.driver.peer_addresses();
            Some(
                Supers {
                    addresses,
                    extensions,
                }
                .into(),
            )
        }
    }
}

fn of_manifest(outgoing: Outgoing, live: &Verified) -> SuperMessage {
    let manifest = live.signed().clone();
    let extensions = Extensions::none();
    // It may have been decommissioned since it was assigned.
    if matches!(outgoing, Outgoing::Assign(_)) && !live.is_tombstone() {
        Assign { manifest, extensions }.into()
    } else {
        Changed { manifest, extensions }.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_text_is_cut_and_cleaned() {
        assert_eq!(printable("a\u{1b}[31m\nb"), "a[31mb");
        assert_eq!(printable(&"é".repeat(REASON_BYTES_MAX)).len(), REASON_BYTES_MAX);
    }
}
