//! Who is let in, who is turned away, and whose turn it is. Pure: time comes in as durations.
//!
//! A call is let in while there is a place and the wait that is to be expected stays below its bound.
//! Otherwise whoever has most waiting gives up the newest of it, if that is more than the newcomer has
//! ("longest queue drop", as in FQ-CoDel, RFC 8290, section 4.1): somebody who fills the queue keeps nobody
//! else out. Expecting, instead of letting calls wait and dropping them as CoDel does, suits a
//! network where another host may be free: a caller learns it at once.
//!
//! Turns go round fairly at two levels, by time and not by number ([`super::shares`]): among functions, and
//! among the callers of one. Node ids are free to make, so that somebody with many has many shares, but
//! only of the one function's; a key that its owner vouches for counts as one, however many nodes show it.
//!
//! A turn that has begun is not cut short. So calls that take longer than others are to wait leave one
//! turn to the rest: however many of them come, short calls go on. Those of a function that was not
//! measured yet do so too, but for the first of them; and of the turns that are left to them one caller
//! leaves one to the others: they would learn nothing of a function that they cannot call.
//!
//! | ticket | on | becomes |
//! | --- | --- | --- |
//! | none | let in | coming |
//! | coming | its input is there | ready |
//! | coming, ready | a newcomer needs its place, or its caller gives up | gone |
//! | ready | its turn | running |
//! | running | its guest ended | gone |

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use orb_protocol::id::{FunctionId, NodeId, OwnerId};

use super::shares::{Shares, Ticket};

/// Whom a call is counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Caller {
    /// The node that makes it.
    Node(NodeId),
    /// The owner on whose behalf it is made, proven.
    Owner(OwnerId),
}

/// What a call asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    /// Which function.
    pub(crate) function: FunctionId,
    /// For whom.
    pub(crate) caller: Caller,
    /// How long its turn will take, by what is known of the function, or else of all.
    pub(crate) forecast: Duration,
    /// Whether that is known of the function itself.
    pub(crate) measured: bool,
    /// The caller's deadline: waiting beyond it helps nobody.
    pub(crate) remaining: Duration,
}

/// What the operator allows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Calls that run at a time, at least 1.
    pub(crate) capacity: u32,
    /// Calls that wait.
    pub(crate) waiting_max: u32,
    /// The longest wait that is to be expected of a call.
    pub(crate) wait_max: Duration,
}

/// A call that was let in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entered {
    /// What it is called from now on.
    pub(super) ticket: Ticket,
    /// Who has to go for it.
    pub(super) shed: Option<Ticket>,
}

/// All calls that run or wait.
#[derive(Debug)]
pub(super) struct Admission {
    bounds: Bounds,
    tickets: BTreeMap<Ticket, Held>,
    functions: Shares<FunctionId, Function>,
    running: Work,
    waiting: Work,
    /// Of each, the calls that are not short.
    running_long: Work,
    waiting_long: Work,
    last: Ticket,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    function: FunctionId,
    caller: Caller,
    forecast_us: u64,
    long: bool,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Coming,
    Ready,
    Running,
}

/// How long a function's calls take, by what was known last, against what others are to wait.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Length {
    #[default]
    Unknown,
    Short,
    Long,
}

impl Length {
    /// Whether one more call may have the turn that is left to short ones, if so many of them run.
    fn may_take_last(self, running: u32) -> bool {
        match self {
            Self::Short => true,
            Self::Unknown => running == 0,
            Self::Long => false,
        }
    }

    /// How many calls of one function one caller may have running.
    fn running_max(self, capacity: u32) -> u32 {
        match self {
            Self::Unknown => capacity.saturating_sub(2).max(1),
            Self::Short | Self::Long => u32::MAX,
        }
    }
}

#[derive(Debug, Default)]
struct Function {
    length: Length,
    running: u32,
    waiting: Work,
    ready: BTreeSet<Ticket>,
    callers: Shares<Caller, Line>,
}

/// What one caller has.
#[derive(Debug, Default)]
struct Line {
    running: u32,
    waiting: Work,
    all: BTreeSet<Ticket>,
    ready: BTreeSet<Ticket>,
}

/// So many calls, that will take so long.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Work {
    calls: u32,
    us: u64,
}

impl Work {
    fn add(&mut self, us: u64) {
        self.calls += 1;
        self.us += us;
    }

    fn take(&mut self, us: u64) {
        self.calls -= 1;
        self.us -= us;
    }

    fn without(self, part: Self) -> Self {
        Self {
            calls: self.calls - part.calls,
            us: self.us - part.us,
        }
    }
}

impl Admission {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            tickets: BTreeMap::new(),
            functions: Shares::default(),
            running: Work::default(),
            waiting: Work::default(),
            running_long: Work::default(),
            waiting_long: Work::default(),
            last: 0,
        }
    }

    /// Calls that run.
    pub(super) fn running(&self) -> u32 {
        self.running.calls
    }

    /// Calls that were let in and do not run yet.
    pub(super) fn waiting(&self) -> u32 {
        self.waiting.calls
    }

    /// How long a call has to wait behind all that are here, by what is known of them.
    pub(super) fn expected_wait(&self) -> Duration {
        wait(self.bounds.capacity, self.running, self.waiting)
    }

    /// The same for a call that may have the turn that is left to short ones.
    fn expected_wait_of_short(&self) -> Duration {
        let turns = self.bounds.capacity.saturating_sub(self.running_long.calls);
        if turns == 0 || self.has_turn_for_all() {
            return self.expected_wait();
        }
        let running = self.running.without(self.running_long);
        wait(turns, running, self.waiting.without(self.waiting_long))
    }

    /// The longest wait that is accepted for a call. For a short one it is what the operator says. A
    /// long one may wait for as long as it takes, so that waiting at most doubles its time.
    pub(super) fn patience(&self, ask: &Ask) -> Duration {
        self.bounds.wait_max.max(ask.forecast)
    }

    /// A call arrives. `None`: it is turned away.
    pub(super) fn enter(&mut self, ask: &Ask) -> Option<Entered> {
        let forecast_us = micros(ask.forecast);
        let shed = if self.has_room(ask) {
            None
        } else {
            Some(self.surplus(ask, forecast_us)?)
        };
        if let Some(ticket) = shed {
            self.leave(ticket, Duration::ZERO);
        }
        Some(Entered {
            ticket: self.insert(ask, forecast_us),
            shed,
        })
    }

    fn has_room(&self, ask: &Ask) -> bool {
        let places = self.bounds.capacity.saturating_add(self.bounds.waiting_max);
        let running = self
            .functions
            .get(&ask.function)
            .map_or(0, |function| function.running);
        let wait = if self.length(ask).may_take_last(running) {
            self.expected_wait_of_short()
        } else {
            self.expected_wait()
        };
        self.tickets.len() < places as usize && wait <= self.patience(ask).min(ask.remaining)
    }

    fn length(&self, ask: &Ask) -> Length {
        match ask.measured {
            false => Length::Unknown,
            true if ask.forecast > self.bounds.wait_max => Length::Long,
            true => Length::Short,
        }
    }

    fn insert(&mut self, ask: &Ask, forecast_us: u64) -> Ticket {
        self.last += 1;
        let ticket = self.last;
        let length = self.length(ask);
        let held = Held {
            function: ask.function,
            caller: ask.caller,
            forecast_us,
            long: length != Length::Short,
            stage: Stage::Coming,
        };
        self.tickets.insert(ticket, held);
        self.waiting.add(forecast_us);
        if held.long {
            self.waiting_long.add(forecast_us);
        }
        let function = self.functions.join(ask.function);
        function.length = length;
        function.waiting.add(forecast_us);
        let line = function.callers.join(ask.caller);
        line.waiting.add(forecast_us);
        line.all.insert(ticket);
        ticket
    }

    /// A ticket that somebody who has more waiting than the newcomer can do without.
    fn surplus(&self, ask: &Ask, forecast_us: u64) -> Option<Ticket> {
        let (id, longest) = most(self.functions.busy(), |function| function.waiting.us)?;
        if *id == ask.function {
            return longest.surplus(&ask.caller, forecast_us);
        }
        let own = self.functions.get(&ask.function);
        let own_us = own.map_or(0, |function| function.waiting.us);
        let (_, line) = most(longest.callers.busy(), |line| line.waiting.us)?;
        let newest = *line.all.last()?;
        let newest_us = self.tickets.get(&newest)?.forecast_us;
        let is_surplus = longest.waiting.us - newest_us >= own_us + forecast_us;
        is_surplus.then_some(newest)
    }

    /// The input of a call is there.
    pub(super) fn ready(&mut self, ticket: Ticket) {
        let Some(held) = self.tickets.get_mut(&ticket) else {
            return;
        };
        if held.stage != Stage::Coming {
            return;
        }
        held.stage = Stage::Ready;
        let held = *held;
        if let Some(function) = self.functions.get_mut(&held.function) {
            function.ready.insert(ticket);
            if let Some(line) = function.callers.get_mut(&held.caller) {
                line.ready.insert(ticket);
            }
        }
    }

    /// The next call whose turn it is now, if there is one. Ask until there is none.
    pub(super) fn next(&mut self) -> Option<Ticket> {
        if self.running.calls >= self.bounds.capacity {
            return None;
        }
        let all_may = self.has_turn_for_all();
        let capacity = self.bounds.capacity;
        let id = *self.functions.next(|function| {
            let first = function.first(capacity);
            first.filter(|_| all_may || function.may_take_last())
        })?;
        let function = self.functions.get_mut(&id)?;
        let running_max = function.length.running_max(capacity);
        let caller = *function.callers.next(|line| line.first(running_max))?;
        let line = function.callers.get_mut(&caller)?;
        let ticket = *line.ready.first()?;
        line.running += 1;
        let held = self.tickets.get_mut(&ticket)?;
        held.stage = Stage::Running;
        let Held {
            forecast_us, long, ..
        } = *held;
        function.running += 1;
        function.stop_waiting(&caller, ticket, forecast_us);
        function.callers.charge(&caller, forecast_us);
        self.functions.charge(&id, forecast_us);
        self.waiting.take(forecast_us);
        self.running.add(forecast_us);
        if long {
            self.waiting_long.take(forecast_us);
            self.running_long.add(forecast_us);
        }
        Some(ticket)
    }

    /// Whether one that is not short may have a turn: the last one is left to others.
    fn has_turn_for_all(&self) -> bool {
        self.running_long.calls < self.bounds.capacity.saturating_sub(1).max(1)
    }

    /// A call is gone, however far it was; it ran for so long.
    pub(super) fn leave(&mut self, ticket: Ticket, ran: Duration) {
        let Some(held) = self.tickets.remove(&ticket) else {
            return;
        };
        let Held {
            caller,
            forecast_us,
            long,
            ..
        } = held;
        let Some(function) = self.functions.get_mut(&held.function) else {
            return;
        };
        let (charged_us, used_us) = if held.stage == Stage::Running {
            self.running.take(forecast_us);
            if long {
                self.running_long.take(forecast_us);
            }
            function.running -= 1;
            if let Some(line) = function.callers.get_mut(&caller) {
                line.running -= 1;
            }
            (forecast_us, micros(ran))
        } else {
            self.waiting.take(forecast_us);
            if long {
                self.waiting_long.take(forecast_us);
            }
            function.stop_waiting(&caller, ticket, forecast_us);
            (0, 0)
        };
        function.callers.leave(&caller, charged_us, used_us);
        self.functions.leave(&held.function, charged_us, used_us);
    }
}

impl Line {
    /// The oldest call, if one more may run.
    fn first(&self, running_max: u32) -> Option<Ticket> {
        let oldest = self.ready.first().copied();
        oldest.filter(|_| self.running < running_max)
    }
}

impl Function {
    fn may_take_last(&self) -> bool {
        self.length.may_take_last(self.running)
    }

    /// The oldest call that may run.
    fn first(&self, capacity: u32) -> Option<Ticket> {
        let running_max = self.length.running_max(capacity);
        if running_max == u32::MAX {
            return self.ready.first().copied();
        }
        let lines = self.callers.busy();
        lines.filter_map(|(_, line)| line.first(running_max)).min()
    }

    fn surplus(&self, newcomer: &Caller, forecast_us: u64) -> Option<Ticket> {
        let (_, line) = most(self.callers.busy(), |line| line.waiting.us)?;
        let own = self.callers.get(newcomer);
        let own_us = own.map_or(0, |line| line.waiting.us);
        // The function is the same, so that the newest takes as long as the newcomer, or nearly so.
        let is_surplus = line.waiting.us >= own_us + 2 * forecast_us;
        is_surplus.then(|| line.all.last().copied()).flatten()
    }

    fn stop_waiting(&mut self, caller: &Caller, ticket: Ticket, forecast_us: u64) {
        self.waiting.take(forecast_us);
        self.ready.remove(&ticket);
        if let Some(line) = self.callers.get_mut(caller) {
            line.waiting.take(forecast_us);
            line.all.remove(&ticket);
            line.ready.remove(&ticket);
        }
    }
}

/// How long a call waits for one of so many turns, behind calls that run and wait.
fn wait(turns: u32, running: Work, waiting: Work) -> Duration {
    if running.calls + waiting.calls < turns {
        return Duration::ZERO;
    }
    // Those that run are half done, on average.
    Duration::from_micros((waiting.us + running.us / 2) / u64::from(turns.max(1)))
}

fn most<K, T>(all: impl Iterator<Item = (K, T)>, measure: impl Fn(&T) -> u64) -> Option<(K, T)> {
    all.max_by_key(|(_, one)| measure(one))
}

/// At least 1: a turn that costs nothing would come again and again. At most an hour, so that sums do
/// not overflow.
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros())
        .unwrap_or(u64::MAX)
        .clamp(1, 3_600_000_000)
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
