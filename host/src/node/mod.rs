//! `orb node`: holds functions that super nodes assign, and answers calls for them.
//!
//! - [`session`]: one connection to each super node: register, heart-beats, what is assigned.
//! - [`driver`]: drives the decisions of `orb_protocol::holder`: [`fetch`] from [`sources`], [`manifests`], sandbox.
//! - [`callers`], [`streams`]: the connections that callers open, and what they want; [`artifacts`]
//!   among it.
//! - [`calls`], [`intake`], [`answer`]: a call from its first frame to its trailer.
//! - [`queue`], [`requests`]: who runs when, and for whom. Where: [`crate::executor`].
//! - [`busy`], [`patience`]: what a host that drains waits for, and for how long.
//! - [`pause`], [`machine`]: when it takes nothing for a while, by what the machine does.
//! - [`load`], [`log`]: what heart-beats tell, and what functions wrote. [`offences`]: what callers did
//!   that they should not have.
//!
//! It opens no port to the world: its one socket dials super nodes, and callers reach it through
//! them.

mod answer;
mod artifacts;
mod busy;
mod callers;
mod calls;
mod driver;
mod fetch;
mod intake;
mod load;
mod log;
pub(crate) mod machine;
mod manifests;
mod offences;
mod patience;
pub(crate) mod pause;
mod queue;
mod requests;
mod roster;
mod session;
mod sources;
mod streams;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use orb_protocol::holder::SeedPolicy;
use orb_protocol::id::{EngineHash, NodeId};
use orb_protocol::key::NodeKey;
use orb_protocol::quic::{BindError, Endpoint, EndpointConfig};
use orb_runtime::SandboxConfig;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use self::busy::Busy;
use self::driver::{Replicas, Tools};
use self::intake::InputBudget;
use self::load::Load;
use self::log::FunctionLogs;
use self::machine::Readings;
use self::manifests::HeldManifests;
use self::offences::Offences;
use self::pause::Pauses;
use self::queue::{Bounds, Queue};
use self::requests::Requests;
use self::roster::Roster;
use self::sources::Sources;
use crate::config::{DiskBudget, NodeConfig};
use crate::counters::keep_reporting;
use crate::executor::{Executors, ExecutorsConfig, Launch};
use crate::shutdown::Shutdown;
use crate::store::blocking;
use crate::store::datadir::{DataDir, Role};
use crate::store::objects::ObjectStore;

/// A function that was not called for so long may go, if the operator lets functions go at all, in
/// milliseconds: as long as a call may take, so that none of it runs any more.
const EVICT_AFTER_MS: u64 = calls::DEADLINE_MAX.as_secs() * 1_000;
/// Connection attempts at one time. All come through super nodes, which have asked this host before.
const HANDSHAKES_MAX: usize = 256;
/// Between two looks for requests that nobody wants any more.
const UPKEEP: Duration = Duration::from_secs(1);
/// How long peers may take to hear that this node ends.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

/// Runs a host node until the end is wished for, and then until its calls have ended.
///
/// # Errors
/// What keeps it from starting: the data folder, the keys, the network, the sandbox.
pub(crate) async fn run(config: NodeConfig, mut shutdown: Shutdown) -> anyhow::Result<()> {
    let mut node = Node::start(config).await?;
    node.tasks.spawn(warm_up(node.host.executors.clone()));
    shutdown.requested().await;
    node.drain().await
}

/// What all parts of a host node share.
struct Host {
    config: NodeConfig,
    replicas: Arc<Replicas>,
    sources: Arc<Sources>,
    roster: Roster,
    objects: ObjectStore,
    executors: Executors,
    queue: Arc<Queue>,
    requests: Arc<Requests>,
    inputs: InputBudget,
    load: Arc<Load>,
    logs: Arc<FunctionLogs>,
    checks: Semaphore,
    busy: Busy,
    offences: Offences,
    draining: watch::Sender<bool>,
    pauses: Pauses,
}

impl Host {
    fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Returns when this host drains.
    async fn drains(&self) {
        // The sender is ours, so that this cannot end otherwise.
        let _ = self.draining.subscribe().wait_for(|draining| *draining).await;
    }

    /// Room for more artifacts: within the budget, and on the disk.
    fn disk_free_bytes(&self) -> u64 {
        let on_disk = self.objects.free_bytes().unwrap_or(0);
        let (room, evictable) = self.replicas.disk_free_bytes();
        room.min(on_disk.saturating_add(evictable))
    }
}

/// A host node that runs.
struct Node {
    host: Arc<Host>,
    endpoint: Endpoint,
    data: DataDir,
    tasks: JoinSet<()>,
}

impl Node {
    async fn start(config: NodeConfig) -> anyhow::Result<Self> {
        let supers = config.supers.clone();
        let folder = config.data.clone();
        let data = blocking(move || DataDir::open(&folder, Role::Node)).await?;
        let key = data.node_key()?;
        let id = key.id();
        let endpoint = bind(&data, &key)?;
        let host = Arc::new(open(config, &data).await?);
        tracing::info!(
            node = %id,
            folder = %data.path().display(),
            capacity = host.config.capacity,
            "this host is up"
        );
        let mut tasks = JoinSet::new();
        tasks.spawn(callers::accept(Arc::clone(&host), endpoint.clone()));
        tasks.spawn(upkeep(Arc::clone(&host)));
        if !host.config.pauses.is_empty() {
            tasks.spawn(pause::keep(Arc::clone(&host)));
        }
        let counted = Arc::clone(&host);
        tasks.spawn(keep_reporting(endpoint.clone(), move || {
            counted.offences.numbers()
        }));
        for address in supers {
            tasks.spawn(session::keep(Arc::clone(&host), endpoint.clone(), address));
        }
        Ok(Self {
            host,
            endpoint,
            data,
            tasks,
        })
    }

    fn id(&self) -> NodeId {
        self.endpoint.node_id()
    }

    /// Takes no new calls, lets those that run come to their end, and ends.
    async fn drain(mut self) -> anyhow::Result<()> {
        let running = self.host.requests.running();
        tracing::info!(running, "draining: no new calls are taken");
        self.host.draining.send_replace(true);
        // No call takes longer: its deadline is cut to that. Whoever vanished is not waited for so long.
        if timeout(calls::DEADLINE_MAX, self.host.busy.idle()).await.is_err() {
            tracing::warn!("some streams did not come to their end");
        }
        // The sessions first: they would take the end of their connections for a reason to try again.
        self.tasks.shutdown().await;
        self.endpoint.close(0, "this host ends");
        let _ = timeout(FAREWELL_MAX, self.endpoint.wait_idle()).await;
        self.host.replicas.stop().await;
        tracing::info!(node = %self.id(), "this host has ended");
        let Self { host, data, .. } = self;
        // Writes the logs to their end.
        blocking(move || drop(host)).await;
        blocking(move || data.close()).await.context("the data folder")
    }
}

/// Binds the port of the earlier starts, so that a direct path to this host survives a restart; if
/// somebody else has it now, another one.
fn bind(data: &DataDir, key: &NodeKey) -> anyhow::Result<Endpoint> {
    let kept = data.kept_port()?;
    let any = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
    let ports = kept.into_iter().chain([0]);
    let mut refused: Option<BindError> = None;
    for listen in ports.flat_map(|port| any.map(|ip| SocketAddr::new(ip, port))) {
        let mut config = EndpointConfig::new(key.clone(), listen);
        config.handshakes = HANDSHAKES_MAX;
        match Endpoint::bind(config) {
            Ok(endpoint) => {
                let port = endpoint.local_addr()?.port();
                if kept != Some(port) {
                    data.keep_port(port)?;
                }
                return Ok(endpoint);
            }
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.map_or_else(|| anyhow::anyhow!("there is no address to bind"), Into::into))
}

async fn open(config: NodeConfig, data: &DataDir) -> anyhow::Result<Host> {
    let disk = DiskBudget::of(config.disk_bytes_max);
    let policy = policy(&config, disk.artifacts);
    let executors = Executors::start(executors_config(&config, data, disk.cache)).await?;
    for wall in executors.walls().iter().filter(|wall| wall.gap().is_some()) {
        tracing::warn!(%wall, "the second wall around functions is not whole here");
    }
    let folder = data.path().to_owned();
    let roster = blocking(move || Roster::open(&folder)).await;
    let (root, database) = (data.objects(), data.database());
    let objects = blocking(move || ObjectStore::open(&root)).await?;
    let manifests = blocking(move || HeldManifests::open(&database)).await?;
    let pauses = Pauses::default();
    // Before a super node hears of this host.
    pauses.decide(&config.pauses, &blocking(Readings::take).await);
    let (sources, load) = (Arc::<Sources>::default(), Arc::<Load>::default());
    let tools = Tools {
        objects: objects.clone(),
        manifests,
        executors: executors.clone(),
        sources: Arc::clone(&sources),
        load: Arc::clone(&load),
        dry_run: config.dry_run,
        pauses: pauses.clone(),
    };
    Ok(Host {
        replicas: Replicas::start(policy, tools).await?,
        sources,
        roster,
        objects,
        executors,
        queue: Queue::new(Bounds {
            capacity: config.capacity,
            waiting_max: config.queue_max,
            wait_max: config.queue_wait_max,
        }),
        requests: Requests::new(),
        inputs: InputBudget::new(),
        load,
        logs: FunctionLogs::open(&data.logs()).context("the folder of logs")?,
        checks: Semaphore::new(artifacts::CHECKS_MAX),
        busy: Busy::default(),
        offences: Offences::default(),
        draining: watch::Sender::new(false),
        pauses,
        config,
    })
}

fn executors_config(config: &NodeConfig, data: &DataDir, cache_bytes: u64) -> ExecutorsConfig {
    ExecutorsConfig {
        sandbox: SandboxConfig {
            cache_dir: Some(config.cache.clone().unwrap_or_else(|| data.cache())),
            instances_max: config.capacity,
            disk_cache_bytes_max: cache_bytes,
            memory_bytes_ceiling: config.ceiling.memory_bytes,
            ..SandboxConfig::default()
        },
        processes: config.executors,
        memory_bytes: config.executor_bytes_max,
        require_walls: config.require_sandbox,
        launch: Launch::this_program(),
    }
}

fn policy(config: &NodeConfig, disk_bytes_max: u64) -> SeedPolicy {
    SeedPolicy {
        allow_owners: (!config.allow.is_empty()).then(|| config.allow.iter().copied().collect()),
        deny_owners: config.deny.iter().copied().collect(),
        artifact_bytes_max: config.artifact_bytes_max,
        disk_bytes_max,
        ceiling: config.ceiling,
        engines: [EngineHash::from_bytes(orb_runtime::javy::engine_hash())].into(),
        // Clocks and randomness need none, and there is nothing else yet.
        capabilities: [].into(),
        evict_after_ms: config.evict.then_some(EVICT_AFTER_MS),
    }
}

async fn upkeep(host: Arc<Host>) {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        ticks.tick().await;
        host.requests.on_tick(Instant::now());
    }
}

/// Has the JavaScript engine compiled before the first function needs it: that takes seconds, once
/// for each data folder.
async fn warm_up(executors: Executors) {
    if let Err(error) = executors.warm_up().await {
        tracing::warn!(%error, "the JavaScript engine does not start");
    }
}
