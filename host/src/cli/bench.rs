//! `orb bench`: how fast real calls are, and how many go through.

mod load;
mod progress;
mod report;
mod tally;

use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use orb_protocol::client::{CallOptions, Client, TIMEOUT_DEFAULT};

use self::load::{Load, Shape, Window};
use self::progress::Progress;
use self::report::Report;
use super::call::prepare;
use super::context::Context;
use super::function::{FunctionRef, Target};
use super::input;
use crate::config::parse_duration;
use crate::failure::Failure;
use crate::shutdown::Shutdown;

/// How long it measures if neither a time nor a number is given.
const DURATION_DEFAULT: Duration = Duration::from_secs(10);
/// How long it calls before it measures: connections are made, functions loaded, windows opened.
const WARM_UP_DEFAULT: Duration = Duration::from_secs(2);
/// Calls at a time, if nothing else is said: as many as keep a small host busy.
const CONCURRENCY_DEFAULT: u32 = 16;
/// The most: a host lets one caller have 256 streams open, and there are a few hosts.
const CONCURRENCY_MAX: i64 = 4_096;
/// Calls per second at most: more than one process can make.
const RATE_MAX: f64 = 1e6;

/// Measure real calls of a function: latency percentiles and throughput
#[derive(Debug, Args)]
#[command(after_help = "\
Closed loop (the default): N callers, each of which calls again as soon as it has its answer.
Open loop (--rate): calls begin at a steady rate whatever becomes of them. Latency counts
from when a call should have begun: a slow network cannot hide behind calls that were not made.

A call that is turned away as overloaded counts as an error and is not made again. Ctrl-C ends the
measurement early, and what was measured is printed.

Example:
  orb bench hello '{\"name\": \"world\"}' --concurrency 64 --duration 30s
  orb bench hello '{\"name\": \"world\"}' --rate 500 --json > result.json")]
pub(crate) struct BenchCommand {
    /// Which function: NAME, OWNER/NAME or either with @REVISION; OWNER is a key or an alias
    #[arg(value_name = "FN")]
    function: FunctionRef,
    /// The input of every call: JSON text, or - for stdin
    #[arg(value_name = "INPUT|-", allow_hyphen_values = true)]
    input: Option<String>,
    /// Closed loop: so many calls at a time [default: 16]
    #[arg(long, value_name = "N", conflicts_with = "rate", value_parser = clap::value_parser!(u32).range(1..=CONCURRENCY_MAX))]
    concurrency: Option<u32>,
    /// Open loop: so many calls per second, as in 500 or 0.5
    #[arg(long, value_name = "R", value_parser = parse_rate)]
    rate: Option<f64>,
    /// How long to measure [default: 10s, or until --requests are made]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// How many calls to measure at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    requests: Option<u64>,
    /// How long to call before measuring [default: 2s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    warm_up: Option<Duration>,
    /// How long to wait for each answer [default: 30s]
    #[arg(long, value_name = "TIME", env = "ORB_TIMEOUT", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= RATE_MAX => Ok(rate),
        _ => Err(format!(
            "{text:?} is no rate: give calls per second, above 0 and at most {RATE_MAX}"
        )),
    }
}

impl BenchCommand {
    pub(crate) async fn execute(self, context: &Context) -> Result<(), Failure> {
        let target = self.function.locate(&context.home)?;
        let given = input::read(self.input.as_deref())?;
        let timeout = match self.timeout {
            Some(timeout) => timeout,
            None => context.home.settings()?.timeout.unwrap_or(TIMEOUT_DEFAULT),
        };
        let mut shutdown = Shutdown::on_signals()
            .map_err(|error| Failure::local(format!("cannot listen to signals: {error}")))?;
        let (client, input) = prepare(context, &target, given).await?;
        let window = self.window();
        let load = self.load(&client, &target, input, timeout, window);
        let tally = load.tally();
        let interrupted = {
            let progress = Progress::new(context.out, window, &tally);
            tokio::select! {
                biased;
                () = shutdown.requested() => true,
                () = load.run() => false,
                never = progress.run() => match never {},
            }
        };
        client.close().await;
        let tally = tally.lock();
        let report = Report {
            target: &target,
            shape: self.shape(),
            warm_up: window.warm_up(),
            measured: tally.span(window.begins()),
            interrupted,
            tally: &tally,
        };
        report.print(&context.out)
    }

    fn shape(&self) -> Shape {
        match self.rate {
            Some(per_second) => Shape::Open { per_second },
            None => Shape::Closed {
                concurrency: self.concurrency.unwrap_or(CONCURRENCY_DEFAULT),
            },
        }
    }

    fn window(&self) -> Window {
        let duration = match (self.duration, self.requests) {
            (None, None) => Some(DURATION_DEFAULT),
            (duration, _) => duration,
        };
        Window::from_now(self.warm_up.unwrap_or(WARM_UP_DEFAULT), duration)
    }

    fn load(
        &self,
        client: &Client,
        target: &Target,
        input: Bytes,
        timeout: Duration,
        window: Window,
    ) -> Load {
        let options = CallOptions {
            timeout,
            // Calls that are made again would hide that there is too much of them.
            overload_retries: 0,
            ..CallOptions::default()
        };
        Load::new(
            client.clone(),
            target.id,
            input,
            options,
            self.shape(),
            window,
            self.requests,
        )
    }
}
