//! What a super node publishes when: each function again before it expires, paced, in constant memory.
//!
//! It goes *round* all functions, a page of them at a time, over and over. What has just changed comes
//! before that. Both are paid from one budget, so that a super node with very many functions does not flood
//! the DHT: its rounds take longer instead, and what expires in the meantime is found again after its next
//! turn.

use std::collections::VecDeque;

use crate::id::FunctionId;

/// What is stored in one minute at most, items and announcements together: each costs some hundred packets
/// of a few hundred bytes, so this is about 30 KiB per second. It is enough for 720 functions at the
/// intervals below (one head and four announcements an hour).
pub const PUTS_PER_MINUTE: u64 = 60;
/// What may be stored at once after a time of rest: what one person deploys in a row.
pub const PUTS_BURST: u64 = 30;
/// From the beginning of one round to that of the next. BEP 5 names no time after which an announcement
/// expires: implementations take 25 minutes (Tixati) or 30 to 45 (libtorrent), and announce anew after 15.
pub const ROUND_MS: u64 = 15 * 60 * 1_000;
/// How often heads are published: BEP 44 lets nodes forget items after 2 hours, and recommends 1 hour.
pub const HEADS_MS: u64 = 60 * 60 * 1_000;
/// Functions of a page: about 1 KiB of memory each while they are looked at.
pub const PAGE_LEN: usize = 64;
/// Changed functions that wait for their turn. What comes beyond them waits for the next round.
pub const URGENT_MAX: usize = 1_024;
/// How often a function is tried again, in all, before it has to wait for the next round.
pub const TRIES_MAX: u8 = 4;
/// How long nothing is published after something could not be: the DHT may not be reachable.
pub const FAILED_PAUSE_MS: u64 = 5_000;

const PUT_MS: u64 = 60_000 / PUTS_PER_MINUTE;

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing before this time, unless something changes.
    Wait {
        /// Milliseconds, on the caller's clock.
        until_ms: u64,
    },
    /// Read which functions come after this one, at most [`PAGE_LEN`], and hand them to [`Schedule::on_page`].
    Read {
        /// The last one that was read in this round.
        after: Option<FunctionId>,
    },
    /// Publish a function, and tell how that went with [`Schedule::on_published`].
    Publish(Turn),
}

/// A function's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// The function.
    pub function: FunctionId,
    /// Whether its head is to be put. It is always announced.
    pub head: bool,
    tries: u8,
}

/// The state machine. Time is milliseconds since any fixed epoch.
#[derive(Debug, Clone)]
pub struct Schedule {
    urgent: VecDeque<Turn>,
    round: Option<Round>,
    next_round_ms: u64,
    heads_at_ms: Option<u64>,
    /// When everything that was stored so far will have been paid for, at one per [`PUT_MS`].
    paid_ms: u64,
    not_before_ms: u64,
}

#[derive(Debug, Clone)]
struct Round {
    heads: bool,
    after: Option<FunctionId>,
    page: VecDeque<FunctionId>,
    more: bool,
}

impl Schedule {
    /// A schedule that begins its first round at once.
    pub fn new(now_ms: u64) -> Self {
        Self {
            urgent: VecDeque::new(),
            round: None,
            next_round_ms: now_ms,
            heads_at_ms: None,
            paid_ms: now_ms.saturating_sub(PUTS_BURST * PUT_MS),
            not_before_ms: now_ms,
        }
    }

    /// A function has a new revision, or its tombstone. Returns false if so many wait already that it has
    /// to wait for the next round.
    pub fn on_changed(&mut self, function: FunctionId) -> bool {
        self.enqueue(Turn {
            function,
            head: true,
            tries: 0,
        })
    }

    /// What to do at this time.
    pub fn next(&mut self, now_ms: u64) -> Step {
        let is_due = now_ms >= self.next_round_ms;
        if self.round.is_none() && is_due {
            self.begin_round(now_ms);
        }
        if self.urgent.is_empty()
            && let Some(round) = &self.round
            && round.page.is_empty()
        {
            return Step::Read { after: round.after };
        }
        let Some(cost) = self.peek().map(Turn::cost) else {
            return Step::Wait {
                until_ms: self.next_round_ms,
            };
        };
        // What was not used in a time of rest counts up to the burst only.
        let paid_ms = self.paid_ms.max(now_ms.saturating_sub(PUTS_BURST * PUT_MS));
        let affordable_ms = paid_ms + cost * PUT_MS;
        let until_ms = affordable_ms.max(self.not_before_ms);
        if until_ms > now_ms {
            return Step::Wait { until_ms };
        }
        self.paid_ms = affordable_ms;
        self.take().map_or(
            Step::Wait {
                until_ms: self.next_round_ms,
            },
            Step::Publish,
        )
    }

    /// The functions that come next in this round, and whether there are more after them.
    pub fn on_page(&mut self, functions: Vec<FunctionId>, last: Option<FunctionId>) {
        if let Some(round) = &mut self.round {
            round.after = last.or(round.after);
            round.more = last.is_some();
            round.page = functions.into();
            round.page.truncate(PAGE_LEN);
        }
        self.end_round_if_done();
    }

    /// How a turn went. One that failed is tried again a few times; the DHT may not be reachable, so that
    /// everything else waits for a moment too.
    pub fn on_published(&mut self, now_ms: u64, turn: Turn, done: bool) {
        if done {
            return;
        }
        self.not_before_ms = now_ms + FAILED_PAUSE_MS;
        let tries = turn.tries + 1;
        if tries < TRIES_MAX {
            self.enqueue(Turn { tries, ..turn });
        }
    }

    fn begin_round(&mut self, now_ms: u64) {
        let heads = self.heads_at_ms.is_none_or(|at| now_ms >= at + HEADS_MS);
        if heads {
            self.heads_at_ms = Some(now_ms);
        }
        self.next_round_ms = now_ms + ROUND_MS;
        self.round = Some(Round {
            heads,
            after: None,
            page: VecDeque::new(),
            more: true,
        });
    }

    fn end_round_if_done(&mut self) {
        let done = |round: &Round| round.page.is_empty() && !round.more;
        if self.round.as_ref().is_some_and(done) {
            self.round = None;
        }
    }

    fn enqueue(&mut self, turn: Turn) -> bool {
        if let Some(waiting) = self
            .urgent
            .iter_mut()
            .find(|waiting| waiting.function == turn.function)
        {
            waiting.head |= turn.head;
            return true;
        }
        let room = self.urgent.len() < URGENT_MAX;
        if room {
            self.urgent.push_back(turn);
        }
        room
    }

    fn peek(&self) -> Option<Turn> {
        let of_round = |round: &Round| {
            let turn = |function: &FunctionId| Turn {
                function: *function,
                head: round.heads,
                tries: 0,
            };
            round.page.front().map(turn)
        };
        self.urgent
            .front()
            .copied()
            .or_else(|| self.round.as_ref().and_then(of_round))
    }

    fn take(&mut self) -> Option<Turn> {
        let turn = self.peek()?;
        if self.urgent.pop_front().is_none()
            && let Some(round) = &mut self.round
        {
            round.page.pop_front();
        }
        self.end_round_if_done();
        Some(turn)
    }
}

impl Turn {
    fn cost(self) -> u64 {
        1 + u64::from(self.head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(number: u64) -> FunctionId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        FunctionId::from_bytes(bytes)
    }

    /// A super node with so many functions, and what it did.
    struct Publisher {
        schedule: Schedule,
        functions: u64,
        now_ms: u64,
        /// When, whose, with its head or without.
        done: Vec<(u64, FunctionId, bool)>,
    }

    impl Publisher {
        fn with(functions: u64) -> Self {
            Self {
                schedule: Schedule::new(0),
                functions,
                now_ms: 0,
                done: Vec::new(),
            }
        }

        fn run_until(&mut self, end_ms: u64) {
            while self.now_ms < end_ms {
                match self.schedule.next(self.now_ms) {
                    Step::Wait { until_ms } => self.now_ms = until_ms.max(self.now_ms + 1).min(end_ms),
                    Step::Read { after } => self.read(after),
                    Step::Publish(turn) => {
                        self.done.push((self.now_ms, turn.function, turn.head));
                        self.schedule.on_published(self.now_ms, turn, true);
                    }
                }
            }
        }

        fn read(&mut self, after: Option<FunctionId>) {
            let all = (0..self.functions).map(function);
            let page: Vec<_> = all
                .filter(|function| after.is_none_or(|after| *function > after))
                .take(PAGE_LEN)
                .collect();
            let last = page.last().copied();
            self.schedule.on_page(page, last);
        }

        fn puts(&self, from_ms: u64, to_ms: u64) -> u64 {
            let within = self.done.iter().filter(|(at, ..)| (from_ms..to_ms).contains(at));
            within.map(|(.., head)| 1 + u64::from(*head)).sum()
        }
    }

    const MINUTE: u64 = 60_000;

    #[test]
    fn every_function_is_announced_each_round_and_its_head_put_each_hour() {
        let mut publisher = Publisher::with(500);
        publisher.run_until(121 * MINUTE);
        for number in 0..500 {
            let turns: Vec<_> = publisher
                .done
                .iter()
                .filter(|(_, of, _)| *of == function(number))
                .collect();
            let heads: Vec<_> = turns
                .iter()
                .filter(|(.., head)| *head)
                .map(|(at, ..)| *at)
                .collect();
            assert!(
                heads.windows(2).all(|two| two[1] - two[0] <= 2 * HEADS_MS),
                "{heads:?}"
            );
            let gap = turns.windows(2).map(|two| two[1].0 - two[0].0).max();
            assert!(gap <= Some(25 * MINUTE), "{number}: {gap:?}");
            assert!(turns.len() >= 8 && heads.len() >= 2, "{number}: {turns:?}");
        }
    }

    #[test]
    fn never_more_than_the_budget_and_everybody_has_a_turn() {
        let mut publisher = Publisher::with(5_000);
        publisher.run_until(600 * MINUTE);
        for minute in 0..600 {
            let puts = publisher.puts(minute * MINUTE, (minute + 1) * MINUTE);
            assert!(puts <= PUTS_PER_MINUTE + PUTS_BURST, "{puts} in minute {minute}");
        }
        let all = publisher.puts(0, 600 * MINUTE);
        assert!(
            all <= 600 * PUTS_PER_MINUTE + PUTS_BURST && all > 590 * PUTS_PER_MINUTE,
            "{all}"
        );
        let mut seen: Vec<_> = publisher.done.iter().map(|(_, of, _)| *of).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 5_000);
    }

    #[test]
    fn what_has_changed_comes_first() {
        let mut publisher = Publisher::with(1_000);
        publisher.run_until(5 * MINUTE);
        publisher.done.clear();
        assert!(publisher.schedule.on_changed(function(999)));
        publisher.run_until(6 * MINUTE);
        assert_eq!(publisher.done[0].1, function(999));
        assert!(publisher.done[0].2, "with its head");
    }

    #[test]
    fn changes_are_bounded_and_none_waits_twice() {
        let mut schedule = Schedule::new(0);
        for _ in 0..2 {
            for number in 0..URGENT_MAX as u64 {
                assert!(schedule.on_changed(function(number)));
            }
        }
        assert!(!schedule.on_changed(function(u64::MAX)));
        assert_eq!(schedule.urgent.len(), URGENT_MAX);
    }

    #[test]
    fn what_fails_is_tried_again_and_then_left_to_the_next_round() {
        let mut publisher = Publisher::with(0);
        publisher.run_until(1);
        publisher.schedule.on_changed(function(1));
        let (mut tries, mut last_ms) = (0, None);
        while publisher.now_ms < MINUTE {
            match publisher.schedule.next(publisher.now_ms) {
                Step::Publish(turn) => {
                    let paused = last_ms.is_none_or(|last| publisher.now_ms - last >= FAILED_PAUSE_MS);
                    assert!(paused, "{last_ms:?} {}", publisher.now_ms);
                    (tries, last_ms) = (tries + 1, Some(publisher.now_ms));
                    publisher.schedule.on_published(publisher.now_ms, turn, false);
                }
                Step::Wait { until_ms } => publisher.now_ms = until_ms,
                Step::Read { after } => publisher.read(after),
            }
        }
        assert_eq!(tries, TRIES_MAX);
    }
}
