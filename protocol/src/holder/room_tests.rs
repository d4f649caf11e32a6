//! What goes when the disk budget is used up.
#![expect(clippy::unwrap_used, reason = "a test panics on surprise")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::eviction::{Candidate, Goes, Ledger, plan};
use super::*;
use crate::key::OwnerKey;
use crate::manifest::{Action, Limits};
use crate::testing::{manifest, publish};

/// Long enough for a function to go.
const IDLE_MS: u64 = 1_000;

fn policy(disk_bytes_max: u64, evict_after_ms: Option<u64>) -> SeedPolicy {
    SeedPolicy {
        allow_owners: None,
        deny_owners: BTreeSet::new(),
        artifact_bytes_max: 1_000,
        disk_bytes_max,
        ceiling: Limits::default(),
        engines: BTreeSet::new(),
        capabilities: BTreeSet::new(),
        evict_after_ms,
    }
}

/// A revision of a function with so many bytes; `content` says which.
fn revision(name: &str, number: u64, content: u8, bytes: u64) -> Verified {
    let Action::Publish(mut publish) = publish(content) else {
        unreachable!("it publishes")
    };
    publish.artifact_bytes = bytes;
    let key = OwnerKey::from_seed([1; 32]);
    manifest(&key, name, 0, number, Action::Publish(publish))
}

fn effects(holder: &mut Holder) -> Vec<Effect> {
    std::iter::from_fn(|| holder.poll_effect()).collect()
}

fn dropped(effects: &[Effect]) -> Vec<FunctionId> {
    let dropped = |effect: &Effect| match effect {
        Effect::ReportDropped(function) => Some(*function),
        _ => None,
    };
    effects.iter().filter_map(dropped).collect()
}

fn refusals(effects: &[Effect]) -> usize {
    let refused = |effect: &&Effect| matches!(effect, Effect::ReportRefused(..));
    effects.iter().filter(refused).count()
}

fn seed(holder: &mut Holder, manifest: &Verified) -> Vec<Effect> {
    holder.on_assign(manifest.clone());
    holder.on_obtained(manifest);
    effects(holder)
}

#[test]
fn a_host_that_is_full_refuses_unless_its_operator_lets_others_go() {
    let (old, new) = (revision("old", 1, 1, 60), revision("new", 1, 2, 60));
    for (evict, held) in [(None, &old), (Some(IDLE_MS), &new)] {
        let mut holder = Holder::new(policy(100, evict));
        seed(&mut holder, &old);
        holder.on_tick(IDLE_MS);
        let told = seed(&mut holder, &new);
        assert_eq!(refusals(&told), usize::from(evict.is_none()), "{told:?}");
        assert_eq!(holder.len(), 1);
        assert!(holder.holds(&held.function()));
    }
}

#[test]
fn whoever_was_called_lately_stays() {
    let mut holder = Holder::new(policy(100, Some(IDLE_MS)));
    let (called, idle) = (revision("called", 1, 1, 50), revision("idle", 1, 2, 50));
    seed(&mut holder, &called);
    seed(&mut holder, &idle);
    holder.on_called(10, &called.function());
    holder.on_tick(IDLE_MS + 20);
    let third = revision("third", 1, 3, 50);
    assert_eq!(dropped(&seed(&mut holder, &third)), [idle.function()]);
    // The third has only just come, and the first is called all the time.
    holder.on_called(IDLE_MS + 21, &called.function());
    let told = seed(&mut holder, &revision("fourth", 1, 4, 50));
    assert_eq!((dropped(&told), refusals(&told)), (vec![], 1));
}

#[test]
fn what_went_is_not_what_another_one_goes_for_next() {
    let mut holder = Holder::new(policy(100, Some(IDLE_MS)));
    let (one, two) = (revision("one", 1, 1, 100), revision("two", 1, 2, 100));
    seed(&mut holder, &one);
    holder.on_tick(IDLE_MS);
    seed(&mut holder, &two);
    holder.on_tick(3 * IDLE_MS);
    let told = seed(&mut holder, &one);
    assert_eq!((dropped(&told), refusals(&told)), (vec![], 1));
    holder.on_tick(IDLE_MS + EVICTED_FOR_MS);
    assert_eq!(dropped(&seed(&mut holder, &one)), [two.function()]);
}

#[test]
fn superseded_bytes_go_without_leave_and_durably_first() {
    let mut holder = Holder::new(policy(100, None));
    let (first, second) = (revision("f", 1, 1, 60), revision("f", 2, 2, 30));
    seed(&mut holder, &first);
    holder.on_assign(second.clone());
    effects(&mut holder);
    holder.on_assign(revision("g", 1, 3, 60));
    let function = first.function();
    let artifact = first.publish().unwrap().artifact;
    let told = effects(&mut holder);
    assert!(
        matches!(told[0], Effect::LogEvicted(f, _) if f == function),
        "{told:?}"
    );
    assert_eq!(
        told[1..4],
        [
            Effect::Purge(function, None),
            Effect::ReportDropped(function),
            Effect::RemoveArtifact(artifact)
        ]
    );
    assert_eq!(refusals(&told), 0);
    // The new revision is still on its way.
    assert!(holder.wants(&second));
    holder.on_obtained(&second);
    assert!(effects(&mut holder).contains(&Effect::ReportReady(function, second.version())));
}

#[test]
fn a_revision_that_was_superseded_elsewhere_goes_as_a_whole() {
    let mut holder = Holder::new(policy(100, None));
    seed(&mut holder, &revision("f", 1, 1, 60));
    holder.on_changed(revision("f", 2, 2, 30));
    let g = revision("g", 1, 3, 60);
    let f = revision("f", 1, 1, 60).function();
    assert_eq!(dropped(&seed(&mut holder, &g)), [f]);
    assert!(!holder.holds(&f) && holder.holds(&g.function()));
}

#[test]
fn what_is_refused_for_another_reason_costs_nobody_anything() {
    let mut holder = Holder::new(policy(100, Some(0)));
    seed(&mut holder, &revision("f", 1, 1, 60));
    let told = seed(&mut holder, &revision("g", 1, 2, 1_001));
    assert_eq!((dropped(&told), refusals(&told)), (vec![], 1));
    // Nor does what would not fit if all went that may.
    let mut holder = Holder::new(policy(100, Some(IDLE_MS)));
    seed(&mut holder, &revision("idle", 1, 1, 30));
    let called = revision("called", 1, 2, 60);
    seed(&mut holder, &called);
    holder.on_called(IDLE_MS, &called.function());
    let told = seed(&mut holder, &revision("h", 1, 3, 50));
    assert_eq!((dropped(&told), refusals(&told)), (vec![], 1));
    assert_eq!(dropped(&seed(&mut holder, &revision("i", 1, 4, 40))).len(), 1);
}

#[test]
fn room_counts_what_would_go() {
    let mut holder = Holder::new(policy(100, Some(IDLE_MS)));
    seed(&mut holder, &revision("f", 1, 1, 60));
    assert_eq!(holder.disk_free_bytes(), 40);
    holder.on_tick(IDLE_MS);
    assert_eq!(holder.disk_free_bytes(), 100);
}

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    // Few artifacts, so that functions share some.
    let artifacts = prop::collection::btree_set(0..6u8, 1..3);
    prop::collection::vec(artifacts, 0..8).prop_map(|functions| {
        let candidate = |(index, artifacts): (usize, BTreeSet<u8>)| Candidate {
            function: FunctionId::from_bytes([u8::try_from(index).unwrap(); 32]),
            goes: Goes::NotCalled,
            used_ms: index as u64,
            artifacts: artifacts.into_iter().map(sized).collect(),
        };
        functions.into_iter().enumerate().map(candidate).collect()
    })
}

/// An artifact, which has one size whoever needs it.
fn sized(content: u8) -> (ArtifactHash, u64) {
    (ArtifactHash::of(&[content]), 10 + u64::from(content) * 7)
}

/// What candidates need, and so many bytes that nobody may let go.
fn ledger(candidates: &[Candidate], kept: u64) -> Ledger {
    let mut ledger = Ledger::default();
    ledger.enter(ArtifactHash::of(b"kept"), kept);
    for (artifact, bytes) in candidates.iter().flat_map(|candidate| &candidate.artifacts) {
        ledger.enter(*artifact, *bytes);
    }
    ledger
}

fn left(all: &[Candidate], going: &[Candidate], kept: u64) -> u64 {
    let mut ledger = ledger(all, kept);
    going.iter().for_each(|candidate| ledger.let_go(candidate));
    ledger.bytes()
}

proptest! {
    /// What goes makes room; nobody goes in vain; nobody goes if it would not do.
    #[test]
    fn as_many_go_as_have_to(all in candidates(), kept in 0..150u64, most in 0..200u64) {
        let left = |going: &[Candidate]| left(&all, going, kept);
        let going = plan(ledger(&all, kept), all.clone(), most);
        prop_assert!(going.is_empty() || left(&going) <= most);
        prop_assert!(!going.is_empty() || left(&[]) <= most || left(&all) > most);
        for index in 0..going.len() {
            let mut fewer = going.clone();
            fewer.remove(index);
            prop_assert!(left(&fewer) > most, "one of {going:?} went in vain");
        }
        prop_assert!(going.is_sorted_by_key(|candidate| candidate.used_ms));
    }

    /// The budget holds after every step, whatever is assigned, called and superseded.
    #[test]
    fn the_budget_holds(
        steps in prop::collection::vec((0..5u8, 1..4u64, any::<bool>(), any::<bool>()), 0..40),
        evict in any::<bool>(),
    ) {
        let mut holder = Holder::new(policy(100, evict.then_some(IDLE_MS)));
        for (at, (name, number, obtained, called)) in (0u64..).zip(steps) {
            holder.on_tick(at * 400);
            // What it is depends on its name and number, as a revision's content does.
            let content = name * 4 + u8::try_from(number).unwrap();
            let manifest = revision(&format!("f{name}"), number, content, 10 + 3 * u64::from(content));
            holder.on_assign(manifest.clone());
            if obtained {
                holder.on_obtained(&manifest);
            }
            if called {
                holder.on_called(at * 400, &manifest.function());
            }
            effects(&mut holder);
            // An edit has the old bytes beside the new ones until it is ready; nothing else is beyond it.
            let old: u64 = holder.replicas.iter().map(|(_, r)| r).filter(|r| r.wanted).filter_map(|r| r.ready.as_ref())
                .filter_map(|ready| ready.publish().map(|p| p.artifact_bytes)).sum();
            prop_assert!(holder.disk_bytes() <= 100 + old, "{} bytes", holder.disk_bytes());
            // What is counted along is what is there.
            let there: BTreeMap<_, _> = holder.replicas.iter().flat_map(|(_, r)| r.artifacts()).collect();
            prop_assert_eq!(holder.disk_bytes(), there.values().sum::<u64>());
        }
    }
}
