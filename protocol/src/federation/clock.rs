//! What a super node knows of everybody's changes: for each log, everything up to a number.
//!
//! A version vector (Parker et al. 1983). Each super node counts the revisions that it took in from
//! owners itself; others hear of them with that number. Two super nodes with equal clocks know the same
//! registry, and a clock says exactly what its owner lacks.

use std::collections::BTreeMap;

use crate::wire::federation::{CURSORS_MAX, Cursor, LogId};

/// See the module's text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clock {
    known: BTreeMap<LogId, u64>,
    sum: u64,
}

impl Clock {
    /// From what was stored or sent; beyond [`CURSORS_MAX`] logs it is cut.
    pub fn from_cursors(cursors: impl IntoIterator<Item = Cursor>) -> Self {
        let mut clock = Self::default();
        for cursor in cursors {
            clock.raise(cursor);
        }
        clock
    }

    /// To be stored or sent, in the order of log ids.
    pub fn cursors(&self) -> Vec<Cursor> {
        self.known
            .iter()
            .map(|(&log, &number)| Cursor { log, number })
            .collect()
    }

    /// How far a log is known; 0 if it is not.
    pub fn get(&self, log: &LogId) -> u64 {
        self.known.get(log).copied().unwrap_or_default()
    }

    /// Everything of a log up to a number is known now.
    pub fn raise(&mut self, cursor: Cursor) {
        let Cursor { log, number } = cursor;
        let old = self.get(&log);
        if number <= old || (old == 0 && self.known.len() >= CURSORS_MAX) {
            return;
        }
        self.known.insert(log, number);
        let before = if old == 0 { 0 } else { hash(&log, old) };
        self.sum = self.sum.wrapping_sub(before).wrapping_add(hash(&log, number));
    }

    /// Whether a change is the next of its log: nothing between it and what is known is missing.
    pub fn is_next(&self, at: Cursor) -> bool {
        at.number == self.get(&at.log) + 1
    }

    /// Whether a change is among what is known.
    pub fn covers(&self, at: Cursor) -> bool {
        at.number <= self.get(&at.log)
    }

    /// A sum that is the same for equal clocks, and almost surely another one for others (64 bits). Who wants to make two
    /// clocks with one sum can, and harms nobody but those who believe it.
    pub fn sum(&self) -> u64 {
        self.sum
    }
}

fn hash(log: &LogId, number: u64) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key("orb 2026-11 clock sum");
    hasher.update(log);
    hasher.update(&number.to_le_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(log: u8, number: u64) -> Cursor {
        Cursor {
            log: [log; 16],
            number,
        }
    }

    #[test]
    fn a_gap_is_seen() {
        let mut clock = Clock::from_cursors([at(1, 4)]);
        assert!(clock.is_next(at(1, 5)) && !clock.is_next(at(1, 6)) && !clock.is_next(at(2, 2)));
        assert!(clock.covers(at(1, 4)) && !clock.covers(at(1, 5)));
        clock.raise(at(1, 3));
        assert_eq!(clock.get(&[1; 16]), 4);
    }

    #[test]
    fn equal_clocks_have_equal_sums() {
        let one = Clock::from_cursors([at(1, 4), at(2, 1)]);
        let other = Clock::from_cursors([at(2, 1), at(1, 4)]);
        assert_eq!(one.sum(), other.sum());
        assert_ne!(one.sum(), Clock::from_cursors([at(1, 4)]).sum());
        // However they came to be what they are.
        let steps = Clock::from_cursors([at(1, 2), at(2, 1), at(1, 4), at(1, 3), at(3, 0)]);
        assert_eq!((&steps, steps.sum()), (&one, one.sum()));
    }
}
