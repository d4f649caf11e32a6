//! More calls than a host can run: it goes on at its peak, and nobody takes what others have a right
//! to. Everything is counted in calls, in one run: guests sleep, so that a host's capacity is known and
//! does not depend on the machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use orb_protocol::client::{CallOptions, Client};
use orb_protocol::fault::FaultKind;
use orb_protocol::id::FunctionId;
use orb_tests::{Network, Orb, Project, guest};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Calls that the host runs at a time, and how long each takes.
const CAPACITY: u64 = 4;
const RUN_MS: u64 = 100;
/// A call so often is three times what the host can do.
const THREE_TIMES: Duration = Duration::from_micros(RUN_MS * 1_000 / CAPACITY / 3);
/// How long a call may be expected to wait, and how many calls that makes.
const WAIT_MS: u64 = 300;
const WAITING: u64 = WAIT_MS / RUN_MS * CAPACITY;
/// How long each part of a run is measured: some hundred calls at most.
const PART: Duration = Duration::from_secs(3);
/// After being turned away: short against a turn, so that a caller always wants one.
const PAUSE: Duration = Duration::from_millis(10);

#[test]
fn at_three_times_its_capacity_a_host_answers_as_many_as_at_its_peak() {
    let town = Town::start(&["sleep"]);
    town.runtime.block_on(async {
        let (regular, many) = (town.caller("sleep").await, town.caller("sleep").await);
        let (mut peak, mut overload) = (0, 0);
        // In turns, so that what else the machine does meets both.
        for _ in 0..2 {
            peak += regular.keep_busy(2 * CAPACITY).await;
            overload += many.call_at(THREE_TIMES).await;
        }
        let tally = &many.tally;
        let offered = tally.offered.load(Ordering::Relaxed);
        assert!(
            offered >= 2 * overload,
            "{offered} calls are not more than {overload} can be"
        );
        assert!(
            overload * 10 >= peak * 9,
            "{overload} answers, and {peak} at the peak"
        );
        // While a call was on its way, no more others ended than may wait and run together.
        let overtaken = tally.overtaken_max.load(Ordering::Relaxed);
        assert!(
            overtaken <= 2 * (WAITING + CAPACITY),
            "{overtaken} calls ended before one that was let in"
        );
        assert_eq!(
            tally.other_faults.load(Ordering::Relaxed),
            0,
            "all others were turned away"
        );
    });
}

#[test]
fn a_noisy_caller_leaves_the_others_their_share() {
    let town = Town::start(&["sleep"]);
    town.runtime.block_on(async {
        let noisy = town.caller("sleep").await;
        let quiet = [
            town.caller("sleep").await,
            town.caller("sleep").await,
            town.caller("sleep").await,
        ];
        let (loud, a, b, c) = tokio::join!(
            noisy.keep_busy(40),
            quiet[0].keep_busy(2),
            quiet[1].keep_busy(2),
            quiet[2].keep_busy(2),
        );
        let share = (loud + a + b + c) / 4;
        for got in [a, b, c] {
            assert!(
                got * 10 >= share * 8,
                "of {share} each the others got {a}, {b} and {c}, it {loud}"
            );
        }
    });
}

#[test]
fn a_caller_with_many_names_takes_nothing_from_another_function() {
    let town = Town::start(&["loud", "quiet"]);
    town.runtime.block_on(async {
        let mut names = Vec::new();
        for _ in 0..8 {
            names.push(town.caller("loud").await);
        }
        let quiet = town.caller("quiet").await;
        let mut crowd = JoinSet::new();
        for name in names {
            crowd.spawn(async move { name.keep_busy(6).await });
        }
        let got = quiet.keep_busy(CAPACITY).await;
        let loud: u64 = crowd.join_all().await.into_iter().sum();
        let share = (got + loud) / 2;
        assert!(
            got * 10 >= share * 8,
            "of {share} it got {got}, the others {loud}"
        );
    });
}

/// A host of known capacity, and functions that sleep on it.
struct Town {
    network: Network,
    orb: Orb,
    runtime: Runtime,
}

impl Town {
    fn start(functions: &[&str]) -> Self {
        let (capacity, wait) = (CAPACITY.to_string(), WAIT_MS.to_string());
        let arguments = ["--capacity", &capacity, "--queue-wait-ms-max", &wait];
        let network = Network::start_with(1, &[], &arguments);
        let orb = network.user();
        for function in functions {
            Project::wasm(function, &guest::sleep_then_say(RUN_MS, "done")).deploy(&orb);
            // From now on the host knows how long it takes.
            for _ in 0..3 {
                orb.run(["call", function, "null"]).ok();
            }
        }
        Self {
            network,
            orb,
            runtime: Runtime::new().unwrap(),
        }
    }

    /// Somebody new, who calls one function.
    async fn caller(&self, function: &str) -> Caller {
        let address = self.network.address.parse().unwrap();
        let client = Client::builder()
            .super_nodes(vec![address])
            .connect()
            .await
            .unwrap();
        let owner = self.orb.owner().parse().unwrap();
        Caller {
            client,
            function: FunctionId::derive(&owner, &function.parse().unwrap()),
            tally: Arc::default(),
        }
    }
}

#[derive(Clone)]
struct Caller {
    client: Client,
    function: FunctionId,
    tally: Arc<Tally>,
}

#[derive(Default)]
struct Tally {
    offered: AtomicU64,
    answered: AtomicU64,
    other_faults: AtomicU64,
    /// How many other calls were answered while one that was answered was on its way, at most.
    overtaken_max: AtomicU64,
}

impl Caller {
    /// Has always so many calls on their way; gives how many were answered.
    async fn keep_busy(&self, calls: u64) -> u64 {
        let before = self.tally.answered.load(Ordering::Relaxed);
        let mut workers = JoinSet::new();
        for _ in 0..calls {
            let caller = self.clone();
            workers.spawn(async move {
                loop {
                    if !caller.call().await {
                        sleep(PAUSE).await;
                    }
                }
            });
        }
        self.part(before, workers).await
    }

    /// Makes a call so often, whatever becomes of those before it; gives how many were answered.
    async fn call_at(&self, interval: Duration) -> u64 {
        let before = self.tally.answered.load(Ordering::Relaxed);
        let caller = self.clone();
        let mut calls = JoinSet::new();
        let begun = Instant::now();
        let mut ticks = tokio::time::interval(interval);
        while begun.elapsed() < PART {
            ticks.tick().await;
            let caller = caller.clone();
            calls.spawn(async move { caller.call().await });
        }
        self.tally.answered.load(Ordering::Relaxed) - before
    }

    /// What was answered until a part of the run is over.
    async fn part<T: 'static>(&self, before: u64, mut workers: JoinSet<T>) -> u64 {
        // They do not end by themselves.
        let _ = timeout(PART, workers.join_next()).await;
        let answered = self.tally.answered.load(Ordering::Relaxed) - before;
        workers.shutdown().await;
        answered
    }

    /// Whether the call was answered.
    async fn call(&self) -> bool {
        let options = CallOptions {
            overload_retries: 0,
            ..CallOptions::default()
        };
        let tally = &self.tally;
        let before = tally.answered.load(Ordering::Relaxed);
        tally.offered.fetch_add(1, Ordering::Relaxed);
        match self.client.call(self.function, Bytes::new(), options).await {
            Ok(answer) => {
                assert_eq!(answer.output, "done");
                let overtaken = tally.answered.fetch_add(1, Ordering::Relaxed) - before;
                tally.overtaken_max.fetch_max(overtaken, Ordering::Relaxed);
                true
            }
            Err(error) => {
                let away = error.kind() == FaultKind::Overloaded && error.fault.retry_after_ms.is_some();
                if !away {
                    tally.other_faults.fetch_add(1, Ordering::Relaxed);
                }
                false
            }
        }
    }
}
