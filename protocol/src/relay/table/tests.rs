#![expect(clippy::unwrap_used, reason = "a test panics on surprise")]

use proptest::prelude::*;

use super::*;

const START: Duration = Duration::from_secs(1_000);

fn node(byte: u8) -> NodeId {
    NodeId::from_bytes([byte; 32])
}

fn addr(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), port)
}

fn tokens(first: u64) -> SessionTokens {
    SessionTokens {
        caller: RelayToken::new(first),
        target: RelayToken::new(first + 1),
    }
}

fn packet(token: u64, from: SocketAddr) -> RelayBatch {
    RelayBatch {
        from,
        token: RelayToken::new(token),
        datagrams: 1,
        datagram_bytes: 1_000,
    }
}

/// A table with a session between node 1 at port 1 (token 10) and node 2 at port 2 (token 11).
struct Scene {
    table: RelayTable,
    caller: LinkId,
    target: LinkId,
    session: SessionId,
}

fn scene(limits: RelayLimits) -> Scene {
    let mut table = RelayTable::new(limits);
    let caller = table.link_up(node(1), addr(1), None, START);
    let target = table.link_up(node(2), addr(2), None, START);
    let opened = table.open(caller, node(2), tokens(10), START).unwrap();
    assert_eq!(opened.target, target);
    Scene {
        table,
        caller,
        target,
        session: opened.session,
    }
}

fn default_scene() -> Scene {
    scene(RelayLimits::default())
}

#[test]
fn packets_pass_both_ways_with_the_other_legs_token() {
    let mut table = default_scene().table;
    let there = table.forward(packet(10, addr(1)), START).unwrap();
    assert_eq!((there.to, there.token), (addr(2), RelayToken::new(11)));
    let back = table.forward(packet(11, addr(2)), START).unwrap();
    assert_eq!((back.to, back.token), (addr(1), RelayToken::new(10)));
}

#[test]
fn a_stranger_with_a_token_gets_nothing_through() {
    let mut table = default_scene().table;
    // Not from elsewhere, and not from the other end with the wrong token.
    for from in [addr(3), addr(2)] {
        let refused = table.forward(packet(10, from), START);
        assert_eq!(refused, Err(RelayDrop::WrongSource));
    }
    let guessed = table.forward(packet(12, addr(1)), START);
    assert_eq!(guessed, Err(RelayDrop::UnknownToken));
    let stats = table.stats();
    assert_eq!(stats.dropped_wrong_source, 2);
    assert_eq!(stats.dropped_unknown_token, 1);
    table.forward(packet(10, addr(1)), START).unwrap();
}

#[test]
fn a_node_that_moved_is_followed() {
    let Scene {
        mut table, caller, ..
    } = default_scene();
    table.link_moved(caller, addr(9));
    table.forward(packet(10, addr(9)), START).unwrap();
    let back = table.forward(packet(11, addr(2)), START).unwrap();
    assert_eq!(back.to, addr(9));
    assert_eq!(table.link_of(RelayToken::new(10)), Some(caller));
}

#[test]
fn a_session_ends_with_either_connection() {
    for end_caller in [true, false] {
        let Scene {
            mut table,
            caller,
            target,
            ..
        } = default_scene();
        table.link_down(if end_caller { caller } else { target });
        let gone = table.forward(packet(10, addr(1)), START);
        assert_eq!(gone, Err(RelayDrop::UnknownToken));
        assert_eq!(table.stats().sessions_closed, 1);
        assert!(table.is_idle());
        assert_consistent(&table);
    }
}

#[test]
fn each_program_of_a_node_has_its_own_sessions() {
    let Scene {
        mut table, caller, ..
    } = default_scene();
    let second = table.link_up(node(1), addr(5), None, START);
    table.open(second, node(2), tokens(20), START).unwrap();
    table.link_down(caller);
    table.forward(packet(20, addr(5)), START).unwrap();
    assert_consistent(&table);
}

#[test]
fn the_newest_connection_of_the_target_is_offered_the_session() {
    let Scene {
        mut table, caller, ..
    } = default_scene();
    let newer = table.link_up(node(2), addr(6), None, START);
    let opened = table.open(caller, node(2), tokens(20), START).unwrap();
    assert_eq!(opened.target, newer);
}

#[test]
fn sessions_are_refused_for_a_reason() {
    let Scene {
        mut table,
        caller,
        target,
        ..
    } = default_scene();
    let mut open = |link, to, first| table.open(link, to, tokens(first), START).unwrap_err();
    assert_eq!(open(caller, node(1), 20), RelayRefusal::SelfTarget);
    assert_eq!(open(caller, node(9), 20), RelayRefusal::TargetNotConnected);
    assert_eq!(open(caller, node(2), 10), RelayRefusal::TokensTaken);
    assert_eq!(open(caller, node(2), 9), RelayRefusal::TokensTaken);
    table.link_down(caller);
    let gone = table.open(caller, node(2), tokens(20), START);
    assert_eq!(gone, Err(RelayRefusal::CallerNotConnected));
    let gone = table.open(target, node(1), tokens(20), START);
    assert_eq!(gone, Err(RelayRefusal::TargetNotConnected));
    assert_eq!(table.stats().sessions_refused, 6);
}

#[test]
fn sessions_are_bounded_in_all_by_caller_and_by_target() {
    let bounds = |sessions, sessions_per_caller, sessions_per_target| RelayLimits {
        sessions,
        sessions_per_caller,
        sessions_per_target,
        ..RelayLimits::default()
    };
    for (limits, refusal) in [
        (bounds(1, 9, 9), RelayRefusal::Full),
        (bounds(9, 1, 9), RelayRefusal::CallerOverLimit),
        (bounds(9, 9, 1), RelayRefusal::TargetOverLimit),
    ] {
        let Scene {
            mut table,
            caller,
            session,
            ..
        } = scene(limits);
        let refused = table.open(caller, node(2), tokens(20), START);
        assert_eq!(refused, Err(refusal));
        table.abandon(session);
        table.open(caller, node(2), tokens(20), START).unwrap();
    }
}

/// A caller from another origin than the scene's.
fn elsewhere(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

#[test]
fn a_flood_from_one_side_displaces_only_itself() {
    for (sessions, sessions_per_target) in [(4, 9), (9, 4)] {
        let limits = RelayLimits {
            sessions,
            sessions_per_target,
            ..RelayLimits::default()
        };
        let mut table = scene(limits).table;
        // Three callers from one address fill what the scene's caller left.
        for n in 0..3 {
            let link = table.link_up(node(10 + n), elsewhere(n.into()), None, START);
            table
                .open(link, node(2), tokens(100 + 2 * u64::from(n)), START)
                .unwrap();
        }
        let more = table.link_up(node(20), elsewhere(9), None, START);
        let refused = table.open(more, node(2), tokens(200), START);
        refused.unwrap_err();
        // Somebody from a third place gets in, and the flood's newest session goes.
        let third = table.link_up(node(30), SocketAddr::from(([198, 51, 100, 1], 1)), None, START);
        table.open(third, node(2), tokens(300), START).unwrap();
        assert_eq!(table.link_of(tokens(104).caller), None);
        assert!(
            table.link_of(tokens(10).caller).is_some(),
            "the scene's own session goes on"
        );
        assert_eq!(
            (table.stats().sessions_displaced, table.stats().sessions_live),
            (1, 4)
        );
        assert_consistent(&table);
    }
}

#[test]
fn a_caller_over_its_own_limit_displaces_nobody() {
    let limits = RelayLimits {
        sessions_per_caller: 1,
        sessions_per_target: 3,
        ..RelayLimits::default()
    };
    let Scene {
        mut table, caller, ..
    } = scene(limits);
    for n in 0..2 {
        let link = table.link_up(node(10 + n), elsewhere(n.into()), None, START);
        table
            .open(link, node(2), tokens(100 + 2 * u64::from(n)), START)
            .unwrap();
    }
    let refused = table.open(caller, node(2), tokens(200), START);
    assert_eq!(refused, Err(RelayRefusal::CallerOverLimit));
    assert_eq!(table.stats().sessions_displaced, 0);
}

#[test]
fn being_called_does_not_use_up_what_a_node_may_call() {
    let limits = RelayLimits {
        sessions_per_caller: 1,
        ..RelayLimits::default()
    };
    let Scene {
        mut table, target, ..
    } = scene(limits);
    table.open(target, node(1), tokens(20), START).unwrap();
}

#[test]
fn idle_and_old_sessions_end() {
    let limits = RelayLimits::default();
    let mut table = default_scene().table;
    let mut now = START;
    let step = limits.idle / 2;
    // Kept by traffic, however long...
    while now + step < START + limits.lifetime {
        now += step;
        table.forward(packet(10, addr(1)), now).unwrap();
        assert_eq!(table.expire(now), 0);
    }
    // ...up to its lifetime.
    assert_eq!(table.expire(START + limits.lifetime), 1);

    let mut table = default_scene().table;
    assert_eq!(table.expire(START + limits.idle - Duration::from_millis(1)), 0);
    assert_eq!(table.expire(START + limits.idle), 1);
    assert_eq!(table.stats().sessions_expired, 1);
    assert_consistent(&table);
}

#[test]
fn dropped_packets_keep_no_session_alive() {
    let mut table = default_scene().table;
    let later = START + RelayLimits::default().idle;
    table.forward(packet(10, addr(9)), later).unwrap_err();
    assert_eq!(table.expire(later), 1);
}

#[test]
fn a_node_over_its_rate_is_cut_and_others_are_not() {
    let limits = RelayLimits {
        bytes_per_s: 1_000,
        burst_bytes: 3_000,
        ..RelayLimits::default()
    };
    let mut table = scene(limits).table;
    let five = RelayBatch {
        datagrams: 5,
        ..packet(10, addr(1))
    };
    assert_eq!(table.forward(five, START).unwrap().datagrams, 3);
    assert_eq!(table.forward(five, START), Err(RelayDrop::RateLimited));
    assert_eq!(table.stats().dropped_rate_limited, 7);
    // The other end pays from its own purse.
    table.forward(packet(11, addr(2)), START).unwrap();
    let second = START + Duration::from_secs(1);
    assert_eq!(table.forward(five, second).unwrap().datagrams, 1);
}

#[test]
fn a_second_session_or_program_buys_no_rate() {
    let limits = RelayLimits {
        bytes_per_s: 0,
        burst_bytes: 1_000,
        ..RelayLimits::default()
    };
    let mut table = scene(limits).table;
    let second = table.link_up(node(1), addr(5), None, START);
    table.open(second, node(2), tokens(20), START).unwrap();
    table.forward(packet(10, addr(1)), START).unwrap();
    let refused = table.forward(packet(20, addr(5)), START);
    assert_eq!(refused, Err(RelayDrop::RateLimited));
}

#[test]
fn packets_that_no_link_carries_are_dropped() {
    let mut table = default_scene().table;
    let large = RelayBatch {
        datagram_bytes: 1_473,
        ..packet(10, addr(1))
    };
    assert_eq!(table.forward(large, START), Err(RelayDrop::TooLarge));
    assert_eq!(table.stats().dropped_too_large, 1);
}

#[test]
fn every_refusal_has_its_fault() {
    let fault = Fault::from(RelayRefusal::TargetNotConnected);
    assert_eq!(fault.kind, FaultKind::NoLiveHost);
    assert_eq!(Fault::from(RelayRefusal::Full).kind, FaultKind::Overloaded);
}

/// What has to hold whatever happened before.
fn assert_consistent(table: &RelayTable) {
    assert_eq!(table.legs.len(), 2 * table.sessions.len());
    let (mut calls_out, mut calls_in) = (0, 0);
    for (id, node) in &table.nodes {
        assert!(!node.links.is_empty());
        for link in &node.links {
            assert_eq!(table.links[link].node, *id);
        }
        calls_out += node.calls_out;
        calls_in += node.calls_in;
    }
    assert_eq!(table.shares.is_empty(), table.sessions.is_empty());
    assert_eq!(calls_out, table.sessions.len());
    assert_eq!(calls_in, table.sessions.len());
    let of_links: usize = table.links.values().map(|l| l.sessions.len()).sum();
    assert_eq!(of_links, 2 * table.sessions.len());
    let stats = table.stats();
    assert!(stats.sessions_live <= table.limits.sessions as u64);
}

#[derive(Debug, Clone)]
enum Step {
    Up(u8),
    Down(usize),
    Open(usize, u8, u64),
    Send(u64, u16),
    Move(usize, u16),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u8..4).prop_map(Step::Up),
        (0usize..12).prop_map(Step::Down),
        (0usize..12, 0u8..4, 0u64..40).prop_map(|(l, n, t)| Step::Open(l, n, t)),
        (0u64..40, 0u16..8).prop_map(|(t, p)| Step::Send(t, p)),
        (0usize..12, 0u16..8).prop_map(|(l, p)| Step::Move(l, p)),
        (0u64..20).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn the_tables_agree_after_any_events(steps in prop::collection::vec(step(), 0..200)) {
        let limits = RelayLimits {
            sessions: 6,
            sessions_per_caller: 3,
            sessions_per_target: 4,
            lifetime: Duration::from_secs(60),
            ..RelayLimits::default()
        };
        let mut table = RelayTable::new(limits);
        let (mut links, mut now) = (Vec::new(), START);
        for step in steps {
            let link = |index: usize| links.get(index).copied().unwrap_or(LinkId(u64::MAX));
            match step {
                Step::Up(byte) => {
                    let at = if byte % 2 == 0 { addr(byte.into()) } else { elsewhere(byte.into()) };
                    links.push(table.link_up(node(byte), at, None, now));
                }
                Step::Down(index) => table.link_down(link(index)),
                Step::Open(index, to, token) => {
                    let _ = table.open(link(index), node(to), tokens(token), now);
                }
                Step::Send(token, port) => {
                    let sent = table.forward(packet(token, addr(port)), now);
                    if sent.is_ok() {
                        prop_assert!(table.link_of(RelayToken::new(token)).is_some());
                    }
                }
                Step::Move(index, port) => table.link_moved(link(index), addr(port)),
                Step::Wait(seconds) => {
                    now += Duration::from_secs(seconds);
                    table.expire(now);
                }
            }
            assert_consistent(&table);
        }
    }
}
