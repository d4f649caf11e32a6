//! What the operator of a host node may set.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use orb_protocol::client::SuperAddr;
use orb_protocol::id::OwnerId;
use orb_protocol::manifest::Limits;
use serde::Deserialize;

use super::policy::{self, HostPolicy, PauseRules};
use super::texts::{either, missing, parsed};
use super::{ByteSize, CoreLoad, QuietRange};
use crate::failure::Failure;

/// A host node's settings, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeConfig {
    /// The super nodes to connect to, at least one.
    pub(crate) supers: Vec<SuperAddr>,
    /// The data folder.
    pub(crate) data: PathBuf,
    /// Compiled code, if not in the data folder: machines with several nodes of one user may share it.
    pub(crate) cache: Option<PathBuf>,
    /// Calls that run at the same time.
    pub(crate) capacity: u32,
    /// Calls that may wait for their turn; beyond it a call is refused as overloaded.
    pub(crate) queue_max: u32,
    /// Processes that run guests.
    pub(crate) executors: usize,
    /// Memory that each of them may take, in bytes.
    pub(crate) executor_bytes_max: u64,
    /// Refuse to start where a part of the second wall around guests is missing.
    pub(crate) require_sandbox: bool,
    /// The longest wait that is accepted for a short call; a long one may wait for as long as it takes.
    pub(crate) queue_wait_max: Duration,
    /// The highest limits of a function that it seeds.
    pub(crate) ceiling: Limits,
    /// The longest artifact that it seeds, in bytes.
    pub(crate) artifact_bytes_max: u64,
    /// Disk for artifacts and compiled code, in bytes.
    pub(crate) disk_bytes_max: u64,
    /// Who operates it: hosts with the same text count as one operator. Empty: not said.
    pub(crate) operator: String,
    /// Shown to a super node whose policy asks for one. Empty: none.
    pub(crate) invite: String,
    /// If there are any: only these owners' functions are seeded.
    pub(crate) allow: Vec<OwnerId>,
    /// These owners' functions are never seeded.
    pub(crate) deny: Vec<OwnerId>,
    /// Say in the log what would be seeded, and refuse it.
    pub(crate) dry_run: bool,
    /// Functions that nobody called for long may go to make room for others.
    pub(crate) evict: bool,
    /// When it takes nothing for a while.
    pub(crate) pauses: PauseRules,
}

/// A host node's settings as flags, variables or a file give them.
///
/// The super nodes are not among the flags here: `--super` is a flag of every command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct NodeLayer {
    #[arg(skip)]
    #[serde(rename = "super", deserialize_with = "parsed")]
    pub(crate) supers: Vec<SuperAddr>,
    /// Data folder; made if it is not there
    #[arg(long, value_name = "DIR", env = "ORB_DATA")]
    pub(crate) data: Option<PathBuf>,
    /// Folder of compiled code, which several nodes of one user may share [default: cache in DIR]
    #[arg(long, value_name = "CACHE", env = "ORB_CACHE")]
    pub(crate) cache: Option<PathBuf>,
    /// Calls that run at the same time [default: 4 per core]
    #[arg(long, value_name = "N", env = "ORB_CAPACITY", help_heading = "Capacity")]
    pub(crate) capacity: Option<u32>,
    /// Calls that may wait for their turn, beyond which a call is answered `overloaded` [default: 16 per capacity]
    #[arg(long, value_name = "N", env = "ORB_QUEUE_MAX", help_heading = "Capacity")]
    pub(crate) queue_max: Option<u32>,
    /// Processes that run functions [default: 1 per core]
    #[arg(long, value_name = "N", env = "ORB_EXECUTORS", help_heading = "Capacity")]
    pub(crate) executors: Option<usize>,
    /// Memory that each of them may take [default: three quarters of the machine's]
    #[arg(
        long,
        value_name = "SIZE",
        env = "ORB_EXECUTOR_BYTES_MAX",
        help_heading = "Capacity"
    )]
    pub(crate) executor_bytes_max: Option<ByteSize>,
    /// How long a call may be expected to wait, in milliseconds, beyond which it is answered `overloaded`; one that
    /// takes longer may wait for as long as it takes [default: 500]
    #[arg(
        long,
        value_name = "MS",
        env = "ORB_QUEUE_WAIT_MS_MAX",
        help_heading = "Capacity"
    )]
    pub(crate) queue_wait_ms_max: Option<u64>,
    /// Disk for artifacts and compiled code [default: 4GiB]
    #[arg(
        long,
        value_name = "SIZE",
        env = "ORB_DISK_BYTES_MAX",
        help_heading = "Capacity"
    )]
    pub(crate) disk_bytes_max: Option<ByteSize>,
    /// The longest artifact that is seeded [default: 32MiB]
    #[arg(
        long,
        value_name = "SIZE",
        env = "ORB_ARTIFACT_BYTES_MAX",
        help_heading = "Ceilings: functions that ask for more are not seeded"
    )]
    pub(crate) artifact_bytes_max: Option<ByteSize>,
    /// Fuel of one call [default: 100000000000]
    #[arg(
        long,
        value_name = "UNITS",
        env = "ORB_FUEL_MAX",
        help_heading = "Ceilings: functions that ask for more are not seeded"
    )]
    pub(crate) fuel_max: Option<u64>,
    /// Memory of one call [default: 256MiB]
    #[arg(
        long,
        value_name = "SIZE",
        env = "ORB_MEMORY_BYTES_MAX",
        help_heading = "Ceilings: functions that ask for more are not seeded"
    )]
    pub(crate) memory_bytes_max: Option<ByteSize>,
    /// Time of one call, in milliseconds [default: 60000]
    #[arg(
        long,
        value_name = "MS",
        env = "ORB_TIME_MS_MAX",
        help_heading = "Ceilings: functions that ask for more are not seeded"
    )]
    pub(crate) time_ms_max: Option<u64>,
    /// Input of one call [default: 64MiB]
    #[arg(
        long,
        value_name = "SIZE",
        env = "ORB_INPUT_BYTES_MAX",
        help_heading = "Ceilings: functions that ask for more are not seeded"
    )]
    pub(crate) input_bytes_max: Option<ByteSize>,
    /// Answer of one call [default: 64MiB]
    #[arg(
        long,
        value_name = "SIZE",
        env = "ORB_OUTPUT_BYTES_MAX",
        help_heading = "Ceilings: functions that ask for more are not seeded"
    )]
    pub(crate) output_bytes_max: Option<ByteSize>,
    /// Log of one call [default: 1MiB]
    #[arg(
        long,
        value_name = "SIZE",
        env = "ORB_LOG_BYTES_MAX",
        help_heading = "Ceilings: functions that ask for more are not seeded"
    )]
    pub(crate) log_bytes_max: Option<ByteSize>,
    /// Who operates this host: replicas are spread over operators
    #[arg(long, value_name = "TEXT", env = "ORB_OPERATOR", help_heading = "Policy")]
    pub(crate) operator: Option<String>,
    /// The invitation to show to the super nodes
    #[arg(
        long,
        value_name = "TEXT",
        env = "ORB_INVITE",
        hide_env_values = true,
        help_heading = "Policy"
    )]
    pub(crate) invite: Option<String>,
    /// Seed only this owner's functions (repeatable, or comma-separated)
    #[arg(
        long,
        value_name = "KEY",
        env = "ORB_ALLOW",
        value_delimiter = ',',
        help_heading = "Policy"
    )]
    #[serde(deserialize_with = "parsed")]
    pub(crate) allow: Vec<OwnerId>,
    /// Never seed this owner's functions (repeatable, or comma-separated)
    #[arg(
        long,
        value_name = "KEY",
        env = "ORB_DENY",
        value_delimiter = ',',
        help_heading = "Policy"
    )]
    #[serde(deserialize_with = "parsed")]
    pub(crate) deny: Vec<OwnerId>,
    /// Seed nothing, and say in the log what would be seeded
    #[arg(long, value_name = "BOOL", env = "ORB_DRY_RUN", num_args = 0..=1, default_missing_value = "true", help_heading = "Policy")]
    pub(crate) dry_run: Option<bool>,
    /// Let functions that nobody called for 10 minutes go to make room for others
    #[arg(long, value_name = "BOOL", env = "ORB_EVICT", num_args = 0..=1, default_missing_value = "true", help_heading = "Policy")]
    pub(crate) evict: Option<bool>,
    /// Take no calls and no further functions in these hours, as in 22:00-07:00 (repeatable, or comma-separated)
    #[arg(
        long,
        value_name = "RANGE",
        env = "ORB_QUIET_HOURS",
        value_delimiter = ',',
        help_heading = "Policy"
    )]
    #[serde(deserialize_with = "parsed")]
    pub(crate) quiet_hours: Vec<QuietRange>,
    /// Take none while the machine's load per core is above this, as in 0.5
    #[arg(long, value_name = "LOAD", env = "ORB_IDLE_LOAD_MAX", help_heading = "Policy")]
    pub(crate) idle_load_max: Option<CoreLoad>,
    /// Take none while the machine runs on its battery
    #[arg(long, value_name = "BOOL", env = "ORB_ONLY_ON_MAINS", num_args = 0..=1, default_missing_value = "true", help_heading = "Policy")]
    pub(crate) only_on_mains: Option<bool>,
    /// Refuse to start where this machine lacks a part of the wall around functions (see `orb doctor`)
    #[arg(long, value_name = "BOOL", env = "ORB_REQUIRE_SANDBOX", num_args = 0..=1, default_missing_value = "true", help_heading = "Policy")]
    pub(crate) require_sandbox: Option<bool>,
}

impl NodeLayer {
    /// These settings, and the lower layer's where this one says nothing.
    #[must_use]
    pub(crate) fn over(self, lower: Self) -> Self {
        Self {
            supers: either(self.supers, lower.supers),
            data: self.data.or(lower.data),
            cache: self.cache.or(lower.cache),
            capacity: self.capacity.or(lower.capacity),
            queue_max: self.queue_max.or(lower.queue_max),
            executors: self.executors.or(lower.executors),
            executor_bytes_max: self.executor_bytes_max.or(lower.executor_bytes_max),
            require_sandbox: self.require_sandbox.or(lower.require_sandbox),
            queue_wait_ms_max: self.queue_wait_ms_max.or(lower.queue_wait_ms_max),
            disk_bytes_max: self.disk_bytes_max.or(lower.disk_bytes_max),
            artifact_bytes_max: self.artifact_bytes_max.or(lower.artifact_bytes_max),
            fuel_max: self.fuel_max.or(lower.fuel_max),
            memory_bytes_max: self.memory_bytes_max.or(lower.memory_bytes_max),
            time_ms_max: self.time_ms_max.or(lower.time_ms_max),
            input_bytes_max: self.input_bytes_max.or(lower.input_bytes_max),
            output_bytes_max: self.output_bytes_max.or(lower.output_bytes_max),
            log_bytes_max: self.log_bytes_max.or(lower.log_bytes_max),
            operator: self.operator.or(lower.operator),
            invite: self.invite.or(lower.invite),
            allow: either(self.allow, lower.allow),
            deny: either(self.deny, lower.deny),
            dry_run: self.dry_run.or(lower.dry_run),
            evict: self.evict.or(lower.evict),
            quiet_hours: either(self.quiet_hours, lower.quiet_hours),
            idle_load_max: self.idle_load_max.or(lower.idle_load_max),
            only_on_mains: self.only_on_mains.or(lower.only_on_mains),
        }
    }

    /// Fills in the defaults.
    ///
    /// # Errors
    /// Something that has no default is missing, or two settings contradict each other.
    pub(crate) fn resolve(self) -> Result<NodeConfig, Failure> {
        if self.supers.is_empty() {
            let help = "it is in the file `address` of the super node's data folder";
            return Err(missing("--super NODEID@HOST:PORT", "ORB_SUPER", help));
        }
        let help = "it holds the node's key and the functions that it seeds";
        let data = self
            .data
            .clone()
            .ok_or_else(|| missing("--data DIR", "ORB_DATA", help))?;
        let policy = self.policy()?;
        let executor_bytes_max = self.executor_bytes_max.map_or_else(memory_share, |size| size.0);
        policy::not_zero("executor_bytes_max", executor_bytes_max)?;
        let capacity = self.capacity.unwrap_or_else(default_capacity);
        if capacity == 0 {
            return Err(Failure::config("a capacity of 0 runs nothing: give at least 1"));
        }
        let executors = self.executors.unwrap_or_else(cores);
        if executors == 0 {
            return Err(Failure::config("0 executors run nothing: give at least 1"));
        }
        Ok(NodeConfig {
            supers: self.supers,
            data,
            cache: self.cache,
            capacity,
            // At a few milliseconds a call this is well under a second of waiting.
            queue_max: self.queue_max.unwrap_or(capacity.saturating_mul(16)),
            executors,
            executor_bytes_max,
            require_sandbox: self.require_sandbox.unwrap_or(false),
            // A caller gives half a second away at most where another host may be free: a third of what a
            // host that fails costs it (`orb_protocol::ranking`).
            queue_wait_max: Duration::from_millis(self.queue_wait_ms_max.unwrap_or(500)),
            ceiling: policy.ceiling,
            artifact_bytes_max: policy.artifact_bytes_max,
            disk_bytes_max: policy.disk_bytes_max,
            operator: self.operator.unwrap_or_default(),
            invite: self.invite.unwrap_or_default(),
            allow: policy.allow,
            deny: policy.deny,
            dry_run: policy.dry_run,
            evict: policy.evict,
            pauses: policy.pauses,
        })
    }

    /// What it seeds, and when.
    ///
    /// # Errors
    /// Two settings contradict each other, or one of them leaves nothing to be seeded.
    pub(crate) fn policy(&self) -> Result<HostPolicy, Failure> {
        let (disk_bytes_max, artifact_bytes_max) =
            policy::disk(self.disk_bytes_max, self.artifact_bytes_max)?;
        let pauses = PauseRules {
            quiet_hours: self.quiet_hours.clone(),
            idle_load_max: self.idle_load_max,
            only_on_mains: self.only_on_mains.unwrap_or(false),
        };
        let policy = HostPolicy {
            allow: self.allow.clone(),
            deny: self.deny.clone(),
            ceiling: self.ceiling(),
            artifact_bytes_max,
            disk_bytes_max,
            dry_run: self.dry_run.unwrap_or(false),
            evict: self.evict.unwrap_or(false),
            pauses,
        };
        policy.checked()
    }

    /// Several times what a function gets that asks for nothing special.
    fn ceiling(&self) -> Limits {
        let bytes = |size: Option<ByteSize>, default| size.map_or(default, |size| size.0);
        Limits {
            fuel: self.fuel_max.unwrap_or(100_000_000_000),
            memory_bytes: bytes(self.memory_bytes_max, 256 << 20),
            time_ms: self.time_ms_max.unwrap_or(60_000),
            input_bytes: bytes(self.input_bytes_max, 64 << 20),
            output_bytes: bytes(self.output_bytes_max, 64 << 20),
            log_bytes: bytes(self.log_bytes_max, 1 << 20),
        }
    }
}

/// Guests wait now and then, so there are more of them than cores; a guess until it is measured.
fn default_capacity() -> u32 {
    u32::try_from(cores()).unwrap_or(1).saturating_mul(4)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Three quarters of the machine's memory. It is a bound for a guest that got out of WebAssembly, or for too
/// many large ones at once, not a reservation.
pub(crate) fn memory_share() -> u64 {
    let info = rustix::system::sysinfo();
    let total = info.totalram.saturating_mul(info.mem_unit.into());
    total / 4 * 3
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use orb_protocol::id::NodeId;
    use orb_protocol::key::OwnerKey;

    use super::*;
    use crate::config::parse;

    fn base() -> String {
        let node = NodeId::from_bytes([1; 32]);
        format!("super = [\"{node}@127.0.0.1:1\"]\ndata = \"d\"\n")
    }

    fn resolve(text: &str) -> Result<NodeConfig, Failure> {
        parse::<NodeLayer>("node.toml", &(base() + text))
            .unwrap()
            .resolve()
    }

    #[test]
    fn defaults_are_above_what_an_ordinary_function_asks_for() {
        let config = resolve("").unwrap();
        assert_eq!(Limits::default().above(&config.ceiling), None);
        assert!(config.capacity >= 4);
        assert!(!config.dry_run);
    }

    #[test]
    fn a_file_sets_everything_and_a_flag_wins() {
        let file: NodeLayer = parse(
            "node.toml",
            &(base() + "capacity = 2\nmemory_bytes_max = \"1GiB\"\ndry_run = true"),
        )
        .unwrap();
        let flags = NodeLayer {
            capacity: Some(3),
            ..NodeLayer::default()
        };
        let config = flags.over(file).resolve().unwrap();
        assert_eq!((config.capacity, config.queue_max), (3, 48));
        assert_eq!(config.ceiling.memory_bytes, 1 << 30);
        assert!(config.dry_run);
    }

    #[test]
    fn contradictions_and_gaps_are_named() {
        let owner = OwnerKey::from_seed([1; 32]).id();
        let both = format!("allow = [\"{owner}\"]\ndeny = [\"{owner}\"]");
        assert!(
            resolve(&both)
                .unwrap_err()
                .message
                .contains("both allowed and denied")
        );
        assert!(
            resolve("capacity = 0")
                .unwrap_err()
                .message
                .contains("at least 1")
        );
        assert!(
            NodeLayer::default()
                .resolve()
                .unwrap_err()
                .message
                .contains("--super")
        );
        let error = |text| {
            let error = resolve(text).unwrap_err();
            assert_eq!(error.exit, 2);
            error.to_string() + " " + &error.help
        };
        for (text, parts) in [
            ("disk_bytes_max = 0", ["`disk_bytes_max` is 0", "raise"]),
            ("fuel_max = 0", ["`fuel_max` is 0", "leave it out"]),
            (
                "disk_bytes_max = \"1MiB\"\nartifact_bytes_max = \"600KiB\"",
                [
                    "`artifact_bytes_max` is 600 KiB",
                    "raise `disk_bytes_max` to 1.1 MiB",
                ],
            ),
            (
                "quiet_hours = [\"00:00-12:00\", \"12:00-24:00\"]",
                ["`quiet_hours` leave no minute", "shorten"],
            ),
        ] {
            let error = error(text);
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
        // What nobody set follows what somebody did.
        assert_eq!(
            resolve("disk_bytes_max = \"1MiB\"").unwrap().artifact_bytes_max,
            512 << 10
        );
        let error = parse::<NodeLayer>("node.toml", "\nidle_load_max = 0.0")
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("node.toml:2: ") && error.contains("load per core"),
            "{error}"
        );
        let error = parse::<NodeLayer>("node.toml", "\nquiet_hours = [\"night\"]")
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("node.toml:2: ") && error.contains("22:00-07:00"),
            "{error}"
        );
        let error = parse::<NodeLayer>("node.toml", "\n\nfuel = 1")
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("node.toml:3: unknown key `fuel`"), "{error}");
        let missing = crate::config::read::<NodeLayer>(std::path::Path::new("/nowhere/a.toml"));
        assert_eq!(Failure::from(missing.unwrap_err()).exit, 2);
    }
}
