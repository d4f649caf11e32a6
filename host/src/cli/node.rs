//! `orb node`: the host node's daemon.

use std::path::PathBuf;

use clap::Args;
use orb_protocol::client::SuperAddr;

use crate::config::{self, NodeLayer};
use crate::failure::Failure;
use crate::node;
use crate::shutdown::Shutdown;

/// Run a host node: seed functions on this machine and answer calls for them
#[derive(Debug, Args)]
#[command(after_help = "\
It opens no port: all its connections go out. SIGTERM and SIGINT end it in order: running calls
finish first.
Each setting may also stand in the file as a key (--memory-bytes-max as memory_bytes_max).

Example:
  orb node --super NODEID@super.example.org:4433 --data ~/orb-node
  ORB_SUPER=$(cat super/address) orb node --data ./node --capacity 8 --memory-bytes-max 128MiB")]
pub(crate) struct NodeCommand {
    /// TOML file with further settings
    #[arg(long, value_name = "FILE", env = "ORB_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: NodeLayer,
}

impl NodeCommand {
    pub(crate) async fn execute(mut self, supers: &[SuperAddr]) -> Result<(), Failure> {
        let file = match &self.config {
            Some(path) => config::read(path)?,
            None => NodeLayer::default(),
        };
        self.settings.supers = supers.to_vec();
        let config = self.settings.over(file).resolve()?;
        let shutdown = Shutdown::on_signals()
            .map_err(|error| Failure::local(format!("cannot listen to signals: {error}")))?;
        Ok(node::run(config, shutdown).await?)
    }
}
