//! Where a node is said to be.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use crate::id::{IdError, NodeId};

/// Addresses that a host name may stand for; more are not tried.
const ADDRESSES_MAX: usize = 8;

/// A node at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeAddr {
    /// Who has to be there.
    pub id: NodeId,
    /// Where.
    pub addr: SocketAddr,
}

impl fmt::Display for NodeAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.addr)
    }
}

/// A node at a host and port, as people write it: `NODEID@HOST:PORT`. HOST is a name, an IPv4
/// address, or an IPv6 address in brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SuperAddr {
    id: NodeId,
    host: String,
    port: u16,
}

/// Why a text is no address of a super node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No `@`.
    #[error("{0:?} is no super node's address: it is written NODEID@HOST:PORT")]
    NoId(String),
    /// What stands before the `@` is no id.
    #[error("{text:?} does not start with a node's id: {error}")]
    Id {
        /// The address.
        text: String,
        /// What is wrong with the id.
        error: IdError,
    },
    /// What stands after the `@` is no host and port.
    #[error("{0:?} does not end in HOST:PORT, with a port from 1 to 65535")]
    HostPort(String),
    /// Nothing at all.
    #[error("no super node's address is given; it is written NODEID@HOST:PORT")]
    Empty,
    /// The host name does not resolve.
    #[error("the host name {host:?} cannot be resolved: {reason}")]
    Unresolved {
        /// The name.
        host: String,
        /// What the system says.
        reason: String,
    },
}

impl SuperAddr {
    /// Who has to be there.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Reads one or more addresses, separated by commas.
    ///
    /// # Errors
    ///
    /// [`AddressError`] for the first one that is none.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, AddressError> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let list: Vec<Self> = parts.map(str::parse).collect::<Result<_, _>>()?;
        if list.is_empty() {
            return Err(AddressError::Empty);
        }
        Ok(list)
    }

    /// Looks the host up: all its addresses, in the order in which they should be tried.
    ///
    /// # Errors
    ///
    /// [`AddressError::Unresolved`].
    pub async fn resolve(&self) -> Result<Vec<NodeAddr>, AddressError> {
        let unresolved = |reason: String| AddressError::Unresolved {
            host: self.host.clone(),
            reason,
        };
        let found = tokio::net::lookup_host((self.host.as_str(), self.port))
            .await
            .map_err(|error| unresolved(error.to_string()))?;
        let nodes: Vec<NodeAddr> = found
            .take(ADDRESSES_MAX)
            .map(|addr| NodeAddr { id: self.id, addr })
            .collect();
        if nodes.is_empty() {
            return Err(unresolved("it has no address".to_owned()));
        }
        Ok(nodes)
    }
}

impl FromStr for SuperAddr {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (id, rest) = text
            .split_once('@')
            .ok_or_else(|| AddressError::NoId(text.to_owned()))?;
        let id = id.parse().map_err(|error| AddressError::Id {
            text: text.to_owned(),
            error,
        })?;
        let (host, port) = host_port(rest).ok_or_else(|| AddressError::HostPort(text.to_owned()))?;
        Ok(Self {
            id,
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for SuperAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "{}@[{}]:{}", self.id, self.host, self.port)
        } else {
            write!(f, "{}@{}:{}", self.id, self.host, self.port)
        }
    }
}

impl From<NodeAddr> for SuperAddr {
    fn from(node: NodeAddr) -> Self {
        Self {
            id: node.id,
            host: node.addr.ip().to_string(),
            port: node.addr.port(),
        }
    }
}

fn host_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host = match bracketed {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().ok().map(|_| v6)?,
        None => host,
    };
    let plain = |c: char| !c.is_whitespace() && !matches!(c, '[' | ']' | '@' | '/');
    let good = !host.is_empty() && host.chars().all(plain);
    // A colon inside belongs to an IPv6 address that lacks its brackets.
    (good && (bracketed.is_some() || !host.contains(':'))).then_some((host, port))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;

    fn id() -> NodeId {
        NodeId::from_bytes([7; 32])
    }

    #[test]
    fn what_is_printed_is_parsed() {
        for rest in ["127.0.0.1:4433", "[::1]:1", "relay.example.org:65535"] {
            let text = format!("{}@{rest}", id());
            let parsed: SuperAddr = text.parse().unwrap();
            assert_eq!(parsed.to_string(), text);
            assert_eq!(parsed.id(), id());
        }
    }

    #[test]
    fn other_texts_are_refused() {
        let parse = |text: String| text.parse::<SuperAddr>().unwrap_err();
        assert!(matches!(parse("localhost:1".into()), AddressError::NoId(_)));
        assert!(matches!(parse("abc@localhost:1".into()), AddressError::Id { .. }));
        for rest in [
            "host",
            "host:",
            "host:0",
            "host:65536",
            ":1",
            "::1:1",
            "[::1:1",
            "a b:1",
            "[x]:1",
        ] {
            let error = parse(format!("{}@{rest}", id()));
            assert!(matches!(error, AddressError::HostPort(_)), "{rest}");
        }
    }

    #[test]
    fn a_list_has_commas() {
        let text = format!("{0}@a:1, {0}@b:2,", id());
        assert_eq!(SuperAddr::parse_list(&text).unwrap().len(), 2);
        assert_eq!(SuperAddr::parse_list(" , "), Err(AddressError::Empty));
    }

    #[tokio::test]
    async fn names_resolve() {
        let local = SuperAddr::parse_list(&format!("{}@127.0.0.1:9", id())).unwrap();
        let nodes = local[0].resolve().await.unwrap();
        assert_eq!(nodes[0].to_string(), format!("{}@127.0.0.1:9", id()));
    }
}
