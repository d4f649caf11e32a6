use super::super::tests::{beat, effects, join, node, offer, revision};
use super::*;
use crate::coordinator::Effect;
use crate::wire::control::{Beat, HOLDINGS_ONLY, Offer};
use crate::wire::extension::Extensions;

/// Three super nodes; which of them is first for the function of these tests.
fn supers(function: &FunctionId) -> (Vec<NodeId>, BTreeSet<NodeId>) {
    let all: BTreeSet<NodeId> = [101, 102, 103].map(node).into();
    (placement::nearest(function, 3, &all), all)
}

fn remote(byte: u8) -> HostRecord {
    HostRecord {
        node: node(byte),
        offer: offer().into(),
        address: format!("10.0.{byte}.1"),
        pause: HostPause::Off,
    }
}

fn news(coordinator: &mut Coordinator) -> Vec<News> {
    std::iter::from_fn(|| coordinator.poll_news()).collect()
}

fn ready(function: FunctionId, host: u8) -> ReplicaNews {
    ReplicaNews {
        function,
        host: node(host),
        version: revision(1).version(),
        change: ReplicaChange::Ready,
        reason: String::new(),
    }
}

#[test]
fn the_first_of_the_directory_places_on_hosts_of_all_and_the_others_wait_for_orders() {
    let first_revision = revision(1);
    let function = first_revision.function();
    let (directory, all) = supers(&function);
    let mut first = Coordinator::federated(directory[0]);
    let mut second = Coordinator::federated(directory[1]);
    for coordinator in [&mut first, &mut second] {
        coordinator.on_supers(all.clone());
        join(coordinator, 1, &[]);
        coordinator.on_remote_up(directory[2], remote(2));
        coordinator.on_manifest(&first_revision);
    }
    assert_eq!(
        first.assigned(&function).len(),
        2,
        "its own host and the other one"
    );
    assert!(effects(&mut first).contains(&Effect::Assign(node(1), function)));
    assert!(news(&mut first).contains(&News::Order(directory[2], function, node(2), true)));
    assert!(second.assigned(&function).is_empty());
    assert!(
        !effects(&mut second)
            .iter()
            .any(|e| matches!(e, Effect::Assign(..)))
    );
    // Until the first one is gone.
    second.on_supers([directory[1], directory[2]].into());
    assert_eq!(second.assigned(&function).len(), 2);
}

#[test]
fn orders_count_from_the_first_only_and_may_come_before_the_manifest() {
    let first_revision = revision(1);
    let function = first_revision.function();
    let (directory, all) = supers(&function);
    let mut last = Coordinator::federated(directory[2]);
    last.on_supers(all);
    join(&mut last, 1, &[]);
    effects(&mut last);
    let order = |hold| Order {
        function,
        host: node(1),
        hold,
    };
    last.on_order(directory[1], &order(true));
    last.on_manifest(&first_revision);
    assert!(last.assigned(&function).is_empty(), "the second one has no say");

    let mut last = Coordinator::federated(directory[2]);
    last.on_supers(directory.iter().copied().collect());
    join(&mut last, 1, &[]);
    effects(&mut last);
    last.on_order(directory[0], &order(true));
    assert_eq!(last.waiting(), 1);
    last.on_manifest(&first_revision);
    assert!(effects(&mut last).contains(&Effect::Assign(node(1), function)));
    last.on_ready(0, node(1), function, first_revision.version());
    assert!(news(&mut last).contains(&News::Replica(function, node(1))));
    last.on_order(directory[0], &order(false));
    assert!(effects(&mut last).contains(&Effect::Release(node(1), function)));
}

#[test]
fn a_report_that_crosses_with_a_release_does_not_strike_what_was_assigned_since() {
    let first_revision = revision(1);
    let function = first_revision.function();
    let (directory, all) = supers(&function);
    let mut last = Coordinator::federated(directory[2]);
    last.on_supers(all);
    // It hears only of what it holds, as hosts do.
    let offer = Offer {
        extensions: Extensions::none().with(HOLDINGS_ONLY, Vec::new()),
        ..offer()
    };
    let domain = FailureDomain::V4([1, 0, 0]);
    let registered = last.on_registered(0, node(1), offer, domain);
    registered
        .and_then(|()| last.on_holding(0, node(1), &[], true))
        .expect("there is room");
    last.on_manifest(&first_revision);
    let order = |hold| Order {
        function,
        host: node(1),
        hold,
    };
    for hold in [true, false, true] {
        last.on_order(directory[0], &order(hold));
    }
    // The report of the release comes late, and the function ends before the host has it again.
    last.on_dropped(0, node(1), function);
    effects(&mut last);
    last.on_manifest(&super::super::tests::tombstone(2));
    assert_eq!(effects(&mut last), [Effect::Notify(node(1), function)]);
}

#[test]
fn a_host_that_is_ready_for_what_has_ended_is_told_of_the_end() {
    let mut coordinator = Coordinator::new();
    join(&mut coordinator, 1, &[]);
    coordinator.on_manifest(&super::super::tests::tombstone(2));
    effects(&mut coordinator);
    let function = revision(1).function();
    coordinator.on_ready(0, node(1), function, revision(1).version());
    assert_eq!(effects(&mut coordinator), [Effect::Notify(node(1), function)]);
}

#[test]
fn hosts_that_a_super_node_does_not_name_any_more_are_gone() {
    let (directory, all) = supers(&revision(1).function());
    let mut coordinator = Coordinator::federated(directory[0]);
    coordinator.on_supers(all);
    coordinator.on_manifest(&revision(1));
    for host in [1, 2] {
        coordinator.on_remote_up(directory[1], remote(host));
    }
    let function = revision(1).function();
    coordinator.on_replica_news(directory[1], ready(function, 1));
    assert_eq!(coordinator.sites(&function), [directory[1]].into());
    // Of another one's hosts nobody may speak.
    coordinator.on_replica_news(directory[2], ready(function, 2));
    coordinator.on_hosts_reset(directory[1]);
    coordinator.on_remote_up(directory[1], remote(2));
    coordinator.on_hosts_listed(directory[1]);
    assert!(coordinator.sites(&function).is_empty());
    assert_eq!(coordinator.assigned(&function), [node(2)]);
    coordinator.on_site_lost(directory[1]);
    assert!(coordinator.assigned(&function).is_empty());
}

#[test]
fn an_order_that_was_lost_is_given_again() {
    let first_revision = revision(1);
    let function = first_revision.function();
    let (directory, all) = supers(&function);
    let mut first = Coordinator::federated(directory[0]);
    first.on_supers(all);
    first.on_remote_up(directory[1], remote(1));
    first.on_manifest(&first_revision);
    let order = News::Order(directory[1], function, node(1), true);
    assert_eq!(news(&mut first), [order]);
    first.on_tick(10_000);
    assert_eq!(news(&mut first), [order]);
    first.on_replica_news(directory[1], ready(function, 1));
    for second in 3..9 {
        first.on_tick(second * 5_000);
    }
    assert_eq!(news(&mut first), [], "it is settled");
}

#[test]
fn a_removal_elsewhere_is_followed_by_the_directory() {
    let (directory, all) = supers(&revision(1).function());
    let mut first = Coordinator::federated(directory[0]);
    first.on_supers(all);
    first.on_remote_up(directory[1], remote(1));
    first.on_manifest(&revision(1));
    let function = revision(1).function();
    first.on_replica_news(directory[1], ready(function, 1));
    first.on_manifest(&super::super::tests::tombstone(2));
    assert_eq!(first.removal_report(0, &function).pending, [node(1)]);
    let dropped = ReplicaNews {
        change: ReplicaChange::Dropped,
        ..ready(function, 1)
    };
    first.on_replica_news(directory[1], dropped);
    let report = first.removal_report(0, &function);
    assert_eq!((report.removed, report.pending), (vec![node(1)], vec![]));
}

#[test]
fn a_host_that_pauses_elsewhere_gets_nothing_new_and_is_not_looked_for() {
    let first_revision = revision(1);
    let function = first_revision.function();
    let (directory, all) = supers(&function);
    let mut first = Coordinator::federated(directory[0]);
    first.on_supers(all);
    let told = |host, pause| HostRecord {
        pause,
        ..remote(host)
    };
    // Three are wanted, and one of four pauses already.
    for host in [1, 2, 3] {
        first.on_remote_up(directory[1], remote(host));
    }
    first.on_remote_up(directory[1], told(4, HostPause::On));
    first.on_manifest(&first_revision);
    let assigned = first.assigned(&function).to_vec();
    assert_eq!(assigned.len(), 3);
    assert!(!assigned.contains(&node(4)));
    for host in [1, 2, 3] {
        first.on_replica_news(directory[1], ready(function, host));
    }
    assert_eq!(first.sites(&function), [directory[1]].into());
    news(&mut first);
    // All that hold it pause: nothing moves, and nobody is sent there.
    for host in [1, 2, 3] {
        first.on_remote_up(directory[1], told(host, HostPause::On));
    }
    assert_eq!(first.assigned(&function), assigned);
    assert_eq!(news(&mut first), []);
    assert!(first.sites(&function).is_empty());
    // One pauses for longer, and the other goes on.
    first.on_remote_up(directory[1], told(4, HostPause::Off));
    first.on_remote_up(directory[1], told(1, HostPause::Lasts));
    assert!(first.assigned(&function).contains(&node(4)));
    assert!(!first.assigned(&function).contains(&node(1)));
    assert_eq!(
        news(&mut first),
        [News::Order(directory[1], function, node(4), true)],
        "it keeps what it has"
    );
    first.on_remote_up(directory[1], remote(1));
    let is_nearest = placement::nearest(&function, 3, &[1, 2, 3, 4].map(node)).contains(&node(1));
    assert_eq!(first.assigned(&function).contains(&node(1)), is_nearest);
    assert_eq!(first.sites(&function), [directory[1]].into());
}

#[test]
fn other_super_nodes_hear_of_each_turn_of_a_pause_once() {
    let (directory, all) = supers(&revision(1).function());
    let mut coordinator = Coordinator::federated(directory[0]);
    coordinator.on_supers(all);
    join(&mut coordinator, 1, &[]);
    news(&mut coordinator);
    let lasts_ms = crate::pause::PAUSE_LASTS_MS;
    let told = |coordinator: &mut Coordinator, now_ms, beat: &Beat| {
        coordinator.on_beat(now_ms, node(1), 1_000, beat);
        coordinator.on_tick(now_ms);
        let told = news(coordinator).into_iter();
        let pause = coordinator.host_record(&node(1)).map(|record| record.pause);
        told.map(|news| (news, pause)).collect::<Vec<_>>()
    };
    let up = |pause| vec![(News::HostUp(node(1)), Some(pause))];
    let paused = beat().paused("night");
    assert_eq!(told(&mut coordinator, 1_000, &paused), up(HostPause::On));
    assert_eq!(told(&mut coordinator, 2_000, &paused), []);
    assert_eq!(
        told(&mut coordinator, 1_001 + lasts_ms, &paused),
        up(HostPause::Lasts)
    );
    assert_eq!(told(&mut coordinator, 2_000 + lasts_ms, &paused), []);
    assert_eq!(
        told(&mut coordinator, 3_000 + lasts_ms, &beat()),
        up(HostPause::Off)
    );
    assert_eq!(told(&mut coordinator, 4_000 + lasts_ms, &beat()), []);
}
