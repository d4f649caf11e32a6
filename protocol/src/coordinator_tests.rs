#![expect(clippy::unwrap_used, reason = "a test panics on surprise")]

use super::*;
use crate::key::OwnerKey;
use crate::manifest::Action;
pub(super) use crate::testing::offer;
use crate::testing::{manifest, publish};
use crate::wire::control::{Beat, Held, LOST_AFTER_MS, Offer, SILENT_AFTER_MS};
use crate::wire::extension::Extensions;

pub(super) fn node(byte: u8) -> NodeId {
    NodeId::from_bytes([byte; 32])
}

pub(super) fn beat() -> Beat {
    Beat {
        running: 0,
        waiting: 0,
        disk_free_bytes: 1 << 30,
        run_times_us: Vec::new(),
        failure_permille: 0,
        extensions: Extensions::none(),
    }
}

pub(super) fn revision(revision: u64) -> Verified {
    manifest(&OwnerKey::from_seed([1; 32]), "a", 0, revision, publish(0))
}

pub(super) fn tombstone(revision: u64) -> Verified {
    manifest(
        &OwnerKey::from_seed([1; 32]),
        "a",
        0,
        revision,
        Action::Decommission(Default::default()),
    )
}

pub(super) fn effects(coordinator: &mut Coordinator) -> Vec<Effect> {
    std::iter::from_fn(|| coordinator.poll_effect()).collect()
}

pub(super) fn join(coordinator: &mut Coordinator, byte: u8, held: &[Held]) {
    let domain = FailureDomain::V4([byte, 0, 0]);
    coordinator.on_registered(0, node(byte), offer(), domain).unwrap();
    coordinator.on_holding(0, node(byte), held, true).unwrap();
}

/// A coordinator with these hosts and the first revision of a function of 3 replicas, all ready.
pub(super) fn settled(hosts: &[u8]) -> (Coordinator, FunctionId) {
    let mut coordinator = Coordinator::new();
    for &host in hosts {
        join(&mut coordinator, host, &[]);
    }
    let first = revision(1);
    coordinator.on_manifest(&first);
    for node in coordinator.assigned(&first.function()).to_vec() {
        coordinator.on_ready(0, node, first.function(), first.version());
    }
    effects(&mut coordinator);
    (coordinator, first.function())
}

pub(super) fn routed(coordinator: &Coordinator, now_ms: u64, function: &FunctionId) -> BTreeSet<NodeId> {
    coordinator
        .route(now_ms, function)
        .into_iter()
        .map(|hint| hint.node)
        .collect()
}

#[test]
fn a_new_function_is_assigned_and_everybody_else_is_told() {
    let mut coordinator = Coordinator::new();
    for host in [1, 2, 3, 4] {
        join(&mut coordinator, host, &[]);
    }
    effects(&mut coordinator);
    let first = revision(1);
    coordinator.on_manifest(&first);
    let effects = effects(&mut coordinator);
    let assigned = effects.iter().filter(|e| matches!(e, Effect::Assign(..))).count();
    let told = effects.iter().filter(|e| matches!(e, Effect::Notify(..))).count();
    assert_eq!((assigned, told), (3, 1));
    assert!(
        coordinator.route(0, &first.function()).is_empty(),
        "nobody is ready yet"
    );
}

#[test]
fn a_ready_host_is_routed_to_until_it_is_silent() {
    let (mut coordinator, function) = settled(&[1, 2, 3]);
    assert_eq!(routed(&coordinator, 0, &function).len(), 3);
    coordinator.on_beat(4_000, node(1), 500, &beat());
    assert_eq!(
        routed(&coordinator, SILENT_AFTER_MS + 1, &function),
        BTreeSet::from([node(1)])
    );
}

#[test]
fn a_lost_host_is_replaced_and_a_short_absence_moves_nothing() {
    let (mut coordinator, function) = settled(&[1, 2, 3, 4]);
    let assigned = coordinator.assigned(&function).to_vec();
    let spare = [1, 2, 3, 4]
        .map(node)
        .into_iter()
        .find(|n| !assigned.contains(n))
        .unwrap();

    coordinator.on_closed(assigned[0]);
    assert!(!routed(&coordinator, 0, &function).contains(&assigned[0]));
    let held = Held {
        function,
        version: Version {
            generation: 0,
            revision: 1,
        },
        manifest: revision(1).hash(),
        ready: true,
    };
    let byte = assigned[0].as_bytes()[0];
    join(&mut coordinator, byte, &[held]);
    assert_eq!(effects(&mut coordinator), [Effect::Synced(assigned[0])]);
    assert_eq!(routed(&coordinator, 0, &function).len(), 3);

    coordinator.on_closed(assigned[0]);
    for &other in assigned[1..].iter().chain([&spare]) {
        coordinator.on_beat(LOST_AFTER_MS, other, 500, &beat());
    }
    coordinator.on_tick(LOST_AFTER_MS + 1);
    assert_eq!(
        effects(&mut coordinator),
        [Effect::Lost(assigned[0]), Effect::Assign(spare, function)]
    );
}

#[test]
fn a_nearer_host_takes_over_before_the_farther_is_released() {
    let (mut coordinator, function) = settled(&[1, 2, 3]);
    let assigned = coordinator.assigned(&function).to_vec();
    let newcomer = (4..=255u8)
        .find(|&byte| function.distance(&node(byte)) < function.distance(&assigned[2]))
        .unwrap();
    join(&mut coordinator, newcomer, &[]);
    assert_eq!(
        effects(&mut coordinator),
        [
            Effect::Assign(node(newcomer), function),
            Effect::Synced(node(newcomer))
        ]
    );
    assert_eq!(
        routed(&coordinator, 0, &function).len(),
        3,
        "the farthest still answers"
    );
    coordinator.on_ready(
        0,
        node(newcomer),
        function,
        Version {
            generation: 0,
            revision: 1,
        },
    );
    assert_eq!(
        effects(&mut coordinator),
        [Effect::Release(assigned[2], function)]
    );
}

#[test]
fn during_an_edit_the_old_revision_answers_and_the_new_one_comes_first() {
    let (mut coordinator, function) = settled(&[1, 2, 3]);
    let second = revision(2);
    coordinator.on_manifest(&second);
    let told = effects(&mut coordinator);
    assert_eq!(told.iter().filter(|e| matches!(e, Effect::Assign(..))).count(), 3);
    assert_eq!(coordinator.route(0, &function).len(), 3);
    coordinator.on_ready(0, node(2), function, second.version());
    let route = coordinator.route(0, &function);
    assert_eq!((route[0].node, route[0].version), (node(2), second.version()));
    assert_eq!(route.len(), 3);
}

/// Two revisions of one number, the one that wins last.
#[test]
fn a_host_of_another_domain_takes_the_place_of_the_second_one_of_a_domain_however_far_it_is() {
    let mut coordinator = Coordinator::new();
    let first = revision(1);
    let function = first.function();
    coordinator.on_manifest(&first);
    let mut hosts: Vec<NodeId> = (1..=20).map(node).collect();
    hosts.sort_unstable_by_key(|node| function.distance(node));
    let mut join = |node: NodeId, domain: u8| {
        let domain = FailureDomain::V4([domain, 0, 0]);
        coordinator.on_registered(0, node, offer(), domain).unwrap();
        coordinator.on_holding(0, node, &[], true).unwrap();
        coordinator.assigned(&function).to_vec()
    };
    hosts[..3].iter().for_each(|node| _ = join(*node, 1));
    // One more of the same domain changes nothing.
    assert_eq!(join(hosts[10], 1), hosts[..3]);
    assert_eq!(join(hosts[18], 2), [hosts[0], hosts[1], hosts[18]]);
    assert_eq!(join(hosts[19], 3), [hosts[0], hosts[18], hosts[19]]);
    assert_eq!(join(hosts[17], 1), [hosts[0], hosts[18], hosts[19]]);
}

#[test]
fn what_was_stored_is_placed_once_hosts_come() {
    let mut coordinator = Coordinator::new();
    let key = OwnerKey::from_seed([1; 32]);
    let live = revision(1);
    let ended = manifest(&key, "b", 0, 2, Action::Decommission(Default::default()));
    let stored = |each: &mut dyn FnMut(FunctionId, &Manifest, ManifestHash)| {
        for one in [&live, &ended] {
            each(one.function(), one.manifest(), one.hash());
        }
        Ok::<_, std::convert::Infallible>(())
    };
    assert_eq!(coordinator.restore(stored), Ok(2));
    join(&mut coordinator, 1, &[]);
    let assigned = Effect::Assign(node(1), live.function());
    assert_eq!(effects(&mut coordinator), [assigned, Effect::Synced(node(1))]);
    // It is known: a second time it is no news.
    coordinator.on_manifest(&live);
    assert_eq!(effects(&mut coordinator), []);
    let unread = |_: &mut dyn FnMut(FunctionId, &Manifest, ManifestHash)| Err("the disk");
    assert_eq!(Coordinator::new().restore(unread), Err("the disk"));
}

/// Two of one number with the same bytes.
fn rivals() -> (Verified, Verified) {
    let of = |fuel| {
        let mut publish = publish(1);
        if let Action::Publish(publish) = &mut publish {
            publish.limits.fuel = fuel;
        }
        manifest(&OwnerKey::from_seed([1; 32]), "a", 0, 2, publish)
    };
    let (one, other) = (of(1), of(2));
    if one.rank() < other.rank() {
        (one, other)
    } else {
        (other, one)
    }
}

#[test]
fn hosts_of_a_revision_that_lost_are_told_of_the_one_that_has_its_number_and_answer_meanwhile() {
    let (mut coordinator, function) = settled(&[1, 2, 3]);
    let (loser, winner) = rivals();
    coordinator.on_manifest(&loser);
    for host in [1, 2, 3] {
        coordinator.on_ready(0, node(host), function, loser.version());
    }
    effects(&mut coordinator);
    coordinator.on_manifest(&winner);
    let told = effects(&mut coordinator);
    for host in [1, 2, 3] {
        assert!(told.contains(&Effect::Assign(node(host), function)), "{told:?}");
    }
    assert_eq!(routed(&coordinator, 0, &function).len(), 3);
    assert!(
        coordinator
            .ready_report(&function, winner.version())
            .ready
            .is_empty()
    );
    coordinator.on_ready(0, node(2), function, winner.version());
    assert_eq!(
        coordinator.ready_report(&function, winner.version()).ready,
        [node(2)]
    );
    assert_eq!(coordinator.route(0, &function)[0].node, node(2));
}

#[test]
fn a_host_that_comes_back_with_a_revision_that_lost_is_told_of_the_one_that_has_its_number() {
    let (mut coordinator, function) = settled(&[1, 2]);
    let (loser, winner) = rivals();
    coordinator.on_manifest(&winner);
    for host in [1, 2] {
        coordinator.on_ready(0, node(host), function, winner.version());
    }
    effects(&mut coordinator);
    for (manifest, is_told) in [(&winner, false), (&loser, true)] {
        let held = Held {
            function,
            version: manifest.version(),
            manifest: manifest.hash(),
            ready: true,
        };
        join(&mut coordinator, 1, &[held]);
        let told = effects(&mut coordinator);
        assert_eq!(
            told.contains(&Effect::Assign(node(1), function)),
            is_told,
            "{told:?}"
        );
        let ready = coordinator.ready_report(&function, winner.version()).ready;
        assert_eq!(ready.contains(&node(1)), !is_told);
    }
}

#[test]
fn a_version_that_nobody_signed_is_not_believed() {
    let made_up = Version {
        generation: 9,
        revision: u64::MAX,
    };
    let (mut coordinator, function) = settled(&[1, 2]);
    coordinator.on_ready(0, node(1), function, made_up);
    let held = Held {
        function,
        version: made_up,
        manifest: revision(1).hash(),
        ready: true,
    };
    join(&mut coordinator, 3, &[held]);
    effects(&mut coordinator);
    let first = revision(1).version();
    let claims = coordinator.route(0, &function);
    assert_eq!(claims.len(), 3);
    assert!(claims.iter().all(|hint| hint.version == first), "{claims:?}");

    // After an edit they are asked to hold it like everybody else, and nobody is ready before that.
    let second = revision(2);
    coordinator.on_manifest(&second);
    let told = effects(&mut coordinator);
    for host in [1, 2, 3] {
        assert!(told.contains(&Effect::Assign(node(host), function)), "{told:?}");
    }
    assert_eq!(coordinator.ready_report(&function, second.version()).ready, []);
    coordinator.on_ready(0, node(1), function, second.version());
    assert_eq!(
        coordinator.ready_report(&function, second.version()).ready,
        [node(1)]
    );
}

#[test]
fn a_tombstone_ends_routing_at_once_and_stays() {
    let (mut coordinator, function) = settled(&[1, 2, 3]);
    coordinator.on_manifest(&tombstone(2));
    assert!(coordinator.route(0, &function).is_empty());
    assert_eq!(effects(&mut coordinator).len(), 3, "every host hears of it");
    coordinator.on_manifest(&revision(9));
    coordinator.on_ready(
        0,
        node(1),
        function,
        Version {
            generation: 0,
            revision: 9,
        },
    );
    assert!(coordinator.route(0, &function).is_empty());
}

#[test]
fn a_host_that_was_away_is_told_what_it_missed_before_it_is_synced() {
    let (mut coordinator, function) = settled(&[1, 2, 3]);
    coordinator.on_manifest(&tombstone(2));
    effects(&mut coordinator);
    let held = Held {
        function,
        version: Version {
            generation: 0,
            revision: 1,
        },
        manifest: revision(1).hash(),
        ready: true,
    };
    join(&mut coordinator, 9, &[held]);
    assert_eq!(
        effects(&mut coordinator),
        [Effect::Notify(node(9), function), Effect::Synced(node(9))]
    );
}

#[test]
fn when_a_host_refuses_the_next_nearest_is_asked() {
    let (mut coordinator, function) = settled(&[1, 2, 3, 4]);
    let assigned = coordinator.assigned(&function).to_vec();
    let second = revision(2);
    coordinator.on_manifest(&second);
    effects(&mut coordinator);
    coordinator.on_refused(
        0,
        assigned[0],
        function,
        second.version(),
        "quiet hours".to_owned(),
    );
    let spare = [1, 2, 3, 4]
        .map(node)
        .into_iter()
        .find(|n| !assigned.contains(n))
        .unwrap();
    assert_eq!(effects(&mut coordinator), [Effect::Assign(spare, function)]);
    let report = coordinator.ready_report(&function, second.version());
    assert_eq!(report.refused, [(assigned[0], "quiet hours".to_owned())]);
}

#[test]
fn unwilling_hosts_are_not_asked_and_the_shortage_says_why() {
    let mut coordinator = Coordinator::new();
    let small = Offer {
        artifact_bytes_max: 0,
        ..offer()
    };
    coordinator
        .on_registered(0, node(1), small, FailureDomain::V4([1, 0, 0]))
        .unwrap();
    coordinator.on_holding(0, node(1), &[], true).unwrap();
    let first = revision(1);
    coordinator.on_manifest(&first);
    assert!(coordinator.assigned(&first.function()).is_empty());
    let shortage = coordinator.shortage(&first.function()).unwrap();
    assert!(shortage.contains("a host takes at most 0"), "{shortage}");
}

#[test]
fn a_draining_host_hands_over_and_leaves() {
    let (mut coordinator, function) = settled(&[1, 2, 3, 4]);
    let leaving = coordinator.assigned(&function)[0];
    coordinator.on_draining(0, leaving);
    assert!(!routed(&coordinator, 0, &function).contains(&leaving));
    assert!(matches!(effects(&mut coordinator)[..], [Effect::Assign(..)]));
    coordinator.on_closed(leaving);
    assert_eq!(coordinator.hosts(), 3);
}

#[test]
fn what_an_unregistered_host_says_changes_nothing() {
    let (mut coordinator, function) = settled(&[1]);
    let version = Version {
        generation: 0,
        revision: 1,
    };
    coordinator.on_ready(0, node(7), function, version);
    coordinator.on_refused(0, node(7), function, version, "no".to_owned());
    coordinator.on_dropped(0, node(7), function);
    assert_eq!(
        coordinator.on_holding(0, node(7), &[], true),
        Err(CoordinatorError::NotRegistered)
    );
    assert_eq!(routed(&coordinator, 0, &function).len(), 1);
}
