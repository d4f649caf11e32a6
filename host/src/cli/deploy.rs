//! `orb deploy`: a new revision.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use orb_protocol::client::{Deployed, Draft};
use orb_protocol::fault::FaultKind;
use serde::Serialize;

use super::context::{Context, InviteArgs};
use super::describe;
use super::ready::Readiness;
use super::wait::{WaitArgs, WaitFor};
use crate::builder::{self, Built};
use crate::config::ByteSize;
use crate::failure::Failure;
use crate::format;
use crate::home::Home;
use crate::output::Tone;
use crate::project::Project;

/// Build a function and publish it as a new revision
#[derive(Debug, Args)]
#[command(after_help = "\
It returns when the super node has stored the revision durably and one host is ready to answer
for it; --wait 3 waits for three, --wait all for as many as it asks for. After 15 seconds without one it says why, and that is no error: a host takes it later.

Example:
  orb deploy --message 'greet in French'
  orb deploy ./hello --wait 3")]
pub(crate) struct DeployCommand {
    /// The function's folder
    #[arg(default_value = ".")]
    path: PathBuf,
    /// A note for the history
    #[arg(
        long,
        short,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    message: String,
    #[command(flatten)]
    wait: WaitArgs,
    /// Publish it although it was decommissioned
    #[arg(long)]
    resurrect: bool,
    #[command(flatten)]
    invite: InviteArgs,
}

#[derive(Serialize)]
struct Document {
    #[serde(flatten)]
    revision: describe::Revision,
    #[serde(flatten)]
    readiness: Readiness,
    times_ms: Times,
}

#[derive(Serialize)]
struct Times {
    build: f64,
    publish: f64,
    ready: f64,
}

impl DeployCommand {
    pub(crate) async fn execute(self, context: &Context) -> Result<(), Failure> {
        let project = Project::open(&self.path)?;
        let key = context.home.owner_key()?;
        let built = builder::build(&project, &context.sandbox).await?;
        let began = Instant::now();
        let client = context.connect_to_publish(&self.invite).await?;
        let draft = Draft {
            name: project.name.clone(),
            publish: built.publish(&project),
            message: self.message,
        };
        let deployed = client
            .deploy(&key, draft, built.wasm.clone(), self.resurrect)
            .await
            .map_err(|error| match error.kind() {
                FaultKind::Decommissioned => Failure::from(error.fault)
                    .help("publish it again with `orb deploy --resurrect`, or under another name"),
                _ => error.into(),
            })?;
        let stored = began.elapsed();
        keep(&context.home, &project, &deployed, &built);
        let whom = self.wait.or(WaitFor::Count(1));
        let readiness = Readiness::wait(&client, &deployed, whom, context.out).await?;
        let document = Document {
            revision: describe::Revision::of(&deployed.manifest),
            times_ms: Times {
                build: format::ms(built.time),
                publish: format::ms(stored),
                ready: format::ms(began.elapsed() - stored),
            },
            readiness,
        };
        let summary = format!(
            "deployed {}, revision {} ({} {})",
            project.name,
            deployed.manifest.version().revision,
            ByteSize(built.wasm.len() as u64),
            describe::kind(built.kind)
        );
        let tone = if document.readiness.is_short() {
            Tone::Warning
        } else {
            Tone::Good
        };
        let times = format!(
            "built in {}, stored in {}, waited {}",
            format::time(built.time),
            format::time(stored),
            format::time(began.elapsed() - stored)
        );
        let text = format!(
            "{}\n  {}\n  {}",
            context.out.paint(Tone::Strong, &summary),
            context.out.paint(tone, document.readiness.line()),
            context.out.paint(Tone::Faint, times),
        );
        context.out.result(
            &document,
            &format!("{summary}: {}", document.readiness.line()),
            &text,
        )
    }
}

/// The revision is published whether or not a copy can be kept here.
fn keep(home: &Home, project: &Project, deployed: &Deployed, built: &Built) {
    if let Err(error) = home
        .artifacts()
        .keep(&project.name, deployed.manifest.version(), &built.wasm)
    {
        tracing::error!(
            "the revision is published, but its artifact cannot be kept in ORB_HOME for a rollback: {error}"
        );
    }
}
