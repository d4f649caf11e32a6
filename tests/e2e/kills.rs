//! kill -9, again and again, during a stream of deploys, edits, rollbacks and decommissions.
//!
//! `ORB_KILLS=500` kills so often rather than [`KILLS`] times; `ORB_KILLS_SEED=N` draws other moments.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use orb_protocol::id::ArtifactHash;
use orb_tests::{Ended, Network, Orb, Project, eventually, guest};
use serde_json::Value;

use crate::crash::check_objects;

/// How often in CI.
const KILLS: u64 = 20;
const HOSTS: u64 = 2;
const FUNCTIONS: u64 = 3;
/// Edits in a row that are measured first, so that the kills fall into what a command takes.
const MEASURED: u32 = 4;
/// Bytes that make some artifacts long, so that they are on their way for a while.
const LONG_BYTES: usize = 2 << 20;
/// How long a command may take that has lost its super node, before it counts as not answered.
const GIVE_UP: Duration = Duration::from_secs(2);
/// Revisions whose artifacts are kept.
const KEPT: usize = 10;

/// One revision, as `orb versions` tells it. Without an artifact it ended the function.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Revision {
    generation: u64,
    number: u64,
    artifact: Option<String>,
}

impl Revision {
    fn of(document: &Value) -> Self {
        Self {
            generation: document["generation"].as_u64().unwrap(),
            number: document["revision"].as_u64().unwrap(),
            artifact: document["artifact"].as_str().map(str::to_owned),
        }
    }
}

/// A function, and what its owner knows of it.
struct Function {
    project: Project,
    /// Newest first.
    revisions: Vec<Revision>,
    /// What each artifact answers.
    answers: BTreeMap<String, String>,
    edits: u64,
}

/// What an owner does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Deploy,
    Rollback,
    Decommission,
}

impl Function {
    fn new(number: u64) -> Self {
        Self {
            project: Project::wasm(&format!("f{number}"), &guest::say("")).set("replicas = 2"),
            revisions: Vec::new(),
            answers: BTreeMap::new(),
            edits: 0,
        }
    }

    fn live(&self) -> Option<&str> {
        self.revisions.first()?.artifact.as_deref()
    }

    /// What makes sense now.
    fn draw(&self, dice: &mut Dice) -> Act {
        let lives: Vec<&Revision> = self
            .revisions
            .iter()
            .take_while(|r| r.artifact.is_some())
            .collect();
        match dice.below(8) {
            0 if self.live().is_some() => Act::Decommission,
            1..=2 if lives.iter().any(|r| r.artifact != lives[0].artifact) => Act::Rollback,
            _ => Act::Deploy,
        }
    }

    /// Begins it; returns what ends it.
    fn begin(&mut self, act: Act, orb: &Orb, padding: usize) -> orb_tests::command::Running {
        let name = self.project.name().to_owned();
        match act {
            Act::Deploy => {
                self.edits += 1;
                let answer = format!("{name}, edit {}", self.edits);
                let module = guest::padded(guest::say(&answer), padding);
                self.answers.insert(ArtifactHash::of(&module).to_string(), answer);
                self.project.edit(module);
                // Does nothing to one that lives.
                let deploy = ["deploy", "--json", "--no-wait", "--resurrect"];
                orb.start_in(self.project.path(), deploy)
            }
            Act::Rollback => orb.start(["rollback", "--json", "--no-wait", &name]),
            Act::Decommission => orb.start(["decommission", "--json", "--yes", &name]),
        }
    }

    /// Compares what the super node has now with what was acknowledged before, and with what came of
    /// `act`, if there was one.
    fn check(&mut self, orb: &Orb, act: Option<(Act, &Ended)>) {
        let versions = orb.run(["versions", "--json", self.project.name()]);
        if versions.code == 6 && self.revisions.is_empty() {
            assert!(act.is_none_or(|(_, ended)| ended.code != 0), "{act:?} is lost");
            return;
        }
        let versions = versions.json();
        let documents = versions["revisions"].as_array().unwrap();
        let found: Vec<Revision> = documents.iter().map(Revision::of).collect();
        let news = found.len().checked_sub(self.revisions.len());
        let news = news.unwrap_or_else(|| panic!("{found:?} has less than {:?}", self.revisions));
        assert_eq!(found[news..], self.revisions, "what was acknowledged");
        match act {
            None => assert_eq!(news, 0, "{found:?}"),
            Some((_, ended)) if ended.code == 0 => assert_eq!(news, 1, "{ended} is not in {found:?}"),
            Some(_) => assert!(news <= 1, "{found:?}"),
        }
        if let (1, Some((act, _))) = (news, act) {
            self.check_new(act, &found[0]);
        }
        let of_this_life = documents.iter().take_while(|d| d["artifact"].is_string());
        for document in of_this_life.take(KEPT) {
            assert_eq!(document["has_artifact"], true, "{document}");
        }
        self.revisions = found;
    }

    fn check_new(&self, act: Act, new: &Revision) {
        assert!(self.revisions.first().is_none_or(|old| old < new), "{new:?}");
        let artifact = new.artifact.as_ref();
        let right = match act {
            Act::Decommission => artifact.is_none(),
            Act::Deploy => artifact == self.answers.keys().find(|key| self.is_newest_edit(key)),
            Act::Rollback => {
                self.revisions.iter().any(|r| r.artifact.as_ref() == artifact) && artifact.is_some()
            }
        };
        assert!(right, "{act:?} made {new:?}");
    }

    fn is_newest_edit(&self, artifact: &str) -> bool {
        self.answers[artifact].ends_with(&format!(", edit {}", self.edits))
    }

    /// Sooner or later it is answered, and never with anything but the live revision's answer.
    fn check_answer(&self, orb: &Orb) {
        let name = self.project.name();
        eventually(&format!("{name} is what it was"), || {
            let call = orb.run(["call", name, "null"]);
            let wanted = self.live().map(|artifact| self.answers[artifact].as_bytes());
            if call.code == 0 {
                let is_right = Some(call.stdout.as_slice()) == wanted;
                assert!(is_right, "{call} for {:?}", self.revisions.first());
                return Some(());
            }
            (wanted.is_none() && call.code == 6).then_some(())
        });
    }
}

/// Numbers that are the same for the same seed (`SplitMix64`).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |value| value.parse().unwrap())
}

/// Kills the super node or a host, and starts it again.
fn kill(network: &mut Network, dice: &mut Dice) -> Option<usize> {
    // The super node more often: it is the one that acknowledges.
    let victim = dice
        .below(HOSTS + 2)
        .checked_sub(2)
        .map(|host| usize::try_from(host).unwrap());
    match victim {
        None => network.super_node.kill(),
        Some(host) => network.hosts[host].kill(),
    }
    victim
}

/// How long an edit takes that nobody disturbs.
fn measure(function: &mut Function, orb: &Orb) -> Duration {
    let start = Instant::now();
    for _ in 0..MEASURED {
        let ended = function.begin(Act::Deploy, orb, 0).wait().ok();
        function.check(orb, Some((Act::Deploy, &ended)));
    }
    start.elapsed() / MEASURED
}

#[test]
fn kills_at_any_moment_lose_nothing_that_was_acknowledged() {
    let kills = setting("ORB_KILLS", KILLS);
    let mut dice = Dice(setting("ORB_KILLS_SEED", 1));
    let mut network = Network::start(usize::try_from(HOSTS).unwrap());
    let orb = network.user();
    let mut functions: Vec<Function> = (0..FUNCTIONS).map(Function::new).collect();
    let edit_us = u64::try_from(measure(&mut functions[0], &orb).as_micros()).unwrap();
    let (mut done, mut cut_off, mut came_through) = (0, 0, 0);
    for _ in 0..kills {
        let touched = usize::try_from(dice.below(FUNCTIONS)).unwrap();
        let act = functions[touched].draw(&mut dice);
        let padding = if dice.below(2) == 0 { LONG_BYTES } else { 0 };
        let running = functions[touched].begin(act, &orb, padding);
        std::thread::sleep(Duration::from_micros(dice.below(edit_us)));
        let victim = kill(&mut network, &mut dice);
        let ended = running.kill_after(GIVE_UP);
        let before = functions[touched].revisions.len();
        match victim {
            None => network.restart_super(),
            Some(host) => network.hosts[host].start(),
        }
        for (number, function) in functions.iter_mut().enumerate() {
            function.check(&orb, (number == touched).then_some((act, &ended)));
        }
        check_all_objects(&network);
        if !functions[touched].revisions.is_empty() {
            functions[touched].check_answer(&orb);
        }
        match (ended.code, functions[touched].revisions.len() > before) {
            (0, _) => done += 1,
            (_, true) => came_through += 1,
            (_, false) => cut_off += 1,
        }
    }
    println!(
        "{kills} kills: {done} acknowledged, {came_through} done and not acknowledged, {cut_off} not done"
    );
    assert!(
        done > 0 && cut_off > 0,
        "the moments were ill chosen: {done} and {cut_off}"
    );
    network.super_node.stop();
    network.restart_super();
    for function in &mut functions {
        function.check(&orb, None);
    }
}

fn check_all_objects(network: &Network) {
    check_objects(&network.super_data().join("objects"));
    for host in 0..network.hosts.len() {
        check_objects(&network.host_data(host).join("objects"));
    }
}
