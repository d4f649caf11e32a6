//! `orb super`: the super node's daemon.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::dead_letters::DeadLettersCommand;
use crate::config::{self, DiscoveryArgs, SuperFlags, SuperLayer};
use crate::failure::Failure;
use crate::output::Output;
use crate::shutdown::Shutdown;
use crate::supernode;

/// Run a super node: the meeting point of callers and hosts, on a machine that others can reach
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "\
When it is ready it writes NODEID@IP:PORT to DIR/address. SIGTERM and SIGINT end it in order.
Each setting may also stand in the file as a key (--owner-bytes-max as owner_bytes_max; --owner,
--host, --owner-invite and --host-invite as owner_list, host_list, owner_invites, host_invites).
[[webhook]] in the file (url, secret, owner, function, allow_private) tells an HTTP server what happens.

Example:
  orb super --listen 0.0.0.0:4433 --data /var/lib/orb-super
  orb super --listen 127.0.0.1:0 --data ./super --owners list --owner KEY
  orb super dead-letters --data ./super")]
pub(crate) struct SuperCommand {
    #[command(subcommand)]
    ask: Option<Ask>,
    /// TOML file with further settings
    #[arg(long, value_name = "FILE", env = "ORB_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: SuperFlags,
}

/// What a super node that runs is asked for.
#[derive(Debug, Subcommand)]
enum Ask {
    DeadLetters(DeadLettersCommand),
}

impl SuperCommand {
    /// Whether it is the daemon that is to run.
    pub(crate) fn is_daemon(&self) -> bool {
        self.ask.is_none()
    }

    pub(crate) async fn execute(mut self, discovery: &DiscoveryArgs, out: Output) -> Result<(), Failure> {
        if let Some(Ask::DeadLetters(command)) = self.ask {
            return command.execute(out).await;
        }
        let file = match &self.config {
            Some(path) => config::read(path)?,
            None => SuperLayer::default(),
        };
        self.settings.0.discovery_flags = discovery.clone();
        let config = self.settings.0.over(file).resolve()?;
        let shutdown = Shutdown::on_signals()
            .map_err(|error| Failure::local(format!("cannot listen to signals: {error}")))?;
        Ok(supernode::run(config, shutdown).await?)
    }
}
