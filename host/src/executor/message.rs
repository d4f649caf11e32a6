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

/// The note that an executor leaves when it lets a guest in, until it says what came of that turn: the
/// call, from 1.
pub(super) fn entering(call: CallId) -> u64 {
    call.saturating_add(1)
}

/// The call of an executor's note, if there is one.
pub(super) fn entered(note: u64) -> Option<CallId> {
    note.checked_sub(1)
}

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
    /// End, with a call's guest just entered.
    #[cfg(test)]
    CrashIn(CallId),
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
    /// What came of a call in a turn of its guest: events in order, then its end, if it has ended.
    Turn(CallId, Vec<Event>, Option<Box<Outcome>>),
    /// The guest took a piece of its input.
    Taken(CallId),
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

/// What came of a call in a turn, as frames of which `say` gets one after the other: one, unless the guest
/// wrote more than a piece. Long pieces are cut.
///
/// # Errors
/// Those of `say`.
pub(super) fn turn<E>(
    call: CallId,
    events: Vec<Event>,
    outcome: Option<Outcome>,
    mut say: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut gathered = Vec::new();
    let mut room = PIECE_BYTES_MAX;
    for piece in events.into_iter().flat_map(pieces) {
        let len = match &piece {
            Event::Started => 0,
            Event::Output(bytes) | Event::Log(bytes) => bytes.len(),
        };
        if len > room {
            say(&frame(&FromExecutor::Turn(
                call,
                std::mem::take(&mut gathered),
                None,
            )))?;
            room = PIECE_BYTES_MAX;
        }
        room -= len;
        gathered.push(piece);
    }
    match outcome {
        Some(outcome) => say(&last(call, gathered, outcome)),
        None if gathered.is_empty() => Ok(()),
        None => say(&frame(&FromExecutor::Turn(call, gathered, None))),
    }
}

/// An event, cut into such as fit into a frame.
fn pieces(event: Event) -> impl Iterator<Item = Event> {
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
        Some(wrap(bytes.split_to(bytes.len().min(PIECE_BYTES_MAX))))
    })
}

/// The last frame of a call, short enough whatever a guest made of its own engine's memory.
fn last(call: CallId, events: Vec<Event>, outcome: Outcome) -> Vec<u8> {
    let mut turn = FromExecutor::Turn(call, events, Some(Box::new(outcome)));
    let whole = frame(&turn);
    if whole.len() <= FRAME_LEN_MAX {
        return whole;
    }
    if let FromExecutor::Turn(_, _, Some(outcome)) = &mut turn {
        outcome.result = Err(GuestFault::Trap {
            message: "the guest's error report is longer than any may be".to_owned(),
        });
    }
    frame(&turn)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;

    fn frames(events: Vec<Event>, outcome: Option<Outcome>) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let say = |frame: &[u8]| {
            frames.push(frame.to_vec());
            Ok::<(), ()>(())
        };
        turn(7, events, outcome, say).unwrap();
        frames
    }

    fn said(frame: &[u8]) -> (Vec<Event>, Option<Box<Outcome>>) {
        match message(frame).unwrap() {
            FromExecutor::Turn(7, events, outcome) => (events, outcome),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_note_says_which_call_was_entered() {
        assert_eq!(entered(0), None);
        assert_eq!(entered(entering(0)), Some(0));
        assert_eq!(entered(entering(7)), Some(7));
    }

    #[test]
    fn a_short_call_is_one_frame() {
        let events = vec![Event::Started, Event::Log("a".into()), Event::Output("b".into())];
        let frames = frames(events.clone(), Some(Outcome::not_started()));
        assert_eq!(frames.len(), 1);
        assert_eq!(said(&frames[0]), (events, Some(Box::new(Outcome::not_started()))));
    }

    #[test]
    fn a_turn_in_which_nothing_happened_is_not_worth_a_frame() {
        assert!(frames(Vec::new(), None).is_empty());
    }

    #[test]
    fn long_pieces_are_cut_and_nothing_is_lost() {
        let long = Bytes::from(vec![1; 2 * PIECE_BYTES_MAX + 1]);
        let events = vec![Event::Started, Event::Log("a".into()), Event::Output(long)];
        let lens: Vec<Vec<usize>> = frames(events, Some(Outcome::not_started()))
            .iter()
            .map(|frame| {
                let lens = said(frame).0.into_iter().map(|event| match event {
                    Event::Started => 0,
                    Event::Output(bytes) | Event::Log(bytes) => bytes.len(),
                });
                lens.collect()
            })
            .collect();
        let piece = PIECE_BYTES_MAX;
        assert_eq!(lens, [vec![0, 1], vec![piece], vec![piece], vec![1]]);
    }

    #[test]
    fn every_frame_fits_into_the_ring() {
        let longest = || Event::Output(vec![1; PIECE_BYTES_MAX].into());
        let message = "x".repeat(2 * FRAME_LEN_MAX);
        let outcome = Outcome {
            result: Err(GuestFault::Trap { message }),
            ..Outcome::not_started()
        };
        let frames = frames(vec![longest(), longest()], Some(outcome));
        assert_eq!(frames.len(), 2);
        assert!(frames.iter().all(|frame| frame.len() <= FRAME_LEN_MAX));
    }
}
