//! How the super node's own troubles are told to peers.

use orb_protocol::fault::{Fault, FaultKind};
use orb_protocol::quic::frames::FrameError;
use orb_protocol::wire::undecodable;

use crate::store::database::StoreError;
use crate::store::objects::ObjectError;

/// When it may make sense to try again after too much, in milliseconds.
const RETRY_AFTER_MS: u32 = 1_000;

/// Too much at the moment.
pub(crate) fn overloaded(message: impl Into<String>) -> Fault {
    Fault {
        retry_after_ms: Some(RETRY_AFTER_MS),
        ..Fault::new(FaultKind::Overloaded, message)
    }
}

/// The registry could not be read or written. Details of the disk are for the log, not for strangers.
pub(crate) fn of_store(error: &StoreError) -> Fault {
    match error {
        StoreError::Busy => overloaded("this super node has more to store than its disk takes"),
        StoreError::Full(_) => full(),
        StoreError::Closed => Fault::new(FaultKind::NoLiveHost, "this super node is ending")
            .help("try again in a moment, or another super node"),
        StoreError::Damaged(_) => {
            tracing::error!(%error, "a request cannot be answered");
            Fault::new(
                FaultKind::Internal,
                "what this super node has stored of the function is damaged",
            )
            .help("deploying the function again mends its history; if that is refused too, the operator has to restore the database, and the log names the record")
        }
        StoreError::Corrupted { .. } | StoreError::Failed { .. } => {
            tracing::error!(%error, "a request cannot be answered");
            internal()
        }
    }
}

/// An artifact could not be read or written.
pub(crate) fn of_object(error: &ObjectError) -> Fault {
    match error {
        ObjectError::Missing(artifact) => Fault::new(
            FaultKind::NotFound,
            format!("this super node does not have artifact {}", artifact.short()),
        ),
        ObjectError::Damaged(artifact) => Fault::new(
            FaultKind::Unverified,
            format!(
                "this super node's copy of artifact {} is damaged and was set aside",
                artifact.short()
            ),
        )
        .help("deploy the function again from its source"),
        ObjectError::Mismatch { wanted, found } => Fault::new(
            FaultKind::Unverified,
            format!(
                "the manifest names artifact {}, and the bytes that came are {}",
                wanted.short(),
                found.short()
            ),
        )
        .help("deploy it again"),
        ObjectError::Full(_) => full(),
        ObjectError::Io { .. } => {
            tracing::error!(%error, "a request cannot be answered");
            internal()
        }
    }
}

/// What came on a stream is not what should have come.
pub(crate) fn of_frame(error: &FrameError) -> Fault {
    match error {
        FrameError::Malformed(error) => undecodable(error),
        FrameError::TooLong { .. } => Fault::new(FaultKind::InputTooLarge, error.to_string()),
        FrameError::TimedOut(_) => Fault::new(FaultKind::DeadlineExceeded, error.to_string()),
        _ => Fault::new(FaultKind::InputInvalid, error.to_string()),
    }
}

fn full() -> Fault {
    tracing::error!("the disk is full");
    Fault::new(FaultKind::Internal, "the disk of this super node is full")
        .help("nothing was changed; its operator has to make room, or use another super node")
}

fn internal() -> Fault {
    Fault::new(FaultKind::Internal, "the store of this super node failed")
        .help("nothing was changed; its operator finds more in the log")
}
