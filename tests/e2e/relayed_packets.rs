//! What somebody on the way, or beside it, can do with relayed packets: nothing that anybody notices.

use std::net::UdpSocket;

use orb_protocol::manifest::Version;
use orb_protocol::quic::body::BodyReader;
use orb_protocol::quic::frames::read_message;
use orb_protocol::relay::{RelayHeader, RelayToken};
use orb_protocol::wire::Reply;
use orb_protocol::wire::call::Started;
use orb_protocol::wire::codec::MESSAGE_LEN_MAX;
use orb_tests::{Orb, Project, Wiretap, guest};

use crate::floods::token_of;
use crate::peers::{Rogue, Town, ask, call};

/// Packets of each forged kind.
const FORGED: usize = 200;

#[test]
fn replayed_and_reordered_packets_harm_nobody() {
    let town = Town::start();
    let wiretap = Wiretap::scrambling(town.super_socket());
    let (id, _) = town.network.address.split_once('@').unwrap();
    let orb = Orb::at(&format!("{id}@{}", wiretap.address));
    Project::wasm("scrambled", &guest::padded(guest::echo(), 200_000)).deploy(&orb);
    let long = vec![b'x'; 300_000];
    for input in [b"once".as_slice(), b"", &long] {
        let answer = orb.run_on(["call", "scrambled", "-"], input).ok();
        assert_eq!(answer.stdout, input);
    }
    // All that was seen comes again from elsewhere, when its sessions have ended or not.
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    for packet in wiretap.seen() {
        stranger.send_to(&packet, town.super_socket()).unwrap();
    }
    town.others_are_served();
    town.network
        .super_node
        .wait_until_counted("datagrams_unconnected");
}

#[test]
fn packets_of_a_session_from_elsewhere_are_dropped() {
    let town = Town::start();
    let wiretap = Wiretap::listening(town.super_socket());
    let caller = Rogue::arrive_by(&town, wiretap.address);
    let token = token_of(&wiretap);
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    for number in 0..FORGED {
        // The session's own token, and one that somebody guessed; replayed, and made up.
        for token in [token, RelayToken::new(number as u64)] {
            let garbage = [&RelayHeader::encode(token)[..], &[0x40; 60]].concat();
            stranger.send_to(&garbage, town.super_socket()).unwrap();
        }
        for packet in wiretap.seen().iter().take(2) {
            stranger.send_to(packet, town.super_socket()).unwrap();
        }
    }
    assert_eq!(answer(&caller, &town), b"still mine");
    town.others_are_served();
    town.network.super_node.wait_until_counted("relay_wrong_source");
    town.network.super_node.wait_until_counted("relay_unknown_token");
}

#[test]
fn garbage_in_a_session_harms_neither_end() {
    let town = Town::start();
    let wiretap = Wiretap::listening(town.super_socket());
    let caller = Rogue::arrive_by(&town, wiretap.address);
    let token = token_of(&wiretap);
    let mut garbage = [0; 1_200];
    for number in 0..FORGED {
        getrandom::fill(&mut garbage).unwrap();
        // QUIC's long and short headers, and what is none.
        garbage[0] = number.to_le_bytes()[0];
        let packet = [&RelayHeader::encode(token)[..], &garbage].concat();
        wiretap.inject(&packet);
    }
    assert_eq!(answer(&caller, &town), b"still mine");
    town.others_are_served();
    town.network.hosts[0].wait_until_counted("datagrams_unconnected");
}

/// What a call by this connection answers.
fn answer(caller: &Rogue, town: &Town) -> Vec<u8> {
    caller.runtime.block_on(async {
        let call = call(town.function("peace"), Version::default());
        let (_send, mut receive) = ask(&caller.to_host, call.into(), b"still mine").await.unwrap();
        let reply: Reply = read_message(&mut receive, MESSAGE_LEN_MAX).await.unwrap();
        reply.into_result::<Started>().unwrap();
        BodyReader::new(&mut receive, 1 << 20).read_all().await.unwrap()
    })
}
