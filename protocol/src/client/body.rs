//! What goes into a call and what comes out of it, kept so that a call can be made again.

use bytes::{Bytes, BytesMut};
use tokio::sync::{Notify, mpsc};

use super::error::Broken;
use crate::fault::{Fault, FaultKind};
use crate::quic::body::{BodyWriter, write_body};
use crate::wire::CHUNK_LEN_MAX;

/// An input up to this length is copied beside the request, in bytes: a few packets.
const SHORT_MAX: usize = 8 * 1024;

/// A part of a streamed input.
#[derive(Debug)]
pub(super) enum Part {
    Bytes(Bytes),
    End,
}

/// A call's input.
pub(super) enum Input {
    /// All of it is here: it can be sent as often as needed.
    Whole(Bytes),
    /// It comes bit by bit.
    Stream(InputStream),
}

/// An input that comes bit by bit. What is sent before the host has started is kept, at most a
/// chunk; so is the rest of a part that was too long for that.
pub(super) struct InputStream {
    parts: mpsc::Receiver<Part>,
    kept: Vec<Bytes>,
    kept_len: usize,
    /// What comes next, if it was received and not sent yet.
    pending: Option<Part>,
    /// More was sent than is kept.
    forgotten: bool,
}

impl Input {
    pub(super) fn stream(parts: mpsc::Receiver<Part>) -> Self {
        Self::Stream(InputStream {
            parts,
            kept: Vec::new(),
            kept_len: 0,
            pending: None,
            forgotten: false,
        })
    }

    /// The length, if it is known.
    pub(super) fn len(&self) -> Option<u64> {
        match self {
            Self::Whole(bytes) => Some(bytes.len() as u64),
            Self::Stream(_) => None,
        }
    }

    /// All of it, if it is here and short.
    pub(super) fn short(&self) -> Option<&Bytes> {
        match self {
            Self::Whole(bytes) if bytes.len() <= SHORT_MAX => Some(bytes),
            _ => None,
        }
    }

    /// Whether all that was sent so far can be sent again.
    pub(super) fn can_be_sent_again(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Stream(stream) => !stream.forgotten,
        }
    }

    /// Sends it from its beginning to its end. `started` tells that the host has started.
    pub(super) async fn send(
        &mut self,
        stream: &mut quinn::SendStream,
        started: &Notify,
    ) -> Result<(), Broken> {
        match self {
            Self::Whole(bytes) => Ok(write_body(stream, bytes.clone()).await?),
            Self::Stream(input) => input.send(BodyWriter::new(stream), started).await,
        }
    }
}

impl InputStream {
    async fn send(&mut self, mut body: BodyWriter<'_>, started: &Notify) -> Result<(), Broken> {
        for bytes in &self.kept {
            body.write(bytes.clone()).await?;
        }
        while let Some(bytes) = self.next_to_keep().await? {
            body.write(bytes).await?;
        }
        if !matches!(self.pending, Some(Part::End)) {
            started.notified().await;
        }
        while let Some(bytes) = self.next().await? {
            self.forgotten = true;
            body.write(bytes).await?;
        }
        Ok(body.finish().await?)
    }

    /// The next bytes that fit beside those that are kept; `None` at the end, or if there is no room.
    async fn next_to_keep(&mut self) -> Result<Option<Bytes>, Broken> {
        let Some(mut bytes) = self.next().await? else {
            return Ok(None);
        };
        let room = CHUNK_LEN_MAX - self.kept_len;
        if bytes.len() > room {
            self.pending = Some(Part::Bytes(bytes.split_off(room)));
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        self.kept_len += bytes.len();
        self.kept.push(bytes.clone());
        Ok(Some(bytes))
    }

    /// The next bytes, never none of them; `None` at the end, again and again.
    async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        loop {
            let part = match self.pending.take() {
                Some(part) => Some(part),
                None => self.parts.recv().await,
            };
            match part {
                Some(Part::Bytes(bytes)) if bytes.is_empty() => {}
                Some(Part::Bytes(bytes)) => return Ok(Some(bytes)),
                Some(Part::End) => {
                    self.pending = Some(Part::End);
                    return Ok(None);
                }
                None => return Err(given_up().into()),
            }
        }
    }
}

fn given_up() -> Fault {
    Fault::new(
        FaultKind::InputInvalid,
        "the caller gave the input up before its end",
    )
    .help("finish the input")
}

/// Where a call's answer goes.
pub(super) enum Output {
    /// All of it is collected, up to a limit in bytes.
    Collect(Collected),
    /// It is handed on as it comes.
    Stream(OutputStream),
}

pub(super) struct Collected {
    /// A short answer stays in the one piece in which it came.
    first: Bytes,
    more: BytesMut,
    limit: u64,
}

pub(super) struct OutputStream {
    parts: mpsc::Sender<Bytes>,
    /// Bytes that the caller has.
    delivered: u64,
    /// Of those, bytes that come once more after an attach.
    to_skip: u64,
}

impl Output {
    pub(super) fn collect(limit: u64) -> Self {
        Self::Collect(Collected {
            first: Bytes::new(),
            more: BytesMut::new(),
            limit,
        })
    }

    pub(super) fn stream(parts: mpsc::Sender<Bytes>) -> Self {
        Self::Stream(OutputStream {
            parts,
            delivered: 0,
            to_skip: 0,
        })
    }

    /// The longest answer that is taken, in bytes.
    pub(super) fn limit(&self) -> u64 {
        match self {
            Self::Collect(collected) => collected.limit,
            Self::Stream(_) => u64::MAX,
        }
    }

    /// Whether another run's answer could still take the place of this one's.
    pub(super) fn can_be_replaced(&self) -> bool {
        match self {
            Self::Collect(_) => true,
            Self::Stream(stream) => stream.delivered == 0,
        }
    }

    /// An answer begins: of the same run as before if the caller has a part of it already.
    pub(super) fn begin(&mut self) {
        match self {
            Self::Collect(collected) => *self = Self::collect(collected.limit),
            Self::Stream(stream) => stream.to_skip = stream.delivered,
        }
    }

    /// Takes a part of the answer; waits while the caller does not take it.
    pub(super) async fn put(&mut self, bytes: Bytes) {
        match self {
            Self::Collect(collected) => collected.put(bytes),
            Self::Stream(stream) => stream.put(bytes).await,
        }
    }

    /// The collected answer.
    pub(super) fn into_collected(self) -> Bytes {
        match self {
            Self::Collect(Collected { first, more, .. }) if more.is_empty() => first,
            Self::Collect(Collected { more, .. }) => more.freeze(),
            Self::Stream(_) => Bytes::new(),
        }
    }
}

impl Collected {
    fn put(&mut self, bytes: Bytes) {
        if self.first.is_empty() {
            self.first = bytes;
            return;
        }
        if self.more.is_empty() {
            self.more.extend_from_slice(&self.first);
        }
        self.more.extend_from_slice(&bytes);
    }
}

impl OutputStream {
    async fn put(&mut self, mut bytes: Bytes) {
        let skip = self.to_skip.min(bytes.len() as u64);
        self.to_skip -= skip;
        let _ = bytes.split_to(usize::try_from(skip).unwrap_or(bytes.len()));
        if !bytes.is_empty() {
            self.delivered += bytes.len() as u64;
            // A caller that has gone away cancels the whole call; nobody is left to be told.
            let _ = self.parts.send(bytes).await;
        }
    }
}
