//! What goes into the sandbox.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::{Limits, Work};

/// A file of WebAssembly bytes and the hash that it must have.
///
/// The sandbox verifies the hash on every load from disk; nothing else is believed of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// BLAKE3 of the bytes.
    pub hash: [u8; 32],
    /// Where the bytes are.
    pub path: PathBuf,
}

/// What a guest may know of its call: a JavaScript function's `ctx`, a command's `argv[0]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallContext {
    /// The function's name, as callers write it.
    pub function: String,
    /// The revision that runs.
    pub revision: u64,
    /// The caller's id of this request.
    pub request_id: String,
    /// What remains of the caller's time, on the wall clock, when the job is handed over. The
    /// guest is stopped when it is over.
    pub deadline: Option<Duration>,
}

/// The input of a call.
#[derive(Debug)]
pub enum Input {
    /// All of it.
    Whole(Bytes),
    /// Piece by piece; it ends when the channel is closed. A JavaScript function is entered only
    /// after the end, since it gets parsed JSON; commands and scripts read while it arrives.
    Stream(mpsc::Receiver<Bytes>),
}

impl Default for Input {
    fn default() -> Self {
        Self::Whole(Bytes::new())
    }
}

impl From<Bytes> for Input {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(bytes)
    }
}

/// One call: what to run, for whom, within which limits, on which input.
#[derive(Debug)]
pub struct Job {
    /// What to run.
    pub artifact: Artifact,
    /// What the guest may know of the call.
    pub context: CallContext,
    /// What it may use.
    pub limits: Limits,
    /// What it works on.
    pub input: Input,
}

impl Job {
    /// What to run, and the call itself.
    #[must_use]
    pub fn split(self) -> (Artifact, Work) {
        let work = Work {
            context: self.context,
            limits: self.limits,
            input: self.input,
        };
        (self.artifact, work)
    }
}
