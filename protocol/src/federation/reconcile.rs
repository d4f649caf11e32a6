//! What two super nodes do not both have, where no clock tells: range-based set reconciliation.
//!
//! Each side has a set with one item for each function: which manifest is live. Ranges whose fingerprints differ are
//! parted until what is left is short enough to be listed (Meyer 2022, "Range-Based Set Reconciliation"; the messages
//! are Negentropy's, version 1). Both sides hold their sets in memory meanwhile, 40 bytes an item (the asker 72). With 100,000
//! functions of which 1,000 differ it takes three round trips and about 800 bytes for each difference.

use negentropy::{Id, Negentropy, NegentropyStorageVector};

use crate::id::{FunctionId, ManifestHash};
use crate::manifest::{Verified, Version};
use crate::wire::federation::ItemId;

/// The longest message of a reconciliation, in bytes; what does not fit comes in the next one.
pub const STEP_BYTES_MAX: usize = 256 << 10;
/// Messages that one side sends at most: enough for a million differences.
pub const STEPS_MAX: usize = 500;
/// Items that are fetched after one reconciliation, 32 bytes each. What is beyond waits for the next one.
pub const WANTED_MAX: usize = 100_000;

/// An item begins with half of its function's id: who is asked for one finds it in a sorted table.
const FUNCTION_LEN: usize = 16;
/// Then comes the manifest's rank, so that nobody fetches what is older than its own: generation, whether it is the
/// end, revision; and the beginning of its hash, which only an owner could make the same twice, and for one function.
const RANK_LEN: usize = 8;

/// Why a reconciliation ends early. It is begun anew later.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// What the other side sent makes no sense.
    #[error("the other side's message is none of this protocol: {0}")]
    Message(negentropy::Error),
    /// It does not come to an end.
    #[error("no end after {STEPS_MAX} messages")]
    Endless,
}

impl From<negentropy::Error> for ReconcileError {
    fn from(error: negentropy::Error) -> Self {
        Self::Message(error)
    }
}

/// The item that stands for a function's live manifest.
pub fn item(manifest: &Verified) -> ItemId {
    let (version, is_end) = (manifest.version(), manifest.is_tombstone());
    item_of(&manifest.function(), version, is_end, &manifest.hash())
}

/// The same from its parts. `is_end`: it is a tombstone.
pub fn item_of(function: &FunctionId, version: Version, is_end: bool, hash: &ManifestHash) -> ItemId {
    let Version { generation, revision } = version;
    // 23, 1 and 40 bits: a verified manifest's numbers fit.
    let rank = generation << 41 | u64::from(is_end) << 40 | revision;
    let mut item = [0; size_of::<ItemId>()];
    item[..FUNCTION_LEN].copy_from_slice(&function.as_bytes()[..FUNCTION_LEN]);
    item[FUNCTION_LEN..][..RANK_LEN].copy_from_slice(&rank.to_be_bytes());
    let rest = &mut item[FUNCTION_LEN + RANK_LEN..];
    rest.copy_from_slice(&hash.as_bytes()[..rest.len()]);
    item
}

/// How the id of an item's function begins.
pub fn function_start(item: &ItemId) -> &[u8] {
    &item[..FUNCTION_LEN]
}

/// The side that wants to know what it lacks.
#[derive(Debug)]
pub struct Asker {
    sets: Negentropy<'static, NegentropyStorageVector>,
    /// This side's items, in order.
    items: Vec<ItemId>,
    wanted: Vec<ItemId>,
    steps: usize,
}

/// How it goes on.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this, and give the answer to [`Asker::on_answer`].
    Ask(Vec<u8>),
    /// These are the items that the other side has and this one lacks. `all`: there are no more.
    Done {
        /// The items, in no particular order.
        wanted: Vec<ItemId>,
        /// Whether these are all.
        all: bool,
    },
}

impl Asker {
    /// Begins with the items of this side. Returns the first message, too.
    ///
    /// # Errors
    /// [`ReconcileError`].
    pub fn new(mut items: Vec<ItemId>) -> Result<(Self, Vec<u8>), ReconcileError> {
        items.sort_unstable();
        let mut sets = sets(&items)?;
        let first = sets.initiate()?;
        let asker = Self {
            sets,
            items,
            wanted: Vec::new(),
            steps: 1,
        };
        Ok((asker, first))
    }

    /// The other side answered.
    ///
    /// # Errors
    /// [`ReconcileError`].
    pub fn on_answer(&mut self, message: &[u8]) -> Result<Step, ReconcileError> {
        let (mut have, mut need) = (Vec::new(), Vec::new());
        let next = self.sets.reconcile_with_ids(message, &mut have, &mut need)?;
        let items = &self.items;
        let news = need
            .into_iter()
            .map(Id::to_bytes)
            .filter(|item| is_news(items, item));
        self.wanted.extend(news);
        if self.wanted.len() > WANTED_MAX {
            self.wanted.truncate(WANTED_MAX);
            return Ok(self.done(false));
        }
        let Some(next) = next else {
            return Ok(self.done(true));
        };
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(ReconcileError::Endless);
        }
        Ok(Step::Ask(next))
    }

    fn done(&mut self, all: bool) -> Step {
        let wanted = std::mem::take(&mut self.wanted);
        Step::Done { wanted, all }
    }
}

/// The side that is asked.
#[derive(Debug)]
pub struct Answerer(Negentropy<'static, NegentropyStorageVector>);

impl Answerer {
    /// With the items of this side.
    ///
    /// # Errors
    /// [`ReconcileError`].
    pub fn new(items: &[ItemId]) -> Result<Self, ReconcileError> {
        Ok(Self(sets(items)?))
    }

    /// What to answer.
    ///
    /// # Errors
    /// [`ReconcileError`].
    pub fn answer(&mut self, message: &[u8]) -> Result<Vec<u8>, ReconcileError> {
        Ok(self.0.reconcile(message)?)
    }
}

/// Whether an item is newer than what this side has of its function.
fn is_news(items: &[ItemId], item: &ItemId) -> bool {
    // The last that is not greater: of the same function, if there is an older or the same one.
    let place = items.partition_point(|own| own <= item);
    let newer = items
        .get(place)
        .filter(|own| own[..FUNCTION_LEN] == item[..FUNCTION_LEN]);
    let same = place.checked_sub(1).is_some_and(|before| items[before] == *item);
    newer.is_none() && !same
}

fn sets(items: &[ItemId]) -> Result<Negentropy<'static, NegentropyStorageVector>, ReconcileError> {
    let mut storage = NegentropyStorageVector::with_capacity(items.len());
    for item in items {
        // All of one time: they are in the order of their ids.
        storage.insert(0, Id::from_byte_array(*item))?;
    }
    storage.seal()?;
    Ok(Negentropy::owned(storage, STEP_BYTES_MAX as u64)?)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::key::OwnerKey;
    use crate::manifest::{GENERATION_MAX, REVISION_MAX};
    use crate::testing::{manifest, manifests, publish};

    fn numbered(number: u64) -> ItemId {
        *blake3::hash(&number.to_le_bytes()).as_bytes()
    }

    /// What the asker wants, whether that is all, and how many bytes and messages were sent.
    fn reconcile(here: &BTreeSet<ItemId>, there: &BTreeSet<ItemId>) -> (Vec<ItemId>, bool, usize, usize) {
        let (mut asker, mut message) = Asker::new(here.iter().copied().collect()).unwrap();
        let mut answerer = Answerer::new(&there.iter().copied().collect::<Vec<_>>()).unwrap();
        let (mut bytes, mut messages) = (0, 0);
        loop {
            let answer = answerer.answer(&message).unwrap();
            assert!(message.len() <= STEP_BYTES_MAX && answer.len() <= STEP_BYTES_MAX);
            bytes += message.len() + answer.len();
            messages += 2;
            match asker.on_answer(&answer).unwrap() {
                Step::Ask(next) => message = next,
                Step::Done { wanted, all } => return (wanted, all, bytes, messages),
            }
        }
    }

    #[test]
    fn a_thousand_of_a_hundred_thousand_cost_little() {
        let there: BTreeSet<ItemId> = (0..100_000).map(numbered).collect();
        // Edited since: another manifest of the same function.
        let older = |number| {
            let mut item = numbered(number);
            item[FUNCTION_LEN..].fill(0);
            item
        };
        let here = (0..99_000).map(numbered).chain((99_000..100_000).map(older));
        let (wanted, all, bytes, messages) = reconcile(&here.collect(), &there);
        let edited: BTreeSet<ItemId> = (99_000..100_000).map(numbered).collect();
        assert_eq!(wanted.into_iter().collect::<BTreeSet<_>>(), edited);
        assert!(
            all && bytes <= 1_500 * 1_000,
            "{bytes} bytes for 1,000 differences"
        );
        println!("{bytes} bytes in {messages} messages");
    }

    #[test]
    fn what_does_not_fit_one_message_comes_in_many() {
        let there: BTreeSet<ItemId> = (0..60_000).map(numbered).collect();
        let (wanted, all, _, messages) = reconcile(&BTreeSet::new(), &there);
        assert_eq!((wanted.len(), all), (60_000, true));
        assert!(messages > 8, "{messages} messages");
    }

    #[test]
    fn more_than_one_fetches_is_left_for_later() {
        let there: BTreeSet<ItemId> = (0..120_000).map(numbered).collect();
        let (wanted, all, ..) = reconcile(&BTreeSet::new(), &there);
        assert_eq!((wanted.len(), all), (WANTED_MAX, false));
    }

    #[test]
    fn who_never_comes_to_an_end_is_not_followed_for_ever() {
        let (mut asker, _) = Asker::new((0..100).map(numbered).collect()).unwrap();
        // "All of it differs", again and again.
        let differs = [&[0x61, 0, 0, 1][..], &[7; 16]].concat();
        let error = loop {
            match asker.on_answer(&differs) {
                Ok(Step::Ask(_)) => {}
                Ok(done) => panic!("{done:?}"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, ReconcileError::Endless), "{error}");
    }

    #[test]
    fn items_of_a_function_are_in_the_order_of_its_manifests() {
        let key = OwnerKey::from_seed([1; 32]);
        let all = manifests(&key, &[0, 1, GENERATION_MAX], &[1, 2, REVISION_MAX]);
        for one in &all {
            assert!(one.function().as_bytes().starts_with(function_start(&item(one))));
            for other in &all {
                assert_eq!(item(one).cmp(&item(other)), one.rank().cmp(&other.rank()));
            }
        }
    }

    #[test]
    fn what_is_older_is_not_fetched() {
        let key = OwnerKey::from_seed([1; 32]);
        let revision = |name, number| item(&manifest(&key, name, 0, number, publish(0)));
        let here = [revision("a", 2), revision("b", 1), revision("c", 3)].into();
        let there = [
            revision("a", 1),
            revision("b", 2),
            revision("c", 3),
            revision("d", 1),
        ]
        .into();
        let (mut wanted, ..) = reconcile(&here, &there);
        wanted.sort_unstable();
        let mut news = vec![revision("b", 2), revision("d", 1)];
        news.sort_unstable();
        assert_eq!(wanted, news);
    }

    proptest! {
        #[test]
        fn exactly_what_is_lacking_is_found(
            here in proptest::collection::btree_set(0u64..3_000, 0..1_500),
            there in proptest::collection::btree_set(0u64..3_000, 0..1_500),
        ) {
            let lacking: BTreeSet<ItemId> = there.difference(&here).copied().map(numbered).collect();
            let (here, there) = (here.into_iter().map(numbered).collect(), there.into_iter().map(numbered).collect());
            let (wanted, all, ..) = reconcile(&here, &there);
            prop_assert!(all);
            prop_assert_eq!(wanted.into_iter().collect::<BTreeSet<_>>(), lacking);
        }

        #[test]
        fn strangers_bytes_are_no_more_than_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 0..400), items in 0u64..200,
        ) {
            let items: Vec<ItemId> = (0..items).map(numbered).collect();
            let mut answerer = Answerer::new(&items).unwrap();
            let (mut asker, _) = Asker::new(items).unwrap();
            for bytes in [bytes.clone(), [&[0x61][..], &bytes].concat()] {
                let _ = asker.on_answer(&bytes);
                let _ = answerer.answer(&bytes);
            }
        }
    }
}
