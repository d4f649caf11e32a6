//! Messages on a QUIC stream: a length (u32, little-endian) and that many bytes.
//!
//! A length is checked before anything is allocated for it, so a peer cannot make this node reserve
//! memory that it does not send bytes for.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use quinn::{ConnectionError, ReadError, ReadExactError, RecvStream, SendStream, WriteError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::wire::codec::{self, DecodeError, MESSAGE_LEN_MAX};

/// Bytes of a length.
pub(super) const LENGTH_LEN: usize = 4;
/// What is read of a frame at a time: memory grows with what has come, not with what was announced.
const READ_STEP_BYTES: usize = 64 << 10;

/// What may be left of a stream that was read as far as it matters: the end of a body.
const END_LEN_MAX: usize = 64;

/// Why a message or a body did not come, or could not be sent.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FrameError {
    /// The peer ended the stream where a message could have begun.
    #[error("the peer ended the stream")]
    Closed,
    /// The peer ended the stream inside a message.
    #[error("the peer ended the stream in the middle of a message")]
    Truncated,
    /// The peer gave the stream up: no more comes, or no more is taken.
    #[error("the peer gave the stream up (code {0})")]
    Reset(u64),
    /// This side has closed the stream already.
    #[error("this side has already closed the stream")]
    Finished,
    /// The connection ended.
    #[error("the connection was lost: {0}")]
    Lost(ConnectionError),
    /// Longer than it may be. Nothing of it was kept.
    #[error("the peer announced {len} bytes, {limit} are allowed")]
    TooLong {
        /// What was announced so far, in bytes.
        len: u64,
        /// What is allowed, in bytes.
        limit: u64,
    },
    /// Not the message that it should be.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// Not there in time.
    #[error("nothing came for {} ms", .0.as_millis())]
    TimedOut(Duration),
}

impl From<ReadError> for FrameError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(code) => Self::Reset(code.into_inner()),
            ReadError::ConnectionLost(error) => Self::Lost(error),
            // The other two cannot occur: every read here is in order, and nothing is sent early.
            ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => {
                Self::Finished
            }
        }
    }
}

impl From<WriteError> for FrameError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped(code) => Self::Reset(code.into_inner()),
            WriteError::ConnectionLost(error) => Self::Lost(error),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => Self::Finished,
        }
    }
}

/// What has come of a stream already, at most `len` bytes of it; `None` at its end. Nothing is lost by asking.
pub(super) fn read_now(stream: &mut RecvStream, len: usize) -> Poll<Result<Option<Bytes>, ReadError>> {
    let read = pin!(stream.read_chunk(len, true));
    let chunk = read.poll(&mut Context::from_waker(Waker::noop()));
    chunk.map_ok(|chunk| chunk.map(|chunk| chunk.bytes))
}

/// Takes the end of a stream of which all that matters was read, if it has come: the rest, if it is short,
/// and that nothing follows.
///
/// A stream that is dropped before asks its peer to send no more, even if nothing is left to be sent:
/// QUIC cannot know. That is a packet and its acknowledgement for each call.
pub fn take_end(stream: &mut RecvStream) {
    let mut taken = 0;
    while taken <= END_LEN_MAX
        && let Poll::Ready(Ok(Some(bytes))) = read_now(stream, END_LEN_MAX)
    {
        taken += bytes.len();
    }
}

/// Sends a message.
///
/// # Errors
///
/// [`FrameError`]; [`FrameError::TooLong`] for a message that no peer would take.
pub async fn write_message<T: Serialize>(stream: &mut SendStream, message: &T) -> Result<(), FrameError> {
    let frame = frame(&codec::encode(message))?;
    Ok(stream.write_all(&frame).await?)
}

/// Receives a message of at most `limit` bytes; the codec's own limit holds as well.
///
/// # Errors
///
/// [`FrameError`]; [`FrameError::Closed`] if the peer has ended the stream instead.
pub async fn read_message<T: DeserializeOwned>(
    stream: &mut RecvStream,
    limit: usize,
) -> Result<T, FrameError> {
    let limit = limit.min(MESSAGE_LEN_MAX);
    let len = read_length(stream, FrameError::Closed).await?;
    if len > limit {
        return Err(FrameError::TooLong {
            len: len as u64,
            limit: limit as u64,
        });
    }
    let bytes = read_bytes(stream, len).await?;
    Ok(codec::decode(&bytes)?)
}

/// The same, within a time.
///
/// # Errors
///
/// [`FrameError::TimedOut`], and those of [`read_message`].
pub async fn read_message_within<T: DeserializeOwned>(
    stream: &mut RecvStream,
    limit: usize,
    time: Duration,
) -> Result<T, FrameError> {
    tokio::time::timeout(time, read_message(stream, limit))
        .await
        .unwrap_or(Err(FrameError::TimedOut(time)))
}

fn frame(message: &[u8]) -> Result<Vec<u8>, FrameError> {
    let too_long = || FrameError::TooLong {
        len: message.len() as u64,
        limit: MESSAGE_LEN_MAX as u64,
    };
    if message.len() > MESSAGE_LEN_MAX {
        return Err(too_long());
    }
    let len = u32::try_from(message.len()).map_err(|_| too_long())?;
    let mut frame = Vec::with_capacity(LENGTH_LEN + message.len());
    frame.extend_from_slice(&len.to_le_bytes());
    frame.extend_from_slice(message);
    Ok(frame)
}

/// Reads a length; `at_end` is the error if the stream ends just before it.
pub(super) async fn read_length(stream: &mut RecvStream, at_end: FrameError) -> Result<usize, FrameError> {
    let mut len = [0; LENGTH_LEN];
    match stream.read_exact(&mut len).await {
        Ok(()) => Ok(u32::from_le_bytes(len) as usize),
        Err(ReadExactError::FinishedEarly(0)) => Err(at_end),
        Err(error) => Err(read_failed(error)),
    }
}

async fn read_bytes(stream: &mut RecvStream, len: usize) -> Result<Vec<u8>, FrameError> {
    let mut bytes = Vec::new();
    while bytes.len() < len {
        let start = bytes.len();
        bytes.resize(len.min(start + READ_STEP_BYTES), 0);
        stream
            .read_exact(&mut bytes[start..])
            .await
            .map_err(read_failed)?;
    }
    Ok(bytes)
}

pub(super) fn read_failed(error: ReadExactError) -> FrameError {
    match error {
        ReadExactError::FinishedEarly(_) => FrameError::Truncated,
        ReadExactError::ReadError(error) => error.into(),
    }
}
