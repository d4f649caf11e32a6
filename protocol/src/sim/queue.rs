//! What will happen, and when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::network::Micros;
use super::world::Event;

/// Events in the order of their times; those of one time in the order in which they were added. The heap has only
/// where each event is: events are large, and a heap moves what it has about.
#[derive(Debug, Default)]
pub(super) struct Queue {
    times: BinaryHeap<Reverse<(Micros, u64, usize)>>,
    events: Vec<Option<Event>>,
    free: Vec<usize>,
    added: u64,
}

impl Queue {
    pub(super) fn push(&mut self, at: Micros, event: Event) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[place] = Some(event);
        self.added += 1;
        self.times.push(Reverse((at, self.added, place)));
    }

    /// The next event, unless it is later than that.
    pub(super) fn pop_until(&mut self, end: Micros) -> Option<(Micros, Event)> {
        let Reverse((at, _, place)) = self.times.pop()?;
        let event = self.events[place].take()?;
        self.free.push(place);
        (at <= end).then_some((at, event))
    }

    pub(super) fn len(&self) -> usize {
        self.times.len()
    }
}
