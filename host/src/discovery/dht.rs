//! This node's place in the DHT.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::StreamExt;
use mainline::async_dht::AsyncDht;
use mainline::errors::{ConcurrencyError, PutMutableError};
use mainline::{DEFAULT_BOOTSTRAP_NODES, Id, MutableItem};
use orb_protocol::discovery::{Candidates, InfoHash};
use orb_protocol::head::{SignedHead, seq};
use orb_protocol::id::OwnerId;
use orb_protocol::name::Name;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};

use super::counters::DhtCounters;
use super::reach::Reach;
use crate::config::MainlineConfig;

/// How long the names of the bootstrap nodes may take to be looked up.
const RESOLVE_MAX: Duration = Duration::from_secs(5);
/// How long one lookup may take; what has come by then is used. A lookup is some ten steps, each of which
/// waits up to 2 s for nodes that are gone.
const LOOKUP_MAX: Duration = Duration::from_secs(8);
/// How long it may take to store something: a lookup, and 2 s for the answers.
const PUT_MAX: Duration = Duration::from_secs(20);

/// Why something did not work in the DHT.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DhtError {
    /// No bootstrap node can be sent anything.
    #[error("none of the DHT's bootstrap nodes has an IPv4 address: {0}")]
    Unresolved(String),
    /// This machine gives no socket, or no thread.
    #[error("the DHT's UDP socket cannot be opened: {0}")]
    Socket(#[from] io::Error),
    /// Nobody answered in time.
    #[error("no node of the DHT answers")]
    Unreachable,
    /// The DHT has a newer head.
    #[error("the DHT has a newer head of this function")]
    Outdated,
    /// The nodes of the DHT do not take it.
    #[error("the DHT did not store it: {0}")]
    Refused(String),
    /// The head's own form is not that of BEP 44.
    #[error("this head cannot be put into a DHT")]
    Malformed,
    /// The thread of the DHT has failed.
    #[error("this node's place in the DHT is lost: {0}")]
    Ended(#[from] JoinError),
}

/// A node of the DHT. As long as it is there, a thread serves its socket; until others can reach it, it only
/// asks.
#[derive(Debug)]
pub(crate) struct Dht {
    node: AsyncDht,
    reach: Reach,
    counters: Arc<DhtCounters>,
}

impl Dht {
    /// Opens a socket on any free port of an address, and begins to look for other nodes.
    ///
    /// # Errors
    /// [`DhtError::Unresolved`], [`DhtError::Socket`].
    pub(crate) async fn start(
        config: &MainlineConfig,
        bind: Ipv4Addr,
        counters: Arc<DhtCounters>,
    ) -> Result<Self, DhtError> {
        let bootstrap = resolve(config).await?;
        let reach = Reach::of(&bootstrap);
        let build = move || {
            mainline::Dht::builder()
                .bootstrap(&bootstrap)
                .bind_address(bind)
                .port(0)
                .build()
        };
        let node = tokio::task::spawn_blocking(build).await??.as_async();
        Ok(Self {
            node,
            reach,
            counters,
        })
    }

    /// Whether any node of the DHT answers.
    ///
    /// # Errors
    /// [`DhtError::Unreachable`].
    pub(crate) async fn check(&self) -> Result<(), DhtError> {
        let node = self.node.clone();
        let bootstrapped = guarded(async move { node.bootstrapped().await });
        let answered = timeout(LOOKUP_MAX, bootstrapped)
            .await
            .map_err(|_| DhtError::Unreachable)??;
        if answered {
            Ok(())
        } else {
            Err(DhtError::Unreachable)
        }
    }

    /// How many nodes the DHT seems to have.
    ///
    /// # Errors
    /// [`DhtError::Ended`].
    pub(crate) async fn size_estimate(&self) -> Result<usize, DhtError> {
        let node = self.node.clone();
        let info = guarded(async move { node.info().await }).await?;
        Ok(info.dht_size_estimate().0)
    }

    /// Announces that there is somebody at `port` of the address that this node's packets come from (BEP 5).
    ///
    /// # Errors
    /// [`DhtError`].
    pub(crate) async fn announce(&self, hash: InfoHash, port: u16) -> Result<(), DhtError> {
        let node = self.node.clone();
        let announce = guarded(async move { node.announce_peer(id(hash), Some(port)).await });
        let announced = timeout(PUT_MAX, announce)
            .await
            .map_err(|_| DhtError::Unreachable)??;
        announced.map_err(|error| refused(&error))?;
        Ok(())
    }

    /// Puts an owner's signed head, for which the owner need not be here (BEP 44).
    ///
    /// # Errors
    /// [`DhtError`].
    pub(crate) async fn put_head(
        &self,
        owner: &OwnerId,
        name: &Name,
        head: &SignedHead,
    ) -> Result<(), DhtError> {
        let item = item(owner, name, head).ok_or(DhtError::Malformed)?;
        let node = self.node.clone();
        let put = guarded(async move { node.put_mutable(item, None).await });
        let put = timeout(PUT_MAX, put).await.map_err(|_| DhtError::Unreachable)??;
        match put {
            Ok(_) => Ok(()),
            Err(PutMutableError::Concurrency(ConcurrencyError::NotMostRecent)) => Err(DhtError::Outdated),
            Err(PutMutableError::Concurrency(error)) => Err(DhtError::Refused(error.to_string())),
            Err(PutMutableError::Query(error)) => Err(refused(&error)),
        }
    }

    /// Who has announced itself under a hash, as far as may be told in the time of one lookup.
    ///
    /// # Errors
    /// [`DhtError::Ended`]. Nobody is no error.
    pub(crate) async fn announced(&self, hash: InfoHash) -> Result<Candidates, DhtError> {
        let (node, reach) = (self.node.clone(), self.reach);
        let candidates = guarded(async move {
            let (mut candidates, end) = (Candidates::default(), Instant::now() + LOOKUP_MAX);
            let mut answers = pin!(node.get_peers(id(hash)));
            while let Ok(Some(answer)) = timeout_at(end, answers.next()).await {
                candidates.hear(&answer, |address| reach.allows(address));
            }
            candidates
        })
        .await?;
        self.counters.addresses_refused.add_many(candidates.refused());
        Ok(candidates)
    }

    /// The newest head of a function that is found.
    ///
    /// # Errors
    /// [`DhtError::Ended`]. None is no error.
    pub(crate) async fn head(&self, owner: &OwnerId, name: &Name) -> Result<Option<SignedHead>, DhtError> {
        let (node, key, salt) = (self.node.clone(), *owner.as_bytes(), name.clone());
        let items = guarded(async move {
            let (mut newest, end) = (None::<MutableItem>, Instant::now() + LOOKUP_MAX);
            let mut answers = pin!(node.get_mutable(&key, Some(salt.as_str().as_bytes()), None));
            while let Ok(Some(item)) = timeout_at(end, answers.next()).await {
                if newest.as_ref().is_none_or(|newest| newest.seq() < item.seq()) {
                    newest = Some(item);
                }
            }
            newest
        });
        let Some(item) = items.await? else {
            return Ok(None);
        };
        let head = SignedHead::from_item(owner, name, item.seq(), item.value(), item.signature());
        if head.is_err() {
            self.counters.heads_unreadable.add();
        }
        Ok(head.ok())
    }

    /// Where its answers may send anybody.
    pub(crate) fn reach(&self) -> Reach {
        self.reach
    }

    /// What is counted.
    pub(crate) fn counters(&self) -> &DhtCounters {
        &self.counters
    }
}

/// Runs what the crate does in a task: it panics where its thread has ended, and what strangers send it
/// must not end more than this lookup.
async fn guarded<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T, JoinError> {
    // A set, so that the work ends with whoever waits for it.
    let mut task = JoinSet::new();
    task.spawn(work);
    match task.join_next().await {
        Some(done) => done,
        None => std::future::pending().await,
    }
}

fn id(hash: InfoHash) -> Id {
    Id::from(*hash.as_bytes())
}

fn item(owner: &OwnerId, name: &Name, head: &SignedHead) -> Option<MutableItem> {
    let signature = head.signature.as_slice().try_into().ok()?;
    let salt = Some(name.as_str().as_bytes());
    let seq = seq(head.version)?;
    Some(MutableItem::new_signed_unchecked(
        *owner.as_bytes(),
        signature,
        &head.payload(),
        seq,
        salt,
    ))
}

fn refused(error: &mainline::errors::PutQueryError) -> DhtError {
    use mainline::errors::PutQueryError;
    match error {
        PutQueryError::NoClosestNodes | PutQueryError::Timeout => DhtError::Unreachable,
        other => DhtError::Refused(other.to_string()),
    }
}

/// Where to begin: each name's IPv4 addresses. The DHT knows no others (BEP 32 is not what the crate does).
async fn resolve(config: &MainlineConfig) -> Result<Vec<SocketAddrV4>, DhtError> {
    let names: Vec<String> = match config.bootstrap.as_slice() {
        [] => DEFAULT_BOOTSTRAP_NODES.map(str::to_owned).to_vec(),
        named => named.iter().map(ToString::to_string).collect(),
    };
    let mut lookups = JoinSet::new();
    for name in names.clone() {
        lookups.spawn(async move {
            tokio::net::lookup_host(name)
                .await
                .map(Iterator::collect::<Vec<_>>)
        });
    }
    let (mut found, end) = (Vec::new(), Instant::now() + RESOLVE_MAX);
    while let Ok(Some(done)) = timeout_at(end, lookups.join_next()).await {
        let addresses = done.ok().and_then(Result::ok).unwrap_or_default();
        found.extend(addresses.into_iter().filter_map(|address| match address {
            SocketAddr::V4(address) => Some(address),
            SocketAddr::V6(_) => None,
        }));
    }
    if found.is_empty() {
        return Err(DhtError::Unresolved(names.join(", ")));
    }
    Ok(found)
}
