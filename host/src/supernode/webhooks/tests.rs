#![expect(clippy::unwrap_used, reason = "a test panics on surprise")]

use std::path::Path;
use std::time::Duration;

use orb_protocol::manifest::Verified;

use super::post::{PostError, Poster};
use super::testing::{Answer, SECRET, Server, roots};
use crate::config::{Webhook, WebhookPace};
use crate::operator::{Asked, DeadLetters, Told, ask};
use crate::store::blocking;
use crate::store::datadir::{DataDir, Role};
use crate::store::testing::{manifest, owner, publish, version};
use crate::store::webhooks::DeadLetter;
use crate::supernode::storage::Storage;
use crate::supernode::testing::{Guest, Super, wasm};

const FAST: WebhookPace = WebhookPace {
    attempts_max: 3,
    pause_min: Duration::from_millis(10),
    pause_max: Duration::from_millis(50),
    timeout: Duration::from_millis(500),
};

fn webhook(host: &str, port: u16) -> Webhook {
    Webhook {
        url: format!("http://{host}:{port}/hook?a=b").parse().unwrap(),
        secret: SECRET.parse().unwrap(),
        owner: None,
        function: None,
        allow_private: true,
    }
}

async fn super_with(data: tempfile::TempDir, webhook: &Webhook, pace: WebhookPace) -> Super {
    let webhooks = vec![webhook.clone()];
    let node = Super::start_with(data, |config| {
        (config.webhooks, config.webhook_pace) = (webhooks, pace);
    });
    node.await
}

async fn start(webhook: &Webhook) -> Super {
    super_with(tempfile::tempdir().unwrap(), webhook, FAST).await
}

/// Revisions of a function of owner 1, by number.
fn revision(name: &str, number: u64) -> Verified {
    manifest(&owner(1), name, version(0, number), publish(&wasm(1)))
}

async fn publish_to(node: &Super, revisions: &[Verified]) {
    let guest = Guest::connect(node).await;
    for revision in revisions {
        guest.publish(&owner(1), revision, &wasm(1)).await.unwrap();
    }
}

/// The dead letters in the folder of a super node that has ended.
async fn dead_letters(data: &Path, webhook: &Webhook) -> Vec<DeadLetter> {
    let dir = DataDir::open(data, Role::Super).unwrap();
    let storage = Storage::open(&dir).unwrap();
    let letters = storage.dead_letters(webhook.target()).await.unwrap();
    blocking(move || {
        storage.close().unwrap();
        dir.close().unwrap();
    })
    .await;
    letters
}

#[tokio::test]
async fn events_come_signed_and_in_order() {
    let mut server = Server::start([]).await;
    let node = start(&webhook("127.0.0.1", server.port)).await;
    let revisions: Vec<_> = (1..=20).map(|number| revision("f", number)).collect();
    publish_to(&node, &revisions).await;
    for number in 1..=20 {
        let received = server.next().await;
        assert!(
            received.head.starts_with("POST /hook?a=b HTTP/1.1\r\n"),
            "{}",
            received.head
        );
        assert_eq!(received.header("content-type"), "application/json");
        assert_eq!(received.cursor(), number);
        let body = received.verified();
        assert_eq!(body["data"]["revision"], number);
        assert_eq!(body["type"], if number == 1 { "published" } else { "edited" });
        let now = crate::format::now_ms() / 1_000;
        let time: u64 = received.header("webhook-timestamp").parse().unwrap();
        assert!((now - 60..=now).contains(&time));
    }
    assert!(server.is_quiet());
}

#[tokio::test]
async fn what_failed_or_hangs_is_tried_again_before_anything_else() {
    let mut server = Server::start([Answer::Status(500), Answer::Hang]).await;
    let node = start(&webhook("127.0.0.1", server.port)).await;
    publish_to(&node, &[revision("f", 1), revision("f", 2)]).await;
    let mut cursors = Vec::new();
    for _ in 0..4 {
        cursors.push(server.next().await.cursor());
    }
    assert_eq!(cursors, [1, 1, 1, 2]);
    drop(node);
}

#[tokio::test]
async fn what_fails_too_often_is_kept_among_the_dead_letters_and_the_next_one_has_its_turn() {
    let answers = [Answer::Status(500), Answer::Status(404), Answer::Status(503)];
    let mut server = Server::start(answers).await;
    let webhook = webhook("127.0.0.1", server.port);
    let node = start(&webhook).await;
    publish_to(&node, &[revision("f", 1), revision("f", 2)]).await;
    let mut cursors = Vec::new();
    for _ in 0..4 {
        cursors.push(server.next().await.cursor());
    }
    assert_eq!(cursors, [1, 1, 1, 2]);
    let data = node.stop().await;
    let letters = dead_letters(data.path(), &webhook).await;
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].event.cursor, letters[0].attempts), (1, 3));
    assert!(letters[0].reason.contains("503"), "{}", letters[0].reason);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let mut inside = Server::start([]).await;
    let to = format!("http://127.0.0.1:{}/", inside.port);
    let mut server = Server::start(vec![Answer::Redirect(to); 3]).await;
    let webhook = webhook("127.0.0.1", server.port);
    let node = start(&webhook).await;
    publish_to(&node, &[revision("f", 1), revision("f", 2)]).await;
    // It counts as a failure: the second event comes when the first one is given up.
    while server.next().await.cursor() < 2 {}
    assert!(inside.is_quiet());
    let data = node.stop().await;
    let letters = dead_letters(data.path(), &webhook).await;
    assert!(letters[0].reason.contains("307"), "{}", letters[0].reason);
}

#[tokio::test]
async fn a_name_that_means_this_machine_is_told_nothing_unless_that_is_allowed() {
    let mut server = Server::start([]).await;
    let mut webhook = webhook("localhost", server.port);
    webhook.allow_private = false;
    let node = start(&webhook).await;
    publish_to(&node, &[revision("f", 1)]).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(server.is_quiet());
    let data = node.stop().await;
    let letters = dead_letters(data.path(), &webhook).await;
    assert!(
        letters[0].reason.contains("allow_private"),
        "{}",
        letters[0].reason
    );

    webhook.allow_private = true;
    let node = super_with(data, &webhook, FAST).await;
    publish_to(&node, &[revision("f", 2)]).await;
    assert_eq!(server.next().await.cursor(), 2);
}

#[tokio::test]
async fn after_a_restart_it_goes_on_where_it_was() {
    let mut server = Server::start([Answer::Status(204), Answer::Status(500)]).await;
    let webhook = webhook("127.0.0.1", server.port);
    let patient = WebhookPace {
        pause_min: Duration::from_secs(60),
        pause_max: Duration::from_secs(60),
        ..FAST
    };
    let node = super_with(tempfile::tempdir().unwrap(), &webhook, patient).await;
    let revisions: Vec<_> = (1..=3).map(|number| revision("f", number)).collect();
    publish_to(&node, &revisions).await;
    assert_eq!(server.next().await.cursor(), 1);
    assert_eq!(server.next().await.cursor(), 2);
    // It waits for a minute now, with the second event not delivered.
    let data = node.stop().await;
    assert!(server.is_quiet());
    let _node = super_with(data, &webhook, FAST).await;
    assert_eq!(server.next().await.cursor(), 2);
    assert_eq!(server.next().await.cursor(), 3);
}

#[tokio::test]
async fn a_webhook_about_a_function_is_told_of_no_other() {
    let mut server = Server::start([]).await;
    let mut webhook = webhook("127.0.0.1", server.port);
    (webhook.owner, webhook.function) = (Some(owner(1).id()), Some("g".parse().unwrap()));
    let node = start(&webhook).await;
    publish_to(
        &node,
        &[
            revision("f", 1),
            revision("g", 1),
            revision("f", 2),
            revision("g", 2),
        ],
    )
    .await;
    let cursors = [server.next().await.cursor(), server.next().await.cursor()];
    assert_eq!(cursors, [2, 4]);
    assert!(server.is_quiet());
}

#[tokio::test]
async fn over_tls_only_a_server_with_a_certificate_that_is_believed_is_told() {
    let mut server = Server::start_tls().await;
    let url = |host: &str| format!("https://{host}:{}/", server.port).parse().unwrap();
    let (localhost, other) = (url("localhost"), url("127.0.0.1"));
    let believing = Poster::believing(roots()).unwrap();
    believing.post(&localhost, true, &[], "{}").await.unwrap();
    assert_eq!(server.next().await.body, "{}");
    for (poster, url) in [(Poster::new().unwrap(), &localhost), (believing, &other)] {
        let refused = poster.post(url, true, &[], "{}").await;
        assert!(matches!(refused, Err(PostError::Broken(_))), "{refused:?}");
    }
    assert!(server.is_quiet());
}

/// What the operator is told, as the command hears it.
async fn told(node: &Super, asked: DeadLetters) -> Vec<Told> {
    let mut answers = ask(node.data(), &Asked::DeadLetters(asked)).await.unwrap();
    let mut all = Vec::new();
    loop {
        let told = answers.next().await.unwrap();
        let is_last = matches!(told, Told::Done | Told::Refused { .. });
        all.push(told);
        if is_last {
            return all;
        }
    }
}

/// What was told, in short.
fn briefly(told: &[Told]) -> Vec<String> {
    let brief = |told: &Told| match told {
        Told::Letter(letter) => format!(
            "{} after {}: {}",
            letter.event["cursor"], letter.attempts, letter.reason
        ),
        Told::Delivered(letter) => format!("{} delivered", letter.event["cursor"]),
        Told::Failed(letter) => format!("{} failed after {}", letter.event["cursor"], letter.attempts),
        Told::Refused { message, help } => format!("{message}; {help}"),
        Told::Done => "done".to_owned(),
    };
    told.iter().map(brief).collect()
}

#[tokio::test]
async fn the_operator_sees_dead_letters_and_has_them_sent_again() {
    // Three events are given up, then one is taken; then the target fails once more before it is mended.
    let mut answers = vec![Answer::Status(503); 9];
    answers.extend([Answer::Status(200), Answer::Status(200), Answer::Status(404)]);
    let mut server = Server::start(answers).await;
    let webhook = webhook("127.0.0.1", server.port);
    let node = start(&webhook).await;
    let revisions: Vec<_> = (1..=4).map(|number| revision("f", number)).collect();
    publish_to(&node, &revisions).await;
    while server.next().await.cursor() < 4 {}
    let shown = DeadLetters::default();
    let reason = "the answer was status 503";
    let of = |number: u64| format!("{number} after 3: {reason}");
    assert_eq!(
        briefly(&told(&node, shown.clone()).await),
        [of(1), of(2), of(3), "done".to_owned()]
    );

    let id = format!("{}-2", node.address.id().short());
    let resend = DeadLetters {
        webhook: Some(webhook.url.authority()),
        events: vec![id],
        resend: true,
    };
    assert_eq!(briefly(&told(&node, resend).await), ["2 delivered", "done"]);
    assert_eq!(server.next().await.cursor(), 2);
    let all = DeadLetters {
        resend: true,
        ..DeadLetters::default()
    };
    // The first one fails: the next one is not tried, and both stay.
    assert_eq!(
        briefly(&told(&node, all.clone()).await),
        ["1 failed after 4", "done"]
    );
    assert_eq!(server.next().await.cursor(), 1);
    assert!(server.is_quiet());
    let left = [
        "1 after 4: the answer was status 404".to_owned(),
        of(3),
        "done".to_owned(),
    ];
    assert_eq!(briefly(&told(&node, shown.clone()).await), left);
    assert_eq!(
        briefly(&told(&node, all).await),
        ["1 delivered", "3 delivered", "done"]
    );
    assert_eq!(server.next().await.verified()["data"]["revision"], 1);
    assert_eq!(server.next().await.cursor(), 3);
    assert_eq!(briefly(&told(&node, shown).await), ["done"]);

    // None of this has moved what is told next.
    publish_to(&node, &[revision("f", 5)]).await;
    assert_eq!(server.next().await.cursor(), 5);
    node.stop().await;
}

#[tokio::test]
async fn the_operator_who_names_what_is_not_there_is_told_so_and_nothing_is_sent() {
    let mut server = Server::start(vec![Answer::Status(503); 3]).await;
    let webhook = webhook("127.0.0.1", server.port);
    let node = start(&webhook).await;
    publish_to(&node, &[revision("f", 1), revision("f", 2)]).await;
    while server.next().await.cursor() < 2 {}
    let named = |webhook: Option<&str>, event: &str| DeadLetters {
        webhook: webhook.map(str::to_owned),
        events: vec![event.to_owned()],
        resend: true,
    };
    let other = format!("aaaaaaaaaa-{}", 1);
    for (asked, words) in [
        (
            named(Some("https://example.org/"), "1"),
            ["no webhook https://example.org/", &webhook.url.to_string()],
        ),
        (
            named(None, &other),
            ["no event of this super node", &node.address.id().short()],
        ),
        (named(None, "first"), ["first is no event", "by its id"]),
        (
            named(None, "2"),
            ["-2 is not among the dead letters", "was delivered"],
        ),
    ] {
        let text = briefly(&told(&node, asked).await).concat();
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    }
    assert!(server.is_quiet());
    // Whoever asks for something else is told, too, and whoever says nothing keeps nobody waiting.
    let silent = tokio::net::UnixStream::connect(node.data().join("operator.sock"))
        .await
        .unwrap();
    let mut garbage = tokio::net::UnixStream::connect(node.data().join("operator.sock"))
        .await
        .unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut garbage, b"{\"dead\": 1}\n")
        .await
        .unwrap();
    let mut answer = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut garbage, &mut answer)
        .await
        .unwrap();
    assert!(answer.contains("does not understand"), "{answer}");
    let one = DeadLetters::default();
    assert_eq!(told(&node, one).await.len(), 2);
    drop(silent);
    let data = node.stop().await;
    assert!(!data.path().join("operator.sock").exists());
    let failure = ask(data.path(), &Asked::DeadLetters(DeadLetters::default()))
        .await
        .err()
        .unwrap();
    assert!(failure.message.contains("does not run"), "{}", failure.message);
}
