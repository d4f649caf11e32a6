//! `orb build`: source to Wasm.
//!
//! 1. The project's own command, if it has one.
//! 2. JavaScript is compiled to bytecode by the very engine that will run it, and put into a module
//!    by orb-runtime's emitter. A WebAssembly file is taken as it is.
//! 3. What comes out is admitted as a host admits it.

use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use orb_protocol::id::{ArtifactHash, EngineHash};
use orb_protocol::manifest::{Kind, Publish, Visibility};
use orb_protocol::wire::extension::Extensions;
use orb_runtime::AdmissionError;

use crate::failure::Failure;
use crate::local_sandbox::LocalSandbox;
use crate::project::{Project, Source};

mod javascript;

/// The longest source that is compiled, in bytes: bundles of whole applications have a few megabytes.
const SOURCE_LEN_MAX: u64 = 16 << 20;

/// An artifact, built.
#[derive(Debug, Clone)]
pub(crate) struct Built {
    /// The Wasm bytes.
    pub(crate) wasm: Bytes,
    /// What kind of program they are.
    pub(crate) kind: Kind,
    /// The engine that they need.
    pub(crate) engine: Option<EngineHash>,
    /// Where they were written.
    pub(crate) path: PathBuf,
    /// How long the source is, where it was compiled here.
    pub(crate) source_bytes: Option<u64>,
    /// How long it took.
    pub(crate) time: Duration,
}

impl Built {
    /// The artifact's name.
    pub(crate) fn hash(&self) -> ArtifactHash {
        ArtifactHash::of(&self.wasm)
    }

    /// What a revision with this artifact says.
    pub(crate) fn publish(&self, project: &Project) -> Publish {
        let content_type = project
            .content_type
            .clone()
            .unwrap_or_else(|| default_content_type(self.kind).to_owned());
        Publish {
            artifact: self.hash(),
            artifact_bytes: self.wasm.len() as u64,
            kind: self.kind,
            engine: self.engine,
            limits: project.limits,
            capabilities: Vec::new(),
            visibility: Visibility {
                callers: project.callers.clone(),
            },
            idempotent: project.idempotent,
            replicas: project.replicas,
            content_type,
            extensions: Extensions::none(),
        }
    }
}

/// The media type of answers whose function does not say.
pub(crate) fn default_content_type(kind: Kind) -> &'static str {
    match kind {
        Kind::JavyFunction => "application/json",
        _ => "application/octet-stream",
    }
}

/// Builds a project's artifact and writes it to `.orb/NAME.wasm`.
///
/// # Errors
/// A command that fails, a source that does not compile, a module that no host would run.
pub(crate) async fn build(project: &Project, sandbox: &LocalSandbox) -> Result<Built, Failure> {
    let started = Instant::now();
    if let Some(command) = &project.command {
        run_command(project, command)?;
    }
    let (wasm, source_bytes) = match &project.source {
        Source::JavaScript(main) => {
            let source = read(project, main, "main", SOURCE_LEN_MAX)?;
            let length = source.len() as u64;
            (javascript::compile(&source, main, sandbox).await?, Some(length))
        }
        Source::Wasm(path) => (read(project, path, "wasm", artifact_len_max())?, None),
    };
    let (kind, engine) = admit(&wasm, &project.folder.join(source_path(&project.source)))?;
    let path = project.artifact_path();
    write(&path, &wasm)
        .map_err(|error| Failure::local(format!("cannot write {}: {error}", path.display())))?;
    Ok(Built {
        wasm: wasm.into(),
        kind,
        engine,
        path,
        source_bytes,
        time: started.elapsed(),
    })
}

/// A Wasm file outside any project, admitted.
///
/// # Errors
/// When it cannot be read, or no host would run it.
pub(crate) fn load(path: &Path) -> Result<Built, Failure> {
    let started = Instant::now();
    let wasm = read_file(path, artifact_len_max()).map_err(|error| unreadable(path, &error, ""))?;
    let (kind, engine) = admit(&wasm, path)?;
    Ok(Built {
        wasm: wasm.into(),
        kind,
        engine,
        path: path.to_owned(),
        source_bytes: None,
        time: started.elapsed(),
    })
}

/// Checks a module as a host does; `named` is what it is called in errors.
fn admit(wasm: &[u8], named: &Path) -> Result<(Kind, Option<EngineHash>), Failure> {
    let admitted = orb_runtime::admit(wasm).map_err(|error| not_admitted(named, &error))?;
    let kind = match admitted.kind {
        orb_runtime::Kind::Command => Kind::Command,
        orb_runtime::Kind::JavyFunction => Kind::JavyFunction,
        orb_runtime::Kind::JavyScript => Kind::JavyScript,
    };
    Ok((kind, admitted.engine.map(EngineHash::from_bytes)))
}

fn not_admitted(named: &Path, error: &AdmissionError) -> Failure {
    let named = named.display();
    let (kind, message) = match error {
        AdmissionError::NotWasm { .. } | AdmissionError::Invalid { .. } => {
            ("not_wasm", format!("{named}: {error}"))
        }
        AdmissionError::ImportNotOffered { .. } | AdmissionError::ImportType { .. } => {
            ("import", format!("{named}: {error}"))
        }
        AdmissionError::ForeignJavy { .. } | AdmissionError::EngineUnknown { .. } => (
            "not_ours",
            format!("{named} is no javy artifact of this orb: {error}"),
        ),
        AdmissionError::TooLarge { .. } | AdmissionError::TooMany { .. } => {
            ("too_large", format!("{named}: {error}"))
        }
        _ => ("not_a_program", format!("{named}: {error}")),
    };
    Failure::new(kind, message)
        .exit(2)
        .help("build it as the message says, or name another file as `wasm` in orb.toml")
}

fn artifact_len_max() -> u64 {
    orb_runtime::AdmissionLimits::default().module_bytes
}

fn source_path(source: &Source) -> &Path {
    match source {
        Source::JavaScript(path) | Source::Wasm(path) => path,
    }
}

/// Runs the project's command in its folder. What it prints goes to stderr, since stdout is for results.
fn run_command(project: &Project, command: &str) -> Result<(), Failure> {
    let failed = |what: String| {
        Failure::new("build_failed", format!("`{command}` {what}"))
            .help("it is the `command` under [build] in orb.toml, run in the project's folder")
    };
    let status = Command::new("sh")
        .args(["-c", command])
        .current_dir(&project.folder)
        .stdin(Stdio::null())
        .stdout(io::stderr())
        .status()
        .map_err(|error| failed(format!("cannot be run: {error}")))?;
    if status.success() {
        return Ok(());
    }
    Err(failed(ended(status)))
}

fn ended(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("ended with exit code {code}"),
        None => format!("was ended ({status})"),
    }
}

fn read(project: &Project, path: &Path, key: &str, len_max: u64) -> Result<Vec<u8>, Failure> {
    let file = project.folder.join(path);
    let hint = match (key, &project.command) {
        ("wasm", None) => "; build it first, or let [build] `command` do so",
        ("wasm", Some(_)) => "; the command under [build] did not make it",
        _ => "",
    };
    read_file(&file, len_max)
        .map_err(|error| unreadable(&file, &error, &format!(" (`{key}` in orb.toml{hint})")))
}

fn read_file(path: &Path, len_max: u64) -> io::Result<Vec<u8>> {
    // What a file says of its length need not be true: devices and pipes have none.
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(len_max + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > len_max {
        return Err(io::Error::other(format!(
            "it is longer than the {len_max} bytes that are taken"
        )));
    }
    Ok(bytes)
}

fn unreadable(path: &Path, error: &io::Error, more: &str) -> Failure {
    Failure::new(
        "build_failed",
        format!("cannot read {}{more}: {error}", path.display()),
    )
}

/// Writes a file whole or not at all; a deploy at the same time reads the old one or the new one.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    // Readable like any build product, as far as the user's umask lets others read.
    let file = tempfile::Builder::new()
        .prefix(".build-")
        .permissions(std::fs::Permissions::from_mode(0o666))
        .tempfile_in(folder)?;
    std::fs::write(file.path(), bytes)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;

    /// The smallest command: `_start` that does nothing, and a memory.
    const COMMAND: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x05\x03\x01\0\x01\
        \x07\x13\x02\x06memory\x02\0\x06_start\0\0\x0a\x04\x01\x02\0\x0b";

    fn project(toml: &str, files: &[(&str, &[u8])]) -> (tempfile::TempDir, Project) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("orb.toml"),
            format!("schema = 1\nname = \"p\"\n{toml}"),
        )
        .unwrap();
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        let project = Project::open(folder.path()).unwrap();
        (folder, project)
    }

    async fn built(toml: &str, files: &[(&str, &[u8])]) -> Result<Built, Failure> {
        let (folder, project) = project(toml, files);
        build(&project, &LocalSandbox::new(folder.path().join("cache"))).await
    }

    #[tokio::test]
    async fn a_wasm_file_is_taken_as_it_is() {
        let (folder, project) = project("wasm = \"a.wasm\"", &[("a.wasm", COMMAND)]);
        let built = build(&project, &LocalSandbox::new(folder.path().join("cache")))
            .await
            .unwrap();
        assert_eq!((built.kind, built.engine), (Kind::Command, None));
        assert_eq!(std::fs::read(folder.path().join(".orb/p.wasm")).unwrap(), COMMAND);
        assert_eq!(built.publish(&project).content_type, "application/octet-stream");
    }

    #[tokio::test]
    async fn the_command_runs_first_in_the_folder() {
        let toml = "wasm = \"b.wasm\"\n[build]\ncommand = \"cp a.wasm b.wasm\"";
        assert_eq!(
            built(toml, &[("a.wasm", COMMAND)]).await.unwrap().kind,
            Kind::Command
        );
        let toml = "wasm = \"b.wasm\"\n[build]\ncommand = \"exit 3\"";
        let failure = built(toml, &[]).await.unwrap_err();
        assert_eq!((failure.kind, failure.exit), ("build_failed", 1));
        assert!(
            failure.message.contains("`exit 3` ended with exit code 3"),
            "{failure}"
        );
    }

    #[tokio::test]
    async fn what_no_host_would_run_is_refused_by_name() {
        let failure = built("wasm = \"a.wasm\"", &[("a.wasm", b"hello")])
            .await
            .unwrap_err();
        assert_eq!((failure.kind, failure.exit), ("not_wasm", 2));
        assert!(
            failure.message.contains("a.wasm: this is not WebAssembly"),
            "{failure}"
        );
        let failure = built("wasm = \"/dev/zero\"", &[]).await.unwrap_err();
        assert!(failure.message.contains("is longer than"), "{failure}");
        let failure = built("wasm = \"a.wasm\"", &[]).await.unwrap_err();
        assert!(failure.message.contains("build it first"), "{failure}");
        let failure = built("main = \"index.js\"", &[]).await.unwrap_err();
        assert!(
            failure
                .message
                .contains("index.js (`main` in orb.toml): No such file"),
            "{failure}"
        );
    }
}
