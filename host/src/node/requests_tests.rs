#![expect(clippy::unwrap_used, reason = "a test panics on surprise")]

use orb_protocol::manifest::Version;
use orb_protocol::wire::extension::Extensions;

use super::*;

const CALLER: NodeId = NodeId::from_bytes([1; 32]);
const FUNCTION: FunctionId = FunctionId::from_bytes([2; 32]);

fn id(byte: u8) -> RequestId {
    RequestId::from_bytes([byte; 16])
}

fn started() -> Started {
    Started {
        version: Version::default(),
        content_type: "text/plain".to_owned(),
        idempotent: false,
        extensions: Extensions::none(),
    }
}

fn trailer() -> Trailer {
    Trailer {
        fault: None,
        ..ended_by(Fault::new(FaultKind::Internal, ""))
    }
}

fn begin(requests: &Arc<Requests>, byte: u8) -> (Runner, Reader) {
    match requests.begin(CALLER, id(byte), FUNCTION).unwrap() {
        Begun::New(runner, reader) => (runner, reader),
        Begun::Known(_) => panic!("the request is known already"),
    }
}

async fn read_all(reader: &mut Reader) -> Vec<u8> {
    let mut answer = Vec::new();
    loop {
        match reader.next().await {
            Step::Started(_) => {}
            Step::Output(piece) => answer.extend_from_slice(&piece),
            Step::Ended(_) => return answer,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_answer_is_read_while_it_is_made_and_then_forgotten() {
    let requests = Requests::new();
    let (runner, mut reader) = begin(&requests, 1);
    let (answer, ()) = tokio::join!(read_all(&mut reader), async {
        runner.start(started());
        runner.output("hello ".into());
        tokio::task::yield_now().await;
        runner.output("world".into());
        runner.end(Ok(trailer()));
    });
    assert_eq!(answer, b"hello world");
    assert_eq!(requests.finished(), 1);
    reader.delivered();
    assert_eq!((requests.running(), requests.finished()), (0, 0));
    assert_eq!(requests.answer_bytes.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn after_a_lost_connection_the_answer_is_read_again_from_its_beginning() {
    let requests = Requests::new();
    let (runner, mut reader) = begin(&requests, 1);
    runner.start(started());
    runner.output("hello ".into());
    assert!(matches!(reader.next().await, Step::Started(_)));
    assert!(matches!(reader.next().await, Step::Output(_)));
    drop(reader);
    let mut again = requests.attach(CALLER, id(1)).unwrap();
    runner.output("world".into());
    runner.end(Ok(trailer()));
    assert_eq!(read_all(&mut again).await, b"hello world");
    let mut late = requests.attach(CALLER, id(1)).unwrap();
    assert_eq!(read_all(&mut late).await, b"hello world");
    assert!(matches!(again.next().await, Step::Superseded));
}

#[tokio::test]
async fn nobody_else_may_attach_and_an_unknown_request_is_not_there() {
    let requests = Requests::new();
    let (_runner, _reader) = begin(&requests, 1);
    assert!(requests.attach(NodeId::from_bytes([9; 32]), id(1)).is_none());
    assert!(requests.attach(CALLER, id(2)).is_none());
}

#[tokio::test]
async fn the_same_call_again_attaches_and_another_function_is_refused() {
    let requests = Requests::new();
    let (_runner, mut reader) = begin(&requests, 1);
    let again = requests.begin(CALLER, id(1), FUNCTION).unwrap();
    assert!(matches!(again, Begun::Known(_)));
    assert!(matches!(reader.next().await, Step::Superseded));
    let other = FunctionId::from_bytes([3; 32]);
    let fault = requests.begin(CALLER, id(1), other).unwrap_err();
    assert_eq!(fault.kind, FaultKind::InputInvalid);
    assert_eq!(requests.running(), 1);
}

#[tokio::test]
async fn a_call_that_did_not_start_may_begin_again() {
    let requests = Requests::new();
    let (runner, mut reader) = begin(&requests, 1);
    runner.end(Err(Fault::new(FaultKind::Overloaded, "later")));
    let step = reader.next().await;
    assert!(matches!(step, Step::NotStarted(fault) if fault.kind == FaultKind::Overloaded));
    begin(&requests, 1);
}

#[tokio::test]
async fn a_reader_that_gives_up_cancels_and_a_lost_one_has_30_seconds() {
    let requests = Requests::new();
    let (runner, reader) = begin(&requests, 1);
    reader.gave_up();
    runner.cancelled().await;

    let (runner, reader) = begin(&requests, 2);
    drop(reader);
    requests.on_tick(Instant::now());
    assert!(!*runner.request.cancelled.borrow());
    let reader = requests.attach(CALLER, id(2)).unwrap();
    requests.on_tick(Instant::now() + KEPT_FOR * 2);
    assert!(!*runner.request.cancelled.borrow());
    drop(reader);
    requests.on_tick(Instant::now() + KEPT_FOR * 2);
    runner.cancelled().await;
}

#[tokio::test]
async fn an_old_stream_that_is_reset_does_not_cancel_for_the_new_one() {
    let requests = Requests::new();
    let (runner, old) = begin(&requests, 1);
    let _new = requests.attach(CALLER, id(1)).unwrap();
    old.gave_up();
    assert!(!*runner.request.cancelled.borrow());
}

#[tokio::test]
async fn outcomes_are_kept_for_30_seconds_and_within_bounds() {
    let requests = Requests::new();
    for byte in 0..3 {
        let (runner, _reader) = begin(&requests, byte);
        runner.start(started());
        runner.end(Ok(trailer()));
    }
    requests.on_tick(Instant::now());
    assert_eq!(requests.finished(), 3);
    requests.on_tick(Instant::now() + KEPT_FOR * 2);
    assert_eq!(requests.finished(), 0);
    assert!(requests.attach(CALLER, id(1)).is_none());
}

#[tokio::test]
async fn when_memory_is_short_old_outcomes_go_and_so_does_what_was_read() {
    let requests = Requests::within(3 << 20);
    let megabyte = || Bytes::from(vec![7; 1 << 20]);
    let (kept, reader) = begin(&requests, 1);
    kept.start(started());
    kept.output(megabyte());
    kept.end(Ok(trailer()));
    drop(reader);

    let (runner, mut reader) = begin(&requests, 2);
    runner.start(started());
    let write = async {
        for _ in 0..16 {
            runner.output(megabyte());
            let held = requests.answer_bytes.load(Ordering::Relaxed);
            assert!(held <= 3 << 20, "{held}");
            tokio::task::yield_now().await;
        }
        runner.end(Ok(trailer()));
    };
    let (answer, ()) = tokio::join!(read_all(&mut reader), write);
    assert_eq!(answer.len(), 16 << 20);
    assert!(requests.attach(CALLER, id(1)).is_none());
    // What was read is gone, so the rest of it is no answer.
    let mut late = requests.attach(CALLER, id(2)).unwrap();
    assert!(matches!(late.next().await, Step::Superseded));
}

#[tokio::test]
async fn a_runner_that_is_dropped_ends_the_request() {
    let requests = Requests::new();
    let (runner, mut reader) = begin(&requests, 1);
    runner.start(started());
    drop(runner);
    assert!(matches!(reader.next().await, Step::Started(_)));
    let Step::Ended(trailer) = reader.next().await else {
        panic!()
    };
    assert_eq!(trailer.fault.unwrap().kind, FaultKind::HostLost);
    assert_eq!(requests.running(), 0);
}
