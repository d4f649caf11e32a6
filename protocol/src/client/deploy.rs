//! Revisions: deploy, roll back, decommission.

use bytes::Bytes;

use super::builder::Client;
use super::error::ClientError;
use super::pending;
use crate::id::NodeId;
use crate::key::OwnerKey;
use crate::manifest::{Publish, Verified};
use crate::name::Name;

/// What the next revision of a function is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The function's name.
    pub name: Name,
    /// What it is. `artifact` and `artifact_bytes` are filled in from the artifact.
    pub publish: Publish,
    /// The owner's note.
    pub message: String,
}

/// A revision that a super node has stored durably.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployed {
    /// It.
    pub manifest: Verified,
    /// Hosts that it was assigned to at once.
    pub assigned: Vec<NodeId>,
    /// Why there are fewer than wanted, for a person; empty if there are not.
    pub note: String,
}

impl Client {
    /// Publishes the next revision of the key's function. If another device takes its number at the
    /// same time, the one after that is taken.
    ///
    /// # Errors
    /// `Decommissioned` unless `resurrect`, `InputInvalid` for fields out of bounds, and what the
    /// super node says.
    pub async fn deploy(
        &self,
        key: &OwnerKey,
        draft: Draft,
        artifact: Bytes,
        resurrect: bool,
    ) -> Result<Deployed, ClientError> {
        let _ = (key, draft, artifact, resurrect);
        std::future::ready(Err(pending())).await
    }

    /// Publishes an older revision's content as the next revision. Without `to`: that of the highest
    /// lower revision whose artifact differs from the live one.
    ///
    /// # Errors
    /// `NotFound` if there is no such revision or its artifact is gone, and as [`Client::deploy`].
    pub async fn rollback(
        &self,
        key: &OwnerKey,
        name: &Name,
        to: Option<u64>,
    ) -> Result<Deployed, ClientError> {
        let _ = (key, name, to);
        std::future::ready(Err(pending())).await
    }

    /// Ends a function.
    ///
    /// # Errors
    /// `NotFound`, `Decommissioned` if it was already, and what the super node says.
    pub async fn decommission(
        &self,
        key: &OwnerKey,
        name: &Name,
        message: String,
    ) -> Result<Deployed, ClientError> {
        let _ = (key, name, message);
        std::future::ready(Err(pending())).await
    }
}
