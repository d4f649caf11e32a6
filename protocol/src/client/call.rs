//! One call: its options, its answer, its report.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Client;
use super::body::{Input, Output};
use super::dispatch::dispatch;
use super::error::CallError;
use crate::fault::{Fault, FaultKind};
use crate::id::{FunctionId, NodeId, RequestId};
use crate::manifest::Version;
use crate::wire::call::TraceContext;

/// A caller's deadline, if it names none (the product's definition).
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// The longest answer that is collected, if the caller names no other limit, in bytes: eight times
/// the default limit of a function's output.
pub const ANSWER_BYTES_MAX_DEFAULT: u64 = 64 << 20;
/// How often an overloaded network is asked again, if the caller does not say: with waits that double
/// this covers a burst, and what lasts longer is not mended by asking (a guess).
pub const OVERLOAD_RETRIES_DEFAULT: u32 = 3;

/// How a function is called.
#[derive(Debug, Clone)]
pub struct CallOptions {
    /// The caller's deadline. Default: [`TIMEOUT_DEFAULT`].
    pub timeout: Duration,
    /// The caller's name for this request. Default: a random one.
    pub request: Option<RequestId>,
    /// The trace that the call belongs to.
    pub trace: Option<TraceContext>,
    /// How often the request was passed on before: gateways count up.
    pub hops: u8,
    /// The longest answer that is taken, in bytes. Streamed answers have no such limit.
    pub answer_bytes_max: u64,
    /// How often the call is made again after every host has turned it away as overloaded, once the wait
    /// that they propose is over; within the deadline, and less often while most calls are turned away.
    /// 0: never, and such calls end at once. Default: [`OVERLOAD_RETRIES_DEFAULT`].
    pub overload_retries: u32,
}

impl Default for CallOptions {
    fn default() -> Self {
        Self {
            timeout: TIMEOUT_DEFAULT,
            request: None,
            trace: None,
            hops: 0,
            answer_bytes_max: ANSWER_BYTES_MAX_DEFAULT,
            overload_retries: OVERLOAD_RETRIES_DEFAULT,
        }
    }
}

/// What a function answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The answer's bytes.
    pub output: Bytes,
    /// How the call went.
    pub report: CallReport,
}

/// What a function answered, from JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonAnswer<O> {
    /// The answer.
    pub output: O,
    /// How the call went.
    pub report: CallReport,
}

/// How a call that was answered went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallReport {
    /// The call's request id.
    pub request: RequestId,
    /// Who answered.
    pub host: NodeId,
    /// Which version answered.
    pub version: Version,
    /// The answer's media type.
    pub content_type: String,
    /// By what way the host was reached: "lan", "direct", "relay" or "websocket".
    pub path: String,
    /// How many hosts were tried, this one included.
    pub attempts: u32,
    /// Fuel used, in wasmtime's units.
    pub fuel: u64,
    /// The guest's greatest memory, in bytes.
    pub memory_peak_bytes: u64,
    /// Where the time went.
    pub times: CallTimes,
    /// Whether the function's log was cut.
    pub log_truncated: bool,
}

/// Where a call's time went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallTimes {
    /// The whole call, as the caller saw it.
    pub total: Duration,
    /// Asking who can answer; zero if it was known.
    pub resolve: Duration,
    /// Connecting to hosts; zero if a connection was there.
    pub connect: Duration,
    /// Waiting at the host.
    pub queued: Duration,
    /// In the guest.
    pub guest: Duration,
    /// Compiling or loading at the host; zero if the function was warm.
    pub compile: Duration,
}

impl Client {
    /// Calls a function with bytes and collects its answer. Dropping the future cancels the call.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call(
        &self,
        function: FunctionId,
        input: Bytes,
        options: CallOptions,
    ) -> Result<Answer, CallError> {
        let mut input = Input::Whole(input);
        let mut output = Output::collect(options.answer_bytes_max);
        let report = dispatch(&self.0, function, &options, &mut input, &mut output).await?;
        Ok(Answer {
            output: output.into_collected(),
            report,
        })
    }

    /// Calls a function with JSON, and takes JSON.
    ///
    /// # Errors
    /// `InputInvalid` for an input that has no JSON form, `BadOutput` for an answer that is not an
    /// `O`, and as [`Client::call`].
    pub async fn call_json<I: Serialize + ?Sized, O: DeserializeOwned>(
        &self,
        function: FunctionId,
        input: &I,
        options: CallOptions,
    ) -> Result<JsonAnswer<O>, CallError> {
        let input = serde_json::to_vec(input).map_err(|error| no_json(&options, &error))?;
        let Answer { output, report } = self.call(function, input.into(), options).await?;
        match serde_json::from_slice(&output) {
            Ok(output) => Ok(JsonAnswer { output, report }),
            Err(error) => Err(other_json(report, &error)),
        }
    }
}

fn no_json(options: &CallOptions, error: &serde_json::Error) -> CallError {
    CallError {
        fault: Fault::new(
            FaultKind::InputInvalid,
            format!("the input has no JSON form: {error}"),
        ),
        request: options.request.unwrap_or(RequestId::from_bytes([0; 16])),
        attempts: Vec::new(),
        may_have_run: false,
        report: None,
    }
}

fn other_json(report: CallReport, error: &serde_json::Error) -> CallError {
    CallError {
        fault: Fault::new(
            FaultKind::BadOutput,
            format!("the answer is not the JSON that was expected: {error}"),
        ),
        request: report.request,
        attempts: Vec::new(),
        may_have_run: true,
        report: Some(Box::new(report)),
    }
}
