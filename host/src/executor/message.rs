//! What a daemon and an executor say to each other: a frame each, in the same build of Orb.

use bytes::Bytes;
use orb_protocol::wire::codec;
use orb_runtime::{CallContext, CodeKind, Event, GuestFault, Limits, Outcome, SandboxConfig};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::ring::{FRAME_LEN_MAX, Violation};
use super::walls::{Bounds, Wall};

/// The most bytes of a body in one frame, as on the wire.
pub(super) const PIECE_BYTES_MAX: usize = 64 << 10;
/// Pieces of a streamed input that are with the executor and were not taken by the guest.
pub(super) const PIECES_MAX: usize = 4;

/// Names a call, within one executor.
pub(super) type CallId = u64;
/// Names code, within one daemon: [`orb_runtime::Code::id`].
pub(super) type CodeId = u64;

/// How an executor is set up: the first thing that it gets, on its socket, together with its channel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Setup {
    /// What its machine is like.
    pub(super) sandbox: SandboxConfig,
    /// What it may take of this machine.
    pub(super) bounds: Bounds,
}

/// From the daemon.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToExecutor {
    /// Load code. Its bytes are a descriptor, the next one on the socket.
    Load(CodeId, CodeKind),
    /// Nobody needs it any more.
    Unload(CodeId),
    /// Run a program.
    Run(Box<Run>),
    /// A piece of a streamed input; an empty one ends it.
    Input(CallId, Bytes),
    /// Nobody waits for a call any more.
    Cancel(CallId),
    /// Are you there?
    Ping,
    /// Try to get out.
    #[cfg(test)]
    Escape(super::escape::Attempt),
}

/// A call.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) call: CallId,
    pub(super) code: CodeId,
    pub(super) context: CallContext,
    pub(super) limits: Limits,
    /// All of the input; none if it follows piece by piece.
    pub(super) input: Option<Bytes>,
}

/// From an executor.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromExecutor {
    /// It takes calls, behind these walls.
    Ready(Vec<Wall>),
    /// It can't be set up, and ends.
    Unfit(String),
    /// Something happened in a call.
    Event(CallId, Event),
    /// The guest took a piece of its input.
    Taken(CallId),
    /// A call has ended.
    Ended(CallId, Box<Outcome>),
    /// I am.
    Pong,
    /// What came of trying to get out: what the system said, or that it worked.
    #[cfg(test)]
    Escaped(Result<(), String>),
}

/// A message as a frame.
pub(super) fn frame<T: Serialize>(message: &T) -> Vec<u8> {
    codec::encode(message)
}

/// A frame's message.
///
/// # Errors
/// It is none: the other process is not what it should be.
pub(super) fn message<T: DeserializeOwned>(frame: &[u8]) -> Result<T, Violation> {
    codec::decode(frame).map_err(|_| Violation)
}

/// The end of a call as a frame that is short enough, whatever a guest made of its own engine's memory.
pub(super) fn ended(call: CallId, outcome: Outcome) -> Vec<u8> {
    let used = Outcome {
        result: Ok(()),
        ..outcome
    };
    let whole = frame(&FromExecutor::Ended(call, Box::new(outcome)));
    if whole.len() <= FRAME_LEN_MAX {
        return whole;
    }
    let message = "the guest's error report is longer than any may be".to_owned();
    let cut = Outcome {
        result: Err(GuestFault::Trap { message }),
        ..used
    };
    frame(&FromExecutor::Ended(call, Box::new(cut)))
}

/// An event as frames: a long piece is cut.
pub(super) fn events(call: CallId, event: Event) -> impl Iterator<Item = Vec<u8>> {
    let (mut bytes, wrap): (Bytes, fn(Bytes) -> Event) = match event {
        Event::Started => (Bytes::new(), |_| Event::Started),
        Event::Output(bytes) => (bytes, Event::Output),
        Event::Log(bytes) => (bytes, Event::Log),
    };
    let mut first = true;
    std::iter::from_fn(move || {
        if bytes.is_empty() && !std::mem::take(&mut first) {
            return None;
        }
        first = false;
        let piece = bytes.split_to(bytes.len().min(PIECE_BYTES_MAX));
        Some(frame(&FromExecutor::Event(call, wrap(piece))))
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;

    fn pieces(event: Event) -> Vec<Event> {
        events(7, event)
            .map(|frame| match message(&frame).unwrap() {
                FromExecutor::Event(7, event) => event,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn long_pieces_are_cut_and_nothing_is_lost() {
        assert_eq!(pieces(Event::Started), [Event::Started]);
        assert_eq!(pieces(Event::Log("a".into())), [Event::Log("a".into())]);
        let long = Bytes::from(vec![1; 2 * PIECE_BYTES_MAX + 1]);
        let lens: Vec<usize> = pieces(Event::Output(long))
            .iter()
            .map(|event| match event {
                Event::Output(bytes) => bytes.len(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(lens, [PIECE_BYTES_MAX, PIECE_BYTES_MAX, 1]);
    }

    #[test]
    fn every_frame_fits_into_the_ring() {
        let longest = Event::Output(vec![1; PIECE_BYTES_MAX].into());
        assert!(events(u64::MAX, longest).all(|frame| frame.len() <= FRAME_LEN_MAX));
        let message = "x".repeat(2 * FRAME_LEN_MAX);
        let outcome = Outcome {
            result: Err(GuestFault::Trap { message }),
            ..Outcome::not_started()
        };
        assert!(ended(u64::MAX, outcome).len() <= FRAME_LEN_MAX);
    }
}
