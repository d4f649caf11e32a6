//! `orb demo`: the main job, on this machine, in a few seconds.

use clap::Args;

use crate::demo;
use crate::failure::Failure;
use crate::output::Output;

/// See the whole network at work on this machine: no configuration, nothing left behind
#[derive(Debug, Args)]
#[command(after_help = "\
It starts a super node and three hosts as processes of their own in a temporary folder,
builds a JavaScript function, deploys, calls and edits it, rolls it back, kills a host, stops a
runaway, and decommissions it. Each step is checked; the exit code is 1 if one fails.

Example:
  orb demo
  orb demo --json")]
pub(crate) struct DemoCommand {}

impl DemoCommand {
    pub(crate) async fn execute(self, out: Output) -> Result<(), Failure> {
        Box::pin(demo::run(out)).await
    }
}
