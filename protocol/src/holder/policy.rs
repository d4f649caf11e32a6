//! Which functions a host seeds: its operator's rules.

use std::collections::BTreeSet;

use crate::id::{EngineHash, OwnerId};
use crate::manifest::{Limits, Publish};

/// What a host is willing to seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedPolicy {
    /// Only these owners, if set.
    pub allow_owners: Option<BTreeSet<OwnerId>>,
    /// Never these.
    pub deny_owners: BTreeSet<OwnerId>,
    /// The longest artifact, in bytes.
    pub artifact_bytes_max: u64,
    /// All artifacts together, in bytes.
    pub disk_bytes_max: u64,
    /// The highest limits of a function.
    pub ceiling: Limits,
    /// Engines that are there.
    pub engines: BTreeSet<EngineHash>,
    /// Capabilities that a guest may have.
    pub capabilities: BTreeSet<String>,
    /// `Some`: a function that nobody called for so long, in milliseconds, may go to make room for
    /// another one. `None`: only what need not be held any more goes.
    pub evict_after_ms: Option<u64>,
}

impl SeedPolicy {
    /// Whether to hold this revision, with `used_bytes` of disk in use for others.
    ///
    /// # Errors
    /// The rule that says no, for a person.
    pub fn decide(&self, owner: &OwnerId, publish: &Publish, used_bytes: u64) -> Result<(), String> {
        if self.deny_owners.contains(owner) {
            return Err(format!("owner {} is denied", owner.short()));
        }
        if self
            .allow_owners
            .as_ref()
            .is_some_and(|allowed| !allowed.contains(owner))
        {
            return Err(format!("owner {} is not among the allowed", owner.short()));
        }
        if publish.artifact_bytes > self.artifact_bytes_max {
            let (is, most) = (publish.artifact_bytes, self.artifact_bytes_max);
            return Err(format!("the artifact has {is} bytes, at most {most} are taken"));
        }
        if used_bytes.saturating_add(publish.artifact_bytes) > self.disk_bytes_max {
            return Err(format!(
                "the disk budget of {} bytes is used up",
                self.disk_bytes_max
            ));
        }
        if let Some((name, wanted, most)) = publish.limits.above(&self.ceiling) {
            return Err(format!("limits.{name} is {wanted}, at most {most} is given"));
        }
        if let Some(engine) = publish.engine.filter(|engine| !self.engines.contains(engine)) {
            return Err(format!("engine {} is not among the allowed", engine.short()));
        }
        match publish
            .capabilities
            .iter()
            .find(|wanted| !self.capabilities.contains(*wanted))
        {
            Some(wanted) => Err(format!("capability {wanted:?} is not given")),
            None => Ok(()),
        }
    }
}
