//! What a super node says that it knows: for each function the manifest that counts.
//!
//! `orb list --all --decommissioned --json` tells all of it, so that two registries are the same exactly
//! when these documents are, but for how many hosts are ready.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::orb::User;

/// The text of a hash, in BLAKE3's base 32 without padding, has its letters in this order.
const ALPHABET: &str = "abcdefghijklmnopqrstuvwxyz234567";

/// All functions, by `OWNER/NAME`.
pub(crate) type Registry = BTreeMap<String, Revision>;

/// Where a manifest stands among those of its function: generation, whether it is a tombstone, revision,
/// hash. The greatest counts.
pub(crate) type Rank = (u64, bool, u64, Vec<usize>);

/// What a manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Revision {
    pub(crate) generation: u64,
    pub(crate) number: u64,
    pub(crate) hash: String,
    /// `None` for a tombstone.
    pub(crate) artifact: Option<String>,
}

impl Revision {
    /// As commands describe it.
    pub(crate) fn read(document: &Value) -> Result<Self> {
        let text = |key: &str| document[key].as_str().map(str::to_owned);
        let read = || {
            Some(Self {
                generation: document["generation"].as_u64()?,
                number: document["revision"].as_u64()?,
                hash: text("hash")?,
                artifact: text("artifact"),
            })
        };
        read().with_context(|| format!("a revision: {document}"))
    }

    /// See [`Rank`].
    pub(crate) fn rank(&self) -> Rank {
        let hash = self.hash.chars();
        let hash = hash.map(|letter| ALPHABET.find(letter).unwrap_or_default());
        let is_tombstone = self.artifact.is_none();
        (self.generation, is_tombstone, self.number, hash.collect())
    }
}

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let artifact = self.artifact.as_ref().map_or("tombstone", |hash| &hash[..8]);
        let Self {
            generation, number, ..
        } = self;
        write!(f, "{generation}.{number} {artifact} ({})", &self.hash[..8])
    }
}

/// What the super node of somebody knows.
fn of(user: &User) -> Result<Registry> {
    let document = user.run(user.home(), &["list", "--all", "--decommissioned"], b"")?;
    let functions = document["functions"].as_array().context("functions")?;
    let entry = |function: &Value| {
        let name = function["function"].as_str().context("a name")?;
        Ok((name.to_owned(), Revision::read(function)?))
    };
    functions.iter().map(entry).collect()
}

/// The registry of all of these, or what differs.
pub(crate) fn agreed(users: &[User]) -> Result<Registry, String> {
    let mut registries = Vec::new();
    for (place, user) in users.iter().enumerate() {
        registries.push(of(user).map_err(|error| format!("super{place} does not say: {error:#}"))?);
    }
    let first = registries.remove(0);
    let mut differences = Vec::new();
    for (place, other) in registries.iter().enumerate() {
        for name in first.keys().chain(other.keys()) {
            let [here, there] = [&first, other].map(|registry| registry.get(name));
            if here != there {
                let shown =
                    |revision: Option<&Revision>| revision.map_or("-".to_owned(), ToString::to_string);
                let (here, there) = (shown(here), shown(there));
                differences.push(format!("{name}: {here} at super0, {there} at super{}", place + 1));
            }
        }
    }
    differences.dedup();
    if differences.is_empty() {
        Ok(first)
    } else {
        Err(differences.join("\n"))
    }
}
