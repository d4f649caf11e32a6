//! Fetches artifacts from hosts here and from other super nodes: for hosts that shall hold them, and for safe
//! keeping where this node is in a function's directory.

use std::time::Duration;

use orb_protocol::fault::Fault;
use orb_protocol::id::{ArtifactHash, FunctionId};
use orb_protocol::manifest::Verified;
use orb_protocol::quic::Connection;
use orb_protocol::quic::body::BodyReader;
use orb_protocol::quic::frames::{FrameError, read_message_within, write_message};
use orb_protocol::wire::codec::MESSAGE_LEN_MAX;
use orb_protocol::wire::directory::{Fetch, Fetched, LOCAL};
use orb_protocol::wire::extension::Extensions;
use orb_protocol::wire::{Reply, Request};
use quinn::RecvStream;
use tokio::time::timeout;

use super::super::SuperNode;
use super::super::storage::Pin;
use crate::store::objects::{ObjectError, ObjectWriter};

/// Artifacts that are fetched at one time: enough to fill a line, and each may have a megabyte in memory.
pub(crate) const OBTAINS_MAX: usize = 8;
/// How long a source may take to answer, and to send the next bytes.
const STALL_MAX: Duration = Duration::from_secs(10);
/// A source that is slower, in the mean, is given up: it would keep a place from others. A slow home line's upload.
const LEAST_BYTES_PER_S: u64 = 32 << 10;
/// Functions of which holders are looked for, if many have the same artifact.
const FUNCTIONS_MAX: usize = 4;
/// What is handed to the disk at a time, in bytes.
const STEP_BYTES: usize = 1 << 20;

/// Why a source did not do.
#[derive(Debug, thiserror::Error)]
enum SourceError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Said(Fault),
    #[error("the artifact has {0} bytes, and no more than this node's limit are taken")]
    TooLong(u64),
    #[error(transparent)]
    Store(#[from] ObjectError),
}

/// Has a revision's artifact here, if anybody has it.
pub(crate) async fn obtain_for(node: &SuperNode, manifest: &Verified) {
    if let Some(publish) = manifest.publish() {
        obtain(node, publish.artifact, &[manifest.function()]).await;
    }
}

/// Has an artifact here that some revision has named, if anybody has it. Returns whether it is.
pub(crate) async fn obtain_named(node: &SuperNode, artifact: ArtifactHash) -> bool {
    let functions = node.storage.needing(artifact, FUNCTIONS_MAX).await;
    !functions.is_empty() && obtain(node, artifact, &functions).await
}

/// Has an artifact here, verified and durable, if anybody has it: hosts here that hold one of the functions,
/// super nodes of its directory, the other ones. Returns whether it is.
async fn obtain(node: &SuperNode, artifact: ArtifactHash, functions: &[FunctionId]) -> bool {
    if node.storage.open_artifact(artifact).await.is_ok() {
        return true;
    }
    let Ok(_place) = node.obtains.acquire().await else {
        return false;
    };
    let pin = node.storage.pin(artifact).await;
    for connection in node.driver.sources(functions) {
        match receive(node, &connection, &pin, artifact).await {
            Ok(()) => return true,
            Err(error) => {
                let source = connection.peer();
                tracing::debug!(%artifact, %source, %error, "an artifact was not had from there");
            }
        }
    }
    false
}

async fn receive(
    node: &SuperNode,
    connection: &Connection,
    pin: &Pin,
    artifact: ArtifactHash,
) -> Result<(), SourceError> {
    let (mut send, mut recv) = timeout(STALL_MAX, connection.open_bi())
        .await
        .map_err(|_| FrameError::TimedOut(STALL_MAX))?
        .map_err(FrameError::Lost)?;
    let request = Fetch {
        artifact,
        offset: 0,
        extensions: Extensions::none().with(LOCAL, Vec::new()),
    };
    write_message(&mut send, &Request::from(request)).await?;
    let _ = send.finish();
    let reply: Reply = read_message_within(&mut recv, MESSAGE_LEN_MAX, STALL_MAX).await?;
    let fetched: Fetched = reply.into_result().map_err(SourceError::Said)?;
    if fetched.len > node.policy.artifact_bytes_max {
        return Err(SourceError::TooLong(fetched.len));
    }
    let enough = STALL_MAX + Duration::from_secs(fetched.len / LEAST_BYTES_PER_S);
    timeout(enough, take(node, pin, fetched.len, &mut recv))
        .await
        .unwrap_or(Err(FrameError::TimedOut(enough).into()))
}

/// Takes the bytes.
async fn take(node: &SuperNode, pin: &Pin, len: u64, recv: &mut RecvStream) -> Result<(), SourceError> {
    let mut body = BodyReader::new(recv, len);
    let (mut writer, mut buffer): (Option<ObjectWriter>, Vec<u8>) = (None, Vec::new());
    loop {
        let next = timeout(STALL_MAX, body.next())
            .await
            .unwrap_or(Err(FrameError::TimedOut(STALL_MAX)))?;
        let ended = next.is_none();
        buffer.extend_from_slice(&next.unwrap_or_default());
        if ended || buffer.len() >= STEP_BYTES {
            let written = node.storage.write(writer, std::mem::take(&mut buffer)).await?;
            if ended {
                // Compared with its hash before it gets its name.
                return Ok(node.storage.commit(pin, written).await?);
            }
            writer = Some(written);
        }
    }
}
