//! What super nodes are asked.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::error::{Broken, ClientError};
use super::exchange::{Exchange, unless_silent};
use super::uplink::{REPLY_TIMEOUT, Tries};
use super::{Client, Inner, random};
use crate::fault::{Fault, FaultKind};
use crate::head::SignedHead;
use crate::id::{ArtifactHash, FunctionId, OwnerId};
use crate::manifest::{SignedManifest, Verified, Version};
use crate::quic::Connection;
use crate::quic::body::{BodyReader, write_body};
use crate::wire::call::Credential;
use crate::wire::directory::{
    Fetch, Fetched, HostHint, INVITE, Inspect, Inspected, LOCAL, List, Listed, NEARBY, NOTE, OWN_HOSTS,
    PAGE_MAX, Publish, PublishStep, Published, ReadyReport, RemovalReport, Replica, Resolve, Resolved,
    Summary, Versions, VersionsListed, WaitReady, WaitRemoved,
};
use crate::wire::extension::Extensions;
use crate::wire::{Info, NodeInfo, Request};

/// Pages of a listing that are asked for: a super node that goes on for ever is not believed.
const PAGES_MAX: usize = 10_000;
/// How long a credential holds: longer than any call, with room for clocks that differ.
const CREDENTIAL_LIFE_MS: u64 = 15 * 60 * 1_000;
/// The longest artifact that is fetched, in bytes.
const ARTIFACT_BYTES_MAX: u64 = 1 << 30;

/// A function's live revision, and who can answer for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// The live revision.
    pub manifest: Verified,
    /// Hosts that are ready, best first.
    pub hosts: Vec<HostHint>,
    /// Why there are none, for a person; empty if there are some, or if the super node does not say.
    pub note: String,
}

/// A function in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The live revision, or the tombstone.
    pub manifest: Verified,
    /// Hosts that are ready for it, as far as the super node knows.
    pub ready: u16,
    /// Whether it knows of the hosts of all super nodes, rather than of its own.
    pub knows_all: bool,
}

/// A revision in a function's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// The revision.
    pub manifest: Verified,
    /// Whether the super node still has its artifact, or another one of its federation.
    pub has_artifact: bool,
}

/// A function's replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// The live revision, or the tombstone.
    pub manifest: Verified,
    /// Every host that holds it, should hold it, or refused to.
    pub replicas: Vec<Replica>,
    /// Why they are fewer than wanted, for a person; empty if they are not.
    pub note: String,
}

impl Client {
    /// Asks which revision of a function is live, and who can answer for it.
    ///
    /// # Errors
    /// Not found, decommissioned, or no super node that can be reached.
    pub async fn resolve(&self, function: FunctionId) -> Result<Resolution, ClientError> {
        Ok(Arc::unwrap_or_clone(self.0.resolve(function).await?))
    }

    /// Hands in a revision that was signed elsewhere; [`Client::deploy`] does both. Returns when the
    /// super node has stored it durably. The artifact is sent only if the super node lacks it.
    ///
    /// # Errors
    /// `NotFound` if the super node wants an artifact and there is none; what the super node says, or
    /// that it cannot be reached.
    pub async fn publish(
        &self,
        manifest: SignedManifest,
        head: SignedHead,
        artifact: Option<Bytes>,
    ) -> Result<Published, ClientError> {
        let mut extensions = Extensions::none();
        if !self.0.invite.is_empty() {
            extensions = extensions.with(INVITE, self.0.invite.clone().into_bytes());
        }
        let request = Publish {
            manifest,
            head,
            extensions,
        }
        .into();
        let mut tries = Tries::default();
        loop {
            let connection = self.0.uplink.connection().await?;
            let result = hand_in(&connection, &request, artifact.as_ref()).await;
            if let Some(result) = tries.settle(&connection, result) {
                return Ok(result?);
            }
        }
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
        let mut all: Vec<Listing> = Vec::new();
        for _ in 0..PAGES_MAX {
            let after = all.last().map(|last| last.manifest.function());
            let request = List {
                owner,
                after,
                limit: PAGE_MAX,
                decommissioned,
                extensions: Extensions::none(),
            };
            let page: Listed = self.0.uplink.ask(request, REPLY_TIMEOUT).await?;
            let grows = !page.functions.is_empty();
            for summary in page.functions {
                all.push(listing(summary, all.last())?);
            }
            if !(page.more && grows) {
                break;
            }
        }
        Ok(all)
    }

    /// A function's revisions, newest first. What the super node missed of the newest ones it asks others for.
    ///
    /// # Errors
    /// What the super node says, or that it cannot be reached.
    pub async fn versions(&self, function: FunctionId) -> Result<Vec<Revision>, ClientError> {
        let mut all: Vec<Revision> = Vec::new();
        for _ in 0..PAGES_MAX {
            let before = all.last().map(|last| last.manifest.version());
            let (page, more) = self.0.versions_page(function, before, true).await?;
            let grows = !page.is_empty();
            all.extend(page);
            if !(more && grows) {
                break;
            }
        }
        Ok(all)
    }

    /// Where a function's replicas are, and how far they are.
    ///
    /// # Errors
    /// What the super node says, or that it cannot be reached.
    pub async fn inspect(&self, function: FunctionId) -> Result<Inspection, ClientError> {
        let request = Inspect {
            function,
            extensions: Extensions::none(),
        };
        let inspected: Inspected = self.0.uplink.ask(request, REPLY_TIMEOUT).await?;
        let manifest = verify(inspected.manifest, Some(function))?;
        Ok(Inspection {
            manifest,
            replicas: inspected.replicas,
            note: note(&inspected.extensions),
        })
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
        let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        let request = WaitReady {
            function,
            version,
            count,
            wait_ms,
            extensions: Extensions::none(),
        };
        Ok(self
            .0
            .uplink
            .ask(request, wait.saturating_add(REPLY_TIMEOUT))
            .await?)
    }

    /// Waits until `count` hosts have removed a function that was decommissioned, or all that held it, at
    /// most `wait`.
    ///
    /// # Errors
    /// `VersionMismatch` for a super node that is too old to know; that it cannot be reached. Too few
    /// hosts are no error: see the report.
    pub async fn wait_removed(
        &self,
        function: FunctionId,
        count: u16,
        wait: Duration,
    ) -> Result<RemovalReport, ClientError> {
        let request = WaitRemoved {
            function,
            count,
            wait_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
            extensions: Extensions::none(),
        };
        let patience = wait.saturating_add(REPLY_TIMEOUT);
        Ok(self.0.uplink.ask(request, patience).await?)
    }

    /// What the super node says about itself.
    ///
    /// # Errors
    /// That it cannot be reached.
    pub async fn info(&self) -> Result<NodeInfo, ClientError> {
        Ok(self.0.uplink.ask(Info::default(), REPLY_TIMEOUT).await?)
    }

    /// Fetches an artifact from the super node and checks its hash.
    ///
    /// # Errors
    /// Not found, unverified, or no super node that can be reached.
    pub async fn fetch_artifact(&self, artifact: ArtifactHash) -> Result<Bytes, ClientError> {
        let request = Fetch {
            artifact,
            offset: 0,
            extensions: Extensions::none(),
        }
        .into();
        let mut tries = Tries::default();
        let bytes = loop {
            let connection = self.0.uplink.connection().await?;
            let result = fetch(&connection, &request).await;
            if let Some(result) = tries.settle(&connection, result) {
                break result?;
            }
        };
        if ArtifactHash::of(&bytes) != artifact {
            let message = format!("the super node sent other bytes than artifact {artifact}");
            return Err(Fault::new(FaultKind::Unverified, message).into());
        }
        Ok(bytes.into())
    }
}

impl Inner {
    pub(super) async fn resolve(&self, function: FunctionId) -> Result<Arc<Resolution>, Fault> {
        let bare = self.ask_resolve(function, None).await;
        let resolved = match (bare, &self.owner_key) {
            // Who asks is told only where it matters.
            (Err(fault), Some(_)) if fault.kind == FaultKind::Refused => {
                self.ask_resolve(function, self.credential()).await?
            }
            (bare, _) => bare?,
        };
        let manifest = verify(resolved.manifest, Some(function))?;
        if manifest.is_tombstone() {
            let message = format!(
                "the function {} was decommissioned by its owner",
                manifest.manifest().name
            );
            return Err(Fault::new(FaultKind::Decommissioned, message));
        }
        resolved.hosts.iter().for_each(|hint| self.hosts.learn(hint));
        let resolution = Arc::new(Resolution {
            manifest,
            hosts: resolved.hosts,
            note: note(&resolved.extensions),
        });
        self.memory.resolved(&resolution);
        Ok(resolution)
    }

    async fn ask_resolve(
        &self,
        function: FunctionId,
        credential: Option<Credential>,
    ) -> Result<Resolved, Fault> {
        let extensions = match self.nearby {
            true => Extensions::none().with(NEARBY, Vec::new()),
            false => Extensions::none(),
        };
        let request = Resolve {
            function,
            credential,
            extensions,
        };
        self.uplink.ask(request, REPLY_TIMEOUT).await
    }

    /// Says that this client acts for the owner, if there is one.
    pub(super) fn credential(&self) -> Option<Credential> {
        let expires_ms = random::now_ms().saturating_add(CREDENTIAL_LIFE_MS);
        self.owner_key
            .as_ref()
            .map(|key| Credential::sign(key, &self.endpoint.node_id(), expires_ms))
    }

    /// A function's revisions below `before`, newest first, and whether there are more. `whole`: what the super node
    /// missed, too.
    pub(super) async fn versions_page(
        &self,
        function: FunctionId,
        before: Option<Version>,
        whole: bool,
    ) -> Result<(Vec<Revision>, bool), Fault> {
        let extensions = match whole {
            true => Extensions::none(),
            false => Extensions::none().with(LOCAL, Vec::new()),
        };
        let request = Versions {
            function,
            before,
            extensions,
        };
        let page: VersionsListed = self.uplink.ask(request, REPLY_TIMEOUT).await?;
        let mut below = before;
        let mut revisions = Vec::new();
        for entry in page.revisions {
            let manifest = verify(entry.manifest, Some(function))?;
            if below.is_some_and(|below| manifest.version() > below) {
                return Err(disorder());
            }
            below = Some(manifest.version());
            revisions.push(Revision {
                manifest,
                has_artifact: entry.has_artifact,
            });
        }
        Ok((revisions, page.more))
    }
}

/// What a super node says about hosts that are missing.
fn note(extensions: &Extensions) -> String {
    String::from_utf8_lossy(extensions.get(NOTE).unwrap_or_default()).into_owned()
}

/// A super node is not believed what the owner did not sign, nor that one function is another.
fn verify(signed: SignedManifest, function: Option<FunctionId>) -> Result<Verified, Fault> {
    let verified = signed
        .verify()
        .map_err(|error| Fault::new(FaultKind::Unverified, format!("from the super node: {error}")))?;
    if function.is_some_and(|function| verified.function() != function) {
        let message = "the super node answered with another function's manifest";
        return Err(Fault::new(FaultKind::Unverified, message));
    }
    Ok(verified)
}

fn listing(summary: Summary, before: Option<&Listing>) -> Result<Listing, Fault> {
    let manifest = verify(summary.manifest, None)?;
    if before.is_some_and(|before| before.manifest.function() >= manifest.function()) {
        return Err(disorder());
    }
    Ok(Listing {
        manifest,
        ready: summary.ready,
        knows_all: summary.extensions.get(OWN_HOSTS).is_none(),
    })
}

fn disorder() -> Fault {
    Fault::new(FaultKind::Unverified, "the super node's listing is not in order")
}

/// One exchange of [`Publish`].
async fn hand_in(
    connection: &Connection,
    request: &Request,
    artifact: Option<&Bytes>,
) -> Result<Published, Broken> {
    let talk = async {
        let mut exchange = Exchange::open(connection).await?;
        exchange.request(request).await?;
        let step: PublishStep = exchange.reply().await?;
        if step.want_artifact {
            let artifact = artifact.ok_or_else(no_artifact)?;
            // If the super node stops taking it, its reply says why.
            let _ = write_body(&mut exchange.send, artifact.clone()).await;
        }
        exchange.finish();
        let published = exchange.reply().await?;
        exchange.ended();
        Ok(published)
    };
    // No other bound: it is for the super node's disk and the line to take their time.
    unless_silent(connection, talk).await
}

fn no_artifact() -> Fault {
    Fault::new(
        FaultKind::NotFound,
        "the super node does not have this revision's artifact any more",
    )
    .help("deploy it from its source again")
}

async fn fetch(connection: &Connection, request: &Request) -> Result<Vec<u8>, Broken> {
    let talk = async {
        let mut exchange = Exchange::open(connection).await?;
        exchange.request(request).await?;
        exchange.finish();
        let fetched: Fetched = exchange.reply().await?;
        let limit = fetched.len.min(ARTIFACT_BYTES_MAX);
        let bytes = BodyReader::new(&mut exchange.recv, limit).read_all().await?;
        exchange.ended();
        Ok(bytes)
    };
    unless_silent(connection, talk).await
}
