//! `orb versions`: a function's history.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use clap::Args;
use orb_protocol::client::{Client, ClientError, Revision};
use orb_protocol::id::{FunctionId, ManifestHash};
use orb_protocol::manifest::Version;
use orb_protocol::wire::directory::ReplicaState;
use serde::Serialize;

use super::context::Context;
use super::describe;
use super::function::FunctionRef;
use crate::config::ByteSize;
use crate::failure::Failure;
use crate::format;
use crate::output::{Output, Table};

/// Show a function's revisions, newest first
#[derive(Debug, Args)]
#[command(after_help = "\
Each revision names the one that its owner saw before it (PARENT is that one's HASH). BYTES says
whether a super node still has the artifact, HOSTS how many hosts can answer for the live one.
Revisions that the super node missed it asks others for; if nobody has them, that is said.

Example:
  orb versions hello
  orb rollback hello --to 2")]
pub(crate) struct VersionsCommand {
    /// Which function: NAME or OWNER/NAME
    #[arg(value_name = "FN")]
    function: FunctionRef,
}

#[derive(Serialize)]
struct Versions {
    function: String,
    /// Whether the parent of each revision is shown, too, but for the oldest one.
    complete: bool,
    revisions: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    #[serde(flatten)]
    revision: describe::Revision,
    live: bool,
    /// Whether the super node still has its bytes.
    has_artifact: bool,
    /// Hosts that can answer for it; of the live revision only.
    #[serde(skip_serializing_if = "Option::is_none")]
    ready: Option<usize>,
}

/// A function's revisions, and how many hosts can answer for the newest one.
struct History {
    revisions: Vec<Revision>,
    ready: usize,
}

impl VersionsCommand {
    pub(crate) async fn execute(self, context: &Context) -> Result<(), Failure> {
        let target = self.function.locate_whole(&context.home)?;
        let history = History::ask(&context.connect_for(&target).await?, target.id)
            .await
            .map_err(|error| target.failure(error.fault))?;
        let missing = history.missing();
        if let Some(note) = missing_note(&missing) {
            context.out.note(&note);
        }
        let entries = history.revisions.iter().enumerate().map(|(i, revision)| Entry {
            revision: describe::Revision::of(&revision.manifest),
            live: history.is_live(i),
            has_artifact: revision.has_artifact,
            ready: history.is_live(i).then_some(history.ready),
        });
        let document = Versions {
            function: target.full(),
            complete: missing.is_empty(),
            revisions: entries.collect(),
        };
        let count = format::count(history.revisions.len(), "revision");
        let summary = format!("{}: {count}", target.shown);
        let text = history.table(&context.out);
        context.out.result(&document, &summary, &text)
    }
}

/// Says which revisions are missing.
fn missing_note(after: &[Version]) -> Option<String> {
    let before: Vec<String> = after.iter().map(|version| version.revision.to_string()).collect();
    (!before.is_empty()).then(|| {
        format!(
            "revisions are missing before revision {}: the super node did not hear of them, and those that it is linked to did not have them when it asked",
            before.join(", ")
        )
    })
}

impl History {
    async fn ask(client: &Client, function: FunctionId) -> Result<Self, ClientError> {
        let mut revisions = client.versions(function).await?;
        // A tombstone that came from another super node may have a lower number than what it ended here.
        revisions.sort_by_key(|revision| Reverse(revision.manifest.rank()));
        let replicas = client.inspect(function).await?.replicas;
        let ready = replicas
            .iter()
            .filter(|replica| replica.state == ReplicaState::Ready);
        let ready = ready.count();
        Ok(Self { revisions, ready })
    }

    /// Revisions whose parent nobody who was asked has. Beyond the oldest one there may be others that are not kept
    /// any more.
    fn missing(&self) -> Vec<Version> {
        let known: BTreeSet<ManifestHash> = self.revisions.iter().map(|r| r.manifest.hash()).collect();
        let manifests = self.revisions.iter().map(|revision| revision.manifest.manifest());
        let oldest = manifests.clone().map(|manifest| manifest.version).min();
        manifests
            .filter(|manifest| manifest.parent.is_some_and(|parent| !known.contains(&parent)))
            .map(|manifest| manifest.version)
            .filter(|version| Some(*version) != oldest)
            .collect()
    }

    fn is_live(&self, index: usize) -> bool {
        index == 0 && self.revisions[index].manifest.publish().is_some()
    }

    fn table(&self, out: &Output) -> String {
        let mut table = Table::new([
            "REVISION",
            "STATE",
            "HOSTS",
            "ARTIFACT",
            "SIZE",
            "BYTES",
            "HASH",
            "PARENT",
            "PUBLISHED",
            "MESSAGE",
        ]);
        // The column would say 0 on every line of a function that never was decommissioned.
        let lives = self.revisions.iter().any(|r| r.manifest.version().generation > 0);
        for (index, revision) in self.revisions.iter().enumerate() {
            table.row(self.row(index, revision, lives));
        }
        table.render(out)
    }

    fn row(&self, index: usize, revision: &Revision, lives: bool) -> [String; 10] {
        let manifest = revision.manifest.manifest();
        let none = || "-".to_owned();
        let number = match (lives, manifest.version) {
            (true, version) => format!("{} (life {})", version.revision, version.generation + 1),
            (false, version) => version.revision.to_string(),
        };
        let publish = revision.manifest.publish();
        let state = match publish {
            None => describe::action(&revision.manifest),
            Some(_) if self.is_live(index) => "live",
            Some(_) => "superseded",
        };
        let hosts = self.is_live(index).then(|| format!("{} ready", self.ready));
        let kept = if revision.has_artifact { "kept" } else { "dropped" };
        [
            number,
            state.to_owned(),
            hosts.unwrap_or_else(none),
            publish.map_or_else(none, |publish| publish.artifact.short()),
            publish.map_or_else(none, |publish| ByteSize(publish.artifact_bytes).to_string()),
            publish.map_or_else(none, |_| kept.to_owned()),
            revision.manifest.hash().short(),
            manifest.parent.map_or_else(none, |parent| parent.short()),
            format::rfc3339(manifest.time_ms),
            describe::one_line(&manifest.message),
        ]
    }
}
