//! How requests and calls fail: always a [`Fault`], made here or by a peer.

use crate::fault::{Fault, FaultKind};
use crate::id::{NodeId, RequestId};

/// Why a request to the super nodes failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct ClientError {
    /// What happened, whose fault it is, and what to do about it.
    pub fault: Fault,
}

impl ClientError {
    /// Which one of the taxonomy; it knows its party and exit code.
    pub fn kind(&self) -> FaultKind {
        self.fault.kind
    }
}

impl From<Fault> for ClientError {
    fn from(fault: Fault) -> Self {
        Self { fault }
    }
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct CallError {
    /// What happened, whose fault it is, and what to do about it.
    pub fault: Fault,
    /// The call's request id, to be found again in logs.
    pub request: RequestId,
    /// What went wrong at each host that was tried, in the order of trying.
    pub attempts: Vec<FailedAttempt>,
    /// Whether some host may have run the function, wholly or in part.
    pub may_have_run: bool,
}

impl CallError {
    /// Which one of the taxonomy; it knows its party and exit code.
    pub fn kind(&self) -> FaultKind {
        self.fault.kind
    }
}

/// A host that gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedAttempt {
    /// The host.
    pub host: NodeId,
    /// Why.
    pub fault: Fault,
}

impl From<CallError> for ClientError {
    fn from(error: CallError) -> Self {
        Self { fault: error.fault }
    }
}
