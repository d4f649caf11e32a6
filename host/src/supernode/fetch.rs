//! Artifacts for hosts and owners.

use std::time::Duration;

use orb_protocol::fault::{Fault, FaultKind};
use orb_protocol::quic::body::BodyWriter;
use orb_protocol::quic::frames::FrameError;
use orb_protocol::wire::CHUNK_LEN_MAX;
use orb_protocol::wire::directory::{Fetch, Fetched};
use orb_protocol::wire::extension::Extensions;

use super::connection::Exchange;
use super::{SuperNode, directory, faults};

/// Memory for artifacts under way in either direction, in KiB: eight of the longest by default. Who
/// comes later waits.
pub(crate) const MEMORY_KIB: usize = 256 << 10;
/// How long a peer may take to read a chunk: a slow line does, one that stopped does not.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(15);

/// Sends an artifact, whole and verified.
///
/// # Errors
/// The fault to answer with, as long as nothing was answered.
pub(crate) async fn fetch(node: &SuperNode, asked: &Fetch, exchange: &mut Exchange) -> Result<(), Fault> {
    directory::check(&asked.extensions)?;
    let artifact = asked.artifact;
    let missing = || faults::of_object(&crate::store::objects::ObjectError::Missing(artifact));
    let len = node.storage.artifact_len(artifact).await.ok_or_else(missing)?;
    let _memory = memory(node, len).await?;
    let mut bytes = node
        .storage
        .artifact(artifact)
        .await
        .map_err(|error| faults::of_object(&error))?;
    let len = bytes.len() as u64;
    let offset = usize::try_from(asked.offset)
        .ok()
        .filter(|offset| *offset <= bytes.len())
        .ok_or_else(|| {
            let message = format!(
                "the artifact has {len} bytes, and {} are to be left out",
                asked.offset
            );
            Fault::new(FaultKind::InputInvalid, message)
        })?;
    let fetched = Fetched {
        len,
        extensions: Extensions::none(),
    };
    bytes = bytes.slice(offset..);
    let sent: Result<(), FrameError> = async {
        exchange.reply(Ok(fetched)).await?;
        let mut body = BodyWriter::new(&mut exchange.send);
        while !bytes.is_empty() {
            let chunk = bytes.split_to(bytes.len().min(CHUNK_LEN_MAX));
            tokio::time::timeout(CHUNK_TIMEOUT, body.write(chunk))
                .await
                .unwrap_or(Err(FrameError::TimedOut(CHUNK_TIMEOUT)))?;
        }
        body.finish().await
    }
    .await;
    if let Err(error) = sent {
        tracing::debug!(%artifact, %error, "an artifact was not taken");
        // Not the end that the peer expects, so that it does not take half for the whole.
        let _ = exchange
            .send
            .reset(quinn::VarInt::from_u32(super::close::TOO_SLOW));
    }
    Ok(())
}

/// Waits for memory for so many bytes.
///
/// # Errors
/// The super node is ending.
pub(crate) async fn memory(node: &SuperNode, bytes: u64) -> Result<tokio::sync::SemaphorePermit<'_>, Fault> {
    let kib = usize::try_from(bytes.div_ceil(1024)).unwrap_or(usize::MAX);
    let kib = u32::try_from(kib.min(MEMORY_KIB)).unwrap_or(u32::MAX);
    node.memory
        .acquire_many(kib)
        .await
        .map_err(|_| faults::of_store(&crate::store::database::StoreError::Closed))
}
