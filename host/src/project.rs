//! `orb.toml`: what a function is, as its developer writes it down.

use std::path::{Path, PathBuf};

use orb_protocol::id::OwnerId;
use orb_protocol::manifest::{Limits, REPLICAS_MAX, VISIBILITY_MAX};
use orb_protocol::name::Name;
use serde::Deserialize;
use toml::Spanned;

use crate::config::{self, FileError};
use crate::failure::Failure;

/// The file's name.
pub(crate) const FILE: &str = "orb.toml";
/// The version of the file's form that this program reads.
const SCHEMA: u32 = 1;
/// Hosts that should hold a function that does not say.
const REPLICAS_DEFAULT: u16 = 3;
/// The longest media type, in bytes, as in a manifest.
const CONTENT_TYPE_LEN_MAX: usize = 128;

/// A function's project, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Project {
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// The function's name.
    pub(crate) name: Name,
    /// What is built.
    pub(crate) source: Source,
    /// A command to run first, in the folder.
    pub(crate) command: Option<String>,
    /// The answer's media type, if the file says one.
    pub(crate) content_type: Option<String>,
    /// Whether a call may be run again after it may have run once.
    pub(crate) idempotent: bool,
    /// `None`: anybody may call. Otherwise these keys and the owner's.
    pub(crate) callers: Option<Vec<OwnerId>>,
    /// How many hosts should hold the function.
    pub(crate) replicas: u16,
    /// What one call may use.
    pub(crate) limits: Limits,
}

/// What an artifact is made from; paths are relative to the project's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A JavaScript module, to be compiled.
    JavaScript(PathBuf),
    /// A WebAssembly module, to be taken as it is.
    Wasm(PathBuf),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "schema")]
    _schema: u32,
    name: Name,
    main: Option<Spanned<PathBuf>>,
    wasm: Option<Spanned<PathBuf>>,
    build: Option<BuildSection>,
    content_type: Option<Spanned<String>>,
    #[serde(default)]
    idempotent: bool,
    #[serde(default)]
    visibility: Option<Spanned<Visibility>>,
    replicas: Option<Spanned<u16>>,
    #[serde(default)]
    capabilities: Option<Spanned<Vec<String>>>,
    #[serde(default)]
    limits: LimitsSection,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BuildSection {
    command: Spanned<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected \"public\" or a list of owners' keys")]
enum Visibility {
    Word(String),
    Callers(Vec<String>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsSection {
    fuel: Option<Spanned<u64>>,
    memory_bytes: Option<Spanned<u64>>,
    time_ms: Option<Spanned<u64>>,
    input_bytes: Option<Spanned<u64>>,
    output_bytes: Option<Spanned<u64>>,
    log_bytes: Option<Spanned<u64>>,
}

impl Project {
    /// Reads the project at `path`: a folder with an `orb.toml`, or that file.
    ///
    /// # Errors
    /// When there is none, or what is wrong with which line of it.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let folder = match path.file_name() {
            Some(name) if name == FILE => path.parent().unwrap_or(Path::new("")),
            _ => path,
        };
        let folder = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        };
        let file = folder.join(FILE);
        match std::fs::read_to_string(&file) {
            Ok(text) => Self::parse(folder, &file.display().to_string(), &text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(absent(folder)),
            Err(error) => Err(Failure::config(format!(
                "cannot read {}: {error}",
                file.display()
            ))),
        }
    }

    fn parse(folder: &Path, file: &str, text: &str) -> Result<Self, Failure> {
        let check = Check { file, text };
        // Before anything else: a newer form may have keys that are unknown here.
        check.schema()?;
        let raw: File = config::parse(file, text)?;
        Ok(Self {
            folder: folder.to_owned(),
            source: check.source(raw.main, raw.wasm)?,
            command: raw.build.map(|build| check.command(build.command)).transpose()?,
            content_type: raw
                .content_type
                .map(|text| check.content_type(text))
                .transpose()?,
            idempotent: raw.idempotent,
            callers: raw
                .visibility
                .map_or(Ok(None), |visibility| check.callers(visibility))?,
            replicas: raw
                .replicas
                .map_or(Ok(REPLICAS_DEFAULT), |replicas| check.replicas(&replicas))?,
            limits: check.limits(raw.limits)?,
            name: {
                check.capabilities(raw.capabilities)?;
                raw.name
            },
        })
    }

    /// Where `orb build` puts the artifact.
    pub(crate) fn artifact_path(&self) -> PathBuf {
        self.folder.join(".orb").join(format!("{}.wasm", self.name))
    }
}

fn absent(folder: &Path) -> Failure {
    let place = match folder.to_str() {
        Some(".") => "this folder".to_owned(),
        _ => folder.display().to_string(),
    };
    let message = if folder.exists() {
        format!("{place} has no {FILE}, so it is no function's folder")
    } else {
        format!("there is no folder {place}")
    };
    Failure::new("no_project", message)
        .exit(2)
        .help("make one with `orb new NAME --template js`, or name the folder of one")
}

/// Checks what a type cannot say, and names the line.
struct Check<'a> {
    file: &'a str,
    text: &'a str,
}

impl Check<'_> {
    fn error(&self, at: usize, message: impl Into<String>) -> Failure {
        FileError::at(self.file, self.text, at, message.into()).into()
    }

    fn schema(&self) -> Result<(), Failure> {
        #[derive(Deserialize)]
        struct OnlySchema {
            schema: Option<Spanned<u32>>,
        }
        let schema = match config::parse::<OnlySchema>(self.file, self.text)?.schema {
            Some(schema) => schema,
            None => {
                return Err(self.error(0, format!("missing key `schema`: begin with `schema = {SCHEMA}`")));
            }
        };
        match *schema.get_ref() {
            SCHEMA => Ok(()),
            other => Err(self.error(
                schema.span().start,
                format!("`schema` is {other}, and this version of orb reads {SCHEMA}: update orb, or write `schema = {SCHEMA}`"),
            )),
        }
    }

    fn source(
        &self,
        main: Option<Spanned<PathBuf>>,
        wasm: Option<Spanned<PathBuf>>,
    ) -> Result<Source, Failure> {
        match (main, wasm) {
            (Some(main), None) => self.path("main", main).map(Source::JavaScript),
            (None, Some(wasm)) => self.path("wasm", wasm).map(Source::Wasm),
            (Some(main), Some(wasm)) => Err(self.error(
                main.span().start.max(wasm.span().start),
                "there are both `main` and `wasm`: keep `main` for JavaScript, or `wasm` for a WebAssembly file",
            )),
            (None, None) => Err(self.error(
                0,
                "missing key `main` or `wasm`: write `main = \"index.js\"` for JavaScript, or `wasm = \"PATH\"` for a WebAssembly file",
            )),
        }
    }

    fn path(&self, key: &str, path: Spanned<PathBuf>) -> Result<PathBuf, Failure> {
        let at = path.span().start;
        let path = path.into_inner();
        if path.as_os_str().is_empty() {
            return Err(self.error(at, format!("`{key}` is empty: name a file")));
        }
        if key == "main"
            && path
                .extension()
                .is_some_and(|ending| ending == "ts" || ending == "tsx")
        {
            return Err(self.error(
                at,
                "`main` is TypeScript, which this version of orb does not compile: compile it under [build], and name the JavaScript file",
            ));
        }
        Ok(path)
    }

    fn command(&self, command: Spanned<String>) -> Result<String, Failure> {
        let at = command.span().start;
        let command = command.into_inner();
        if command.trim().is_empty() {
            return Err(self.error(at, "`command` is empty: name a command, or leave [build] out"));
        }
        Ok(command)
    }

    fn content_type(&self, content_type: Spanned<String>) -> Result<String, Failure> {
        let at = content_type.span().start;
        let content_type = content_type.into_inner();
        let plain = content_type.bytes().all(|b| (0x20..0x7f).contains(&b));
        if !plain || !content_type.contains('/') || content_type.len() > CONTENT_TYPE_LEN_MAX {
            return Err(self.error(
                at,
                format!("`content_type` is a media type such as \"application/json\", of at most {CONTENT_TYPE_LEN_MAX} bytes"),
            ));
        }
        Ok(content_type)
    }

    fn callers(&self, visibility: Spanned<Visibility>) -> Result<Option<Vec<OwnerId>>, Failure> {
        let at = visibility.span().start;
        let keys = match visibility.into_inner() {
            Visibility::Word(word) if word == "public" => return Ok(None),
            Visibility::Word(word) => {
                let message = format!("`visibility` is \"public\" or a list of owners' keys, not {word:?}");
                return Err(self.error(at, message));
            }
            Visibility::Callers(keys) => keys,
        };
        if keys.len() > VISIBILITY_MAX {
            return Err(self.error(
                at,
                format!(
                    "`visibility` names {} keys, and at most {VISIBILITY_MAX} fit",
                    keys.len()
                ),
            ));
        }
        let parse = |key: &String| {
            let owner: OwnerId = key
                .parse()
                .map_err(|error| self.error(at, format!("`visibility`: {error}")))?;
            owner
                .check()
                .map_err(|error| self.error(at, format!("`visibility`: {owner}: {error}")))?;
            Ok(owner)
        };
        keys.iter().map(parse).collect::<Result<_, Failure>>().map(Some)
    }

    fn replicas(&self, replicas: &Spanned<u16>) -> Result<u16, Failure> {
        let number = *replicas.get_ref();
        if (1..=REPLICAS_MAX).contains(&number) {
            return Ok(number);
        }
        Err(self.error(
            replicas.span().start,
            format!("`replicas` is from 1 to {REPLICAS_MAX}, not {number}"),
        ))
    }

    fn capabilities(&self, capabilities: Option<Spanned<Vec<String>>>) -> Result<(), Failure> {
        match capabilities {
            Some(wanted) if !wanted.get_ref().is_empty() => Err(self.error(
                wanted.span().start,
                "`capabilities` asks for something, and this version of orb has none to give: a guest gets clocks and randomness",
            )),
            _ => Ok(()),
        }
    }

    fn limits(&self, section: LimitsSection) -> Result<Limits, Failure> {
        let mut limits = Limits::default();
        for (key, value, limit) in [
            ("fuel", section.fuel, &mut limits.fuel),
            ("memory_bytes", section.memory_bytes, &mut limits.memory_bytes),
            ("time_ms", section.time_ms, &mut limits.time_ms),
            ("input_bytes", section.input_bytes, &mut limits.input_bytes),
            ("output_bytes", section.output_bytes, &mut limits.output_bytes),
            ("log_bytes", section.log_bytes, &mut limits.log_bytes),
        ] {
            let Some(value) = value else { continue };
            *limit = *value.get_ref();
            if *limit == 0 && matches!(key, "fuel" | "memory_bytes" | "time_ms") {
                return Err(self.error(
                    value.span().start,
                    format!("`{key}` of 0 lets nothing run: give more"),
                ));
            }
        }
        Ok(limits)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use orb_protocol::key::OwnerKey;

    use super::*;

    fn parse(text: &str) -> Result<Project, Failure> {
        Project::parse(Path::new("p"), "orb.toml", text)
    }

    fn javascript(more: &str) -> Result<Project, Failure> {
        parse(&format!(
            "schema = 1\nname = \"hello\"\nmain = \"index.js\"\n{more}"
        ))
    }

    #[test]
    fn three_lines_are_enough() {
        let project = javascript("").unwrap();
        assert_eq!(project.name.as_str(), "hello");
        assert_eq!(project.source, Source::JavaScript("index.js".into()));
        assert_eq!(project.limits, Limits::default());
        assert_eq!(
            (project.replicas, project.idempotent, project.callers.clone()),
            (3, false, None)
        );
        assert_eq!(project.artifact_path(), Path::new("p/.orb/hello.wasm"));
    }

    #[test]
    fn everything_can_be_said() {
        let friend = OwnerKey::from_seed([1; 32]).id();
        let project = parse(&format!(
            "schema = 1\nname = \"sum\"\nwasm = \"target/sum.wasm\"\ncontent_type = \"text/plain\"\n\
             idempotent = true\nvisibility = [\"{friend}\"]\nreplicas = 5\ncapabilities = []\n\
             [build]\ncommand = \"make\"\n[limits]\nfuel = 1_000\nmemory_bytes = 1_048_576\nlog_bytes = 0\n"
        ))
        .unwrap();
        assert_eq!(project.source, Source::Wasm("target/sum.wasm".into()));
        assert_eq!(project.command.as_deref(), Some("make"));
        assert_eq!(project.content_type.as_deref(), Some("text/plain"));
        assert_eq!((project.limits.fuel, project.limits.log_bytes), (1_000, 0));
        assert_eq!(project.limits.time_ms, Limits::default().time_ms);
        assert_eq!(project.callers, Some(vec![friend]));
        assert!(project.idempotent);
    }

    #[test]
    fn each_mistake_names_its_line_and_key() {
        for (more, says) in [
            ("colour = 1", "orb.toml:4: unknown key `colour`"),
            ("[limits]\nfule = 1", "orb.toml:5: unknown key `fule`"),
            ("[limits]\nfuel = 0", "orb.toml:5: `fuel` of 0"),
            ("[limits]\nfuel = -1", "orb.toml:5: invalid value"),
            ("[build]\ncommand = \" \"", "orb.toml:5: `command` is empty"),
            ("replicas = 65", "orb.toml:4: `replicas` is from 1 to 64, not 65"),
            ("replicas = 0", "orb.toml:4: `replicas`"),
            (
                "wasm = \"a.wasm\"",
                "orb.toml:4: there are both `main` and `wasm`",
            ),
            (
                "visibility = \"private\"",
                "orb.toml:4: `visibility` is \"public\" or",
            ),
            ("visibility = [\"x\"]", "orb.toml:4: `visibility`: an id has 52"),
            ("visibility = 1", "orb.toml:4: expected \"public\" or a list"),
            ("content_type = \"json\"", "orb.toml:4: `content_type`"),
            ("capabilities = [\"network\"]", "orb.toml:4: `capabilities`"),
            ("name = \"again\"", "orb.toml:4: duplicate key"),
            ("idempotent = \"yes\"", "orb.toml:4: invalid type"),
        ] {
            let failure = javascript(more).unwrap_err();
            assert!(failure.message.contains(says), "{more}: {failure}");
            assert_eq!(failure.exit, 2);
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        for (text, says) in [
            ("", "missing key `schema`"),
            ("schema = 2\nsomething = \"new\"", "orb.toml:1: `schema` is 2"),
            ("schema = 1\nmain = \"index.js\"", "missing key `name`"),
            (
                "schema = 1\nname = \"Hello\"\nmain = \"index.js\"",
                "orb.toml:2: \"Hello\" is not a name",
            ),
            ("schema = 1\nname = \"hello\"", "missing key `main` or `wasm`"),
            (
                "schema = 1\nname = \"hello\"\nmain = \"\"",
                "orb.toml:3: `main` is empty",
            ),
            (
                "schema = 1\nname = \"hello\"\nmain = \"index.ts\"",
                "orb.toml:3: `main` is TypeScript",
            ),
            ("schema = ", "orb.toml:1: "),
        ] {
            let failure = parse(text).unwrap_err();
            assert!(failure.message.contains(says), "{text}: {failure}");
        }
    }

    #[test]
    fn a_folder_without_the_file_is_no_project() {
        let folder = tempfile::tempdir().unwrap();
        let failure = Project::open(folder.path()).unwrap_err();
        assert!(failure.message.contains("has no orb.toml"), "{failure}");
        assert_eq!(failure.exit, 2);
        let failure = Project::open(&folder.path().join("missing")).unwrap_err();
        assert!(failure.message.contains("there is no folder"), "{failure}");
        std::fs::write(
            folder.path().join(FILE),
            "schema = 1\nname = \"a\"\nmain = \"a.js\"",
        )
        .unwrap();
        let project = Project::open(&folder.path().join(FILE)).unwrap();
        assert_eq!(project.folder, folder.path());
    }
}
