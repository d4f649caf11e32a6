//! What is to happen in a simulation.

use serde::{Deserialize, Serialize};

/// A scenario, as its file says. Unknown keys are errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Super nodes.
    pub supers: usize,
    /// Hosts, spread evenly over the super nodes.
    pub hosts: usize,
    /// Functions that are deployed in the first second.
    pub functions: usize,
    /// Replicas of each.
    #[serde(default = "three")]
    pub replicas: u16,
    /// Bytes of each artifact.
    #[serde(default = "ten_thousand")]
    pub artifact_bytes: u64,
    /// When the last fault is over at the latest and no packet is lost any more, in seconds; properties are checked
    /// `settle_s` later.
    pub duration_s: u64,
    /// How long everything may take to settle, in seconds.
    #[serde(default = "thirty")]
    pub settle_s: u64,
    /// The links.
    #[serde(default)]
    pub network: Network,
    /// What owners do.
    #[serde(default, rename = "work")]
    pub works: Vec<Work>,
    /// Calls in each second, of random functions through random super nodes.
    #[serde(default)]
    pub calls_per_s: u32,
    /// What goes wrong.
    #[serde(default, rename = "fault")]
    pub faults: Vec<Fault>,
}

fn three() -> u16 {
    3
}

fn ten_thousand() -> u64 {
    10_000
}

fn thirty() -> u64 {
    30
}

/// How links behave. One-way times are log-normal over pairs of nodes, and jitter is uniform over messages.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Median one-way time, in milliseconds.
    pub median_ms: f64,
    /// Sigma of the logarithm: 0 makes all links alike.
    pub sigma: f64,
    /// At most so much more for each message, in milliseconds. Messages of different links overtake each other.
    pub jitter_ms: f64,
    /// How likely a packet is lost. QUIC sends it again: that costs a round trip each time.
    pub loss: f64,
    /// How likely a message from a peer arrives once more, as after a reconnection.
    pub duplicates: f64,
    /// Bytes per second of a host's line.
    pub bytes_per_s: u64,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            median_ms: 30.0,
            sigma: 0.5,
            jitter_ms: 3.0,
            loss: 0.0,
            duplicates: 0.0,
            bytes_per_s: 5_000_000,
        }
    }
}

/// What owners do with functions that live, chosen at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Work {
    /// What.
    pub action: Action,
    /// When the first one happens, in milliseconds.
    pub at_ms: u64,
    /// How many.
    #[serde(default = "one")]
    pub count: u64,
    /// Between two of them, in milliseconds.
    #[serde(default = "hundred")]
    pub every_ms: u64,
}

fn one() -> u64 {
    1
}

fn hundred() -> u64 {
    100
}

/// What an owner does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A new artifact.
    Edit,
    /// The artifact of the first revision again.
    Rollback,
    /// The end.
    Decommission,
    /// Two devices publish the same revision number at two super nodes at the same moment.
    Collide,
}

/// What goes wrong, and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What.
    pub kind: FaultKind,
    /// When, in milliseconds.
    pub at_ms: u64,
    /// When it is over, in milliseconds after `at_ms`; 0: never.
    #[serde(default)]
    pub for_ms: u64,
    /// Which part of the super nodes or hosts it hits.
    #[serde(default = "half")]
    pub part: f64,
}

fn half() -> f64 {
    0.5
}

/// See [`Fault`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// This part of the super nodes, with their hosts, cannot talk with the rest.
    Partition,
    /// What this part sends does not reach the rest; the other direction works.
    OneWay,
    /// These super nodes stop without a word, and come back with their disks.
    CrashSupers,
    /// The same, and they come back as they were at the start: their registries are empty.
    LoseDisks,
    /// The same, and they come back with their functions, but without what they knew of logs.
    LoseClocks,
    /// These hosts leave at once, and come back with what they held.
    LeaveHosts,
    /// These hosts come and go: each is away for three seconds every ten.
    Churn,
    /// These hosts say that they hold everything and cannot answer for it.
    LyingHosts,
    /// These hosts' links are ten times as slow.
    SlowHosts,
}

/// A scenario that makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The text.
    #[error("the scenario does not parse: {0}")]
    Parse(#[from] toml::de::Error),
    /// A number.
    #[error("the scenario's {0}")]
    Bounds(&'static str),
}

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// [`ScenarioError`].
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self = toml::from_str(text)?;
        let rules = [
            (
                (1..=1_000).contains(&scenario.supers),
                "supers: from 1 to 1,000 are simulated",
            ),
            (
                (1..=100_000).contains(&scenario.hosts),
                "hosts: from 1 to 100,000 are simulated",
            ),
            (
                scenario.functions >= 1 && scenario.functions <= 1_000_000,
                "functions: from 1 to 1,000,000 are simulated",
            ),
            (
                scenario.faults.iter().all(|f| (0.0..=1.0).contains(&f.part)),
                "faults: a part is from 0 to 1",
            ),
            (
                scenario.network.loss < 0.9 && scenario.network.bytes_per_s > 0,
                "network: loss is below 0.9, bytes_per_s above 0",
            ),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(ScenarioError::Bounds(rule)),
            None => Ok(scenario),
        }
    }
}
