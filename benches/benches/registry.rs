//! A super node's registry: memory per function, and what it takes to look one up, with many functions against few.
//!
//! Functions are published one by one, as owners do, at a super node without hosts; then it is started again, so that
//! nothing counts but what it keeps. `--functions N` sets how many (100,000; in the short form 5,000).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use orb_benches::network::Network;
use orb_benches::process::resident_bytes;
use orb_benches::{EMPTY_COMMAND, command};
use orb_protocol::client::Client;
use orb_protocol::id::FunctionId;
use orb_protocol::key::OwnerKey;
use tokio::task::JoinSet;

/// Functions of the small registry.
const FEW: usize = 1_000;
/// Functions of one owner.
const PER_OWNER: usize = 1_000;
/// Publishes at one time.
const IN_FLIGHT: usize = 128;
/// Lookups of each registry.
const LOOKUPS: usize = 4_000;
/// The most that redb keeps of a database in memory: `CACHE_BYTES` in `host/src/store/database.rs`.
const CACHE_BYTES: u64 = 64 << 20;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let short = arguments.iter().any(|a| a == "--test" || a == "--quick");
    let given = arguments.iter().skip_while(|a| *a != "--functions").nth(1);
    let many = match given {
        Some(text) => text.parse().context("--functions takes a number")?,
        None if short => 5_000,
        None => 100_000,
    };
    ensure!(many > FEW, "--functions: more than {FEW}");
    let runtime = tokio::runtime::Runtime::new()?;
    let few = runtime.block_on(Registry::with(FEW))?;
    let many = runtime.block_on(Registry::with(many))?;
    print_memory(&few, &many);
    runtime.block_on(race(&few, &many))
}

/// A super node with functions.
struct Registry {
    /// As long as this is there, it runs.
    _network: Network,
    client: Client,
    functions: Vec<FunctionId>,
    resident: u64,
}

impl Registry {
    async fn with(count: usize) -> Result<Self> {
        let mut network = Network::start(0)?;
        let began = Instant::now();
        let functions = publish(&network, count).await?;
        println!(
            "{count} functions published in {:.0} s",
            began.elapsed().as_secs_f64()
        );
        network.restart_super()?;
        let client = connect(&network).await?;
        client.resolve(functions[0]).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let resident = resident_bytes(network.super_pid())?;
        Ok(Self {
            _network: network,
            client,
            functions,
            resident,
        })
    }

    /// How long one lookup takes, of a function chosen without a pattern.
    async fn look_up(&self, number: usize) -> Result<Duration> {
        let place = number.wrapping_mul(2_654_435_761) % self.functions.len();
        let began = Instant::now();
        self.client.resolve(self.functions[place]).await?;
        Ok(began.elapsed())
    }
}

async fn connect(network: &Network) -> Result<Client> {
    let super_nodes = vec![network.address.parse()?];
    Ok(Client::builder().super_nodes(super_nodes).connect().await?)
}

/// Publishes functions that all have the same artifact.
async fn publish(network: &Network, count: usize) -> Result<Vec<FunctionId>> {
    let client = connect(network).await?;
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let (client, next) = (client.clone(), Arc::clone(&next));
        workers.spawn(async move {
            let mut mine = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return anyhow::Ok(mine);
                }
                let owner = owner(number / PER_OWNER);
                let draft = command(&format!("function-{number}"), 3)?;
                mine.push(FunctionId::derive(&owner.id(), &draft.name));
                client
                    .deploy(&owner, draft, Bytes::from_static(EMPTY_COMMAND), false)
                    .await?;
            }
        });
    }
    let mut functions = Vec::new();
    while let Some(done) = workers.join_next().await {
        functions.extend(done??);
    }
    Ok(functions)
}

fn owner(number: usize) -> OwnerKey {
    OwnerKey::from_seed(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn print_memory(few: &Registry, many: &Registry) {
    let functions = (many.functions.len() - few.functions.len()) as f64;
    let grown = many.resident.saturating_sub(few.resident);
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!("\nmemory of a super node after a restart");
    for registry in [few, many] {
        println!(
            "  {:>9} functions {:>8.1} MiB",
            registry.functions.len(),
            mib(registry.resident)
        );
    }
    println!("  per function: {:.0} bytes", grown as f64 / functions);
    // What the cache has is no more than its limit, and no more than the whole database.
    println!(
        "  per function beyond a full cache of redb ({:.0} MiB): {:.0} bytes",
        mib(CACHE_BYTES),
        grown.saturating_sub(CACHE_BYTES) as f64 / functions
    );
}

async fn race(few: &Registry, many: &Registry) -> Result<()> {
    let (mut of_few, mut of_many) = (Vec::new(), Vec::new());
    for number in 0..LOOKUPS {
        of_few.push(few.look_up(number).await?);
        of_many.push(many.look_up(number).await?);
    }
    of_few.sort_unstable();
    of_many.sort_unstable();
    let at = |sorted: &[Duration], percent: usize| sorted[sorted.len() * percent / 100].as_secs_f64() * 1e6;
    println!("\nlookup over loopback (resolve), {LOOKUPS} each, taking turns");
    for (registry, times) in [(few, &of_few), (many, &of_many)] {
        let (p50, p99) = (at(times, 50), at(times, 99));
        let ratio = p50 / at(&of_few, 50);
        println!(
            "  {:>9} functions   p50 {p50:>6.0} µs   p99 {p99:>6.0} µs   {ratio:.2} x",
            registry.functions.len()
        );
    }
    Ok(())
}
