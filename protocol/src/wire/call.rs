//! Client to host: a call.
//!
//! Client: [`Call`] frame, input in chunks. Host: [`super::Reply`] of [`Started`] just before the
//! guest is entered (having taken at most one chunk of the input until then), the answer in chunks,
//! [`Trailer`]. A fault before `Started` comes as the reply's fault and means that the call did not
//! run here, so it may go to another host; after `Started` only an idempotent call may.

use serde::{Deserialize, Serialize};

use super::codec;
use super::extension::Extensions;
use crate::fault::Fault;
use crate::id::{FunctionId, NodeId, OwnerId, RequestId};
use crate::key::{BadSignature, Domain, OwnerKey, SIGNATURE_LEN};
use crate::manifest::{SignedManifest, Version};

/// The extension of [`Started`] that proves its version where the caller knew of an older one only: the
/// revision, signed by its owner, encoded.
pub const PROOF: u16 = 1;

/// How often a request may be passed on: it guards against loops.
pub const HOPS_MAX: u8 = 4;

/// A W3C trace context (<https://www.w3.org/TR/trace-context/>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The span that made the call.
    pub parent_id: [u8; 8],
    /// Bit 0: sampled.
    pub flags: u8,
}

/// Says that a node acts for an owner, until a time. Shown where a function is not public.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// Whose authority.
    pub owner: OwnerId,
    /// Until when, in milliseconds since the Unix epoch.
    pub expires_ms: u64,
    /// 64 bytes of Ed25519 over the node's id and the time, in the credential domain.
    #[serde(with = "serde_bytes")]
    pub signature: Vec<u8>,
}

impl Credential {
    /// Lets `node` act for the key's owner until `expires_ms`.
    pub fn sign(key: &OwnerKey, node: &NodeId, expires_ms: u64) -> Self {
        let signature = key.sign(Domain::Credential, &Self::message(node, expires_ms));
        Self {
            owner: key.id(),
            expires_ms,
            signature: signature.to_vec(),
        }
    }

    /// Checks that it holds for the peer `node` at `now_ms`.
    ///
    /// # Errors
    /// [`BadSignature`] if it is forged, another node's, or expired.
    pub fn verify(&self, node: &NodeId, now_ms: u64) -> Result<OwnerId, BadSignature> {
        let signature: [u8; SIGNATURE_LEN] =
            self.signature.as_slice().try_into().map_err(|_| BadSignature)?;
        if self.expires_ms < now_ms {
            return Err(BadSignature);
        }
        self.owner.verify(
            Domain::Credential,
            &Self::message(node, self.expires_ms),
            &signature,
        )?;
        Ok(self.owner)
    }

    fn message(node: &NodeId, expires_ms: u64) -> Vec<u8> {
        [node.as_bytes().as_slice(), &expires_ms.to_be_bytes()].concat()
    }
}

/// Runs a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The caller's name for this request.
    pub request: RequestId,
    /// Which function.
    pub function: FunctionId,
    /// The newest version that the caller knows of: a host that knows less refreshes first.
    pub known: Version,
    /// How much of the caller's deadline is left, in microseconds.
    pub remaining_us: u64,
    /// The input's length, if the caller knows it.
    pub input_len: Option<u64>,
    /// Who the caller acts for, where the function asks.
    pub credential: Option<Credential>,
    /// The trace that the call belongs to.
    pub trace: Option<TraceContext>,
    /// How often the request was passed on before.
    pub hops: u8,
    /// For what comes later.
    pub extensions: Extensions,
}

/// Goes on with a call of the same caller whose connection was lost. Answered like the call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// The call's request id.
    pub request: RequestId,
    /// For what comes later.
    pub extensions: Extensions,
}

/// The guest is about to be entered: from now on the call counts as having run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The version that answers.
    pub version: Version,
    /// The answer's media type.
    pub content_type: String,
    /// Whether the call may be run again elsewhere.
    pub idempotent: bool,
    /// For what comes later.
    pub extensions: Extensions,
}

impl Started {
    /// The same, with what proves its version.
    #[must_use]
    pub fn with_proof(mut self, revision: &SignedManifest) -> Self {
        self.extensions = self.extensions.with(PROOF, codec::encode(revision));
        self
    }

    /// Whether it comes with `function`'s owner's word that this version exists. Without that it is a
    /// host's claim: a caller who remembered it would believe no other host from then on.
    pub fn is_proven(&self, function: &FunctionId) -> bool {
        let revision = self
            .extensions
            .get(PROOF)
            .and_then(|proof| codec::decode::<SignedManifest>(proof).ok())
            .and_then(|signed| signed.verify().ok());
        revision.is_some_and(|revision| {
            revision.function() == *function && revision.version() == self.version && !revision.is_tombstone()
        })
    }
}

/// How a started call ended, after its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trailer {
    /// What went wrong, if anything; the answer before it is then not whole.
    pub fault: Option<Fault>,
    /// Fuel used, in wasmtime's units.
    pub fuel: u64,
    /// The guest's greatest memory, in bytes.
    pub memory_peak_bytes: u64,
    /// How long the call waited at the host, in microseconds.
    pub queued_us: u64,
    /// How long the guest ran, in microseconds.
    pub guest_us: u64,
    /// How long compiling or loading took, in microseconds; 0 if the function was warm.
    pub compile_us: u64,
    /// Whether the log was cut.
    pub log_truncated: bool,
    /// For what comes later: a signed receipt among it.
    pub extensions: Extensions,
}
