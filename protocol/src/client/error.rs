//! How requests and calls fail: always with a [`Fault`], made here or by a peer.

use crate::fault::{Fault, FaultKind};
use crate::id::{NodeId, RequestId};
use crate::quic::ConnectError;
use crate::quic::frames::FrameError;
use crate::wire::undecodable;

use super::call::CallReport;

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
    /// How the call went, if a host ran the function and said how it failed.
    pub report: Option<Box<CallReport>>,
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

/// How an exchange with a peer ended early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Broken {
    /// The peer said so, or sent what nobody should send: asking it again changes nothing.
    Fault(Fault),
    /// The connection or the stream broke: what the peer made of it is not known.
    Lost(String),
}

impl From<Fault> for Broken {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<FrameError> for Broken {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Malformed(error) => Self::Fault(undecodable(&error)),
            FrameError::TooLong { .. } => {
                Self::Fault(Fault::new(FaultKind::VersionMismatch, error.to_string()))
            }
            lost => Self::Lost(lost.to_string()),
        }
    }
}

impl Broken {
    /// As a fault of an exchange with the super node.
    pub(super) fn at_super_node(self) -> Fault {
        match self {
            Self::Fault(fault) => fault,
            Self::Lost(why) => Fault::new(FaultKind::NoLiveHost, format!("lost the super node: {why}"))
                .help("check that the super node runs, and try again"),
        }
    }
}

/// The fault of a connection that did not come about.
pub(super) fn not_connected(error: ConnectError) -> Fault {
    let text = error.to_string();
    match error {
        ConnectError::WrongPeer { .. } => Fault::new(FaultKind::Unverified, text),
        ConnectError::VersionMismatch => Fault::new(FaultKind::VersionMismatch, text),
        ConnectError::Local(_) => Fault::new(FaultKind::Internal, text),
        ConnectError::Refused => Fault::new(FaultKind::Overloaded, text),
        ConnectError::RelayRefused(fault) if fault.kind == FaultKind::Refused => fault,
        _ => Fault::new(FaultKind::NoLiveHost, text),
    }
}
