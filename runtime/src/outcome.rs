//! What comes out of the sandbox.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// What happens during a call, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// Sent once, just before the guest is entered: after queueing and compiling. A call that
    /// failed without it has had no effect.
    Started,
    /// A piece of the answer.
    Output(Bytes),
    /// A piece of the log, not aligned to lines.
    Log(Bytes),
}

/// How a call ended, and what it used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Whether the answer is complete, or what went wrong.
    pub result: Result<(), GuestFault>,
    /// Fuel burnt, in wasmtime's units.
    pub fuel: u64,
    /// The largest linear memory that the guest had, in bytes.
    pub memory_peak_bytes: u64,
    /// Time spent waiting for a free instance.
    pub time_queued: Duration,
    /// The guest's own time: running, or waiting inside a host call. What it computes before it first
    /// waits or gives way is taken by the wall clock, and counts a millisecond at most.
    pub time_guest: Duration,
    /// Time spent loading, verifying and compiling; next to nothing when the artifact is cached.
    pub time_compile: Duration,
    /// Whether the log was longer than its limit and was cut.
    pub log_truncated: bool,
}

/// A place in the developer's source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// File name as the developer knows it.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1; 0 where it is not known.
    pub column: u32,
}

/// Why a call has no (whole) answer. Except where a variant says otherwise it is the guest's
/// fault, and the same input will fail in the same way on another host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum GuestFault {
    /// The guest executed an illegal instruction, or overflowed its stack.
    #[error("the function trapped: {message}")]
    Trap {
        /// What the engine said.
        message: String,
    },
    /// A command exited with another code than 0.
    #[error("the function exited with code {code}")]
    Exit {
        /// The exit code.
        code: u32,
    },
    /// JavaScript threw and nobody caught it.
    #[error("the function threw {message}{}", at(.location.as_ref()))]
    Thrown {
        /// The error, as JavaScript would print it.
        message: String,
        /// JavaScript's own stack trace, if there was one.
        stack: Option<String>,
        /// Where it was thrown.
        location: Option<Location>,
    },
    /// An async function's promise never settled: there was nothing left that could settle it.
    #[error("the function's promise never settled: nothing was left to run that could settle it")]
    UnsettledPromise,
    /// A JavaScript function returned something that is not JSON.
    #[error("the function's answer is not JSON: {message}")]
    BadOutput {
        /// What is wrong with it.
        message: String,
    },
    /// The caller's fault: a JavaScript function's input is not JSON.
    #[error("the input is not JSON: {message}")]
    InputInvalid {
        /// What is wrong with it.
        message: String,
    },
    /// The caller's fault: the input is longer than the function allows.
    #[error("the input is longer than the {limit} bytes that the function takes")]
    InputTooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The fuel is used up.
    #[error("the function used up its {limit} units of fuel")]
    Fuel {
        /// The limit in wasmtime's units.
        limit: u64,
    },
    /// The guest asked for more memory than it may have.
    #[error("the function needs more than its {limit} bytes of memory")]
    Memory {
        /// The limit in bytes.
        limit: u64,
    },
    /// The function's own time limit.
    #[error("the function took longer than its {limit_ms} ms")]
    Time {
        /// The limit in milliseconds.
        limit_ms: u64,
    },
    /// The caller's time was over before the guest ended.
    #[error("the caller's deadline passed before the function ended")]
    Deadline,
    /// The answer is longer than it may be.
    #[error("the function's answer is longer than its {limit} bytes")]
    Output {
        /// The limit in bytes.
        limit: u64,
    },
    /// The artifact is too large or takes too long to compile.
    #[error("compiling the function exceeds a limit of this host: {message}")]
    Compile {
        /// Which limit, and by how much.
        message: String,
    },
    /// The artifact is of a kind that does not run here, or imports what is not offered.
    #[error("this host does not run the function: {message}")]
    Refused {
        /// What is refused, and what is offered.
        message: String,
    },
    /// The host's fault: the artifact on its disk is missing or is not the one that was asked
    /// for. Nothing of it was run; fetch it again.
    #[error("the stored artifact does not verify: {message}")]
    Artifact {
        /// What is wrong with it.
        message: String,
    },
    /// The host's fault: the process that ran the guest ended before the guest did. If the call was
    /// started, part of it may have been done.
    #[error("the process that ran the function was lost: {message}")]
    Lost {
        /// What became of it.
        message: String,
    },
    /// The host's fault.
    #[error("the host failed: {message}")]
    Internal {
        /// What failed.
        message: String,
    },
}

fn at(location: Option<&Location>) -> String {
    match location {
        Some(Location {
            file,
            line,
            column: 0,
        }) => format!(" ({file}:{line})"),
        Some(Location { file, line, column }) => format!(" ({file}:{line}:{column})"),
        None => String::new(),
    }
}
