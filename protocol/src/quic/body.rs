//! Bodies on a QUIC stream: chunks of at most 64 KiB, each with its length (u32, little-endian) before
//! it; a length of zero ends the body.

use std::task::Poll;

use bytes::{Bytes, BytesMut};
use quinn::{RecvStream, SendStream};

use super::frames::{FrameError, LENGTH_LEN, read_length, read_now};
use crate::wire::CHUNK_LEN_MAX;

/// Sends a body. The stream stays open for what comes after it.
#[derive(Debug)]
pub struct BodyWriter<'a> {
    stream: &'a mut SendStream,
}

impl<'a> BodyWriter<'a> {
    /// Starts a body here.
    pub fn new(stream: &'a mut SendStream) -> Self {
        Self { stream }
    }

    /// Sends more of the body, in as many chunks as it takes. Waits while the peer does not read.
    ///
    /// # Errors
    ///
    /// [`FrameError`].
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), FrameError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let chunk = rest.split_to(rest.len().min(CHUNK_LEN_MAX));
            let mut parts = [length(chunk.len()), chunk];
            self.stream.write_all_chunks(&mut parts).await?;
        }
        Ok(())
    }

    /// Ends the body.
    ///
    /// # Errors
    ///
    /// [`FrameError`].
    pub async fn finish(self) -> Result<(), FrameError> {
        Ok(self.stream.write_chunk(length(0)).await?)
    }
}

/// Sends a whole body.
///
/// # Errors
///
/// [`FrameError`].
pub async fn write_body(stream: &mut SendStream, bytes: Bytes) -> Result<(), FrameError> {
    let mut body = BodyWriter::new(stream);
    body.write(bytes).await?;
    body.finish().await
}

/// Receives a body. The stream stays open for what comes after it.
#[derive(Debug)]
pub struct BodyReader<'a> {
    stream: &'a mut RecvStream,
    limit: u64,
    announced: u64,
    left_in_chunk: usize,
    ended: bool,
}

impl<'a> BodyReader<'a> {
    /// Starts at a body of at most `limit` bytes.
    pub fn new(stream: &'a mut RecvStream, limit: u64) -> Self {
        Self {
            stream,
            limit,
            announced: 0,
            left_in_chunk: 0,
            ended: false,
        }
    }

    /// The next bytes, as they come and never more than a chunk; `None` when the body has ended.
    ///
    /// # Errors
    ///
    /// [`FrameError`]; [`FrameError::TooLong`] as soon as more is announced than the limit allows.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        if self.left_in_chunk == 0 && !self.ended {
            self.begin_chunk().await?;
        }
        if self.ended {
            return Ok(None);
        }
        let read = self.stream.read_chunk(self.left_in_chunk, true).await?;
        let bytes = read.ok_or(FrameError::Truncated)?.bytes;
        self.left_in_chunk -= bytes.len();
        Ok(Some(bytes))
    }

    /// The same, with what else of its chunk has come: a piece that is passed on costs as much as a
    /// larger one, and QUIC gives packet by packet.
    ///
    /// # Errors
    ///
    /// As [`BodyReader::next`].
    pub async fn next_gathered(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(first) = self.next().await? else {
            return Ok(None);
        };
        let mut gathered = BytesMut::new();
        // Within a chunk nothing is lost of a read that is given up; a length might be.
        while self.left_in_chunk > 0
            && let Poll::Ready(read) = read_now(self.stream, self.left_in_chunk)
        {
            let bytes = read?.ok_or(FrameError::Truncated)?;
            self.left_in_chunk -= bytes.len();
            if gathered.is_empty() {
                gathered.extend_from_slice(&first);
            }
            gathered.extend_from_slice(&bytes);
        }
        Ok(Some(if gathered.is_empty() {
            first
        } else {
            gathered.freeze()
        }))
    }

    /// All the rest of the body.
    ///
    /// # Errors
    ///
    /// [`FrameError`].
    pub async fn read_all(&mut self) -> Result<Vec<u8>, FrameError> {
        let mut all = Vec::new();
        while let Some(bytes) = self.next().await? {
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }

    async fn begin_chunk(&mut self) -> Result<(), FrameError> {
        let len = read_length(self.stream, FrameError::Truncated).await?;
        self.announced = self.announced.saturating_add(len as u64);
        let too_long = |len, limit| Err(FrameError::TooLong { len, limit });
        if self.announced > self.limit {
            return too_long(self.announced, self.limit);
        }
        if len > CHUNK_LEN_MAX {
            return too_long(len as u64, CHUNK_LEN_MAX as u64);
        }
        self.left_in_chunk = len;
        self.ended = len == 0;
        Ok(())
    }
}

fn length(len: usize) -> Bytes {
    let len = u32::try_from(len).expect("a chunk is shorter than 4 GiB");
    Bytes::copy_from_slice(&len.to_le_bytes() as &[u8; LENGTH_LEN])
}
