//! `orb run`: a function, here, in exactly the sandbox that hosts use.

use std::io::Write;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use clap::Args;
use orb_protocol::manifest::Limits;
use orb_runtime::{Artifact, CallContext, Event, Input, Job, Outcome};
use serde::Serialize;

use super::answer::{self, AnswerDocument};
use super::context::Context;
use super::{describe, input};
use crate::builder::{self, Built};
use crate::config::ByteSize;
use crate::failure::Failure;
use crate::faults;
use crate::format;
use crate::local_sandbox::LocalSandbox;
use crate::output::{Output, Tone};
use crate::project::Project;

/// Build a function and run it here, in exactly the sandbox that hosts use
#[derive(Debug, Args)]
#[command(after_help = "\
The answer goes to stdout; the function's log, and what it used, to stderr.

Example:
  orb run --input '{\"name\": \"world\"}'
  orb run ./resize --input - < photo.jpg > small.jpg")]
pub(crate) struct RunCommand {
    /// The function's folder, or a .wasm file
    #[arg(default_value = ".")]
    path: PathBuf,
    /// The input: JSON text, or - for stdin
    #[arg(long, short, value_name = "INPUT|-", allow_hyphen_values = true)]
    input: Option<String>,
}

#[derive(Serialize)]
struct Document {
    #[serde(flatten)]
    answer: AnswerDocument,
    name: String,
    kind: &'static str,
    fuel: u64,
    metering: &'static str,
    memory_peak_bytes: u64,
    log: String,
    log_truncated: bool,
    times_ms: Times,
}

#[derive(Serialize)]
struct Times {
    build: f64,
    compile: f64,
    queued: f64,
    guest: f64,
}

/// A function to run, wherever it came from.
struct Program {
    name: String,
    built: Built,
    limits: Limits,
    content_type: String,
}

impl RunCommand {
    pub(crate) async fn execute(self, context: &Context) -> Result<(), Failure> {
        let given = input::read(self.input.as_deref())?;
        let program = open(&self.path, &context.sandbox).await?;
        let input = input::check(given, program.built.kind, program.limits.input_bytes)?;
        let executors = context.sandbox.executors().await?;
        let mut run = Run::new(context.out);
        let guest = executors.run(job(&program, input), |event| run.on_event(event));
        let outcome = context.sandbox.patiently(guest).await;
        run.end_log();
        if !context.out.is_json() {
            used(&context.out, &outcome);
        }
        if let Err(fault) = &outcome.result {
            return Err(Failure::from(faults::from_guest(fault)));
        }
        let output = run.output.freeze();
        if !context.out.is_json() {
            return answer::write(&context.out, &output, &program.content_type);
        }
        let summary = format!(
            "{} answered after {}",
            program.name,
            format::time(outcome.time_guest)
        );
        context
            .out
            .result(&document(&program, &outcome, &output, &run.log), &summary, "")
    }
}

/// Builds the project in a folder, or takes a .wasm file with the default limits.
async fn open(path: &Path, sandbox: &LocalSandbox) -> Result<Program, Failure> {
    if path.extension().is_some_and(|ending| ending == "wasm") {
        let built = builder::load(path)?;
        return Ok(Program {
            name: path
                .file_stem()
                .map(|stem| stem.to_string_lossy().into_owned())
                .unwrap_or_default(),
            content_type: builder::default_content_type(built.kind).to_owned(),
            limits: Limits::default(),
            built,
        });
    }
    let project = Project::open(path)?;
    let built = builder::build(&project, sandbox).await?;
    Ok(Program {
        name: project.name.to_string(),
        content_type: built.publish(&project).content_type,
        limits: project.limits,
        built,
    })
}

fn job(program: &Program, input: Bytes) -> Job {
    let limits = program.limits;
    Job {
        artifact: Artifact {
            hash: *program.built.hash().as_bytes(),
            path: program.built.path.clone(),
        },
        context: CallContext {
            function: program.name.clone(),
            revision: 0,
            request_id: "local".to_owned(),
            deadline: None,
        },
        limits: orb_runtime::Limits {
            fuel: limits.fuel,
            memory_bytes: limits.memory_bytes,
            time_ms: limits.time_ms,
            input_bytes: limits.input_bytes,
            output_bytes: limits.output_bytes,
            log_bytes: limits.log_bytes,
        },
        input: Input::Whole(input),
    }
}

/// What comes out of a running guest. Both are bounded by the function's limits.
struct Run {
    out: Output,
    output: BytesMut,
    log: BytesMut,
}

impl Run {
    fn new(out: Output) -> Self {
        Self {
            out,
            output: BytesMut::new(),
            log: BytesMut::new(),
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Started => {}
            Event::Output(bytes) => self.output.extend_from_slice(&bytes),
            Event::Log(bytes) => {
                if !self.out.is_json() {
                    // If stderr is gone, nobody reads the log.
                    let _ = std::io::stderr().write_all(&bytes);
                }
                self.log.extend_from_slice(&bytes);
            }
        }
    }

    /// What follows the log begins on a line of its own.
    fn end_log(&self) {
        if !self.out.is_json() && self.log.last().is_some_and(|&byte| byte != b'\n') {
            self.out.note("");
        }
    }
}

fn used(out: &Output, outcome: &Outcome) {
    let cut = if outcome.log_truncated { " · log cut" } else { "" };
    let line = format!(
        "fuel {} ({}) · memory {} · {} in the guest{cut}",
        format::grouped(outcome.fuel),
        orb_runtime::METERING_VERSION,
        ByteSize(outcome.memory_peak_bytes),
        format::time(outcome.time_guest),
    );
    out.note(&out.paint_err(Tone::Faint, line));
}

fn document(program: &Program, outcome: &Outcome, output: &Bytes, log: &[u8]) -> Document {
    Document {
        answer: AnswerDocument::of(output),
        name: program.name.clone(),
        kind: describe::kind(program.built.kind),
        fuel: outcome.fuel,
        metering: orb_runtime::METERING_VERSION,
        memory_peak_bytes: outcome.memory_peak_bytes,
        log: String::from_utf8_lossy(log).into_owned(),
        log_truncated: outcome.log_truncated,
        times_ms: Times {
            build: format::ms(program.built.time),
            compile: format::ms(outcome.time_compile),
            queued: format::ms(outcome.time_queued),
            guest: format::ms(outcome.time_guest),
        },
    }
}
