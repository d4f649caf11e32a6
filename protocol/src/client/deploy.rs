//! Revisions: deploy, roll back, decommission.

use bytes::Bytes;

use super::error::ClientError;
use super::{Client, Revision, random};
use crate::fault::{Fault, FaultKind};
use crate::head::SignedHead;
use crate::id::{ArtifactHash, FunctionId, NodeId};
use crate::key::OwnerKey;
use crate::manifest::{
    Action, Decommission, GENERATION_MAX, Manifest, ManifestError, Publish, REVISION_MAX, Verified, Version,
};
use crate::name::Name;
use crate::rival::{are_rivals, taken};
use crate::wire::directory::Published;
use crate::wire::extension::Extensions;

/// How often a revision is numbered anew because another device went past its number meanwhile.
const NUMBERINGS_MAX: usize = 4;

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

/// What an owner wants to be signed and stored, whatever its number will be.
struct Intent<'a> {
    key: &'a OwnerKey,
    name: &'a Name,
    action: Action,
    message: String,
    artifact: Option<Bytes>,
    resurrect: bool,
}

impl Client {
    /// Publishes the next revision of the key's function. If the numbers went past it meanwhile, the one
    /// after the live revision's is taken.
    ///
    /// # Errors
    /// `Refused` if another device took the number meanwhile, `Decommissioned` unless `resurrect`, `InputInvalid` for fields out of bounds, and what the
    /// super node says.
    pub async fn deploy(
        &self,
        key: &OwnerKey,
        draft: Draft,
        artifact: Bytes,
        resurrect: bool,
    ) -> Result<Deployed, ClientError> {
        let Draft {
            name,
            mut publish,
            message,
        } = draft;
        publish.artifact = ArtifactHash::of(&artifact);
        publish.artifact_bytes = artifact.len() as u64;
        let live = self.live(FunctionId::derive(&key.id(), &name)).await?;
        let intent = Intent {
            key,
            name: &name,
            action: publish.into(),
            message,
            artifact: Some(artifact),
            resurrect,
        };
        self.carry_out(&intent, live).await
    }

    /// Publishes an older revision's content as the next revision. Without `to`: that of the highest
    /// lower revision whose artifact differs from the live one. `kept` is asked for the artifact if
    /// the super node does not have it any more.
    ///
    /// # Errors
    /// `NotFound` if there is no such revision or its artifact is gone, `InputInvalid` if it is the live
    /// one or says the same, and as [`Client::deploy`].
    pub async fn rollback(
        &self,
        key: &OwnerKey,
        name: &Name,
        to: Option<u64>,
        kept: impl FnOnce(&ArtifactHash) -> Option<Bytes>,
    ) -> Result<Deployed, ClientError> {
        let revisions = self.versions(FunctionId::derive(&key.id(), name)).await?;
        let live = newest(&revisions).cloned();
        let (version, publish) = choose(&revisions, name, to)?;
        if live.as_ref().and_then(Verified::publish) == Some(publish) {
            return Err(nothing_to_change(name, version).into());
        }
        let artifact = kept(&publish.artifact).filter(|bytes| ArtifactHash::of(bytes) == publish.artifact);
        let intent = Intent {
            key,
            name,
            action: publish.clone().into(),
            message: format!("roll back to revision {}", version.revision),
            artifact,
            resurrect: false,
        };
        self.carry_out(&intent, live).await
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
        let live = self.live(FunctionId::derive(&key.id(), name)).await?;
        if live.is_none() {
            return Err(not_found(name).into());
        }
        let action = Decommission::default().into();
        let intent = Intent {
            key,
            name,
            action,
            message,
            artifact: None,
            resurrect: false,
        };
        self.carry_out(&intent, live).await
    }

    /// Signs and hands in, with the number after the live revision's.
    async fn carry_out(
        &self,
        intent: &Intent<'_>,
        mut live: Option<Verified>,
    ) -> Result<Deployed, ClientError> {
        let mut numberings = 0;
        loop {
            let manifest = intent.sign(live.as_ref())?;
            let function = manifest.function();
            let head = SignedHead::sign(intent.key, &manifest);
            let published = self
                .publish(manifest.signed().clone(), head, intent.artifact.clone())
                .await;
            numberings += 1;
            // The super node refuses, or takes without effect, what is not newer than what it has.
            let is_live = |published: &Published| published.version == manifest.version();
            if !published.as_ref().is_ok_and(is_live) {
                let known = self.newest_page(function).await?;
                tell_loser(&known, &manifest)?;
                let now = newest(&known);
                if numberings < NUMBERINGS_MAX && now.is_some_and(|now| now.rank() > manifest.rank()) {
                    live = now.cloned();
                    continue;
                }
            }
            let published = published?;
            self.0.memory.saw(function, manifest.version());
            self.0.memory.forget_resolution(&function);
            return Ok(Deployed {
                manifest,
                assigned: published.assigned,
                note: published.note,
            });
        }
    }

    /// The live revision or tombstone of a function, if it was ever published.
    async fn live(&self, function: FunctionId) -> Result<Option<Verified>, ClientError> {
        Ok(newest(&self.newest_page(function).await?).cloned())
    }

    /// The newest revisions of a function; none if it was never published.
    async fn newest_page(&self, function: FunctionId) -> Result<Vec<Revision>, ClientError> {
        match self.0.versions_page(function, None, false).await {
            Ok((revisions, _)) => Ok(revisions),
            Err(fault) if fault.kind == FaultKind::NotFound => Ok(Vec::new()),
            Err(fault) => Err(fault.into()),
        }
    }
}

/// Whether another device has used this revision's number for something else. It is not numbered anew then:
/// its publisher has not seen what it would take the place of.
fn tell_loser(known: &[Revision], mine: &Verified) -> Result<(), Fault> {
    let manifests = || known.iter().map(|revision| &revision.manifest);
    let winner = manifests().find(|other| are_rivals(other, mine));
    match (winner, newest(known)) {
        (Some(winner), Some(live)) => Err(taken(winner, live)),
        _ => Ok(()),
    }
}

impl Intent<'_> {
    fn sign(&self, live: Option<&Verified>) -> Result<Verified, Fault> {
        let version = self.next_version(live)?;
        let manifest = Manifest {
            owner: self.key.id(),
            name: self.name.clone(),
            version,
            parent: live.map(Verified::hash),
            action: self.action.clone(),
            message: self.message.clone(),
            time_ms: random::now_ms(),
            extensions: Extensions::none(),
        };
        manifest
            .sign(self.key)
            .and_then(|signed| signed.verify())
            .map_err(|error| out_of_bounds(&error))
    }

    fn next_version(&self, live: Option<&Verified>) -> Result<Version, Fault> {
        let Some(live) = live else {
            return Ok(Version {
                generation: 0,
                revision: 1,
            });
        };
        let Version { generation, revision } = live.version();
        let next = match live.is_tombstone() {
            false => Version {
                generation,
                revision: revision + 1,
            },
            true if self.resurrect => Version {
                generation: generation + 1,
                revision: 1,
            },
            true => return Err(decommissioned(self.name)),
        };
        if next.revision > REVISION_MAX || next.generation > GENERATION_MAX {
            return Err(Fault::new(
                FaultKind::InputInvalid,
                "the function has no numbers left for revisions",
            )
            .help("publish it under another name"));
        }
        Ok(next)
    }
}

/// The revision that counts: a tombstone beats every other of its generation.
fn newest(revisions: &[Revision]) -> Option<&Verified> {
    revisions
        .iter()
        .map(|revision| &revision.manifest)
        .max_by_key(|manifest| manifest.rank())
}

/// The revision to roll back to.
fn choose<'a>(
    revisions: &'a [Revision],
    name: &Name,
    to: Option<u64>,
) -> Result<(Version, &'a Publish), Fault> {
    let live = newest(revisions).ok_or_else(|| not_found(name))?;
    let Some(current) = live.publish() else {
        return Err(decommissioned(name));
    };
    let lower = revisions
        .iter()
        .map(|revision| &revision.manifest)
        .filter(|m| m.version().generation == live.version().generation && m.version() <= live.version())
        .filter_map(|m| Some((m.version(), m.publish()?)));
    let chosen = match to {
        Some(to) => lower.into_iter().find(|(version, _)| version.revision == to),
        None => lower
            .filter(|(version, publish)| *version < live.version() && publish.artifact != current.artifact)
            .max_by_key(|(version, _)| *version),
    };
    chosen.ok_or_else(|| no_revision(name, to))
}

fn not_found(name: &Name) -> Fault {
    Fault::new(FaultKind::NotFound, format!("this owner has no function {name}"))
        .help("`orb list` shows your functions")
}

fn decommissioned(name: &Name) -> Fault {
    Fault::new(
        FaultKind::Decommissioned,
        format!("the function {name} was decommissioned"),
    )
    .help("`orb deploy --resurrect` publishes it again, as a new generation")
}

fn no_revision(name: &Name, to: Option<u64>) -> Fault {
    let message = match to {
        Some(to) => format!("the function {name} has no revision {to} to go back to"),
        None => format!("the function {name} has no earlier revision with another artifact"),
    };
    Fault::new(FaultKind::NotFound, message).help(format!("`orb versions {name}` shows them"))
}

fn nothing_to_change(name: &Name, to: Version) -> Fault {
    let message = format!(
        "there is nothing to roll back: the live revision of {name} says the same as revision {}",
        to.revision
    );
    Fault::new(FaultKind::InputInvalid, message).help(format!(
        "`orb versions {name}` shows the revisions; without --to the last one with another artifact is taken"
    ))
}

fn out_of_bounds(error: &ManifestError) -> Fault {
    Fault::new(FaultKind::InputInvalid, error.to_string()).help("change it in orb.toml")
}
