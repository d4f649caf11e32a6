//! The templates of `orb new`: whole projects under `guest-templates/`, embedded.

use std::fs;
use std::io;
use std::path::Path;

use orb_protocol::name::Name;

use crate::failure::Failure;

/// The name of the function, and of the crate, in every template.
const PLACEHOLDER: &str = "my-function";

/// A template's files: path and content.
pub(crate) type Template = &'static [(&'static str, &'static str)];

macro_rules! template {
    ($folder:literal: $($file:literal),+) => {
        &[$(($file, include_str!(concat!("../../guest-templates/", $folder, "/", $file)))),+]
    };
}

/// A JavaScript function.
pub(crate) const JS: Template = template!("js": "orb.toml", "index.js", "README.md", ".gitignore");
/// A Rust program for WASI.
pub(crate) const RUST: Template =
    template!("rust": "orb.toml", "Cargo.toml", "src/main.rs", "README.md", ".gitignore");

/// Writes a template into a new folder under a function's name. Returns the files' names.
///
/// # Errors
/// When there is such a folder already (it is left alone), or the disk does not take the files.
pub(crate) fn write(template: Template, name: &Name, folder: &Path) -> Result<Vec<String>, Failure> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(
                Failure::usage(format!("there is something called {} already", folder.display()))
                    .help("choose another name, or move that away"),
            );
        }
        other => other.map_err(|error| failed(folder, &error))?,
    }
    if let Err(failure) = fill(template, name, folder) {
        // The folder is ours, and half of one is in the way of the next attempt.
        let _ = fs::remove_dir_all(folder);
        return Err(failure);
    }
    Ok(template.iter().map(|(file, _)| (*file).to_owned()).collect())
}

fn fill(template: Template, name: &Name, folder: &Path) -> Result<(), Failure> {
    for (file, text) in template {
        let path = folder.join(file);
        let made = path.parent().map_or(Ok(()), fs::create_dir_all);
        made.and_then(|()| fs::write(&path, filled_in(file, text, name)))
            .map_err(|error| failed(&path, &error))?;
    }
    Ok(())
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::local(format!("cannot make {}: {error}", path.display()))
}

/// A file's text with the function's name in it. What cargo reads gets a name that cargo takes.
fn filled_in(file: &str, text: &str, name: &Name) -> String {
    let crate_name = crate_name(name);
    if file.starts_with("Cargo.") {
        return text.replace(PLACEHOLDER, &crate_name);
    }
    text.replace(&format!("{PLACEHOLDER}.wasm"), &format!("{crate_name}.wasm"))
        .replace(PLACEHOLDER, name.as_str())
}

/// Crates have no dots in their names, and do not begin with a digit.
fn crate_name(name: &Name) -> String {
    let name = name.as_str().replace('.', "-");
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        format!("fn-{name}")
    } else {
        name
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;
    use crate::project::{Project, Source};

    #[test]
    fn each_template_becomes_a_project_of_that_name() {
        let folder = tempfile::tempdir().unwrap();
        for (template, name) in [(JS, "hello"), (RUST, "2.sums")] {
            let name: Name = name.parse().unwrap();
            let at = folder.path().join(name.as_str());
            let files = write(template, &name, &at).unwrap();
            assert!(files.iter().all(|file| at.join(file).exists()));
            assert_eq!(Project::open(&at).unwrap().name, name);
        }
        let rust = Project::open(&folder.path().join("2.sums")).unwrap();
        assert_eq!(
            rust.source,
            Source::Wasm("target/wasm32-wasip1/release/fn-2-sums.wasm".into())
        );
        let cargo = fs::read_to_string(folder.path().join("2.sums/Cargo.toml")).unwrap();
        assert!(cargo.contains("name = \"fn-2-sums\""), "{cargo}");
    }

    #[test]
    fn what_cannot_be_made_whole_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("hello");
        // The second file would lie below the first one.
        let impossible: Template = &[("orb.toml", "schema = 1"), ("orb.toml/below", "")];
        let failure = write(impossible, &"hello".parse().unwrap(), &at).unwrap_err();
        assert_eq!(failure.exit, 1);
        assert!(!at.exists());
    }

    #[test]
    fn an_existing_folder_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let failure = write(JS, &"hello".parse().unwrap(), folder.path()).unwrap_err();
        assert_eq!(failure.exit, 2);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
