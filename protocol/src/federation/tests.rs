#![expect(clippy::unwrap_used, reason = "a test panics on surprise")]

use super::record::Record;
use super::*;
use crate::head::SignedHead;
use crate::key::{NodeKey, OwnerKey};
use crate::testing::{manifest, publish};

fn record(seed: u8, number: u64) -> VerifiedRecord {
    let key = NodeKey::from_seed([seed; 32]);
    let record = Record {
        node: key.id(),
        addresses: vec![format!("192.0.2.{seed}:4433")],
        number,
        software: String::new(),
        extensions: Extensions::none(),
    };
    VerifiedRecord::verify(record.sign(&key)).unwrap()
}

fn node(seed: u8) -> NodeId {
    record(seed, 1).node()
}

fn at(log: u8, number: u64) -> Cursor {
    Cursor {
        log: [log; 16],
        number,
    }
}

fn federation() -> Federation {
    Federation::new(record(0, 1), [0; 16], Clock::default())
}

fn effects(federation: &mut Federation) -> Vec<Effect> {
    std::iter::from_fn(|| federation.poll_effect()).collect()
}

fn linked(others: &[u8]) -> Federation {
    let mut federation = federation();
    for &other in others {
        federation.on_link_up(0, record(other, 1), at(other, 0));
    }
    effects(&mut federation);
    federation
}

fn beat(own: Cursor, known: u64) -> PeerBeat {
    PeerBeat {
        own,
        known,
        extensions: Extensions::none(),
    }
}

fn pulls(federation: &mut Federation) -> Vec<NodeId> {
    let pull = |effect| match effect {
        Effect::Pull(node) => Some(node),
        _ => None,
    };
    effects(federation).into_iter().filter_map(pull).collect()
}

#[test]
fn a_record_is_dialled_and_tried_again_more_and_more_slowly() {
    let mut federation = federation();
    federation.on_record(0, None, record(1, 1));
    let mut dialled = Vec::new();
    for second in 0..60 {
        let now_ms = second * 1_000;
        federation.on_tick(now_ms);
        for effect in effects(&mut federation) {
            if let Effect::Dial(other, addresses) = effect {
                assert_eq!((other, addresses[0].as_str()), (node(1), "192.0.2.1:4433"));
                dialled.push(second);
                federation.on_not_reached(now_ms, other);
            }
        }
    }
    let pauses: Vec<u64> = dialled.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(pauses[..4], [1, 2, 4, 8], "{dialled:?}");
    assert!(pauses[4..].iter().all(|pause| *pause == 15), "{dialled:?}");
}

#[test]
fn whoever_introduces_itself_is_made_known_and_hearsay_is_not_passed_on() {
    let mut federation = linked(&[1, 2]);
    federation.on_link_up(0, record(3, 1), at(3, 0));
    let told: Vec<NodeId> = effects(&mut federation)
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Send(to, message) if matches!(*message, PeerMessage::Members(_)) => Some(to),
            _ => None,
        })
        .collect();
    // The two hear of the third, and the third of the two.
    for other in [1, 2, 3] {
        assert!(told.contains(&node(other)), "{told:?}");
    }
    federation.on_record(0, Some(node(1)), record(4, 1));
    let passed_on = |effect: &Effect| matches!(effect, Effect::Send(..));
    assert!(!effects(&mut federation).iter().any(passed_on));
    assert!(federation.is_known(record(4, 1).signed()));
    assert!(!federation.is_known(record(4, 2).signed()));
}

#[test]
fn a_short_absence_changes_nothing_and_a_long_one_is_a_loss() {
    let mut federation = linked(&[1]);
    federation.on_link_down(1_000, node(1));
    federation.on_tick(1_000 + ABSENT_MAX_MS);
    assert!(!effects(&mut federation).contains(&Effect::Left(node(1))));
    federation.on_link_up(3_000, record(1, 1), at(1, 0));
    assert!(!effects(&mut federation).contains(&Effect::Joined(node(1))));
    federation.on_link_down(10_000, node(1));
    federation.on_tick(10_001 + ABSENT_MAX_MS);
    assert!(effects(&mut federation).contains(&Effect::Left(node(1))));
    assert!(federation.present().is_empty());
}

#[test]
fn a_silent_link_is_closed() {
    let mut federation = linked(&[1]);
    federation.on_tick(SILENT_AFTER_MS);
    assert!(
        !effects(&mut federation)
            .iter()
            .any(|e| matches!(e, Effect::Close(..)))
    );
    federation.on_tick(SILENT_AFTER_MS + 1);
    assert!(
        effects(&mut federation)
            .iter()
            .any(|e| matches!(e, Effect::Close(..)))
    );
}

fn change(at: Cursor) -> RegistryChange {
    let key = OwnerKey::from_seed([9; 32]);
    let revision = manifest(&key, "a", 0, 1, publish(0));
    RegistryChange {
        at,
        manifest: revision.signed().clone(),
        head_signature: SignedHead::sign(&key, &revision).signature,
        extensions: Extensions::none(),
    }
}

#[test]
fn what_an_owner_hands_in_goes_to_everybody_once() {
    let mut federation = linked(&[1, 2]);
    federation.on_published(&change(at(0, 1)));
    let sent = effects(&mut federation);
    assert_eq!(sent.len(), 2, "{sent:?}");
    assert_eq!(federation.own(), at(0, 1));
}

#[test]
fn what_is_missing_is_pulled_at_once_or_when_beats_differ_for_a_while() {
    // The other side is ahead when the link comes up.
    let mut behind = federation();
    behind.on_link_up(0, record(1, 1), at(1, 5));
    assert_eq!(pulls(&mut behind), [node(1)]);
    behind.on_pulled(node(1), Some(&[at(1, 5)]));
    assert!(behind.clock().covers(at(1, 5)));

    // A change of a third one was missed: nobody's own log tells, but the sums differ.
    let mut federation = linked(&[1]);
    for n in 1..=BEATS_DIFFERENT_MAX {
        federation.on_beat(u64::from(n), node(1), &beat(at(1, 0), 77));
        assert_eq!(pulls(&mut federation), [], "beat {n}");
    }
    federation.on_beat(10, node(1), &beat(at(1, 0), 77));
    assert_eq!(pulls(&mut federation), [node(1)]);
    // One at a time.
    federation.on_beat(12, node(1), &beat(at(1, 0), 77));
    assert_eq!(pulls(&mut federation), []);
}

#[test]
fn who_lost_its_clock_compares_before_others_compare_with_it() {
    let long = at(1, RECONCILED_MIN);
    // Nothing is known of any log but its own.
    let mut lost = federation();
    lost.on_published(&change(at(0, 1)));
    lost.on_link_up(0, record(1, 1), long);
    assert!(lost.is_beyond_clock(&node(1)));
    assert_eq!(pulls(&mut lost), [node(1)]);

    // Another one's log is known.
    let mut other = federation();
    other.on_link_up(0, record(2, 1), at(2, 1));
    other.on_pulled(node(2), Some(&[at(2, 1)]));
    other.on_link_up(0, record(1, 1), long);
    assert!(other.is_beyond_clock(&node(1)));
    assert_eq!(pulls(&mut other), [node(2)]);
    for n in 1..=BEATS_DIFFERENT_MAX {
        other.on_beat(u64::from(n), node(1), &beat(long, 77));
        assert_eq!(pulls(&mut other), [], "beat {n}");
    }
    other.on_beat(10, node(1), &beat(long, 77));
    assert_eq!(pulls(&mut other), [node(1)]);
}

#[test]
fn only_the_next_change_of_a_log_is_taken_for_known() {
    let mut federation = linked(&[1]);
    federation.on_stored(at(1, 2));
    assert_eq!(federation.clock().get(&[1; 16]), 0, "number 1 is missing");
    federation.on_stored(at(1, 1));
    federation.on_stored(at(1, 2));
    assert_eq!(federation.clock().get(&[1; 16]), 2);
    assert!(federation.is_own_log(&node(1), &[1; 16]));
    assert!(!federation.is_own_log(&node(1), &[2; 16]), "another one's log");
}

#[test]
fn a_link_settles_once() {
    let mut federation = linked(&[1]);
    let even = federation.clock().sum();
    assert!(!federation.on_beat(1, node(1), &beat(at(1, 0), even + 1)));
    assert!(federation.on_beat(2, node(1), &beat(at(1, 0), even)));
    assert!(!federation.on_beat(3, node(1), &beat(at(1, 0), even)));
}
