//! Taking in revisions.
//!
//! Everything that can be refused is refused before anything is stored; then the artifact is made
//! durable, then the manifest, and only then hosts and publisher hear of it. A kill at any moment
//! leaves either nothing that counts or the whole.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use orb_protocol::fault::{Fault, FaultKind};
use orb_protocol::head::SignedHead;
use orb_protocol::id::{ArtifactHash, NodeId};
use orb_protocol::manifest::{Action, Kind, ManifestError, Publish, Verified, Version};
use orb_protocol::quic::body::BodyReader;
use orb_protocol::quic::frames::FrameError;
use orb_protocol::registry::{Merge, compare};
use orb_protocol::rival::{are_rivals, taken};
use orb_protocol::wire::directory::{INVITE, PublishStep, Published};
use orb_protocol::wire::extension::Extensions;
use orb_protocol::wire::federation::{Cursor, RegistryChange};
use orb_protocol::wire::{directory, undecodable};
use tokio::sync::{OwnedSemaphorePermit, SemaphorePermit};

use super::connection::{Exchange, Peer};
use super::peers::artifacts;
use super::storage::Pin;
use super::{SuperNode, faults};
use crate::store::blocking;
use crate::store::database::StoreError;
use crate::store::objects::{ObjectError, ObjectWriter};
use crate::store::registry::Recorded;

/// Publishes under way at once. Each holds up to [`SPOOL_STEP_BYTES`] of memory, and room on the disk
/// for what it has sent.
pub(crate) const PUBLISHES_MAX: usize = 64;
/// Memory for artifacts that are being examined, in KiB: eight of the longest by default. It is not
/// held for longer than that takes, however slow a publisher is.
pub(crate) const EXAMINED_KIB_MAX: usize = 256 << 10;
/// An upload goes to the disk in steps of so many bytes; most are shorter as a whole.
const SPOOL_STEP_BYTES: usize = 1 << 20;
/// How long a publisher may be silent while it sends the artifact.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// How long it may take over it: 32 MiB at 64 KiB per second.
const UPLOAD_MAX: Duration = Duration::from_secs(512);
/// How far a revision may jump ahead of the live one. Numbers are counted up one by one; a device of
/// the same owner may be ahead, but whoever burns the numbers would end the function.
const REVISION_JUMP_MAX: u64 = 1 << 20;

/// What a publisher wants, checked as far as it can be without the store.
struct Candidate {
    manifest: Arc<Verified>,
    head: SignedHead,
    /// It shows an invitation that counts.
    by_invitation: bool,
}

/// Takes a revision in; asks for its artifact if it is not here.
///
/// # Errors
/// The fault to answer with.
pub(crate) async fn publish(
    node: &Arc<SuperNode>,
    peer: &Peer,
    asked: directory::Publish,
    exchange: &mut Exchange,
) -> Result<Published, Fault> {
    let place = Arc::clone(&node.publishes)
        .try_acquire_owned()
        .map_err(|_| faults::overloaded("this super node takes in as many revisions as it can at once"))?;
    node.publish_rate
        .admit(Instant::now(), peer.address)
        .map_err(|wait| too_often(peer, wait))?;
    let candidate = admit(node, asked).await?;
    let step = |want_artifact| PublishStep {
        want_artifact,
        extensions: Extensions::none(),
    };
    let mut uploaded = false;
    let pin = match candidate.manifest.publish() {
        None => None,
        Some(wanted) => {
            let pin = node.storage.pin(wanted.artifact).await;
            if !is_here(node, wanted).await? && !is_elsewhere(node, wanted).await? {
                exchange
                    .reply(Ok(step(true)))
                    .await
                    .map_err(|error| lost(&error))?;
                let writer = upload(node, wanted, exchange).await?;
                let writer = examine_upload(node, wanted, writer).await?;
                let stored = node.storage.commit(&pin, writer).await;
                stored.map_err(|error| faults::of_object(&error))?;
                uploaded = true;
            }
            Some(pin)
        }
    };
    if !uploaded {
        exchange
            .reply(Ok(step(false)))
            .await
            .map_err(|error| lost(&error))?;
    }
    // The publisher may go away; what is recorded is told to the hosts all the same.
    let recording = record(Arc::clone(node), candidate, uploaded, pin, place);
    tokio::spawn(recording).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a revision could not be recorded");
        Err(Fault::new(
            FaultKind::Internal,
            "the super node failed over this revision",
        ))
    })
}

/// Checks signature, head, policy, and whether the registry would take it.
async fn admit(node: &SuperNode, asked: directory::Publish) -> Result<Candidate, Fault> {
    asked
        .extensions
        .check(&[INVITE])
        .map_err(|error| undecodable(&error))?;
    let manifest = asked.manifest.verify().map_err(|error| not_verified(&error))?;
    asked.head.verify_for(&manifest).map_err(|_| {
        Fault::new(
            FaultKind::Unverified,
            "the head that came with the manifest is not this manifest's",
        )
        .help("sign both anew")
    })?;
    let owner = manifest.manifest().owner;
    let used = node
        .storage
        .owner_use(owner)
        .await
        .map_err(|error| faults::of_store(&error))?;
    let by_invitation = node
        .policy
        .admit_owner(&owner, used.invited, asked.extensions.get(INVITE))?;
    if let Some(publish) = manifest.publish() {
        node.policy.admit_artifact(publish.artifact_bytes)?;
    }
    let live = node.storage.live(manifest.function()).await;
    let live = live.map_err(|error| faults::of_store(&error))?;
    follows(live.as_deref(), &manifest)?;
    Ok(Candidate {
        manifest: Arc::new(manifest),
        head: asked.head,
        by_invitation,
    })
}

/// Whether a manifest may come after the live one.
fn follows(live: Option<&Verified>, manifest: &Verified) -> Result<(), Fault> {
    let refuse = |message: String| Err(Fault::new(FaultKind::Refused, message));
    let (new, action) = (manifest.version(), &manifest.manifest().action);
    if matches!(action, Action::Unknown(_)) {
        let message = "the revision does something that this super node does not know";
        return Err(Fault::new(FaultKind::VersionMismatch, message).help("update the super node"));
    }
    let Some(live) = live else {
        return match action {
            Action::Decommission(_) => Err(Fault::new(
                FaultKind::NotFound,
                "there is no such function to decommission",
            )
            .help("check the name, and that the key is its owner's")),
            _ => Ok(()),
        };
    };
    if are_rivals(live, manifest) {
        return Err(taken(live, live));
    }
    match compare(Some(live), manifest) {
        Merge::Same => Ok(()),
        Merge::Older => Err(older(live, new)),
        Merge::New | Merge::Newer => {
            let old = live.version();
            let is_next_life = new.generation > old.generation;
            if live.is_tombstone() && manifest.is_tombstone() {
                return Err(super::directory::decommissioned(live));
            }
            if is_next_life && !live.is_tombstone() {
                return refuse(format!(
                    "generation {} would begin while generation {} is live: only a function that was decommissioned gets a new generation",
                    new.generation, old.generation
                ));
            }
            if !is_next_life && new.revision > old.revision + REVISION_JUMP_MAX {
                return refuse(format!(
                    "revision {} is too far ahead of the live revision {}",
                    new.revision, old.revision
                ));
            }
            Ok(())
        }
    }
}

/// Whether the artifact is stored here, sound, and what the manifest says it is.
async fn is_here(node: &SuperNode, wanted: &Publish) -> Result<bool, Fault> {
    let _memory = memory(node, wanted).await?;
    match node.storage.artifact(wanted.artifact).await {
        Ok(bytes) => examine(wanted, bytes).await.map(|()| true),
        Err(ObjectError::Missing(_) | ObjectError::Damaged(_)) => Ok(false),
        Err(error) => Err(faults::of_object(&error)),
    }
}

/// Whether another super node had the artifact, as before a rollback here of what was deployed there: then it is
/// here now. Nobody is asked for what no revision has named yet: a new artifact comes from its owner.
async fn is_elsewhere(node: &SuperNode, wanted: &Publish) -> Result<bool, Fault> {
    Ok(artifacts::obtain_named(node, wanted.artifact).await && is_here(node, wanted).await?)
}

/// Takes the artifact's bytes in, to a temporary file.
async fn upload(node: &SuperNode, wanted: &Publish, exchange: &mut Exchange) -> Result<ObjectWriter, Fault> {
    let reading = async {
        let mut body = BodyReader::new(&mut exchange.recv, wanted.artifact_bytes);
        let (mut writer, mut buffer) = (None, Vec::new());
        loop {
            let next = tokio::time::timeout(SILENCE_MAX, body.next())
                .await
                .unwrap_or(Err(FrameError::TimedOut(SILENCE_MAX)));
            let chunk = next.map_err(|error| not_read(wanted, &error))?;
            let ended = chunk.is_none();
            buffer.extend_from_slice(&chunk.unwrap_or_default());
            if ended || buffer.len() >= SPOOL_STEP_BYTES {
                let spooled = node.storage.write(writer, std::mem::take(&mut buffer)).await;
                let spooled = spooled.map_err(|error| faults::of_object(&error))?;
                if ended {
                    return Ok(spooled);
                }
                writer = Some(spooled);
            }
        }
    };
    tokio::time::timeout(UPLOAD_MAX, reading)
        .await
        .unwrap_or_else(|_| Err(faults::of_frame(&FrameError::TimedOut(UPLOAD_MAX))))
}

async fn examine_upload(
    node: &SuperNode,
    wanted: &Publish,
    writer: ObjectWriter,
) -> Result<ObjectWriter, Fault> {
    let _memory = memory(node, wanted).await?;
    let (writer, bytes) = blocking(move || {
        let bytes = writer.read_back();
        (writer, bytes)
    })
    .await;
    let bytes = bytes.map_err(|error| faults::of_object(&error))?;
    examine(wanted, bytes.into()).await?;
    Ok(writer)
}

/// Waits for memory for an artifact.
async fn memory<'a>(node: &'a SuperNode, wanted: &Publish) -> Result<SemaphorePermit<'a>, Fault> {
    let all = u32::try_from(EXAMINED_KIB_MAX).unwrap_or(u32::MAX);
    let kib = u32::try_from(wanted.artifact_bytes.div_ceil(1024)).unwrap_or(all);
    let permit = node.examined_kib.acquire_many(kib.min(all)).await;
    permit.map_err(|_| faults::of_store(&StoreError::Closed))
}

/// Checks bytes against everything that the manifest says of them.
async fn examine(wanted: &Publish, bytes: Bytes) -> Result<(), Fault> {
    let len = bytes.len() as u64;
    if len != wanted.artifact_bytes {
        return Err(other_length(wanted, &len.to_string()));
    }
    let artifact = wanted.artifact;
    let admitted = blocking(move || {
        let found = ArtifactHash::of(&bytes);
        if found != artifact {
            let wanted = artifact;
            return Err(faults::of_object(&ObjectError::Mismatch { wanted, found }));
        }
        orb_runtime::admit(&bytes).map_err(|error| not_admitted(&error))
    })
    .await?;
    let kind = match admitted.kind {
        orb_runtime::Kind::Command => Kind::Command,
        orb_runtime::Kind::JavyFunction => Kind::JavyFunction,
        orb_runtime::Kind::JavyScript => Kind::JavyScript,
    };
    let engine = wanted.engine.map(|engine| *engine.as_bytes());
    if kind != wanted.kind || engine != admitted.engine {
        let message = "the manifest says that the artifact is another kind of program, or for another engine, than it is";
        return Err(
            Fault::new(FaultKind::Unverified, message).help("build and deploy it with one version of orb")
        );
    }
    Ok(())
}

/// Makes the revision live: durably, then for the hosts.
async fn record(
    node: Arc<SuperNode>,
    candidate: Candidate,
    uploaded: bool,
    pin: Option<Pin>,
    place: OwnedSemaphorePermit,
) -> Result<Published, Fault> {
    let Candidate {
        manifest,
        head,
        by_invitation,
    } = candidate;
    let limits = node.policy.owner_limits;
    let recorded = node
        .storage
        .record(&manifest, head.clone(), limits, by_invitation)
        .await;
    let mut published = None;
    drop(pin);
    if recorded.is_err() {
        tell_if_stored(&node, &manifest).await;
    }
    match recorded.map_err(|error| faults::of_store(&error))? {
        Recorded::Stored { before, at, .. } => {
            log(&manifest, before.as_deref(), uploaded);
            published = at;
        }
        Recorded::Same => {}
        // Another device was faster.
        Recorded::Older(live) => return Err(older(&live, manifest.version())),
        Recorded::Taken(winner) => return Err(taken(&winner, &winner)),
        Recorded::OverQuota(over) => {
            return Err(Fault::new(FaultKind::Refused, format!("over quota: {over}"))
                .help("decommission functions that are not needed, or ask the operator for more"));
        }
    }
    let (assigned, shortage) = tell(&node, &manifest, head.signature, published);
    drop(place);
    Ok(Published {
        version: manifest.version(),
        assigned,
        note: shortage.unwrap_or_default(),
        extensions: Extensions::none(),
    })
}

/// Tells hosts and other super nodes of a revision that was stored. Returns who was told to hold it, and
/// why there are fewer than wanted.
fn tell(
    node: &SuperNode,
    manifest: &Verified,
    head_signature: Vec<u8>,
    at: Option<Cursor>,
) -> (Vec<NodeId>, Option<String>) {
    node.beyond.on_changed(manifest.function());
    let Some(at) = at else {
        node.driver.on_manifest(manifest);
        return node.driver.placed(&manifest.function());
    };
    let change = RegistryChange {
        at,
        manifest: manifest.signed().clone(),
        head_signature,
        extensions: Extensions::none(),
    };
    node.driver.on_published(manifest, &change)
}

/// A revision that was not acknowledged may be stored all the same, if it was the last sync that failed.
/// Then hosts have to hear of it, so that it can be called.
pub(super) async fn tell_if_stored(node: &SuperNode, manifest: &Verified) {
    let live = node.storage.live(manifest.function()).await;
    if let Ok(Some(live)) = live
        && *live == *manifest
    {
        node.driver.on_manifest(manifest);
    }
}

fn log(manifest: &Verified, before: Option<&Verified>, uploaded: bool) {
    let (owner, name) = (manifest.manifest().owner, &manifest.manifest().name);
    let function = manifest.function();
    let Version { generation, revision } = manifest.version();
    let artifact = manifest.publish().map(|publish| publish.artifact);
    let old = before.and_then(|before| before.publish().map(|publish| publish.artifact));
    let event = match artifact {
        None => "decommissioned",
        // Its bytes were here already, and they are not those of the revision before.
        Some(_) if !uploaded && old.is_some() && old != artifact => "rolled back",
        Some(_) => "published",
    };
    let artifact = artifact.map(|artifact| artifact.short()).unwrap_or_default();
    tracing::info!(%owner, %name, %function, generation, revision, artifact, "{event}");
}

fn older(live: &Verified, new: Version) -> Fault {
    let old = live.version();
    if live.is_tombstone() && new.generation <= old.generation {
        return super::directory::decommissioned(live);
    }
    let message = format!(
        "revision {} is not newer than revision {}, which is live here",
        new.revision, old.revision
    );
    Fault::new(FaultKind::Refused, message).help("another device published meanwhile: deploy again")
}

fn too_often(peer: &Peer, wait: Duration) -> Fault {
    let message = format!("too many revisions come from {}", peer.address);
    Fault {
        retry_after_ms: u32::try_from(wait.as_millis()).ok(),
        ..faults::overloaded(message)
    }
}

fn not_verified(error: &ManifestError) -> Fault {
    let kind = match error {
        ManifestError::Signature | ManifestError::Owner => FaultKind::Unverified,
        ManifestError::Decode(error) => return undecodable(error),
        ManifestError::TooLong(_) | ManifestError::Field { .. } => FaultKind::InputInvalid,
    };
    Fault::new(kind, error.to_string())
}

fn not_admitted(error: &orb_runtime::AdmissionError) -> Fault {
    let kind = match error.is_compile_limit() {
        true => FaultKind::CompileLimit,
        false => FaultKind::Refused,
    };
    Fault::new(kind, format!("the artifact is not admitted: {error}"))
}

fn other_length(wanted: &Publish, found: &str) -> Fault {
    let message = format!(
        "the manifest says that the artifact has {} bytes, and it has {found}",
        wanted.artifact_bytes
    );
    Fault::new(FaultKind::Unverified, message)
}

fn not_read(wanted: &Publish, error: &FrameError) -> Fault {
    match error {
        FrameError::TooLong { .. } => other_length(wanted, "more"),
        error => faults::of_frame(error),
    }
}

/// Nobody hears this fault: its hearer is gone.
fn lost(error: &FrameError) -> Fault {
    faults::of_frame(error)
}
