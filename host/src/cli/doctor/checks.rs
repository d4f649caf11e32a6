//! What `orb doctor` looks at, one function each.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use orb_protocol::client::{Client, SuperAddr};
use orb_protocol::wire::NodeInfo;

use super::Check;
use crate::cli::context::Context;
use crate::cli::log;
use crate::discovery::{Dht, FindError};
use crate::executor::Wall;
use crate::failure::Failure;
use crate::format;
use crate::local_sandbox::LocalSandbox;
use crate::store::datadir::{DataDirError, Role, check_version};

/// A clock that is further off than this makes credentials expire early or late; NTP keeps machines
/// within a hundredth of it.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(5);
/// How often a super node is asked: the shortest round trip counts, since the first one is slow.
const ROUND_TRIPS: usize = 5;

/// The folder of keys can be written.
pub(super) fn home(context: &Context) -> Check {
    let folder = context.home.folder();
    let mend = "name a folder that you may write with --home DIR or ORB_HOME";
    let made = std::fs::create_dir_all(folder).and_then(|()| tempfile::tempfile_in(folder));
    match made {
        Ok(_) => Check::ok("ORB_HOME", folder.display().to_string()),
        Err(error) => Check::wrong(
            "ORB_HOME",
            format!("{} cannot be written: {error}", folder.display()),
            mend,
        ),
    }
}

pub(super) fn owner_key(context: &Context) -> Check {
    match context.home.owner_key() {
        Ok(key) => Check::ok("owner key", key.id().to_string()),
        Err(failure) => Check::failed("owner key", &failure),
    }
}

pub(super) fn node_key(context: &Context) -> Check {
    match context.home.node_key() {
        Ok(key) => Check::ok("node key", key.id().to_string()),
        Err(failure) => Check::failed("node key", &failure),
    }
}

pub(super) fn settings(context: &Context) -> Check {
    match context.home.settings() {
        Ok(_) => Check::ok("config.toml", "as it should be, or not there"),
        Err(failure) => Check::failed("config.toml", &failure),
    }
}

pub(super) fn aliases(context: &Context) -> Check {
    match context.home.aliases() {
        Ok(aliases) => Check::ok(
            "aliases.toml",
            format!("{} known", format::count(aliases.iter().count(), "owner")),
        ),
        Err(failure) => Check::failed("aliases.toml", &failure),
    }
}

/// Variables that begin with `ORB_` and that nothing reads: most likely misspelt.
pub(super) fn variables() -> Option<Check> {
    let known = known_variables();
    let set = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let unknown: Vec<String> = set
        .filter(|name| name.starts_with("ORB_") && !known.contains(name))
        .collect();
    (!unknown.is_empty()).then(|| {
        Check::warning(
            "environment",
            format!("nothing reads {}", unknown.join(", ")),
            "mend the spelling, or unset it",
        )
    })
}

fn known_variables() -> Vec<String> {
    let command = crate::cli::description();
    let of = |command: &clap::Command| -> Vec<String> {
        let names = command.get_arguments().filter_map(clap::Arg::get_env);
        names.map(|name| name.to_string_lossy().into_owned()).collect()
    };
    let mut known = of(&command);
    known.extend(command.get_subcommands().flat_map(of));
    known.push(log::VARIABLE.to_owned());
    known
}

/// Each super node answers, under its id, and its clock agrees with ours.
pub(super) async fn super_nodes(context: &Context) -> Vec<Check> {
    let supers = match context.supers() {
        Ok(supers) => supers,
        // Then it is for the DHT to name some.
        Err(_) if context.is_left_to_the_dht() => return Vec::new(),
        Err(failure) => return vec![Check::failed("super node", &failure)],
    };
    let mut checks = Vec::new();
    for address in supers {
        let name = format!("super {}", address.id().short());
        match ask(&address).await {
            Ok((info, rtt)) => checks.extend(judge(&name, &address, &info, rtt)),
            Err(failure) => checks.push(Check::failed(name, &failure)),
        }
    }
    checks
}

/// Whether the DHT can be reached, where one is to be used.
pub(super) async fn discovery(context: &Context) -> Option<Check> {
    let name = "discovery";
    let config = match context.mainline() {
        Ok(config) => config?,
        Err(failure) => return Some(Check::failed(name, &failure)),
    };
    let look = async {
        let dht = Dht::start(&config, Ipv4Addr::UNSPECIFIED, Arc::default()).await?;
        dht.check().await?;
        dht.size_estimate().await
    };
    Some(match look.await {
        Ok(nodes) => Check::ok(name, format!("the DHT answers; it seems to have {nodes} nodes")),
        Err(error) => Check::failed(name, &FindError::from(error).fault("").into()),
    })
}

async fn ask(address: &SuperAddr) -> Result<(NodeInfo, Duration), Failure> {
    let client = Client::builder()
        .super_nodes(vec![address.clone()])
        .connect()
        .await?;
    let mut best: Option<(NodeInfo, Duration)> = None;
    for _ in 0..ROUND_TRIPS {
        let asked = Instant::now();
        let info = client.info().await?;
        let rtt = asked.elapsed();
        if best.as_ref().is_none_or(|(_, before)| rtt < *before) {
            best = Some((info, rtt));
        }
    }
    best.ok_or_else(|| Failure::local("the super node was not asked"))
}

fn judge(name: &str, address: &SuperAddr, info: &NodeInfo, rtt: Duration) -> Vec<Check> {
    let detail = format!(
        "{address} answers in {}; it runs orb {} and sees us at {}",
        format::time(rtt),
        info.software,
        info.observed
    );
    let mut checks = vec![match info.role.as_str() {
        "super" => Check::ok(name, detail),
        role => Check::wrong(
            name,
            format!("{address} is a {role}, no super node"),
            "name a super node's address",
        ),
    }];
    let half = u64::try_from(rtt.as_millis() / 2).unwrap_or(0);
    let skew = Duration::from_millis(format::now_ms().saturating_sub(half).abs_diff(info.time_ms));
    checks.push(if skew <= CLOCK_SKEW_MAX {
        Check::ok(
            "clock",
            format!("within {} of the super node's", format::time(skew)),
        )
    } else {
        let detail = format!("{} off the super node's", format::time(skew));
        Check::wrong(
            "clock",
            detail,
            "let NTP set this machine's clock, or tell the super node's operator",
        )
    });
    checks
}

/// What the kernel gives the sandbox, and which engine is built in.
pub(super) fn sandbox(sandbox: &LocalSandbox) -> Vec<Check> {
    let features = match sandbox.get() {
        Ok(sandbox) => sandbox.features(),
        Err(failure) => return vec![Check::failed("sandbox", &failure)],
    };
    let about = format!(
        "wasmtime {}, fuel as in {}",
        features.wasmtime_version, features.metering_version
    );
    let scan = if features.pagemap_scan {
        Check::ok("kernel", "has pagemap_scan: instances are reset page by page")
    } else {
        let detail = "has no pagemap_scan: calls work, and small ones take several times longer";
        Check::warning("kernel", detail, "Linux 6.7 or later has it")
    };
    vec![Check::ok("sandbox", about), engine(), scan]
}

/// The second wall around functions, as it stands on this machine.
pub(super) async fn walls(sandbox: &LocalSandbox) -> Vec<Check> {
    let executors = match sandbox.executors().await {
        Ok(executors) => executors,
        Err(failure) => return vec![Check::failed("executor", &failure)],
    };
    let check = |wall: &Wall| match wall.gap() {
        None => Check::ok("wall", wall.to_string()),
        Some(_) => Check::warning(
            "wall",
            wall.to_string(),
            "functions run without this part of it; `orb node --require-sandbox` refuses to, and a newer kernel or another container setting gives it",
        ),
    };
    executors.walls().iter().map(check).collect()
}

/// The JavaScript engine's hash: artifacts are built for one.
fn engine() -> Check {
    let hash = orb_protocol::id::EngineHash::from_bytes(orb_runtime::javy::engine_hash());
    Check::ok("engine", hash.to_string())
}

/// A daemon's data folder has a form that this version reads.
pub(super) fn data_folder(folder: &Path) -> Check {
    let name = "data folder";
    match check_version(folder, Role::Super) {
        Ok(true) => Check::ok(name, format!("{} is a super node's", folder.display())),
        Err(DataDirError::WrongRole { .. }) => {
            Check::ok(name, format!("{} is a host node's", folder.display()))
        }
        Ok(false) => Check::warning(
            name,
            format!("{} is empty", folder.display()),
            "name the folder that a daemon was given with --data",
        ),
        Err(error) => Check::failed(name, &Failure::data_folder(&error)),
    }
}
