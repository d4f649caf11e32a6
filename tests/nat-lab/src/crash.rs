//! Three super nodes with six hosts under a load of deploys, rollbacks and decommissions by five devices of
//! three owners, while processes are killed and packets are dropped. After each round: the registries agree,
//! everything that was acknowledged is there, nothing answers that has ended.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::federation::Federation;
use crate::ledger::Ledger;
use crate::orb::{Ended, User, eventually};
use crate::plan::{Act, DEVICES, Deed, HOSTS, Round, What};
use crate::report::Report;
use crate::switch::{Cut, Port};
use crate::tally::Tally;
use crate::{artifacts, guest, interrupt};

/// How long a command may go on when everything is mended, before it counts as not acknowledged.
const GIVE_UP: Duration = Duration::from_secs(2);
/// Hosts that each function asks for.
const REPLICAS: usize = 2;

/// Runs so many rounds.
///
/// # Errors
/// If the lab does not stand. What is under test goes to the report.
pub(crate) fn run(report: &mut Report, seed: u64, rounds: u64) -> Result<()> {
    let started = Instant::now();
    let mut harness = Harness::start()?;
    let mut result = Ok(());
    for number in 0..rounds {
        result = harness.round(seed, number).with_context(|| {
            format!(
                "round {}; to see it again: cargo run --release --manifest-path tests/nat-lab/Cargo.toml \
                 -- crash --seed {seed} --rounds {}\n{}",
                number + 1,
                number + 1,
                harness.story.join("\n")
            )
        });
        if result.is_err() {
            println!("{}", harness.federation.log_tails());
            break;
        }
        interrupt::check()?;
    }
    if result.is_ok() {
        result = harness.check_everything().context("after the last round");
    }
    println!(
        "crash: seed {seed}, {rounds} rounds, {:.0} s: {} acknowledged of {}; {} MB resident",
        started.elapsed().as_secs_f64(),
        harness.ledger.acknowledged(),
        harness.tally,
        harness.federation.resident_bytes() >> 20,
    );
    report.record(format!("crash_and_partition_seed_{seed}_{rounds}_rounds"), result);
    Ok(())
}

struct Harness {
    federation: Federation,
    /// One for each of [`DEVICES`].
    devices: Vec<User>,
    /// Owners' keys, one for each device.
    owners: Vec<String>,
    callers: Vec<User>,
    ledger: Ledger,
    tally: Tally,
    /// What happened in the round.
    story: Vec<String>,
}

/// An act, ready to be begun.
struct Task {
    act: Act,
    user: User,
    name: String,
    function: String,
    /// A project, where there is something to deploy.
    folder: std::path::PathBuf,
}

impl Harness {
    fn start() -> Result<Self> {
        let federation = Federation::start(&HOSTS)?;
        let mut devices: Vec<User> = Vec::new();
        for (number, owner) in DEVICES.iter().enumerate() {
            let home = format!("device{number}");
            let first = DEVICES.iter().position(|other| other == owner);
            devices.push(match first.and_then(|first| devices.get(first)) {
                Some(first) => first.another_device(federation.folder().join(home))?,
                None => federation.user(&home, 0)?,
            });
        }
        Ok(Self {
            owners: devices.iter().map(User::owner).collect::<Result<_>>()?,
            callers: (0..HOSTS.len())
                .map(|place| federation.user(&format!("caller{place}"), place))
                .collect::<Result<_>>()?,
            devices,
            federation,
            ledger: Ledger::default(),
            tally: Tally::default(),
            story: Vec::new(),
        })
    }

    fn round(&mut self, seed: u64, number: u64) -> Result<()> {
        self.story.clear();
        let round = Round::draw(seed, number);
        let tasks = round.acts.iter().enumerate();
        let tasks = tasks
            .map(|(place, act)| self.prepare(act, number, place))
            .collect::<Result<Vec<_>>>()?;
        let began = Instant::now();
        let ended = self.play(&round, &tasks, began)?;
        let mut touched = BTreeSet::new();
        for (task, ended) in tasks.iter().zip(ended) {
            self.take_down(task, &ended)?;
            touched.insert(task.function.clone());
        }
        let mended = Instant::now();
        let registry = self.federation.agree()?;
        self.tally.agreed.push(mended.elapsed().as_secs_f64());
        self.ledger.check_registry(&registry)?;
        self.check_everywhere(&touched)?;
        self.check_hosts()?;
        for node in self.federation.nodes() {
            node.daemon.check_alive()?;
        }
        self.ledger.settle();
        println!(
            "round {}: {} commands, agreed {:.1} s after it was mended, {:.1} s in all",
            number + 1,
            tasks.len(),
            self.tally.agreed.last().unwrap_or(&0.0),
            began.elapsed().as_secs_f64()
        );
        Ok(())
    }

    /// What was acknowledged in any round is there after the last one.
    fn check_everything(&self) -> Result<()> {
        let (live, ended) = self.ledger.names();
        self.check_everywhere(&live.into_iter().chain(ended).collect())
    }

    /// Builds what is to be deployed: how its bytes are called is known before it is handed in.
    fn prepare(&mut self, act: &Act, round: u64, place: usize) -> Result<Task> {
        let name = format!("f{}", act.function);
        let function = format!("{}/{name}", self.owners[act.device]);
        let user = self.federation.move_to(&self.devices[act.device], act.super_node);
        let mut folder = user.home().to_owned();
        if let Deed::Deploy(padding) = act.deed {
            let says = format!(
                "\"owner {}, f{}, round {}, act {place}\"",
                DEVICES[act.device],
                act.function,
                round + 1
            );
            folder = self
                .federation
                .project(&name, REPLICAS, &guest::say(&says, padding)?)?;
            let built = user.run(&folder, &["build"], b"")?;
            let artifact = built["artifact"].as_str().context("an artifact")?;
            self.ledger.on_tried(&function, artifact, &says);
        }
        Ok(Task {
            act: act.clone(),
            user,
            name,
            function,
            folder,
        })
    }

    /// Has everything happen in its time, mends everything, and waits for the commands.
    fn play(&mut self, round: &Round, tasks: &[Task], began: Instant) -> Result<Vec<Ended>> {
        let give_up = began + round.length + GIVE_UP;
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..DEVICES.len())
                .map(|device| scope.spawn(move || work(device, tasks, began, give_up)))
                .collect();
            let broken = self.break_things(round, began);
            let mut ended: Vec<(usize, Ended)> = Vec::new();
            for thread in threads {
                ended.extend(thread.join().expect("a device does not panic")?);
            }
            broken?;
            ended.sort_by_key(|(place, _)| *place);
            Ok(ended.into_iter().map(|(_, ended)| ended).collect())
        })
    }

    /// Kills and parts, and in the end mends everything.
    fn break_things(&mut self, round: &Round, began: Instant) -> Result<()> {
        let mut due: Vec<(Duration, usize, bool)> = Vec::new();
        for (place, fault) in round.faults.iter().enumerate() {
            due.push((fault.at, place, true));
            due.push((fault.until.min(round.length), place, false));
        }
        due.sort();
        let mut cuts: BTreeSet<usize> = BTreeSet::new();
        for (at, place, breaks) in due {
            std::thread::sleep(at.saturating_sub(began.elapsed()));
            interrupt::check()?;
            let what = &round.faults[place].what;
            let sign = if breaks { "" } else { "no more " };
            self.story
                .push(format!("{:6} ms: {sign}{what:?}", at.as_millis()));
            match what {
                What::Kill(daemon) => {
                    let node = self.federation.nodes().nth(*daemon).context("a daemon")?;
                    if breaks {
                        node.daemon.kill();
                    } else {
                        node.daemon.start_again()?;
                    }
                    self.tally.kills += usize::from(breaks);
                }
                What::Cut { .. } => {
                    if breaks {
                        cuts.insert(place);
                    } else {
                        cuts.remove(&place);
                    }
                    self.tally.cuts += usize::from(breaks);
                    let whats = cuts.iter().map(|place| &round.faults[*place].what);
                    let pairs: BTreeSet<Cut> = whats.flat_map(|what| self.pairs(what)).collect();
                    let pairs: Vec<Cut> = pairs.into_iter().collect();
                    self.federation.switch.set_cuts(&pairs)?;
                }
            }
        }
        std::thread::sleep(round.length.saturating_sub(began.elapsed()));
        self.federation.heal()?;
        self.federation.start_all()
    }

    fn pairs(&self, what: &What) -> Vec<Cut> {
        let What::Cut { from, to, both } = what else {
            return Vec::new();
        };
        let ports = self.ports();
        let mut pairs = Vec::new();
        for &from in from {
            for &to in to {
                let (from, to) = (ports[from], ports[to]);
                pairs.push(Cut { from, to });
                if *both {
                    pairs.push(Cut { from: to, to: from });
                }
            }
        }
        pairs
    }

    /// In the order in which the plan numbers machines.
    fn ports(&self) -> Vec<Port> {
        let Federation {
            supers, hosts, desks, ..
        } = &self.federation;
        let nodes = supers.iter().chain(hosts).map(|node| node.port);
        nodes.chain(desks.iter().map(|desk| desk.port)).collect()
    }

    fn take_down(&mut self, task: &Task, ended: &Ended) -> Result<()> {
        let Act {
            at,
            device,
            function,
            deed,
            super_node,
        } = &task.act;
        self.tally.acts += 1;
        let mut came = ended.error_kind();
        if ended.code == 0 {
            let document = ended.document()?;
            self.ledger
                .on_acknowledged(&task.function, *super_node, &document)?;
            came = format!("{}.{}", document["generation"], document["revision"]);
        }
        self.story.push(format!(
            "{:6} ms: device {device} at super{super_node}: {deed:?} of f{function}: {} {came}",
            at.as_millis(),
            ended.code
        ));
        Ok(())
    }

    /// Asks every super node at the same time.
    fn check_everywhere(&self, touched: &BTreeSet<String>) -> Result<()> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..HOSTS.len())
                .map(|place| scope.spawn(move || self.check_through(place, touched)))
                .collect();
            for thread in threads {
                thread.join().expect("a caller does not panic")?;
            }
            Ok(())
        })
    }

    fn check_through(&self, place: usize, touched: &BTreeSet<String>) -> Result<()> {
        let caller = &self.callers[place];
        let call = |name: &str| caller.try_run(caller.home(), &["call", name, "null"], b"");
        let (live, ended) = self.ledger.names();
        // First, and no patience: everybody knows.
        for name in &ended {
            let call = call(name)?;
            let is_told = call.code == 6 && call.error_kind() == "decommissioned";
            ensure!(is_told, "{name} has ended, and through super{place}: {call}");
        }
        for name in &live {
            let wanted = self.ledger.answer(name).context("an artifact that is known")?;
            let mut last = String::new();
            let answered = eventually("a function that lives answers", || {
                let call = call(name)?;
                last = call.to_string();
                if call.code != 0 {
                    return Ok(None);
                }
                let output = call.document()?["output"].to_string();
                // Of two revisions with one number the other one may answer until its host has heard.
                let is_rival = output != wanted && self.ledger.is_fresh(name, &output);
                ensure!(
                    output == wanted || is_rival,
                    "{name} answers {output}, and not {wanted}"
                );
                Ok((output == wanted).then_some(()))
            });
            answered.with_context(|| format!("{name} through super{place}: {last}"))?;
        }
        for name in touched
            .iter()
            .filter(|name| live.contains(name) || ended.contains(name))
        {
            let versions = caller.run(caller.home(), &["versions", name], b"")?;
            self.ledger
                .check_history(name, place, &versions)
                .with_context(|| name.clone())?;
        }
        Ok(())
    }

    /// What no host holds, no host can answer with.
    fn check_hosts(&self) -> Result<()> {
        let ended = self.ledger.ended_artifacts();
        for host in &self.federation.hosts {
            let mut more = Vec::new();
            let dropped = eventually("a host has dropped what has ended", || {
                let held = artifacts::held(&host.daemon.data())?;
                more = held
                    .into_iter()
                    .filter(|held| ended.contains(held.as_str()))
                    .collect();
                Ok(more.is_empty().then_some(()))
            });
            dropped.with_context(|| format!("{} holds {more:?}", host.daemon.name()))?;
        }
        Ok(())
    }
}

/// Does what one device has to do, one after the other.
fn work(device: usize, tasks: &[Task], began: Instant, give_up: Instant) -> Result<Vec<(usize, Ended)>> {
    let mut ended = Vec::new();
    let mine = tasks
        .iter()
        .enumerate()
        .filter(|(_, task)| task.act.device == device);
    for (place, task) in mine {
        std::thread::sleep(task.act.at.saturating_sub(began.elapsed()));
        let arguments: &[&str] = match task.act.deed {
            Deed::Deploy(_) => &["deploy", "--no-wait", "--resurrect"],
            Deed::Rollback => &["rollback", "--no-wait", &task.name],
            Deed::Decommission => &["decommission", "--yes", "--no-wait", &task.name],
        };
        let running = task.user.begin(&task.folder, arguments, b"")?;
        ended.push((place, running.wait_until(give_up)?));
    }
    Ok(ended)
}
