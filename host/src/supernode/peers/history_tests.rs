#![expect(clippy::unwrap_used, reason = "a test panics on surprise")]

use bytes::Bytes;
use orb_protocol::manifest::Verified;
use orb_protocol::quic::frames::write_message;
use orb_protocol::wire::Reply;
use orb_protocol::wire::Request;
use orb_protocol::wire::directory::RevisionEntry;
use orb_protocol::wire::federation::{Cursor, PeerMessage, RegistryChange};
use tokio::sync::mpsc;

use super::super::super::testing::{FakeSuper, Guest, Super, wasm};
use super::*;
use crate::store::testing::{chain, head, manifest, owner, publish, version};

fn cursor(number: u64) -> Cursor {
    Cursor { log: [7; 16], number }
}

async fn open_super() -> Super {
    Super::start_with(tempfile::tempdir().unwrap(), |config| config.open_peers = true).await
}

/// Six revisions of other bytes each, which super nodes admit.
fn revisions(name: &str) -> (Vec<Verified>, Vec<Bytes>) {
    let artifacts: Vec<Bytes> = (1..=6).map(wasm).collect();
    let bytes: Vec<&[u8]> = artifacts.iter().map(AsRef::as_ref).collect();
    (chain(&owner(1), name, &bytes), artifacts)
}

fn listed(manifests: &[Verified]) -> Option<Reply> {
    let revisions = manifests.iter().rev().map(|manifest| RevisionEntry {
        manifest: manifest.signed().clone(),
        has_artifact: true,
    });
    Some(Reply::ok(&VersionsListed {
        revisions: revisions.collect(),
        more: false,
        extensions: Extensions::none(),
    }))
}

async fn numbers(guest: &Guest, function: FunctionId, extensions: Extensions) -> Vec<u64> {
    let asked = Versions {
        function,
        before: None,
        extensions,
    };
    let page: VersionsListed = guest.ask(asked).await.unwrap();
    let manifests = page
        .revisions
        .into_iter()
        .map(|entry| entry.manifest.verify().unwrap());
    manifests.map(|manifest| manifest.version().revision).collect()
}

#[tokio::test]
async fn a_missed_history_is_had_from_whoever_has_it_and_liars_only_cost_an_answer() {
    let node = open_super().await;
    let guest = Guest::connect(&node).await;
    let (chain, artifacts) = revisions("f");
    let (lost, _) = revisions("g");
    for last in [&chain[5], &lost[5]] {
        guest.publish(&owner(1), last, &artifacts[5]).await.unwrap();
        assert_eq!(numbers(&guest, last.function(), Extensions::none()).await, [6]);
    }

    // One says nothing at all, one forges, one tells of something else.
    let silent = FakeSuper::join(&node, 8, cursor(0)).await;
    silent.answer(|_| None);
    let forger = FakeSuper::join(&node, 9, cursor(0)).await;
    let mut forged = chain[1..].to_vec();
    forged[3] = manifest(&owner(2), "f", version(0, 5), publish(&artifacts[0]));
    let rival = manifest(&owner(1), "f", version(0, 5), publish(&artifacts[0]));
    forged.push(rival);
    forger.answer(move |asked| matches!(asked, Request::Versions(_)).then(|| listed(&forged))?);
    assert_eq!(numbers(&guest, lost[0].function(), Extensions::none()).await, [6]);

    let honest = FakeSuper::join(&node, 10, cursor(0)).await;
    let told = chain.clone();
    honest.answer(move |asked| matches!(asked, Request::Versions(_)).then(|| listed(&told[1..5]))?);
    let function = chain[0].function();
    assert_eq!(
        numbers(&guest, function, Extensions::none()).await,
        [6, 5, 4, 3, 2]
    );
    for liar in [silent, forger, honest] {
        liar.guest.connection.close(0, "done");
    }
    // It is stored here: nobody is asked any more.
    let local = Extensions::none().with(LOCAL, Vec::new());
    assert_eq!(numbers(&guest, function, local.clone()).await, [6, 5, 4, 3, 2]);
    let node = Super::start_with(node.stop().await, |_| {}).await;
    let guest = Guest::connect(&node).await;
    assert_eq!(numbers(&guest, function, local).await, [6, 5, 4, 3, 2]);
    node.stop().await;
}

#[tokio::test]
async fn a_revision_whose_parent_was_missed_has_it_asked_for_though_nobody_looks() {
    let node = open_super().await;
    let guest = Guest::connect(&node).await;
    let (chain, _) = revisions("f");
    let mut peer = FakeSuper::join(&node, 8, cursor(0)).await;
    let (asked_for, mut asked) = mpsc::unbounded_channel();
    let told = chain.clone();
    peer.answer(move |request| {
        let Request::Versions(versions) = request else {
            return None;
        };
        asked_for.send(versions.clone()).unwrap();
        listed(&told[..5])
    });
    for (number, manifest) in [(1, &chain[0]), (2, &chain[5])] {
        let change = RegistryChange {
            at: cursor(number),
            manifest: manifest.signed().clone(),
            head_signature: head(&owner(1), manifest).signature,
            extensions: Extensions::none(),
        };
        write_message(&mut peer.link, &PeerMessage::from(change))
            .await
            .unwrap();
    }
    let first = asked.recv().await.unwrap();
    assert_eq!(
        (first.function, first.before),
        (chain[0].function(), Some(version(0, 6)))
    );
    assert!(first.extensions.get(LOCAL).is_some());
    let local = Extensions::none().with(LOCAL, Vec::new());
    while numbers(&guest, chain[0].function(), local.clone()).await != [6, 5, 4, 3, 2, 1] {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    node.stop().await;
}

#[test]
fn no_more_functions_wait_than_there_is_room_for_and_none_twice() {
    let histories = Histories::default();
    let (chain, _) = revisions("f");
    histories.on_news(&chain[1], Some(&chain[0]));
    histories.on_news(&chain[0], None);
    assert_eq!(histories.next(), None);
    histories.on_news(&chain[2], Some(&chain[0]));
    histories.on_news(&chain[4], Some(&chain[2]));
    assert_eq!(
        (histories.next(), histories.next()),
        (Some(chain[0].function()), None)
    );
    let mut state = histories.lock();
    state
        .waiting
        .extend((0..WAITING_MAX).map(|_| FunctionId::from_bytes([0; 32])));
    drop(state);
    histories.on_news(&chain[4], None);
    assert_eq!(histories.lock().waiting.len(), WAITING_MAX);
}

#[test]
fn of_those_who_ask_for_the_same_function_one_sees_to_it() {
    let histories = Histories::default();
    let (function, now) = (FunctionId::from_bytes([1; 32]), Instant::now());
    let Turn::Mine(mine) = histories.turn(function, now) else {
        panic!("nobody had a turn")
    };
    assert!(matches!(histories.turn(function, now), Turn::Theirs(_)));
    mine.send_replace(true);
    assert!(matches!(histories.turn(function, now), Turn::Over));
    let now = now + RETRY;
    let Turn::Mine(lost) = histories.turn(function, now) else {
        panic!("it is long ago")
    };
    // Whoever was at it ended without saying so.
    drop(lost);
    assert!(matches!(histories.turn(function, now), Turn::Over));
    for number in 0..2 * ATTEMPTS_MAX {
        let function = FunctionId::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes());
        if let Turn::Mine(sender) = histories.turn(function, now) {
            sender.send_replace(true);
        }
    }
    assert!(histories.lock().attempts.len() <= ATTEMPTS_MAX);
}
