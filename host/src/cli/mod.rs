//! The command line: one file per command.

mod completions;
mod node;
mod super_node;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::config::SuperAddress;
use crate::failure::Failure;

/// Publish functions to a network of machines that people already own, and call them.
#[derive(Debug, Parser)]
#[command(
    name = "orb",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Globals {
    /// Print one JSON document on stdout, and nothing else there
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
    /// Super node to ask, as NODEID@HOST:PORT (repeatable, or comma-separated)
    #[arg(
        long = "super",
        global = true,
        value_name = "ADDRESS",
        env = "ORB_SUPER",
        value_delimiter = ',',
        help_heading = "Global options"
    )]
    pub(crate) supers: Vec<SuperAddress>,
    /// Folder of keys, aliases and published artifacts [default: the XDG data folder `orb`]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "ORB_HOME",
        help_heading = "Global options"
    )]
    pub(crate) home: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Super(super_node::SuperCommand),
    Node(node::NodeCommand),
    Completions(completions::CompletionsCommand),
}

impl Command {
    async fn execute(self, globals: &Globals) -> Result<(), Failure> {
        match self {
            Self::Super(command) => command.execute().await,
            Self::Node(command) => command.execute(globals).await,
            Self::Completions(command) => command.execute(),
        }
    }
}

/// Parses the command line, runs the command and tells how it ended.
pub(crate) fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return refuse_arguments(&error, arguments.iter().any(|a| a == "--json")),
    };
    start_log(matches!(cli.command, Command::Super(_) | Command::Node(_)));
    let json = cli.globals.json;
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure, json),
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::local(format!("cannot start threads: {error}")))?;
    runtime.block_on(cli.command.execute(&cli.globals))
}

/// Help and version are no errors; for the rest clap says it well, and JSON is for programs.
fn refuse_arguments(error: &clap::Error, json: bool) -> ExitCode {
    if !error.use_stderr() || !json {
        // Nothing is left to tell it to if stdout and stderr are both gone.
        let _ = error.print();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
    }
    let text = error.to_string();
    let message = text
        .lines()
        .next()
        .unwrap_or_default()
        .trim_start_matches("error: ");
    report(&Failure::usage(message).help("see `orb --help`"), true)
}

fn report(failure: &Failure, json: bool) -> ExitCode {
    if json {
        println!("{}", failure.to_json());
    }
    eprintln!("error: {failure}");
    ExitCode::from(failure.exit)
}

/// Daemons log what they do; commands only what goes wrong.
fn start_log(daemon: bool) {
    use tracing_subscriber::EnvFilter;
    let default = if daemon { "info" } else { "error" };
    let filter = EnvFilter::try_from_env("ORB_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

/// The command line's description, for completions and tests.
fn description() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_holds_together() {
        super::description().debug_assert();
    }
}
