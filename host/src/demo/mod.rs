//! `orb demo`: a small network in child processes, put through the main job.
//!
//! - [`network`]: the child processes and their end.
//! - [`steps`]: running, timing and printing one step after the other.
//! - [`story`]: the steps themselves.

mod network;
mod steps;
mod story;

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use self::network::Network;
use self::steps::{Step, Steps};
use crate::failure::Failure;
use crate::format;
use crate::output::{Output, Tone};

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    ok: bool,
    steps: Vec<Step>,
}

/// Runs the demo. However it ends, its processes end and its folder goes.
///
/// # Errors
/// A step that failed (it has been shown), or an interruption.
pub(crate) async fn run(out: Output) -> Result<(), Failure> {
    let began = std::time::Instant::now();
    let mut network = Network::new()?;
    if !out.is_json() {
        out.print(&format!(
            "{}  {}\n",
            out.paint(Tone::Strong, "orb demo"),
            out.paint(Tone::Faint, "two super nodes and three hosts on this machine")
        ))?;
    }
    let mut steps = Steps::new(out);
    let interrupted = tokio::select! {
        () = story::tell(&mut steps, &mut network) => None,
        failure = interruption() => Some(failure),
    };
    let logs = if steps.all_worked() || out.is_json() {
        None
    } else {
        Some(network.last_log_lines())
    };
    network.end().await;
    let total = format::time(began.elapsed());
    if let Some(failure) = interrupted {
        return Err(failure);
    }
    conclude(out, steps, &total, logs)
}

/// Prints how it went.
fn conclude(out: Output, steps: Steps, total: &str, logs: Option<String>) -> Result<(), Failure> {
    let report = Report {
        ok: steps.all_worked(),
        steps: steps.into_steps(),
    };
    let (count, failed) = (report.steps.len(), report.steps.iter().find(|step| !step.ok));
    let summary = match failed {
        None => format!("all {count} steps worked, in {total}"),
        Some(step) => format!("the step \"{}\" failed: {}", step.name, step.detail),
    };
    let text = match failed {
        None => format!(
            "\n{} Nothing is left behind.\nNext: {}",
            out.paint(Tone::Good, format!("All {count} steps worked, in {total}.")),
            out.paint(
                Tone::Strong,
                "orb new hello && cd hello && orb run --input '{\"name\": \"world\"}'"
            )
        ),
        Some(step) => format!(
            "\n{}{}",
            out.paint(Tone::Bad, format!("The step \"{}\" failed.", step.name)),
            logs.map(|logs| format!("\n{logs}")).unwrap_or_default()
        ),
    };
    out.result(&report, &summary, &text)?;
    if report.ok { Ok(()) } else { Err(Failure::shown(1)) }
}

/// Returns when somebody wants the demo to end early.
async fn interruption() -> Failure {
    let listen =
        || Ok::<_, std::io::Error>((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?));
    match listen() {
        Ok((mut interrupt, mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            Failure::new(
                "interrupted",
                "interrupted: the demo's processes were ended, and its folder removed",
            )
            .exit(130)
            .help("run it again")
        }
        Err(error) => Failure::local(format!("cannot listen to signals: {error}")),
    }
}
