//! `orb completions`: completions for a shell.

use clap::Args;
use clap_complete::Shell;

use crate::failure::Failure;

/// Print completions for a shell
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orb completions bash > ~/.local/share/bash-completion/completions/orb")]
pub(crate) struct CompletionsCommand {
    /// Which shell
    shell: Shell,
}

impl CompletionsCommand {
    pub(crate) fn execute(self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::description(), "orb", &mut script);
        use std::io::Write;
        std::io::stdout()
            .write_all(&script)
            .map_err(|error| Failure::local(format!("cannot write to stdout: {error}")))
    }
}
