//! One step after the other: run, timed, checked, printed.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use serde::Serialize;

use crate::failure::Failure;
use crate::format;
use crate::output::{Output, Tone};

/// Columns of a step's name.
const NAME_WIDTH: usize = 36;
/// Columns of a step's time.
const TIME_WIDTH: usize = 9;

/// How a step went.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) ok: bool,
    ms: f64,
    pub(super) detail: String,
}

/// What a step has to tell.
#[derive(Debug, Clone, Default)]
pub(super) struct Detail {
    /// For programs: whole ids.
    full: String,
    /// For people: short ones.
    short: String,
}

impl Detail {
    /// The same for both.
    pub(super) fn new(text: impl Into<String>) -> Self {
        let full = text.into();
        Self {
            short: full.clone(),
            full,
        }
    }

    /// With a shorter text for people.
    pub(super) fn with_short(full: impl Into<String>, short: impl Into<String>) -> Self {
        Self {
            full: full.into(),
            short: short.into(),
        }
    }
}

/// The steps so far.
#[derive(Debug)]
pub(super) struct Steps {
    out: Output,
    live: bool,
    steps: Vec<Step>,
    failed: Option<&'static str>,
}

impl Steps {
    /// No steps yet.
    pub(super) fn new(out: Output) -> Self {
        Self {
            live: !out.is_json() && std::io::stdout().is_terminal(),
            out,
            steps: Vec::new(),
            failed: None,
        }
    }

    /// Whether no step has failed.
    pub(super) fn all_worked(&self) -> bool {
        self.failed.is_none()
    }

    /// All of them, in order.
    pub(super) fn into_steps(self) -> Vec<Step> {
        self.steps
    }

    /// Runs a step, unless an earlier one failed: each needs those before it. `None` if there is no
    /// result to go on with.
    pub(super) async fn run<T>(
        &mut self,
        name: &'static str,
        work: impl Future<Output = Result<(T, Detail), Failure>>,
    ) -> Option<T> {
        if let Some(failed) = self.failed {
            self.record(
                name,
                false,
                None,
                Detail::new(format!("not run: it needs \"{failed}\"")),
            );
            return None;
        }
        self.announce(name);
        let began = Instant::now();
        let result = work.await;
        let time = Some(began.elapsed());
        match result {
            Ok((value, detail)) => {
                self.record(name, true, time, detail);
                Some(value)
            }
            Err(failure) => {
                self.failed = Some(name);
                self.record(name, false, time, Detail::new(failure.message));
                None
            }
        }
    }

    fn announce(&self, name: &str) {
        if self.live {
            // What comes next on this line is written over it; a terminal that is gone does not matter.
            let _ = write!(
                std::io::stdout(),
                "  {} {name}\r",
                self.out.paint(Tone::Faint, "…")
            );
            let _ = std::io::stdout().flush();
        }
    }

    fn record(&mut self, name: &'static str, ok: bool, time: Option<std::time::Duration>, detail: Detail) {
        let mark = match (ok, time) {
            (true, _) => self.out.paint(Tone::Good, "✓"),
            (false, Some(_)) => self.out.paint(Tone::Bad, "✗"),
            (false, None) => self.out.paint(Tone::Faint, "·"),
        };
        let shown_time = time.map(format::time).unwrap_or_default();
        let line = format!(
            "  {mark} {name:NAME_WIDTH$} {}  {}",
            self.out.paint(Tone::Strong, format!("{shown_time:>TIME_WIDTH$}")),
            self.out.paint(Tone::Faint, &detail.short)
        );
        if !self.out.is_json() {
            // A reader that is gone does not keep the steps from being checked.
            let _ = self.out.print(line.trim_end());
        }
        self.steps.push(Step {
            name,
            ok,
            ms: time.map_or(0.0, format::ms),
            detail: detail.full,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_comes_after_a_failure_is_not_run() {
        let mut steps = Steps::new(Output::new(true));
        let first = steps
            .run("first", async { Ok((1, Detail::with_short("whole", "short"))) })
            .await;
        assert_eq!(first, Some(1));
        assert!(steps.all_worked());
        let second = steps
            .run("second", async { Err::<((), _), _>(Failure::local("it broke")) })
            .await;
        assert_eq!(second, None);
        let third = steps.run("third", async { Ok(((), Detail::default())) }).await;
        assert_eq!(third, None);
        assert!(!steps.all_worked());
        let steps = steps.into_steps();
        let told: Vec<_> = steps
            .iter()
            .map(|step| (step.name, step.ok, step.detail.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                ("first", true, "whole"),
                ("second", false, "it broke"),
                ("third", false, "not run: it needs \"second\"")
            ]
        );
    }
}
