//! What a client has learnt: the newest version of each function, and who answers for it now.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::directory::Resolution;
use crate::id::FunctionId;
use crate::manifest::Version;

/// Functions whose newest version is remembered: about 100 bytes each. Beyond it the ones that were
/// not used for longest are forgotten, and only for those a call may go back in revision.
const SEEN_MAX: usize = 65_536;
/// Functions whose hosts are remembered: a few kilobytes each.
const RESOLUTIONS_MAX: usize = 1_024;
/// For how long: calls in a row ask once, and an edit is seen at once anyway, since hosts answer
/// with the newest revision that they are ready for.
const RESOLUTION_TTL: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(super) struct Memory(Mutex<Learnt>);

struct Learnt {
    seen: Recent<FunctionId, Version>,
    resolutions: Recent<FunctionId, (Instant, Arc<Resolution>)>,
}

impl Default for Learnt {
    fn default() -> Self {
        Self {
            seen: Recent::new(SEEN_MAX),
            resolutions: Recent::new(RESOLUTIONS_MAX),
        }
    }
}

impl Memory {
    fn with<T>(&self, act: impl FnOnce(&mut Learnt) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes that a version exists.
    pub(super) fn saw(&self, function: FunctionId, version: Version) {
        self.with(|learnt| {
            let newest = learnt
                .seen
                .get(&function)
                .map_or(version, |known| version.max(*known));
            learnt.seen.put(function, newest);
        });
    }

    /// The newest version that was seen.
    pub(super) fn newest(&self, function: &FunctionId) -> Version {
        self.with(|learnt| learnt.seen.get(function).copied().unwrap_or_default())
    }

    /// Notes what a super node answered just now. An answer without hosts is better asked for again.
    pub(super) fn resolved(&self, resolution: &Arc<Resolution>) {
        let function = resolution.manifest.function();
        self.saw(function, resolution.manifest.version());
        if !resolution.hosts.is_empty() {
            self.with(|learnt| {
                learnt
                    .resolutions
                    .put(function, (Instant::now(), Arc::clone(resolution)));
            });
        }
    }

    /// What a super node answered a short time ago.
    pub(super) fn resolution(&self, function: &FunctionId) -> Option<Arc<Resolution>> {
        self.with(|learnt| {
            let (at, resolution) = learnt.resolutions.get(function)?;
            (at.elapsed() < RESOLUTION_TTL).then(|| Arc::clone(resolution))
        })
    }

    /// Forgets who answers for a function: it turned out to be wrong.
    pub(super) fn forget_resolution(&self, function: &FunctionId) {
        self.with(|learnt| learnt.resolutions.remove(function));
    }
}

/// A map of bounded size that forgets what was not used for longest.
pub(super) struct Recent<K, V> {
    entries: HashMap<K, (u64, V)>,
    max: usize,
    uses: u64,
}

impl<K: Eq + Hash + Clone, V> Recent<K, V> {
    pub(super) fn new(max: usize) -> Self {
        Self {
            entries: HashMap::new(),
            max,
            uses: 0,
        }
    }

    pub(super) fn get(&mut self, key: &K) -> Option<&V> {
        self.uses += 1;
        let (used, value) = self.entries.get_mut(key)?;
        *used = self.uses;
        Some(value)
    }

    pub(super) fn put(&mut self, key: K, value: V) {
        if self.entries.len() >= self.max && !self.entries.contains_key(&key) {
            self.make_room();
        }
        self.uses += 1;
        self.entries.insert(key, (self.uses, value));
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.values().map(|(_, value)| value)
    }

    pub(super) fn remove(&mut self, key: &K) {
        self.entries.remove(key);
    }

    /// Forgets the half that was not used for longest, so that the search for it is rare.
    fn make_room(&mut self) {
        let mut uses: Vec<u64> = self.entries.values().map(|(used, _)| *used).collect();
        let middle = uses.len() / 2;
        let (_, median, _) = uses.select_nth_unstable(middle);
        let median = *median;
        self.entries.retain(|_, (used, _)| *used > median);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_lately_is_kept_and_the_size_is_bounded() {
        let mut recent = Recent::new(8);
        for key in 0..1_000 {
            recent.put(key, key);
            assert_eq!(recent.get(&0), Some(&0), "used all the time");
            assert!(recent.entries.len() <= 8);
        }
        assert_eq!(recent.get(&999), Some(&999));
        assert_eq!(recent.get(&1), None);
    }

    #[test]
    fn the_newest_version_never_goes_back() {
        let memory = Memory::default();
        let function = FunctionId::from_bytes([1; 32]);
        let version = |generation, revision| Version { generation, revision };
        for seen in [version(0, 5), version(1, 1), version(0, 9)] {
            memory.saw(function, seen);
        }
        assert_eq!(memory.newest(&function), version(1, 1));
    }
}
