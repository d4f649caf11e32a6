//! `orb versions`: a function's history.

use clap::Args;
use orb_protocol::client::Revision;
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
    revisions: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    #[serde(flatten)]
    revision: describe::Revision,
    live: bool,
    has_artifact: bool,
}

impl VersionsCommand {
    pub(crate) async fn execute(self, context: &Context) -> Result<(), Failure> {
        let target = self.function.locate_whole(&context.home)?;
        let revisions = context
            .connect()
            .await?
            .versions(target.id)
            .await
            .map_err(|error| target.failure(error.fault))?;
        let entries = revisions.iter().enumerate().map(|(i, revision)| Entry {
            revision: describe::Revision::of(&revision.manifest),
            live: i == 0 && revision.manifest.publish().is_some(),
            has_artifact: revision.has_artifact,
        });
        let document = Versions {
            function: target.full(),
            revisions: entries.collect(),
        };
        let summary = format!("{}: {}", target.shown, format::count(revisions.len(), "revision"));
        context
            .out
            .result(&document, &summary, &table(&revisions, &context.out))
    }
}

fn table(revisions: &[Revision], out: &Output) -> String {
    let mut table = Table::new(["REVISION", "STATE", "ARTIFACT", "SIZE", "PUBLISHED", "MESSAGE"]);
    // The column would say 0 on every line of a function that never was decommissioned.
    let generations = revisions.iter().any(|r| r.manifest.version().generation > 0);
    for (i, revision) in revisions.iter().enumerate() {
        let manifest = revision.manifest.manifest();
        let version = manifest.version;
        let number = if generations {
            format!("{} (life {})", version.revision, version.generation + 1)
        } else {
            version.revision.to_string()
        };
        let publish = revision.manifest.publish();
        let state = match publish {
            None => describe::action(&revision.manifest),
            Some(_) if i == 0 => "live",
            Some(_) if revision.has_artifact => "superseded",
            Some(_) => "bytes dropped",
        };
        table.row([
            number,
            state.to_owned(),
            publish.map_or_else(|| "-".to_owned(), |publish| publish.artifact.short()),
            publish.map_or_else(
                || "-".to_owned(),
                |publish| ByteSize(publish.artifact_bytes).to_string(),
            ),
            format::rfc3339(manifest.time_ms),
            describe::one_line(&manifest.message),
        ]);
    }
    table.render(out)
}
