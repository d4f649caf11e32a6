//! `orb call`: a function's answer.

use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use orb_protocol::client::{Answer, CallError, CallOptions, CallReport, Client, Resolution};
use orb_protocol::fault::{Fault, FaultKind};
use serde::Serialize;

use super::answer::{self, AnswerDocument};
use super::context::Context;
use super::function::{FunctionRef, Target};
use super::input;
use crate::config::{ByteSize, parse_duration};
use crate::failure::Failure;
use crate::format;
use crate::output::{Output, Tone};

/// The deadline of a caller who names none (the brief).
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// Call a function and print its answer
#[derive(Debug, Args)]
#[command(after_help = "\
The answer's bytes go to stdout as they are; JSON gets a newline.

Example:
  orb call hello '{\"name\": \"world\"}'
  orb call alice/resize -v - < photo.jpg > small.jpg")]
pub(crate) struct CallCommand {
    /// Which function: NAME, OWNER/NAME or either with @REVISION; OWNER is a key or an alias
    #[arg(value_name = "FN")]
    function: FunctionRef,
    /// The input: JSON text, or - for stdin
    #[arg(value_name = "INPUT|-", allow_hyphen_values = true)]
    input: Option<String>,
    /// Tell on stderr where it ran, by which path, and what it used
    #[arg(short, long)]
    verbose: bool,
    /// How long to wait for the answer [default: 30s]
    #[arg(long, value_name = "TIME", env = "ORB_TIMEOUT", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

/// An answer, for programs.
#[derive(Debug, Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    answer: AnswerDocument,
    function: String,
    generation: u64,
    revision: u64,
    host: String,
    path: &'a str,
    attempts: u32,
    fuel: u64,
    metering: &'static str,
    memory_peak_bytes: u64,
    log_truncated: bool,
    request: String,
    content_type: &'a str,
    times_ms: Times,
}

#[derive(Debug, Serialize)]
struct Times {
    total: f64,
    resolve: f64,
    connect: f64,
    queued: f64,
    guest: f64,
    compile: f64,
}

impl CallCommand {
    pub(crate) async fn execute(self, context: &Context) -> Result<(), Failure> {
        let target = self.function.locate(&context.home)?;
        let input = input::read(self.input.as_deref())?;
        let timeout = match self.timeout {
            Some(timeout) => timeout,
            None => context.home.settings()?.timeout.unwrap_or(TIMEOUT_DEFAULT),
        };
        let started = Instant::now();
        let prepared = tokio::time::timeout(timeout, prepare(context, &target, input)).await;
        let (client, input) = prepared.map_err(|_| not_in_time(timeout))??;
        let resolved = started.elapsed();
        let options = CallOptions {
            timeout: timeout.saturating_sub(resolved),
            ..CallOptions::default()
        };
        let result = client.call(target.id, input, options).await;
        let answer = match result {
            Ok(answer) => answer,
            Err(error) => return Err(self.failed(&context.out, &target, error)),
        };
        check_revision(&target, answer.report.version.revision, true)?;
        self.print(&context.out, &target, &answer, resolved)
    }

    fn print(
        &self,
        out: &Output,
        target: &Target,
        answer: &Answer,
        resolved: Duration,
    ) -> Result<(), Failure> {
        let report = &answer.report;
        if !out.is_json() {
            answer::write(out, &answer.output, &report.content_type)?;
            if self.verbose {
                explain(out, report, resolved);
            }
            return Ok(());
        }
        let document = Document {
            answer: AnswerDocument::of(&answer.output),
            function: target.full(),
            generation: report.version.generation,
            revision: report.version.revision,
            host: report.host.to_string(),
            path: &report.path,
            attempts: report.attempts,
            fuel: report.fuel,
            metering: orb_runtime::METERING_VERSION,
            memory_peak_bytes: report.memory_peak_bytes,
            log_truncated: report.log_truncated,
            request: report.request.to_string(),
            content_type: &report.content_type,
            times_ms: Times::of(report, resolved),
        };
        let total = format::time(report.times.total + resolved);
        let summary = format!(
            "{} answered from {} in {total}",
            target.shown,
            report.host.short()
        );
        out.result(&document, &summary, "")
    }

    fn failed(&self, out: &Output, target: &Target, error: CallError) -> Failure {
        if self.verbose && !out.is_json() {
            for attempt in &error.attempts {
                let line = format!("tried {}: {}", attempt.host.short(), attempt.fault.message);
                out.note(&out.paint_err(Tone::Faint, line));
            }
            out.note(&out.paint_err(Tone::Faint, format!("request {}", error.request)));
        }
        let late = error.kind() == FaultKind::DeadlineExceeded;
        let failure = target.failure(error.fault);
        if late {
            failure.help("the call may have run; give it longer with --timeout")
        } else {
            failure
        }
    }
}

impl Times {
    /// The client's times, with what this command asked before it called.
    fn of(report: &CallReport, resolved: Duration) -> Self {
        let times = &report.times;
        Self {
            total: format::ms(times.total + resolved),
            resolve: format::ms(times.resolve + resolved),
            connect: format::ms(times.connect),
            queued: format::ms(times.queued),
            guest: format::ms(times.guest),
            compile: format::ms(times.compile),
        }
    }
}

/// Connects, asks what the function is, and checks here what can be checked here.
///
/// # Errors
/// Nobody can be asked, there is no such function, or it does not take this input.
pub(crate) async fn prepare(
    context: &Context,
    target: &Target,
    input: Option<Bytes>,
) -> Result<(Client, Bytes), Failure> {
    let client = context.connect_for(target).await?;
    let resolution = client
        .resolve(target.id)
        .await
        .map_err(|error| target.failure(error.fault))?;
    let input = check_against(target, &resolution, input)?;
    Ok((client, input))
}

fn check_against(target: &Target, resolution: &Resolution, input: Option<Bytes>) -> Result<Bytes, Failure> {
    check_revision(target, resolution.manifest.version().revision, false)?;
    match resolution.manifest.publish() {
        Some(publish) => input::check(input, publish.kind, publish.limits.input_bytes),
        None => Err(target.failure(Fault::new(FaultKind::Decommissioned, ""))),
    }
}

/// `@REVISION`: exactly that one has to answer.
fn check_revision(target: &Target, revision: u64, answered: bool) -> Result<(), Failure> {
    let wanted = match target.revision {
        Some(wanted) if wanted != revision => wanted,
        _ => return Ok(()),
    };
    let message = if answered {
        format!(
            "revision {revision} of {} answered, and you asked for revision {wanted}",
            target.shown
        )
    } else {
        format!(
            "revision {revision} of {} is live, and you asked for revision {wanted}",
            target.shown
        )
    };
    Err(Failure::new("revision_not_live", message)
        .exit(6)
        .help("only the live revision answers: leave out @REVISION, or ask its owner to roll back"))
}

fn not_in_time(timeout: Duration) -> Failure {
    let message = format!(
        "no super node said within {} who can answer; the call has not run",
        format::time(timeout)
    );
    Failure::from(
        Fault::new(FaultKind::DeadlineExceeded, message)
            .help("give it longer with --timeout, or look with `orb doctor`"),
    )
}

fn explain(out: &Output, report: &CallReport, resolved: Duration) {
    let times = &report.times;
    let cut = if report.log_truncated {
        ", its log was cut"
    } else {
        ""
    };
    let attempts = if report.attempts == 1 {
        String::new()
    } else {
        format!(", after {}", format::count(report.attempts as usize, "attempt"))
    };
    let lines = [
        format!("host      {} by {}{attempts}", report.host, report.path),
        format!("revision  {}", report.version.revision),
        format!(
            "used      {} fuel ({}), {} memory{cut}",
            format::grouped(report.fuel),
            orb_runtime::METERING_VERSION,
            ByteSize(report.memory_peak_bytes)
        ),
        format!(
            "time      {}: resolve {}, connect {}, queue {}, compile {}, guest {}",
            format::time(times.total + resolved),
            format::time(times.resolve + resolved),
            format::time(times.connect),
            format::time(times.queued),
            format::time(times.compile),
            format::time(times.guest),
        ),
        format!("request   {}", report.request),
    ];
    for line in lines {
        out.note(&out.paint_err(Tone::Faint, line));
    }
}
