//! Streamed calls.

use bytes::{Bytes, BytesMut};

use super::*;
use crate::client::CallOutput;
use crate::fault::FaultKind;

/// More than the queues and windows on the way hold.
const LONG: usize = 8 << 20;

async fn rest(output: &mut CallOutput) -> Bytes {
    let mut all = BytesMut::new();
    while let Some(bytes) = output.next().await.unwrap() {
        all.extend_from_slice(&bytes);
    }
    all.freeze()
}

fn stream(network: &Network) -> super::super::CallStream {
    network.client.call_stream(function(), CallOptions::default())
}

#[tokio::test]
async fn input_and_answer_flow_at_the_same_time() {
    let network = network(false, [vec![Act::Echo]]).await;
    let mut call = stream(&network);
    for word in ["one", "two"] {
        assert!(call.input.write(Bytes::from_static(word.as_bytes())).await);
        assert_eq!(
            call.output.next().await.unwrap().unwrap(),
            word,
            "before the input ends"
        );
    }
    call.input.finish().await;
    assert_eq!(call.output.next().await.unwrap(), None);
    assert_eq!(call.output.report().unwrap().host, network.hosts[0].id());
    assert_eq!(call.output.next().await.unwrap(), None, "again and again");
}

#[tokio::test]
async fn a_long_stream_comes_whole() {
    let network = network(false, [vec![Act::Echo]]).await;
    let mut call = stream(&network);
    let input = Bytes::from((0..LONG).map(|i| (i % 251) as u8).collect::<Vec<_>>());
    let mut sink = call.input;
    let sent = input.clone();
    let writer = tokio::spawn(async move {
        assert!(sink.write(sent).await);
        sink.finish().await;
    });
    assert_eq!(rest(&mut call.output).await, input);
    writer.await.unwrap();
}

#[tokio::test]
async fn the_first_chunk_is_kept_until_a_host_has_started() {
    let refuse = vec![Act::Refuse(FaultKind::Overloaded)];
    let network = network(false, [refuse, vec![Act::Echo]]).await;
    let mut call = stream(&network);
    let input = Bytes::from(vec![b'x'; 200 << 10]);
    assert!(call.input.write(input.clone()).await);
    call.input.finish().await;
    assert_eq!(rest(&mut call.output).await, input);
    assert_eq!(call.output.report().unwrap().attempts, 2);
}

#[tokio::test]
async fn a_short_stream_of_an_idempotent_call_runs_again() {
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
    let mut call = stream(&network);
    assert!(call.input.write(Bytes::from_static(b"short")).await);
    call.input.finish().await;
    assert_eq!(rest(&mut call.output).await, "2:short");
}

#[tokio::test]
async fn a_long_stream_does_not_run_again() {
    let network = network(true, [vec![Act::EchoThenLose], vec![]]).await;
    let mut call = stream(&network);
    let mut sink = call.input;
    tokio::spawn(async move {
        sink.write(Bytes::from(vec![0; 200 << 10])).await;
        sink.finish().await;
    });
    let error = loop {
        match call.output.next().await {
            Ok(part) => assert!(part.is_some(), "it has no end"),
            Err(error) => break error,
        }
    };
    assert_eq!((error.kind(), error.may_have_run), (FaultKind::HostLost, true));
    assert_eq!(network.calls(), [1, 0]);
}

#[tokio::test]
async fn dropping_the_answer_cancels_the_call() {
    let network = network(false, [vec![Act::Hang]]).await;
    let mut call = stream(&network);
    assert!(call.input.write(Bytes::from_static(b"in")).await);
    network.hosts[0].started().await;
    drop(call.output);
    network.hosts[0].cancelled().await;
}

#[tokio::test]
async fn dropping_the_input_unfinished_cancels_the_call() {
    let network = network(false, [vec![Act::Hang]]).await;
    let mut call = stream(&network);
    assert!(call.input.write(Bytes::from_static(b"in")).await);
    network.hosts[0].started().await;
    drop(call.input);
    assert_eq!(
        call.output.next().await.unwrap_err().kind(),
        FaultKind::InputInvalid
    );
    network.hosts[0].cancelled().await;
}
