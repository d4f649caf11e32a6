//! `orb build`: a project's artifact.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::context::Context;
use super::describe;
use crate::builder::{self, Built};
use crate::config::ByteSize;
use crate::failure::Failure;
use crate::format;
use crate::project::Project;

/// Build a function's artifact: .orb/NAME.wasm
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  orb build
  orb build ./hello --json")]
pub(crate) struct BuildCommand {
    /// The function's folder
    #[arg(default_value = ".")]
    path: PathBuf,
}

/// An artifact, for programs.
#[derive(Debug, Serialize)]
pub(crate) struct BuiltDocument {
    name: String,
    kind: &'static str,
    artifact: String,
    artifact_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    engine: Option<String>,
    path: String,
    build_ms: f64,
}

impl BuiltDocument {
    fn of(project: &Project, built: &Built) -> Self {
        Self {
            name: project.name.to_string(),
            kind: describe::kind(built.kind),
            artifact: built.hash().to_string(),
            artifact_bytes: built.wasm.len() as u64,
            source_bytes: built.source_bytes,
            engine: built.engine.map(|engine| engine.to_string()),
            path: std::path::absolute(&built.path)
                .unwrap_or_else(|_| built.path.clone())
                .display()
                .to_string(),
            build_ms: format::ms(built.time),
        }
    }
}

impl BuildCommand {
    pub(crate) async fn execute(self, context: &Context) -> Result<(), Failure> {
        let project = Project::open(&self.path)?;
        let built = builder::build(&project, &context.sandbox).await?;
        let from = built
            .source_bytes
            .map(|bytes| format!(" from {} of source", ByteSize(bytes)))
            .unwrap_or_default();
        let summary = format!(
            "built {}: {} {}{from}, in {}",
            built.path.strip_prefix(".").unwrap_or(&built.path).display(),
            ByteSize(built.wasm.len() as u64),
            describe::kind(built.kind),
            format::time(built.time)
        );
        context
            .out
            .result(&BuiltDocument::of(&project, &built), &summary, &summary)
    }
}
