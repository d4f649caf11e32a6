//! Host and super node: the control stream.
//!
//! The host opens it with [`Register`] and gets a reply of [`Registered`]. It then tells what it
//! holds ([`Holding`], as many as it takes, the last one marked), the super node tells what became of
//! that meanwhile, ends with [`Synced`], and only then the host answers calls. From there on both
//! sides send what happens, when it happens; a [`Beat`] every [`BEAT_INTERVAL_MS`].

use serde::{Deserialize, Serialize};

use super::extension::Extensions;
use super::tagged::wire_enum;
use crate::id::{EngineHash, FunctionId, ManifestHash};
use crate::manifest::{Limits, SignedManifest, Version};

/// Between two heart-beats, in milliseconds (the brief).
pub const BEAT_INTERVAL_MS: u64 = 2_000;
/// A host that was silent for longer is not routed to, in milliseconds: two beats and a margin.
pub const SILENT_AFTER_MS: u64 = 5_000;
/// A host that was silent for longer is lost, in milliseconds.
pub const LOST_AFTER_MS: u64 = 8_000;
/// The most functions in one [`Holding`] message.
pub const HOLDING_MAX: usize = 1_000;
/// The most super nodes in one [`Supers`] message.
pub const SUPERS_MAX: usize = 64;
/// The most run times in one [`Beat`].
pub const RUN_TIMES_MAX: usize = 256;
/// The extension of [`Beat`] that says that the host takes no calls and no further functions for a while,
/// and why, for a person. UTF-8. Without it the host takes them. Whoever does not know it routes to the
/// host, which answers `overloaded`.
pub const PAUSED: u16 = 1;
/// What is kept of the reason for a pause, in bytes: a sentence.
pub const PAUSE_REASON_LEN_MAX: usize = 256;

/// The extension of [`Offer`] with which a host asks to hear only of functions that it holds. Empty.
pub const HOLDINGS_ONLY: u16 = 1;

/// A host's first message: what it offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// What it offers.
    pub offer: Offer,
    /// An invitation, where the super node's policy asks for one; empty if there is none.
    pub invite: String,
    /// The version of its software, for display.
    pub software: String,
    /// For what comes later.
    pub extensions: Extensions,
}

/// What a host offers, and up to what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Calls that it runs at the same time.
    pub capacity: u32,
    /// The highest limits of a function that it seeds.
    pub ceiling: Limits,
    /// The longest artifact that it seeds, in bytes.
    pub artifact_bytes_max: u64,
    /// Room for artifacts, in bytes.
    pub disk_free_bytes: u64,
    /// The engines that it runs javy artifacts on.
    pub engines: Vec<EngineHash>,
    /// Who operates it: hosts with the same text count as one operator. Empty: not said.
    pub operator: String,
    /// For what comes later.
    pub extensions: Extensions,
}

/// The super node knows the host now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The host's address as the super node sees it.
    pub observed: String,
    /// For what comes later.
    pub extensions: Extensions,
}

wire_enum! {
    /// What a host sends on its control stream.
    pub enum HostMessage {
        /// What it holds.
        1 => Holding(Holding),
        /// That it lives, and how busy it is.
        2 => Beat(Beat),
        /// That it can answer for a version.
        3 => Ready(Ready),
        /// That it will not hold a function.
        4 => Refused(Refused),
        /// That it holds a function no more.
        5 => Dropped(Dropped),
        /// That it takes no new calls and is about to leave.
        6 => Draining(Draining),
    }
}

wire_enum! {
    /// What a super node sends on a host's control stream.
    pub enum SuperMessage {
        /// Hold this.
        1 => Assign(Assign),
        /// You need not hold this any more.
        2 => Release(Release),
        /// A function changed: sent for all that the host holds, and for every change to all hosts.
        3 => Changed(Changed),
        /// You know now what changed while you were away.
        4 => Synced(Synced),
        /// Other super nodes, for when this one is lost.
        5 => Supers(Supers),
    }
}

/// Other super nodes, to which a host can go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supers {
    /// `NODEID@host:port` each, at most [`SUPERS_MAX`].
    pub addresses: Vec<String>,
    /// For what comes later.
    pub extensions: Extensions,
}

/// Functions that a host holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// At most [`HOLDING_MAX`].
    pub replicas: Vec<Held>,
    /// Whether there are no more.
    pub last: bool,
    /// For what comes later.
    pub extensions: Extensions,
}

/// A function that a host holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Which function.
    pub function: FunctionId,
    /// Which version.
    pub version: Version,
    /// Which manifest: two with one number may differ in anything.
    pub manifest: ManifestHash,
    /// Whether it can answer for it.
    pub ready: bool,
}

/// A heart-beat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Calls running.
    pub running: u32,
    /// Calls waiting.
    pub waiting: u32,
    /// Room for artifacts, in bytes.
    pub disk_free_bytes: u64,
    /// Mean times in guest that changed since the last beat, in microseconds; at most [`RUN_TIMES_MAX`].
    pub run_times_us: Vec<(FunctionId, u32)>,
    /// Calls that failed through the host's fault lately, in thousandths.
    pub failure_permille: u16,
    /// For what comes later.
    pub extensions: Extensions,
}

impl Beat {
    /// The same heart-beat of a host that pauses.
    #[must_use]
    pub fn paused(mut self, reason: &str) -> Self {
        self.extensions = self.extensions.with(PAUSED, reason.as_bytes().to_vec());
        self
    }

    /// Why the host pauses, if it does: fit for logs and terminals.
    pub fn pause(&self) -> Option<String> {
        let reason = self.extensions.get(PAUSED)?;
        let reason = &reason[..reason.len().min(PAUSE_REASON_LEN_MAX)];
        let reason = String::from_utf8_lossy(reason);
        Some(reason.chars().filter(|char| !char.is_control()).collect())
    }
}

/// The host can answer for a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Which function.
    pub function: FunctionId,
    /// Which version.
    pub version: Version,
    /// For what comes later.
    pub extensions: Extensions,
}

/// The host will not hold a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Which function.
    pub function: FunctionId,
    /// Which version.
    pub version: Version,
    /// Which rule says so, for a person.
    pub reason: String,
    /// For what comes later.
    pub extensions: Extensions,
}

/// The host holds a function no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Which function.
    pub function: FunctionId,
    /// For what comes later.
    pub extensions: Extensions,
}

/// The host takes no new calls.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draining {
    /// For what comes later.
    pub extensions: Extensions,
}

/// Hold this function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assign {
    /// The revision to hold.
    pub manifest: SignedManifest,
    /// For what comes later.
    pub extensions: Extensions,
}

/// This function need not be held any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Which function.
    pub function: FunctionId,
    /// For what comes later.
    pub extensions: Extensions,
}

/// A function has a new revision or a tombstone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// It.
    pub manifest: SignedManifest,
    /// For what comes later.
    pub extensions: Extensions,
}

/// The host knows all changes of what it holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Synced {
    /// For what comes later.
    pub extensions: Extensions,
}
