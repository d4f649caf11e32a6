//! `orb rollback`: an older revision's content becomes the newest.

use clap::Args;
use orb_protocol::client::Deployed;
use orb_protocol::id::ArtifactHash;
use serde::Serialize;

use super::context::{Context, InviteArgs};
use super::describe;
use super::function::{FunctionRef, Target};
use super::ready::Readiness;
use super::wait::{WaitArgs, WaitFor};
use crate::failure::Failure;
use crate::home::Artifacts;

/// Publish an older revision's content again
#[derive(Debug, Args)]
#[command(after_help = "\
Without --to: the highest lower revision whose artifact differs from the live one.
It returns when all hosts that can be reached are ready for it, at most 15 seconds later.

Example:
  orb rollback hello
  orb rollback hello --to 2")]
pub(crate) struct RollbackCommand {
    /// Which function: NAME
    #[arg(value_name = "FN")]
    function: FunctionRef,
    /// The revision to go back to
    #[arg(long, value_name = "REVISION")]
    to: Option<u64>,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    invite: InviteArgs,
}

#[derive(Serialize)]
struct Document {
    #[serde(flatten)]
    revision: describe::Revision,
    #[serde(flatten)]
    readiness: Readiness,
}

impl RollbackCommand {
    pub(crate) async fn execute(self, context: &Context) -> Result<(), Failure> {
        let target = self.function.locate_own(&context.home)?;
        let key = context.home.owner_key()?;
        let client = context.connect_to_publish(&self.invite).await?;
        let artifacts = context.home.artifacts();
        let kept = |artifact: &ArtifactHash| artifacts.find(&target.name, *artifact);
        let deployed = client
            .rollback(&key, &target.name, self.to, kept)
            .await
            .map_err(|error| target.failure(error.fault))?;
        keep_again(&deployed, &artifacts, &target);
        let whom = self.wait.or(WaitFor::Reachable);
        let readiness = Readiness::wait(&client, &deployed, whom, context.out).await?;
        let version = deployed.manifest.version();
        let artifact = deployed
            .manifest
            .publish()
            .map(|publish| publish.artifact.short())
            .unwrap_or_default();
        let summary = format!(
            "{} is rolled back: revision {} has the artifact {artifact}",
            target.shown, version.revision
        );
        let text = format!("{summary}\n  {}", readiness.line());
        let document = Document {
            revision: describe::Revision::of(&deployed.manifest),
            readiness,
        };
        context.out.result(&document, &summary, &text)
    }
}

/// The new revision counts among the last ten, and its bytes are kept once more under its number.
fn keep_again(deployed: &Deployed, artifacts: &Artifacts, target: &Target) {
    let publish = deployed.manifest.publish();
    let wasm = publish.and_then(|publish| artifacts.find(&target.name, publish.artifact));
    if let Some(wasm) = wasm
        && let Err(error) = artifacts.keep(&target.name, deployed.manifest.version(), &wasm)
    {
        tracing::warn!("cannot keep the artifact in ORB_HOME: {error}");
    }
}
