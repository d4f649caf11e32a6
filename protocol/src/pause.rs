//! Hosts that take nothing for a while: quiet hours, a busy machine, a battery.
//!
//! A host says so with each [`Beat`](crate::wire::control::Beat). It is not routed to, and gets no
//! further functions. What it holds stays there; if the pause lasts, others hold it as well. Its super node tells
//! all others ([`HostPause`]), which keep to the same rules.

use crate::wire::federation::HostPause;

/// A pause that is longer than this, in milliseconds, lasts: others are to hold what the host holds. A
/// machine that is busy for a moment moves nothing; one that sleeps for a night leaves nobody without
/// answers for longer than this.
pub const PAUSE_LASTS_MS: u64 = 60_000;

/// Whether a host pauses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Pause {
    /// It does not.
    #[default]
    Off,
    /// It does.
    On {
        /// Since when, in milliseconds.
        since_ms: u64,
        /// Why, for a person.
        reason: String,
        /// How much of it was told.
        told: Told,
    },
    /// It did until a moment ago.
    Over,
}

/// What [`Pause::on_tick`] has told of a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// Nothing.
    Nothing,
    /// That it began.
    Begun,
    /// That it lasts: others are to hold what the host holds.
    Lasts,
}

/// What has come of a pause meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The host takes nothing any more.
    Begins,
    /// Others are to hold what the host holds.
    Lasts,
    /// The host takes functions again.
    Over,
}

impl Pause {
    /// Hears whether the host pauses, and why.
    pub(crate) fn hear(&mut self, now_ms: u64, heard: Option<String>) {
        match (&mut *self, heard) {
            (Self::On { reason, .. }, Some(heard)) => *reason = heard,
            (Self::Off | Self::Over, Some(reason)) => {
                *self = Self::On {
                    since_ms: now_ms,
                    reason,
                    told: Told::Nothing,
                };
            }
            (Self::On { .. }, None) => *self = Self::Over,
            (Self::Off | Self::Over, None) => {}
        }
    }

    /// Time passed. Each turn is told once, and only here: it has many functions looked at, which a host
    /// that says one thing and the other all the time is not to cause.
    pub(crate) fn on_tick(&mut self, now_ms: u64) -> Option<Turn> {
        match self {
            Self::Over => {
                *self = Self::Off;
                Some(Turn::Over)
            }
            Self::On { since_ms, told, .. } => match told {
                Told::Nothing => {
                    *told = Told::Begun;
                    Some(Turn::Begins)
                }
                Told::Begun if now_ms.saturating_sub(*since_ms) > PAUSE_LASTS_MS => {
                    *told = Told::Lasts;
                    Some(Turn::Lasts)
                }
                Told::Begun | Told::Lasts => None,
            },
            Self::Off => None,
        }
    }

    /// What other super nodes hear of it.
    pub(crate) fn for_others(&self) -> HostPause {
        match self {
            Self::Off | Self::Over => HostPause::Off,
            Self::On {
                told: Told::Lasts, ..
            } => HostPause::Lasts,
            Self::On { .. } => HostPause::On,
        }
    }

    /// Whether the host pauses.
    pub(crate) fn is_on(&self) -> bool {
        matches!(self, Self::On { .. })
    }

    /// Why the host pauses, if it does.
    pub(crate) fn reason(&self) -> Option<&str> {
        match self {
            Self::Off | Self::Over => None,
            Self::On { reason, .. } => Some(reason),
        }
    }
}

impl HostPause {
    /// Whether the host pauses.
    pub(crate) fn is_on(self) -> bool {
        self != Self::Off
    }

    /// Whether a function may be placed at the host, which has to do with it already (`known`) or not.
    pub(crate) fn lets_in(self, known: bool) -> bool {
        match self {
            Self::Off => true,
            Self::On | Self::Unknown(_) => known,
            Self::Lasts => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_lasts_from_its_beginning_and_ends_once() {
        let mut pause = Pause::default();
        pause.hear(0, None);
        assert!(!pause.is_on() && pause.for_others().lets_in(false) && pause.on_tick(0).is_none());
        pause.hear(10, Some("night".to_owned()));
        assert!(pause.is_on() && pause.for_others().lets_in(true) && !pause.for_others().lets_in(false));
        assert_eq!(pause.on_tick(10), Some(Turn::Begins));
        // Told again with every beat, which does not make it younger.
        pause.hear(PAUSE_LASTS_MS, Some("battery".to_owned()));
        assert_eq!(pause.reason(), Some("battery"));
        assert_eq!(pause.on_tick(10 + PAUSE_LASTS_MS), None);
        assert_eq!(pause.on_tick(11 + PAUSE_LASTS_MS), Some(Turn::Lasts));
        assert_eq!(pause.on_tick(12 + PAUSE_LASTS_MS), None);
        assert!(!pause.for_others().lets_in(true));
        pause.hear(20 + PAUSE_LASTS_MS, None);
        assert!(pause.for_others().lets_in(false) && !pause.is_on());
        assert_eq!(pause.on_tick(21 + PAUSE_LASTS_MS), Some(Turn::Over));
        assert_eq!(pause.on_tick(22 + PAUSE_LASTS_MS), None);
    }
}
