//! The command line: one file per command.
//!
//! A command parses (clap), works on a [`context::Context`], and ends with a result for
//! [`crate::output::Output`] or a [`Failure`]. What commands share: [`function`] (how functions are
//! named), [`input`] and [`answer`] (bytes in and out), [`describe`] (documents), [`ready`] (waiting
//! for hosts).

mod answer;
mod bench;
mod build;
mod call;
mod completions;
pub(crate) mod context;
mod dead_letters;
mod decommission;
mod demo;
mod deploy;
mod describe;
mod doctor;
mod events;
mod function;
mod id;
mod input;
mod inspect;
mod list;
mod log;
mod new;
mod node;
mod ready;
mod removal;
mod rollback;
mod run;
mod super_node;
mod versions;
mod wait;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use orb_protocol::client::SuperAddr;

use self::context::Context;
use crate::config::DiscoveryArgs;
use crate::failure::Failure;
use crate::output::Output;

/// Publish functions to a network of machines that people already own, and call them
#[derive(Debug, Parser)]
#[command(
    name = "orb",
    version,
    arg_required_else_help = true,
    after_help = "\
Exit codes:
  0 done            3 no answer in time     6 not found, decommissioned
  1 failed          4 did not verify        7 refused, overloaded
  2 usage, input    5 the function failed   8 no live host

Example:
  orb demo                        a whole network on this machine, in a few seconds
  orb new hello && cd hello
  orb run --input '{\"name\": \"world\"}'"
)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Globals {
    /// Print one JSON document on stdout, and nothing else there
    #[arg(long, global = true, help_heading = "Global options")]
    json: bool,
    /// Super node to ask, as NODEID@HOST:PORT (repeatable, or comma-separated)
    #[arg(
        long = "super",
        global = true,
        value_name = "ADDRESS",
        env = "ORB_SUPER",
        value_delimiter = ',',
        help_heading = "Global options"
    )]
    supers: Vec<String>,
    #[command(flatten)]
    discovery: DiscoveryArgs,
    /// Folder of keys, aliases and published artifacts [default: the XDG data folder `orb`]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "ORB_HOME",
        help_heading = "Global options"
    )]
    home: Option<PathBuf>,
}

impl Globals {
    /// The super nodes that flag or environment name. They are read when they are needed, so that a
    /// wrong one keeps nobody from what needs none, `orb doctor` above all. Empty ones are none, as in
    /// `ORB_SUPER=$(cat not-there-yet)`.
    fn supers(&self) -> Result<Vec<SuperAddr>, Failure> {
        let named = self.supers.iter().map(|text| text.trim());
        named
            .filter(|text| !text.is_empty())
            .map(|text| {
                text.parse().map_err(|error| {
                    Failure::usage(format!("in --super or ORB_SUPER: {error}"))
                        .help("it is in the file `address` of the super node's data folder")
                })
            })
            .collect()
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::DemoCommand),
    New(new::NewCommand),
    Build(build::BuildCommand),
    Run(run::RunCommand),
    Deploy(deploy::DeployCommand),
    Call(call::CallCommand),
    Bench(bench::BenchCommand),
    List(list::ListCommand),
    Inspect(inspect::InspectCommand),
    Events(events::EventsCommand),
    Versions(versions::VersionsCommand),
    Rollback(rollback::RollbackCommand),
    Decommission(decommission::DecommissionCommand),
    Super(super_node::SuperCommand),
    Node(node::NodeCommand),
    Id(id::IdCommand),
    Doctor(doctor::DoctorCommand),
    Completions(completions::CompletionsCommand),
}

impl Command {
    fn is_daemon(&self) -> bool {
        match self {
            Self::Super(command) => command.is_daemon(),
            Self::Node(_) => true,
            _ => false,
        }
    }

    async fn execute(self, globals: &Globals) -> Result<(), Failure> {
        // Daemons have keys of their own, and need no home.
        match self {
            Self::Super(command) => {
                return command
                    .execute(&globals.discovery, Output::new(globals.json))
                    .await;
            }
            Self::Node(command) => return command.execute(&globals.supers()?).await,
            Self::Demo(command) => return command.execute(Output::new(globals.json)).await,
            _ => {}
        }
        let context = &Context::new(globals)?;
        let result = self.execute_in(context).await;
        context.say_goodbye().await;
        result
    }

    async fn execute_in(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::New(command) => command.execute(context),
            Self::Build(command) => command.execute(context).await,
            Self::Run(command) => command.execute(context).await,
            Self::Deploy(command) => command.execute(context).await,
            Self::Call(command) => command.execute(context).await,
            Self::Bench(command) => command.execute(context).await,
            Self::List(command) => command.execute(context).await,
            Self::Inspect(command) => command.execute(context).await,
            Self::Events(command) => command.execute(context).await,
            Self::Versions(command) => command.execute(context).await,
            Self::Rollback(command) => command.execute(context).await,
            Self::Decommission(command) => command.execute(context).await,
            Self::Id(command) => command.execute(context),
            Self::Doctor(command) => command.execute(context).await,
            Self::Completions(command) => command.execute(context),
            Self::Super(_) | Self::Node(_) | Self::Demo(_) => Ok(()),
        }
    }
}

/// Parses the command line, runs the command and tells how it ended.
pub(crate) fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return refuse_arguments(&error, arguments.iter().any(|argument| argument == "--json")),
    };
    let out = Output::new(cli.globals.json);
    let ended = log::start(cli.command.is_daemon()).and_then(|()| run(cli));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure, out),
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::local(format!("cannot start threads: {error}")))?;
    let daemon = cli.command.is_daemon();
    // On the heap: the futures of some commands are large for a stack.
    let result = runtime.block_on(Box::pin(cli.command.execute(&cli.globals)));
    if !daemon {
        // What still compiles after an interruption is not waited for; a daemon's writes are.
        runtime.shutdown_background();
    }
    result
}

/// Help and version are no errors; for the rest clap says it well, and JSON is for programs.
fn refuse_arguments(error: &clap::Error, json: bool) -> ExitCode {
    if !error.use_stderr() || !json {
        // Nobody is left to be told if stdout and stderr are both gone.
        let _ = error.print();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
    }
    let text = error.to_string();
    let message = text
        .split("\n\n")
        .next()
        .unwrap_or_default()
        .trim_start_matches("error: ");
    let message = message.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    report(
        &Failure::usage(message).help("see `orb --help`"),
        Output::new(true),
    )
}

fn report(failure: &Failure, out: Output) -> ExitCode {
    out.failure(failure);
    ExitCode::from(failure.exit)
}

/// The command line's description, for completions, `orb doctor` and tests.
fn description() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        description().debug_assert();
    }

    /// The widths of terminals differ; help is checked at one.
    const WIDTH: usize = 100;

    fn help(name: &str) -> String {
        let mut orb = description().term_width(WIDTH);
        orb.build();
        let command = orb
            .find_subcommand_mut(name)
            .unwrap_or_else(|| panic!("there is no {name}"));
        command.render_long_help().to_string()
    }

    #[test]
    fn help_of_every_command() {
        let orb = description().term_width(WIDTH).render_long_help().to_string();
        insta::assert_snapshot!("orb", orb);
        let names: Vec<String> = description()
            .get_subcommands()
            .map(|c| c.get_name().to_owned())
            .collect();
        for name in names {
            let help = help(&name);
            assert!(help.contains("Example:\n  "), "{name} --help has no example");
            insta::assert_snapshot!(name, help);
        }
        let mut orb = description().term_width(WIDTH);
        orb.build();
        let asked = orb
            .find_subcommand_mut("super")
            .and_then(|super_node| super_node.find_subcommand_mut("dead-letters"));
        let help = asked.expect("it is there").render_long_help();
        insta::assert_snapshot!("super-dead-letters", help.to_string());
    }
}
