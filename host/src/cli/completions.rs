//! `orb completions`: completions for a shell.

use clap::Args;
use clap_complete::Shell;
use serde::Serialize;

use super::context::Context;
use crate::failure::Failure;

/// Print completions for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  orb completions bash > ~/.local/share/bash-completion/completions/orb")]
pub(crate) struct CompletionsCommand {
    /// Which shell
    shell: Shell,
}

#[derive(Serialize)]
struct Script {
    shell: String,
    script: String,
}

impl CompletionsCommand {
    pub(crate) fn execute(self, context: &Context) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::description(), "orb", &mut script);
        if !context.out.is_json() {
            return context.out.bytes(&script);
        }
        let shell = self.shell.to_string();
        let document = Script {
            script: String::from_utf8_lossy(&script).into_owned(),
            shell,
        };
        context
            .out
            .result(&document, &format!("completions for {}", document.shell), "")
    }
}
