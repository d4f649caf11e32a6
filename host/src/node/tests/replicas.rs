//! What a host holds: seeded, edited, ended, damaged, restarted.

use std::fs;
use std::sync::Arc;

use orb_protocol::fault::FaultKind;
use orb_protocol::id::ArtifactHash;
use orb_protocol::manifest::Action;
use orb_protocol::wire::control::HostMessage;
use tokio::sync::Notify;

use super::guests;
use super::network::{Caller, Net, Super, call, config, patiently};
use crate::node::Node;
use crate::node::testing::{manifest, owner, publish, revision, tombstone};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_assigned_function_is_fetched_and_answers() {
    let net = Net::start().await;
    let echo = guests::echo();
    let first = manifest(&owner(1), "echo", 1, &echo);
    net.seed(&first, &echo).await;
    let done = net.caller.call(call(first.function()), b"hello").await.unwrap();
    assert_eq!(done.text(), "hello");
    assert_eq!(done.started.version, first.version());
    assert_eq!(done.started.content_type, "application/octet-stream");
    assert!(done.trailer.fuel > 0 && done.trailer.memory_peak_bytes >= 65_536);
    let beat = |m: &HostMessage| matches!(m, HostMessage::Beat(beat) if beat.run_times_us.iter().any(|(f, us)| *f == first.function() && *us > 0));
    net.upper.hears(beat).await;

    let logs = net.folder.path().join("logs");
    net.node.drain().await.unwrap();
    let log = fs::read_to_string(logs.join(format!("{}.log", first.function().short()))).unwrap();
    assert!(log.contains(" a line in the log\n"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_during_a_call_changes_the_next_call_only() {
    let net = Net::start().await;
    let (old, new) = (guests::slow(400), guests::says("new"));
    let first = manifest(&owner(1), "f", 1, &old);
    net.seed(&first, &old).await;
    let mut running = net.caller.begin(call(first.function()), b"").await;
    assert_eq!(running.started().await.unwrap().version, first.version());
    let second = manifest(&owner(1), "f", 2, &new);
    net.seed(&second, &new).await;
    let done = net.caller.call(call(first.function()), b"").await.unwrap();
    assert_eq!((done.text(), done.started.version), ("new", second.version()));
    let (output, trailer) = running.rest().await;
    assert_eq!(
        (output.as_slice(), trailer.fault),
        (b"before after".as_slice(), None)
    );
    // The old bytes are gone.
    let objects = net.node.host.objects.clone();
    patiently(async {
        while objects.contains(&ArtifactHash::of(&old)) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(objects.contains(&ArtifactHash::of(&new)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_knows_a_newer_revision_waits_for_it_or_is_sent_elsewhere() {
    let net = Net::start().await;
    let (old, new) = (guests::says("old"), guests::says("new"));
    let first = manifest(&owner(1), "f", 1, &old);
    let second = manifest(&owner(1), "f", 2, &new);
    net.seed(&first, &old).await;
    let go = Arc::new(Notify::new());
    *net.upper.shared.hold_fetches.lock().unwrap() = Some(Arc::clone(&go));
    net.upper.assign(&second, &new);
    let known = |version| orb_protocol::wire::call::Call {
        known: version,
        ..call(first.function())
    };
    // Those who know no better get the old one meanwhile.
    let done = net.caller.call(known(first.version()), b"").await.unwrap();
    assert_eq!(done.text(), "old");
    assert!(!done.started.is_proven(&first.function()), "it was known");
    let waiting = net.caller.begin(known(second.version()), b"").await;
    go.notify_one();
    assert_eq!(waiting.done().await.unwrap().text(), "new");
    // Those who know no better are shown that there is a newer one.
    let done = net.caller.call(known(first.version()), b"").await.unwrap();
    assert_eq!(done.text(), "new");
    assert!(done.started.is_proven(&first.function()));

    let mut later = second.version();
    later.revision = 9;
    let fault = net.caller.call(known(later), b"").await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::NoLiveHost);
    assert!(fault.message.contains("revision 9"), "{fault}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decommissioned_function_never_answers_again() {
    let net = Net::start().await;
    let echo = guests::echo();
    let first = manifest(&owner(1), "echo", 1, &echo);
    net.seed(&first, &echo).await;
    net.upper.tell(&Super::changed(&tombstone(&owner(1), "echo", 2)));
    let dropped = |m: &HostMessage| matches!(m, HostMessage::Dropped(d) if d.function == first.function());
    net.upper.hears(dropped).await;
    // A stale super node says otherwise.
    net.upper.forget();
    net.upper.assign(&first, &echo);
    net.upper.hears(dropped).await;
    let fault = net.caller.call(call(first.function()), b"").await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Decommissioned);
    patiently(async {
        while net.node.host.objects.contains(&ArtifactHash::of(&echo)) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_released_function_is_dropped_and_may_come_back() {
    let net = Net::start().await;
    let echo = guests::echo();
    let first = manifest(&owner(1), "echo", 1, &echo);
    net.seed(&first, &echo).await;
    net.upper.release(first.function());
    net.upper.hears(|m| matches!(m, HostMessage::Dropped(_))).await;
    let fault = net.caller.call(call(first.function()), b"").await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::NoLiveHost);
    net.upper.forget();
    net.seed(&first, &echo).await;
    let done = net.caller.call(call(first.function()), b"again").await.unwrap();
    assert_eq!(done.text(), "again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_transfer_goes_on_where_it_broke() {
    let net = Net::start().await;
    // Long enough to be written to disk in part: a data section that the program never looks at.
    let padding = "x".repeat(300_000);
    let echo = guests::says(&padding);
    let first = manifest(&owner(1), "long", 1, &echo);
    *net.upper.shared.break_after.lock().unwrap() = Some(100_000);
    net.seed(&first, &echo).await;
    assert_eq!(*net.upper.shared.fetches.lock().unwrap(), [0, 100_000]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_bytes_than_the_manifest_names_are_never_stored_or_run() {
    let net = Net::start().await;
    let (wanted, other) = (guests::says("good"), guests::says("evil"));
    assert_eq!(wanted.len(), other.len());
    let first = manifest(&owner(1), "f", 1, &wanted);
    net.upper.lie(ArtifactHash::of(&wanted), &other);
    net.upper.tell(&orb_protocol::wire::control::SuperMessage::Assign(
        orb_protocol::wire::control::Assign {
            manifest: first.signed().clone(),
            extensions: orb_protocol::wire::extension::Extensions::none(),
        },
    ));
    patiently(async {
        while net.upper.shared.fetches.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let fault = net.caller.call(call(first.function()), b"").await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::NoLiveHost);
    assert!(!net.node.host.objects.contains(&ArtifactHash::of(&wanted)));
    // The right ones are taken at the next attempt.
    net.upper.store(&wanted);
    net.upper.hears_ready(first.function(), 1).await;
    let done = net.caller.call(call(first.function()), b"").await.unwrap();
    assert_eq!(done.text(), "good");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_artifact_is_not_run_but_fetched_again() {
    let net = Net::start().await;
    let echo = guests::echo();
    let first = manifest(&owner(1), "echo", 1, &echo);
    net.seed(&first, &echo).await;
    net.upper.forget();
    let artifact = ArtifactHash::of(&echo);
    let host = &net.node.host;
    fs::write(host.objects.path(&artifact), guests::says("evil")).unwrap();
    host.executors.forget(artifact.as_bytes());
    let fault = net.caller.call(call(first.function()), b"").await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::NoLiveHost);
    assert!(fault.message.contains("damaged"), "{fault}");
    net.upper.hears_ready(first.function(), 1).await;
    let done = net.caller.call(call(first.function()), b"good").await.unwrap();
    assert_eq!(done.text(), "good");
    assert!(
        net.folder
            .path()
            .join("objects/damaged")
            .join(artifact.to_string())
            .exists()
    );
    assert!(host.load.failure_permille() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_says_no_is_told_with_its_rule() {
    let net = Net::with(|config| config.deny = vec![owner(7).id()]).await;
    let echo = guests::echo();
    let denied = manifest(&owner(7), "echo", 1, &echo);
    net.upper.assign(&denied, &echo);
    let refused = |m: &HostMessage| matches!(m, HostMessage::Refused(r) if r.reason.contains("denied"));
    net.upper.hears(refused).await;
    assert!(net.upper.shared.fetches.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_sandbox_does_not_take_is_refused_for_good() {
    let net = Net::start().await;
    let wasm = wat::parse_str(
        r#"(module (import "env" "launch_missiles" (func)) (memory (export "memory") 1) (func (export "_start")))"#,
    )
    .unwrap();
    let unfit = manifest(&owner(1), "f", 1, &wasm);
    net.upper.assign(&unfit, &wasm);
    let refused =
        |m: &HostMessage| matches!(m, HostMessage::Refused(r) if r.reason.contains("launch_missiles"));
    net.upper.hears(refused).await;
    patiently(async {
        while net.node.host.objects.contains(&ArtifactHash::of(&wasm)) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_says_what_it_would_do() {
    let net = Net::with(|config| config.dry_run = true).await;
    let echo = guests::echo();
    net.upper.assign(&manifest(&owner(1), "echo", 1, &echo), &echo);
    let refused =
        |m: &HostMessage| matches!(m, HostMessage::Refused(r) if r.reason.contains("would be seeded"));
    net.upper.hears(refused).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_it_answers_once_it_knows_what_changed() {
    let net = Net::start().await;
    let (echo, says) = (guests::echo(), guests::says("kept"));
    let kept = manifest(&owner(1), "kept", 1, &says);
    let ended = manifest(&owner(1), "ended", 1, &echo);
    net.seed(&kept, &says).await;
    net.seed(&ended, &echo).await;
    let Net {
        folder, upper, node, ..
    } = net;
    let id = node.id();
    node.drain().await.unwrap();

    // One of them ends while it is away.
    *upper.shared.keep_unsynced.lock().unwrap() = true;
    upper.forget();
    let fetches = upper.shared.fetches.lock().unwrap().len();
    let node = Node::start(config(folder.path(), &[&upper])).await.unwrap();
    assert_eq!(node.id(), id);
    upper.hears_ready(kept.function(), 1).await;
    upper.hears_holdings().await;
    let caller = Caller::connect(3, &upper, id).await;
    for function in [kept.function(), ended.function()] {
        let fault = caller.call(call(function), b"").await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::NoLiveHost);
    }
    upper.tell(&Super::changed(&tombstone(&owner(1), "ended", 2)));
    upper.tell(&orb_protocol::wire::control::Synced::default().into());
    upper
        .hears(|m| matches!(m, HostMessage::Dropped(d) if d.function == ended.function()))
        .await;
    patiently(async {
        while node.host.replicas.answer(&kept.function(), kept.version())
            == orb_protocol::holder::Answer::CutOff
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let done = caller.call(call(kept.function()), b"").await.unwrap();
    assert_eq!(done.text(), "kept");
    let fault = caller.call(call(ended.function()), b"").await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Decommissioned);
    // Nothing had to be fetched for it.
    assert_eq!(upper.shared.fetches.lock().unwrap().len(), fetches);

    // A tombstone outlives the next restart as well.
    node.drain().await.unwrap();
    let node = Node::start(config(folder.path(), &[&upper])).await.unwrap();
    let answer = node.host.replicas.answer(&ended.function(), ended.version());
    assert_eq!(answer, orb_protocol::holder::Answer::Decommissioned);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_artifact_that_was_damaged_while_it_was_away_is_fetched_again() {
    let net = Net::start().await;
    let echo = guests::echo();
    let first = manifest(&owner(1), "echo", 1, &echo);
    net.seed(&first, &echo).await;
    let Net {
        folder, upper, node, ..
    } = net;
    let path = node.host.objects.path(&ArtifactHash::of(&echo));
    node.drain().await.unwrap();
    fs::write(path, guests::says("evil")).unwrap();
    upper.forget();
    let node = Node::start(config(folder.path(), &[&upper])).await.unwrap();
    upper.hears_ready(first.function(), 1).await;
    let caller = Caller::connect(3, &upper, node.id()).await;
    let done = caller.call(call(first.function()), b"good").await.unwrap();
    assert_eq!(done.text(), "good");
    assert_eq!(upper.shared.fetches.lock().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_changed_policy_forbids_is_dropped_at_the_next_start() {
    let net = Net::start().await;
    let echo = guests::echo();
    let first = revision(&owner(1), "echo", 1, Action::Publish(publish(&echo)));
    net.seed(&first, &echo).await;
    let Net {
        folder, upper, node, ..
    } = net;
    node.drain().await.unwrap();
    let mut config = config(folder.path(), &[&upper]);
    config.deny = vec![owner(1).id()];
    let node = Node::start(config).await.unwrap();
    assert!(!node.host.objects.contains(&ArtifactHash::of(&echo)));
    let answer = node.host.replicas.answer(&first.function(), first.version());
    assert_eq!(answer, orb_protocol::holder::Answer::NotHeld);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_super_node_is_connected_again_and_told_everything() {
    let net = Net::start().await;
    let echo = guests::echo();
    let first = manifest(&owner(1), "echo", 1, &echo);
    net.seed(&first, &echo).await;
    net.upper.forget();
    // As if it had lost the connection.
    let sources = Arc::clone(&net.node.host.sources);
    sources.close_all();
    let held = |m: &HostMessage| matches!(m, HostMessage::Holding(page) if page.replicas.iter().any(|held| held.ready && held.function == first.function()));
    net.upper.hears(held).await;
    let caller = Caller::connect(5, &net.upper, net.node.id()).await;
    let done = caller.call(call(first.function()), b"back").await.unwrap();
    assert_eq!(done.text(), "back");
}
