//! Fetches artifacts by hash from whoever is connected and has them.
//!
//! A transfer that breaks is taken up again where it broke, with the same source or the next. What
//! came is checked against the hash before it gets its name; a source whose bytes were wrong is not
//! asked again for the same artifact.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use orb_protocol::fault::Fault;
use orb_protocol::id::{ArtifactHash, NodeId};
use orb_protocol::quic::Connection;
use orb_protocol::quic::body::BodyReader;
use orb_protocol::quic::frames::{FrameError, read_message_within, write_message};
use orb_protocol::wire::codec::MESSAGE_LEN_MAX;
use orb_protocol::wire::directory::{Fetch, Fetched};
use orb_protocol::wire::extension::Extensions;
use orb_protocol::wire::{Reply, Request};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::store::blocking;
use crate::store::objects::{ObjectError, ObjectStore, ObjectWriter};

/// How long a source may take to answer, and to send the next bytes.
const STALL_MAX: Duration = Duration::from_secs(10);
/// How often all sources are asked; transfers that break go on where they broke.
const ROUNDS: usize = 3;
/// Between two rounds: a super node that restarts is back by then, or is asked at the next retry.
const ROUND_PAUSE: Duration = Duration::from_millis(300);
/// How long a fetch waits for a source to be there at all, before it counts as failed.
const SOURCE_WAIT: Duration = Duration::from_secs(30);
/// What is handed to the disk at a time, in bytes.
const WRITE_BYTES: usize = 1 << 20;

/// Whom artifacts can be had from: the super nodes that are connected.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    connected: Mutex<Vec<(NodeId, Connection)>>,
    changes: watch::Sender<usize>,
}

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

impl Sources {
    /// Somebody is connected.
    pub(crate) fn add(&self, node: NodeId, connection: Connection) {
        let mut connected = self.list();
        connected.retain(|(known, _)| *known != node);
        connected.push((node, connection));
        self.changes.send_replace(connected.len());
    }

    /// A connection ended.
    pub(crate) fn remove(&self, ended: &Connection) {
        let mut connected = self.list();
        let same = |connection: &Connection| connection.quinn().stable_id() == ended.quinn().stable_id();
        connected.retain(|(_, connection)| !same(connection));
        self.changes.send_replace(connected.len());
    }

    /// Whether somebody is connected.
    pub(crate) fn knows(&self, node: &NodeId) -> bool {
        self.list().iter().any(|(known, _)| known == node)
    }

    /// Ends all connections, as if they were lost.
    #[cfg(test)]
    pub(crate) fn close_all(&self) {
        for (_, connection) in self.all() {
            connection.close(9, "a test lost it");
        }
    }

    fn all(&self) -> Vec<(NodeId, Connection)> {
        self.list().clone()
    }

    async fn any(&self) -> Vec<(NodeId, Connection)> {
        let mut changes = self.changes.subscribe();
        // The sender lives as long as we do, so that only the time can end this.
        let _ = timeout(SOURCE_WAIT, changes.wait_for(|connected| *connected > 0)).await;
        self.all()
    }

    fn list(&self) -> std::sync::MutexGuard<'_, Vec<(NodeId, Connection)>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has an artifact of `len` bytes here, verified and durable. Fetches it unless it is here already.
///
/// # Errors
/// [`FetchError`]; nothing is left behind then.
pub(crate) async fn obtain(
    objects: &ObjectStore,
    sources: &Sources,
    artifact: ArtifactHash,
    len: u64,
) -> Result<(), FetchError> {
    let store = objects.clone();
    match blocking(move || store.open_checked(&artifact)).await {
        Ok(_) => return Ok(()),
        Err(ObjectError::Missing(_) | ObjectError::Damaged(_)) => {}
        Err(error) => return Err(error.into()),
    }
    Transfer::new(objects, artifact, len).run(sources).await
}

/// A transfer, over as many sources and connections as it takes.
struct Transfer<'a> {
    objects: &'a ObjectStore,
    artifact: ArtifactHash,
    len: u64,
    /// What came so far.
    writer: Option<ObjectWriter>,
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
            liars: Vec::new(),
            last_error: String::new(),
        }
    }

    async fn run(mut self, sources: &Sources) -> Result<(), FetchError> {
        for round in 0..ROUNDS {
            if round > 0 {
                tokio::time::sleep(ROUND_PAUSE).await;
            }
            let mut connected = sources.any().await;
            if connected.is_empty() {
                return Err(FetchError::NoSource);
            }
            connected.retain(|(node, _)| !self.liars.contains(node));
            for (node, connection) in connected {
                if self.from(node, &connection).await? {
                    return Ok(());
                }
            }
        }
        Err(FetchError::Sources(self.last_error))
    }

    /// Whether the artifact is here now. An error is this machine's.
    async fn from(&mut self, node: NodeId, connection: &Connection) -> Result<bool, FetchError> {
        match self.receive(connection).await {
            Ok(()) => {}
            Err(SourceError::Store(error)) => return Err(error.into()),
            Err(error) => {
                let source = node.short();
                tracing::debug!(artifact = %self.artifact, %source, %error, "a source did not do");
                self.last_error = format!("super node {source}: {error}");
                return Ok(false);
            }
        }
        let Some(writer) = self.writer.take() else {
            return Ok(false);
        };
        let artifact = self.artifact;
        match blocking(move || writer.commit(artifact)).await {
            Ok(()) => Ok(true),
            Err(error @ ObjectError::Mismatch { .. }) => {
                let source = node.short();
                tracing::warn!(%source, %error, "a super node sent other bytes than were asked for");
                self.last_error = format!("super node {source}: {error}");
                self.liars.push(node);
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the bytes that are missing.
    async fn receive(&mut self, connection: &Connection) -> Result<(), SourceError> {
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
        let mut waiting = Vec::new();
        let ended = loop {
            match timeout(STALL_MAX, body.next()).await {
                Ok(Ok(Some(bytes))) => waiting.extend_from_slice(&bytes),
                Ok(Ok(None)) => break Ok(()),
                Ok(Err(error)) => break Err(error),
                Err(_) => break Err(FrameError::TimedOut(STALL_MAX)),
            }
            if waiting.len() >= WRITE_BYTES {
                self.write(std::mem::take(&mut waiting)).await?;
            }
        };
        // Also what came before it broke.
        self.write(waiting).await?;
        if self.written() == self.len {
            return Ok(());
        }
        Err(ended.err().unwrap_or(FrameError::Truncated).into())
    }

    fn written(&self) -> u64 {
        self.writer.as_ref().map_or(0, ObjectWriter::written)
    }

    async fn write(&mut self, bytes: Vec<u8>) -> Result<(), ObjectError> {
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
