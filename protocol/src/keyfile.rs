//! Key files: a node's or an owner's secret key, made on first use.
//!
//! A key file is text of two lines: a header that names the type, and the secret seed in lower-case
//! base32. It may be read by nobody but its owner (mode 0600), and is made whole or not at all.

use std::io;
use std::path::{Path, PathBuf};

use crate::key::{NodeKey, OwnerKey};

/// Why there is no key to be had from a file.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file or its folder cannot be read or written.
    #[error("the key file {} cannot be {doing}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried: "read", "made".
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Others may read the file.
    #[error("the key file {} is open to others (mode {mode:04o}): run chmod 600 {}", path.display(), path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file holds the other type of key.
    #[error("{} holds a key of another type: it begins with {found:?}, and {wanted:?} is needed", path.display())]
    WrongType {
        /// The file.
        path: PathBuf,
        /// Its header.
        found: String,
        /// The header that it should have.
        wanted: &'static str,
    },
    /// The file holds no key.
    #[error("{} is not a key file: {reason}; restore it from a backup, or move it away to get a new key", path.display())]
    Garbage {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// The node key in this file; if there is no file, a new key is made and stored first.
///
/// # Errors
/// [`KeyFileError`].
pub fn load_or_create_node_key(path: &Path) -> Result<NodeKey, KeyFileError> {
    Err(not_yet(path))
}

/// The owner key in this file; if there is no file, a new key is made and stored first.
///
/// # Errors
/// [`KeyFileError`].
pub fn load_or_create_owner_key(path: &Path) -> Result<OwnerKey, KeyFileError> {
    Err(not_yet(path))
}

fn not_yet(path: &Path) -> KeyFileError {
    KeyFileError::Io {
        path: path.to_owned(),
        doing: "read",
        source: io::Error::other("not built yet"),
    }
}
