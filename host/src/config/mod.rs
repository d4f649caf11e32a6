//! What a person may set, and where: flag before environment before file before default.
//!
//! Each daemon has one *layer*: a structure of optional settings that is filled once from flags and
//! environment (by clap) and once from the TOML file (by serde), and resolved into a configuration
//! in which nothing is optional any more.

mod admission;
mod client;
mod discovery;
mod file;
mod http_url;
mod node;
mod policy;
mod quiet;
mod super_node;
mod texts;
mod units;
mod webhook;

pub(crate) use admission::Admission;
pub(crate) use client::ClientFile;
pub(crate) use discovery::{BootstrapNode, DiscoveryArgs, DiscoveryMethod, MainlineConfig};
pub(crate) use file::{FileError, parse, read};
pub(crate) use http_url::{HttpHost, HttpUrl};
pub(crate) use node::{NodeConfig, NodeLayer, memory_share};
pub(crate) use policy::{DiskBudget, HostPolicy, PauseRules};
pub(crate) use quiet::{DAY_MINUTES, QuietRange};
pub(crate) use super_node::{SuperConfig, SuperFlags, SuperLayer};
pub(crate) use units::{ByteSize, CoreLoad, parse_duration};
pub(crate) use webhook::{Webhook, WebhookPace, WebhookSecret};
