//! How long a command waits for hosts, and what it says meanwhile.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use tokio::time::Instant;

use crate::output::{Output, Tone};

/// How long a command waits for hosts at most (the brief).
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(15);
/// How long it waits for every host to have removed a function, if it is told to: one that is offline may be
/// restarted meanwhile.
pub(crate) const WAIT_ALL_MAX: Duration = Duration::from_secs(600);
/// How often it asks at least: whether a host has fallen silent is not told, only answered.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// The most hosts that are waited for by number: as many as a function may ask for.
const COUNT_MAX: u16 = 64;

/// Which hosts a command waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitFor {
    /// Nobody.
    Nobody,
    /// So many.
    Count(u16),
    /// Those that can be reached.
    Reachable,
    /// Every one.
    All,
}

/// Why a text does not say whom to wait for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a number of hosts from 1 to {COUNT_MAX} nor \"all\"")]
pub(crate) struct WaitError(String);

impl FromStr for WaitFor {
    type Err = WaitError;

    fn from_str(text: &str) -> Result<Self, WaitError> {
        match text.parse() {
            _ if text == "all" => Ok(Self::All),
            Ok(count) if (1..=COUNT_MAX).contains(&count) => Ok(Self::Count(count)),
            _ => Err(WaitError(text.chars().take(80).collect())),
        }
    }
}

/// How a command waits for hosts.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct WaitArgs {
    /// Return as soon as the super node has stored it
    #[arg(long, conflicts_with = "wait")]
    no_wait: bool,
    /// Wait for N hosts, or for "all" of them
    #[arg(long, value_name = "N")]
    wait: Option<WaitFor>,
}

impl WaitArgs {
    /// Whom to wait for.
    pub(crate) fn or(self, default: WaitFor) -> WaitFor {
        match self.no_wait {
            true => WaitFor::Nobody,
            false => self.wait.unwrap_or(default),
        }
    }
}

/// A wait that is under way: how long to ask for next, and what was said last.
#[derive(Debug)]
pub(crate) struct Wait {
    until: Instant,
    out: Output,
    said: String,
}

impl Wait {
    /// A wait of this length that begins now.
    pub(crate) fn new(most: Duration, out: Output) -> Self {
        Self {
            until: Instant::now() + most,
            out,
            said: String::new(),
        }
    }

    /// How long the next question may take. `None`: the time is over.
    pub(crate) fn next(&self) -> Option<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left.min(ASK_EVERY))
    }

    /// Says how far it is, if that has changed. Programs hear of the end only.
    pub(crate) fn say(&mut self, progress: impl fmt::Display) {
        let progress = progress.to_string();
        if progress != self.said && !self.out.is_json() {
            self.out.note(&self.out.paint_err(Tone::Faint, &progress));
        }
        self.said = progress;
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;

    #[test]
    fn a_number_or_all() {
        assert_eq!("all".parse(), Ok(WaitFor::All));
        assert_eq!("64".parse(), Ok(WaitFor::Count(64)));
        for bad in ["", "0", "65", "-1", "ALL", "some"] {
            assert!(bad.parse::<WaitFor>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_wait_asks_in_steps_and_ends() {
        let long = Wait::new(ASK_EVERY * 10, Output::new(true));
        assert_eq!(long.next(), Some(ASK_EVERY));
        let short = Wait::new(ASK_EVERY / 2, Output::new(true));
        assert!(short.next().unwrap() <= ASK_EVERY / 2);
        assert_eq!(Wait::new(Duration::ZERO, Output::new(true)).next(), None);
    }
}
