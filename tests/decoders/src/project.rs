//! `orb.toml`, read by the host's own code.

#[path = "../../../host/src/project/text.rs"]
mod text;

use std::path::Path;

use text::{Project, Source};

/// Any text: what is taken is within the bounds that a manifest has, and an error names a line.
pub(crate) fn project(bytes: &[u8]) {
    let Ok(written) = std::str::from_utf8(bytes) else {
        return;
    };
    match Project::parse(Path::new("here"), "orb.toml", written) {
        Ok(project) => taken(&project),
        Err(error) => assert!(error.to_string().starts_with("orb.toml:"), "{error}"),
    }
}

fn taken(project: &Project) {
    assert_eq!(project.folder, Path::new("here"));
    assert!((1..=64).contains(&project.name.as_str().len()));
    assert!((1..=orb_protocol::manifest::REPLICAS_MAX).contains(&project.replicas));
    assert!(project.limits.fuel > 0 && project.limits.memory_bytes > 0 && project.limits.time_ms > 0);
    assert!(
        project
            .callers
            .as_ref()
            .is_none_or(|callers| callers.len() <= 256)
    );
    assert!(
        project
            .command
            .as_ref()
            .is_none_or(|command| !command.trim().is_empty())
    );
    assert!(project.content_type.as_ref().is_none_or(|kind| kind.len() <= 128));
    let (Source::JavaScript(path) | Source::Wasm(path)) = &project.source;
    assert!(!path.as_os_str().is_empty());
}
