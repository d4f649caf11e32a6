//! Connecting.

use std::sync::Arc;

use super::error::ClientError;
use super::hosts::Hosts;
use super::memory::Memory;
use super::retry::Budget;
use super::uplink::{SUPER_NODES_MAX, Uplink};
use super::{Client, Inner, random};
use crate::fault::{Fault, FaultKind};
use crate::key::{NodeKey, OwnerKey};
use crate::quic::{Endpoint, EndpointConfig, SuperAddr};

/// What a [`Client`] is made from.
#[derive(Debug, Default)]
pub struct ClientBuilder {
    super_nodes: Vec<SuperAddr>,
    node_key: Option<NodeKey>,
    owner_key: Option<OwnerKey>,
    endpoint: Option<Endpoint>,
    invite: String,
    nearby: bool,
}

impl ClientBuilder {
    /// The super nodes to use: the first that answers is kept. At least one is needed.
    #[must_use]
    pub fn super_nodes(mut self, addresses: Vec<SuperAddr>) -> Self {
        self.super_nodes = addresses;
        self
    }

    /// The key that proves who this client is. Default: a new one for each client, which is what
    /// programs want that may run several times at once: a node's newer connection replaces its older.
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

    /// An invitation that is shown when a revision is published, where the super node's policy asks for
    /// one. Default: none.
    #[must_use]
    pub fn invite(mut self, invite: String) -> Self {
        self.invite = invite;
        self
    }

    /// Has super nodes look for functions in their own federations only: for who found them in the DHT. Default: no.
    #[must_use]
    pub fn nearby(mut self) -> Self {
        self.nearby = true;
        self
    }

    /// Uses an endpoint that is there already, and its node's key. Default: one of its own, on any
    /// free port.
    #[must_use]
    pub fn endpoint(mut self, endpoint: Endpoint) -> Self {
        self.endpoint = Some(endpoint);
        self
    }

    /// Connects to the first super node that answers. Must be called inside a Tokio runtime.
    ///
    /// # Errors
    /// [`FaultKind::NoLiveHost`] naming each address and why it failed; [`FaultKind::Unverified`] or
    /// [`FaultKind::VersionMismatch`] if that is why all of them did.
    pub async fn connect(self) -> Result<Client, ClientError> {
        check_super_nodes(&self.super_nodes)?;
        let endpoint = match self.endpoint {
            Some(endpoint) => endpoint,
            None => bind(self.node_key)?,
        };
        let inner = Inner {
            uplink: Uplink::new(endpoint.clone(), self.super_nodes),
            hosts: Hosts::new(endpoint.clone()),
            memory: Memory::default(),
            retries: Budget::default(),
            owner_key: self.owner_key,
            invite: self.invite,
            nearby: self.nearby,
            endpoint,
        };
        inner.uplink.connection().await?;
        Ok(Client(Arc::new(inner)))
    }
}

fn check_super_nodes(addresses: &[SuperAddr]) -> Result<(), Fault> {
    if addresses.is_empty() {
        return Err(Fault::new(FaultKind::NoLiveHost, "no super node is named")
            .help("name one or more, written NODEID@HOST:PORT"));
    }
    if addresses.len() > SUPER_NODES_MAX {
        let message = format!(
            "{} super nodes are named, and at most {SUPER_NODES_MAX} are used",
            addresses.len()
        );
        return Err(Fault::new(FaultKind::InputInvalid, message).help("name fewer"));
    }
    Ok(())
}

fn bind(key: Option<NodeKey>) -> Result<Endpoint, Fault> {
    let key = match key {
        Some(key) => key,
        None => NodeKey::from_seed(random::bytes()?),
    };
    Endpoint::bind(EndpointConfig::client(key))
        .map_err(|error| Fault::new(FaultKind::Internal, error.to_string()))
}
