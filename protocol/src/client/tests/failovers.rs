//! Calls that go on at another host, and calls that may not.

use std::time::Duration;

use super::*;
use crate::fault::FaultKind;
use crate::id::NodeId;

#[tokio::test]
async fn what_did_not_start_goes_to_the_next_host() {
    for kind in [
        FaultKind::Overloaded,
        FaultKind::NoLiveHost,
        FaultKind::NotFound,
        FaultKind::Internal,
    ] {
        let network = network(false, [vec![Act::Refuse(kind)], vec![]]).await;
        let answer = network.call().await.unwrap();
        assert_eq!(answer.output, "2:in", "{kind:?}");
        assert_eq!(answer.report.attempts, 2);
        assert_eq!(network.calls(), [1, 1]);
    }
}

#[tokio::test]
async fn what_is_refused_is_refused() {
    let network = network(true, [vec![Act::Refuse(FaultKind::Refused)], vec![]]).await;
    let error = network.call().await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_run), (FaultKind::Refused, false));
    assert_eq!(network.calls(), [1, 0]);
}

#[tokio::test]
async fn a_host_that_is_not_there_is_passed_over() {
    let network = network(false, [vec![]]).await;
    let ghost = NodeId::from_bytes([66; 32]);
    network
        .super_node
        .state()
        .ready
        .get_mut(&function())
        .unwrap()
        .insert(0, ghost);
    let answer = network.call().await.unwrap();
    assert_eq!(
        (answer.output.as_ref(), answer.report.attempts),
        (b"1:in".as_slice(), 2)
    );
}

#[tokio::test]
async fn hosts_that_are_all_overloaded_are_called_overloaded() {
    let acts = || vec![Act::Refuse(FaultKind::Overloaded)];
    let network = network(true, [acts(), acts()]).await;
    let error = network.call().await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_run), (FaultKind::Overloaded, false));
    assert_eq!(error.attempts.len(), 2);
    assert_eq!(network.calls(), [1, 1], "nobody is asked twice");
}

#[tokio::test]
async fn hosts_that_are_all_overloaded_are_asked_again_when_they_said() {
    let network = network(
        false,
        [vec![Act::Away(20), Act::Away(20)], vec![Act::Away(60_000)]],
    )
    .await;
    let answer = network.call().await.unwrap();
    assert_eq!(
        answer.output, "2:in",
        "both are asked again when the first has room"
    );
    assert_eq!((answer.report.attempts, network.calls()), (4, vec![2, 2]));
}

#[tokio::test]
async fn an_overloaded_host_is_not_waited_for_where_another_one_answers() {
    let network = network(false, [vec![Act::Away(60_000)], vec![]]).await;
    assert_eq!(network.call().await.unwrap().output, "2:in");
}

#[tokio::test]
async fn nobody_waits_beyond_the_deadline_or_if_told_not_to() {
    let given_up = |options: CallOptions| async move {
        let network = network(false, [vec![Act::Away(20_000)]]).await;
        let call = network.client.call(function(), Bytes::new(), options);
        let error = call.await.unwrap_err();
        assert_eq!((error.kind(), error.may_have_run), (FaultKind::Overloaded, false));
        assert_eq!(error.fault.retry_after_ms, Some(20_000));
        assert_eq!(network.calls(), [1]);
    };
    given_up(CallOptions {
        timeout: Duration::from_secs(19),
        ..CallOptions::default()
    })
    .await;
    given_up(CallOptions {
        overload_retries: 0,
        ..CallOptions::default()
    })
    .await;
}

#[tokio::test]
async fn a_host_that_is_always_overloaded_is_not_asked_for_ever() {
    let network = network(false, [vec![Act::Away(1); 100]]).await;
    for calls in [4, 8, 12, 14, 15] {
        assert_eq!(network.call().await.unwrap_err().kind(), FaultKind::Overloaded);
        assert_eq!(network.calls(), [calls]);
    }
}

#[tokio::test]
async fn hosts_that_are_all_gone_are_no_live_hosts() {
    let network = network::<0>(false, []).await;
    for seed in [61, 62] {
        network
            .super_node
            .ready(function(), NodeId::from_bytes([seed; 32]));
    }
    let error = network.call().await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_run), (FaultKind::NoLiveHost, false));
    assert_eq!(error.attempts.len(), 4, "each is tried again after asking anew");
}

#[tokio::test]
async fn a_lost_connection_is_made_again_and_the_call_attached_to() {
    for started in [true, false] {
        let network = network(false, [vec![Act::Lose { started, kept: true }], vec![]]).await;
        let answer = network.call().await.unwrap();
        assert_eq!(answer.output, "1:in");
        assert_eq!(network.calls(), [1, 0], "it ran once");
        assert_eq!(network.hosts[0].seen().attaches, 1);
    }
}

#[tokio::test]
async fn a_call_that_its_host_does_not_know_any_more_does_not_run_twice() {
    for started in [true, false] {
        let network = network(false, [vec![Act::Lose { started, kept: false }], vec![]]).await;
        let error = network.call().await.unwrap_err();
        assert_eq!((error.kind(), error.may_have_run), (FaultKind::HostLost, true));
        assert_eq!(network.calls(), [1, 0]);
        assert_eq!(network.hosts[0].seen().attaches, 1, "it has said all that it can");
    }
}

#[tokio::test]
async fn a_host_that_answers_nonsense_may_have_run_the_call() {
    let once = network(false, [vec![Act::Babble], vec![]]).await;
    let error = once.call().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.may_have_run),
        (FaultKind::VersionMismatch, true)
    );
    assert_eq!(once.calls(), [1, 0]);
    let again = network(true, [vec![Act::Babble], vec![]]).await;
    assert_eq!(again.call().await.unwrap().output, "2:in");
}

#[tokio::test]
async fn a_started_call_that_is_lost_runs_again_if_it_is_idempotent() {
    let network = network(
        true,
        [
            vec![Act::Lose {
                started: true,
                kept: false,
            }],
            vec![],
        ],
    )
    .await;
    let answer = network.call().await.unwrap();
    assert_eq!(
        (answer.output.as_ref(), answer.report.attempts),
        (b"2:in".as_slice(), 2)
    );
}

#[tokio::test]
async fn a_host_that_fails_a_started_call_is_replaced_only_if_it_is_idempotent() {
    let acts = || [vec![Act::Fail(FaultKind::Internal)], vec![]];
    let once = network(false, acts()).await;
    assert_eq!(once.call().await.unwrap_err().kind(), FaultKind::Internal);
    assert_eq!(once.calls(), [1, 0]);
    let again = network(true, acts()).await;
    assert_eq!(again.call().await.unwrap().output, "2:in");
}

#[tokio::test]
async fn a_killed_host_is_noticed_before_a_call_is_sent_that_may_run_once() {
    let network = network(false, [vec![], vec![]]).await;
    assert_eq!(network.call().await.unwrap().output, "1:in");
    network.hosts[0].freeze();
    // Longer than a host is believed to live without proof.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(network.call().await.unwrap().output, "2:in");
    assert_eq!(network.calls(), [1, 1], "nothing was sent that may have run");
}

#[tokio::test]
async fn a_killed_host_is_passed_over_at_once_by_a_call_that_may_run_twice() {
    let network = network(true, [vec![], vec![]]).await;
    assert_eq!(network.call().await.unwrap().output, "1:in");
    network.hosts[0].freeze();
    let answer = network.call().await.unwrap();
    assert_eq!(
        (answer.output.as_ref(), answer.report.attempts),
        (b"2:in".as_slice(), 2)
    );
}

#[tokio::test]
async fn a_host_that_is_killed_during_a_call_is_noticed() {
    let once = network(false, [vec![Act::Freeze { started: true }], vec![]]).await;
    let again = network(true, [vec![Act::Freeze { started: true }], vec![]]).await;
    let unsure = network(false, [vec![Act::Freeze { started: false }], vec![]]).await;
    let (once_result, again_result, unsure_result) = tokio::join!(once.call(), again.call(), unsure.call());
    assert_eq!(once_result.unwrap_err().kind(), FaultKind::HostLost);
    assert_eq!(once.calls(), [1, 0]);
    assert_eq!(again_result.unwrap().output, "2:in");
    assert_eq!(unsure_result.unwrap_err().kind(), FaultKind::HostLost);
    assert_eq!(unsure.calls(), [1, 0]);
}

#[tokio::test]
async fn a_long_call_lives_on_though_nothing_is_said() {
    let network = network(false, [vec![Act::Hang]]).await;
    let options = CallOptions {
        timeout: Duration::from_secs(5),
        ..CallOptions::default()
    };
    let error = network
        .client
        .call(function(), Bytes::new(), options)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), FaultKind::DeadlineExceeded, "not taken to be lost");
    assert_eq!(network.hosts[0].seen().attaches, 0);
}
