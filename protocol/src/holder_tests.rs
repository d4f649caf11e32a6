#![expect(clippy::unwrap_used, reason = "a test panics on surprise")]

use proptest::prelude::*;

use super::*;
use crate::id::EngineHash;
use crate::key::OwnerKey;
use crate::manifest::{Action, Limits, Publish};
use crate::testing::{manifest, publish};

fn policy() -> SeedPolicy {
    SeedPolicy {
        allow_owners: None,
        deny_owners: BTreeSet::new(),
        artifact_bytes_max: 1 << 20,
        disk_bytes_max: 1 << 30,
        ceiling: Limits::default(),
        engines: BTreeSet::new(),
        capabilities: BTreeSet::new(),
        evict_after_ms: None,
    }
}

fn revision(revision: u64) -> Verified {
    manifest(
        &OwnerKey::from_seed([1; 32]),
        "a",
        0,
        revision,
        publish(revision as u8),
    )
}

fn tombstone(revision: u64) -> Verified {
    manifest(
        &OwnerKey::from_seed([1; 32]),
        "a",
        0,
        revision,
        Action::Decommission(Default::default()),
    )
}

fn artifact(manifest: &Verified) -> ArtifactHash {
    manifest.publish().unwrap().artifact
}

fn effects(holder: &mut Holder) -> Vec<Effect> {
    std::iter::from_fn(|| holder.poll_effect()).collect()
}

/// A host that is synced and ready for the first revision.
fn ready() -> (Holder, Verified) {
    let (mut holder, first) = (Holder::new(policy()), revision(1));
    holder.on_synced();
    holder.on_assign(first.clone());
    holder.on_obtained(&first);
    effects(&mut holder);
    (holder, first)
}

#[test]
fn what_was_obtained_for_a_revision_that_lost_is_not_taken_for_the_one_that_has_its_number() {
    let (mut holder, first) = ready();
    let of = |artifact| manifest(&OwnerKey::from_seed([1; 32]), "a", 0, 2, publish(artifact));
    let (mut loser, mut winner) = (of(8), of(9));
    if loser.rank() > winner.rank() {
        (loser, winner) = (winner, loser);
    }
    holder.on_assign(loser.clone());
    holder.on_assign(winner.clone());
    assert!(holder.wants(&winner) && !holder.wants(&loser));
    effects(&mut holder);
    // Was on its way already.
    holder.on_obtained(&loser);
    holder.on_failed(0, &loser);
    holder.on_unfit(&loser, "no".to_owned());
    assert_eq!(effects(&mut holder), []);
    let answer = holder.answer(0, &first.function(), first.version());
    assert_eq!(answer, Answer::Serve(Box::new(first)));
    holder.on_obtained(&winner);
    let answer = holder.answer(0, &winner.function(), winner.version());
    assert_eq!(answer, Answer::Serve(Box::new(winner)));
}

#[test]
fn a_new_life_lets_go_of_the_bytes_of_the_old_one_though_its_end_was_never_heard() {
    let (mut holder, first) = ready();
    let again = manifest(&OwnerKey::from_seed([1; 32]), "a", 1, 1, publish(7));
    holder.on_assign(again.clone());
    let told = effects(&mut holder);
    // What is stored of the old one first: after a power cut it would be asked for otherwise.
    let forgotten = told
        .iter()
        .position(|e| *e == Effect::Purge(again.function(), None));
    let removed = Effect::RemoveArtifact(artifact(&first));
    let removed = told.iter().position(|e| *e == removed);
    assert!(forgotten.is_some() && forgotten < removed, "{told:?}");
    assert!(
        !told.contains(&Effect::RemoveArtifact(artifact(&again))),
        "{told:?}"
    );
    assert!(holder.needs(&artifact(&again)) && !holder.needs(&artifact(&first)));
}

#[test]
fn what_cannot_run_here_is_refused_for_good() {
    let (mut holder, first) = ready();
    let second = revision(2);
    holder.on_assign(second.clone());
    assert!(holder.wants(&second));
    assert!(holder.needs(&artifact(&first)) && holder.needs(&artifact(&second)));
    effects(&mut holder);
    // Old news: that version is not on its way any more.
    holder.on_unfit(&first, "no".to_owned());
    assert_eq!(effects(&mut holder), []);
    holder.on_unfit(&second, "no".to_owned());
    let told = effects(&mut holder);
    let refused = Effect::ReportRefused(second.function(), second.version(), "no".to_owned());
    assert!(told.contains(&refused), "{told:?}");
    assert!(
        told.contains(&Effect::RemoveArtifact(artifact(&first))),
        "{told:?}"
    );
    assert!(holder.is_empty() && !holder.holds(&first.function()) && !holder.needs(&artifact(&first)));
}

#[test]
fn an_assigned_function_is_obtained_then_served() {
    let (mut holder, first) = (Holder::new(policy()), revision(1));
    holder.on_synced();
    holder.on_assign(first.clone());
    assert_eq!(effects(&mut holder), [Effect::Obtain(Box::new(first.clone()))]);
    assert_eq!(
        holder.answer(0, &first.function(), Version::default()),
        Answer::NotHeld
    );
    holder.on_obtained(&first);
    assert_eq!(
        effects(&mut holder),
        [Effect::ReportReady(first.function(), first.version())]
    );
    assert_eq!(
        holder.answer(0, &first.function(), first.version()),
        Answer::Serve(Box::new(first.clone()))
    );
}

#[test]
fn an_edit_serves_the_old_revision_until_the_new_one_is_ready_but_not_to_those_who_know() {
    let (mut holder, first) = ready();
    let second = revision(2);
    let function = first.function();
    holder.on_assign(second.clone());
    assert_eq!(
        holder.answer(0, &function, first.version()),
        Answer::Serve(Box::new(first.clone()))
    );
    assert_eq!(
        holder.answer(0, &function, second.version()),
        Answer::Refresh(second.version())
    );
    holder.on_obtained(&second);
    assert_eq!(
        holder.answer(0, &function, first.version()),
        Answer::Serve(Box::new(second.clone()))
    );
    let effects = effects(&mut holder);
    assert!(
        effects.contains(&Effect::RemoveArtifact(artifact(&first))),
        "{effects:?}"
    );
}

#[test]
fn a_rollback_to_the_same_bytes_removes_nothing() {
    let (mut holder, _) = ready();
    let again = manifest(&OwnerKey::from_seed([1; 32]), "a", 0, 2, publish(1));
    holder.on_assign(again.clone());
    holder.on_obtained(&again);
    assert!(
        !effects(&mut holder)
            .iter()
            .any(|e| matches!(e, Effect::RemoveArtifact(_)))
    );
}

#[test]
fn two_functions_may_share_an_artifact() {
    let (mut holder, first) = ready();
    let other = manifest(&OwnerKey::from_seed([1; 32]), "b", 0, 1, publish(1));
    holder.on_assign(other.clone());
    holder.on_obtained(&other);
    effects(&mut holder);
    holder.on_release(first.function());
    assert!(
        !effects(&mut holder)
            .iter()
            .any(|e| matches!(e, Effect::RemoveArtifact(_)))
    );
    holder.on_release(other.function());
    assert!(effects(&mut holder).contains(&Effect::RemoveArtifact(artifact(&other))));
}

#[test]
fn what_could_not_be_obtained_is_tried_again_later() {
    let (mut holder, first) = (Holder::new(policy()), revision(1));
    holder.on_assign(first.clone());
    effects(&mut holder);
    holder.on_failed(0, &first);
    holder.on_tick(RETRY_MIN_MS - 1);
    assert_eq!(effects(&mut holder), []);
    holder.on_tick(RETRY_MIN_MS);
    assert_eq!(effects(&mut holder), [Effect::Obtain(Box::new(first.clone()))]);
    holder.on_failed(0, &first);
    holder.on_tick(RETRY_MIN_MS);
    assert_eq!(effects(&mut holder), [], "the second delay is longer");
}

#[test]
fn a_damaged_artifact_is_obtained_again_and_not_run() {
    let (mut holder, first) = ready();
    holder.on_damaged(first.function());
    assert_eq!(effects(&mut holder), [Effect::Obtain(Box::new(first.clone()))]);
    assert_eq!(
        holder.answer(0, &first.function(), first.version()),
        Answer::NotHeld
    );
}

#[test]
fn after_a_restart_nothing_is_answered_before_the_super_node_told_what_changed() {
    let first = revision(1);
    let mut holder = Holder::new(policy());
    holder.restore(first.clone(), true);
    assert_eq!(
        holder.answer(0, &first.function(), first.version()),
        Answer::CutOff
    );
    holder.on_changed(tombstone(2));
    holder.on_synced();
    assert_eq!(
        holder.answer(0, &first.function(), first.version()),
        Answer::Decommissioned
    );
}

#[test]
fn an_old_tombstone_says_nothing_of_a_later_life() {
    let (mut holder, first) = ready();
    holder.on_changed(tombstone(2));
    let later = Version {
        generation: 1,
        revision: 1,
    };
    assert_eq!(
        holder.answer(0, &first.function(), first.version()),
        Answer::Decommissioned
    );
    assert_eq!(holder.answer(0, &first.function(), later), Answer::NotHeld);
}

#[test]
fn a_host_cut_off_serves_for_a_day() {
    let (mut holder, first) = ready();
    holder.on_unsynced(1_000);
    let serve = Answer::Serve(Box::new(first.clone()));
    assert_eq!(
        holder.answer(1_000 + CUT_OFF_MAX_MS, &first.function(), first.version()),
        serve
    );
    assert_eq!(
        holder.answer(1_001 + CUT_OFF_MAX_MS, &first.function(), first.version()),
        Answer::CutOff
    );
}

#[test]
fn each_rule_of_the_policy_refuses_by_name() {
    let owner = OwnerKey::from_seed([1; 32]).id();
    let Action::Publish(wanted) = publish(0) else {
        unreachable!()
    };
    let engine = EngineHash::from_bytes([1; 32]);
    let low = Limits {
        fuel: 1,
        ..Limits::default()
    };
    let cases = [
        (
            SeedPolicy {
                deny_owners: [owner].into(),
                ..policy()
            },
            wanted.clone(),
            "is denied",
        ),
        (
            SeedPolicy {
                allow_owners: Some([].into()),
                ..policy()
            },
            wanted.clone(),
            "among the allowed",
        ),
        (
            SeedPolicy {
                artifact_bytes_max: 0,
                ..policy()
            },
            wanted.clone(),
            "at most 0 are taken",
        ),
        (
            SeedPolicy {
                disk_bytes_max: 0,
                ..policy()
            },
            wanted.clone(),
            "disk budget",
        ),
        (
            SeedPolicy {
                ceiling: low,
                ..policy()
            },
            wanted.clone(),
            "limits.fuel",
        ),
        (
            policy(),
            Publish {
                engine: Some(engine),
                ..wanted.clone()
            },
            "engine",
        ),
        (
            policy(),
            Publish {
                capabilities: vec!["net".to_owned()],
                ..wanted.clone()
            },
            "\"net\"",
        ),
    ];
    for (policy, publish, part) in cases {
        let reason = policy.decide(&owner, &publish, 0).unwrap_err();
        assert!(reason.contains(part), "{reason}");
    }
    policy().decide(&owner, &wanted, 0).unwrap();
}

#[test]
fn a_refused_edit_lets_go_of_the_old_revision() {
    let (mut holder, first) = ready();
    let Action::Publish(mut large) = publish(2) else {
        unreachable!()
    };
    large.artifact_bytes = 2 << 20;
    let second = manifest(&OwnerKey::from_seed([1; 32]), "a", 0, 2, Action::Publish(large));
    holder.on_assign(second);
    let effects = effects(&mut holder);
    assert!(
        effects.iter().any(|e| matches!(e, Effect::ReportRefused(..))),
        "{effects:?}"
    );
    assert_eq!(
        holder.answer(0, &first.function(), first.version()),
        Answer::NotHeld
    );
}

#[derive(Debug, Clone)]
enum Step {
    Assign(u64),
    Changed(u64),
    Release,
    Obtained(u64),
    Damaged,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..6u64).prop_map(Step::Assign),
        (1..6u64).prop_map(Step::Changed),
        Just(Step::Release),
        (1..6u64).prop_map(Step::Obtained),
        Just(Step::Damaged),
    ]
}

fn take(holder: &mut Holder, step: &Step) {
    let function = revision(1).function();
    match step {
        Step::Assign(r) => holder.on_assign(revision(*r)),
        Step::Changed(r) => holder.on_changed(revision(*r)),
        Step::Release => holder.on_release(function),
        Step::Obtained(r) => holder.on_obtained(&revision(*r)),
        Step::Damaged => holder.on_damaged(function),
    }
}

proptest! {
    /// Once a tombstone was heard, no message of that generation in any order makes the host answer.
    #[test]
    fn after_a_tombstone_no_order_of_messages_brings_an_answer(
        before in prop::collection::vec(step(), 0..8),
        after in prop::collection::vec(step(), 0..12),
        by_assign in any::<bool>(),
        at in 1..6u64,
    ) {
        let mut holder = Holder::new(policy());
        holder.on_synced();
        for step in &before {
            take(&mut holder, step);
        }
        if by_assign { holder.on_assign(tombstone(at)) } else { holder.on_changed(tombstone(at)) }
        for step in &after {
            let function = revision(1).function();
            prop_assert_eq!(holder.answer(0, &function, Version::default()), Answer::Decommissioned);
            take(&mut holder, step);
        }
        prop_assert!(holder.held().is_empty());
    }

    /// A host never answers with an older version than the caller knows, nor goes back.
    #[test]
    fn answers_never_go_back(steps in prop::collection::vec(step(), 0..20), known in 0..6u64) {
        let mut holder = Holder::new(policy());
        holder.on_synced();
        let known = Version { generation: 0, revision: known };
        for step in &steps {
            take(&mut holder, step);
            if let Answer::Serve(manifest) = holder.answer(0, &revision(1).function(), known) {
                prop_assert!(manifest.version() >= known);
            }
        }
    }
}
