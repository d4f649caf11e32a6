//! `orb doctor`: what is wrong with this machine's configuration or reachability, and the mend.

mod checks;
mod policy;

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::context::Context;
use crate::failure::Failure;
use crate::format;
use crate::output::{Output, Tone};

/// Look for what is wrong with this machine's keys, settings, super nodes and kernel, and how to mend it
#[derive(Debug, Args)]
#[command(after_help = "\
The exit code is 1 if something is wrong.

Example:
  orb doctor
  orb doctor --data ./node --json")]
pub(crate) struct DoctorCommand {
    /// A daemon's data folder to look at, too
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// A host node's file with settings, whose policy to look at, too
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What one look found.
#[derive(Debug, Serialize)]
struct Check {
    name: String,
    state: State,
    detail: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    mend: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// As it should be.
    Ok,
    /// It works, and could be better.
    Warning,
    /// It does not work.
    Wrong,
}

#[derive(Serialize)]
struct Report {
    ok: bool,
    checks: Vec<Check>,
}

impl Check {
    fn ok(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            state: State::Ok,
            detail: detail.into(),
            mend: String::new(),
        }
    }

    fn warning(name: impl Into<String>, detail: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            state: State::Warning,
            mend: mend.into(),
            ..Self::ok(name, detail)
        }
    }

    fn wrong(name: impl Into<String>, detail: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            state: State::Wrong,
            mend: mend.into(),
            ..Self::ok(name, detail)
        }
    }

    fn failed(name: impl Into<String>, failure: &Failure) -> Self {
        Self::wrong(name, &failure.message, &failure.help)
    }
}

impl DoctorCommand {
    pub(crate) async fn execute(self, context: &Context) -> Result<(), Failure> {
        let mut checks = vec![
            checks::home(context),
            checks::owner_key(context),
            checks::node_key(context),
        ];
        checks.push(checks::settings(context));
        checks.push(checks::aliases(context));
        checks.extend(checks::variables());
        checks.extend(checks::super_nodes(context).await);
        checks.extend(checks::discovery(context).await);
        checks.extend(checks::sandbox(&context.sandbox));
        checks.extend(checks::walls(&context.sandbox).await);
        checks.extend(policy::checks(self.config.as_deref()));
        checks.extend(self.data.as_deref().map(checks::data_folder));
        let wrong = checks.iter().filter(|check| check.state == State::Wrong).count();
        let report = Report {
            ok: wrong == 0,
            checks,
        };
        let summary = match wrong {
            0 => "nothing is wrong".to_owned(),
            wrong => format!("{} wrong", format::count(wrong, "thing")),
        };
        let text = render(&report, &summary, &context.out);
        context.out.result(&report, &summary, &text)?;
        if report.ok { Ok(()) } else { Err(Failure::shown(1)) }
    }
}

fn render(report: &Report, summary: &str, out: &Output) -> String {
    let mut lines = Vec::new();
    let width = report
        .checks
        .iter()
        .map(|check| check.name.chars().count())
        .max()
        .unwrap_or(0);
    for check in &report.checks {
        let mark = match check.state {
            State::Ok => out.paint(Tone::Good, "ok   "),
            State::Warning => out.paint(Tone::Warning, "note "),
            State::Wrong => out.paint(Tone::Bad, "WRONG"),
        };
        let indent = " ".repeat(width + 8);
        let detail = check.detail.replace('\n', &format!("\n{indent}"));
        lines.push(format!("{mark}  {:width$} {detail}", check.name));
        if !check.mend.is_empty() {
            lines.push(format!(
                "{indent}{} {}",
                out.paint(Tone::Strong, "mend:"),
                check.mend
            ));
        }
    }
    let tone = if report.ok { Tone::Good } else { Tone::Bad };
    lines.push(String::new());
    lines.push(out.paint(tone, summary));
    lines.join("\n")
}
