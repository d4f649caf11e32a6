//! `aliases.toml`: names for other people's keys.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use orb_protocol::id::{OwnerId, PREFIX_LEN_MIN};
use orb_protocol::name::Name;

use crate::config::{self, FileError};
use crate::failure::Failure;

/// The most aliases: more than a person can tell apart.
const ALIASES_MAX: usize = 10_000;

/// The file's content.
#[derive(Debug, Clone)]
pub(crate) struct Aliases {
    path: PathBuf,
    names: BTreeMap<Name, OwnerId>,
}

impl Aliases {
    /// Reads the file; none is the same as an empty one.
    ///
    /// # Errors
    /// When it cannot be read, or a line is not `name = "KEY"`.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let lines: BTreeMap<Name, String> = match config::read(path) {
            Err(FileError::Read { error, .. }) if error.kind() == std::io::ErrorKind::NotFound => {
                BTreeMap::new()
            }
            other => other?,
        };
        let names = lines.into_iter().map(|(name, key)| match key.parse::<OwnerId>() {
            Ok(owner) => Ok((name, owner)),
            Err(error) => Err(
                Failure::config(format!("{}: alias {name}: {error}", path.display()))
                    .help(format!("mend it with `orb id alias {name} KEY`")),
            ),
        });
        Ok(Self {
            path: path.to_owned(),
            names: names.collect::<Result<_, _>>()?,
        })
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Name, &OwnerId)> {
        self.names.iter()
    }

    /// The alias of an owner, if there is one.
    pub(crate) fn name_of(&self, owner: &OwnerId) -> Option<&Name> {
        self.names
            .iter()
            .find(|(_, key)| *key == owner)
            .map(|(name, _)| name)
    }

    /// Gives a key a name, and writes the file: whole or not at all. Returns the key that had the
    /// name before.
    ///
    /// # Errors
    /// A name that reads as a key, a key that is none, or a folder that cannot be written.
    pub(crate) fn set(&mut self, name: Name, owner: OwnerId) -> Result<Option<OwnerId>, Failure> {
        if name.as_str().parse::<OwnerId>().is_ok() {
            return Err(Failure::usage(format!(
                "{name} is a key, and would hide it as an alias"
            )));
        }
        owner
            .check()
            .map_err(|error| Failure::usage(format!("{owner}: {error}")))?;
        if self.names.len() >= ALIASES_MAX && !self.names.contains_key(&name) {
            return Err(Failure::usage(format!("there are {ALIASES_MAX} aliases already")));
        }
        let before = self.names.insert(name, owner);
        self.write().map_err(|error| {
            Failure::local(format!("cannot write {}: {error}", self.path.display()))
                .help("name a folder that you may write with --home DIR or ORB_HOME")
        })?;
        Ok(before)
    }

    /// The owner that a text means; `own` gives this person's own key, if that is needed.
    ///
    /// # Errors
    /// When it means none, or several.
    pub(crate) fn resolve(
        &self,
        text: &str,
        own: impl FnOnce() -> Result<OwnerId, Failure>,
    ) -> Result<OwnerId, Failure> {
        if let Ok(owner) = text.parse::<OwnerId>() {
            return Ok(owner);
        }
        if let Some(owner) = text.parse().ok().and_then(|name: Name| self.names.get(&name)) {
            return Ok(*owner);
        }
        if text.len() < PREFIX_LEN_MIN {
            return Err(unknown(text));
        }
        let mut known: Vec<OwnerId> = self.names.values().copied().chain([own()?]).collect();
        known.retain(|owner| owner.to_string().starts_with(text));
        known.sort_unstable();
        known.dedup();
        match known.as_slice() {
            [owner] => Ok(*owner),
            [] => Err(unknown(text)),
            several => Err(Failure::usage(format!(
                "{text:?} is the beginning of {} known keys",
                several.len()
            ))
            .help("write more of the key")),
        }
    }

    fn write(&self) -> std::io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let mut file = tempfile::Builder::new().prefix(".aliases-").tempfile_in(folder)?;
        for (name, owner) in &self.names {
            // Quoted, since a dot in a bare key would make a table of it.
            writeln!(file, "\"{name}\" = \"{owner}\"")?;
        }
        file.as_file().sync_all()?;
        file.persist(&self.path).map_err(|error| error.error)?;
        std::fs::File::open(folder)?.sync_all()
    }
}

fn unknown(text: &str) -> Failure {
    let text: String = text.chars().take(80).collect();
    Failure::usage(format!(
        "{text:?} is neither a key (52 characters of a-z and 2-7) nor an alias known here"
    ))
    .help("give the key a name with `orb id alias NAME KEY`")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use orb_protocol::key::OwnerKey;

    use super::*;

    fn id(seed: u8) -> OwnerId {
        OwnerKey::from_seed([seed; 32]).id()
    }

    #[test]
    fn an_alias_is_kept_and_means_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("home/aliases.toml");
        let mut aliases = Aliases::read(&path).unwrap();
        assert_eq!(aliases.set("alice.b".parse().unwrap(), id(1)).unwrap(), None);
        assert_eq!(
            aliases.set("alice.b".parse().unwrap(), id(2)).unwrap(),
            Some(id(1))
        );
        let aliases = Aliases::read(&path).unwrap();
        assert_eq!(aliases.resolve("alice.b", || unreachable!()).unwrap(), id(2));
        assert_eq!(aliases.name_of(&id(2)).unwrap().as_str(), "alice.b");
        assert_eq!(aliases.iter().count(), 1);
    }

    #[test]
    fn keys_and_prefixes_of_known_keys_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        let mut aliases = Aliases::read(&folder.path().join("aliases.toml")).unwrap();
        aliases.set("a".parse().unwrap(), id(1)).unwrap();
        let resolve = |text: &str| aliases.resolve(text, || Ok(id(2)));
        assert_eq!(resolve(&id(3).to_string()).unwrap(), id(3));
        assert_eq!(resolve(&id(1).to_string()[..8]).unwrap(), id(1));
        assert_eq!(resolve(&id(2).to_string()[..20]).unwrap(), id(2));
        for bad in ["b", &id(1).to_string()[..7], &id(3).to_string()[..8], "", "Ä"] {
            let failure = resolve(bad).unwrap_err();
            assert_eq!(failure.exit, 2);
            assert!(failure.message.contains("neither a key"), "{failure}");
        }
    }

    #[test]
    fn what_is_no_alias_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("aliases.toml");
        let mut aliases = Aliases::read(&path).unwrap();
        let as_key: Name = id(1).to_string().parse().unwrap();
        assert!(
            aliases
                .set(as_key, id(1))
                .unwrap_err()
                .message
                .contains("is a key")
        );
        let weak = OwnerId::from_bytes([0; 32]);
        assert!(
            aliases
                .set("a".parse().unwrap(), weak)
                .unwrap_err()
                .message
                .contains("no Ed25519")
        );
        std::fs::write(&path, "a = \"short\"").unwrap();
        assert!(
            Aliases::read(&path)
                .unwrap_err()
                .message
                .contains("alias a: an id has 52")
        );
        std::fs::write(&path, "\nA = \"x\"").unwrap();
        assert!(
            Aliases::read(&path)
                .unwrap_err()
                .message
                .contains("aliases.toml:2:")
        );
    }
}
