//! What peers did that they should not have.

use orb_protocol::quic::frames::FrameError;

use crate::counters::{Counter, Numbers};

/// Counted since the start.
#[derive(Debug, Default)]
pub(crate) struct Offences {
    /// Connections beyond those that one address, or all together, may have.
    pub(crate) connections_refused: Counter,
    /// Streams that began with what is no request.
    pub(crate) streams_unreadable: Counter,
    /// Streams that did not say in time what they are for.
    pub(crate) streams_silent: Counter,
    /// Answers that were not read.
    pub(crate) readers_stopped: Counter,
    /// Hosts cut off: they broke the protocol, or did not read what they were sent.
    pub(crate) hosts_cut_off: Counter,
    /// Requests refused by policy, quota or rate.
    pub(crate) publishes_refused: Counter,
    /// Changes and records from super nodes that did not verify.
    pub(crate) peers_unverified: Counter,
    /// Super nodes that were said to have hosts of a function, and named none.
    pub(crate) sites_empty: Counter,
}

impl Offences {
    /// A stream's first message could not be read. One that was given up before it is nobody's fault.
    pub(crate) fn on_request(&self, error: &FrameError) {
        match error {
            FrameError::TimedOut(_) => self.streams_silent.add(),
            FrameError::Truncated | FrameError::TooLong { .. } | FrameError::Malformed(_) => {
                self.streams_unreadable.add();
            }
            _ => {}
        }
    }

    /// An answer could not be sent.
    pub(crate) fn on_answer(&self, error: &FrameError) {
        if matches!(error, FrameError::TimedOut(_)) {
            self.readers_stopped.add();
        }
    }

    /// All of them.
    pub(crate) fn numbers(&self) -> Numbers {
        vec![
            ("connections_refused", self.connections_refused.get()),
            ("streams_unreadable", self.streams_unreadable.get()),
            ("streams_silent", self.streams_silent.get()),
            ("readers_stopped", self.readers_stopped.get()),
            ("hosts_cut_off", self.hosts_cut_off.get()),
            ("publishes_refused", self.publishes_refused.get()),
            ("peers_unverified", self.peers_unverified.get()),
            ("sites_empty", self.sites_empty.get()),
        ]
    }
}
