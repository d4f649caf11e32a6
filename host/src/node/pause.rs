//! Whether a host takes anything now: its operator's rules, and what the machine does.
//!
//! While it pauses it takes no calls and no functions that it does not hold yet. Running calls go on to
//! their end, and newer revisions of what it holds are fetched, so that it is up to date afterwards.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::Host;
use super::machine::Readings;
use crate::config::{CoreLoad, PauseRules, QuietRange};
use crate::store::blocking;

/// Between two looks at the machine: the kernel makes its load anew every five seconds.
const READ_EVERY: Duration = Duration::from_secs(5);
/// A machine that was too busy is idle again at so many hundredths of the bound, so that a load about the
/// bound does not start and end a pause every few seconds.
const IDLE_AGAIN_PERCENT: u32 = 80;

/// Why a host takes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pause {
    /// It is the time of day.
    QuietHours(QuietRange),
    /// The machine runs on its battery.
    OnBattery,
    /// The machine has something else to do, or too much of this.
    Busy {
        /// Its load per core when the pause began.
        load: CoreLoad,
        /// What is allowed.
        most: CoreLoad,
    },
}

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::QuietHours(range) => write!(f, "quiet hours {range}"),
            Self::OnBattery => f.write_str("the machine runs on its battery"),
            Self::Busy { load, most } => {
                write!(f, "the machine's load is {load} per core, above {most}")
            }
        }
    }
}

/// Whether to pause now; `before` is what was decided last.
pub(crate) fn decide(rules: &PauseRules, now: &Readings, before: Option<Pause>) -> Option<Pause> {
    let quiet = rules.quiet_hours.iter().find(|range| range.holds(now.minute));
    if let Some(range) = quiet {
        return Some(Pause::QuietHours(*range));
    }
    if rules.only_on_mains && now.on_battery == Some(true) {
        return Some(Pause::OnBattery);
    }
    let (most, load) = (rules.idle_load_max?, now.load?);
    match before {
        Some(Pause::Busy { .. }) => (load > idle_again(most)).then_some(before).flatten(),
        _ => (load > most).then_some(Pause::Busy { load, most }),
    }
}

fn idle_again(most: CoreLoad) -> CoreLoad {
    CoreLoad(most.0.saturating_mul(IDLE_AGAIN_PERCENT) / 100)
}

/// What was decided last, for whoever has to know.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pauses(watch::Sender<Option<Pause>>);

impl Pauses {
    /// Why this host takes nothing, if that is so.
    pub(crate) fn now(&self) -> Option<Pause> {
        *self.0.borrow()
    }

    /// Tells of every change from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<Option<Pause>> {
        self.0.subscribe()
    }

    /// Decides anew, and says in the log if that changed something.
    pub(crate) fn decide(&self, rules: &PauseRules, now: &Readings) {
        self.set(decide(rules, now, self.now()));
    }

    /// Takes a decision in.
    pub(crate) fn set(&self, next: Option<Pause>) {
        self.0.send_if_modified(|before| {
            if *before == next {
                return false;
            }
            match (&next, &*before) {
                (Some(reason), _) => {
                    tracing::info!(%reason, "paused: no calls and no further functions are taken");
                }
                (None, Some(over)) => tracing::info!(%over, "the pause is over: calls are taken again"),
                (None, None) => {}
            }
            *before = next;
            true
        });
    }
}

/// Looks at the machine for as long as the daemon lives.
pub(super) async fn keep(host: Arc<Host>) {
    let mut ticks = tokio::time::interval(READ_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let readings = blocking(Readings::take).await;
        host.pauses.decide(&host.config.pauses, &readings);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules() -> PauseRules {
        PauseRules {
            quiet_hours: vec!["22:00-07:00".parse().unwrap()],
            idle_load_max: Some(CoreLoad(500)),
            only_on_mains: true,
        }
    }

    fn noon() -> Readings {
        Readings {
            minute: 12 * 60,
            load: Some(CoreLoad(100)),
            on_battery: Some(false),
        }
    }

    #[test]
    fn each_rule_pauses_by_itself_and_says_why() {
        assert_eq!(decide(&rules(), &noon(), None), None);
        let night = Readings {
            minute: 23 * 60,
            ..noon()
        };
        let battery = Readings {
            on_battery: Some(true),
            ..noon()
        };
        let busy = Readings {
            load: Some(CoreLoad(501)),
            ..noon()
        };
        for (readings, why) in [
            (night, "quiet hours 22:00-07:00"),
            (battery, "the machine runs on its battery"),
            (busy, "the machine's load is 0.501 per core, above 0.5"),
        ] {
            assert_eq!(decide(&rules(), &readings, None).unwrap().to_string(), why);
            assert_eq!(decide(&PauseRules::default(), &readings, None), None);
        }
    }

    #[test]
    fn what_cannot_be_read_pauses_nothing() {
        let unknown = Readings {
            load: None,
            on_battery: None,
            ..noon()
        };
        assert_eq!(decide(&rules(), &unknown, None), None);
    }

    #[test]
    fn a_change_is_told_once() {
        let pauses = Pauses::default();
        let mut changes = pauses.changes();
        let night = Readings { minute: 0, ..noon() };
        pauses.decide(&rules(), &noon());
        assert!(!changes.has_changed().unwrap());
        pauses.decide(&rules(), &night);
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        pauses.decide(&rules(), &night);
        assert!(!changes.has_changed().unwrap());
        pauses.decide(&rules(), &noon());
        assert!(changes.has_changed().unwrap() && pauses.now().is_none());
    }

    proptest! {
        /// Above the bound it pauses, well below it does not, and between the two it goes on as before.
        #[test]
        fn a_load_about_the_bound_changes_nothing(load in 0..2_000u32, most in 1..1_500u32, paused in any::<bool>()) {
            let rules = PauseRules { idle_load_max: Some(CoreLoad(most)), ..PauseRules::default() };
            let busy = Pause::Busy { load: CoreLoad(most + 1), most: CoreLoad(most) };
            let before = paused.then_some(busy);
            let after = decide(&rules, &Readings { load: Some(CoreLoad(load)), ..noon() }, before);
            if load > most {
                prop_assert!(after.is_some());
            } else if load <= idle_again(CoreLoad(most)).0 {
                prop_assert_eq!(after, None);
            } else {
                prop_assert_eq!(after, before);
            }
        }
    }
}
