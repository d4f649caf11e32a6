//! Calls with streamed bodies.

use bytes::Bytes;

use super::builder::Client;
use super::call::{CallOptions, CallReport};
use super::error::CallError;
use crate::id::FunctionId;

/// A running call. Dropping either half cancels it.
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
    _private: (),
}

impl CallInput {
    /// Writes some input; waits while the host is behind. After the call has failed this does
    /// nothing: [`CallOutput`] says why.
    pub async fn write(&mut self, bytes: Bytes) {
        let _ = bytes;
        std::future::ready(()).await;
    }

    /// Ends the input. A `CallInput` that is dropped without it cancels the call.
    pub fn finish(self) {}
}

/// The answer of a running call.
#[derive(Debug)]
pub struct CallOutput {
    _private: (),
}

impl CallOutput {
    /// The next part of the answer, at most 64 KiB; `None` at its end.
    ///
    /// # Errors
    /// See [`CallError`]; the parts before it are then not a whole answer.
    pub async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        std::future::ready(Ok(None)).await
    }

    /// How the call went: `Some` once [`CallOutput::next`] has given `None`.
    pub fn report(&self) -> Option<&CallReport> {
        None
    }
}

impl Client {
    /// Calls a function with a streamed input and a streamed answer.
    pub fn call_stream(&self, function: FunctionId, options: CallOptions) -> CallStream {
        let _ = (function, options);
        CallStream {
            input: CallInput { _private: () },
            output: CallOutput { _private: () },
        }
    }
}
