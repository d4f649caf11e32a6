//! A host's policy: what its operator's settings mean together, and where they contradict each other.

use orb_protocol::id::OwnerId;
use orb_protocol::manifest::Limits;

use super::{ByteSize, CoreLoad, QuietRange, quiet};
use crate::failure::Failure;

/// The part of the disk budget that compiled code may take; the rest is for artifacts. Compiled code
/// is three to five times as long as its artifact, but only commands have any.
const CACHE_SHARE: u64 = 2;
/// What a host gives to artifacts and compiled code unless its operator says otherwise, in bytes.
const DISK_BYTES_DEFAULT: u64 = 4 << 30;
/// The longest artifact that it takes unless its operator says otherwise, in bytes.
const ARTIFACT_BYTES_DEFAULT: u64 = 32 << 20;

/// When a host takes nothing for a while.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PauseRules {
    /// In these ranges of the machine's local time.
    pub(crate) quiet_hours: Vec<QuietRange>,
    /// While the machine's load per core is above this, over the last minute.
    pub(crate) idle_load_max: Option<CoreLoad>,
    /// While it runs on its battery.
    pub(crate) only_on_mains: bool,
}

impl PauseRules {
    /// Whether there is any.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What a host seeds, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostPolicy {
    /// If there are any: only these owners' functions.
    pub(crate) allow: Vec<OwnerId>,
    /// Never these owners'.
    pub(crate) deny: Vec<OwnerId>,
    /// The highest limits of a function.
    pub(crate) ceiling: Limits,
    /// The longest artifact, in bytes.
    pub(crate) artifact_bytes_max: u64,
    /// Disk for artifacts and compiled code, in bytes.
    pub(crate) disk_bytes_max: u64,
    /// Seed nothing, and say what would be seeded.
    pub(crate) dry_run: bool,
    /// Functions that nobody called for long may go to make room for others.
    pub(crate) evict: bool,
    /// When it takes nothing for a while.
    pub(crate) pauses: PauseRules,
}

impl HostPolicy {
    /// The policy, if it makes sense as a whole.
    pub(super) fn checked(self) -> Result<Self, Failure> {
        check_owners(&self.allow, &self.deny)?;
        check_ceiling(&self.ceiling)?;
        quiet::check(&self.pauses.quiet_hours)?;
        Ok(self)
    }
}

/// Disk for what a host seeds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DiskBudget {
    /// Compiled code.
    pub(crate) cache: u64,
    /// Artifacts, all together.
    pub(crate) artifacts: u64,
}

impl DiskBudget {
    /// A budget of so many bytes, shared out.
    pub(crate) fn of(bytes: u64) -> Self {
        let cache = bytes / CACHE_SHARE;
        let artifacts = bytes - cache;
        Self { cache, artifacts }
    }
}

/// The disk budget and the longest artifact, in bytes.
pub(super) fn disk(budget: Option<ByteSize>, artifact: Option<ByteSize>) -> Result<(u64, u64), Failure> {
    let disk = budget.map_or(DISK_BYTES_DEFAULT, |size| size.0);
    let room = DiskBudget::of(disk).artifacts;
    not_zero("disk_bytes_max", disk)?;
    let Some(ByteSize(artifact)) = artifact else {
        return Ok((disk, ARTIFACT_BYTES_DEFAULT.min(room)));
    };
    not_zero("artifact_bytes_max", artifact)?;
    if artifact > room {
        let message = format!(
            "`artifact_bytes_max` is {}, but artifacts have {} together: half of `disk_bytes_max`, the rest is for compiled code",
            ByteSize(artifact),
            ByteSize(room)
        );
        let enough = ByteSize(artifact.saturating_mul(CACHE_SHARE));
        let help = format!("raise `disk_bytes_max` to {enough} or more, or lower `artifact_bytes_max`");
        return Err(Failure::config(message).help(help));
    }
    Ok((disk, artifact))
}

/// Ceilings under which no function runs at all are mistakes.
fn check_ceiling(ceiling: &Limits) -> Result<(), Failure> {
    not_zero("fuel_max", ceiling.fuel)?;
    not_zero("memory_bytes_max", ceiling.memory_bytes)?;
    not_zero("time_ms_max", ceiling.time_ms)
}

/// A budget of nothing.
pub(super) fn not_zero(key: &str, value: u64) -> Result<(), Failure> {
    if value > 0 {
        return Ok(());
    }
    let message = format!("`{key}` is 0: this host would never seed a function");
    Err(Failure::config(message).help(format!(
        "raise `{key}` or leave it out; to look on only, say `dry_run = true`"
    )))
}

/// Nobody is both allowed and denied.
fn check_owners(allow: &[OwnerId], deny: &[OwnerId]) -> Result<(), Failure> {
    let Some(owner) = allow.iter().find(|owner| deny.contains(owner)) else {
        return Ok(());
    };
    let message = format!("the owner {owner} is both allowed and denied (`allow` and `deny`)");
    Err(Failure::config(message).help("take it out of one of the two lists"))
}
