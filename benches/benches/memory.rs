//! Memory of a super node per idle host, against a bare quinn server that allows 8 streams.
//!
//! Resident memory of a server process before and after so many connections, divided by their number.
//! The hosts are real endpoints in this process, each with a key and a socket of its own, that have
//! registered and send heart-beats.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use orb_benches::baseline::{self, connect};
use orb_benches::idle::IdleHost;
use orb_benches::network::Network;
use orb_benches::process::{Server, resident_bytes, role};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Connections in the long form; with `--test` or `--quick` a tenth.
const CONNECTIONS: [usize; 2] = [1_000, 10_000];
/// Descriptors besides the sockets of the connections.
const DESCRIPTORS: u64 = 200;

fn main() -> Result<()> {
    if let Some((role, argument)) = role() {
        return baseline::serve_role(&role, &argument);
    }
    let short = std::env::args().any(|a| a == "--test" || a == "--quick");
    keep_buffers_untouched();
    let runtime = tokio::runtime::Runtime::new()?;
    for count in CONNECTIONS {
        let count = if short { count / 10 } else { count };
        allow_sockets(count)?;
        let quinn = runtime.block_on(bare_quinn(count))?;
        let orb = runtime.block_on(orb_hosts(count))?;
        print(count, quinn, orb);
    }
    Ok(())
}

/// Has each large buffer mapped by itself. An endpoint's receive buffer has 3 MiB, of which an idle one touches
/// some pages; from memory that was used before it would be cleared, and ten thousand of them fill 30 GiB.
fn keep_buffers_untouched() {
    // SAFETY: it takes two numbers, and no other thread allocates yet.
    let set = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20) };
    assert_eq!(set, 1, "glibc takes the threshold");
}

fn print(count: usize, quinn: f64, orb: f64) {
    println!("memory of a server per idle connection, {count} connections");
    println!(
        "  bare quinn, 8 streams   {:>8.1} KiB   (baseline)",
        quinn / 1024.0
    );
    println!(
        "  orb super, idle host    {:>8.1} KiB   {:.2} x",
        orb / 1024.0,
        orb / quinn
    );
}

/// Lets this process have a socket for each connection.
fn allow_sockets(count: usize) -> Result<()> {
    let wanted = count as u64 + DESCRIPTORS;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    ensure!(
        maximum.is_none_or(|maximum| maximum >= wanted),
        "{count} connections need {wanted} descriptors: raise the limit with `ulimit -Hn`"
    );
    let current = Some(wanted);
    Ok(setrlimit(Resource::Nofile, Rlimit { current, maximum })?)
}

async fn bare_quinn(count: usize) -> Result<f64> {
    let server = Server::start("echo", "8")?;
    let first = baseline::client()?;
    let mut connections = vec![(connect(&first, server.address).await?, first)];
    let before = settled(server.pid()).await?;
    for _ in 0..count {
        let endpoint = baseline::client()?;
        connections.push((connect(&endpoint, server.address).await?, endpoint));
    }
    let after = settled(server.pid()).await?;
    let alive = connections
        .iter()
        .filter(|(c, _)| c.close_reason().is_none())
        .count();
    per(before, after, count, alive)
}

async fn orb_hosts(count: usize) -> Result<f64> {
    let network = Network::start(0)?;
    let mut hosts = vec![IdleHost::register(&network.address).await?];
    let before = settled(network.super_pid()).await?;
    for _ in 0..count {
        hosts.push(IdleHost::register(&network.address).await?);
    }
    let after = settled(network.super_pid()).await?;
    let alive = hosts.iter().filter(|host| host.is_connected()).count();
    per(before, after, count, alive)
}

/// Bytes for each connection, if they are all still there, with the one that came first.
fn per(before: u64, after: u64, count: usize, alive: usize) -> Result<f64> {
    ensure!(
        alive == count + 1,
        "only {alive} of {} connections are alive",
        count + 1
    );
    Ok(after.saturating_sub(before) as f64 / count as f64)
}

/// The process's memory once handshakes are over and their buffers given back.
async fn settled(pid: u32) -> Result<u64> {
    tokio::time::sleep(Duration::from_secs(3)).await;
    resident_bytes(pid).context("the server is still there")
}
