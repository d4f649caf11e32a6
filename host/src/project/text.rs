//! The text of an `orb.toml`, read and checked.

use std::path::{Path, PathBuf};

use orb_protocol::id::OwnerId;
use orb_protocol::manifest::{Limits, REPLICAS_MAX, VISIBILITY_MAX};
use orb_protocol::name::Name;
use serde::Deserialize;
use toml::Spanned;

use crate::config::{self, FileError};

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
    /// Reads the text of the project's file; `file` is what it is called in errors.
    ///
    /// # Errors
    /// What is wrong with which line of it.
    pub(crate) fn parse(folder: &Path, file: &str, text: &str) -> Result<Self, FileError> {
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
}

/// Checks what a type cannot say, and names the line.
struct Check<'a> {
    file: &'a str,
    text: &'a str,
}

impl Check<'_> {
    fn error(&self, at: usize, message: impl Into<String>) -> FileError {
        FileError::at(self.file, self.text, at, message.into())
    }

    fn schema(&self) -> Result<(), FileError> {
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
    ) -> Result<Source, FileError> {
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

    fn path(&self, key: &str, path: Spanned<PathBuf>) -> Result<PathBuf, FileError> {
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

    fn command(&self, command: Spanned<String>) -> Result<String, FileError> {
        let at = command.span().start;
        let command = command.into_inner();
        if command.trim().is_empty() {
            return Err(self.error(at, "`command` is empty: name a command, or leave [build] out"));
        }
        Ok(command)
    }

    fn content_type(&self, content_type: Spanned<String>) -> Result<String, FileError> {
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

    fn callers(&self, visibility: Spanned<Visibility>) -> Result<Option<Vec<OwnerId>>, FileError> {
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
        keys.iter().map(parse).collect::<Result<_, FileError>>().map(Some)
    }

    fn replicas(&self, replicas: &Spanned<u16>) -> Result<u16, FileError> {
        let number = *replicas.get_ref();
        if (1..=REPLICAS_MAX).contains(&number) {
            return Ok(number);
        }
        Err(self.error(
            replicas.span().start,
            format!("`replicas` is from 1 to {REPLICAS_MAX}, not {number}"),
        ))
    }

    fn capabilities(&self, capabilities: Option<Spanned<Vec<String>>>) -> Result<(), FileError> {
        match capabilities {
            Some(wanted) if !wanted.get_ref().is_empty() => Err(self.error(
                wanted.span().start,
                "`capabilities` asks for something, and this version of orb has none to give: a guest gets clocks and randomness",
            )),
            _ => Ok(()),
        }
    }

    fn limits(&self, section: LimitsSection) -> Result<Limits, FileError> {
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
