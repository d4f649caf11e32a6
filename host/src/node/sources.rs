//! Whom artifacts can be had from.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use orb_protocol::client::{Client, ClientError, HolderConnection};
use orb_protocol::id::{FunctionId, NodeId};
use orb_protocol::quic::{Connection, NodeAddr};
use tokio::sync::watch;
use tokio::time::timeout;

/// How long a fetch waits for a source to be there at all, before it counts as failed.
const SOURCE_WAIT: Duration = Duration::from_secs(30);
/// Other holders of a function that are asked for its artifact: if none of these has it, it is tried again later.
const HOLDERS_MAX: usize = 4;

/// The super nodes that are connected, and by way of them the hosts that hold a function already.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    connected: Mutex<Vec<(NodeId, Connection)>>,
    changes: watch::Sender<usize>,
}

impl Sources {
    /// Somebody is connected.
    pub(crate) fn add(&self, node: NodeId, connection: Connection) {
        let mut connected = self.list();
        connected.retain(|(known, _)| *known != node);
        connected.push((node, connection));
        self.changes.send_replace(connected.len());
    }

    /// A connection ended.
    pub(crate) fn remove(&self, ended: &Connection) {
        let mut connected = self.list();
        let same = |connection: &Connection| connection.quinn().stable_id() == ended.quinn().stable_id();
        connected.retain(|(_, connection)| !same(connection));
        self.changes.send_replace(connected.len());
    }

    /// Whether somebody is connected.
    pub(crate) fn knows(&self, node: &NodeId) -> bool {
        self.list().iter().any(|(known, _)| known == node)
    }

    /// Ends all connections, as if they were lost.
    #[cfg(test)]
    pub(crate) fn close_all(&self) {
        for (_, connection) in self.all() {
            connection.close(9, "a test lost it");
        }
    }

    fn all(&self) -> Vec<(NodeId, Connection)> {
        self.list().clone()
    }

    /// All of them, as soon as there is one; after [`SOURCE_WAIT`] nobody.
    pub(super) async fn any(&self) -> Vec<(NodeId, Connection)> {
        let mut changes = self.changes.subscribe();
        // The sender lives as long as we do, so that only the time can end this.
        let _ = timeout(SOURCE_WAIT, changes.wait_for(|connected| *connected > 0)).await;
        self.all()
    }

    fn list(&self) -> std::sync::MutexGuard<'_, Vec<(NodeId, Connection)>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody who finds other holders, by way of the super nodes that are connected. A client like any other,
    /// with a key and a socket of its own: that this host looks for them is nothing that its sessions have to do with.
    ///
    /// # Errors
    /// None of the super nodes answers.
    async fn finder(&self) -> Result<Client, ClientError> {
        let address = |(id, connection): (NodeId, Connection)| NodeAddr {
            id,
            addr: connection.remote_address(),
        };
        let super_nodes = self.all().into_iter().map(|source| address(source).into());
        let super_nodes = super_nodes.collect();
        Client::builder().super_nodes(super_nodes).connect().await
    }
}

/// Other holders of one function, asked one after the other.
#[derive(Debug)]
pub(super) struct Holders {
    client: Client,
    left: Vec<NodeId>,
}

impl Holders {
    /// Looks for hosts that can answer for a function.
    ///
    /// # Errors
    /// What the super node says: that there are none, or that strangers are not told.
    pub(super) async fn find(sources: &Sources, function: FunctionId) -> Result<Self, ClientError> {
        let client = sources.finder().await?;
        let resolution = client.resolve(function).await?;
        let best = resolution.hosts.iter().take(HOLDERS_MAX);
        let left = best.rev().map(|hint| hint.node).collect();
        Ok(Self { client, left })
    }

    /// The next one, if it can be reached.
    pub(super) async fn next(&mut self) -> Option<(NodeId, Result<HolderConnection, ClientError>)> {
        let node = self.left.pop()?;
        Some((node, self.client.connect_to_holder(node).await))
    }

    /// Says good-bye to all of them.
    pub(super) async fn close(self) {
        self.client.close().await;
    }
}
