//! A host as a source of bytes, not of answers.

use super::Client;
use super::error::ClientError;
use super::hosts::HostConnection;
use crate::id::NodeId;
use crate::quic::Connection;

/// A connection to a host that holds a function. It lasts as long as this.
pub struct HolderConnection(HostConnection);

impl HolderConnection {
    /// The connection, on which [`crate::wire::directory::Fetch`] may be asked.
    pub fn connection(&self) -> &Connection {
        &self.0.connection
    }
}

impl std::fmt::Debug for HolderConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HolderConnection")
            .field(&self.0.connection.peer())
            .finish()
    }
}

impl Client {
    /// Connects to a host that [`Client::resolve`] named, by way of its super node.
    ///
    /// # Errors
    /// That it, or its super node, does not answer.
    pub async fn connect_to_holder(&self, host: NodeId) -> Result<HolderConnection, ClientError> {
        let connected = self.0.hosts.connect(host, &self.0.uplink, false).await;
        Ok(HolderConnection(connected?))
    }
}
