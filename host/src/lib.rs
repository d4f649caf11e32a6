//! `orb`: the daemons and the command line.
//!
//! - [`cli`]: the commands, one file each.
//! - [`config`], [`home`], [`project`]: what people write down: settings, keys and aliases, `orb.toml`.
//! - [`builder`]: source to Wasm.
//! - [`demo`]: a small network in child processes, put through the main job.
//! - [`output`], [`failure`]: what commands print, and how they fail.
//! - [`discovery`]: BitTorrent's Mainline DHT, where functions are found whose super node nobody named.
//! - [`executor`]: the processes that run guests.
//! - [`event_document`]: an event as programs read it.
//! - [`counters`]: what peers did that they should not have, for the log.
//! - [`supernode`]: `orb super`. [`node`]: `orb node`. [`store`]: what daemons keep: data folder, artifacts, manifests.
//!
//! Logs go to stderr, filtered by `ORB_LOG` (as in `ORB_LOG=info,orb_host=debug`).

#![allow(
    rustdoc::private_intra_doc_links,
    reason = "who reads this works on these parts: nobody else is offered a library"
)]

mod builder;
mod cli;
mod config;
mod counters;
mod demo;
mod discovery;
mod event_document;
pub mod executor;
mod failure;
mod faults;
mod format;
mod home;
mod local_sandbox;
mod node;
mod operator;
mod output;
mod project;
mod public_ip;
mod shutdown;
mod store;
mod supernode;
mod templates;

use std::process::ExitCode;

/// The `orb` command: what the binary does, and nothing else. Measurements and fuzz targets need the parts.
#[must_use]
pub fn main() -> ExitCode {
    executor::child().unwrap_or_else(cli::main)
}
