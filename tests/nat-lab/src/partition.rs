//! Five super nodes with twenty hosts, parted in two and healed.
//!
//! While they are parted both sides answer calls, publish, edit and end functions. Once healed, all of them
//! say the same, and what was ended at either side has ended everywhere. A second partition drops packets in
//! one direction only.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::federation::Federation;
use crate::orb::{Ended, User, eventually};
use crate::registry::Registry;
use crate::report::Report;
use crate::switch::{Cut, Port};

/// Super nodes, each with so many hosts.
const HOSTS: [usize; 5] = [4; 5];
/// Super nodes below this number are on one side, with their hosts; the others are on the other one.
const SIDE: usize = 2;
/// One from each side.
const SIDES: [usize; 2] = [0, 4];
/// So many replicas that each side has some, wherever they are placed: the larger side has 12 hosts, and the
/// smaller one 8.
const REPLICAS: usize = 14;
/// How long a super node may be silent before others take over what it did, and a little: a partition that
/// lasts longer than this is noticed by everybody (`SILENT_AFTER_MS` and `ABSENT_MAX_MS` of the protocol).
const NOTICED: Duration = Duration::from_secs(12);

/// Runs it.
///
/// # Errors
/// If the lab does not stand. What is under test goes to the report.
pub(crate) fn run(report: &mut Report) -> Result<()> {
    let started = Instant::now();
    let mut federation = Federation::start(&HOSTS)?;
    println!(
        "5 super nodes and 20 hosts are up after {:.1} s",
        started.elapsed().as_secs_f64()
    );
    let play = Play::begin(&federation);
    let result = play.and_then(|play| play.act(&federation, report));
    println!(
        "partition: {:.0} s, all daemons together have {} MB resident",
        started.elapsed().as_secs_f64(),
        federation.resident_bytes() >> 20
    );
    if result.is_err() || report.has_failures() {
        println!("{}", federation.log_tails());
    }
    result
}

/// An owner with two devices, one at each side, and callers.
struct Play {
    owner: String,
    devices: [User; 2],
    callers: Vec<User>,
}

impl Play {
    fn begin(federation: &Federation) -> Result<Self> {
        let first = federation.user("owner", SIDES[0])?;
        let second = first.another_device(federation.folder().join("owner-again"))?;
        let second = federation.move_to(&second, SIDES[1]);
        let play = Self {
            owner: first.owner()?,
            devices: [first, second],
            callers: (0..HOSTS.len())
                .map(|place| federation.user(&format!("caller{place}"), place))
                .collect::<Result<_>>()?,
        };
        for name in ["steady", "ended", "ended-there", "raced"] {
            let deployed = federation.deploy(&play.devices[0], name, (REPLICAS, REPLICAS), &says(name, 0));
            deployed.with_context(|| format!("deploying {name}"))?;
        }
        federation.agree()?;
        Ok(play)
    }

    fn act(&self, federation: &Federation, report: &mut Report) -> Result<()> {
        federation.switch.set_cuts(&both_ways(federation))?;
        let parted = Instant::now();
        report.record(
            "both_sides_answer_as_soon_as_they_are_parted",
            self.all_answer("steady", 0),
        );
        report.record(
            "both_sides_publish_edit_and_end_while_parted",
            self.live_apart(federation),
        );
        while parted.elapsed() < NOTICED {
            self.all_answer("steady", 0)?;
        }
        report.record(
            "both_sides_answer_when_they_have_noticed",
            self.all_answer("steady", 0),
        );
        report.record(
            "what_was_ended_here_answers_no_more_and_there_it_does",
            self.ended_apart(),
        );
        federation.heal()?;
        let healed = Instant::now();
        let agreed = federation.agree();
        println!(
            "the registries agree {:.1} s after healing",
            healed.elapsed().as_secs_f64()
        );
        let outcome = agreed.and_then(|registry| self.is_joined(&registry));
        report.record("healed_all_registries_are_the_join_of_both", outcome);
        report.record(
            "healed_what_was_ended_at_either_side_never_answers",
            self.ended_everywhere(),
        );
        report.record("healed_histories_tell_of_the_end", self.told_as_ended());
        report.record(
            "healed_everything_else_answers_through_everybody",
            self.live_together(),
        );
        report.record("healed_hosts_drop_what_was_ended", self.dropped(federation));
        report.record(
            "a_partition_in_one_direction_heals_as_well",
            self.one_way(federation),
        );
        Ok(())
    }

    /// Each side publishes a function, edits what the other one ends, and edits what the other one edits.
    fn live_apart(&self, federation: &Federation) -> Result<()> {
        let [here, there] = &self.devices;
        for (device, name) in [(here, "ended"), (there, "ended-there")] {
            device.run(device.home(), &["decommission", name, "--yes", "--no-wait"], b"")?;
        }
        // More edits than the tombstone's number counts: it wins all the same.
        for edit in 1..=3 {
            federation.deploy(there, "ended", (REPLICAS, 1), &says("ended", edit))?;
            federation.deploy(here, "ended-there", (REPLICAS, 1), &says("ended-there", edit))?;
        }
        federation.deploy(here, "raced", (REPLICAS, 1), &says("raced", 1))?;
        federation.deploy(there, "raced", (REPLICAS, 1), &says("raced", 2))?;
        federation.deploy(here, "from-here", (3, 1), &says("from-here", 0))?;
        federation.deploy(there, "from-there", (3, 1), &says("from-there", 0))?;
        Ok(())
    }

    fn ended_apart(&self) -> Result<()> {
        for (place, caller) in self.callers.iter().enumerate() {
            let (gone, lives) = match place < SIDE {
                true => ("ended", "ended-there"),
                false => ("ended-there", "ended"),
            };
            self.check_ended(&self.call(caller, gone)?)?;
            let ended = self.call(caller, lives)?;
            ensure!(ended.code == 0, "it has not heard of the end: {ended}");
        }
        Ok(())
    }

    fn is_joined(&self, registry: &Registry) -> Result<()> {
        let of = |name: &str| {
            registry
                .get(&self.name(name))
                .with_context(|| format!("{name} is lost"))
        };
        for name in ["ended", "ended-there"] {
            let revision = of(name)?;
            ensure!(
                revision.artifact.is_none(),
                "{name} is {revision}, and not a tombstone"
            );
        }
        for (name, number) in [("steady", 1), ("raced", 2), ("from-here", 1), ("from-there", 1)] {
            let revision = of(name)?;
            ensure!(revision.number == number, "{name} is {revision}");
            ensure!(revision.artifact.is_some(), "{name} is {revision}");
        }
        ensure!(registry.len() == 6, "{registry:?}");
        Ok(())
    }

    /// Everybody is told at once, and again and again.
    fn ended_everywhere(&self) -> Result<()> {
        for _ in 0..3 {
            for caller in &self.callers {
                for name in ["ended", "ended-there"] {
                    self.check_ended(&self.call(caller, name)?)?;
                }
            }
        }
        Ok(())
    }

    /// Histories begin with the tombstone, though it has a lower number than the edits of the other side.
    fn told_as_ended(&self) -> Result<()> {
        for (place, caller) in self.callers.iter().enumerate() {
            for name in ["ended", "ended-there"] {
                let versions = caller.run(caller.home(), &["versions", &self.name(name)], b"")?;
                let revisions = versions["revisions"].as_array().context("revisions")?;
                let first = &revisions[0]["action"];
                ensure!(first == "decommissioned", "{name} at super{place}: {versions}");
                let lives = revisions.iter().any(|revision| revision["live"] == true);
                ensure!(!lives, "{name} lives at super{place}: {versions}");
            }
        }
        Ok(())
    }

    fn live_together(&self) -> Result<()> {
        for name in ["steady", "from-here", "from-there"] {
            self.all_answer(name, 0)?;
        }
        let mut answers = Vec::new();
        // Hosts of the side that lost take up the other revision first.
        let one = eventually("the function that was raced for answers alike everywhere", || {
            answers.clear();
            for caller in &self.callers {
                let ended = self.call(caller, "raced")?;
                ensure!(ended.code == 0, "{ended}");
                answers.push(ended.document()?["output"].to_string());
            }
            Ok(answers.iter().all(|answer| *answer == answers[0]).then_some(()))
        });
        one.with_context(|| format!("two winners: {answers:?}"))?;
        let either = [1, 2].map(|edit| says("raced", edit));
        ensure!(
            either.contains(&answers[0]),
            "the answer of neither device: {answers:?}"
        );
        Ok(())
    }

    /// The bytes of what was ended leave all hosts.
    fn dropped(&self, federation: &Federation) -> Result<()> {
        let listed = self.devices[0].run(self.devices[0].home(), &["list"], b"")?;
        let live = listed["functions"].as_array().context("functions")?;
        let live: Vec<&str> = live
            .iter()
            .filter_map(|function| function["artifact"].as_str())
            .collect();
        for host in &federation.hosts {
            let mut more = Vec::new();
            let dropped = eventually("a host has dropped what was ended", || {
                let held = crate::artifacts::held(&host.daemon.data())?;
                more = held
                    .into_iter()
                    .filter(|held| !live.contains(&held.as_str()))
                    .collect();
                Ok(more.is_empty().then_some(()))
            });
            dropped.with_context(|| format!("{} holds {more:?}", host.daemon.name()))?;
        }
        Ok(())
    }

    /// What the smaller side sends does not arrive, while it hears everything.
    fn one_way(&self, federation: &Federation) -> Result<()> {
        let [here, there] = &self.devices;
        let from_here = |cut: &Cut| ports(federation, |place| place < SIDE).contains(&cut.from);
        let cuts: Vec<Cut> = both_ways(federation).into_iter().filter(from_here).collect();
        federation.switch.set_cuts(&cuts)?;
        let parted = Instant::now();
        // That side does not hear of the end, and goes on.
        here.run(
            here.home(),
            &["decommission", "from-here", "--yes", "--no-wait"],
            b"",
        )?;
        federation.deploy(there, "from-here", (3, 1), &says("from-here", 1))?;
        federation.deploy(there, "from-there", (3, 1), &says("from-there", 1))?;
        while parted.elapsed() < NOTICED {
            for (place, caller) in self.callers.iter().enumerate() {
                let ended = self.call(caller, "steady")?;
                ensure!(ended.code == 0, "through super{place}: {ended}");
            }
        }
        federation.heal()?;
        let registry = federation.agree()?;
        let ended = &registry[&self.name("from-here")];
        ensure!(ended.artifact.is_none(), "from-here is {ended}");
        self.all_answer("from-there", 1)?;
        for caller in &self.callers {
            self.check_ended(&self.call(caller, "from-here")?)?;
        }
        Ok(())
    }

    /// Calls through every super node are answered by this edit.
    fn all_answer(&self, name: &str, edit: u64) -> Result<()> {
        let wanted = says(name, edit);
        for (place, caller) in self.callers.iter().enumerate() {
            let ended = self.call(caller, name)?;
            if ended.code != 0 {
                bail!("{name} is not answered through super{place}: {ended}");
            }
            let output = ended.document()?["output"].to_string();
            ensure!(
                output == wanted,
                "{name} answers {output} through super{place}, and not {wanted}"
            );
        }
        Ok(())
    }

    fn check_ended(&self, ended: &Ended) -> Result<()> {
        ensure!(
            ended.code == 6 && ended.error_kind() == "decommissioned",
            "{ended}"
        );
        Ok(())
    }

    fn call(&self, caller: &User, name: &str) -> Result<Ended> {
        caller.try_run(caller.home(), &["call", &self.name(name), "null"], b"")
    }

    fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.owner)
    }
}

/// What an edit of a function answers: JSON, a text.
fn says(name: &str, edit: u64) -> String {
    format!("\"{name}, edit {edit}\"")
}

/// The machines that belong to these super nodes.
fn ports(federation: &Federation, is_theirs: impl Fn(usize) -> bool) -> Vec<Port> {
    let nodes = federation.supers.iter().chain(&federation.hosts);
    let nodes = nodes.map(|node| (node.super_node, node.port));
    let desks = federation
        .desks
        .iter()
        .enumerate()
        .map(|(place, desk)| (place, desk.port));
    nodes
        .chain(desks)
        .filter(|(place, _)| is_theirs(*place))
        .map(|(_, port)| port)
        .collect()
}

/// Everything between the sides.
fn both_ways(federation: &Federation) -> Vec<Cut> {
    let here = ports(federation, |place| place < SIDE);
    let there = ports(federation, |place| place >= SIDE);
    let mut cuts = Vec::new();
    for &from in &here {
        for &to in &there {
            cuts.extend([Cut { from, to }, Cut { from: to, to: from }]);
        }
    }
    cuts
}
