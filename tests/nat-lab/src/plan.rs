//! What happens in one round of the crash harness: drawn from the seed and the round's number alone, so
//! that it can be drawn again.

use std::time::Duration;

use crate::dice::Dice;

/// Which owner's each device is: two owners have two devices, which race.
pub(crate) const DEVICES: [usize; 5] = [0, 0, 1, 1, 2];
/// Functions of each owner.
pub(crate) const FUNCTIONS: usize = 3;
/// Super nodes, each with so many hosts.
pub(crate) const HOSTS: [usize; 3] = [2; 3];
/// Daemons that may be killed.
const DAEMONS: usize = HOSTS.len() + 6;
/// Machines: the daemons', and a desk beside each super node.
const MACHINES: usize = DAEMONS + HOSTS.len();
/// How long things happen in most rounds: less than it takes to notice a partition.
const SHORT_MS: u64 = 1_500;
/// And in every so many-th: longer than that, so that links break and others take over.
const LONG_MS: u64 = 11_000;
const LONG_EVERY: u64 = 8;
/// Bytes that make some artifacts long, so that they are on their way for a while.
const LONG_BYTES: usize = 2 << 20;
/// How soon after the beginning of a command somebody is killed on purpose: what a command takes.
const COMMAND_MS: u64 = 60;

/// See the module's text.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    /// When everything is over, since its beginning.
    pub(crate) length: Duration,
    /// In the order of time.
    pub(crate) acts: Vec<Act>,
    /// In the order of time.
    pub(crate) faults: Vec<Fault>,
}

/// What somebody does.
#[derive(Debug, Clone)]
pub(crate) struct Act {
    /// Since the round's beginning.
    pub(crate) at: Duration,
    /// One of [`DEVICES`].
    pub(crate) device: usize,
    /// One of the owner's [`FUNCTIONS`].
    pub(crate) function: usize,
    /// What.
    pub(crate) deed: Deed,
    /// Through which super node.
    pub(crate) super_node: usize,
}

/// See [`Act`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// Of an artifact that is longer by so many bytes; brings back what was ended.
    Deploy(usize),
    Rollback,
    Decommission,
}

/// What breaks, and when it is mended.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    /// Since the round's beginning.
    pub(crate) at: Duration,
    /// The same.
    pub(crate) until: Duration,
    /// What.
    pub(crate) what: What,
}

/// See [`Fault`]. Machines are numbered: super nodes, hosts, desks.
#[derive(Debug, Clone)]
pub(crate) enum What {
    /// A super node's or host's process gets SIGKILL.
    Kill(usize),
    /// Packets of the first to the second are dropped, and back if `both`.
    Cut {
        from: Vec<usize>,
        to: Vec<usize>,
        both: bool,
    },
}

impl Round {
    /// Draws it.
    pub(crate) fn draw(seed: u64, number: u64) -> Self {
        let mut dice = Dice::new(seed, number);
        let is_long = number % LONG_EVERY == LONG_EVERY - 1;
        let length_ms = if is_long { LONG_MS } else { SHORT_MS };
        let mut acts = Vec::new();
        for _ in 0..4 + dice.below(5) {
            let act = Act::draw(&mut dice, length_ms);
            // The other device of the owner does something to the same function at the same moment.
            if act.device < 4 && dice.chance(1, 3) {
                let mut rival = Act::draw(&mut dice, length_ms);
                (rival.at, rival.device, rival.function) = (act.at, act.device ^ 1, act.function);
                acts.push(rival);
            }
            acts.push(act);
        }
        acts.sort_by_key(|act| act.at);
        let mut faults = Vec::new();
        if is_long {
            let (at, until) = (Duration::ZERO, Duration::from_millis(length_ms));
            faults.push(Fault {
                at,
                until,
                what: What::draw_sides(&mut dice),
            });
        }
        for _ in 0..1 + dice.below(3) {
            faults.push(Fault::draw(&mut dice, length_ms, &acts));
        }
        faults.sort_by_key(|fault| fault.at);
        Self {
            length: Duration::from_millis(length_ms),
            acts,
            faults,
        }
    }
}

impl Act {
    fn draw(dice: &mut Dice, length_ms: u64) -> Self {
        let deed = match dice.below(10) {
            0..=1 => Deed::Decommission,
            2..=3 => Deed::Rollback,
            4 => Deed::Deploy(LONG_BYTES),
            _ => Deed::Deploy(0),
        };
        Self {
            at: Duration::from_millis(dice.below(length_ms)),
            device: dice.place(DEVICES.len()),
            function: dice.place(FUNCTIONS),
            deed,
            super_node: dice.place(HOSTS.len()),
        }
    }
}

impl Fault {
    fn draw(dice: &mut Dice, length_ms: u64, acts: &[Act]) -> Self {
        let kill = dice.chance(2, 3);
        let (mut at_ms, mut what) = (dice.below(length_ms), What::draw_cut(dice));
        if kill {
            what = What::Kill(dice.place(DAEMONS));
            // Half of them while somebody is waiting for this very super node.
            if dice.chance(1, 2) {
                let act = &acts[dice.place(acts.len())];
                at_ms = act.at.as_millis() as u64 + dice.below(COMMAND_MS);
                what = What::Kill(act.super_node);
            }
        }
        Self {
            at: Duration::from_millis(at_ms),
            until: Duration::from_millis(at_ms + dice.below(length_ms)),
            what,
        }
    }
}

impl What {
    fn draw_cut(dice: &mut Dice) -> Self {
        if dice.chance(1, 2) {
            return Self::draw_sides(dice);
        }
        let one = dice.place(MACHINES);
        let others: Vec<usize> = (0..MACHINES).filter(|other| *other != one).collect();
        let (from, to) = if dice.chance(1, 2) {
            (vec![one], others)
        } else {
            (others, vec![one])
        };
        let both = dice.chance(1, 2);
        Self::Cut { from, to, both }
    }

    /// One super node and what is with it on one side, the others on the other.
    fn draw_sides(dice: &mut Dice) -> Self {
        let alone = dice.place(HOSTS.len());
        let (from, to) = (0..MACHINES).partition(|machine| super_node_of(*machine) == alone);
        let both = dice.chance(2, 3);
        Self::Cut { from, to, both }
    }
}

/// The super node that a machine is with.
fn super_node_of(machine: usize) -> usize {
    match machine {
        machine if machine < HOSTS.len() => machine,
        machine if machine < DAEMONS => (machine - HOSTS.len()) / HOSTS[0],
        machine => machine - DAEMONS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_everything() {
        let drawn = |seed, number| format!("{:?}", Round::draw(seed, number));
        assert_eq!(drawn(7, 3), drawn(7, 3));
        assert_ne!(drawn(7, 3), drawn(7, 4));
        assert_ne!(drawn(7, 3), drawn(8, 3));
    }
}
