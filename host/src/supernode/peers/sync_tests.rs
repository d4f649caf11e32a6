#![expect(clippy::unwrap_used, reason = "a test panics on surprise")]

use orb_protocol::key::OwnerKey;
use orb_protocol::manifest::Verified;
use orb_protocol::quic::frames::read_message;
use orb_protocol::wire::codec;
use orb_protocol::wire::directory::{Resolve, Resolved};
use orb_protocol::wire::federation::{PeerBeat, PeerMessage};
use quinn::SendStream;

use super::super::super::testing::{FakeSuper, Guest, Super, wasm};
use super::*;
use crate::store::testing::{head, manifest, owner, publish, version};

fn cursor(number: u64) -> Cursor {
    Cursor { log: [7; 16], number }
}

/// Says again and again how far its log goes, and that it knows something else than everybody.
async fn keep_beating(mut link: SendStream, own: Cursor) {
    let beat = PeerBeat {
        own,
        known: 1,
        extensions: Extensions::none(),
    };
    while write_message(&mut link, &PeerMessage::from(beat.clone()))
        .await
        .is_ok()
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn what_a_peer_made_up_is_told_from_what_went_wrong() {
    let noise: PackedChanges = codec::decode(&codec::encode(&vec![0xff_u8; 9])).unwrap();
    let unpacked = SyncError::from(noise.unpack().unwrap_err());
    assert!(
        unpacked.is_unverified() && SyncError::Head.is_unverified(),
        "{unpacked}"
    );
    assert!(!SyncError::NotLinked.is_unverified());
    assert!(!SyncError::from(FrameError::Closed).is_unverified());
}

#[tokio::test]
async fn pages_that_do_not_verify_are_not_taken_for_known() {
    let key = owner(1);
    let good = manifest(&key, "f", version(0, 1), publish(&wasm(0)));
    let change = |manifest: &Verified, signer: &OwnerKey| RegistryChange {
        at: cursor(1),
        manifest: manifest.signed().clone(),
        head_signature: head(signer, manifest).signature,
        extensions: Extensions::none(),
    };
    let mut forged = change(&good, &key);
    forged.manifest.bytes[9] ^= 1;
    // Another one's head, a manifest that was changed, and what is no page at all; then the genuine one.
    let noise = codec::decode(&codec::encode(&vec![0xff_u8; 9])).unwrap();
    let pages = [
        PackedChanges::pack(&[change(&good, &owner(2))]),
        PackedChanges::pack(&[forged]),
        noise,
        PackedChanges::pack(&[change(&good, &key)]),
    ];
    let node = Super::start_with(tempfile::tempdir().unwrap(), |config| config.open_peers = true).await;
    let FakeSuper { guest: peer, link } = FakeSuper::join(&node, 9, cursor(1)).await;
    let beating = tokio::spawn(keep_beating(link, cursor(1)));
    let guest = Guest::connect(&node).await;
    let resolve = Resolve {
        function: good.function(),
        credential: None,
        extensions: Extensions::none(),
    };
    for (number, changes) in pages.into_iter().enumerate() {
        let (mut send, mut recv) = peer.connection.accept_bi().await.unwrap();
        let asked: Request = read_message(&mut recv, MESSAGE_LEN_MAX).await.unwrap();
        let Request::Changes(Changes { known, .. }) = asked else {
            panic!("{asked:?}")
        };
        assert!(!known.contains(&cursor(1)), "after page {number}");
        let found = guest.ask::<Resolved>(resolve.clone()).await;
        assert!(found.is_err(), "after page {number}");
        let page = ChangesPage {
            changes,
            known: vec![cursor(1)],
            last: true,
            extensions: Extensions::none(),
        };
        write_message(&mut send, &Reply::ok(&page)).await.unwrap();
    }
    while guest.ask::<Resolved>(resolve.clone()).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    beating.abort();
    node.stop().await;
}

#[tokio::test]
async fn a_log_does_not_leap_to_its_last_number() {
    let node = Super::start_with(tempfile::tempdir().unwrap(), |config| config.open_peers = true).await;
    let FakeSuper { guest: peer, link } = FakeSuper::join(&node, 9, cursor(3)).await;
    let beating = tokio::spawn(keep_beating(link, cursor(4)));
    // What it is told, and what it makes of that: it says so when it asks again.
    for (told, believed) in [(3, 3), (u64::MAX, 3), (4, 4)] {
        let (mut send, mut recv) = peer.connection.accept_bi().await.unwrap();
        let asked: Request = read_message(&mut recv, MESSAGE_LEN_MAX).await.unwrap();
        assert!(matches!(asked, Request::Changes(_)), "{asked:?}");
        let page = ChangesPage {
            changes: PackedChanges::pack(&[]),
            known: vec![cursor(told)],
            last: true,
            extensions: Extensions::none(),
        };
        write_message(&mut send, &Reply::ok(&page)).await.unwrap();
        let (mut send, mut recv) = peer.connection.accept_bi().await.unwrap();
        let again: Request = read_message(&mut recv, MESSAGE_LEN_MAX).await.unwrap();
        let Request::Changes(Changes { known, .. }) = again else {
            panic!("{again:?}")
        };
        assert_eq!(known, [cursor(believed)]);
        write_message(&mut send, &Reply::ok(&ChangesPage { known, ..page }))
            .await
            .unwrap();
    }
    beating.abort();
    node.stop().await;
}
