#![expect(clippy::unwrap_used, reason = "a test panics on surprise")]

use orb_protocol::quic::frames::read_message;
use orb_protocol::wire::federation::{PeerBeat, PeerMessage};

use super::super::super::testing::{FakeSuper, Super};
use super::*;

fn cursor(number: u64) -> Cursor {
    Cursor { log: [7; 16], number }
}

#[tokio::test]
async fn a_log_does_not_leap_to_its_last_number() {
    let node = Super::start_with(tempfile::tempdir().unwrap(), |config| config.open_peers = true).await;
    let FakeSuper {
        guest: peer,
        mut link,
    } = FakeSuper::join(&node, 9, cursor(3)).await;
    let beating = tokio::spawn(async move {
        let beat = PeerBeat {
            own: cursor(4),
            known: 1,
            extensions: Extensions::none(),
        };
        while write_message(&mut link, &PeerMessage::from(beat.clone()))
            .await
            .is_ok()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
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
