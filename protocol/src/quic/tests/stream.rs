//! Messages and bodies on streams.

use std::time::Duration;

use bytes::Bytes;
use quinn::{RecvStream, SendStream};

use super::*;
use crate::quic::body::{BodyReader, BodyWriter, write_body};
use crate::quic::frames::{FrameError, read_message, read_message_within, take_end, write_message};
use crate::wire::codec::MESSAGE_LEN_MAX;

/// One message there and back.
pub(in crate::quic) async fn echo_once(near: &Connection, far: &Connection) {
    let (mut send, mut recv) = near.open_bi().await.unwrap();
    write_message(&mut send, &"ping".to_owned()).await.unwrap();
    let (mut reply, mut request) = far.accept_bi().await.unwrap();
    let text: String = read_message(&mut request, 100).await.unwrap();
    write_message(&mut reply, &text).await.unwrap();
    let text: String = read_message(&mut recv, 100).await.unwrap();
    assert_eq!(text, "ping");
}

struct Line {
    send: SendStream,
    recv: RecvStream,
    // They close when dropped.
    _ends: (Connection, Connection, Endpoint, Endpoint),
}

/// A stream from one node to another: what is written to `send` comes out of `recv`.
async fn line() -> Line {
    let (alice, bob) = (endpoint(1), endpoint(2));
    let (to_bob, to_alice) = pair(&alice, &bob).await;
    let (mut send, _) = to_bob.open_bi().await.unwrap();
    // The other side sees a stream with its first byte.
    send.write_all(b"!").await.unwrap();
    let (_, mut recv) = to_alice.accept_bi().await.unwrap();
    recv.read_exact(&mut [0]).await.unwrap();
    Line {
        send,
        recv,
        _ends: (to_bob, to_alice, alice, bob),
    }
}

#[tokio::test]
async fn messages_come_one_by_one_and_then_the_end() {
    let mut line = line().await;
    for text in ["first", "second"] {
        write_message(&mut line.send, &text.to_owned()).await.unwrap();
    }
    line.send.finish().unwrap();
    for text in ["first", "second"] {
        let read: String = read_message(&mut line.recv, 100).await.unwrap();
        assert_eq!(read, text);
    }
    let end = read_message::<String>(&mut line.recv, 100).await;
    assert!(matches!(end, Err(FrameError::Closed)));
}

/// Waits until everything that was written has been acknowledged, and so has come.
async fn has_come(send: &mut SendStream) {
    send.finish().unwrap();
    assert_eq!(send.stopped().await.unwrap(), None);
}

#[tokio::test]
async fn what_has_come_of_a_chunk_is_given_in_one_piece() {
    let mut line = line().await;
    let body: Vec<u8> = (0..100_000_u32).map(|number| number as u8).collect();
    write_body(&mut line.send, body.clone().into()).await.unwrap();
    has_come(&mut line.send).await;
    let mut reader = BodyReader::new(&mut line.recv, 1 << 20);
    let mut pieces = Vec::new();
    while let Some(piece) = reader.next_gathered().await.unwrap() {
        pieces.push(piece);
    }
    let lens: Vec<usize> = pieces.iter().map(Bytes::len).collect();
    assert_eq!(lens, [64 << 10, 100_000 - (64 << 10)]);
    assert!(pieces.concat() == body);
}

#[tokio::test]
async fn an_end_inside_a_gathered_chunk_is_truncation() {
    let mut line = line().await;
    let mut bytes = 10_000_u32.to_le_bytes().to_vec();
    bytes.extend([0; 5_000]);
    line.send.write_all(&bytes).await.unwrap();
    has_come(&mut line.send).await;
    let mut reader = BodyReader::new(&mut line.recv, 1 << 20);
    assert!(matches!(reader.next_gathered().await, Err(FrameError::Truncated)));
}

#[tokio::test]
async fn a_peer_is_asked_to_stop_only_if_the_end_was_not_taken() {
    for (end_is_taken, asked) in [(true, 0), (false, 1)] {
        let mut line = line().await;
        write_message(&mut line.send, &"all".to_owned()).await.unwrap();
        write_body(&mut line.send, Bytes::new()).await.unwrap();
        has_come(&mut line.send).await;
        let _: String = read_message(&mut line.recv, 100).await.unwrap();
        if end_is_taken {
            take_end(&mut line.recv);
        }
        drop(line.recv);
        let (near, far) = (&line._ends.0, &line._ends.1);
        echo_once(far, near).await;
        assert_eq!(far.quinn().stats().frame_tx.stop_sending, asked);
    }
}

#[tokio::test]
async fn a_giant_length_is_refused_before_any_of_it_comes() {
    let mut line = line().await;
    line.send.write_all(&u32::MAX.to_le_bytes()).await.unwrap();
    let read = read_message::<String>(&mut line.recv, usize::MAX).await;
    let limit = MESSAGE_LEN_MAX as u64;
    assert!(matches!(read, Err(FrameError::TooLong { limit: l, .. }) if l == limit));
}

#[tokio::test]
async fn an_end_inside_a_message_is_truncation() {
    for bytes in [&[5, 0][..], &[5, 0, 0, 0], &[5, 0, 0, 0, b'a', b'b']] {
        let mut line = line().await;
        line.send.write_all(bytes).await.unwrap();
        line.send.finish().unwrap();
        let read = read_message::<String>(&mut line.recv, 100).await;
        assert!(matches!(read, Err(FrameError::Truncated)), "{bytes:?}");
    }
}

#[tokio::test]
async fn what_does_not_decode_is_malformed() {
    let mut line = line().await;
    line.send
        .write_all(&[3, 0, 0, 0, 0xff, 0xff, 0xff])
        .await
        .unwrap();
    let read = read_message::<String>(&mut line.recv, 100).await;
    assert!(matches!(read, Err(FrameError::Malformed(_))));
}

#[tokio::test]
async fn a_stream_given_up_is_a_reset() {
    let mut line = line().await;
    line.send.reset(7_u32.into()).unwrap();
    let read = read_message::<String>(&mut line.recv, 100).await;
    assert!(matches!(read, Err(FrameError::Reset(7))));
}

#[tokio::test]
async fn a_lost_connection_is_named() {
    let mut line = line().await;
    line._ends.0.close(3, "enough");
    let read = read_message::<String>(&mut line.recv, 100).await;
    assert!(matches!(read, Err(FrameError::Lost(_))));
}

#[tokio::test]
async fn silence_is_a_timeout() {
    let mut line = line().await;
    let time = Duration::from_millis(20);
    let read = read_message_within::<String>(&mut line.recv, 100, time).await;
    assert!(matches!(read, Err(FrameError::TimedOut(_))));
}

#[tokio::test]
async fn a_message_that_no_peer_takes_is_not_sent() {
    let mut line = line().await;
    let long = "x".repeat(MESSAGE_LEN_MAX + 1);
    let sent = write_message(&mut line.send, &long).await;
    assert!(matches!(sent, Err(FrameError::TooLong { .. })));
}

#[tokio::test]
async fn a_body_comes_whole_and_a_message_after_it() {
    let mut line = line().await;
    let body: Vec<u8> = (0..300_000_u32).map(|i| i as u8).collect();
    let sent = Bytes::from(body.clone());
    let writer = async {
        write_body(&mut line.send, sent).await.unwrap();
        write_message(&mut line.send, &"after".to_owned()).await.unwrap();
    };
    let reader = async {
        let mut reader = BodyReader::new(&mut line.recv, body.len() as u64);
        let read = reader.read_all().await.unwrap();
        assert!(reader.next().await.unwrap().is_none());
        let after: String = read_message(&mut line.recv, 100).await.unwrap();
        (read, after)
    };
    let ((), (read, after)) = tokio::join!(writer, reader);
    assert_eq!(read, body);
    assert_eq!(after, "after");
}

#[tokio::test]
async fn an_empty_body_is_a_body() {
    let mut line = line().await;
    BodyWriter::new(&mut line.send).finish().await.unwrap();
    let read = BodyReader::new(&mut line.recv, 0).read_all().await.unwrap();
    assert!(read.is_empty());
}

#[tokio::test]
async fn a_body_over_its_limit_or_with_a_giant_chunk_is_refused() {
    let mut line = line().await;
    let sent = write_body(&mut line.send, Bytes::from_static(b"hello")).await;
    sent.unwrap();
    let read = BodyReader::new(&mut line.recv, 4).read_all().await;
    assert!(matches!(read, Err(FrameError::TooLong { len: 5, limit: 4 })));

    let mut line = self::line().await;
    line.send.write_all(&70_000_u32.to_le_bytes()).await.unwrap();
    let read = BodyReader::new(&mut line.recv, u64::MAX).read_all().await;
    assert!(matches!(read, Err(FrameError::TooLong { len: 70_000, .. })));
}

#[tokio::test]
async fn a_body_that_ends_early_is_truncation() {
    for bytes in [&[][..], &[1, 0], &[3, 0, 0, 0, b'a']] {
        let mut line = line().await;
        line.send.write_all(bytes).await.unwrap();
        line.send.finish().unwrap();
        let read = BodyReader::new(&mut line.recv, 100).read_all().await;
        assert!(matches!(read, Err(FrameError::Truncated)), "{bytes:?}");
    }
}
