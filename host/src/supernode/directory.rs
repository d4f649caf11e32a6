//! What clients ask about functions: resolve, list, versions, inspect; and who is here.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use orb_protocol::fault::{Fault, FaultKind};
use orb_protocol::id::{FunctionId, NodeId};
use orb_protocol::manifest::{SignedManifest, Verified};
use orb_protocol::ranking;
use orb_protocol::wire::directory::{
    HOSTS_MAX, Inspect, Inspected, LOCAL, List, Listed, NEARBY, NOTE, OWN_HOSTS, PAGE_MAX, ReplicaState,
    Resolve, Resolved, RevisionEntry, Summary, Versions, VersionsListed,
};
use orb_protocol::wire::extension::Extensions;
use orb_protocol::wire::federation::{Locate, Located};
use orb_protocol::wire::{Info, NodeInfo, undecodable};

use super::connection::Peer;
use super::peers::{history, remote};
use super::{SuperNode, beyond, faults};
use crate::store::registry::{KEPT_REVISIONS, artifact_of};

/// How long the super node that places a function may take to say where its replicas are.
const FIRST_MAX: Duration = Duration::from_secs(2);
/// The most replicas that are described in one answer: four times what a function may ask for.
const REPLICAS_SHOWN_MAX: usize = 256;
/// Said where nobody else answers.
const OWN_HOSTS_ONLY: &str = "only hosts of the super node that was asked are shown: those that keep the function's directory do not answer";

/// A function's live revision, and who can answer for it.
pub(crate) async fn resolve(node: &SuperNode, asked: &Resolve) -> Result<Resolved, Fault> {
    check(&asked.extensions)?;
    let live = match live(node, asked.function).await {
        Err(fault) if fault.kind == FaultKind::NotFound && looks_further(asked) => {
            return beyond::resolve(node, asked.function).await.ok_or(fault);
        }
        live => live?,
    };
    if live.is_tombstone() {
        return Err(decommissioned(&live));
    }
    let mut hosts = node.driver.route(&asked.function);
    if asked.extensions.get(LOCAL).is_none() {
        let elsewhere = remote::hosts(node, asked.function, hosts.is_empty()).await;
        // A host that is connected to both is reached by way of this one.
        let known: Vec<NodeId> = hosts.iter().map(|host| host.node).collect();
        hosts.extend(elsewhere.into_iter().filter(|host| !known.contains(&host.node)));
        ranking::rank(&asked.function, live.version(), &mut hosts);
        hosts.truncate(HOSTS_MAX);
    }
    let extensions = match hosts.is_empty() {
        true => note(why_nobody(node, &live)),
        false => Extensions::none(),
    };
    Ok(Resolved {
        manifest: live.signed().clone(),
        hosts,
        extensions,
    })
}

/// A page of the functions.
pub(crate) async fn list(node: &SuperNode, asked: &List) -> Result<Listed, Fault> {
    check(&asked.extensions)?;
    let limit = usize::from(asked.limit.clamp(1, PAGE_MAX));
    let (page, more) = node
        .storage
        .page(asked.owner, asked.after, limit, asked.decommissioned)
        .await
        .map_err(|error| faults::of_store(&error))?;
    let functions = page.into_iter().map(|manifest| summary(node, manifest));
    Ok(Listed {
        functions: functions.collect(),
        more,
        extensions: Extensions::none(),
    })
}

/// A page of a function's revisions, newest first. What this node missed of the newest ones is asked for elsewhere.
pub(crate) async fn versions(node: &Arc<SuperNode>, asked: &Versions) -> Result<VersionsListed, Fault> {
    check(&asked.extensions)?;
    let may_ask = asked.before.is_none() && asked.extensions.get(LOCAL).is_none();
    if may_ask {
        history::complete(node, asked.function).await;
    }
    let page = node
        .storage
        .versions(asked.function, asked.before, PAGE_MAX.into())
        .await
        .map_err(|error| faults::of_store(&error))?;
    let (mut revisions, more) = page.ok_or_else(not_found)?;
    let newest = revisions.iter().take(KEPT_REVISIONS);
    let lacks_some = newest
        .clone()
        .any(|(manifest, here)| !here && artifact_of(manifest).is_some());
    if may_ask && lacks_some && !live(node, asked.function).await?.is_tombstone() {
        let kept = history::kept_elsewhere(node, asked.function).await;
        for (manifest, somewhere) in &mut revisions {
            *somewhere = *somewhere || kept.contains(&manifest.hash());
        }
    }
    let revisions = revisions
        .into_iter()
        .map(|(manifest, has_artifact)| RevisionEntry {
            manifest,
            has_artifact,
        });
    Ok(VersionsListed {
        revisions: revisions.collect(),
        more,
        extensions: Extensions::none(),
    })
}

/// Where a function's replicas are: as whoever places it says, or the next one of its directory that answers.
pub(crate) async fn inspect(node: &SuperNode, asked: &Inspect) -> Result<Inspected, Fault> {
    check(&asked.extensions)?;
    let live = live(node, asked.function).await?;
    let manifest = live.signed().clone();
    let is_first = first_elsewhere(node, asked.function, &asked.extensions).is_none();
    let keepers = match is_first {
        true => Vec::new(),
        false => node.driver.directory(&asked.function),
    };
    // This node is as good as those that come after it.
    for keeper in keepers
        .iter()
        .take_while(|keeper| **keeper != node.endpoint.node_id())
    {
        if let Some(said) = inspected_at(node, keeper, asked.function).await {
            return Ok(Inspected { manifest, ..said });
        }
    }
    let why_few = match is_first || node.driver.knows_all_hosts(&asked.function) {
        true => node.driver.shortage(&asked.function),
        false => Some(OWN_HOSTS_ONLY.to_owned()),
    };
    Ok(Inspected {
        manifest,
        replicas: node.driver.replicas(&asked.function, REPLICAS_SHOWN_MAX),
        extensions: why_few.map_or(Extensions::none(), note),
    })
}

/// Where a function's replicas are, as a super node of its directory says.
async fn inspected_at(node: &SuperNode, keeper: &NodeId, function: FunctionId) -> Option<Inspected> {
    let asked = Inspect {
        function,
        extensions: Extensions::none().with(LOCAL, Vec::new()),
    };
    let answer = remote::ask_super::<Inspected>(node, keeper, asked.into(), FIRST_MAX).await?;
    let mut said = answer
        .inspect_err(|fault| {
            tracing::debug!(super_node = %keeper, %fault, "a function could not be inspected there");
        })
        .ok()?;
    said.replicas.truncate(REPLICAS_SHOWN_MAX);
    Some(said)
}

/// The super node that places a function, if it is another one than this and may be asked.
pub(crate) fn first_elsewhere(
    node: &SuperNode,
    function: FunctionId,
    extensions: &Extensions,
) -> Option<NodeId> {
    let first = node.driver.directory(&function).into_iter().next()?;
    let may_ask = extensions.get(LOCAL).is_none() && first != node.endpoint.node_id();
    may_ask.then_some(first)
}

/// Super nodes with hosts that can answer for a function.
pub(crate) fn locate(node: &SuperNode, asked: &Locate) -> Result<Located, Fault> {
    check(&asked.extensions)?;
    Ok(Located {
        supers: node.driver.sites(&asked.function),
        extensions: Extensions::none(),
    })
}

/// What this node is.
pub(crate) fn info(peer: &Peer, asked: &Info) -> Result<NodeInfo, Fault> {
    check(&asked.extensions)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(NodeInfo {
        role: "super".to_owned(),
        software: env!("CARGO_PKG_VERSION").to_owned(),
        time_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        observed: peer.connection.remote_address().to_string(),
        extensions: Extensions::none(),
    })
}

/// The live manifest of a function that has one.
///
/// # Errors
/// [`FaultKind::NotFound`].
pub(crate) async fn live(node: &SuperNode, function: FunctionId) -> Result<Arc<Verified>, Fault> {
    let live = node.storage.live(function).await;
    live.map_err(|error| faults::of_store(&error))?
        .ok_or_else(not_found)
}

/// The fault for a function that was ended.
pub(crate) fn decommissioned(tombstone: &Verified) -> Fault {
    let name = &tombstone.manifest().name;
    let revision = tombstone.version().revision;
    let message = format!("the function {name} was decommissioned by its owner (revision {revision})");
    Fault::new(FaultKind::Decommissioned, message)
        .help("its owner can publish it again with `orb deploy --resurrect`")
}

/// Whether a message's extensions hold nothing that this version must know and does not.
/// Whether the function may be looked for in the DHT. Not for who does so already: super nodes would set each other
/// looking without end.
fn looks_further(asked: &Resolve) -> bool {
    asked.extensions.get(LOCAL).is_none() && asked.extensions.get(NEARBY).is_none()
}

pub(crate) fn check(extensions: &Extensions) -> Result<(), Fault> {
    extensions.check(&[]).map_err(|error| undecodable(&error))
}

fn not_found() -> Fault {
    Fault::new(FaultKind::NotFound, "this super node does not know the function")
        .help("check owner and name with `orb list`, or deploy it first")
}

fn note(text: String) -> Extensions {
    Extensions::none().with(NOTE, text.into_bytes())
}

fn why_nobody(node: &SuperNode, live: &Verified) -> String {
    if let Some(shortage) = node.driver.shortage(&live.function()) {
        return shortage;
    }
    let replicas = node.driver.replicas(&live.function(), REPLICAS_SHOWN_MAX);
    if let Some(paused) = replicas
        .iter()
        .find(|replica| replica.state == ReplicaState::Paused)
    {
        return format!("the hosts that hold it are paused: {}", paused.reason);
    }
    let report = node.driver.ready_report(&live.function(), live.version());
    match report.refused.first() {
        Some((host, reason)) => format!("host {} refused: {reason}", host.short()),
        None if report.pending.is_empty() => "no host that holds it has been heard of lately".to_owned(),
        None => format!("{} hosts are fetching it", report.pending.len()),
    }
}

fn summary(node: &SuperNode, manifest: SignedManifest) -> Summary {
    let mut extensions = Extensions::none();
    // What is stored was verified when it came; a client verifies it again.
    let ready = manifest.clone().verify().map_or(0, |manifest| {
        let function = manifest.function();
        if !node.driver.knows_all_hosts(&function) {
            extensions = Extensions::none().with(OWN_HOSTS, Vec::new());
        }
        node.driver
            .ready_report(&function, manifest.version())
            .ready
            .len()
    });
    Summary {
        manifest,
        ready: u16::try_from(ready).unwrap_or(u16::MAX),
        extensions,
    }
}
