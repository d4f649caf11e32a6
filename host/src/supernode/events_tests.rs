#![expect(clippy::unwrap_used, reason = "a test panics on surprise")]

use std::time::Duration;

use orb_protocol::client::{Client, EventQuery, EventStream};
use orb_protocol::fault::FaultKind;
use orb_protocol::key::OwnerKey;
use orb_protocol::manifest::Verified;
use orb_protocol::wire::control::Refused;
use orb_protocol::wire::events::{Event, EventKind, EventPage, Events};
use orb_protocol::wire::extension::Extensions;
use tokio::sync::Semaphore;

use super::super::testing::{FakeHost, Guest, Super, wasm};
use super::place;
use crate::store::testing::{end, manifest, owner, publish, version};

/// More than anything takes here but a loss, which takes eight seconds.
const SOON: Duration = Duration::from_secs(20);

fn revision(key: &OwnerKey, name: &str, number: u64, salt: u8) -> Verified {
    manifest(key, name, version(0, number), publish(&wasm(salt)))
}

fn all() -> Events {
    Events {
        after: Some(0),
        owner: None,
        function: None,
        follow: false,
        limit: 100,
        extensions: Extensions::none(),
    }
}

async fn publish_all(guest: &Guest, key: &OwnerKey, revisions: &[(&Verified, u8)]) {
    for (manifest, salt) in revisions {
        guest.publish(key, manifest, &wasm(*salt)).await.unwrap();
    }
}

async fn client_of(node: &Super) -> Client {
    let builder = Client::builder().super_nodes(vec![node.address.clone()]);
    builder.connect().await.unwrap()
}

/// The next so many events of a stream, which says that none are missing.
async fn take(stream: &mut EventStream, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        let page = tokio::time::timeout(SOON, stream.next()).await.unwrap();
        let page = page.unwrap().unwrap();
        assert!(!page.gap);
        events.extend(page.events);
    }
    events
}

fn kinds(events: &[Event]) -> Vec<EventKind> {
    events.iter().map(|event| event.kind).collect()
}

#[tokio::test]
async fn a_page_has_what_was_asked_for() {
    let node = Super::start().await;
    let guest = Guest::connect(&node).await;
    let (one, two) = (owner(1), owner(2));
    let first = revision(&one, "f", 1, 1);
    let others = (revision(&one, "g", 1, 1), revision(&two, "f", 1, 1));
    publish_all(&guest, &one, &[(&first, 1), (&others.0, 1)]).await;
    publish_all(&guest, &two, &[(&others.1, 1)]).await;
    let tombstone = manifest(&one, "f", version(0, 2), end());
    publish_all(&guest, &one, &[(&tombstone, 0)]).await;

    let page: EventPage = guest.ask(all()).await.unwrap();
    assert_eq!((page.cursor, page.more, page.gap), (4, false, false));
    let ids: Vec<String> = page.events.iter().map(|event| event.id(&page.node)).collect();
    assert_eq!(ids[3], format!("{}-4", page.node.short()));
    let last = &page.events[3];
    assert_eq!(
        (last.kind, last.version),
        (EventKind::Decommissioned, Some(version(0, 2)))
    );
    assert_eq!(last.name.as_ref().unwrap().as_str(), "f");

    let asked = |change: &dyn Fn(&mut Events)| {
        let mut asked = all();
        change(&mut asked);
        async {
            let page: EventPage = guest.ask(asked).await.unwrap();
            let cursors: Vec<u64> = page.events.iter().map(|event| event.cursor).collect();
            (cursors, page.more)
        }
    };
    assert_eq!(asked(&|events| events.limit = 3).await, (vec![1, 2, 3], true));
    assert_eq!(asked(&|events| events.after = Some(3)).await, (vec![4], false));
    assert_eq!(
        asked(&|events| (events.after, events.limit) = (None, 2)).await,
        (vec![3, 4], false)
    );
    assert_eq!(
        asked(&|events| events.owner = Some(two.id())).await,
        (vec![3], false)
    );
    assert_eq!(
        asked(&|events| events.function = Some(first.function())).await,
        (vec![1, 4], false)
    );
}

#[tokio::test]
async fn a_follower_hears_what_happens_and_goes_on_after_a_restart() {
    let node = Super::start().await;
    let key = owner(1);
    let revisions: Vec<Verified> = (1..=4)
        .map(|number| revision(&key, "f", number, u8::try_from(number).unwrap()))
        .collect();
    {
        let guest = Guest::connect(&node).await;
        publish_all(&guest, &key, &[(&revisions[0], 1)]).await;
    }
    let client = client_of(&node).await;
    let mut stream = client.events(EventQuery {
        function: Some(revisions[0].function()),
        follow: true,
        ..EventQuery::default()
    });
    assert_eq!(kinds(&take(&mut stream, 1).await), [EventKind::Published]);
    {
        let guest = Guest::connect(&node).await;
        publish_all(&guest, &key, &[(&revisions[1], 2)]).await;
    }
    assert_eq!(take(&mut stream, 1).await[0].version, Some(version(0, 2)));

    let data = node.stop().await;
    let node = Super::start_with(data, |_| {}).await;
    let guest = Guest::connect(&node).await;
    publish_all(&guest, &key, &[(&revisions[2], 3), (&revisions[3], 4)]).await;
    let after: Vec<_> = take(&mut stream, 2)
        .await
        .iter()
        .map(|event| event.version)
        .collect();
    assert_eq!(after, [Some(version(0, 3)), Some(version(0, 4))]);
}

#[tokio::test]
async fn a_follower_goes_on_in_the_log_of_whichever_super_node_is_there() {
    let (one, two) = (Super::start().await, Super::start().await);
    let key = owner(1);
    let revisions: Vec<Verified> = (1..=3).map(|number| revision(&key, "f", number, 1)).collect();
    for node in [&one, &two] {
        publish_all(&Guest::connect(node).await, &key, &[(&revisions[0], 1)]).await;
    }
    let builder = Client::builder().super_nodes(vec![one.address.clone(), two.address.clone()]);
    let client = builder.connect().await.unwrap();
    let mut stream = client.events(EventQuery {
        after: Some(0),
        follow: true,
        ..EventQuery::default()
    });
    let first = stream.next().await.unwrap().unwrap();
    assert_eq!((first.events.len(), first.gap), (1, false));
    let (left, mut there) = match first.node == one.address.id() {
        true => (one, two),
        false => (two, one),
    };
    // The other one has another log, and says so.
    let mut away = left.stop().await;
    for number in [1, 2] {
        let page = stream.next().await.unwrap().unwrap();
        assert_eq!((page.node, page.gap), (there.address.id(), number == 1));
        // Back where it was before, nothing is missing and nothing comes twice.
        let back = Super::start_with(away, |_| {}).await;
        publish_all(&Guest::connect(&back).await, &key, &[(&revisions[number], 1)]).await;
        away = there.stop().await;
        let page = stream.next().await.unwrap().unwrap();
        let versions: Vec<_> = page.events.iter().map(|event| event.version).collect();
        assert_eq!((page.node, page.gap), (back.address.id(), false));
        assert_eq!(versions, [Some(revisions[number].version())]);
        // And once more the other way round.
        there = Super::start_with(away, |_| {}).await;
        publish_all(&Guest::connect(&there).await, &key, &[(&revisions[number], 1)]).await;
        away = back.stop().await;
    }
}

#[tokio::test]
async fn an_event_of_another_log_is_refused() {
    let node = Super::start().await;
    let client = client_of(&node).await;
    for follow in [false, true] {
        let mut stream = client.events(EventQuery {
            after: Some(0),
            log: Some("aaaaaaaaaa".to_owned()),
            follow,
            ..EventQuery::default()
        });
        let error = stream.next().await.unwrap_err();
        assert_eq!(error.kind(), FaultKind::InputInvalid, "{error}");
    }
    let mut stream = client.events(EventQuery {
        after: Some(0),
        log: Some(node.address.id().short()),
        ..EventQuery::default()
    });
    assert!(!stream.next().await.unwrap().unwrap().gap);
}

#[tokio::test]
async fn pages_of_a_list_end() {
    let node = Super::start().await;
    let guest = Guest::connect(&node).await;
    let key = owner(1);
    for number in 1..=5 {
        publish_all(&guest, &key, &[(&revision(&key, "f", number, 1), 1)]).await;
    }
    let query = EventQuery {
        after: Some(0),
        limit: 2,
        ..EventQuery::default()
    };
    let mut stream = client_of(&node).await.events(query.clone());
    assert_eq!(take(&mut stream, 5).await.len(), 5);
    assert_eq!(stream.next().await.unwrap(), None);
    // Nobody knows of event 6, so the log is not the one that it was.
    let query = EventQuery {
        after: Some(6),
        ..query
    };
    let page = client_of(&node)
        .await
        .events(query)
        .next()
        .await
        .unwrap()
        .unwrap();
    assert!(page.gap);
    assert_eq!(page.events[0].cursor, 1);
}

#[tokio::test]
async fn what_hosts_do_is_noted_with_the_function_and_the_reason() {
    let node = Super::start().await;
    let guest = Guest::connect(&node).await;
    let key = owner(1);
    let manifest = revision(&key, "f", 1, 1);
    publish_all(&guest, &key, &[(&manifest, 1)]).await;
    let client = client_of(&node).await;
    let mut stream = client.events(EventQuery {
        after: Some(1),
        follow: true,
        ..EventQuery::default()
    });
    let mut host = FakeHost::join(Guest::connect(&node).await).await;
    let id = host.guest.endpoint.node_id();
    host.hear_assign(&manifest).await;
    host.ready(&manifest).await;
    // It was ready before: no news.
    host.ready(&manifest).await;
    let mut other = FakeHost::join(Guest::connect(&node).await).await;
    other.hear_assign(&manifest).await;
    let refused = |function| Refused {
        function,
        version: manifest.version(),
        reason: "too \u{1b}large".to_owned(),
        extensions: Extensions::none(),
    };
    // Nobody asked it to hold anything like it.
    other.say(refused(revision(&key, "g", 1, 1).function())).await;
    other.say(refused(manifest.function())).await;

    let events = take(&mut stream, 4).await;
    // Neither the second "ready" nor the refusal that nobody had asked for.
    assert_eq!(events.len(), 4, "{events:?}");
    let of = |kind| events.iter().find(|event| event.kind == kind).unwrap();
    assert_eq!(of(EventKind::HostJoined).function, None);
    let seeded = of(EventKind::Seeded);
    assert_eq!(
        (seeded.host, seeded.version, seeded.owner),
        (Some(id), Some(manifest.version()), Some(key.id()))
    );
    let refused = of(EventKind::Refused);
    assert_eq!(refused.note, "too large");
    assert_eq!(refused.name.as_ref().unwrap().as_str(), "f");

    drop(host);
    let left = take(&mut stream, 1).await;
    assert_eq!((left[0].kind, left[0].host), (EventKind::HostLeft, Some(id)));
}

#[tokio::test]
async fn a_lost_host_is_noted_for_its_functions_and_so_is_who_makes_up_for_it() {
    let node = Super::start().await;
    let guest = Guest::connect(&node).await;
    let key = owner(1);
    let manifest = revision(&key, "f", 1, 1);
    publish_all(&guest, &key, &[(&manifest, 1)]).await;
    let client = client_of(&node).await;
    let mut stream = client.events(EventQuery {
        after: Some(1),
        follow: true,
        ..EventQuery::default()
    });
    // It says nothing more after this.
    let mut silent = FakeHost::join(Guest::connect(&node).await).await;
    silent.hear_assign(&manifest).await;
    silent.ready(&manifest).await;
    let lost = take(&mut stream, 4).await;
    let expected = [
        EventKind::HostJoined,
        EventKind::Seeded,
        EventKind::Lost,
        EventKind::HostLeft,
    ];
    assert_eq!(kinds(&lost), expected);
    assert_eq!(lost[2].function, Some(manifest.function()));

    let mut host = FakeHost::join(Guest::connect(&node).await).await;
    host.hear_assign(&manifest).await;
    host.ready(&manifest).await;
    let repaired = take(&mut stream, 2).await;
    assert_eq!(kinds(&repaired), [EventKind::HostJoined, EventKind::Repaired]);
}

#[test]
fn only_so_many_may_follow() {
    let followers = Semaphore::new(1);
    let first = place(&followers, true).unwrap();
    let fault = place(&followers, true).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Overloaded);
    assert!(fault.retry_after_ms.is_some());
    assert!(place(&followers, false).unwrap().is_none());
    drop(first);
    place(&followers, true).unwrap();
}
