//! Super nodes that this host has heard of: where it goes when its own does not answer.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use orb_protocol::id::NodeId;
use orb_protocol::quic::SuperAddr;

/// Super nodes that are kept in mind: one of them will answer.
const ROSTER_MAX: usize = 64;
/// The file in the data folder, an address a line.
const FILE: &str = "super_nodes";

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Roster {
    known: Mutex<BTreeMap<NodeId, SuperAddr>>,
    file: PathBuf,
}

impl Roster {
    /// What was heard before the last stop. Blocks.
    pub(crate) fn open(folder: &Path) -> Self {
        let file = folder.join(FILE);
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let known = parse(text.lines());
        Self {
            known: Mutex::new(known),
            file,
        }
    }

    /// A super node says which others there are.
    pub(crate) fn learn(&self, addresses: &[String]) {
        let told = parse(addresses.iter().map(String::as_str));
        let mut known = self.lock();
        if told.is_empty() || told == *known {
            return;
        }
        *known = told;
        let lines: String = known.values().map(|address| format!("{address}\n")).collect();
        drop(known);
        if let Err(error) = write(&self.file, &lines) {
            tracing::warn!(%error, "the addresses of other super nodes could not be kept");
        }
    }

    /// A super node for which `wanted` holds, one or another.
    pub(crate) fn pick(&self, wanted: impl Fn(&NodeId) -> bool) -> Option<SuperAddr> {
        let known = self.lock();
        let fit: Vec<&SuperAddr> = known.values().filter(|address| wanted(&address.id())).collect();
        // Hosts that lost the same super node shall not all go to the same other one. Without randomness
        // they do.
        let random = getrandom::u32().unwrap_or_default() as usize;
        fit.get(random.checked_rem(fit.len())?)
            .map(|address| (*address).clone())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, SuperAddr>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeMap<NodeId, SuperAddr> {
    lines
        .filter_map(|line| line.parse::<SuperAddr>().ok())
        .take(ROSTER_MAX)
        .map(|address| (address.id(), address))
        .collect()
}

/// Nothing is lost with this file but some time, so that it is not synced.
fn write(file: &Path, text: &str) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
    temporary.write_all(text.as_bytes())?;
    temporary.persist(file)?;
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use orb_protocol::key::NodeKey;

    use super::*;

    fn address(seed: u8) -> String {
        format!("{}@127.0.0.1:{seed}", NodeKey::from_seed([seed; 32]).id())
    }

    #[test]
    fn what_was_heard_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let roster = Roster::open(folder.path());
        assert_eq!(roster.pick(|_| true), None);
        roster.learn(&[address(1), "nonsense".to_owned(), address(2)]);
        let again = Roster::open(folder.path());
        let first = NodeKey::from_seed([1; 32]).id();
        let other = again.pick(|id| *id != first).unwrap();
        assert_eq!(other.to_string(), address(2));
        // Saying nothing takes nothing away.
        again.learn(&[]);
        assert!(again.pick(|id| *id == first).is_some());
    }
}
