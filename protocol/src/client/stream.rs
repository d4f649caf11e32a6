//! Calls with streamed bodies.
//!
//! A task of its own carries the call; both halves talk to it through short queues, so that a host
//! or a caller that is slow holds the other up, and memory stays small.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::Client;
use super::body::{Input, Output, Part};
use super::call::{CallOptions, CallReport};
use super::dispatch::dispatch;
use super::error::CallError;
use crate::fault::{Fault, FaultKind};
use crate::id::{FunctionId, RequestId};
use crate::wire::CHUNK_LEN_MAX;

/// Parts that wait in each direction: enough to keep the line busy, at most 64 KiB each.
const QUEUE_PARTS: usize = 4;

/// A running call. Dropping its output cancels it, and so does dropping its input unfinished.
#[derive(Debug)]
pub struct CallStream {
    /// Takes the input.
    pub input: CallInput,
    /// Gives the answer.
    pub output: CallOutput,
}

/// The input of a running call.
#[derive(Debug)]
pub struct CallInput {
    parts: mpsc::Sender<Part>,
}

impl CallInput {
    /// Writes some input; waits while the host is behind. `false` if nobody takes it any more: the
    /// call is over, and [`CallOutput`] says how.
    pub async fn write(&mut self, bytes: Bytes) -> bool {
        let mut rest = bytes;
        while !rest.is_empty() {
            let part = rest.split_to(rest.len().min(CHUNK_LEN_MAX));
            if self.parts.send(Part::Bytes(part)).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Ends the input. One that is dropped without it cancels the call.
    pub async fn finish(self) {
        // A call that is over takes no end either.
        let _ = self.parts.send(Part::End).await;
    }
}

/// The answer of a running call.
#[derive(Debug)]
pub struct CallOutput {
    parts: mpsc::Receiver<Bytes>,
    end: Option<oneshot::Receiver<Result<CallReport, CallError>>>,
    report: Option<CallReport>,
    task: JoinHandle<()>,
}

impl CallOutput {
    /// The next part of the answer, at most 64 KiB; `None` at its end.
    ///
    /// # Errors
    /// See [`CallError`]; the parts before it are then not a whole answer.
    pub async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        if let Some(bytes) = self.parts.recv().await {
            return Ok(Some(bytes));
        }
        if let Some(end) = &mut self.end {
            let result = end.await;
            self.end = None;
            match result {
                Ok(result) => self.report = Some(result?),
                Err(_) => return Err(ended_by_itself()),
            }
        }
        Ok(None)
    }

    /// How the call went: there once [`CallOutput::next`] has given `None`.
    pub fn report(&self) -> Option<&CallReport> {
        self.report.as_ref()
    }
}

impl Drop for CallOutput {
    fn drop(&mut self) {
        // The task's streams are given up with it.
        self.task.abort();
    }
}

impl Client {
    /// Calls a function with a streamed input and a streamed answer. Must be called inside a Tokio
    /// runtime. Until the host has started, and after it if the function is idempotent, no answer has
    /// come yet and the input was at most 64 KiB, the call may go to another host.
    pub fn call_stream(&self, function: FunctionId, options: CallOptions) -> CallStream {
        let (input, input_parts) = mpsc::channel(QUEUE_PARTS);
        let (output_parts, parts) = mpsc::channel(QUEUE_PARTS);
        let (ended, end) = oneshot::channel();
        let client = Arc::clone(&self.0);
        let task = tokio::spawn(async move {
            let mut input = Input::stream(input_parts);
            let mut output = Output::stream(output_parts);
            let result = dispatch(&client, function, &options, &mut input, &mut output).await;
            // A caller that has gone away has cancelled this task.
            let _ = ended.send(result);
        });
        CallStream {
            input: CallInput { parts: input },
            output: CallOutput {
                parts,
                end: Some(end),
                report: None,
                task,
            },
        }
    }
}

/// The task can end without a result only if the runtime shuts down.
fn ended_by_itself() -> CallError {
    CallError {
        fault: Fault::new(FaultKind::Internal, "the program is shutting down"),
        request: RequestId::from_bytes([0; 16]),
        attempts: Vec::new(),
        may_have_run: true,
        report: None,
    }
}
