//! TOML files: typed, and an error names the line and the key.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// The longest file that is read, in bytes: a person wrote it.
const FILE_LEN_MAX: u64 = 1 << 20;

/// Why a file does not say what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// It cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It is longer than a person writes.
    #[error("{} is longer than {FILE_LEN_MAX} bytes, so it is not what it should be", .0.display())]
    TooLong(PathBuf),
    /// A line in it is wrong.
    #[error("{file}:{line}: {message}")]
    Line {
        /// The file, as it is called.
        file: String,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
}

impl FileError {
    /// What is wrong at a byte of a file's text.
    pub(crate) fn at(file: &str, text: &str, offset: usize, message: String) -> Self {
        let before = &text.as_bytes()[..offset.min(text.len())];
        Self::Line {
            file: file.to_owned(),
            line: before.iter().filter(|&&byte| byte == b'\n').count() + 1,
            message,
        }
    }
}

/// Reads a typed file.
///
/// # Errors
/// [`FileError`].
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, FileError> {
    let failed = |error| FileError::Read {
        path: path.to_owned(),
        error,
    };
    let mut text = String::new();
    // What a file says of its length need not be true: devices and pipes have none.
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_LEN_MAX + 1).read_to_string(&mut text))
        .map_err(failed)?;
    if text.len() as u64 > FILE_LEN_MAX {
        return Err(FileError::TooLong(path.to_owned()));
    }
    parse(&path.display().to_string(), &text)
}

/// Reads a typed file's text; `file` is what it is called in errors.
///
/// # Errors
/// [`FileError::Line`].
pub(crate) fn parse<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, FileError> {
    toml::from_str(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        FileError::at(file, text, offset, in_our_words(error.message()))
    })
}

/// serde calls them fields; whoever writes a TOML file calls them keys.
fn in_our_words(message: &str) -> String {
    message
        .trim()
        .replace("unknown field", "unknown key")
        .replace("missing field", "missing key")
        .replace("duplicate field", "duplicate key")
        .replace('\n', ": ")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Example {
        #[expect(dead_code, reason = "only its key matters")]
        known: u32,
    }

    fn error(text: &str) -> String {
        parse::<Example>("a.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn the_line_and_the_key_are_named() {
        assert_eq!(
            error("known = 1\n\nunknown = 2\n"),
            "a.toml:3: unknown key `unknown`, expected `known`"
        );
        assert!(error("\nknown = \"x\"").starts_with("a.toml:2: invalid type: string"));
        assert!(error("known = 1\nknown = 2").contains("a.toml:2: duplicate key"));
        assert!(error("known = ").starts_with("a.toml:1: "));
        assert!(error("").contains("missing key `known`"));
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let error = read::<Example>(Path::new("/nowhere/a.toml")).unwrap_err();
        assert!(error.to_string().starts_with("cannot read /nowhere/a.toml: "));
        let error = read::<Example>(Path::new("/dev/zero")).unwrap_err();
        assert!(error.to_string().contains("is longer than"), "{error}");
    }
}
