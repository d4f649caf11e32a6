//! Fetches artifacts by hash from whoever has them: super nodes, whose line is there already, or else other holders.
//!
//! A transfer that breaks is taken up again where it broke, with the same source or the next. What
//! came is checked against the hash before it gets its name; a source whose bytes were wrong is not
//! asked again for the same artifact.

use std::time::Duration;

use orb_protocol::fault::Fault;
use orb_protocol::id::{ArtifactHash, FunctionId, NodeId};
use orb_protocol::manifest::Publish;
use orb_protocol::quic::Connection;
use orb_protocol::quic::body::BodyReader;
use orb_protocol::quic::frames::{FrameError, read_message_within, write_message};
use orb_protocol::wire::codec::MESSAGE_LEN_MAX;
use orb_protocol::wire::directory::{Fetch, Fetched};
use orb_protocol::wire::extension::Extensions;
use orb_protocol::wire::{Reply, Request};
use tokio::time::{Instant, timeout, timeout_at};

use super::sources::{Holders, Sources};
use crate::store::blocking;
use crate::store::objects::{ObjectError, ObjectStore, ObjectWriter};

/// How long a source may take to answer, and to send the next bytes.
const STALL_MAX: Duration = Duration::from_secs(10);
/// How often all sources are asked; transfers that break go on where they broke.
const ROUNDS: usize = 3;
/// Between two rounds: a super node that restarts is back by then, or is asked at the next retry.
const ROUND_PAUSE: Duration = Duration::from_millis(300);
/// A source that is slower, in the mean, is given up, and the next goes on: a slow home line's upload.
const LEAST_BYTES_PER_S: u64 = 32 << 10;
/// What is handed to the disk at a time, in bytes.
const WRITE_BYTES: usize = 1 << 20;

/// Why there is no artifact.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// Nobody is connected.
    #[error("no super node is connected to fetch it from")]
    NoSource,
    /// Everybody who was asked failed.
    #[error("it could not be fetched: {0}")]
    Sources(String),
    /// The disk.
    #[error(transparent)]
    Store(#[from] ObjectError),
}

/// Why one source did not do.
#[derive(Debug, thiserror::Error)]
enum SourceError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Said(Fault),
    #[error("it has {found} bytes under this hash, and the manifest says {wanted}")]
    Length { found: u64, wanted: u64 },
    #[error(transparent)]
    Store(#[from] ObjectError),
}

/// Has a function's artifact here, verified and durable. Fetches it unless it is here already.
///
/// # Errors
/// [`FetchError`]; nothing is left behind then.
pub(crate) async fn obtain(
    objects: &ObjectStore,
    sources: &Sources,
    function: FunctionId,
    publish: &Publish,
) -> Result<(), FetchError> {
    let (store, artifact) = (objects.clone(), publish.artifact);
    match blocking(move || store.open_checked(&artifact)).await {
        Ok(_) => return Ok(()),
        Err(ObjectError::Missing(_) | ObjectError::Damaged(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let transfer = Transfer::new(objects, artifact, publish.artifact_bytes);
    transfer.run(sources, function).await
}

/// A transfer, over as many sources and connections as it takes.
struct Transfer<'a> {
    objects: &'a ObjectStore,
    artifact: ArtifactHash,
    len: u64,
    /// What came so far, and from whom.
    writer: Option<ObjectWriter>,
    parts: Vec<NodeId>,
    /// Parts from several sources did not fit together: each is asked for all of it.
    alone: bool,
    /// Sources whose bytes were wrong.
    liars: Vec<NodeId>,
    last_error: String,
}

impl<'a> Transfer<'a> {
    fn new(objects: &'a ObjectStore, artifact: ArtifactHash, len: u64) -> Self {
        Self {
            objects,
            artifact,
            len,
            writer: None,
            parts: Vec::new(),
            alone: false,
            liars: Vec::new(),
            last_error: String::new(),
        }
    }

    async fn run(mut self, sources: &Sources, function: FunctionId) -> Result<(), FetchError> {
        for round in 0..ROUNDS {
            if round > 0 {
                tokio::time::sleep(ROUND_PAUSE).await;
            }
            let connected = sources.any().await;
            if connected.is_empty() {
                return Err(FetchError::NoSource);
            }
            for (node, connection) in connected {
                if self.ask("super node", node, &connection).await? {
                    return Ok(());
                }
            }
            if self.ask_holders(sources, function).await? {
                return Ok(());
            }
        }
        Err(FetchError::Sources(self.last_error))
    }

    /// Asks hosts that hold the function. Whether the artifact is here now.
    async fn ask_holders(&mut self, sources: &Sources, function: FunctionId) -> Result<bool, FetchError> {
        let mut holders = match Holders::find(sources, function).await {
            Ok(holders) => holders,
            Err(error) => {
                tracing::debug!(artifact = %self.artifact, %error, "no other holder is known");
                return Ok(false);
            }
        };
        let done = loop {
            match holders.next().await {
                None => break Ok(false),
                Some((node, Ok(holder))) => match self.ask("host", node, holder.connection()).await {
                    Ok(false) => {}
                    done => break done,
                },
                Some((node, Err(error))) => self.did_not_do("host", node, &error),
            }
        };
        holders.close().await;
        done
    }

    /// Asks one source. Whether the artifact is here now. An error is this machine's.
    async fn ask(&mut self, role: &str, node: NodeId, connection: &Connection) -> Result<bool, FetchError> {
        if self.liars.contains(&node) {
            return Ok(false);
        }
        if self.alone && self.parts != [node] {
            self.begin_anew();
        }
        match self.receive(node, connection).await {
            Ok(()) => {}
            Err(SourceError::Store(error)) => return Err(error.into()),
            Err(error) => {
                self.did_not_do(role, node, &error);
                return Ok(false);
            }
        }
        let Some(writer) = self.writer.take() else {
            return Ok(false);
        };
        let (artifact, parts) = (self.artifact, std::mem::take(&mut self.parts));
        match blocking(move || writer.commit(artifact)).await {
            Ok(()) => {
                tracing::debug!(%artifact, from = role, source = %node.short(), "an artifact was fetched");
                Ok(true)
            }
            Err(error @ ObjectError::Mismatch { .. }) => {
                tracing::warn!(from = role, source = %node.short(), %error, "other bytes came than were asked for");
                self.did_not_do(role, node, &error);
                if parts.len() > 1 {
                    // Any of them may be the one that lied.
                    self.alone = true;
                    return Box::pin(self.ask(role, node, connection)).await;
                }
                self.liars.push(node);
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn begin_anew(&mut self) {
        self.writer = None;
        self.parts.clear();
    }

    fn did_not_do(&mut self, role: &str, node: NodeId, error: &dyn std::fmt::Display) {
        let source = node.short();
        tracing::debug!(artifact = %self.artifact, from = role, %source, %error, "a source did not do");
        self.last_error = format!("{role} {source}: {error}");
    }

    /// Takes the bytes that are missing.
    async fn receive(&mut self, node: NodeId, connection: &Connection) -> Result<(), SourceError> {
        let offset = self.written();
        let (mut send, mut recv) = timeout(STALL_MAX, connection.open_bi())
            .await
            .map_err(|_| FrameError::TimedOut(STALL_MAX))?
            .map_err(FrameError::Lost)?;
        let request = Fetch {
            artifact: self.artifact,
            offset,
            extensions: Extensions::none(),
        };
        write_message(&mut send, &Request::from(request)).await?;
        // The answer tells whether this was understood.
        let _ = send.finish();
        let reply: Reply = read_message_within(&mut recv, MESSAGE_LEN_MAX, STALL_MAX).await?;
        let fetched: Fetched = reply.into_result().map_err(SourceError::Said)?;
        if fetched.len != self.len {
            return Err(SourceError::Length {
                found: fetched.len,
                wanted: self.len,
            });
        }
        let mut body = BodyReader::new(&mut recv, self.len - offset);
        let enough = Instant::now() + STALL_MAX + Duration::from_secs(self.len / LEAST_BYTES_PER_S);
        let mut waiting = Vec::new();
        let ended = loop {
            match timeout_at(enough.min(Instant::now() + STALL_MAX), body.next()).await {
                Ok(Ok(Some(bytes))) => waiting.extend_from_slice(&bytes),
                Ok(Ok(None)) => break Ok(()),
                Ok(Err(error)) => break Err(error),
                Err(_) => break Err(FrameError::TimedOut(STALL_MAX)),
            }
            if waiting.len() >= WRITE_BYTES {
                self.write(node, std::mem::take(&mut waiting)).await?;
            }
        };
        // Also what came before it broke.
        self.write(node, waiting).await?;
        if self.written() == self.len {
            return Ok(());
        }
        Err(ended.err().unwrap_or(FrameError::Truncated).into())
    }

    fn written(&self) -> u64 {
        self.writer.as_ref().map_or(0, ObjectWriter::written)
    }

    async fn write(&mut self, node: NodeId, bytes: Vec<u8>) -> Result<(), ObjectError> {
        if !bytes.is_empty() && !self.parts.contains(&node) {
            self.parts.push(node);
        }
        let (objects, writer) = (self.objects.clone(), self.writer.take());
        let writer = blocking(move || {
            let mut writer = writer.map_or_else(|| objects.writer(), Ok)?;
            writer.write(&bytes)?;
            Ok::<_, ObjectError>(writer)
        });
        self.writer = Some(writer.await?);
        Ok(())
    }
}
