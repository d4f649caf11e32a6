//! `config.toml` in `ORB_HOME`: what the commands take when neither flag nor variable says.

use std::time::Duration;

use orb_protocol::client::SuperAddr;
use serde::{Deserialize, Deserializer};

use super::parse_duration;
use super::texts::parsed;
use super::{BootstrapNode, DiscoveryMethod};

/// The file, as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClientFile {
    /// Super nodes, the one to ask first at the front.
    #[serde(rename = "super", default, deserialize_with = "parsed")]
    pub(crate) supers: Vec<SuperAddr>,
    /// Shown to super nodes whose policy asks publishers for an invitation.
    #[serde(default)]
    pub(crate) invite: Option<String>,
    /// A call's deadline, as in `"30s"`.
    #[serde(default, deserialize_with = "duration")]
    pub(crate) timeout: Option<Duration>,
    /// Where functions are found if no super node is named.
    #[serde(default)]
    pub(crate) discovery: Option<DiscoveryMethod>,
    /// Where to begin there.
    #[serde(default, deserialize_with = "parsed")]
    pub(crate) dht_bootstrap: Vec<BootstrapNode>,
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use orb_protocol::id::NodeId;

    use super::*;
    use crate::config::parse;

    #[test]
    fn it_is_typed() {
        let node = NodeId::from_bytes([1; 32]);
        let text = format!("super = [\"{node}@127.0.0.1:1\"]\ntimeout = \"5s\"\n");
        let file: ClientFile = parse("config.toml", &text).unwrap();
        assert_eq!(file.supers.len(), 1);
        assert_eq!(file.timeout, Some(Duration::from_secs(5)));
        assert_eq!(file.discovery, None);
        let text = "discovery = \"mainline\"\ndht_bootstrap = [\"dht.example.org:6881\"]";
        let file: ClientFile = parse("config.toml", text).unwrap();
        assert_eq!(file.discovery, Some(DiscoveryMethod::Mainline));
        assert_eq!(file.dht_bootstrap.len(), 1);
        assert_eq!(
            parse::<ClientFile>("config.toml", "").unwrap(),
            ClientFile::default()
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, says) in [
            ("supers = []", "config.toml:1: unknown key `supers`"),
            ("super = [\"nobody\"]", "NODEID@HOST:PORT"),
            (
                "discovery = \"dht\"",
                "unknown variant `dht`, expected `off` or `mainline`",
            ),
            ("dht_bootstrap = [\"x\"]", "HOST:PORT"),
            ("\ntimeout = \"soon\"", "config.toml:2: \"soon\" is not a time"),
        ] {
            let error = parse::<ClientFile>("config.toml", text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
