//! Hosts that take nothing for a while: quiet hours, a busy machine, a battery.
//!
//! A host says so with each [`Beat`](crate::wire::control::Beat). It is not routed to, and gets no
//! further functions. What it holds stays there; if the pause lasts, others hold it as well.

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
        /// For so long that others are to hold what it holds.
        lasting: bool,
    },
    /// It did until a moment ago.
    Over,
}

/// What has come of a pause meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
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
                    lasting: false,
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
            Self::On {
                since_ms, lasting, ..
            } if !*lasting && now_ms.saturating_sub(*since_ms) > PAUSE_LASTS_MS => {
                *lasting = true;
                Some(Turn::Lasts)
            }
            _ => None,
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

    /// Whether a function may be placed at the host, which has to do with it already (`known`) or not.
    pub(crate) fn lets_in(&self, known: bool) -> bool {
        match self {
            Self::Off | Self::Over => true,
            Self::On { lasting, .. } => known && !lasting,
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
        assert!(!pause.is_on() && pause.lets_in(false) && pause.on_tick(0).is_none());
        pause.hear(10, Some("night".to_owned()));
        assert!(pause.is_on() && pause.lets_in(true) && !pause.lets_in(false));
        // Told again with every beat, which does not make it younger.
        pause.hear(PAUSE_LASTS_MS, Some("battery".to_owned()));
        assert_eq!(pause.reason(), Some("battery"));
        assert_eq!(pause.on_tick(10 + PAUSE_LASTS_MS), None);
        assert_eq!(pause.on_tick(11 + PAUSE_LASTS_MS), Some(Turn::Lasts));
        assert_eq!(pause.on_tick(12 + PAUSE_LASTS_MS), None);
        assert!(!pause.lets_in(true));
        pause.hear(20 + PAUSE_LASTS_MS, None);
        assert!(pause.lets_in(false) && !pause.is_on());
        assert_eq!(pause.on_tick(21 + PAUSE_LASTS_MS), Some(Turn::Over));
        assert_eq!(pause.on_tick(22 + PAUSE_LASTS_MS), None);
    }
}
