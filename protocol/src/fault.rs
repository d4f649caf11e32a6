//! The error taxonomy: every way in which a request can end without its answer.
//!
//! The same [`FaultKind`] stands in the wire messages, the SDK's error, the exit code, the HTTP
//! status and the metrics label, so that a failure has one name wherever it is seen.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::wire::extension::Extensions;

/// The longest message of a fault, in bytes; longer ones are cut.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024;
/// The longest stack trace of a fault, in bytes; longer ones are cut.
pub const STACK_BYTES_MAX: usize = 16 * 1024;

/// Who has to do something about a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Party {
    /// Whoever made the request.
    Caller,
    /// The function, so its developer.
    Guest,
    /// The machine that ran it or should have, so its operator.
    Host,
    /// What lies between them.
    Network,
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Caller => "caller",
            Self::Guest => "guest",
            Self::Host => "host",
            Self::Network => "network",
        })
    }
}

macro_rules! fault_kinds {
    ($( $(#[$doc:meta])* $variant:ident = $tag:literal, $label:literal, $party:ident, $exit:literal, $http:literal; )+) => {
        /// What went wrong. On the wire a `u16`; one that this version does not know is kept.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(from = "u16", into = "u16")]
        pub enum FaultKind {
            $( $(#[$doc])* $variant, )+
            /// A kind that a newer peer knows.
            Unknown(u16),
        }

        impl From<u16> for FaultKind {
            fn from(tag: u16) -> Self {
                match tag {
                    $( $tag => Self::$variant, )+
                    other => Self::Unknown(other),
                }
            }
        }

        impl From<FaultKind> for u16 {
            fn from(kind: FaultKind) -> Self {
                match kind {
                    $( FaultKind::$variant => $tag, )+
                    FaultKind::Unknown(tag) => tag,
                }
            }
        }

        impl FaultKind {
            /// Every kind that this version knows.
            pub const ALL: &'static [Self] = &[$( Self::$variant ),+];

            /// The kind's name in JSON output and metrics.
            pub fn label(self) -> &'static str {
                match self {
                    $( Self::$variant => $label, )+
                    Self::Unknown(_) => "unknown",
                }
            }

            /// Who has to do something about it.
            pub fn party(self) -> Party {
                match self {
                    $( Self::$variant => Party::$party, )+
                    Self::Unknown(_) => Party::Network,
                }
            }

            /// The exit code of the command line.
            pub fn exit_code(self) -> u8 {
                match self {
                    $( Self::$variant => $exit, )+
                    Self::Unknown(_) => 1,
                }
            }

            /// The status of an HTTP gateway's answer.
            pub fn http_status(self) -> u16 {
                match self {
                    $( Self::$variant => $http, )+
                    Self::Unknown(_) => 502,
                }
            }
        }
    };
}

fault_kinds! {
    /// No such function is known.
    NotFound = 1, "not_found", Caller, 6, 404;
    /// The function was there, and its owner ended it.
    Decommissioned = 2, "decommissioned", Caller, 6, 410;
    /// Nobody who holds the function can be reached, or no super node can.
    NoLiveHost = 3, "no_live_host", Network, 8, 503;
    /// The host went away after it had started; the call may have run.
    HostLost = 4, "host_lost", Host, 3, 502;
    /// The caller's own deadline passed; the call may have run.
    DeadlineExceeded = 5, "deadline_exceeded", Caller, 3, 504;
    /// The guest trapped: unreachable code, a bad memory access, its stack used up.
    Trap = 6, "trap", Guest, 5, 502;
    /// The guest ended with an exit code other than zero.
    ExitCode = 7, "exit_code", Guest, 5, 502;
    /// The JavaScript function threw, or its promise was rejected.
    Thrown = 8, "thrown", Guest, 5, 502;
    /// The JavaScript function's promise can never settle: nothing is left that could settle it.
    UnsettledPromise = 9, "unsettled_promise", Guest, 5, 502;
    /// What the function returned cannot become JSON.
    BadOutput = 10, "bad_output", Guest, 5, 502;
    /// The guest used up its fuel.
    FuelExhausted = 11, "fuel_exhausted", Guest, 5, 502;
    /// The guest wanted more memory than its limit.
    MemoryLimit = 12, "memory_limit", Guest, 5, 502;
    /// The guest ran longer than the function's own time limit.
    TimeLimit = 13, "time_limit", Guest, 5, 504;
    /// The guest wrote a longer answer than its limit.
    OutputLimit = 14, "output_limit", Guest, 5, 502;
    /// The artifact takes more to compile than a host gives.
    CompileLimit = 15, "compile_limit", Guest, 5, 502;
    /// A policy says no: the message names the rule.
    Refused = 16, "refused", Caller, 7, 403;
    /// Too much to do at the moment; the call did not run.
    Overloaded = 17, "overloaded", Host, 7, 429;
    /// The input is longer than the function's limit.
    InputTooLarge = 18, "input_too_large", Caller, 2, 413;
    /// The input is not what the function takes.
    InputInvalid = 19, "input_invalid", Caller, 2, 400;
    /// An artifact, a signature or an identity does not verify.
    Unverified = 20, "unverified", Network, 4, 502;
    /// The peer speaks another version of the protocol.
    VersionMismatch = 21, "version_mismatch", Network, 4, 505;
    /// The daemon failed through nothing that the request did (a disk, a bug).
    Internal = 22, "internal", Host, 1, 500;
}

/// How a request ended, if not with its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// Which one of the taxonomy.
    pub kind: FaultKind,
    /// What happened, for a person.
    pub message: String,
    /// What to do about it, for a person; may be empty.
    pub help: String,
    /// The guest's stack trace, if there is one.
    pub stack: Option<String>,
    /// The guest's exit code, for [`FaultKind::ExitCode`].
    pub exit_code: Option<i32>,
    /// When it may make sense to try again, in milliseconds, for [`FaultKind::Overloaded`].
    pub retry_after_ms: Option<u32>,
    /// For what comes later.
    pub extensions: Extensions,
}

impl Fault {
    /// A fault with a message.
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: cut(message.into(), MESSAGE_BYTES_MAX),
            help: String::new(),
            stack: None,
            exit_code: None,
            retry_after_ms: None,
            extensions: Extensions::none(),
        }
    }

    /// The same, saying what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = cut(help.into(), MESSAGE_BYTES_MAX);
        self
    }

    /// The same, with the guest's stack trace.
    #[must_use]
    pub fn stack(mut self, stack: impl Into<String>) -> Self {
        self.stack = Some(cut(stack.into(), STACK_BYTES_MAX));
        self
    }
}

/// Shortens to at most `limit` bytes, at a character boundary.
fn cut(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        let end = (0..=limit.saturating_sub(3))
            .rev()
            .find(|&i| text.is_char_boundary(i))
            .unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_has_its_own_tag_and_label() {
        let tags: BTreeSet<u16> = FaultKind::ALL.iter().map(|&k| k.into()).collect();
        let labels: BTreeSet<&str> = FaultKind::ALL.iter().map(|k| k.label()).collect();
        assert_eq!(tags.len(), FaultKind::ALL.len());
        assert_eq!(labels.len(), FaultKind::ALL.len());
        for &kind in FaultKind::ALL {
            assert_eq!(FaultKind::from(u16::from(kind)), kind);
        }
    }

    #[test]
    fn an_unknown_kind_is_kept() {
        assert_eq!(u16::from(FaultKind::from(999)), 999);
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let fault = Fault::new(FaultKind::Thrown, "é".repeat(MESSAGE_BYTES_MAX));
        assert!(fault.message.len() <= MESSAGE_BYTES_MAX);
        assert!(fault.message.ends_with('…'));
    }
}
