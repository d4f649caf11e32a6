//! Hosts that pause, as the coordinator takes it.
#![expect(clippy::unwrap_used, reason = "a test panics on surprise")]

use super::tests::{beat, effects, join, node, revision, routed, settled};
use super::*;
use crate::pause::PAUSE_LASTS_MS;
use crate::wire::directory::ReplicaState;

fn pause(coordinator: &mut Coordinator, now_ms: u64, byte: u8, reason: Option<&str>) {
    let beat = reason.map_or_else(beat, |reason| beat().paused(reason));
    coordinator.on_beat(now_ms, node(byte), 1_000, &beat);
}

/// Everybody is heard, so that nobody is lost, and time passes.
fn pass(coordinator: &mut Coordinator, now_ms: u64, paused: &[u8], others: &[u8]) {
    for byte in paused {
        pause(coordinator, now_ms, *byte, Some("night"));
    }
    for byte in others {
        pause(coordinator, now_ms, *byte, None);
    }
    coordinator.on_tick(now_ms);
}

#[test]
fn a_host_that_pauses_is_not_routed_to_and_moves_nothing() {
    let (mut coordinator, function) = settled(&[1, 2, 3, 4]);
    let assigned = coordinator.assigned(&function).to_vec();
    let paused = (1..=4).find(|byte| assigned.contains(&node(*byte))).unwrap();
    pause(&mut coordinator, 1_000, paused, Some("quiet hours 22:00-07:00"));
    coordinator.on_tick(2_000);
    assert!(!routed(&coordinator, 2_000, &function).contains(&node(paused)));
    assert_eq!(routed(&coordinator, 2_000, &function).len(), 2);
    assert_eq!(coordinator.assigned(&function), assigned);
    assert_eq!(effects(&mut coordinator), []);
    let replicas = coordinator.replicas(2_000, &function);
    let replica = replicas.iter().find(|r| r.host.node == node(paused)).unwrap();
    assert_eq!(
        (replica.state, replica.reason.as_str()),
        (ReplicaState::Paused, "quiet hours 22:00-07:00")
    );
    assert_eq!(
        coordinator
            .ready_report(&function, Version::default())
            .ready
            .len(),
        2
    );
    let report = coordinator.ready_report(&function, Version::default());
    assert_eq!(report.pending, [], "nobody waits for it");
    // An edit reaches it, so that it is up to date when it goes on.
    coordinator.on_manifest(&revision(2));
    assert!(effects(&mut coordinator).contains(&Effect::Assign(node(paused), function)));
    pause(&mut coordinator, 3_000, paused, None);
    assert_eq!(routed(&coordinator, 3_000, &function).len(), 3);
}

#[test]
fn a_pause_that_lasts_has_others_hold_it_too_and_is_over_without_a_transfer() {
    let (mut coordinator, function) = settled(&[1, 2, 3, 4]);
    let first = coordinator.assigned(&function).to_vec();
    let paused = (1..=4).find(|byte| first.contains(&node(*byte))).unwrap();
    let spare = (1..=4).find(|byte| !first.contains(&node(*byte))).unwrap();
    let others: Vec<u8> = (1..=4).filter(|byte| *byte != paused).collect();
    let step = 2_000;
    let mut now_ms = step;
    while now_ms <= PAUSE_LASTS_MS + 2 * step {
        pass(&mut coordinator, now_ms, &[paused], &others);
        now_ms += step;
    }
    assert_eq!(effects(&mut coordinator), [Effect::Assign(node(spare), function)]);
    coordinator.on_ready(now_ms, node(spare), function, revision(1).version());
    // It keeps what it holds.
    assert_eq!(effects(&mut coordinator), []);
    assert_eq!(routed(&coordinator, now_ms, &function).len(), 3);
    pass(&mut coordinator, now_ms, &[], &[1, 2, 3, 4]);
    assert_eq!(coordinator.assigned(&function), first);
    assert_eq!(
        effects(&mut coordinator),
        [Effect::Release(node(spare), function)]
    );
}

#[test]
fn a_host_that_pauses_gets_nothing_new_until_it_goes_on() {
    let mut coordinator = Coordinator::new();
    join(&mut coordinator, 1, &[]);
    pause(&mut coordinator, 0, 1, Some("busy"));
    effects(&mut coordinator);
    let first = revision(1);
    let function = first.function();
    coordinator.on_manifest(&first);
    assert_eq!(coordinator.assigned(&function), []);
    let shortage = coordinator.shortage(&function).unwrap();
    assert!(shortage.contains("a host is paused: busy"), "{shortage}");
    effects(&mut coordinator);
    pause(&mut coordinator, 1_000, 1, None);
    assert_eq!(effects(&mut coordinator), []);
    coordinator.on_tick(2_000);
    assert_eq!(effects(&mut coordinator), [Effect::Assign(node(1), function)]);
}

#[test]
fn what_a_host_refuses_because_it_pauses_is_asked_again() {
    let (mut coordinator, first) = (Coordinator::new(), revision(1));
    join(&mut coordinator, 1, &[]);
    coordinator.on_manifest(&first);
    // It was on its way when the pause began.
    pause(&mut coordinator, 0, 1, Some("busy"));
    let paused = "this host is paused: busy".to_owned();
    coordinator.on_refused(0, node(1), first.function(), first.version(), paused);
    assert_eq!(coordinator.assigned(&first.function()), []);
    effects(&mut coordinator);
    pass(&mut coordinator, 1_000, &[], &[1]);
    assert_eq!(
        effects(&mut coordinator),
        [Effect::Assign(node(1), first.function())]
    );
}
