//! The client: Orb's Rust SDK.
//!
//! A [`Client`] keeps a connection to one of its super nodes and connections to the hosts that it
//! called lately. A super node says which revision of a function is live and who can answer for it;
//! the client calls the hosts itself, and fails over itself.
//!
//! ```no_run
//! use orb_protocol::client::{CallOptions, Client};
//! use orb_protocol::id::FunctionId;
//! use serde_json::{Value, json};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder().super_nodes(vec!["NODEID@203.0.113.7:4433".parse()?]).connect().await?;
//! let function = FunctionId::derive(&"OWNER".parse()?, &"hello".parse()?);
//! let input = json!({ "name": "world" });
//! let answer = client.call_json::<_, Value>(function, &input, CallOptions::default()).await?;
//! println!("{} from {}", answer.output, answer.report.host);
//! # Ok(())
//! # }
//! ```
//!
//! What is here: [`ClientBuilder`] connects. `directory` asks super nodes, `deploy` makes revisions, `events` tells what happened.
//! `call` is one call with its options and its answer, `stream` the same with streamed bodies; below
//! them `dispatch` goes from host to host, `failover` decides when it may, `retry` when all are asked again, and `attempt` is one
//! exchange with one host, and `verdict` says what went wrong. `uplink` and `hosts` keep connections, `memory` what was learnt;
//! `holder` is a host that is asked for bytes rather than for an answer.

mod attempt;
mod body;
mod builder;
mod call;
mod deploy;
mod directory;
mod dispatch;
mod error;
mod events;
mod exchange;
mod failover;
mod holder;
mod hosts;
mod memory;
mod random;
mod retry;
mod slot;
mod stream;
mod uplink;
mod verdict;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use crate::id::{NodeId, OwnerId};
use crate::key::OwnerKey;
use crate::quic::Endpoint;

pub use builder::ClientBuilder;
pub use call::{
    ANSWER_BYTES_MAX_DEFAULT, Answer, CallOptions, CallReport, CallTimes, JsonAnswer,
    OVERLOAD_RETRIES_DEFAULT, TIMEOUT_DEFAULT,
};
pub use deploy::{Deployed, Draft};
pub use directory::{Inspection, Listing, Resolution, Revision};
pub use error::{CallError, ClientError, FailedAttempt};
pub use events::{EventQuery, EventStream};
pub use holder::HolderConnection;
pub use stream::{CallInput, CallOutput, CallStream};

pub use crate::quic::SuperAddr;

/// The connection to the network. Clones share it; it ends with the last of them.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    uplink: uplink::Uplink,
    hosts: hosts::Hosts,
    memory: memory::Memory,
    retries: retry::Budget,
    owner_key: Option<OwnerKey>,
    /// Empty: there is none.
    invite: String,
    /// Super nodes look for functions in their own federations only.
    nearby: bool,
}

impl Client {
    /// Begins to describe a client.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Who this client is on the network.
    pub fn node_id(&self) -> NodeId {
        self.0.endpoint.node_id()
    }

    /// On whose authority it calls functions that are not public.
    pub fn owner_id(&self) -> Option<OwnerId> {
        self.0.owner_key.as_ref().map(OwnerKey::id)
    }

    /// Ends all connections and waits until the peers have been told. Without it a program that exits
    /// leaves them to find out by themselves. Calls that still run are cancelled.
    pub async fn close(self) {
        // The hosts first: they are reached through the super nodes, and what a relay session still
        // carries is lost when the connection that it belongs to has ended.
        self.0.hosts.close().await;
        self.0.endpoint.close(exchange::CODE_DONE, "done");
        self.0.endpoint.wait_idle().await;
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("node_id", &self.node_id())
            .finish_non_exhaustive()
    }
}
