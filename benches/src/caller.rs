//! A client of the real network, and one function to call through the relay.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use orb_protocol::client::{CallOptions, Client};
use orb_protocol::id::FunctionId;
use tokio::task::JoinSet;

use crate::network::Network;

/// Calls one function. Clones share the connection.
#[derive(Clone)]
pub struct Caller {
    client: Client,
    function: FunctionId,
}

impl Caller {
    /// Connects to a network, to call the function `name` of its owner.
    ///
    /// # Errors
    /// The super node does not answer.
    pub async fn connect(network: &Network, name: &str) -> Result<Self> {
        let owner = orb_protocol::keyfile::load_or_create_owner_key(&network.home().join("owner.key"))?;
        let client = Client::builder()
            .super_nodes(vec![network.address.parse()?])
            .connect()
            .await?;
        let name = name.parse().context("a good name")?;
        Ok(Self {
            client,
            function: FunctionId::derive(&owner.id(), &name),
        })
    }

    /// One call.
    ///
    /// # Errors
    /// It fails.
    pub async fn call(&self, input: &Bytes) -> Result<Bytes> {
        let answer = self
            .client
            .call(self.function, input.clone(), CallOptions::default());
        Ok(answer.await?.output)
    }

    /// So many calls, `in_flight` at a time, each worker a task of its own; the time of all.
    ///
    /// # Errors
    /// One fails.
    pub async fn many(&self, input: &Bytes, calls: u64, in_flight: u64) -> Result<Duration> {
        let began = Instant::now();
        let left = Arc::new(AtomicU64::new(calls));
        let mut workers = JoinSet::new();
        for _ in 0..in_flight {
            let (caller, input, left) = (self.clone(), input.clone(), Arc::clone(&left));
            workers.spawn(async move {
                let take = |n: u64| n.checked_sub(1);
                while left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                    .is_ok()
                {
                    caller.call(&input).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(worker) = workers.join_next().await {
            worker??;
        }
        Ok(began.elapsed())
    }
}
