//! Connecting to super nodes.

use crate::id::NodeId;
use crate::key::{NodeKey, OwnerKey};

use super::error::ClientError;

/// Where a super node is, and who it must be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SuperAddr {
    /// Who it must be.
    pub node: NodeId,
    /// Where it is: a name or an address, and a port.
    pub host: String,
}

impl std::str::FromStr for SuperAddr {
    type Err = crate::id::IdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (node, host) = text.split_once('@').ok_or(crate::id::IdError::Alphabet)?;
        Ok(Self {
            node: node.parse()?,
            host: host.to_owned(),
        })
    }
}

/// What a [`Client`] is made from.
#[derive(Debug, Default)]
pub struct ClientBuilder {
    super_nodes: Vec<SuperAddr>,
    node_key: Option<NodeKey>,
    owner_key: Option<OwnerKey>,
}

impl ClientBuilder {
    /// The super nodes to use: the first that answers is kept. Needed.
    #[must_use]
    pub fn super_nodes(mut self, addresses: Vec<SuperAddr>) -> Self {
        self.super_nodes = addresses;
        self
    }

    /// The key that proves who this node is. Default: a new one for each client.
    #[must_use]
    pub fn node_key(mut self, key: NodeKey) -> Self {
        self.node_key = Some(key);
        self
    }

    /// On whose authority functions are called that are not public. Default: nobody's.
    #[must_use]
    pub fn owner_key(mut self, key: Option<OwnerKey>) -> Self {
        self.owner_key = key;
        self
    }

    /// Connects to the first super node that answers.
    ///
    /// # Errors
    /// [`FaultKind::NoLiveHost`](crate::fault::FaultKind::NoLiveHost) naming each address and why it
    /// failed; `Unverified` or `VersionMismatch` if that is why all of them did.
    pub async fn connect(self) -> Result<Client, ClientError> {
        std::future::ready(Err(super::pending())).await
    }
}

/// The connection to the network. Clones share it; it ends with the last of them.
#[derive(Debug, Clone)]
pub struct Client {
    _private: (),
}

impl Client {
    /// Begins to describe a client.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }
}
