//! `ORB_HOME`: who this person is, and what they published.
//!
//! `owner.key` and `node.key` (made on first use), `aliases.toml`, `config.toml`, `artifacts/` and,
//! only to be quick, `cache/`.

mod aliases;
mod artifacts;

use std::path::{Path, PathBuf};

use orb_protocol::id::OwnerId;
use orb_protocol::key::{NodeKey, OwnerKey};
use orb_protocol::keyfile::{self, KeyFileError};

pub(crate) use aliases::Aliases;
pub(crate) use artifacts::Artifacts;

use crate::config::{self, ClientFile, FileError};
use crate::failure::Failure;

/// The folder. Nothing is made in it before it is needed.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    folder: PathBuf,
}

impl Home {
    /// The folder that was named, or the XDG data folder `orb`
    /// (<https://specifications.freedesktop.org/basedir-spec/latest/>).
    ///
    /// # Errors
    /// When nothing says where it is.
    pub(crate) fn locate(named: Option<&Path>) -> Result<Self, Failure> {
        if let Some(folder) = named.filter(|path| !path.as_os_str().is_empty()) {
            return Ok(Self::at(folder));
        }
        let absolute = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        absolute("XDG_DATA_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
            .map(|data| Self::at(&data.join("orb")))
            .ok_or_else(|| {
                Failure::config(
                    "there is no folder for keys: neither ORB_HOME nor XDG_DATA_HOME nor HOME is set",
                )
                .help("name one with --home DIR or ORB_HOME")
            })
    }

    /// This folder.
    pub(crate) fn at(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    /// Where it is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where compiled code may be kept between commands.
    pub(crate) fn cache(&self) -> PathBuf {
        self.folder.join("cache")
    }

    /// The owner's key, made on first use.
    ///
    /// # Errors
    /// When it cannot be read or made, or others can read it.
    pub(crate) fn owner_key(&self) -> Result<OwnerKey, Failure> {
        keyfile::load_or_create_owner_key(&self.folder.join("owner.key")).map_err(|error| key_failure(&error))
    }

    /// This machine's key as a node, made on first use.
    ///
    /// # Errors
    /// As [`Home::owner_key`].
    pub(crate) fn node_key(&self) -> Result<NodeKey, Failure> {
        keyfile::load_or_create_node_key(&self.folder.join("node.key")).map_err(|error| key_failure(&error))
    }

    /// `config.toml`; empty if there is none.
    ///
    /// # Errors
    /// When it cannot be read, or says what it should not.
    pub(crate) fn settings(&self) -> Result<ClientFile, Failure> {
        match config::read(&self.folder.join("config.toml")) {
            Err(FileError::Read { error, .. }) if error.kind() == std::io::ErrorKind::NotFound => {
                Ok(ClientFile::default())
            }
            other => Ok(other?),
        }
    }

    /// The owners that have a name here.
    ///
    /// # Errors
    /// When `aliases.toml` cannot be read, or says what it should not.
    pub(crate) fn aliases(&self) -> Result<Aliases, Failure> {
        Aliases::read(&self.folder.join("aliases.toml"))
    }

    /// What this owner published.
    pub(crate) fn artifacts(&self) -> Artifacts {
        Artifacts::at(&self.folder.join("artifacts"))
    }

    /// The owner that a text means: a key, an alias, or an unambiguous prefix of a key that is known here.
    ///
    /// # Errors
    /// When it means none, or several.
    pub(crate) fn owner(&self, text: &str) -> Result<OwnerId, Failure> {
        self.aliases()?.resolve(text, || Ok(self.owner_key()?.id()))
    }
}

fn key_failure(error: &KeyFileError) -> Failure {
    let failure = Failure::local(error.to_string());
    match error {
        KeyFileError::Io { .. } => {
            failure.help("name a folder that you may write with --home DIR or ORB_HOME")
        }
        _ => failure,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_are_made_once_and_are_not_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(&folder.path().join("deep/home"));
        let owner = home.owner_key().unwrap().id();
        assert_eq!(home.owner_key().unwrap().id(), owner);
        assert_ne!(home.node_key().unwrap().id().as_bytes(), owner.as_bytes());
        assert_eq!(home.owner(&owner.to_string()[..8]).unwrap(), owner);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_mend() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        home.owner_key().unwrap();
        let path = folder.path().join("owner.key");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let failure = home.owner_key().unwrap_err();
        assert_eq!(failure.exit, 1);
        assert!(failure.message.contains("chmod 600"), "{failure}");
    }

    #[test]
    fn settings_are_typed_and_may_be_missing() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        assert_eq!(home.settings().unwrap(), ClientFile::default());
        std::fs::write(folder.path().join("config.toml"), "colour = true").unwrap();
        let failure = home.settings().unwrap_err();
        assert!(
            failure.message.contains("config.toml:1: unknown key `colour`"),
            "{failure}"
        );
        assert_eq!(failure.exit, 2);
    }
}
