//! Contenders that take turns, so that a machine whose clock drifts is as fast for one as for the other.
//!
//! In each round every contender is timed once, over so many calls that it takes a `SLICE`. What counts
//! is the median over the rounds, of the times and of the ratios within each round.

use std::time::Duration;

use anyhow::{Context, Result};

/// Rounds in the long form; a short one has [`ROUNDS_SHORT`].
const ROUNDS: usize = 21;
const ROUNDS_SHORT: usize = 3;
/// How long one contender runs in a round, at least.
const SLICE: Duration = Duration::from_millis(200);
const SLICE_SHORT: Duration = Duration::from_millis(20);
/// Calls in a slice, at most: a bound for whoever measures nothing.
const CALLS_MAX: u64 = 1 << 24;

/// Makes so many calls and says how long they took in all.
type Run<'a> = Box<dyn FnMut(u64) -> Result<Duration> + 'a>;

/// One comparison.
pub struct Race<'a> {
    title: String,
    rounds: usize,
    /// `None`: one call in each round, for what is slow, or done only once.
    slice: Option<Duration>,
    calls_min: u64,
    bytes: Option<u64>,
    contenders: Vec<Contender<'a>>,
}

struct Contender<'a> {
    name: &'a str,
    baseline: bool,
    run: Run<'a>,
}

impl<'a> Race<'a> {
    /// A race that is to be printed under `title`.
    pub fn new(title: impl Into<String>, short: bool) -> Self {
        Self {
            title: title.into(),
            rounds: if short { ROUNDS_SHORT } else { ROUNDS },
            slice: Some(if short { SLICE_SHORT } else { SLICE }),
            calls_min: 1,
            bytes: None,
            contenders: Vec::new(),
        }
    }

    /// One call in each round.
    #[must_use]
    pub fn single(mut self) -> Self {
        self.slice = None;
        self
    }

    /// At least so many calls at a time, for what has many of them in flight.
    #[must_use]
    pub fn at_least(mut self, calls: u64) -> Self {
        self.calls_min = calls;
        self
    }

    /// Each call moves so many bytes: the rate is given in MiB/s.
    #[must_use]
    pub fn moving(mut self, bytes: u64) -> Self {
        self.bytes = Some(bytes);
        self
    }

    /// Adds what the others are compared with.
    #[must_use]
    pub fn baseline(self, name: &'a str, run: impl FnMut(u64) -> Result<Duration> + 'a) -> Self {
        self.with(name, true, Box::new(run))
    }

    /// Adds what is to be compared.
    #[must_use]
    pub fn contender(self, name: &'a str, run: impl FnMut(u64) -> Result<Duration> + 'a) -> Self {
        self.with(name, false, Box::new(run))
    }

    fn with(mut self, name: &'a str, baseline: bool, run: Run<'a>) -> Self {
        self.contenders.push(Contender { name, baseline, run });
        self
    }

    /// Runs all rounds and prints the medians.
    ///
    /// # Errors
    /// A contender failed.
    pub fn run(mut self) -> Result<()> {
        let calls = self.calibrate()?;
        let mut times = vec![Vec::new(); self.contenders.len()];
        for _ in 0..self.rounds {
            for ((contender, calls), times) in self.contenders.iter_mut().zip(&calls).zip(&mut times) {
                times.push((contender.run)(*calls)?.as_secs_f64() / *calls as f64);
            }
        }
        self.print(&times)
    }

    /// How many calls fill each contender's slice. Warms it up besides.
    fn calibrate(&mut self) -> Result<Vec<u64>> {
        let (slice, calls_min) = (self.slice, self.calls_min);
        let fill = |contender: &mut Contender<'_>| {
            let mut calls = calls_min;
            while (contender.run)(calls)? < slice.unwrap_or_default() && calls < CALLS_MAX {
                calls *= 2;
            }
            Ok(calls)
        };
        self.contenders.iter_mut().map(fill).collect()
    }

    fn print(&self, times: &[Vec<f64>]) -> Result<()> {
        println!("\n{} (medians of {} rounds)", self.title, self.rounds);
        for (contender, of_it) in self.contenders.iter().zip(times) {
            let time = median(of_it.clone()).context("a race has rounds")?;
            let rate = match self.bytes {
                Some(bytes) => format!("{:>9.1} MiB/s", bytes as f64 / time / f64::from(1 << 20)),
                None => format!("{:>11.0}/s", 1.0 / time),
            };
            let name = format!(
                "{}{}",
                contender.name,
                if contender.baseline { " (baseline)" } else { "" }
            );
            let ratios = if contender.baseline {
                String::new()
            } else {
                self.ratios(of_it, times)
            };
            println!("  {name:62} {:>10} {rate}{ratios}", scaled(time));
        }
        Ok(())
    }

    /// The contender's time over each baseline's of the same round.
    fn ratios(&self, of_it: &[f64], times: &[Vec<f64>]) -> String {
        let baselines = self
            .contenders
            .iter()
            .zip(times)
            .filter(|(other, _)| other.baseline);
        let ratio = |(baseline, of_baseline): (&Contender<'_>, &Vec<f64>)| {
            let each = of_it.iter().zip(of_baseline).map(|(it, base)| it / base);
            let ratio = median(each.collect()).unwrap_or(f64::NAN);
            format!("   {ratio:.3} x the time of {}", baseline.name)
        };
        baselines.map(ratio).collect()
    }
}

fn median(mut of: Vec<f64>) -> Option<f64> {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied()
}

fn scaled(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 1e-3 => format!("{:.2} ms", s * 1e3),
        s => format!("{:.2} µs", s * 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn calls_are_doubled_until_they_fill_a_slice() {
        let mut race = Race::new("", true)
            .at_least(3)
            .contender("a millisecond a call", |calls| Ok(Duration::from_millis(calls)))
            .contender("slow", |_| Ok(Duration::from_secs(1)));
        assert_eq!(race.calibrate().ok(), Some(vec![24, 3]));
    }
}
