//! More than a host can take: calls, callers, garbage; and its end.

use orb_protocol::fault::{Fault, FaultKind};
use orb_protocol::id::FunctionId;
use orb_protocol::quic::frames::read_message;
use orb_protocol::wire::codec::MESSAGE_LEN_MAX;
use orb_protocol::wire::control::HostMessage;
use orb_protocol::wire::directory::Fetch;
use orb_protocol::wire::extension::Extensions;
use orb_protocol::wire::tagged::Tagged;
use orb_protocol::wire::{Info, NodeInfo, Reply, Request};

use super::guests;
use super::network::{Caller, Net, call, patiently};
use crate::node::testing::{manifest, owner};

async fn seeded(wasm: &[u8], capacity: u32, queue_max: u32) -> (Net, FunctionId) {
    let net = Net::with(|config| (config.capacity, config.queue_max) = (capacity, queue_max)).await;
    let first = manifest(&owner(1), "f", 1, wasm);
    net.seed(&first, wasm).await;
    (net, first.function())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_capacity_and_queue_a_call_is_turned_away() {
    let (net, function) = seeded(&guests::slow(500), 1, 1).await;
    let mut running = net.caller.begin(call(function), b"").await;
    running.started().await.unwrap();
    let waiting = net.caller.begin(call(function), b"").await;
    patiently(async {
        while net.node.host.queue.waiting() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let fault = net.caller.call(call(function), b"").await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Overloaded);
    assert!(fault.retry_after_ms.unwrap() > 0);
    // Those who were let in get their answers.
    assert_eq!(running.rest().await.0, b"before after");
    let done = waiting.done().await.unwrap();
    assert_eq!(done.text(), "before after");
    assert!(done.trailer.queued_us > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_that_passes_in_the_queue_is_told_as_not_started() {
    let (net, function) = seeded(&guests::slow(1_000), 1, 4).await;
    let mut running = net.caller.begin(call(function), b"").await;
    running.started().await.unwrap();
    let mut hurried = call(function);
    hurried.remaining_us = 50_000;
    let fault = net.caller.call(hurried, b"").await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::DeadlineExceeded);
    assert_eq!(running.rest().await.0, b"before after");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_drains_takes_no_calls_and_ends_the_running_ones() {
    let (net, function) = seeded(&guests::slow(700), 4, 4).await;
    let mut running = net.caller.begin(call(function), b"").await;
    running.started().await.unwrap();
    let Net {
        upper,
        node,
        caller,
        folder,
    } = net;
    let drained = tokio::spawn(node.drain());
    upper.hears(|m| matches!(m, HostMessage::Draining(_))).await;
    let fault = caller.call(call(function), b"").await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Overloaded);
    assert!(fault.message.contains("draining"), "{fault}");
    let (output, trailer) = running.rest().await;
    assert_eq!(
        (output.as_slice(), trailer.fault),
        (b"before after".as_slice(), None)
    );
    patiently(drained).await.unwrap().unwrap();
    // A clean end: the lock file is empty.
    assert_eq!(std::fs::read(folder.path().join("lock")).unwrap(), b"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn endless_functions_keep_nobody_from_being_heard() {
    // One turn is left to calls that are known to be short, and one to other callers.
    let (net, function) = seeded(&guests::endless(), 10, 0).await;
    let mut endless = Vec::new();
    for _ in 0..8 {
        let mut running = net.caller.begin(call(function), b"").await;
        running.started().await.unwrap();
        endless.push(running);
    }
    net.upper.forget();
    // Heart-beats come, and questions are answered, while all guests spin.
    net.upper
        .hears(|m| matches!(m, HostMessage::Beat(beat) if beat.running == 8))
        .await;
    let info: NodeInfo = ask(&net.caller, Info::default().into()).await.unwrap();
    assert_eq!(info.role, "node");
    for mut running in endless {
        running.recv.stop(1u32.into()).unwrap();
    }
    net.until_idle().await;
}

async fn ask<T: serde::de::DeserializeOwned>(caller: &Caller, request: Request) -> Result<T, Fault> {
    let mut exchange = caller.open(request).await;
    let reply = read_message::<Reply>(&mut exchange.recv, MESSAGE_LEN_MAX);
    patiently(reply).await.unwrap().into_result()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_peer_sends_others_are_unharmed() {
    let (net, function) = seeded(&guests::echo(), 4, 4).await;
    let mallory = Caller::connect(66, &net.upper, net.node.id()).await;
    let garbage: [&[u8]; 6] = [
        b"",
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x00",
        b"\x10\x00\x00\x00half",
        b"GET / HTTP/1.1\r\n\r\n",
        &[0x41; 5_000],
    ];
    let mut open = Vec::new();
    for bytes in garbage {
        for finish in [true, false] {
            let (mut send, recv) = mallory.host.open_bi().await.unwrap();
            // The host may have had enough of it already.
            let _ = send.write_all(bytes).await;
            if finish {
                let _ = send.finish();
            }
            open.push((send, recv));
        }
    }
    // Calls whose input never comes, and one whose answer is never read.
    for _ in 0..3 {
        open.push({
            let exchange = mallory.open(call(function).into()).await;
            (exchange.send, exchange.recv)
        });
    }
    let done = net.caller.call(call(function), b"unharmed").await.unwrap();
    assert_eq!(done.text(), "unharmed");
    let fault = ask::<NodeInfo>(
        &mallory,
        Request::Unknown(Tagged {
            tag: 999,
            payload: vec![1],
        }),
    )
    .await;
    assert_eq!(fault.unwrap_err().kind, FaultKind::VersionMismatch);
    let fault = ask::<NodeInfo>(
        &mallory,
        orb_protocol::wire::relay::OpenRelay {
            target: net.node.id(),
            extensions: Extensions::none(),
        }
        .into(),
    )
    .await;
    assert_eq!(fault.unwrap_err().kind, FaultKind::Refused);
    drop(open);
    net.until_idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_does_not_read_holds_up_nobody() {
    let (net, function) = seeded(&guests::flood(4), 1, 4).await;
    let lazy = Caller::connect(67, &net.upper, net.node.id()).await;
    let unread = lazy.begin(call(function), b"").await;
    // The guest is done with it, whether its caller reads or not, and the next one runs.
    let done = net.caller.call(call(function), b"").await.unwrap();
    assert_eq!(done.output.len(), 4 << 20);
    drop(unread);
    net.until_idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callers_third_connection_takes_the_place_of_its_first() {
    let (net, function) = seeded(&guests::echo(), 4, 4).await;
    let mut callers = vec![net.caller];
    for _ in 0..2 {
        let (endpoint, via) = (callers[0].endpoint.clone(), callers[0].via.clone());
        let host = endpoint.connect_relayed(net.node.id(), &via).await.unwrap();
        callers.push(Caller { endpoint, via, host });
    }
    let done = callers[2].call(call(function), b"third").await.unwrap();
    assert_eq!(done.text(), "third");
    patiently(callers[0].host.closed()).await;
    let done = callers[1].call(call(function), b"second").await.unwrap();
    assert_eq!(done.text(), "second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn artifacts_are_given_to_whoever_knows_their_hash() {
    let echo = guests::echo();
    let (net, _) = seeded(&echo, 4, 4).await;
    let fetch = |artifact, offset| Fetch {
        artifact,
        offset,
        extensions: Extensions::none(),
    };
    let artifact = orb_protocol::id::ArtifactHash::of(&echo);
    let mut exchange = net.caller.open(fetch(artifact, 10).into()).await;
    let reply: Reply = patiently(read_message(&mut exchange.recv, MESSAGE_LEN_MAX))
        .await
        .unwrap();
    let fetched: orb_protocol::wire::directory::Fetched = reply.into_result().unwrap();
    assert_eq!(fetched.len, echo.len() as u64);
    let mut body = orb_protocol::quic::body::BodyReader::new(&mut exchange.recv, 1 << 20);
    assert_eq!(patiently(body.read_all()).await.unwrap(), echo[10..]);
    for (artifact, offset, kind) in [
        (artifact, u64::MAX, FaultKind::InputInvalid),
        (orb_protocol::id::ArtifactHash::of(b"?"), 0, FaultKind::NotFound),
    ] {
        let fault =
            ask::<orb_protocol::wire::directory::Fetched>(&net.caller, fetch(artifact, offset).into());
        assert_eq!(fault.await.unwrap_err().kind, kind);
    }
}
