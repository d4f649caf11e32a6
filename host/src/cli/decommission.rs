//! `orb decommission`: a function's end.

use std::io::{BufRead, IsTerminal, Write};

use clap::Args;
use serde::Serialize;

use super::context::{Context, InviteArgs};
use super::describe;
use super::function::{FunctionRef, Target};
use super::removal::Removal;
use super::wait::{WaitArgs, WaitFor};
use crate::failure::Failure;

/// End a function: every holder drops it, and calls are told so
#[derive(Debug, Args)]
#[command(after_help = "\
It asks first; --yes answers. It returns when all hosts that can be reached have removed it, at most
15 seconds later; with --wait all when every host has, at most 10 minutes later. A host that is
offline is told when it comes back, before it answers a call. `orb deploy --resurrect` publishes the
function again.

Example:
  orb decommission hello --yes")]
pub(crate) struct DecommissionCommand {
    /// Which function: NAME
    #[arg(value_name = "FN")]
    function: FunctionRef,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
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
    #[command(flatten)]
    invite: InviteArgs,
}

#[derive(Serialize)]
struct Document {
    #[serde(flatten)]
    revision: describe::Revision,
    #[serde(flatten)]
    removal: Removal,
}

impl DecommissionCommand {
    pub(crate) async fn execute(self, context: &Context) -> Result<(), Failure> {
        let target = self.function.locate_own(&context.home)?;
        let key = context.home.owner_key()?;
        if !self.yes {
            confirm(&target)?;
        }
        let client = context.connect_to_publish(&self.invite).await?;
        let ended = client
            .decommission(&key, &target.name, self.message)
            .await
            .map_err(|error| target.failure(error.fault))?;
        if let Err(error) = context.home.artifacts().forget(&target.name) {
            tracing::warn!("cannot drop the artifacts in ORB_HOME: {error}");
        }
        let revision = ended.manifest.version().revision;
        let whom = self.wait.or(WaitFor::Reachable);
        let removal = Removal::wait(&client, ended.manifest.function(), whom, context.out).await?;
        let summary = format!(
            "{} is decommissioned (revision {revision}): {}",
            target.shown,
            removal.line()
        );
        let document = Document {
            revision: describe::Revision::of(&ended.manifest),
            removal,
        };
        context.out.result(&document, &summary, &summary)
    }
}

/// Asks the person at the terminal.
fn confirm(target: &Target) -> Result<(), Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::usage(format!(
            "decommissioning {} needs a yes, and there is no terminal to ask at",
            target.shown
        ))
        .help("say --yes"));
    }
    let mut stderr = std::io::stderr();
    let asked = write!(
        stderr,
        "Decommission {}? No call will be answered any more. [y/N] ",
        target.shown
    )
    .and_then(|()| stderr.flush());
    let mut answer = String::new();
    let read = asked.and_then(|()| stdin.lock().read_line(&mut answer));
    read.map_err(|error| Failure::local(format!("cannot ask: {error}")).help("say --yes"))?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::new(
            "cancelled",
            format!("{} was left as it is", target.shown),
        )),
    }
}
