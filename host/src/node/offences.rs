//! What callers did that they should not have.

use orb_protocol::quic::frames::FrameError;

use crate::counters::{Counter, Numbers};

/// Counted since the start.
#[derive(Debug, Default)]
pub(crate) struct Offences {
    /// Connections that made room for others: they were idle, or their node had more.
    pub(crate) callers_displaced: Counter,
    /// Connections for which there was no room.
    pub(crate) callers_refused: Counter,
    /// Streams that began with what is no request.
    pub(crate) streams_unreadable: Counter,
    /// Streams that did not say in time what they are for.
    pub(crate) streams_silent: Counter,
    /// Inputs that broke off, stalled, or were longer than they may be or were said to be.
    pub(crate) inputs_broken: Counter,
    /// Answers that were not read.
    pub(crate) readers_stopped: Counter,
    /// Calls that found neither a place nor room to wait.
    pub(crate) calls_turned_away: Counter,
}

impl Offences {
    /// A stream's first frame did not come. One that was given up before it is nobody's fault.
    pub(crate) fn on_first_frame(&self, error: &FrameError) {
        match error {
            FrameError::TimedOut(_) => self.streams_silent.add(),
            FrameError::Truncated | FrameError::TooLong { .. } | FrameError::Malformed(_) => {
                self.streams_unreadable.add();
            }
            _ => {}
        }
    }

    /// All of them.
    pub(crate) fn numbers(&self) -> Numbers {
        vec![
            ("callers_displaced", self.callers_displaced.get()),
            ("callers_refused", self.callers_refused.get()),
            ("streams_unreadable", self.streams_unreadable.get()),
            ("streams_silent", self.streams_silent.get()),
            ("inputs_broken", self.inputs_broken.get()),
            ("readers_stopped", self.readers_stopped.get()),
            ("calls_turned_away", self.calls_turned_away.get()),
        ]
    }
}
