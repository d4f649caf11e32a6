//! Memory of a super node per idle host, against a bare quinn server that allows 8 streams.
//!
//! Resident memory of a server process before and after so many connections, divided by their number.
//! The hosts are real endpoints in this process that have registered and send heart-beats.

use std::time::Duration;

use anyhow::{Context, Result};
use orb_benches::baseline::{self, connect};
use orb_benches::idle::IdleHost;
use orb_benches::network::Network;
use orb_benches::process::{Server, resident_bytes, role};

/// Connections in the long form; with `--test` or `--quick` a tenth.
const CONNECTIONS: usize = 1_000;

fn main() -> Result<()> {
    if let Some((role, argument)) = role() {
        return baseline::serve_role(&role, &argument);
    }
    let short = std::env::args().any(|a| a == "--test" || a == "--quick");
    let count = if short { CONNECTIONS / 10 } else { CONNECTIONS };
    let runtime = tokio::runtime::Runtime::new()?;
    let quinn = runtime.block_on(bare_quinn(count))?;
    let orb = runtime.block_on(orb_hosts(count))?;
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
    Ok(())
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
    Ok(per(before, settled(server.pid()).await?, count))
}

async fn orb_hosts(count: usize) -> Result<f64> {
    let network = Network::start(0)?;
    let mut hosts = vec![IdleHost::register(&network.address).await?];
    let before = settled(network.super_pid()).await?;
    for _ in 0..count {
        hosts.push(IdleHost::register(&network.address).await?);
    }
    Ok(per(before, settled(network.super_pid()).await?, count))
}

fn per(before: u64, after: u64, count: usize) -> f64 {
    after.saturating_sub(before) as f64 / count as f64
}

/// The process's memory once handshakes are over and their buffers given back.
async fn settled(pid: u32) -> Result<u64> {
    tokio::time::sleep(Duration::from_secs(3)).await;
    resident_bytes(pid).context("the server is still there")
}
