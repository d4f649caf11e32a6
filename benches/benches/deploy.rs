//! From the acknowledgement of a deploy to a host that answers, against what that cannot be without: the same bytes
//! written durably twice, a transfer, and round trips.
//!
//! Real processes on loopback. What the baseline leaves out, and Orb does, is to compile the module and to start it.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use orb_benches::baseline::{self, request};
use orb_benches::network::Network;
use orb_benches::process::{Server, role};
use orb_benches::{EMPTY_COMMAND, JAVASCRIPT, baseline::connect, command};
use orb_protocol::client::{CallOptions, Client};
use orb_protocol::id::FunctionId;
use orb_protocol::key::OwnerKey;

/// Bytes of the artifact.
const ARTIFACT_BYTES: usize = 64 << 10;
/// Round trips between acknowledgement and the first answer: the host is told and fetches (2), says that it is ready
/// and the publisher hears it (1), the caller finds the host and shakes hands with it (2), and calls it (1).
const ROUND_TRIPS: u32 = 6;
/// Times that each is measured; in the short form [`ROUNDS_SHORT`].
const ROUNDS: usize = 60;
const ROUNDS_SHORT: usize = 5;
/// How long a host may take.
const READY_MAX: Duration = Duration::from_secs(30);

fn main() -> Result<()> {
    if let Some((role, argument)) = role() {
        return baseline::serve_role(&role, &argument);
    }
    let short = std::env::args().any(|a| a == "--test" || a == "--quick");
    let rounds = if short { ROUNDS_SHORT } else { ROUNDS };
    tokio::runtime::Runtime::new()?.block_on(measure(rounds))
}

async fn measure(rounds: usize) -> Result<()> {
    let network = Network::start(1)?;
    // A host compiles the JavaScript engine when it starts, for seconds: once this is ready it has.
    let toml = b"schema = 1\nreplicas = 1\nname = \"warm\"\nmain = \"index.js\"\n";
    network.deploy("warm", &[("orb.toml", toml), ("index.js", JAVASCRIPT.as_bytes())])?;
    let super_nodes = vec![network.address.parse()?];
    let client = Client::builder().super_nodes(super_nodes).connect().await?;
    let echo = Server::start("echo", "8")?;
    let endpoint = baseline::client()?;
    let bare = connect(&endpoint, echo.address).await?;
    let folder = tempfile::tempdir()?;
    // The first one of each is not counted.
    let (mut orb, mut least) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let artifact = artifact(round);
        let (ready, answered) = deploy(&client, round, artifact.clone()).await?;
        let began = Instant::now();
        write_durably(folder.path(), &artifact)?;
        let disk = began.elapsed();
        let began = Instant::now();
        request(&bare, &artifact, ARTIFACT_BYTES).await?;
        let transfer = began.elapsed() / 2;
        let began = Instant::now();
        request(&bare, b"x", 1).await?;
        let round_trip = began.elapsed();
        if round > 0 {
            orb.push((ready, answered));
            least.push((disk, transfer, round_trip));
        }
    }
    print(&orb, &least);
    Ok(())
}

/// Deploys a new function. How long it takes from there until a host is ready, and until one has answered.
async fn deploy(client: &Client, round: usize, artifact: Bytes) -> Result<(Duration, Duration)> {
    let owner = OwnerKey::from_seed([7; 32]);
    let draft = command(&format!("round-{round}"), 1)?;
    let function = FunctionId::derive(&owner.id(), &draft.name);
    let deployed = client.deploy(&owner, draft, artifact, false).await?;
    let began = Instant::now();
    let version = deployed.manifest.version();
    client.wait_ready(function, version, 1, READY_MAX).await?;
    let ready = began.elapsed();
    client
        .call(function, Bytes::new(), CallOptions::default())
        .await?;
    Ok((ready, began.elapsed()))
}

/// A command that does nothing, with a section that nobody reads.
fn artifact(round: usize) -> Bytes {
    let mut module = EMPTY_COMMAND.to_vec();
    let content = ARTIFACT_BYTES - module.len() - 4;
    // A custom section: its length in LEB128, three bytes long, then a name of one byte.
    module.extend([
        0,
        (content & 0x7f) as u8 | 0x80,
        (content >> 7 & 0x7f) as u8 | 0x80,
        (content >> 14) as u8,
    ]);
    module.extend([1, b'x']);
    let salt = blake3::hash(&round.to_le_bytes());
    module.extend(salt.as_bytes().iter().cycle().take(content - 2));
    module.into()
}

/// What a super node and a host each do with an artifact and its manifest: a new file, its name, an entry in a
/// database; each synced. Twice, since both do it.
fn write_durably(folder: &Path, bytes: &[u8]) -> Result<()> {
    for place in ["super", "host"] {
        let (temporary, name) = (folder.join("new"), folder.join(place));
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, &name)?;
        File::open(folder)?.sync_all()?;
        let mut database = File::options()
            .create(true)
            .append(true)
            .open(folder.join("database"))?;
        database.write_all(&[0; 4096])?;
        database.sync_data()?;
    }
    Ok(())
}

fn print(orb: &[(Duration, Duration)], least: &[(Duration, Duration, Duration)]) {
    let median = |times: Vec<Duration>| {
        let mut times = times;
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64() * 1e3
    };
    let disk = median(least.iter().map(|l| l.0).collect());
    let transfer = median(least.iter().map(|l| l.1).collect());
    let round_trip = median(least.iter().map(|l| l.2).collect());
    let sum = disk + transfer + round_trip * f64::from(ROUND_TRIPS);
    println!(
        "deploy of {} KiB, medians of {} rounds",
        ARTIFACT_BYTES >> 10,
        orb.len()
    );
    println!("  the same bytes written durably, twice   {disk:>8.2} ms");
    println!("  one transfer, bare quinn                {transfer:>8.2} ms");
    println!("  a round trip, bare quinn                {round_trip:>8.2} ms, {ROUND_TRIPS} of them");
    println!("  together                                {sum:>8.2} ms   (baseline)");
    let ready = median(orb.iter().map(|o| o.0).collect());
    let answered = median(orb.iter().map(|o| o.1).collect());
    println!(
        "  orb, acknowledged to ready              {ready:>8.2} ms   {:.2} x",
        ready / sum
    );
    println!(
        "  orb, acknowledged to the first answer   {answered:>8.2} ms   {:.2} x",
        answered / sum
    );
}
