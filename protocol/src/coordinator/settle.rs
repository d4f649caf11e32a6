//! Looking again at functions that are not as they should be.
//!
//! Orders to other super nodes and what they say of their hosts can be lost with a link, or be ignored while two
//! super nodes do not see the same federation. So what is wanted is compared with what is known until both agree:
//! nothing depends on a single message.

use std::ops::Bound;

use super::Coordinator;
use super::desired::Desired;
use crate::id::FunctionId;

/// Between two rounds over all functions that are unsettled, in milliseconds. Rare enough that orders have been
/// carried out when they are given again: an artifact takes seconds at most, as a rule.
const ROUND_MS: u64 = 5_000;
/// Functions that are looked at in one tick: a few microseconds each.
const LOOKS_MAX: usize = 5_000;

/// Where a round stands.
#[derive(Debug, Default)]
pub(super) struct Settling {
    next_round_ms: u64,
    /// The last function that was looked at, if the round is not over.
    after: Option<FunctionId>,
}

impl Coordinator {
    /// Time passed.
    pub(super) fn settle(&mut self, now_ms: u64) {
        if self.settling.after.is_none() && now_ms < self.settling.next_round_ms {
            return;
        }
        let from = self.settling.after.map_or(Bound::Unbounded, Bound::Excluded);
        let some: Vec<FunctionId> = self
            .unsettled
            .range((from, Bound::Unbounded))
            .take(LOOKS_MAX)
            .copied()
            .collect();
        self.settling.after = some.last().copied().filter(|_| some.len() == LOOKS_MAX);
        if self.settling.after.is_none() {
            self.settling.next_round_ms = now_ms + ROUND_MS;
        }
        for function in some {
            self.look_again(function);
        }
    }

    fn look_again(&mut self, function: FunctionId) {
        if self.is_settled(&function) {
            self.unsettled.remove(&function);
            return;
        }
        let live = self.functions.get(&function).map(|desired| desired.version());
        for (node, record) in self.replicas.get_mut(&function).into_iter().flatten() {
            if self.hosts.get(node).is_some_and(|host| !host.is_here()) {
                record.releasing = false;
                // It may have said so before the version was known here.
                if !record.ready || Some(record.version) < live {
                    record.told = None;
                }
            }
        }
        self.place(function);
        self.release_surplus(function);
    }

    /// Whether everybody who shall hold a function does, and nobody else.
    pub(super) fn is_settled(&self, function: &FunctionId) -> bool {
        // Others place it, or it is over: then there is nothing to be done here.
        let Some(desired) = self
            .functions
            .get(function)
            .filter(|d| d.is_first() && d.wish.is_some())
        else {
            return true;
        };
        let Some(records) = self.replicas.get(function) else {
            return desired.assigned.is_empty();
        };
        let is_done = |node| {
            records
                .get(node)
                .is_some_and(|r| r.ready && r.version >= desired.version())
        };
        let surplus = records
            .iter()
            .any(|(node, record)| record.is_surplus(node, desired));
        desired.assigned.iter().all(is_done) && !surplus && !self.is_short(desired)
    }

    /// Whether a function has fewer hosts than its owner wants, though there would be more.
    fn is_short(&self, desired: &Desired) -> bool {
        let wanted = desired.wish.as_ref().map_or(0, |wish| wish.terms.replicas);
        desired.assigned.len() < wanted.min(self.hosts.len())
    }
}
