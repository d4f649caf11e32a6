//! Programs that are ready to run, in memory, bounded by bytes.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::GuestFault;

/// A program or why there is none; `Clone` is cheap for programs.
type Loaded<P> = Result<P, GuestFault>;

/// Programs by hash. Those that were used longest ago go first when it is full.
///
/// Refusals that depend on nothing but the artifact are remembered as well, so that asking again
/// for something that does not run costs nothing. What took too long is tried again: it may have been
/// the machine.
#[derive(Debug)]
pub(crate) struct MemoryCache<P> {
    bytes_max: u64,
    state: Mutex<State<P>>,
}

#[derive(Debug)]
struct State<P> {
    entries: HashMap<[u8; 32], Entry<P>>,
    bytes: u64,
    /// Counts uses: the clock of the least-recently-used rule.
    uses: u64,
}

#[derive(Debug)]
enum Entry<P> {
    Loaded {
        program: Loaded<P>,
        bytes: u64,
        used: u64,
    },
    /// Somebody is loading it.
    Loading(watch::Receiver<Option<Loaded<P>>>),
}

/// What asking for a program gives.
#[derive(Debug)]
pub(crate) enum Flight<P> {
    /// It is there.
    Landed(Loaded<P>),
    /// Somebody is loading it: wait for a value.
    Joined(watch::Receiver<Option<Loaded<P>>>),
    /// Nobody is: load it, and put it in with [`MemoryCache::land`].
    Mine(
        watch::Sender<Option<Loaded<P>>>,
        watch::Receiver<Option<Loaded<P>>>,
    ),
}

/// What an entry costs beside its code: table slots, names, the module's description.
const ENTRY_BYTES: u64 = 1024;

impl<P: Clone> MemoryCache<P> {
    pub(crate) fn new(bytes_max: u64) -> Self {
        let state = State {
            entries: HashMap::new(),
            bytes: 0,
            uses: 0,
        };
        Self {
            bytes_max,
            state: Mutex::new(state),
        }
    }

    /// Bytes of all programs in the cache.
    pub(crate) fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// Asks for a program. Of all who ask for one that is not there, one loads it.
    pub(crate) fn ask(&self, hash: &[u8; 32]) -> Flight<P> {
        let mut state = self.lock();
        state.uses += 1;
        let now = state.uses;
        match state.entries.get_mut(hash) {
            Some(Entry::Loaded { program, used, .. }) => {
                *used = now;
                Flight::Landed(program.clone())
            }
            // A loader that died without a word (it panicked) has dropped its sender.
            Some(Entry::Loading(receiver)) if receiver.has_changed().is_ok() => {
                Flight::Joined(receiver.clone())
            }
            _ => {
                let (sender, receiver) = watch::channel(None);
                state.entries.insert(*hash, Entry::Loading(receiver.clone()));
                Flight::Mine(sender, receiver)
            }
        }
    }

    /// Ends a flight: keeps what was loaded as so many bytes, or not at all, and tells those who wait.
    pub(crate) fn land(
        &self,
        hash: &[u8; 32],
        sender: &watch::Sender<Option<Loaded<P>>>,
        program: Loaded<P>,
        bytes: Option<u64>,
    ) {
        let mut state = self.lock();
        let ours = matches!(state.entries.get(hash), Some(Entry::Loading(receiver))
            if receiver.same_channel(&sender.subscribe()));
        if ours {
            state.entries.remove(hash);
            if let Some(bytes) = bytes {
                state.insert(*hash, program.clone(), bytes + ENTRY_BYTES, self.bytes_max);
            }
        }
        drop(state);
        sender.send_replace(Some(program));
    }

    /// Removes a program. Calls that run it go on.
    pub(crate) fn forget(&self, hash: &[u8; 32]) {
        let mut state = self.lock();
        if let Some(Entry::Loaded { bytes, .. }) = state.entries.remove(hash) {
            state.bytes -= bytes;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<P>> {
        // A panic elsewhere can't leave the map half changed: every change is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P> State<P> {
    fn insert(&mut self, hash: [u8; 32], program: Loaded<P>, bytes: u64, bytes_max: u64) {
        let used = self.uses;
        self.entries.insert(hash, Entry::Loaded { program, bytes, used });
        self.bytes += bytes;
        // The newest stays even if it alone is over the bound: it is about to be used.
        while self.bytes > bytes_max && self.evict_oldest_but(&hash) {}
    }

    fn evict_oldest_but(&mut self, newest: &[u8; 32]) -> bool {
        let oldest = self
            .entries
            .iter()
            .filter_map(|(hash, entry)| match entry {
                Entry::Loaded { used, bytes, .. } if hash != newest => Some((*used, *hash, *bytes)),
                _ => None,
            })
            .min();
        let Some((_, hash, bytes)) = oldest else {
            return false;
        };
        self.entries.remove(&hash);
        self.bytes -= bytes;
        true
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;

    fn put(cache: &MemoryCache<&'static str>, hash: u8, program: Loaded<&'static str>, bytes: u64) {
        match cache.ask(&[hash; 32]) {
            Flight::Mine(sender, _) => {
                cache.land(&[hash; 32], &sender, program, Some(bytes - ENTRY_BYTES));
            }
            other => panic!("{other:?}"),
        }
    }

    fn has(cache: &MemoryCache<&'static str>, hash: u8) -> bool {
        matches!(cache.ask(&[hash; 32]), Flight::Landed(_))
    }

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let cache = MemoryCache::new(10_000);
        put(&cache, 1, Ok("a"), 4_000);
        put(&cache, 2, Ok("b"), 4_000);
        assert!(has(&cache, 1));
        put(&cache, 3, Ok("c"), 4_000);
        assert!(has(&cache, 1) && has(&cache, 3));
        assert_eq!(cache.bytes(), 8_000);
        assert!(!has(&cache, 2));
    }

    #[test]
    fn one_of_those_who_ask_loads() {
        let cache = MemoryCache::new(10_000);
        let Flight::Mine(sender, _) = cache.ask(&[1; 32]) else {
            panic!()
        };
        let Flight::Joined(waiting) = cache.ask(&[1; 32]) else {
            panic!()
        };
        cache.land(&[1; 32], &sender, Ok("a"), Some(1));
        assert_eq!(*waiting.borrow(), Some(Ok("a")));
        assert!(has(&cache, 1));
    }

    #[test]
    fn a_loader_that_dies_is_replaced() {
        let cache = MemoryCache::<&str>::new(10_000);
        drop(cache.ask(&[1; 32]));
        assert!(matches!(cache.ask(&[1; 32]), Flight::Mine(..)));
    }

    #[test]
    fn what_is_not_to_be_kept_is_told_and_forgotten() {
        let cache = MemoryCache::<&str>::new(10_000);
        let Flight::Mine(sender, receiver) = cache.ask(&[1; 32]) else {
            panic!()
        };
        let fault = GuestFault::Internal {
            message: String::new(),
        };
        cache.land(&[1; 32], &sender, Err(fault.clone()), None);
        assert_eq!(receiver.borrow().clone().unwrap(), Err(fault));
        assert!(!has(&cache, 1));
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn what_is_forgotten_while_it_loads_does_not_come_back() {
        let cache = MemoryCache::new(10_000);
        let Flight::Mine(sender, receiver) = cache.ask(&[1; 32]) else {
            panic!()
        };
        cache.forget(&[1; 32]);
        cache.land(&[1; 32], &sender, Ok("a"), Some(1));
        assert_eq!(receiver.borrow().clone().unwrap(), Ok("a"));
        assert!(!has(&cache, 1));
        assert_eq!(cache.bytes(), 0);
    }
}
