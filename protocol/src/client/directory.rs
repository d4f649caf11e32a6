//! What super nodes are asked.

use std::time::Duration;

use bytes::Bytes;

use super::builder::Client;
use super::error::ClientError;
use super::pending;
use crate::head::SignedHead;
use crate::id::{ArtifactHash, FunctionId, OwnerId};
use crate::manifest::{SignedManifest, Verified, Version};
use crate::wire::NodeInfo;
use crate::wire::directory::{HostHint, Published, ReadyReport, Replica};

/// A function's live revision, and who can answer for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// The live revision.
    pub manifest: Verified,
    /// Hosts that are ready, best first.
    pub hosts: Vec<HostHint>,
}

/// A function in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The live revision, or the tombstone.
    pub manifest: Verified,
    /// Hosts that are ready for it.
    pub ready: u16,
}

/// A revision in a function's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// The revision.
    pub manifest: Verified,
    /// Whether the super node still has its artifact.
    pub has_artifact: bool,
}

/// A function's replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// The live revision, or the tombstone.
    pub manifest: Verified,
    /// Every host that holds it, should hold it, or refused to.
    pub replicas: Vec<Replica>,
}

impl Client {
    /// Asks which revision of a function is live, and who can answer for it.
    ///
    /// # Errors
    /// Not found, decommissioned, or no super node that can be reached.
    pub async fn resolve(&self, function: FunctionId) -> Result<Resolution, ClientError> {
        let _ = function;
        std::future::ready(Err(pending())).await
    }

    /// Hands in a revision that was signed elsewhere; [`Client::deploy`] does both. Returns when the
    /// super node has stored it durably. The artifact is sent only if the super node lacks it.
    ///
    /// # Errors
    /// What the super node says, or that it cannot be reached.
    pub async fn publish(
        &self,
        manifest: SignedManifest,
        head: SignedHead,
        artifact: Bytes,
    ) -> Result<Published, ClientError> {
        let _ = (manifest, head, artifact);
        std::future::ready(Err(pending())).await
    }

    /// All functions, or all of one owner, in the order of their ids.
    ///
    /// # Errors
    /// What the super node says, or that it cannot be reached.
    pub async fn list(
        &self,
        owner: Option<OwnerId>,
        decommissioned: bool,
    ) -> Result<Vec<Listing>, ClientError> {
        let _ = (owner, decommissioned);
        std::future::ready(Err(pending())).await
    }

    /// A function's revisions, newest first.
    ///
    /// # Errors
    /// What the super node says, or that it cannot be reached.
    pub async fn versions(&self, function: FunctionId) -> Result<Vec<Revision>, ClientError> {
        let _ = function;
        std::future::ready(Err(pending())).await
    }

    /// Where a function's replicas are, and how far they are.
    ///
    /// # Errors
    /// What the super node says, or that it cannot be reached.
    pub async fn inspect(&self, function: FunctionId) -> Result<Inspection, ClientError> {
        let _ = function;
        std::future::ready(Err(pending())).await
    }

    /// Waits until `count` hosts are ready for `version` or a newer one, at most `wait`.
    ///
    /// # Errors
    /// What the super node says, or that it cannot be reached. Too few hosts are no error: see the
    /// report.
    pub async fn wait_ready(
        &self,
        function: FunctionId,
        version: Version,
        count: u16,
        wait: Duration,
    ) -> Result<ReadyReport, ClientError> {
        let _ = (function, version, count, wait);
        std::future::ready(Err(pending())).await
    }

    /// What the super node says about itself.
    ///
    /// # Errors
    /// That it cannot be reached.
    pub async fn info(&self) -> Result<NodeInfo, ClientError> {
        std::future::ready(Err(pending())).await
    }

    /// Fetches an artifact from the super node and checks its hash.
    ///
    /// # Errors
    /// Not found, unverified, or no super node that can be reached.
    pub async fn fetch_artifact(&self, artifact: ArtifactHash) -> Result<Bytes, ClientError> {
        let _ = artifact;
        std::future::ready(Err(pending())).await
    }
}
