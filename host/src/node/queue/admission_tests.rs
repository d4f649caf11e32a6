#![expect(clippy::unwrap_used, reason = "a test panics on surprise")]

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const RUN_MS: u64 = 10;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn bounds(capacity: u32, waiting_max: u32, wait_ms: u64) -> Bounds {
    Bounds {
        capacity,
        waiting_max,
        wait_max: ms(wait_ms),
    }
}

fn ask(function: u8, caller: u16) -> Ask {
    let mut node = [0; 32];
    node[..2].copy_from_slice(&caller.to_be_bytes());
    Ask {
        function: FunctionId::from_bytes([function; 32]),
        caller: Caller::Node(NodeId::from_bytes(node)),
        forecast: ms(RUN_MS),
        measured: true,
        remaining: ms(60_000),
    }
}

/// A host whose calls all take as long as they are forecast to.
struct Host {
    admission: Admission,
    now_ms: u64,
    who: HashMap<Ticket, (u8, u16)>,
    arrived_ms: HashMap<Ticket, u64>,
    ends: BTreeMap<(u64, Ticket), u64>,
    done: HashMap<(u8, u16), u64>,
    longest_wait_ms: u64,
    refused: u64,
}

impl Host {
    fn new(bounds: Bounds) -> Self {
        Self {
            admission: Admission::new(bounds),
            now_ms: 0,
            who: HashMap::new(),
            arrived_ms: HashMap::new(),
            ends: BTreeMap::new(),
            done: HashMap::new(),
            longest_wait_ms: 0,
            refused: 0,
        }
    }

    /// A call that takes so long; whether it was let in.
    fn call(&mut self, function: u8, caller: u16, run_ms: u64) -> bool {
        let asked = Ask {
            forecast: ms(run_ms),
            ..ask(function, caller)
        };
        let Some(entered) = self.admission.enter(&asked) else {
            self.refused += 1;
            return false;
        };
        if let Some(shed) = entered.shed {
            self.who.remove(&shed);
            self.refused += 1;
        }
        self.who.insert(entered.ticket, (function, caller));
        self.arrived_ms.insert(entered.ticket, self.now_ms);
        self.admission.ready(entered.ticket);
        self.start();
        true
    }

    fn start(&mut self) {
        while let Some(ticket) = self.admission.next() {
            let waited = self.now_ms - self.arrived_ms[&ticket];
            self.longest_wait_ms = self.longest_wait_ms.max(waited);
            let run_ms = self.admission.tickets[&ticket].forecast_us / 1_000;
            self.ends.insert((self.now_ms + run_ms, ticket), run_ms);
        }
    }

    /// Lets time pass.
    fn wait_ms(&mut self, ms_more: u64) {
        let until = self.now_ms + ms_more;
        while let Some((&(at, ticket), &ran)) = self.ends.first_key_value()
            && at <= until
        {
            self.now_ms = at;
            self.ends.remove(&(at, ticket));
            self.admission.leave(ticket, ms(ran));
            *self.done.entry(self.who[&ticket]).or_default() += ran;
            self.start();
        }
        self.now_ms = until;
    }

    /// Milliseconds of turns that a function or a caller got.
    fn got(&self, is_it: impl Fn(&(u8, u16)) -> bool) -> u64 {
        let of_it = self.done.iter().filter(|(who, _)| is_it(who));
        of_it.map(|(_, ms)| ms).sum()
    }
}

#[test]
fn at_three_times_the_capacity_every_turn_is_used_and_no_wait_exceeds_the_bound() {
    let mut host = Host::new(bounds(4, 1_000, 100));
    // 400 calls per second can run; 1,200 come.
    for call in 0..12_000_u16 {
        host.call(1, call % 50, RUN_MS);
        if call % 6 == 5 {
            host.wait_ms(5);
        }
    }
    let possible_ms = 4 * host.now_ms;
    assert!(host.got(|_| true) * 100 >= possible_ms * 99);
    // Callers that come later and have less waiting go before: never so many that it is twice the bound,
    // from where nobody waits on.
    assert!(host.longest_wait_ms <= 2 * 100, "{}", host.longest_wait_ms);
    assert!(host.refused >= 7_000, "{}", host.refused);
}

#[test]
fn a_noisy_caller_leaves_the_others_their_share() {
    let mut host = Host::new(bounds(4, 64, 100));
    for _ in 0..2_000 {
        for _ in 0..20 {
            host.call(1, 99, RUN_MS);
        }
        for caller in 0..3 {
            host.call(1, caller, RUN_MS);
        }
        host.wait_ms(5);
    }
    let all = host.got(|_| true);
    for caller in 0..3 {
        let got = host.got(|who| who.1 == caller);
        assert!(got * 100 >= all / 4 * 95, "{caller} got {got} of {all}");
    }
}

#[test]
fn many_names_for_one_caller_take_nothing_from_other_functions() {
    let mut host = Host::new(bounds(4, 64, 100));
    for round in 0..2_000_u16 {
        for _ in 0..20 {
            host.call(1, 1_000 + round % 5_000, RUN_MS);
        }
        host.call(2, 1, RUN_MS);
        host.call(2, 2, RUN_MS);
        host.wait_ms(5);
    }
    let all = host.got(|_| true);
    let other = host.got(|who| who.0 == 2);
    assert!(other * 100 >= all / 2 * 95, "{other} of {all}");
}

#[test]
fn shares_are_of_time_and_not_of_calls() {
    let mut host = Host::new(bounds(2, 200, 10_000));
    for _ in 0..400 {
        // One function's calls take fifty times as long as the other's.
        while host.call(1, 1, 500) {}
        while host.call(2, 2, 10) {}
        host.wait_ms(50);
    }
    let (long, short) = (host.got(|who| who.0 == 1), host.got(|who| who.0 == 2));
    assert!(short * 100 >= (long + short) / 2 * 80, "{short} and {long}");
}

#[test]
fn a_full_queue_has_a_place_for_whoever_has_less_in_it() {
    let mut admission = Admission::new(bounds(1, 4, 60_000));
    let greedy: Vec<Ticket> = (0..5)
        .map(|_| admission.enter(&ask(1, 1)).unwrap().ticket)
        .collect();
    assert_eq!(admission.enter(&ask(1, 1)), None, "it has most of it already");
    let newcomer = admission.enter(&ask(1, 2)).unwrap();
    assert_eq!(newcomer.shed, Some(greedy[4]), "the newest of whoever has most");
    let other = admission.enter(&ask(2, 1)).unwrap();
    assert_eq!(other.shed, Some(greedy[3]));
    assert_eq!((admission.running(), admission.waiting()), (0, 5));
    // Taking from the last of another one would only turn things round.
    let mut admission = Admission::new(bounds(1, 1, 60_000));
    admission.enter(&ask(1, 1)).unwrap();
    admission.enter(&ask(1, 2)).unwrap();
    assert_eq!(admission.enter(&ask(1, 3)), None);
    assert!(admission.enter(&ask(2, 3)).unwrap().shed.is_some());
}

#[test]
fn a_call_is_turned_away_where_its_wait_would_be_too_long() {
    let mut admission = Admission::new(bounds(1, 1_000, 100));
    let let_in = (0..100).filter(|_| admission.enter(&ask(1, 1)).is_some()).count();
    assert_eq!(let_in, 11, "ten to wait for, of 10 ms each");
    // A long call may wait as long as it takes; one in a hurry has to go elsewhere.
    let long = Ask {
        forecast: ms(500),
        ..ask(1, 1)
    };
    assert!(admission.enter(&long).is_some());
    let mut admission = Admission::new(bounds(1, 1_000, 100));
    for _ in 0..5 {
        admission.enter(&ask(1, 1)).unwrap();
    }
    let hurried = Ask {
        remaining: ms(20),
        ..ask(1, 1)
    };
    assert_eq!(admission.enter(&hurried), None);
    assert!(admission.enter(&ask(1, 1)).is_some());
}

#[test]
fn a_call_whose_input_does_not_come_holds_up_nobody() {
    let mut admission = Admission::new(bounds(1, 4, 1_000));
    let slow = admission.enter(&ask(1, 1)).unwrap().ticket;
    let quick = admission.enter(&ask(1, 2)).unwrap().ticket;
    assert_eq!(admission.next(), None);
    admission.ready(quick);
    assert_eq!(admission.next(), Some(quick));
    admission.ready(slow);
    assert_eq!(admission.next(), None);
    admission.leave(quick, ms(RUN_MS));
    assert_eq!(admission.next(), Some(slow));
}

#[test]
fn whoever_holds_an_unmeasured_function_leaves_a_turn_to_its_other_callers() {
    let unknown = |caller| Ask {
        measured: false,
        ..ask(1, caller)
    };
    let mut admission = Admission::new(bounds(4, 16, 100));
    let mut enter = |caller| {
        let ticket = admission.enter(&unknown(caller)).unwrap().ticket;
        admission.ready(ticket);
        (ticket, admission.next())
    };
    let (holding, turn) = enter(1);
    assert_eq!(turn, Some(holding));
    let (second, turn) = enter(1);
    assert_eq!(turn, Some(second));
    let (third, turn) = enter(1);
    assert_eq!(turn, None, "the last turn for all is not its own");
    let (other, turn) = enter(2);
    assert_eq!(turn, Some(other));
    admission.leave(holding, ms(RUN_MS));
    assert_eq!(admission.next(), Some(third));
}

#[test]
fn long_calls_leave_a_turn_to_short_ones() {
    let long = Ask {
        forecast: ms(60_000),
        ..ask(1, 1)
    };
    let unknown = Ask {
        measured: false,
        ..ask(1, 1)
    };
    for asked in [long, unknown] {
        let mut admission = Admission::new(bounds(3, 16, 100));
        let each = |caller| Ask {
            caller: ask(1, caller).caller,
            ..asked
        };
        let entered: Vec<Ticket> = (0..4)
            .map(|caller| admission.enter(&each(caller)).unwrap().ticket)
            .collect();
        for &ticket in &entered {
            admission.ready(ticket);
        }
        assert_eq!(
            (admission.next(), admission.next()),
            (Some(entered[0]), Some(entered[1]))
        );
        assert_eq!(admission.next(), None, "one turn is left");
        for _ in 0..3 {
            let short = admission.enter(&ask(2, 2)).unwrap().ticket;
            admission.ready(short);
            assert_eq!((admission.next(), admission.next()), (Some(short), None));
            admission.leave(short, ms(RUN_MS));
        }
        let newcomer = admission
            .enter(&Ask {
                measured: false,
                ..ask(3, 3)
            })
            .unwrap()
            .ticket;
        admission.ready(newcomer);
        assert_eq!(
            admission.next(),
            Some(newcomer),
            "nothing speaks against a first call"
        );
        admission.leave(newcomer, ms(RUN_MS));
        admission.leave(entered[0], ms(60_000));
        assert_eq!(admission.next(), Some(entered[2]));
    }
    // Where there is only one, it is for all.
    let mut admission = Admission::new(bounds(1, 4, 100));
    let only = admission.enter(&long).unwrap().ticket;
    admission.ready(only);
    assert_eq!(admission.next(), Some(only));
}

#[derive(Debug, Clone)]
enum Step {
    Enter(u8, u16, u64, bool),
    Ready(usize),
    Leave(usize, u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..3_u8, 0..4_u16, 0..600_u64, any::<bool>()).prop_map(|(f, c, run, known)| Step::Enter(f, c, run, known)),
        3 => any::<usize>().prop_map(Step::Ready),
        2 => (any::<usize>(), 0..500_u64).prop_map(|(who, ran)| Step::Leave(who, ran)),
    ]
}

proptest! {
    /// Whatever comes: bounds hold, no turn is left unused while somebody is ready, and the sums agree
    /// with what they are sums of.
    #[test]
    fn the_books_balance(steps in prop::collection::vec(step(), 0..300), capacity in 1..4_u32, waiting_max in 0..6_u32) {
        let mut admission = Admission::new(bounds(capacity, waiting_max, 300));
        let nth = |admission: &Admission, n: usize| {
            let len = admission.tickets.len();
            admission.tickets.keys().nth(n % len.max(1)).copied()
        };
        for step in steps {
            match step {
                Step::Enter(function, caller, run_ms, measured) => {
                    let asked = Ask { forecast: ms(run_ms), measured, ..ask(function, caller) };
                    admission.enter(&asked);
                }
                Step::Ready(n) => if let Some(ticket) = nth(&admission, n) { admission.ready(ticket) },
                Step::Leave(n, ran) => if let Some(ticket) = nth(&admission, n) { admission.leave(ticket, ms(ran)) },
            }
            while admission.next().is_some() {}
            check(&admission);
        }
        while let Some(ticket) = nth(&admission, 0) {
            admission.leave(ticket, Duration::ZERO);
        }
        prop_assert_eq!(admission.functions.len(), 0);
    }
}

#[track_caller]
fn check(admission: &Admission) {
    let runs = |held: &Held| held.stage == Stage::Running;
    let Bounds {
        capacity,
        waiting_max,
        ..
    } = admission.bounds;
    let could_run = |held: &Held| {
        let function = admission.functions.get(&held.function).unwrap();
        let line = function.callers.get(&held.caller).unwrap();
        held.stage == Stage::Ready
            && line.running < function.length.running_max(capacity)
            && (admission.has_turn_for_all() || function.may_take_last())
    };
    let sum = |of: &dyn Fn(&Held) -> bool| {
        let mut work = Work::default();
        admission
            .tickets
            .values()
            .filter(|held| of(held))
            .for_each(|held| work.add(held.forecast_us));
        work
    };
    assert!(admission.running() <= capacity);
    assert!(admission.tickets.len() <= (capacity + waiting_max) as usize);
    assert!(
        admission.running() == capacity || !admission.tickets.values().any(could_run),
        "an idle turn"
    );
    assert_eq!(admission.running, sum(&runs));
    assert_eq!(admission.running_long, sum(&|held| runs(held) && held.long));
    assert_eq!(admission.waiting_long, sum(&|held| !runs(held) && held.long));
    let running = admission.functions.busy().map(|(_, function)| function.running);
    assert_eq!(running.sum::<u32>(), admission.running());
    assert_eq!(admission.waiting, sum(&|held| !runs(held)));
    for (id, function) in admission.functions.busy() {
        let waits = |held: &Held| held.function == *id && !runs(held);
        assert_eq!(function.waiting, sum(&waits));
        for (caller, line) in function.callers.busy() {
            assert_eq!(line.waiting, sum(&|held| waits(held) && held.caller == *caller));
            assert_eq!(line.all.len() as u32, line.waiting.calls);
            let runs = |held: &Held| runs(held) && held.function == *id && held.caller == *caller;
            assert_eq!(line.running, sum(&runs).calls);
        }
    }
}
