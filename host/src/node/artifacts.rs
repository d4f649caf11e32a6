//! Gives artifacts to others: a host is a holder like any other.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use orb_protocol::fault::{Fault, FaultKind};
use orb_protocol::quic::body::BodyWriter;
use orb_protocol::quic::frames::{FrameError, write_message};
use orb_protocol::wire::Reply;
use orb_protocol::wire::directory::{Fetch, Fetched};
use orb_protocol::wire::extension::Extensions;
use quinn::{SendStream, VarInt};
use tokio::time::timeout;

use super::Host;
use super::answer::refuse;
use crate::store::blocking;
use crate::store::objects::{CheckedFile, ObjectError};

/// Artifacts that are checked for others at one time: it takes the disk and a core, and guests come
/// first.
pub(crate) const CHECKS_MAX: usize = 2;
/// How long others may wait for that, or take nothing of what is sent.
const STALL_MAX: Duration = Duration::from_secs(15);
/// The code of a stream whose artifact is not sent to its end.
const BROKEN_OFF: VarInt = VarInt::from_u32(4);

/// Why an artifact is not sent to its end.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Object(#[from] ObjectError),
}

/// Sends an artifact from an offset on, verified before its first byte, and piece by piece again.
pub(crate) async fn handle_fetch(host: &Arc<Host>, wanted: &Fetch, mut send: SendStream) {
    let file = match open(host, wanted).await {
        Ok(file) => Arc::new(file),
        Err(fault) => return refuse(send, fault).await,
    };
    if let Err(error) = send_from(&file, wanted.offset, &mut send).await {
        tracing::debug!(artifact = %wanted.artifact, %error, "an artifact was not sent to its end");
        // So that nobody takes a part for the whole.
        let _ = send.reset(BROKEN_OFF);
    }
}

async fn open(host: &Arc<Host>, wanted: &Fetch) -> Result<CheckedFile, Fault> {
    let Ok(Ok(_place)) = timeout(STALL_MAX, host.checks.acquire()).await else {
        let fault = Fault::new(
            FaultKind::Overloaded,
            "this host serves many artifacts at the moment",
        );
        return Err(fault.help("ask another holder"));
    };
    let (objects, artifact) = (host.objects.clone(), wanted.artifact);
    let file = blocking(move || objects.open_checked(&artifact)).await;
    let file = file.map_err(|error| not_here(&error))?;
    if wanted.offset > file.len() {
        let message = format!("the artifact has {} bytes", file.len());
        return Err(Fault::new(FaultKind::InputInvalid, message));
    }
    Ok(file)
}

fn not_here(error: &ObjectError) -> Fault {
    match error {
        ObjectError::Missing(_) | ObjectError::Damaged(_) => {
            Fault::new(FaultKind::NotFound, error.to_string()).help("ask a super node who holds it")
        }
        other => Fault::new(FaultKind::Internal, other.to_string()),
    }
}

async fn send_from(file: &Arc<CheckedFile>, mut offset: u64, send: &mut SendStream) -> Result<(), Broken> {
    let fetched = Fetched {
        len: file.len(),
        extensions: Extensions::none(),
    };
    write_message(send, &Reply::ok(&fetched)).await?;
    let mut body = BodyWriter::new(send);
    loop {
        let reading = Arc::clone(file);
        let piece = Bytes::from(blocking(move || reading.read(offset)).await?);
        if piece.is_empty() {
            break;
        }
        offset += piece.len() as u64;
        timeout(STALL_MAX, body.write(piece))
            .await
            .unwrap_or(Err(FrameError::TimedOut(STALL_MAX)))?;
    }
    body.finish().await?;
    let _ = send.finish();
    // Until it is acknowledged the host is not done with it.
    let _ = timeout(STALL_MAX, send.stopped()).await;
    Ok(())
}
