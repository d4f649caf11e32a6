//! `orb.toml`: what a function is, as its developer writes it down.

mod text;

use std::path::{Path, PathBuf};

use crate::failure::Failure;

pub(crate) use text::{Project, Source};

/// The file's name.
pub(crate) const FILE: &str = "orb.toml";

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
            Ok(text) => Ok(Self::parse(folder, &file.display().to_string(), &text)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(absent(folder)),
            Err(error) => Err(Failure::config(format!(
                "cannot read {}: {error}",
                file.display()
            ))),
        }
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use orb_protocol::key::OwnerKey;
    use orb_protocol::manifest::Limits;

    use super::*;

    fn parse(text: &str) -> Result<Project, Failure> {
        Ok(Project::parse(Path::new("p"), "orb.toml", text)?)
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
