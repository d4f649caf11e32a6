//! Peers that want too much of something: whoever wants no more than usual gets it all the same,
//! while the flood goes on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use orb_protocol::manifest::Version;
use orb_protocol::quic::Connection;
use orb_protocol::quic::frames::read_message;
use orb_protocol::relay::{RelayHeader, RelayToken};
use orb_protocol::wire::Reply;
use orb_protocol::wire::codec::MESSAGE_LEN_MAX;
use orb_protocol::wire::extension::Extensions;
use orb_protocol::wire::relay::{OpenRelay, RelayOpened};
use orb_tests::{Project, Wiretap, guest};

use crate::peers::{Rogue, Town, ask, call, first_packets};

/// Relay sessions that one rogue asks for: more than a caller may have.
const SESSIONS: usize = 80;
/// Calls that are opened and never read.
const CALLS: usize = 64;

/// Between two waves of a flood: this machine has to serve the others, too.
const PAUSE: Duration = Duration::from_millis(20);

/// Does something again and again on a thread of its own, while somebody else looks on.
fn during(mut flood: impl FnMut() + Send, look: impl FnOnce()) {
    /// Ends the flood, also when looking on fails.
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                flood();
                std::thread::sleep(PAUSE);
            }
        });
        let _end = End(&ended);
        look();
    });
}

#[test]
fn a_flood_of_streams_harms_nobody() {
    let town = Town::start();
    let rogue = Rogue::arrive(&town);
    let flood = || {
        rogue.runtime.block_on(async {
            for connection in [&rogue.to_super, &rogue.to_host] {
                open_and_give_up(connection).await;
            }
        });
    };
    during(flood, || {
        town.others_are_served();
        for daemon in town.daemons() {
            daemon.wait_until_counted("streams_unreadable");
        }
        town.others_are_served();
    });
}

/// As many streams as may be, each ended or given up after half a frame.
async fn open_and_give_up(connection: &Connection) {
    for number in 0..16 {
        let opened = tokio::time::timeout(Duration::from_millis(20), connection.open_bi()).await;
        let Ok(Ok((mut send, _receive))) = opened else {
            return;
        };
        let _ = send.write_all(&[200, 0]).await;
        let _ = match number % 2 {
            0 => send.finish(),
            _ => send.reset(0_u32.into()),
        };
    }
}

#[test]
fn a_flood_of_sessions_harms_nobody() {
    let town = Town::start();
    let rogue = Rogue::arrive(&town);
    let host = town.network.host_id(0).parse().unwrap();
    let refused = rogue.runtime.block_on(async {
        let mut refused = 0;
        for _ in 0..SESSIONS {
            let open = OpenRelay {
                target: host,
                extensions: Extensions::none(),
            };
            let Some((_send, mut receive)) = ask(&rogue.to_super, open.into(), b"").await else {
                continue;
            };
            let reply: Reply = read_message(&mut receive, MESSAGE_LEN_MAX).await.unwrap();
            refused += usize::from(reply.into_result::<RelayOpened>().is_err());
        }
        refused
    });
    assert!(refused > 0, "one caller has {SESSIONS} sessions");
    town.others_are_served();
    town.network
        .super_node
        .wait_until_counted("relay_sessions_refused");
}

#[test]
fn handshakes_at_a_host_that_never_go_on_harm_nobody() {
    let town = Town::start();
    let wiretap = Wiretap::listening(town.super_socket());
    let rogue = Rogue::arrive_by(&town, wiretap.address);
    let host = town.network.host_id(0).parse().unwrap();
    let token = token_of(&wiretap);
    let _held = [rogue.to_super.hold(), rogue.to_host.hold()];
    let packets: Vec<Vec<u8>> = rogue
        .runtime
        .block_on(first_packets(host))
        .into_iter()
        .map(|packet| [&RelayHeader::encode(token)[..], &packet].concat())
        .collect();
    // Each is another handshake until it is given up, and then another one again.
    let flood = || {
        packets.iter().for_each(|packet| wiretap.inject(packet));
        std::thread::sleep(10 * PAUSE);
    };
    during(flood, || {
        town.others_are_served();
        let host = &town.network.hosts[0];
        host.wait_until_counted("handshakes_asked_to_prove");
        host.wait_until_counted("handshakes_timed_out");
        town.others_are_served();
    });
}

#[test]
fn a_client_that_opens_calls_and_never_reads_harms_nobody() {
    let town = Town::start();
    Project::wasm("much", &guest::echo()).deploy(&town.orb);
    let rogue = Rogue::arrive(&town);
    let open = rogue.runtime.block_on(async {
        let mut open = Vec::new();
        for _ in 0..CALLS {
            let call = call(town.function("much"), Version::default());
            open.extend(ask(&rogue.to_host, call.into(), &[7; 256 << 10]).await);
        }
        open
    });
    assert!(open.len() >= 16, "only {} calls were begun", open.len());
    town.others_are_served();
    town.network.hosts[0].wait_until_counted("readers_stopped");
    town.others_are_served();
    drop(open);
}

/// The token of the session that a client talks through.
pub(crate) fn token_of(wiretap: &Wiretap) -> RelayToken {
    let seen = wiretap.seen();
    let relayed = seen
        .iter()
        .rev()
        .find_map(|packet| match RelayHeader::parse(packet) {
            RelayHeader::Packet(token) => Some(token),
            _ => None,
        });
    relayed.expect("the client has sent relayed packets")
}
