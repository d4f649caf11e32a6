#![expect(clippy::unwrap_used, reason = "a test panics on surprise")]

use std::collections::BTreeSet;

use orb_protocol::federation::reconcile::item;
use orb_protocol::key::OwnerKey;
use orb_protocol::manifest::Verified;
use orb_protocol::quic::frames::read_message;
use orb_protocol::wire::directory::{Resolve, Resolved};
use orb_protocol::wire::federation::{PeerBeat, PeerMessage, RegistryChange};
use orb_protocol::wire::packed::PackedChanges;

use super::super::super::testing::{FakeSuper, Guest, Super, wasm};
use super::*;
use crate::store::testing::{head, manifest, owner, publish, version};

/// Functions that both sides have, and some more: so many that a log of them would be compared, not replayed.
const SHARED: usize = 40;
const LOG_LEN: u64 = 1_000;

fn function(key: &OwnerKey, number: usize) -> Verified {
    manifest(key, &format!("f{number}"), version(0, 1), publish(&wasm(0)))
}

fn change(key: &OwnerKey, manifest: &Verified, number: u64) -> RegistryChange {
    RegistryChange {
        at: cursor(number),
        manifest: manifest.signed().clone(),
        head_signature: head(key, manifest).signature,
        extensions: Extensions::none(),
    }
}

/// In the log of the other super node, which is this test.
fn cursor(number: u64) -> Cursor {
    Cursor { log: [7; 16], number }
}

fn items(manifests: &[Verified]) -> Vec<ItemId> {
    manifests.iter().map(item).collect()
}

/// A super node with [`SHARED`] functions, and another one, played here, that is linked with it.
async fn linked(functions: &[Verified]) -> (Super, Guest, SendStream) {
    let node = Super::start_with(tempfile::tempdir().unwrap(), |config| config.open_peers = true).await;
    let owners = Guest::connect(&node).await;
    for manifest in functions {
        owners.publish(&owner(1), manifest, &wasm(0)).await.unwrap();
    }
    let FakeSuper { guest, link } = FakeSuper::join(&node, 9, cursor(LOG_LEN)).await;
    (node, guest, link)
}

async fn step(recv: &mut RecvStream) -> Reconcile {
    read_message(recv, MESSAGE_LEN_MAX).await.unwrap()
}

#[tokio::test]
async fn where_no_clock_tells_only_what_differs_is_fetched() {
    let key = owner(1);
    let all: Vec<Verified> = (0..SHARED + 3).map(|number| function(&key, number)).collect();
    let (node, peer, mut link) = linked(&all[..SHARED]).await;

    // It asks by itself, as soon as it hears of a log that it knows nothing of.
    let (mut send, mut recv) = peer.connection.accept_bi().await.unwrap();
    let asked: Request = read_message(&mut recv, MESSAGE_LEN_MAX).await.unwrap();
    let Request::Reconcile(mut asked) = asked else {
        panic!("{asked:?}")
    };
    let mut answerer = Answerer::new(&items(&all)).unwrap();
    let mut first = true;
    while !asked.message.is_empty() {
        let message = answerer.answer(&asked.message).unwrap();
        let answer = Reconciled {
            message,
            extensions: Extensions::none(),
        };
        match std::mem::take(&mut first) {
            true => write_message(&mut send, &Reply::ok(&answer)).await.unwrap(),
            false => write_message(&mut send, &answer).await.unwrap(),
        }
        asked = step(&mut recv).await;
    }
    let wanted: BTreeSet<ItemId> = asked.wanted.into_iter().collect();
    assert_eq!(wanted, items(&all[SHARED..]).into_iter().collect());
    let changes: Vec<_> = (1..)
        .zip(&all[SHARED..])
        .map(|(number, manifest)| change(&key, manifest, number))
        .collect();
    let page = ChangesPage {
        changes: PackedChanges::pack(&changes),
        known: vec![cursor(LOG_LEN)],
        last: true,
        extensions: Extensions::none(),
    };
    write_message(&mut send, &page).await.unwrap();

    let guest = Guest::connect(&node).await;
    for manifest in &all[SHARED..] {
        let ask = || {
            guest.ask::<Resolved>(Resolve {
                function: manifest.function(),
                credential: None,
                extensions: Extensions::none(),
            })
        };
        while ask().await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    // From now on its clock tells: nothing is left to be compared, though it looks at every beat.
    let beat = PeerBeat {
        own: cursor(LOG_LEN),
        known: 1,
        extensions: Extensions::none(),
    };
    let beating = tokio::spawn(async move {
        while write_message(&mut link, &PeerMessage::from(beat.clone()))
            .await
            .is_ok()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let asked = loop {
        let (_send, mut recv) = peer.connection.accept_bi().await.unwrap();
        match read_message(&mut recv, MESSAGE_LEN_MAX).await.unwrap() {
            // Who resolved the functions wants to know of their hosts.
            Request::Locate(_) => {}
            other => break other,
        }
    };
    assert!(matches!(asked, Request::Changes(_)), "{asked:?}");
    beating.abort();
    node.stop().await;
}

#[tokio::test]
async fn another_super_node_is_told_what_it_lacks() {
    let key = owner(1);
    let all: Vec<Verified> = (0..SHARED).map(|number| function(&key, number)).collect();
    let (node, peer, _link) = linked(&all).await;
    let (mut send, mut recv) = peer.connection.open_bi().await.unwrap();
    let (mut asker, first) = Asker::new(items(&all[..SHARED - 5])).unwrap();
    write_message(&mut send, &Request::from(message(first)))
        .await
        .unwrap();
    let reply: Reply = read_message(&mut recv, MESSAGE_LEN_MAX).await.unwrap();
    let mut answer: Reconciled = reply.into_result().unwrap();
    let wanted = loop {
        match asker.on_answer(&answer.message).unwrap() {
            Step::Ask(next) => write_message(&mut send, &message(next)).await.unwrap(),
            Step::Done { wanted, .. } => break wanted,
        }
        answer = read_message(&mut recv, MESSAGE_LEN_MAX).await.unwrap();
    };
    // One that nobody has is left out.
    let wanted = [wanted, vec![[0xee; 32]]].concat();
    let asked = Reconcile {
        wanted,
        ..message(Vec::new())
    };
    write_message(&mut send, &asked).await.unwrap();
    let page: ChangesPage = read_message(&mut recv, MESSAGE_LEN_MAX).await.unwrap();
    let got = page.changes.unpack().unwrap();
    let got: BTreeSet<_> = got.iter().map(|change| change.manifest.hash()).collect();
    assert_eq!(got, all[SHARED - 5..].iter().map(Verified::hash).collect());
    assert!(
        page.last && page.known.iter().any(|known| known.number == SHARED as u64),
        "{:?}",
        page.known
    );
    node.stop().await;
}

#[tokio::test]
async fn nonsense_is_refused() {
    let (node, peer, _link) = linked(&[]).await;
    let fault = peer.ask::<Reconciled>(message(vec![1, 2, 3])).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::InputInvalid, "{fault}");
    let stranger = Guest::connect(&node).await;
    stranger.ask::<Reconciled>(message(vec![0x61])).await.unwrap();
    let data = node.stop().await;
    // A super node that links with nobody compares with nobody.
    let node = Super::start_with(data, |_| {}).await;
    let stranger = Guest::connect(&node).await;
    let fault = stranger.ask::<Reconciled>(message(vec![0x61])).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Refused, "{fault}");
    node.stop().await;
}
