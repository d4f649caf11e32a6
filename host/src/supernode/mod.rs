//! `orb super`: the meeting point of callers and hosts.
//!
//! - [`connection`]: a peer's connection; a task for each of its requests.
//! - [`directory`], [`ready`], [`publish`], [`fetch`], [`relay`], [`events`]: what peers ask for.
//! - [`hosts`], [`outbox`]: control streams.
//! - [`peers`]: other super nodes.
//! - [`driver`]: gives the [`Hub`](orb_protocol::hub::Hub) its events, and
//!   carries out what it decides.
//! - [`storage`]: registry and artifacts. [`policy`], [`limits`]: who may, and how much. [`offences`]:
//!   what peers did that they should not have.
//! - [`beyond`]: other federations, by way of a DHT, if that is wished for.
//! - [`notes`], [`losses`]: what happens to hosts, on its way into the log of events. [`webhooks`]: who is
//!   told of it without asking. [`operator`]: whoever runs this node, on its machine.

mod beyond;
mod close;
mod connection;
mod directory;
mod driver;
mod events;
mod faults;
mod fetch;
mod hosts;
mod limits;
mod losses;
mod notes;
mod offences;
mod operator;
mod outbox;
mod peers;
mod policy;
mod publish;
mod ready;
mod relay;
mod storage;
mod webhooks;

#[cfg(test)]
mod power_cuts;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use orb_protocol::federation::record::{Record, VerifiedRecord};
use orb_protocol::hub::Hub;
use orb_protocol::quic::{BindError, Endpoint, EndpointConfig, SuperAddr};
use orb_protocol::relay::RelayLimits;
use orb_protocol::wire::extension::Extensions;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::config::SuperConfig;
use crate::counters::keep_reporting;
use crate::failure::Failure;
use crate::shutdown::Shutdown;
use crate::store::blocking;
use crate::store::datadir::{DataDir, Role};

use beyond::Beyond;
use driver::Driver;
use limits::{Connections, PublishRate};
use notes::Notes;
use offences::Offences;
use policy::Policy;
use storage::Storage;
use webhooks::Webhooks;

/// How often the coordinator hears that time passes.
const TICK: Duration = Duration::from_secs(1);
/// How long publishes that are under way may take to finish at the end.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// How long peers may take to hear that this node ends.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// What all tasks of a super node share.
#[derive(Debug)]
pub(crate) struct SuperNode {
    endpoint: Endpoint,
    storage: Storage,
    driver: Arc<Driver>,
    policy: Policy,
    publish_rate: PublishRate,
    /// Places for publishes under way.
    publishes: Arc<Semaphore>,
    /// Places for those who wait for hosts.
    waiting: Semaphore,
    /// KiB of memory for artifacts that are examined.
    examined_kib: Semaphore,
    /// Places for artifacts that are fetched from other super nodes.
    obtains: Semaphore,
    /// Places for other super nodes that compare what they know with this one.
    reconciles: Semaphore,
    /// Functions of which revisions were missed.
    histories: peers::history::Histories,
    /// What other super nodes said of who can answer.
    remembered: peers::remote::Remembered,
    /// Places for artifacts that are checked before they are sent.
    checks: Semaphore,
    offences: Offences,
    /// What happens to hosts, to be written down.
    events: Notes,
    /// Places for those who follow events.
    followers: Semaphore,
    /// Places for reads of the log of events.
    event_reads: Semaphore,
    /// Other federations.
    beyond: Beyond,
}

/// Runs a super node until its end is wished for.
///
/// # Errors
/// What kept it from starting, or from ending in order. While it runs it outlives every error.
pub(crate) async fn run(config: SuperConfig, mut shutdown: Shutdown) -> anyhow::Result<()> {
    let path = config.data.clone();
    // Before anything is made: a port that is taken leaves the folder as it was.
    probe(config.listen)?;
    let (dir, storage) = blocking(move || open(&path)).await?;
    let endpoint = match bind(&config, &dir) {
        Ok(endpoint) => endpoint,
        Err(error) => {
            // Nothing was served: to the next start this was a stop in order.
            blocking(move || {
                storage.close()?;
                dir.close()?;
                anyhow::Ok(())
            })
            .await?;
            return Err(error);
        }
    };
    let webhooks = Webhooks::new(&config)?;
    let address = reachable(endpoint.local_addr()?);
    let record = record(&dir, config.public.clone().unwrap_or_else(|| address.to_string()))?;
    let (storage, driver) = blocking(move || load(storage, record)).await?;
    let connections = Connections::new(config.address_connections_max);
    let node = Arc::new(SuperNode {
        endpoint: endpoint.clone(),
        storage,
        driver,
        policy: Policy::new(&config),
        publish_rate: PublishRate::default(),
        publishes: Arc::new(Semaphore::new(publish::PUBLISHES_MAX)),
        waiting: Semaphore::new(ready::WAITING_MAX),
        examined_kib: Semaphore::new(publish::EXAMINED_KIB_MAX),
        obtains: Semaphore::new(peers::artifacts::OBTAINS_MAX),
        reconciles: Semaphore::new(peers::reconcile::ANSWERS_MAX),
        histories: peers::history::Histories::default(),
        remembered: peers::remote::Remembered::default(),
        checks: Semaphore::new(fetch::CHECKS_MAX),
        offences: Offences::default(),
        events: Notes::default(),
        followers: Semaphore::new(events::FOLLOWERS_MAX),
        event_reads: Semaphore::new(events::READS_MAX),
        beyond: Beyond::new(&config),
    });
    webhooks.prepare(&node).await?;
    let address = format!("{}@{address}", endpoint.node_id());
    dir.write_address(&address)?;
    let mut tasks = JoinSet::new();
    tracing::info!(%address, data = %dir.path().display(), "super node ready");
    webhooks.start(&node, dir.path(), &mut tasks);
    let peers = serve(&node, &connections, tasks, config.peers, &mut shutdown).await;
    end(node, peers, dir).await
}

fn open(path: &std::path::Path) -> anyhow::Result<(DataDir, Storage)> {
    let dir = DataDir::open(path, Role::Super)?;
    let storage = Storage::open(&dir)?;
    Ok((dir, storage))
}

/// Takes up what is stored: the registry, and who else there is.
fn load(storage: Storage, record: VerifiedRecord) -> anyhow::Result<(Storage, Arc<Driver>)> {
    let (clock, members) = storage.federation()?;
    let driver = Driver::new(Hub::new(record, storage.log(), clock));
    let functions = driver.restore(|each| storage.all_live(each))?;
    for member in members {
        if let Ok(member) = VerifiedRecord::verify(member) {
            driver.on_record(None, member);
        }
    }
    tracing::info!(functions, "registry loaded");
    Ok((storage, driver))
}

/// This node's record: a new one with each start, which others prefer to the one before.
fn record(dir: &DataDir, address: String) -> anyhow::Result<VerifiedRecord> {
    let key = dir.node_key()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let record = Record {
        node: key.id(),
        addresses: vec![address],
        number: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        software: env!("CARGO_PKG_VERSION").to_owned(),
        extensions: Extensions::none(),
    };
    VerifiedRecord::verify(record.sign(&key)).context("the address of this super node is too long")
}

/// Fails if an address that was asked for cannot be bound now.
fn probe(listen: SocketAddr) -> Result<(), BindError> {
    let bound = UdpSocket::bind(listen);
    bound
        .map(drop)
        .map_err(|source| BindError::Address { addr: listen, source })
}

/// Binds the port that was asked for, or the one that was chosen for `:0` at the first start.
fn bind(config: &SuperConfig, dir: &DataDir) -> anyhow::Result<Endpoint> {
    let mut listen = config.listen;
    let chosen = listen.port() == 0;
    if chosen && let Some(port) = dir.kept_port()? {
        listen.set_port(port);
    }
    let mut settings = EndpointConfig::new(dir.node_key()?, listen);
    settings.relay = Some(RelayLimits {
        sessions: config.relay_sessions_max as usize,
        sessions_per_target: config.relay_node_sessions_max as usize,
        bytes_per_s: config.relay_node_bytes_per_second,
        ..RelayLimits::default()
    });
    let endpoint = Endpoint::bind(settings).map_err(|error| explain(error, chosen && listen.port() != 0))?;
    if chosen {
        dir.keep_port(endpoint.local_addr()?.port())?;
    }
    Ok(endpoint)
}

fn explain(error: BindError, kept: bool) -> anyhow::Error {
    let in_use =
        matches!(&error, BindError::Address { source, .. } if source.kind() == io::ErrorKind::AddrInUse);
    if in_use && kept {
        let message = format!("this super node keeps the port that it has had so far: {error}");
        return Failure::local(message)
            .help("end what uses that port, or name another one with --listen")
            .into();
    }
    error.into()
}

/// The address to dial for what is bound at `local`: an unspecified one stands for the interface that
/// leads out of this machine.
fn reachable(local: SocketAddr) -> SocketAddr {
    let (any, outside, loopback): (IpAddr, IpAddr, IpAddr) = match local.ip() {
        // From the ranges for documentation: nothing is sent there, the system only says by which way
        // it would go.
        IpAddr::V4(ip) if ip.is_unspecified() => (
            Ipv4Addr::UNSPECIFIED.into(),
            Ipv4Addr::new(192, 0, 2, 1).into(),
            Ipv4Addr::LOCALHOST.into(),
        ),
        IpAddr::V6(ip) if ip.is_unspecified() => (
            Ipv6Addr::UNSPECIFIED.into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
            Ipv6Addr::LOCALHOST.into(),
        ),
        _ => return local,
    };
    let way_out = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((outside, 9))?;
        socket.local_addr()
    });
    let ip = way_out.map_or(loopback, |address| address.ip());
    SocketAddr::new(ip, local.port())
}

/// Takes connections until the end is wished for. Returns the tasks that serve them, beside those that there are.
async fn serve(
    node: &Arc<SuperNode>,
    connections: &Arc<Connections>,
    mut peers: JoinSet<()>,
    seeds: Vec<SuperAddr>,
    shutdown: &mut Shutdown,
) -> JoinSet<()> {
    peers.spawn(peers::keeper::run(Arc::clone(node), seeds));
    peers.spawn(peers::history::run(Arc::clone(node)));
    peers.spawn(beyond::run(Arc::clone(node)));
    peers.spawn(Arc::clone(&node.driver).keep_waking());
    let counted = Arc::clone(node);
    peers.spawn(keep_reporting(node.endpoint.clone(), move || {
        let mut numbers = counted.offences.numbers();
        numbers.push(("events_dropped", counted.events.dropped.get()));
        numbers.extend(counted.beyond.numbers());
        numbers
    }));
    peers.spawn(notes::keep_writing(Arc::clone(node)));
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.requested() => return peers,
            _ = ticks.tick() => node.events.on_lost(node.driver.tick()),
            Some(incoming) = node.endpoint.accept() => {
                let address = incoming.remote_address();
                match connections.admit(address.ip()) {
                    Some(slot) => {
                        peers.spawn(connection::serve(Arc::clone(node), incoming, slot));
                    }
                    None => {
                        node.offences.connections_refused.add();
                        tracing::debug!(%address, rule = "address_connections_max", "connection refused");
                        incoming.refuse();
                    }
                }
            }
            Some(ended) = peers.join_next() => if let Err(error) = ended {
                tracing::error!(%error, "a connection's task failed");
            },
        }
    }
}

/// Lets publishes finish, says goodbye, and closes the store.
async fn end(node: Arc<SuperNode>, mut peers: JoinSet<()>, dir: DataDir) -> anyhow::Result<()> {
    let all = u32::try_from(publish::PUBLISHES_MAX).unwrap_or(u32::MAX);
    let hosts = node.driver.hosts();
    // Whoever comes from now on finds no place.
    match timeout(DRAIN_MAX, node.publishes.acquire_many(all)).await {
        Ok(places) => places.into_iter().for_each(tokio::sync::SemaphorePermit::forget),
        Err(_) => tracing::warn!("a publish did not finish in time"),
    }
    // That connections end now is no news.
    node.events.end();
    notes::write_all(&node.events, &node.storage).await;
    node.endpoint.close(close::ENDING, "the super node is ending");
    let _ = timeout(GOODBYE_MAX, node.endpoint.wait_idle()).await;
    peers.shutdown().await;
    tracing::info!(hosts, "super node ended");
    let closed = blocking(move || {
        let Some(node) = Arc::into_inner(node) else {
            return Ok(false);
        };
        node.storage.close()?;
        dir.close()?;
        anyhow::Ok(true)
    });
    if !closed.await.context("the store could not be closed in order")? {
        tracing::warn!("something still uses the store: the next start checks it");
    }
    Ok(())
}
