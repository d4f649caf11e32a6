//! Calls that one host answers, or that nobody can answer.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::fault::FaultKind;
use crate::manifest::{Decommission, Kind, Publish, Version};

#[tokio::test]
async fn a_call_is_answered_and_reported() {
    let network = network(false, [vec![]]).await;
    let answer = network.call().await.unwrap();
    assert_eq!(answer.output, "1:in");
    let report = answer.report;
    assert_eq!(report.host, network.hosts[0].id());
    assert_eq!(
        report.version,
        Version {
            generation: 0,
            revision: 1
        }
    );
    assert_eq!((report.path.as_str(), report.attempts), ("relay", 1));
    assert_eq!((report.fuel, report.memory_peak_bytes), (1_000, 65_536));
    assert_eq!(report.times.compile, Duration::from_micros(3));
    assert_eq!(report.content_type, "text/plain");
    assert!(report.times.total >= report.times.connect + report.times.resolve);
}

#[tokio::test]
async fn calls_in_a_row_and_at_once_share_a_connection_and_a_resolve() {
    let network = network(false, [vec![]]).await;
    network.call().await.unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let client = network.client.clone();
        calls.spawn(async move {
            client
                .call(function(), Bytes::new(), CallOptions::default())
                .await
        });
    }
    while let Some(answer) = calls.join_next().await {
        assert_eq!(answer.unwrap().unwrap().output, "1:");
    }
    assert_eq!(network.hosts[0].seen().connections, 1);
    assert_eq!(network.super_node.state().resolves, 1);
    assert_eq!(network.calls(), [65]);
}

#[tokio::test]
async fn first_calls_at_once_share_a_connection() {
    let network = network(false, [vec![]]).await;
    let call = || network.call();
    let (a, b, c) = tokio::join!(call(), call(), call());
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    assert_eq!(network.hosts[0].seen().connections, 1);
}

#[tokio::test]
async fn large_bodies_pass_both_ways() {
    let network = network(false, [vec![]]).await;
    let input = Bytes::from(vec![b'x'; 3 << 20]);
    let answer = network
        .client
        .call(function(), input.clone(), CallOptions::default())
        .await
        .unwrap();
    assert_eq!(answer.output.len(), input.len() + 2);

    let options = CallOptions {
        answer_bytes_max: 1_000,
        ..CallOptions::default()
    };
    let error = network.client.call(function(), input, options).await.unwrap_err();
    assert_eq!(error.kind(), FaultKind::OutputLimit);
}

#[tokio::test]
async fn json_goes_in_and_comes_out() {
    let network = network(false, [vec![Act::Echo, Act::Answer]]).await;
    let input = json!({ "name": "world" });
    let call = || {
        network
            .client
            .call_json::<_, Value>(function(), &input, CallOptions::default())
    };
    assert_eq!(call().await.unwrap().output, input);
    let error = call().await.unwrap_err();
    assert_eq!(error.kind(), FaultKind::BadOutput);
    assert!(error.report.is_some());
}

#[tokio::test]
async fn the_guests_own_fault_comes_with_its_report() {
    let network = network(true, [vec![Act::Fail(FaultKind::FuelExhausted)], vec![]]).await;
    let error = network.call().await.unwrap_err();
    assert_eq!(error.kind(), FaultKind::FuelExhausted);
    assert!(error.may_have_run);
    assert_eq!(error.report.unwrap().fuel, 1_000);
    assert_eq!(network.calls(), [1, 0], "no other host would do better");
}

#[tokio::test]
async fn an_input_that_the_function_does_not_take_is_not_sent() {
    let network = network(false, [vec![]]).await;
    let Action::Publish(base) = publish(1) else {
        unreachable!("it publishes")
    };
    let mut limits = base.limits;
    limits.input_bytes = 4;
    let publish = Publish {
        kind: Kind::JavyFunction,
        limits,
        ..base
    };
    network
        .super_node
        .publish(manifest(&owner(), "hello", 0, 2, publish.into()));

    let call = async |input: &'static [u8]| {
        let result = network
            .client
            .call(function(), Bytes::from_static(input), CallOptions::default())
            .await;
        result.unwrap_err()
    };
    assert_eq!(call(b"[1,2]").await.kind(), FaultKind::InputTooLarge);
    let error = call(b"{a}").await;
    assert_eq!(error.kind(), FaultKind::InputInvalid);
    assert!(!error.may_have_run);
    assert_eq!(network.calls(), [0]);
}

#[tokio::test]
async fn what_is_not_there_is_told_apart() {
    let network = network::<0>(false, []).await;
    let error = network.call().await.unwrap_err();
    assert!(error.to_string().ends_with("nobody is here"), "{error}");
    assert_eq!((error.kind(), error.may_have_run), (FaultKind::NoLiveHost, false));

    let nobodys = FunctionId::from_bytes([9; 32]);
    let error = network
        .client
        .call(nobodys, Bytes::new(), CallOptions::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), FaultKind::NotFound);

    network
        .super_node
        .publish(manifest(&owner(), "hello", 0, 2, Decommission::default().into()));
    assert_eq!(
        network.call().await.unwrap_err().kind(),
        FaultKind::Decommissioned
    );
}

#[tokio::test]
async fn a_dropped_call_is_cancelled_at_the_host() {
    let network = network(false, [vec![Act::Hang]]).await;
    tokio::select! {
        _ = network.call() => unreachable!("it hangs"),
        () = network.hosts[0].started() => {}
    }
    network.hosts[0].cancelled().await;
    assert_eq!(
        network.call().await.unwrap().output,
        "1:in",
        "the connection is still good"
    );
    assert_eq!(network.hosts[0].seen().connections, 1);
}

#[tokio::test]
async fn the_deadline_ends_a_call_at_both_ends() {
    let network = network(false, [vec![Act::Answer, Act::Hang]]).await;
    network.call().await.unwrap();
    let options = CallOptions {
        timeout: Duration::from_millis(500),
        ..CallOptions::default()
    };
    let error = network
        .client
        .call(function(), Bytes::new(), options)
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.may_have_run),
        (FaultKind::DeadlineExceeded, true)
    );
    network.hosts[0].cancelled().await;
    let sent = network.hosts[0].seen().calls[1].remaining_us;
    assert!(sent <= 500_000, "the host knows the deadline");
}

#[tokio::test]
async fn a_call_never_goes_back_in_revision() {
    let newer = Version {
        generation: 0,
        revision: 7,
    };
    let network = network(false, [vec![Act::AnswerAs(newer), Act::Answer]]).await;
    assert_eq!(network.call().await.unwrap().report.version, newer);
    let error = network.call().await.unwrap_err();
    assert_eq!(error.kind(), FaultKind::Unverified);
    let known: Vec<u64> = network.hosts[0]
        .seen()
        .calls
        .iter()
        .map(|call| call.known.revision)
        .collect();
    assert_eq!(known, [1, 7]);
}

#[tokio::test]
async fn a_version_that_a_host_only_claims_turns_the_caller_against_nobody() {
    let claimed = Version {
        generation: 9,
        revision: 9,
    };
    let network = network(false, [vec![Act::ClaimAs(claimed), Act::Answer]]).await;
    assert_eq!(network.call().await.unwrap().report.version, claimed);
    assert_eq!(network.super_node.state().resolves, 1);
    // The super node is asked, and has nothing to show for it: other answers are as good as before.
    assert_eq!(network.call().await.unwrap().report.version.revision, 1);
    assert_eq!(network.super_node.state().resolves, 2);
    let seen = network.hosts[0].seen();
    assert!(seen.calls.iter().all(|call| call.known.revision == 1));
}

#[tokio::test]
async fn functions_that_are_not_public_are_called_with_a_credential() {
    let network = network(false, [vec![]]).await;
    let Action::Publish(mut publish) = publish(1) else {
        unreachable!("it publishes")
    };
    publish.visibility.callers = Some(Vec::new());
    network
        .super_node
        .publish(manifest(&owner(), "hello", 0, 2, publish.into()));
    network.super_node.state().wants_credential = true;
    let client = Client::builder()
        .super_nodes(vec![network.super_node.addr()])
        .owner_key(Some(owner()))
        .connect()
        .await
        .unwrap();
    let error = network.call().await.unwrap_err();
    assert_eq!(error.kind(), FaultKind::Refused, "without an owner's key");
    // The host of this test still answers as revision 1.
    let error = client
        .call(function(), Bytes::new(), CallOptions::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), FaultKind::Unverified);
    let calls = &network.hosts[0].seen().calls;
    let credential = calls[0].credential.as_ref().unwrap();
    assert_eq!(credential.verify(&client.node_id(), 0), Ok(owner().id()));
}

#[test]
fn the_clients_futures_can_be_spawned() {
    fn is_send<T: Send>(_: &T) {}
    fn check(client: &Client) {
        is_send(&client.call(function(), Bytes::new(), CallOptions::default()));
        is_send(&client.list(None, false));
        is_send(&client.fetch_artifact(crate::id::ArtifactHash::of(b"")));
        is_send(&client.decommission(&owner(), &"hello".parse().unwrap(), String::new()));
    }
    let _ = check;
}
