//! The world beyond this federation, if the operator wishes it: BitTorrent's Mainline DHT.
//!
//! - [`publish`]: owners' heads, and that this super node serves their functions, again before it expires.
//! - [`meet`]: super nodes that link with everybody find each other.
//! - [mod@resolve]: a function that nobody in this federation knows is looked for, for a client.
//!
//! Without the setting no socket is opened, and nothing here runs.

mod meet;
mod publish;
mod resolve;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use orb_protocol::discovery::schedule::URGENT_MAX;
use orb_protocol::id::FunctionId;
use tokio::sync::Notify;

use super::SuperNode;
use crate::config::{MainlineConfig, SuperConfig};
use crate::counters::Numbers;
use crate::discovery::{Dht, DhtCounters, DhtError};

pub(crate) use resolve::resolve;

/// Between two tries to get into the DHT.
const START_PAUSE: Duration = Duration::from_secs(30);

/// What the tasks of this module share.
#[derive(Debug)]
pub(crate) struct Beyond {
    config: Option<MainlineConfig>,
    bind: Ipv4Addr,
    /// The port at which others reach this node, if it is not the one that it serves at.
    public_port: Option<u16>,
    open_peers: bool,
    dht: Mutex<Option<Arc<Dht>>>,
    counters: Arc<DhtCounters>,
    changed: Mutex<VecDeque<FunctionId>>,
    wake: Notify,
    lookups: resolve::Lookups,
}

impl Beyond {
    /// As a configuration wishes it.
    pub(crate) fn new(config: &SuperConfig) -> Self {
        let bind = match config.listen.ip() {
            IpAddr::V4(ip) => ip,
            IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
        };
        let port = |public: &String| public.rsplit_once(':')?.1.parse().ok();
        Self {
            config: config.mainline.clone(),
            bind,
            public_port: config.public.as_ref().and_then(port),
            open_peers: config.open_peers,
            dht: Mutex::default(),
            counters: Arc::default(),
            changed: Mutex::default(),
            wake: Notify::new(),
            lookups: resolve::Lookups::default(),
        }
    }

    /// A function has a new revision here, or its tombstone. Beyond [`URGENT_MAX`] of them the next round
    /// publishes it.
    pub(crate) fn on_changed(&self, function: FunctionId) {
        if self.config.is_none() {
            return;
        }
        let mut changed = lock(&self.changed);
        if changed.len() < URGENT_MAX {
            changed.push_back(function);
            self.wake.notify_one();
        }
    }

    /// What has to be known of strangers.
    pub(crate) fn numbers(&self) -> Numbers {
        self.counters.numbers()
    }

    fn take_changed(&self) -> VecDeque<FunctionId> {
        std::mem::take(&mut *lock(&self.changed))
    }

    /// This node's place in the DHT, if it has one now.
    fn dht(&self) -> Option<Arc<Dht>> {
        lock(&self.dht).clone()
    }
}

/// Publishes, and meets others, until it is dropped. Returns at once if that is not wished for.
pub(crate) async fn run(node: Arc<SuperNode>) {
    let beyond = &node.beyond;
    let Some(config) = &beyond.config else { return };
    let mut last_error = String::new();
    loop {
        let error = match Dht::start(config, beyond.bind, Arc::clone(&beyond.counters)).await {
            Ok(dht) => serve(&node, Arc::new(dht)).await,
            Err(error) => error,
        };
        *lock(&beyond.dht) = None;
        let error = error.to_string();
        if error != last_error {
            tracing::warn!(%error, "nothing is published in the DHT; trying again");
            last_error = error;
        }
        tokio::time::sleep(START_PAUSE).await;
    }
}

/// Works until this node's place in the DHT is lost.
async fn serve(node: &Arc<SuperNode>, dht: Arc<Dht>) -> DhtError {
    let port = match announced_port(node) {
        Ok(port) => port,
        Err(error) => return error,
    };
    *lock(&node.beyond.dht) = Some(Arc::clone(&dht));
    tracing::info!(port, "functions are announced in the DHT");
    if node.beyond.open_peers {
        tokio::select! {
            error = publish::run(node, &dht, port) => error,
            error = meet::run(node, &dht, port) => error,
        }
    } else {
        publish::run(node, &dht, port).await
    }
}

/// The port that is announced; the address is the one that nodes of the DHT see.
fn announced_port(node: &SuperNode) -> Result<u16, DhtError> {
    let own = node
        .endpoint
        .local_addr()
        .map(|address: SocketAddr| address.port());
    match node.beyond.public_port {
        Some(port) => Ok(port),
        None => Ok(own?),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
