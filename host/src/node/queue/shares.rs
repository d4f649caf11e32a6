//! Who is next among those that share something. Pure.
//!
//! Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996), in the form for servers that do
//! several things at a time (SFQ(D): Jin, Chase and Kaur, SIGMETRICS 2004). A member's tag is what it
//! has used so far, in microseconds of a turn; the member with the smallest is next. What a turn takes
//! is known only when it ends, so that a forecast is charged first and corrected then.
//!
//! | member | on | becomes |
//! | --- | --- | --- |
//! | absent, or idle | it joins | busy; what it saved up while it was away does not count |
//! | busy | its last ticket leaves | idle, if it has used more than others; else forgotten |
//! | idle | nobody is busy any more, or too many are idle | forgotten |

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::Hash;

/// What a ticket is called; later ones have greater numbers.
pub(super) type Ticket = u64;

/// Members that are idle and have used more than others: a caller that comes back between its turns
/// is no newcomer. Beyond it the one that owes least is forgotten. Names are free to make, so this only
/// keeps honest ones honest (a guess; a member has about 200 bytes).
const IDLE_MAX: usize = 64;

/// Those who share, and what each of them brought.
#[derive(Debug)]
pub(super) struct Shares<K, T> {
    members: HashMap<K, Member<T>>,
    /// The tag of the last turn's beginning: newcomers begin here.
    clock: u64,
    busy: usize,
}

#[derive(Debug)]
struct Member<T> {
    tag: u64,
    /// Its tickets, waiting or running.
    tickets: usize,
    brought: T,
}

impl<K, T> Default for Shares<K, T> {
    fn default() -> Self {
        Self {
            members: HashMap::new(),
            clock: 0,
            busy: 0,
        }
    }
}

impl<K: Eq + Hash + Clone, T: Default> Shares<K, T> {
    /// One more ticket of a member.
    pub(super) fn join(&mut self, key: K) -> &mut T {
        let member = self.members.entry(key).or_insert_with(|| Member {
            tag: 0,
            tickets: 0,
            brought: T::default(),
        });
        if member.tickets == 0 {
            member.tag = member.tag.max(self.clock);
            self.busy += 1;
        }
        member.tickets += 1;
        &mut member.brought
    }

    /// What a member brought.
    pub(super) fn get(&self, key: &K) -> Option<&T> {
        self.members.get(key).map(|member| &member.brought)
    }

    /// What a member brought.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut T> {
        self.members.get_mut(key).map(|member| &mut member.brought)
    }

    /// All that have tickets.
    pub(super) fn busy(&self) -> impl Iterator<Item = (&K, &T)> {
        let busy = self.members.iter().filter(|(_, member)| member.tickets > 0);
        busy.map(|(key, member)| (key, &member.brought))
    }

    /// Whose turn it is, among those for whom `first` names a ticket; of equals the one whose ticket is
    /// older.
    pub(super) fn next(&self, first: impl Fn(&T) -> Option<Ticket>) -> Option<&K> {
        let ready = self.members.iter().filter_map(|(key, member)| {
            let ticket = first(&member.brought)?;
            Some(((member.tag, ticket), key))
        });
        ready.min_by_key(|(order, _)| *order).map(|(_, key)| key)
    }

    /// A member's turn begins, and is forecast to take so long.
    pub(super) fn charge(&mut self, key: &K, forecast_us: u64) {
        if let Some(member) = self.members.get_mut(key) {
            self.clock = self.clock.max(member.tag);
            member.tag = member.tag.saturating_add(forecast_us);
        }
    }

    /// A ticket of a member leaves: so much was charged for it, and so much it used.
    pub(super) fn leave(&mut self, key: &K, charged_us: u64, used_us: u64) {
        let Some(member) = self.members.get_mut(key) else {
            return;
        };
        member.tag = member.tag.saturating_sub(charged_us).saturating_add(used_us);
        member.tickets = member.tickets.saturating_sub(1);
        if member.tickets > 0 {
            return;
        }
        self.busy = self.busy.saturating_sub(1);
        if self.busy == 0 {
            // Nobody has waited for what anybody used.
            self.members.clear();
            self.clock = 0;
        } else if member.tag <= self.clock {
            self.members.remove(key);
        } else {
            self.forget_surplus();
        }
    }

    fn forget_surplus(&mut self) {
        if self.members.len() - self.busy <= IDLE_MAX {
            return;
        }
        let idle = self.members.iter().filter(|(_, member)| member.tickets == 0);
        let least = idle.max_by_key(|(_, member)| Reverse(member.tag));
        if let Some(key) = least.map(|(key, _)| key.clone()) {
            self.members.remove(&key);
        }
    }

    /// Members that are kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Members whose tickets are all as old.
    type Equal = Shares<u32, ()>;

    /// Lets members take turns; gives how often each had one.
    fn turns(shares: &mut Equal, count: usize, cost_us: impl Fn(u32) -> u64) -> HashMap<u32, u64> {
        let mut turns = HashMap::new();
        for _ in 0..count {
            let key = shares.next(|()| Some(0)).copied();
            let key = key.unwrap_or_else(|| panic!("somebody is ready"));
            *turns.entry(key).or_default() += 1;
            // The forecast is far off, and made good.
            shares.join(key);
            shares.charge(&key, 1);
            shares.leave(&key, 1, cost_us(key));
        }
        turns
    }

    #[test]
    fn all_get_the_same_time_though_their_turns_differ() {
        let mut shares = Equal::default();
        for key in [1, 2, 3] {
            shares.join(key);
        }
        let turns = turns(&mut shares, 1_300, |key| u64::from(key == 1) * 90 + 10);
        assert!(turns[&1].abs_diff(62) <= 2, "{turns:?}");
        assert!(turns[&2].abs_diff(turns[&3]) <= 1, "{turns:?}");
    }

    #[test]
    fn who_was_away_gets_no_more_than_the_others() {
        let mut shares = Equal::default();
        shares.join(1);
        turns(&mut shares, 1_000, |_| 10);
        shares.join(2);
        let turns = turns(&mut shares, 100, |_| 10);
        assert!(turns[&1].abs_diff(turns[&2]) <= 2, "{turns:?}");
    }

    #[test]
    fn who_comes_back_after_a_long_turn_is_no_newcomer() {
        let mut shares = Equal::default();
        shares.join(1);
        shares.join(2);
        shares.charge(&2, 10);
        shares.leave(&2, 10, 1_000);
        shares.join(2);
        let turns = turns(&mut shares, 100, |_| 10);
        assert_eq!((turns[&1], turns.get(&2)), (100, None));
    }

    #[test]
    fn names_cannot_be_heaped_up() {
        let mut shares = Equal::default();
        shares.join(0);
        for key in 1..10_000 {
            shares.join(key);
            shares.charge(&key, 1);
            shares.leave(&key, 1, u64::from(key));
        }
        assert!(shares.len() <= IDLE_MAX + 1, "{}", shares.len());
        shares.leave(&0, 0, 0);
        assert_eq!(shares.len(), 0);
    }
}
