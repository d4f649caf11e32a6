//! A super node's address: `NODEID@HOST:PORT`.

use std::fmt;
use std::str::FromStr;

use orb_protocol::id::{IdError, NodeId};
use serde::Deserialize;

/// Where a super node is, and who it has to be.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct SuperAddress {
    /// Who answers there, or the connection fails.
    pub(crate) node: NodeId,
    /// A DNS name or an IP address (IPv6 in brackets), and a port.
    pub(crate) host: String,
}

/// Why a text is not a super node's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressError {
    /// No `@`.
    #[error(
        "{0:?} is not a super node's address: it is written NODEID@HOST:PORT, as in the file `address` of its data folder"
    )]
    Form(String),
    /// What stands before the `@` is no id.
    #[error("the address of a super node begins with its id: {0}")]
    Node(#[from] IdError),
    /// What stands after the `@` has no port.
    #[error("{0:?} has no port: a super node's address is written NODEID@HOST:PORT")]
    Port(String),
}

impl FromStr for SuperAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        let (node, host) = text
            .split_once('@')
            .ok_or_else(|| AddressError::Form(text.chars().take(200).collect()))?;
        let port = host
            .rsplit_once(':')
            .map(|(name, port)| (name, port.parse::<u16>()));
        match port {
            Some((name, Ok(port))) if !name.is_empty() && port != 0 => Ok(Self {
                node: node.parse()?,
                host: host.to_owned(),
            }),
            _ => Err(AddressError::Port(host.chars().take(200).collect())),
        }
    }
}

impl TryFrom<String> for SuperAddress {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl fmt::Display for SuperAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.node, self.host)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;

    #[test]
    fn an_address_comes_back_as_it_was_written() {
        let node = NodeId::from_bytes([7; 32]);
        for host in ["127.0.0.1:4433", "[::1]:4433", "super.example.org:1"] {
            let text = format!("{node}@{host}");
            let address: SuperAddress = text.parse().unwrap();
            assert_eq!(address.node, node);
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let node = NodeId::from_bytes([7; 32]);
        for (text, says) in [
            ("localhost:1".to_owned(), "NODEID@HOST:PORT"),
            ("abc@localhost:1".to_owned(), "52 characters"),
            (format!("{node}@localhost"), "no port"),
            (format!("{node}@:1"), "no port"),
            (format!("{node}@localhost:0"), "no port"),
            (format!("{node}@localhost:99999"), "no port"),
        ] {
            let error = text.parse::<SuperAddress>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
