//! Key files: a node's or an owner's secret key, made on first use.
//!
//! A key file is one line of text: a header that names the type of the key, and the secret seed in
//! the base32 of all ids. Nobody but its owner may read it (mode 0600). It is made whole or not at
//! all, and two processes that make it at once end up with the same key.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::id;
use crate::key::{NodeKey, OwnerKey};

const NODE_HEADER: &str = "orb-node-key-1";
const OWNER_HEADER: &str = "orb-owner-key-1";
/// More than any key file has; what is longer is not read to its end.
const FILE_LEN_MAX: u64 = 256;
/// The permissions that let anybody but the owner do something.
const OTHERS: u32 = 0o077;

/// Why there is no key to be had from a file.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file or its folder cannot be read or written.
    #[error("the key file {} cannot be {doing}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried: "read" or "made".
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Others may read the file.
    #[error("the key file {path} is open to others (mode {mode:04o}): run `chmod 600 {path}`", path = path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file holds the other type of key.
    #[error("{} holds another type of key: it begins with {found:?}, and {wanted:?} is needed; name the right file", path.display())]
    WrongType {
        /// The file.
        path: PathBuf,
        /// Its header.
        found: &'static str,
        /// The header that it should have.
        wanted: &'static str,
    },
    /// The file holds no key.
    #[error("{} is not a key file: {reason}; restore it from a copy, or move it away to get a new key", path.display())]
    Garbage {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// The node key in this file. If there is no file, a new key is made and stored first.
///
/// # Errors
/// [`KeyFileError`].
pub fn load_or_create_node_key(path: &Path) -> Result<NodeKey, KeyFileError> {
    load_or_create(path, NODE_HEADER).map(NodeKey::from_seed)
}

/// The owner key in this file. If there is no file, a new key is made and stored first.
///
/// # Errors
/// [`KeyFileError`].
pub fn load_or_create_owner_key(path: &Path) -> Result<OwnerKey, KeyFileError> {
    load_or_create(path, OWNER_HEADER).map(OwnerKey::from_seed)
}

fn load_or_create(path: &Path, header: &'static str) -> Result<[u8; 32], KeyFileError> {
    if let Some(seed) = load(path, header)? {
        return Ok(seed);
    }
    create(path, header).map_err(|source| failed(path, "made", source))?;
    // Read back what is there: another process may have been faster.
    load(path, header)?.ok_or_else(|| failed(path, "read", io::ErrorKind::NotFound.into()))
}

fn failed(path: &Path, doing: &'static str, source: io::Error) -> KeyFileError {
    KeyFileError::Io {
        path: path.to_owned(),
        doing,
        source,
    }
}

/// The seed in a file; `None` if there is no file.
fn load(path: &Path, header: &'static str) -> Result<Option<[u8; 32]>, KeyFileError> {
    match read(path) {
        Ok((mode, _)) if mode & OTHERS != 0 => Err(KeyFileError::Open {
            path: path.to_owned(),
            mode,
        }),
        Ok((_, text)) => parse(path, &text, header).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed(path, "read", source)),
    }
}

/// A file's permissions and the beginning of its content.
fn read(path: &Path) -> io::Result<(u32, Vec<u8>)> {
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode() & 0o7777;
    let mut bytes = Vec::new();
    file.take(FILE_LEN_MAX).read_to_end(&mut bytes)?;
    Ok((mode, bytes))
}

fn parse(path: &Path, bytes: &[u8], wanted: &'static str) -> Result<[u8; 32], KeyFileError> {
    let garbage = |reason| KeyFileError::Garbage {
        path: path.to_owned(),
        reason,
    };
    let text = std::str::from_utf8(bytes).map_err(|_| garbage("it is not text"))?;
    let mut words = text.split_ascii_whitespace();
    let found = words.next().ok_or_else(|| garbage("it is empty"))?;
    if let Some(found) = [NODE_HEADER, OWNER_HEADER]
        .into_iter()
        .find(|&h| h == found && h != wanted)
    {
        return Err(KeyFileError::WrongType {
            path: path.to_owned(),
            found,
            wanted,
        });
    }
    if found != wanted {
        return Err(garbage("it does not begin with a key file's header"));
    }
    let seed = words.next().ok_or_else(|| garbage("it ends before the key"))?;
    if words.next().is_some() {
        return Err(garbage("something follows the key"));
    }
    id::from_text(seed).map_err(|_| garbage("its key is damaged"))
}

/// Makes a file with a new key, unless there is one already.
fn create(path: &Path, header: &str) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)?;
    // A temporary file has mode 0600 from the start.
    let mut file = tempfile::Builder::new().prefix(".key-").tempfile_in(folder)?;
    writeln!(file, "{header} {}", id::to_text(&seed))?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => fs::File::open(folder)?.sync_all(),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error.error),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;

    fn write(path: &Path, text: impl AsRef<[u8]>, mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_key_is_made_once_for_its_owner_only_and_comes_back() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("new/folder/node.key");
        let key = load_or_create_node_key(&path).unwrap();
        assert_eq!(load_or_create_node_key(&path).unwrap().seed(), key.seed());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let names: Vec<_> = fs::read_dir(path.parent().unwrap())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(names, ["node.key"], "no temporary file is left");
    }

    #[test]
    fn many_at_once_end_up_with_one_key() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("owner.key");
        let make = || load_or_create_owner_key(&path).unwrap().seed();
        let seeds: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(seeds.iter().all(|seed| *seed == seeds[0]));
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_mend() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("node.key");
        load_or_create_node_key(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = load_or_create_node_key(&path).unwrap_err().to_string();
        assert!(error.contains("0640") && error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn the_other_type_and_garbage_are_refused_and_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("key");
        load_or_create_owner_key(&path).unwrap();
        assert!(matches!(
            load_or_create_node_key(&path),
            Err(KeyFileError::WrongType { .. })
        ));
        let short = format!("{NODE_HEADER} abc");
        let more = format!("{NODE_HEADER} {} more", "a".repeat(id::TEXT_LEN));
        let cases: [&[u8]; 7] = [
            b"",
            b"\n",
            b"hello",
            b"\xff\xfe",
            NODE_HEADER.as_bytes(),
            short.as_bytes(),
            more.as_bytes(),
        ];
        for case in cases {
            write(&path, case, 0o600);
            let error = load_or_create_node_key(&path).unwrap_err();
            assert!(matches!(error, KeyFileError::Garbage { .. }), "{error}");
            assert_eq!(fs::read(&path).unwrap(), case);
        }
    }

    #[test]
    fn a_folder_is_no_key() {
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let error = load_or_create_node_key(home.path()).unwrap_err();
        assert!(
            matches!(error, KeyFileError::Io { .. } | KeyFileError::Open { .. }),
            "{error}"
        );
    }
}
