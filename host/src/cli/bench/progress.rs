//! How a measurement goes, on stderr, for whoever watches.

use std::convert::Infallible;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use super::load::Window;
use super::tally::Shared;
use crate::format;
use crate::output::Output;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// Tells how far a measurement is: on a terminal in a line that changes, elsewhere only when it begins.
/// Nothing with `--json`, which leaves stderr one line.
#[derive(Debug)]
pub(super) struct Progress {
    out: Output,
    window: Window,
    tally: Shared,
    live: bool,
}

impl Progress {
    pub(super) fn new(out: Output, window: Window, tally: &Shared) -> Self {
        Self {
            out,
            window,
            tally: tally.clone(),
            live: !out.is_json() && std::io::stderr().is_terminal(),
        }
    }

    /// Tells it until it is dropped.
    pub(super) async fn run(&self) -> Infallible {
        if self.out.is_json() {
            return std::future::pending().await;
        }
        if !self.live {
            self.out.note(&self.warming_up());
            tokio::time::sleep_until(self.window.begins().into()).await;
            self.out.note("measuring");
            return std::future::pending().await;
        }
        let mut looks = tokio::time::interval(LOOK);
        loop {
            looks.tick().await;
            let line = if Instant::now() < self.window.begins() {
                self.warming_up()
            } else {
                self.so_far()
            };
            self.show(&line);
        }
    }

    fn warming_up(&self) -> String {
        format!("warming up for {}", format::time(self.window.warm_up()))
    }

    fn so_far(&self) -> String {
        let tally = self.tally.lock();
        let errors = tally.calls() - tally.answered;
        format!(
            "measuring for {:.0} s: {} answers, {}, p50 {}",
            self.window.begins().elapsed().as_secs_f64(),
            format::grouped(tally.answered),
            format::count(usize::try_from(errors).unwrap_or(usize::MAX), "error"),
            format::time(Duration::from_nanos(tally.latency.value_at_quantile(0.5))),
        )
    }

    /// Writes over the line before. If stderr is gone there is nobody to tell.
    fn show(&self, line: &str) {
        let mut stderr = std::io::stderr();
        let _ = write!(stderr, "\r\x1b[K{line}");
        let _ = stderr.flush();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.live {
            self.show("");
        }
    }
}
