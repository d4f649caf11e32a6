//! Calls: attached to, cancelled, repeated, visible to some only, with inputs of all sorts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use orb_protocol::fault::FaultKind;
use orb_protocol::manifest::{Action, Visibility};
use orb_protocol::quic::body::BodyWriter;
use orb_protocol::wire::call::{Call, Credential, HOPS_MAX};

use super::guests;
use super::network::{Caller, Net, call, patiently};
use crate::node::testing::{manifest, owner, publish, revision};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_lost_connection_the_caller_attaches_and_gets_all_of_it() {
    let mut net = Net::start().await;
    let slow = guests::slow(500);
    let first = manifest(&owner(1), "slow", 1, &slow);
    net.seed(&first, &slow).await;
    let call = call(first.function());
    let request = call.request;
    let mut running = net.caller.begin(call, b"").await;
    running.started().await.unwrap();
    // As a client does that hears nothing any more.
    net.caller.host.close(2, "silent");
    net.caller.reconnect().await;
    let done = net.caller.attach(request).await.done().await.unwrap();
    assert_eq!(done.text(), "before after");
    // And once more after it has ended, unless the host has seen it arrive.
    net.until_idle().await;
    patiently(async {
        while net.node.host.requests.finished() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let gone = net.caller.attach(request).await.done().await.unwrap_err();
    assert_eq!(gone.kind, FaultKind::HostLost);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_that_nobody_took_is_kept() {
    let mut net = Net::start().await;
    let slow = guests::slow(200);
    let first = manifest(&owner(1), "slow", 1, &slow);
    net.seed(&first, &slow).await;
    let call = call(first.function());
    let request = call.request;
    let mut running = net.caller.begin(call, b"").await;
    running.started().await.unwrap();
    net.caller.host.close(2, "silent");
    net.until_idle().await;
    assert_eq!(net.node.host.requests.finished(), 1);
    net.caller.reconnect().await;
    let done = net.caller.attach(request).await.done().await.unwrap();
    assert_eq!(done.text(), "before after");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_can_attach() {
    let net = Net::start().await;
    let slow = guests::slow(300);
    let first = manifest(&owner(1), "slow", 1, &slow);
    net.seed(&first, &slow).await;
    let call = call(first.function());
    let request = call.request;
    let running = net.caller.begin(call, b"").await;
    let other = Caller::connect(9, &net.upper, net.node.id()).await;
    let fault = other.attach(request).await.done().await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::HostLost);
    assert_eq!(running.done().await.unwrap().text(), "before after");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_call_twice_runs_once() {
    let net = Net::start().await;
    let slow = guests::slow(300);
    let first = manifest(&owner(1), "slow", 1, &slow);
    net.seed(&first, &slow).await;
    let call = call(first.function());
    let mut once = net.caller.begin(call.clone(), b"").await;
    once.started().await.unwrap();
    let again = net.caller.begin(call, b"").await;
    assert_eq!(net.node.host.requests.running(), 1);
    assert_eq!(again.done().await.unwrap().text(), "before after");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_gives_up_ends_the_guest() {
    let net = Net::start().await;
    let endless = guests::endless();
    let first = manifest(&owner(1), "endless", 1, &endless);
    net.seed(&first, &endless).await;
    let mut running = net.caller.begin(call(first.function()), b"").await;
    running.started().await.unwrap();
    running.recv.stop(1u32.into()).unwrap();
    net.until_idle().await;

    // One that closes its connection because it is done.
    let mut running = net.caller.begin(call(first.function()), b"").await;
    running.started().await.unwrap();
    net.caller.host.close(0, "done");
    net.until_idle().await;
    patiently(async {
        while net.node.host.queue.running() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_gives_up_its_input_ends_the_guest() {
    let net = Net::start().await;
    let echo = guests::echo();
    let first = manifest(&owner(1), "echo", 1, &echo);
    net.seed(&first, &echo).await;
    let mut running = net.caller.open(call(first.function()).into()).await;
    let mut body = BodyWriter::new(&mut running.send);
    body.write(Bytes::from_static(b"half an inp")).await.unwrap();
    running.started().await.unwrap();
    running.send.reset(1u32.into()).unwrap();
    let (_, trailer) = running.rest().await;
    let fault = trailer.fault.unwrap();
    assert_eq!(fault.kind, FaultKind::InputInvalid);
    net.until_idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_function_is_stopped_and_the_next_call_is_unharmed() {
    let net = Net::start().await;
    let (endless, echo) = (guests::endless(), guests::echo());
    let mut content = publish(&endless);
    content.limits.fuel = 50_000_000;
    let runaway = revision(&owner(1), "endless", 1, Action::Publish(content));
    let well = manifest(&owner(1), "echo", 1, &echo);
    net.seed(&runaway, &endless).await;
    net.seed(&well, &echo).await;
    let done = net.caller.call(call(runaway.function()), b"").await.unwrap();
    let fault = done.trailer.fault.unwrap();
    assert_eq!(fault.kind, FaultKind::FuelExhausted);
    assert!(fault.message.contains("50000000"), "{fault}");
    assert_eq!(done.output, b"before ");
    let done = net.caller.call(call(well.function()), b"well").await.unwrap();
    assert_eq!(done.text(), "well");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_callers_deadline_ends_the_guest() {
    let net = Net::start().await;
    let slow = guests::slow(60_000);
    let first = manifest(&owner(1), "slow", 1, &slow);
    net.seed(&first, &slow).await;
    let short = Call {
        remaining_us: 100_000,
        ..call(first.function())
    };
    let done = net.caller.call(short, b"").await.unwrap();
    assert_eq!(done.trailer.fault.unwrap().kind, FaultKind::DeadlineExceeded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inputs_and_answers_of_every_length_come_through() {
    let net = Net::start().await;
    let echo = guests::echo();
    let first = manifest(&owner(1), "echo", 1, &echo);
    net.seed(&first, &echo).await;
    for len in [0, 1, 65_535, 65_536, 65_537, 3 << 20] {
        let input: Vec<u8> = (0..len).map(|i: usize| (i % 251) as u8).collect();
        let done = net.caller.call(call(first.function()), &input).await.unwrap();
        assert_eq!(done.trailer.fault, None);
        assert!(done.output == input, "{len} bytes");
    }
    // The length is not known, and the parts come one by one.
    let mut running = net.caller.open(call(first.function()).into()).await;
    running.started().await.unwrap();
    let mut body = BodyWriter::new(&mut running.send);
    for part in ["one ", "two ", "three"] {
        body.write(part.into()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    body.finish().await.unwrap();
    let (output, trailer) = running.rest().await;
    assert_eq!(
        (output.as_slice(), trailer.fault),
        (b"one two three".as_slice(), None)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_over_the_limit_is_refused_before_or_as_it_grows() {
    let net = Net::start().await;
    let echo = guests::echo();
    let mut content = publish(&echo);
    content.limits.input_bytes = 100_000;
    let first = revision(&owner(1), "echo", 1, Action::Publish(content));
    net.seed(&first, &echo).await;
    let fault = net
        .caller
        .call(call(first.function()), &[0; 100_001])
        .await
        .unwrap_err();
    assert_eq!(fault.kind, FaultKind::InputTooLarge);
    assert!(fault.message.contains("100000"), "{fault}");

    let mut running = net.caller.open(call(first.function()).into()).await;
    running.started().await.unwrap();
    let mut body = BodyWriter::new(&mut running.send);
    // The host may have had enough before all of it is sent.
    let _ = body.write(vec![0; 200_000].into()).await;
    let (_, trailer) = running.rest().await;
    assert_eq!(trailer.fault.unwrap().kind, FaultKind::InputTooLarge);

    // More than was announced, and less.
    for (announced, sent) in [(10, 20), (20, 10)] {
        let announcing = Call {
            input_len: Some(announced),
            ..call(first.function())
        };
        let mut running = net.caller.open(announcing.into()).await;
        let mut body = BodyWriter::new(&mut running.send);
        let _ = body.write(vec![0; sent].into()).await;
        let _ = body.finish().await;
        let fault = running.started().await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::InputInvalid);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_that_is_not_public_asks_for_a_key_that_is_listed() {
    let net = Net::start().await;
    let echo = guests::echo();
    let mut content = publish(&echo);
    content.visibility = Visibility {
        callers: Some(vec![owner(2).id()]),
    };
    let first = revision(&owner(1), "echo", 1, Action::Publish(content));
    net.seed(&first, &echo).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let in_a_minute = u64::try_from(now).unwrap() + 60_000;
    let me = net.caller.endpoint.node_id();
    let with = |credential| Call {
        credential,
        ..call(first.function())
    };
    for (credential, says) in [
        (None, "does not say on whose behalf"),
        (
            Some(Credential::sign(&owner(3), &me, in_a_minute)),
            "not on its list",
        ),
        (Some(Credential::sign(&owner(2), &me, 1)), "expired"),
        (
            Some(Credential::sign(&owner(2), &net.node.id(), in_a_minute)),
            "another node's",
        ),
    ] {
        let fault = net.caller.call(with(credential), b"").await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Refused);
        assert!(fault.message.contains(says), "{fault}");
    }
    for key in [owner(1), owner(2)] {
        let credential = Credential::sign(&key, &me, in_a_minute);
        let done = net.caller.call(with(Some(credential)), b"let in").await.unwrap();
        assert_eq!(done.text(), "let in");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_goes_in_circles_is_refused() {
    let net = Net::start().await;
    let echo = guests::echo();
    let first = manifest(&owner(1), "echo", 1, &echo);
    net.seed(&first, &echo).await;
    let hops = |hops| Call {
        hops,
        ..call(first.function())
    };
    net.caller.call(hops(HOPS_MAX), b"").await.unwrap();
    let fault = net.caller.call(hops(HOPS_MAX + 1), b"").await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Refused);
}
