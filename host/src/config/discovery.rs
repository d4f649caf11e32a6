//! How functions and super nodes are found that nobody named.

use std::fmt;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use serde::Deserialize;

use crate::failure::Failure;

/// Bootstrap nodes that are taken: one that answers is enough.
const BOOTSTRAP_MAX: usize = 32;

/// Where to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DiscoveryMethod {
    /// Nowhere but at the super nodes that are named
    Off,
    /// In BitTorrent's Mainline DHT
    Mainline,
}

/// A node of the DHT that knows others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BootstrapNode {
    /// A name, or an IPv4 address.
    pub(crate) host: String,
    /// Its UDP port.
    pub(crate) port: u16,
}

/// Why a text is no bootstrap node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no node of a DHT: it is written HOST:PORT, with a name or an IPv4 address and a port from 1 to 65535"
)]
pub(crate) struct BootstrapError(String);

/// The DHT to look in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MainlineConfig {
    /// Where to begin; empty: where every BitTorrent client begins.
    pub(crate) bootstrap: Vec<BootstrapNode>,
}

/// These settings as flags and variables give them. They are read when they are needed, so that a wrong one
/// keeps nobody from what needs none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(crate) struct DiscoveryArgs {
    /// Where to find functions without a super node's address: off or mainline [default: off]
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "METHOD",
        env = "ORB_DISCOVERY",
        hide_possible_values = true,
        help_heading = "Global options"
    )]
    discovery: Option<DiscoveryMethod>,
    /// Where to enter the DHT (repeatable, or comma-separated) [default: the public one]
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT",
        env = "ORB_DHT_BOOTSTRAP",
        value_delimiter = ',',
        help_heading = "Global options"
    )]
    dht_bootstrap: Vec<String>,
}

impl FromStr for BootstrapNode {
    type Err = BootstrapError;

    fn from_str(text: &str) -> Result<Self, BootstrapError> {
        let error = || BootstrapError(text.chars().take(80).collect());
        let (host, port) = text.trim().rsplit_once(':').ok_or_else(error)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(error)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if host.is_empty() || !host.chars().all(plain) {
            return Err(error());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for BootstrapNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl DiscoveryArgs {
    /// The DHT to look in, if one is wished for: these settings before those of a file.
    ///
    /// # Errors
    /// A bootstrap node that is none.
    pub(crate) fn over(
        &self,
        method: Option<DiscoveryMethod>,
        bootstrap: &[BootstrapNode],
    ) -> Result<Option<MainlineConfig>, Failure> {
        match self.discovery.or(method) {
            None | Some(DiscoveryMethod::Off) => return Ok(None),
            Some(DiscoveryMethod::Mainline) => {}
        }
        let named = self.dht_bootstrap.iter().map(|text| text.trim());
        let mut nodes = Vec::new();
        for text in named.filter(|text| !text.is_empty()) {
            let node = text.parse().map_err(|error| {
                Failure::usage(format!("in --dht-bootstrap or ORB_DHT_BOOTSTRAP: {error}"))
            })?;
            nodes.push(node);
        }
        if nodes.is_empty() {
            nodes.extend_from_slice(bootstrap);
        }
        if nodes.len() > BOOTSTRAP_MAX {
            let message = format!(
                "{} nodes of the DHT are named to begin with, and at most {BOOTSTRAP_MAX} are used",
                nodes.len()
            );
            return Err(Failure::usage(message).help("name fewer: one that answers is enough"));
        }
        Ok(Some(MainlineConfig { bootstrap: nodes }))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;

    fn flags(discovery: Option<DiscoveryMethod>, nodes: &[&str]) -> DiscoveryArgs {
        DiscoveryArgs {
            discovery,
            dht_bootstrap: nodes.iter().map(|&node| node.to_owned()).collect(),
        }
    }

    #[test]
    fn it_is_off_unless_somebody_turns_it_on() {
        use DiscoveryMethod::{Mainline, Off};
        let node: BootstrapNode = "dht.example.org:6881".parse().unwrap();
        let file = [node.clone()];
        let over = |flag, method| flags(flag, &[]).over(method, &file).unwrap();
        for (flag, method) in [(None, None), (None, Some(Off)), (Some(Off), Some(Mainline))] {
            assert_eq!(over(flag, method), None);
        }
        let on = Some(MainlineConfig {
            bootstrap: vec![node],
        });
        for (flag, method) in [
            (None, Some(Mainline)),
            (Some(Mainline), None),
            (Some(Mainline), Some(Off)),
        ] {
            assert_eq!(over(flag, method), on);
        }
        let named = flags(Some(Mainline), &["127.0.0.1:1", ""])
            .over(None, &file)
            .unwrap();
        assert_eq!(named.unwrap().bootstrap[0].to_string(), "127.0.0.1:1");
    }

    #[test]
    fn what_is_no_node_is_named() {
        for text in [
            "",
            "host",
            "host:",
            "host:0",
            "host:65536",
            ":1",
            "[::1]:1",
            "::1:1",
            "a b:1",
        ] {
            assert!(text.parse::<BootstrapNode>().is_err(), "{text}");
        }
        let failure = flags(Some(DiscoveryMethod::Mainline), &["host"])
            .over(None, &[])
            .unwrap_err();
        assert!(
            failure.message.contains("ORB_DHT_BOOTSTRAP") && failure.exit == 2,
            "{failure}"
        );
        let many = vec!["a:1"; BOOTSTRAP_MAX + 1];
        assert!(
            flags(Some(DiscoveryMethod::Mainline), &many)
                .over(None, &[])
                .is_err()
        );
    }
}
