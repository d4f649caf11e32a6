//! Artifacts for hosts and owners.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use orb_protocol::fault::{Fault, FaultKind};
use orb_protocol::id::ArtifactHash;
use orb_protocol::quic::body::BodyWriter;
use orb_protocol::quic::frames::FrameError;
use orb_protocol::wire::directory::{Fetch, Fetched, LOCAL};
use orb_protocol::wire::extension::Extensions;
use tokio::time::timeout;

use super::connection::Exchange;
use super::peers::artifacts;
use super::{SuperNode, close, directory, faults};
use crate::store::blocking;
use crate::store::objects::{CheckedFile, ObjectError};

/// Artifacts that are checked at once: it takes a core and the disk, so that more would not be faster.
pub(crate) const CHECKS_MAX: usize = 4;
/// How long a peer may have to wait for that.
const TURN_MAX: Duration = Duration::from_secs(15);
/// How long a peer may take to read a piece: a slow line does, one that stopped does not.
const PIECE_TIMEOUT: Duration = Duration::from_secs(15);

/// Why an artifact is not sent to its end.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Object(#[from] ObjectError),
}

/// Sends an artifact, verified before its first byte, and each piece again when it is read.
///
/// # Errors
/// The fault to answer with, as long as nothing was answered.
pub(crate) async fn fetch(node: &SuperNode, asked: &Fetch, exchange: &mut Exchange) -> Result<(), Fault> {
    directory::check(&asked.extensions)?;
    let file = open(node, asked).await?;
    if let Err(error) = send(&file, asked.offset, exchange).await {
        if let Broken::Frame(error) = &error {
            node.offences.on_answer(error);
        }
        tracing::debug!(artifact = %asked.artifact, %error, "an artifact was not sent to its end");
        // Not the end that the peer expects, so that it does not take half for the whole.
        let _ = exchange.send.reset(quinn::VarInt::from_u32(close::TOO_SLOW));
    }
    Ok(())
}

async fn open(node: &SuperNode, asked: &Fetch) -> Result<Arc<CheckedFile>, Fault> {
    let mut file = check(node, asked.artifact).await?;
    let missing = matches!(file, Err(ObjectError::Missing(_) | ObjectError::Damaged(_)));
    // A host here shall hold what was deployed elsewhere, or what this node's disk has lost. Others do not wait for
    // their turns meanwhile.
    if missing && asked.extensions.get(LOCAL).is_none() && artifacts::obtain_named(node, asked.artifact).await
    {
        file = check(node, asked.artifact).await?;
    }
    let file = file.map_err(|error| faults::of_object(&error))?;
    if asked.offset > file.len() {
        let (len, offset) = (file.len(), asked.offset);
        let message = format!("the artifact has {len} bytes, and {offset} are to be left out");
        return Err(Fault::new(FaultKind::InputInvalid, message));
    }
    Ok(Arc::new(file))
}

/// Opens an artifact that is here, checked, when it is its turn.
async fn check(node: &SuperNode, artifact: ArtifactHash) -> Result<Result<CheckedFile, ObjectError>, Fault> {
    let Ok(Ok(_turn)) = timeout(TURN_MAX, node.checks.acquire()).await else {
        let fault = Fault::new(
            FaultKind::Overloaded,
            "many artifacts are asked for at the moment",
        );
        return Err(fault.help("try again, or ask another holder"));
    };
    Ok(node.storage.open_artifact(artifact).await)
}

async fn send(file: &Arc<CheckedFile>, mut offset: u64, exchange: &mut Exchange) -> Result<(), Broken> {
    let fetched = Fetched {
        len: file.len(),
        extensions: Extensions::none(),
    };
    exchange.reply(Ok(fetched)).await?;
    let mut body = BodyWriter::new(&mut exchange.send);
    loop {
        let reading = Arc::clone(file);
        let piece = Bytes::from(blocking(move || reading.read(offset)).await?);
        if piece.is_empty() {
            return Ok(body.finish().await?);
        }
        offset += piece.len() as u64;
        timeout(PIECE_TIMEOUT, body.write(piece))
            .await
            .unwrap_or(Err(FrameError::TimedOut(PIECE_TIMEOUT)))?;
    }
}
