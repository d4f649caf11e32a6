//! What two super nodes do not both have, where no clock tells: range-based set reconciliation.
//!
//! Each side has a set with one item for each function: which manifest is live. Ranges whose fingerprints differ are
//! parted until what is left is short enough to be listed (Meyer 2022, "Range-Based Set Reconciliation"; the messages
//! are Negentropy's, version 1). Both sides hold their sets in memory meanwhile, 40 bytes an item. With 100,000
//! functions of which 1,000 differ it takes three round trips and about 800 bytes for each difference.

use negentropy::{Id, Negentropy, NegentropyStorageVector};

use crate::id::{FunctionId, ManifestHash};
use crate::wire::federation::ItemId;

/// The longest message of a reconciliation, in bytes; what does not fit comes in the next one.
pub const STEP_BYTES_MAX: usize = 256 << 10;
/// Messages that one side sends at most: enough for a million differences.
pub const STEPS_MAX: usize = 500;
/// Items that are fetched after one reconciliation, 32 bytes each. What is beyond waits for the next one.
pub const WANTED_MAX: usize = 100_000;

/// Half of an item's name is its function's, half its manifest's: who is asked for one finds it in a sorted table.
const HALF: usize = size_of::<ItemId>() / 2;

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
pub fn item(function: &FunctionId, manifest: &ManifestHash) -> ItemId {
    let mut id = [0; size_of::<ItemId>()];
    id[..HALF].copy_from_slice(&function.as_bytes()[..HALF]);
    id[HALF..].copy_from_slice(&manifest.as_bytes()[..HALF]);
    id
}

/// How the id of an item's function begins.
pub fn function_start(item: &ItemId) -> &[u8] {
    &item[..HALF]
}

/// The side that wants to know what it lacks.
#[derive(Debug)]
pub struct Asker {
    sets: Negentropy<'static, NegentropyStorageVector>,
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
    pub fn new(items: impl IntoIterator<Item = ItemId>) -> Result<(Self, Vec<u8>), ReconcileError> {
        let mut sets = sets(items)?;
        let first = sets.initiate()?;
        let asker = Self {
            sets,
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
        self.wanted.extend(need.into_iter().map(Id::to_bytes));
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
    pub fn new(items: impl IntoIterator<Item = ItemId>) -> Result<Self, ReconcileError> {
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

fn sets(
    items: impl IntoIterator<Item = ItemId>,
) -> Result<Negentropy<'static, NegentropyStorageVector>, ReconcileError> {
    let items = items.into_iter();
    let mut storage = NegentropyStorageVector::with_capacity(items.size_hint().0);
    for item in items {
        // All of one time: they are in the order of their ids.
        storage.insert(0, Id::from_byte_array(item))?;
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

    fn numbered(number: u64) -> ItemId {
        *blake3::hash(&number.to_le_bytes()).as_bytes()
    }

    /// What the asker wants, whether that is all, and how many bytes and messages were sent.
    fn reconcile(here: &BTreeSet<ItemId>, there: &BTreeSet<ItemId>) -> (Vec<ItemId>, bool, usize, usize) {
        let (mut asker, mut message) = Asker::new(here.iter().copied()).unwrap();
        let mut answerer = Answerer::new(there.iter().copied()).unwrap();
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
            item(
                &FunctionId::from_bytes(numbered(number)),
                &ManifestHash::from_bytes([0; 32]),
            )
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
        let (mut asker, _) = Asker::new((0..100).map(numbered)).unwrap();
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
    fn an_item_names_its_function() {
        let (function, manifest) = (FunctionId::from_bytes([1; 32]), ManifestHash::from_bytes([2; 32]));
        let item = item(&function, &manifest);
        assert_eq!(function_start(&item), &[1; 16]);
        assert_eq!(item[16..], [2; 16]);
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
            let (mut asker, _) = Asker::new((0..items).map(numbered)).unwrap();
            let mut answerer = Answerer::new((0..items).map(numbered)).unwrap();
            for bytes in [bytes.clone(), [&[0x61][..], &bytes].concat()] {
                let _ = asker.on_answer(&bytes);
                let _ = answerer.answer(&bytes);
            }
        }
    }
}
