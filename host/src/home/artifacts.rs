//! The bytes of what this owner published, so that a rollback needs nobody else.
//!
//! `artifacts/NAME/GENERATION-REVISION-HASH.wasm`, the last [`REVISIONS_KEPT`] of each function.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use orb_protocol::id::ArtifactHash;
use orb_protocol::manifest::Version;
use orb_protocol::name::Name;

use crate::store::files;

/// How many revisions of a function are kept (the brief).
const REVISIONS_KEPT: usize = 10;

/// The folder.
#[derive(Debug, Clone)]
pub(crate) struct Artifacts {
    folder: PathBuf,
}

/// A file in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    version: (u64, u64),
    artifact: ArtifactHash,
    path: PathBuf,
}

impl Artifacts {
    /// This folder; it need not be there yet.
    pub(crate) fn at(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    /// Keeps a revision's bytes, and drops those of the revisions before the last ten.
    ///
    /// # Errors
    /// When the disk does not take them.
    pub(crate) fn keep(&self, name: &Name, version: Version, wasm: &[u8]) -> io::Result<()> {
        let folder = self.folder.join(name.as_str());
        files::make_dir(&folder)?;
        let hash = ArtifactHash::of(wasm);
        let path = folder.join(format!("{}-{}-{hash}.wasm", version.generation, version.revision));
        files::replace(&path, wasm)?;
        let mut entries = entries(&folder)?;
        let kept = entries.split_off(entries.len().saturating_sub(REVISIONS_KEPT));
        debug_assert!(kept.len() <= REVISIONS_KEPT);
        entries.iter().try_for_each(|entry| files::remove(&entry.path))
    }

    /// The bytes with this hash, if a kept revision of the function has them. What does not verify
    /// is not there.
    pub(crate) fn find(&self, name: &Name, artifact: ArtifactHash) -> Option<Bytes> {
        entries(&self.folder.join(name.as_str()))
            .ok()?
            .into_iter()
            .filter(|entry| entry.artifact == artifact)
            .filter_map(|entry| std::fs::read(entry.path).ok())
            .find(|wasm| ArtifactHash::of(wasm) == artifact)
            .map(Bytes::from)
    }

    /// Drops all that is kept of a function.
    ///
    /// # Errors
    /// When the disk does not let go of it.
    pub(crate) fn forget(&self, name: &Name) -> io::Result<()> {
        match std::fs::remove_dir_all(self.folder.join(name.as_str())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// The revisions in a function's folder, oldest first; other files are left alone.
fn entries(folder: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for file in std::fs::read_dir(folder)? {
        let path = file?.path();
        entries.extend(path.file_name().and_then(|name| entry(name.to_str()?, &path)));
    }
    entries.sort_unstable();
    Ok(entries)
}

fn entry(name: &str, path: &Path) -> Option<Entry> {
    let mut parts = name.strip_suffix(".wasm")?.splitn(3, '-');
    Some(Entry {
        version: (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?),
        artifact: parts.next()?.parse().ok()?,
        path: path.to_owned(),
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;

    fn version(revision: u64) -> Version {
        Version {
            generation: 0,
            revision,
        }
    }

    #[test]
    fn the_last_ten_are_kept_and_verified() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::at(&folder.path().join("artifacts"));
        let name: Name = "hello".parse().unwrap();
        for revision in 1..=12 {
            artifacts
                .keep(&name, version(revision), &[u8::try_from(revision).unwrap()])
                .unwrap();
        }
        let find = |byte: u8| artifacts.find(&name, ArtifactHash::of(&[byte]));
        assert!(find(2).is_none());
        assert_eq!(find(3).unwrap().as_ref(), [3]);
        assert_eq!(find(12).unwrap().as_ref(), [12]);
        let kept = entries(&folder.path().join("artifacts/hello")).unwrap();
        assert_eq!(kept.len(), REVISIONS_KEPT);
        std::fs::write(&kept[0].path, b"changed").unwrap();
        assert!(find(3).is_none(), "what does not verify is not there");
        artifacts.forget(&name).unwrap();
        artifacts.forget(&name).unwrap();
        assert!(find(12).is_none());
    }

    #[test]
    fn other_files_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("notes.txt"), "mine").unwrap();
        std::fs::write(folder.path().join("1-x-y.wasm"), "mine").unwrap();
        assert_eq!(entries(folder.path()).unwrap(), []);
    }
}
