//! One exchange on a stream of its own.

use std::time::Duration;

use quinn::{RecvStream, SendStream, VarInt};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout};

use super::error::Broken;
use crate::quic::frames::{FrameError, read_message, take_end, write_message};
use crate::quic::{Connection, Hold};
use crate::wire::codec::{self, MESSAGE_LEN_MAX};
use crate::wire::{Reply, Request};

/// The code with which a client closes a connection that it needs no more, as QUIC does by itself:
/// a host cancels what still runs for it.
pub(super) const CODE_DONE: u32 = 0;
/// The code with which a client gives up a stream: the host cancels the call.
const CODE_CANCELLED: u32 = 1;
/// The code with which a client closes a connection on which it heard nothing: it may attach to its
/// calls by another one.
pub(super) const CODE_SILENT: u32 = 2;

/// A peer that was silent for this long is gone: three of the pings that it should have answered.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// A peer that was just sent something and from which nothing at all came for this long, not even an
/// acknowledgement, may be gone: QUIC has sent it again two or three times by then.
const FIRST_SIGN_MAX: Duration = Duration::from_secs(1);
/// What a call takes on the wire beside its body, in bytes, with a credential and a trace.
const REQUEST_LEN_USUAL: usize = 256;
/// How often is looked whether something came.
const SILENCE_STEP: Duration = Duration::from_millis(500);

/// A stream that is given up in both directions, unless it was [ended](Exchange::ended) before; as
/// long as it is there, the connection is kept alive.
pub(super) struct Exchange {
    pub(super) send: SendStream,
    pub(super) recv: RecvStream,
    over: bool,
    _hold: Hold,
}

impl Exchange {
    /// Opens a stream. The peer hears of it with the first byte.
    pub(super) async fn open(connection: &Connection) -> Result<Self, Broken> {
        let hold = connection.hold();
        let (send, recv) = connection.open_bi().await.map_err(FrameError::Lost)?;
        Ok(Self {
            send,
            recv,
            over: false,
            _hold: hold,
        })
    }

    /// Sends the request, the first message of every exchange.
    pub(super) async fn request(&mut self, request: &Request) -> Result<(), Broken> {
        Ok(write_message(&mut self.send, request).await?)
    }

    /// Sends the request and a whole body of at most a chunk, in one piece: fewer packets and wake-ups
    /// than piece by piece.
    pub(super) async fn request_with_body(&mut self, request: &Request, body: &[u8]) -> Result<(), Broken> {
        let mut bytes = Vec::with_capacity(REQUEST_LEN_USUAL + body.len());
        append(&mut bytes, &codec::encode(request));
        if !body.is_empty() {
            append(&mut bytes, body);
        }
        // A chunk of no length ends the body.
        append(&mut bytes, &[]);
        self.send.write_all(&bytes).await.map_err(FrameError::from)?;
        self.finish();
        Ok(())
    }

    /// Says that nothing more is sent.
    pub(super) fn finish(&mut self) {
        // It can only have been finished or given up before: then there is nothing to say.
        let _ = self.send.finish();
    }

    /// Waits for the next reply.
    pub(super) async fn reply<T: DeserializeOwned>(&mut self) -> Result<T, Broken> {
        let reply: Reply = read_message(&mut self.recv, MESSAGE_LEN_MAX).await?;
        Ok(reply.into_result()?)
    }

    /// Says that everything has come that should.
    pub(super) fn ended(&mut self) {
        take_end(&mut self.recv);
        self.over = true;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.over {
            // Both fail only for streams that are over anyway.
            let _ = self.send.reset(VarInt::from_u32(CODE_CANCELLED));
            let _ = self.recv.stop(VarInt::from_u32(CODE_CANCELLED));
        }
    }
}

/// Appends a frame or a chunk: its length, and itself.
fn append(bytes: &mut Vec<u8>, part: &[u8]) {
    let len = u32::try_from(part.len()).expect("requests and chunks are shorter than 4 GiB");
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(part);
}

/// Asks for one thing and gets one reply, within `wait`.
pub(super) async fn ask<T: DeserializeOwned>(
    connection: &Connection,
    request: &Request,
    wait: Duration,
) -> Result<T, Broken> {
    let talk = async {
        let mut exchange = Exchange::open(connection).await?;
        exchange.request(request).await?;
        exchange.finish();
        let answer = exchange.reply().await?;
        exchange.ended();
        Ok(answer)
    };
    unless_silent(connection, within(wait, talk)).await
}

/// Bounds a talk with a peer.
pub(super) async fn within<T>(
    wait: Duration,
    talk: impl Future<Output = Result<T, Broken>>,
) -> Result<T, Broken> {
    match timeout(wait, talk).await {
        Ok(result) => result,
        Err(_) => Err(Broken::Lost(format!("no answer within {} ms", wait.as_millis()))),
    }
}

/// Runs a talk for as long as the peer gives signs of life. A silent peer's connection is closed, so
/// that nobody uses it again.
pub(super) async fn unless_silent<T>(
    connection: &Connection,
    talk: impl Future<Output = Result<T, Broken>>,
) -> Result<T, Broken> {
    tokio::select! {
        result = talk => result,
        () = silence(connection) => {
            connection.close(CODE_SILENT, "silent");
            Err(Broken::Lost(format!("nothing was heard for {} s", SILENCE_MAX.as_secs())))
        }
    }
}

/// Waits until nothing came for [`SILENCE_MAX`]. Only for connections that are held: others may rest.
async fn silence(connection: &Connection) {
    let (mut last, mut since) = (heard(connection), Instant::now());
    while since.elapsed() < SILENCE_MAX {
        sleep(SILENCE_STEP).await;
        let now = heard(connection);
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
}

/// Runs a talk that has just sent something, unless no sign of life comes at all.
pub(super) async fn unless_dead<T>(
    connection: &Connection,
    talk: impl Future<Output = Result<T, Broken>>,
) -> Result<T, Broken> {
    let before = heard(connection);
    tokio::pin!(talk);
    match timeout(FIRST_SIGN_MAX, &mut talk).await {
        Ok(result) => result,
        Err(_) if heard(connection) == before => Err(Broken::Lost("it gives no sign of life".to_owned())),
        Err(_) => talk.await,
    }
}

/// How many datagrams came so far.
pub(super) fn heard(connection: &Connection) -> u64 {
    connection.quinn().stats().udp_rx.datagrams
}
