//! Answers a stream with a request's outcome: reply, answer in chunks, trailer.

use std::pin::pin;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use orb_protocol::fault::Fault;
use orb_protocol::wire::codec;
use orb_protocol::wire::{CHUNK_LEN_MAX, Reply};
use quinn::{ConnectionError, SendStream, StoppedError, VarInt, WriteError};
use serde::Serialize;
use tokio::time::timeout;

use super::offences::Offences;
use super::requests::{Reader, Step};

/// How long a caller may take none of what is sent to it: as long as QUIC waits for a silent peer.
/// Afterwards it counts as one that gave up.
const STALL_MAX: Duration = Duration::from_secs(15);
/// What is gathered before it is written, in bytes: a chunk with what stands around it.
const GATHERED_MAX: usize = CHUNK_LEN_MAX;
/// Shorter pieces are copied beside what stands around them, longer ones are passed on as they are.
const COPIED_MAX: usize = 4 * 1024;
/// The code of a connection that its peer needs no more.
const DONE: VarInt = VarInt::from_u32(0);
/// The code of a stream whose answer is read by another one, or is not whole any more.
const SUPERSEDED: VarInt = VarInt::from_u32(1);
/// The code of a stream whose caller does not read.
const STALLED: VarInt = VarInt::from_u32(2);

/// Passes a request's outcome on to its end, or until the caller is gone.
pub(crate) async fn answer(mut reader: Reader, mut stream: SendStream, offences: &Offences) {
    let stopped = stream.stopped();
    let end = {
        let mut stopped = pin!(stopped);
        tokio::select! {
            biased;
            stopped = &mut stopped => Err(gone(&stopped)),
            passed = pass_on(&mut reader, &mut stream) => match passed {
                // What was written may be on its way still.
                Ok(()) => timeout(STALL_MAX, stopped).await.map_or(Err(Gone::Stalled), |end| acknowledged(&end)),
                Err(gone) => Err(gone),
            },
        }
    };
    match end {
        Ok(()) => reader.delivered(),
        // It stays to be attached to.
        Err(Gone::Lost) => drop(reader),
        Err(Gone::GaveUp) => reader.gave_up(),
        Err(Gone::Stalled) => {
            offences.readers_stopped.add();
            let _ = stream.reset(STALLED);
            reader.gave_up();
        }
        Err(Gone::Superseded) => {
            let _ = stream.reset(SUPERSEDED);
        }
    }
}

/// Answers with a fault, and with nothing else.
pub(crate) async fn refuse(stream: SendStream, fault: Fault) {
    reply(stream, &Reply::fault(fault)).await;
}

/// Answers with one message. Whether the peer takes it is the peer's business.
pub(crate) async fn reply(mut stream: SendStream, reply: &Reply) {
    let mut parts = Parts::default();
    parts.frame(reply);
    if parts.write(&mut stream).await.is_ok() {
        let _ = stream.finish();
        // Until it is acknowledged the connection must not be closed under it.
        let _ = timeout(STALL_MAX, stream.stopped()).await;
    }
}

/// Why a stream need not be answered any more.
#[derive(Debug)]
enum Gone {
    /// Its connection ended.
    Lost,
    /// The caller said so.
    GaveUp,
    /// The caller does not read.
    Stalled,
    /// Another stream reads, or nobody can.
    Superseded,
}

fn gone(stopped: &Result<Option<VarInt>, StoppedError>) -> Gone {
    match stopped {
        Ok(_) => Gone::GaveUp,
        Err(StoppedError::ConnectionLost(error)) => ended(error),
        Err(StoppedError::ZeroRttRejected) => Gone::Lost,
    }
}

/// A caller that closes its connection without a complaint needs nothing of it any more. Every other
/// end is one after which it may come back.
fn ended(error: &ConnectionError) -> Gone {
    match error {
        ConnectionError::ApplicationClosed(close) if close.error_code == DONE => Gone::GaveUp,
        _ => Gone::Lost,
    }
}

fn acknowledged(stopped: &Result<Option<VarInt>, StoppedError>) -> Result<(), Gone> {
    match stopped {
        // A caller that wants no more of an answer that is whole has what it wants.
        Ok(_) => Ok(()),
        Err(_) => Err(gone(stopped)),
    }
}

async fn pass_on(reader: &mut Reader, stream: &mut SendStream) -> Result<(), Gone> {
    let mut parts = Parts::default();
    loop {
        let step = match reader.next_now() {
            Some(step) => step,
            None => {
                // Nothing more for now: what was gathered goes out.
                parts.write(stream).await?;
                reader.next().await
            }
        };
        match step {
            Step::Started(started) => parts.frame(&Reply::ok(&started)),
            Step::Output(piece) => {
                for chunk in chunks(piece) {
                    parts.chunk(chunk);
                    if parts.len >= GATHERED_MAX {
                        parts.write(stream).await?;
                    }
                }
            }
            Step::Ended(trailer) => {
                parts.chunk(Bytes::new());
                parts.frame(&trailer);
                break;
            }
            Step::NotStarted(fault) => {
                parts.frame(&Reply::fault(fault));
                break;
            }
            Step::Superseded => return Err(Gone::Superseded),
        }
    }
    parts.write(stream).await?;
    let _ = stream.finish();
    Ok(())
}

fn chunks(mut piece: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let len = piece.len().min(CHUNK_LEN_MAX);
        (len > 0).then(|| piece.split_to(len))
    })
}

/// What is written next, in one go: each write wakes the connection, so that small ones cost as much
/// as large ones.
#[derive(Debug, Default)]
struct Parts {
    small: BytesMut,
    whole: Vec<Bytes>,
    len: usize,
}

impl Parts {
    fn frame<T: Serialize>(&mut self, message: &T) {
        self.prefixed(codec::encode(message).into());
    }

    /// A chunk of a body; an empty one ends it.
    fn chunk(&mut self, bytes: Bytes) {
        self.prefixed(bytes);
    }

    fn prefixed(&mut self, bytes: Bytes) {
        let len = u32::try_from(bytes.len()).expect("messages and chunks are far shorter than 4 GiB");
        self.small.put_u32_le(len);
        self.len += size_of::<u32>() + bytes.len();
        if bytes.len() <= COPIED_MAX {
            self.small.put_slice(&bytes);
        } else {
            self.flush_small();
            self.whole.push(bytes);
        }
    }

    fn flush_small(&mut self) {
        if !self.small.is_empty() {
            self.whole.push(self.small.split().freeze());
        }
    }

    async fn write(&mut self, stream: &mut SendStream) -> Result<(), Gone> {
        self.flush_small();
        self.len = 0;
        if self.whole.is_empty() {
            return Ok(());
        }
        let mut parts = std::mem::take(&mut self.whole);
        match timeout(STALL_MAX, stream.write_all_chunks(&mut parts)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(WriteError::Stopped(_))) => Err(Gone::GaveUp),
            Ok(Err(WriteError::ConnectionLost(error))) => Err(ended(&error)),
            Ok(Err(_)) => Err(Gone::Lost),
            Err(_) => Err(Gone::Stalled),
        }
    }
}
