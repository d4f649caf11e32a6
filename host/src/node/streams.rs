//! The streams that peers open: the first frame says what they want.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use orb_protocol::fault::{Fault, FaultKind};
use orb_protocol::quic::frames::{FrameError, read_message_within};
use orb_protocol::quic::{Connection, Endpoint};
use orb_protocol::wire::extension::Extensions;
use orb_protocol::wire::{NodeInfo, Reply, Request, undecodable};
use quinn::{ConnectionError, RecvStream, SendStream, VarInt};

use super::answer::{refuse, reply};
use super::offences::Offences;
use super::patience::while_heard;
use super::{Host, artifacts, calls};

/// How long a stream may be open before it says what it is for.
const FIRST_FRAME_MAX: Duration = Duration::from_secs(5);
/// The longest first frame that a host takes, in bytes: a call with a credential and a trace has 300.
const FIRST_FRAME_BYTES_MAX: usize = 16 * 1024;
/// The code of a stream that did not say what it is for.
const NOT_UNDERSTOOD: VarInt = VarInt::from_u32(3);

/// Serves the streams that a super node opens, until the connection ends.
pub(crate) async fn serve_super(
    host: Arc<Host>,
    endpoint: Endpoint,
    connection: Connection,
) -> ConnectionError {
    loop {
        let (send, recv) = match connection.accept_bi().await {
            Ok(stream) => stream,
            Err(error) => return error,
        };
        let (host, endpoint, connection) = (host.clone(), endpoint.clone(), connection.clone());
        tokio::spawn(async move {
            let busy = host.busy.enter();
            let served = serve_super_stream(&host, &endpoint, &connection, send, recv);
            while_heard(&host, &connection, served).await;
            drop(busy);
        });
    }
}

async fn serve_super_stream(
    host: &Arc<Host>,
    endpoint: &Endpoint,
    connection: &Connection,
    send: SendStream,
    recv: RecvStream,
) {
    let Some((request, send, recv)) = first_frame(&host.offences, send, recv).await else {
        return;
    };
    match request {
        Request::RelayOffer(offer) => {
            let accepted = endpoint.accept_relayed(connection, &offer);
            reply(send, &Reply::from_result(accepted)).await;
        }
        other => serve(host, connection, other, send, recv).await,
    }
}

/// Serves one stream of a caller.
pub(crate) async fn serve_caller(
    host: &Arc<Host>,
    connection: &Connection,
    send: SendStream,
    recv: RecvStream,
) {
    if let Some((request, send, recv)) = first_frame(&host.offences, send, recv).await {
        serve(host, connection, request, send, recv).await;
    }
}

async fn serve(
    host: &Arc<Host>,
    connection: &Connection,
    request: Request,
    send: SendStream,
    recv: RecvStream,
) {
    match request {
        Request::Call(call) => calls::handle_call(host, connection, call, send, recv).await,
        // Rarer than calls: their futures shall not make those of calls larger.
        Request::Attach(attach) => Box::pin(calls::handle_attach(host, connection, &attach, send)).await,
        Request::Fetch(wanted) => Box::pin(artifacts::handle_fetch(host, &wanted, send)).await,
        Request::Info(_) => Box::pin(reply(send, &Reply::ok(&info(connection)))).await,
        Request::Unknown(unknown) => {
            let message = format!("this host does not know requests of type {}", unknown.tag);
            let fault = Fault::new(FaultKind::VersionMismatch, message);
            refuse(send, fault.help("update orb on the host")).await;
        }
        _ => {
            let fault = Fault::new(FaultKind::Refused, "a host does not answer such requests");
            refuse(send, fault.help("ask a super node")).await;
        }
    }
}

/// What the stream is for; if it does not say so in time, or not in words that are understood, it is
/// ended here.
async fn first_frame(
    offences: &Offences,
    mut send: SendStream,
    mut recv: RecvStream,
) -> Option<(Request, SendStream, RecvStream)> {
    let frame = read_message_within::<Request>(&mut recv, FIRST_FRAME_BYTES_MAX, FIRST_FRAME_MAX).await;
    if let Err(error) = &frame {
        offences.on_first_frame(error);
    }
    match frame {
        Ok(request) => return Some((request, send, recv)),
        Err(FrameError::Malformed(error)) => refuse(send, undecodable(&error)).await,
        Err(FrameError::TooLong { len, limit }) => {
            let message = format!("a request of {len} bytes is too long: a host takes {limit}");
            refuse(send, Fault::new(FaultKind::VersionMismatch, message)).await;
        }
        Err(_) => {
            let _ = send.reset(NOT_UNDERSTOOD);
        }
    }
    None
}

fn info(connection: &Connection) -> NodeInfo {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    NodeInfo {
        role: "node".to_owned(),
        software: env!("CARGO_PKG_VERSION").to_owned(),
        time_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        observed: connection.remote_address().to_string(),
        extensions: Extensions::none(),
    }
}
