//! Calls through the relay, against bare quinn: direct, and through a naive two-hop stream copy.
//!
//! Every server is a process of its own, as in real life. `one in flight` measures latency: each sample is
//! the median (p50) of its calls, timed one by one. Pin the whole run to one core (`taskset -c 0`) to keep the
//! cost of waking the other core out of it. `64 in flight` measures throughput; its time per iteration is
//! the time per call.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use criterion::{Criterion, Throughput};

use orb_benches::baseline::{self, connect, request};
use orb_benches::network::Network;
use orb_benches::process::{Server, role};
use orb_benches::{EMPTY_COMMAND, INPUT, JAVASCRIPT};
use orb_protocol::client::{CallOptions, Client};
use orb_protocol::id::FunctionId;
use orb_protocol::key::OwnerKey;
use tokio::runtime::Runtime;

/// Calls in flight for throughput: the figure that the README quotes.
const IN_FLIGHT: u64 = 64;
/// Calls in a sample for latency, at least: a median of few is none.
const LATENCY_CALLS_MIN: u64 = 64;
fn main() -> Result<()> {
    if let Some((role, argument)) = role() {
        return baseline::serve_role(&role, &argument);
    }
    let runtime = Runtime::new()?;
    let mut criterion = Criterion::default().configure_from_args();
    let targets = std::sync::Arc::new(Targets::start(&runtime)?);
    latency(&mut criterion, &runtime, &targets);
    throughput(&mut criterion, &runtime, &targets);
    criterion.final_summary();
    Ok(())
}

struct Targets {
    direct: quinn::Connection,
    two_hop: quinn::Connection,
    client: Client,
    empty: FunctionId,
    javascript: FunctionId,
    _endpoint: quinn::Endpoint,
    _servers: [Server; 2],
    _network: Network,
}

impl Targets {
    fn start(runtime: &Runtime) -> Result<Self> {
        let echo = Server::start("echo", "256")?;
        let relay = Server::start("two-hop", &echo.address.to_string())?;
        let network = Network::start(1)?;
        let toml = |rest: &str| format!("schema = 1\nreplicas = 1\n{rest}\n").into_bytes();
        let empty = toml("name = \"empty\"\nwasm = \"empty.wasm\"");
        network.deploy("empty", &[("orb.toml", &empty), ("empty.wasm", EMPTY_COMMAND)])?;
        let js = toml("name = \"js\"\nmain = \"index.js\"");
        network.deploy("js", &[("orb.toml", &js), ("index.js", JAVASCRIPT.as_bytes())])?;
        let owner = orb_protocol::keyfile::load_or_create_owner_key(&network.home().join("owner.key"))?;
        let (endpoint, direct, two_hop, client) = runtime.block_on(async {
            let endpoint = baseline::client()?;
            let direct = connect(&endpoint, echo.address).await?;
            let two_hop = connect(&endpoint, relay.address).await?;
            let client = Client::builder()
                .super_nodes(vec![network.address.parse()?])
                .connect()
                .await?;
            anyhow::Ok((endpoint, direct, two_hop, client))
        })?;
        Ok(Self {
            direct,
            two_hop,
            client,
            empty: function(&owner, "empty")?,
            javascript: function(&owner, "js")?,
            _endpoint: endpoint,
            _servers: [echo, relay],
            _network: network,
        })
    }

    async fn one(&self, target: Target) -> Result<()> {
        let (connection, function) = match target {
            Target::Direct => return request(&self.direct, INPUT, 1 << 20).await.map(drop),
            Target::TwoHop => return request(&self.two_hop, INPUT, 1 << 20).await.map(drop),
            Target::Empty => (&self.client, self.empty),
            Target::JavaScript => (&self.client, self.javascript),
        };
        connection
            .call(function, Bytes::from_static(INPUT), CallOptions::default())
            .await?;
        Ok(())
    }

    /// The median time of so many requests, one after the other, in a task: as in a program that makes
    /// calls beside other work, and without the way between two threads for each wake-up.
    async fn median(self: std::sync::Arc<Self>, target: Target, count: u64) -> Result<Duration> {
        let mut times = Vec::new();
        for _ in 0..count {
            let started = Instant::now();
            self.one(target).await?;
            times.push(started.elapsed());
        }
        times.sort_unstable();
        times.get(times.len() / 2).copied().context("at least one call")
    }

    /// `count` requests, [`IN_FLIGHT`] at a time, each worker a task of its own.
    async fn many(self: &std::sync::Arc<Self>, target: Target, count: u64) -> Result<Duration> {
        let started = Instant::now();
        let left = std::sync::Arc::new(AtomicU64::new(count));
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..IN_FLIGHT {
            let (targets, left) = (self.clone(), left.clone());
            workers.spawn(async move {
                let take = |n: u64| n.checked_sub(1);
                while left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                    .is_ok()
                {
                    targets.one(target).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(worker) = workers.join_next().await {
            worker??;
        }
        Ok(started.elapsed())
    }
}

#[derive(Clone, Copy)]
enum Target {
    Direct,
    TwoHop,
    Empty,
    JavaScript,
}

const TARGETS: [(&str, Target); 4] = [
    ("quinn echo, direct (baseline)", Target::Direct),
    ("quinn echo, naive two hops (baseline)", Target::TwoHop),
    ("orb, relayed, empty command", Target::Empty),
    ("orb, relayed, JavaScript", Target::JavaScript),
];

fn latency(criterion: &mut Criterion, runtime: &Runtime, targets: &std::sync::Arc<Targets>) {
    let mut group = criterion.benchmark_group("call, one in flight");
    for (name, target) in TARGETS {
        group.bench_function(name, |b| {
            b.iter_custom(|count| {
                let calls = targets.clone().median(target, count.max(LATENCY_CALLS_MIN));
                let median = runtime
                    .block_on(runtime.spawn(calls))
                    .expect("the task ends")
                    .expect("the server answers");
                median.mul_f64(count as f64)
            });
        });
    }
    group.finish();
}

fn throughput(criterion: &mut Criterion, runtime: &Runtime, targets: &std::sync::Arc<Targets>) {
    let mut group = criterion.benchmark_group("call, 64 in flight");
    group.throughput(Throughput::Elements(1));
    for (name, target) in TARGETS {
        group.bench_function(name, |b| {
            b.iter_custom(|count| {
                // Several full sets in flight, so that a short measurement is not a latency.
                let calls = count.max(IN_FLIGHT * 4);
                let took = runtime
                    .block_on(targets.many(target, calls))
                    .expect("the server answers");
                took.mul_f64(count as f64 / calls as f64)
            });
        });
    }
    group.finish();
}

fn function(owner: &OwnerKey, name: &str) -> Result<FunctionId> {
    Ok(FunctionId::derive(
        &owner.id(),
        &name.parse().context("a good name")?,
    ))
}
