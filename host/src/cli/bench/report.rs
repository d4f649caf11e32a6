//! What a measurement found, for people and for programs.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::load::Shape;
use super::tally::Tally;
use crate::cli::function::Target;
use crate::failure::Failure;
use crate::format;
use crate::output::{Output, Table, Tone};

/// A measurement that has ended.
pub(super) struct Report<'a> {
    pub(super) target: &'a Target,
    pub(super) shape: Shape,
    pub(super) warm_up: Duration,
    /// From the end of the warm-up to the last call's end.
    pub(super) measured: Duration,
    pub(super) interrupted: bool,
    pub(super) tally: &'a Tally,
}

#[derive(Serialize)]
struct Document<'a> {
    function: String,
    revision: u64,
    #[serde(flatten)]
    shape: ShapeDocument,
    warm_up_s: f64,
    measured_s: f64,
    interrupted: bool,
    calls: u64,
    answered: u64,
    answers_per_second: f64,
    errors: &'a BTreeMap<&'static str, u64>,
    latency_ms: Percentiles,
    breakdown_ms: Breakdown,
    hosts: Vec<HostDocument>,
}

#[derive(Serialize)]
#[serde(tag = "loop", rename_all = "lowercase")]
enum ShapeDocument {
    Closed { concurrency: u32 },
    Open { rate: f64 },
}

/// All of answered calls.
#[derive(Serialize)]
struct Breakdown {
    late: Percentiles,
    network: Percentiles,
    queue: Percentiles,
    compile: Percentiles,
    guest: Percentiles,
}

#[derive(Serialize)]
struct HostDocument {
    host: String,
    answered: u64,
}

/// In milliseconds, to three digits; all 0 if there were none.
#[derive(Serialize)]
struct Percentiles {
    min: f64,
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl Percentiles {
    fn of(histogram: &Histogram<u64>) -> Self {
        let ms = |ns: u64| format::ms(Duration::from_nanos(ns));
        let at = |quantile| ms(histogram.value_at_quantile(quantile));
        Self {
            min: ms(histogram.min()),
            mean: format::ms(Duration::from_secs_f64(histogram.mean() / 1e9)),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: ms(histogram.max()),
        }
    }
}

impl Report<'_> {
    /// Prints it.
    ///
    /// # Errors
    /// When nothing was answered, with the exit code of the first fault; or stdout cannot be written.
    pub(super) fn print(&self, out: &Output) -> Result<(), Failure> {
        out.result(&self.document(), &self.summary(), &self.text(out))?;
        match &self.tally.fault {
            Some(fault) if self.tally.answered == 0 => {
                if !out.is_json() {
                    let failure = self.target.failure(fault.clone());
                    out.note(&format!(
                        "{} {failure}",
                        out.paint_err(Tone::Bad, "nothing was answered:")
                    ));
                }
                Err(Failure::shown(fault.kind.exit_code()))
            }
            _ => Ok(()),
        }
    }

    fn per_second(&self) -> f64 {
        let seconds = self.measured.as_secs_f64();
        if seconds > 0.0 {
            self.tally.answered as f64 / seconds
        } else {
            0.0
        }
    }

    fn document(&self) -> Document<'_> {
        let (tally, parts) = (self.tally, &self.tally.parts);
        let host = |(host, answered): (&orb_protocol::id::NodeId, &u64)| HostDocument {
            host: host.to_string(),
            answered: *answered,
        };
        Document {
            function: self.target.full(),
            revision: tally.revision,
            shape: match self.shape {
                Shape::Closed { concurrency } => ShapeDocument::Closed { concurrency },
                Shape::Open { per_second } => ShapeDocument::Open { rate: per_second },
            },
            warm_up_s: rounded(self.warm_up.as_secs_f64()),
            measured_s: rounded(self.measured.as_secs_f64()),
            interrupted: self.interrupted,
            calls: tally.calls(),
            answered: tally.answered,
            answers_per_second: rounded(self.per_second()),
            errors: &tally.errors,
            latency_ms: Percentiles::of(&tally.latency),
            breakdown_ms: Breakdown {
                late: Percentiles::of(&parts.late),
                network: Percentiles::of(&parts.network),
                queue: Percentiles::of(&parts.queue),
                compile: Percentiles::of(&parts.compile),
                guest: Percentiles::of(&parts.guest),
            },
            hosts: tally.hosts.iter().map(host).collect(),
        }
    }

    fn summary(&self) -> String {
        let how = match self.shape {
            Shape::Closed { concurrency } => format!("{concurrency} at a time"),
            Shape::Open { per_second } => format!("{per_second} calls per second wanted"),
        };
        let cut = if self.interrupted { ", interrupted" } else { "" };
        format!(
            "{}: {} answers in {}, {:.1} per second ({how}{cut})",
            self.target.shown,
            format::grouped(self.tally.answered),
            format::time(self.measured),
            self.per_second(),
        )
    }

    fn text(&self, out: &Output) -> String {
        let mut text = format!("{}\n\n{}", self.summary(), self.table().render(out));
        let lines = [("errors", self.errors()), ("hosts", self.hosts())];
        for (name, line) in lines.into_iter().filter(|(_, line)| !line.is_empty()) {
            text += &format!("\n{name:7}  {line}");
        }
        text
    }

    fn table(&self) -> Table {
        let parts = &self.tally.parts;
        let mut table = Table::new(["", "p50", "p90", "p99", "p99.9", "max", "mean"]);
        let mut row = |name: &str, histogram: &Histogram<u64>| {
            let at = |quantile| time(histogram.value_at_quantile(quantile));
            let mean = format::time(Duration::from_secs_f64(histogram.mean() / 1e9));
            let cells = [at(0.5), at(0.9), at(0.99), at(0.999), time(histogram.max()), mean];
            let [p50, p90, p99, p999, max, mean] = cells;
            table.row([name.to_owned(), p50, p90, p99, p999, max, mean]);
        };
        row("latency", &self.tally.latency);
        if matches!(self.shape, Shape::Open { .. }) {
            row("  late", &parts.late);
        }
        row("  network", &parts.network);
        row("  queue", &parts.queue);
        row("  compile", &parts.compile);
        row("  guest", &parts.guest);
        table
    }

    fn errors(&self) -> String {
        let errors = self.tally.errors.iter();
        let each = errors.map(|(kind, count)| format!("{kind} {}", format::grouped(*count)));
        each.collect::<Vec<_>>().join(", ")
    }

    fn hosts(&self) -> String {
        let hosts = self.tally.hosts.iter();
        let each = hosts.map(|(host, count)| format!("{} {}", host.short(), format::grouped(*count)));
        each.collect::<Vec<_>>().join(", ")
    }
}

fn time(ns: u64) -> String {
    format::time(Duration::from_nanos(ns))
}

fn rounded(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}
