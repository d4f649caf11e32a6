//! `orb new`: a project from a template.

use std::path::Path;

use clap::{Args, ValueEnum};
use orb_protocol::name::Name;
use serde::Serialize;

use super::context::Context;
use crate::failure::Failure;
use crate::output::Tone;
use crate::templates::{self, Template};

/// Make the folder of a new function
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  orb new hello --template js
  cd hello && orb run --input '{\"name\": \"world\"}'")]
pub(crate) struct NewCommand {
    /// The function's name, and the folder's: a-z, 0-9, '-', '_', '.'
    name: Name,
    /// What to begin with
    #[arg(long, short, value_enum, default_value_t = TemplateName::Js)]
    template: TemplateName,
}

/// A template, as it is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TemplateName {
    /// A JavaScript function: JSON in, JSON out
    Js,
    /// A Rust program: stdin in, stdout out
    Rust,
}

#[derive(Serialize)]
struct Made {
    name: String,
    folder: String,
    files: Vec<String>,
}

impl NewCommand {
    pub(crate) fn execute(self, context: &Context) -> Result<(), Failure> {
        let (template, next): (Template, _) = match self.template {
            TemplateName::Js => (templates::JS, "orb run --input '{\"name\": \"world\"}'"),
            TemplateName::Rust => (templates::RUST, "orb run --input '{\"numbers\": [1, 2, 3]}'"),
        };
        let folder = Path::new(self.name.as_str());
        let files = templates::write(template, &self.name, folder)?;
        let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let document = Made {
            name: self.name.to_string(),
            folder: absolute.display().to_string(),
            files,
        };
        let summary = format!("made {}/ with {}", self.name, document.files.join(", "));
        let text = format!(
            "{summary}\n\n  {}",
            context
                .out
                .paint(Tone::Strong, format!("cd {} && {next}", self.name))
        );
        context.out.result(&document, &summary, &text)
    }
}
