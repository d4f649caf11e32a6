//! What a caller is told: faults that are found on this side.

use std::fmt::Write;
use std::time::Duration;

use serde::de::IgnoredAny;

use super::body::Input;
use super::error::{Broken, FailedAttempt};
use super::failover::{Failure, Stage};
use crate::fault::{Fault, FaultKind};
use crate::id::NodeId;
use crate::manifest::{Kind, Publish};

/// Whether a function would take this input at all, as far as that can be seen here.
pub(super) fn check_input(publish: Option<&Publish>, input: &Input) -> Result<(), Fault> {
    let (Some(publish), Input::Whole(bytes)) = (publish, input) else {
        return Ok(());
    };
    let limit = publish.limits.input_bytes;
    if bytes.len() as u64 > limit {
        let message = format!(
            "the input has {} bytes, and the function takes at most {limit}",
            bytes.len()
        );
        return Err(Fault::new(FaultKind::InputTooLarge, message)
            .help("send less, or raise limits.input_bytes in the function's orb.toml"));
    }
    if publish.kind == Kind::JavyFunction {
        serde_json::from_slice::<IgnoredAny>(bytes).map_err(|error| {
            Fault::new(FaultKind::InputInvalid, format!("the input is not JSON: {error}"))
                .help("this function takes JSON: text needs double quotes")
        })?;
    }
    Ok(())
}

/// A host's failure as the caller sees it.
pub(super) fn fault_of(host: NodeId, failure: &Failure) -> Fault {
    let host = host.short();
    match (&failure.broken, failure.stage) {
        (Broken::Fault(fault), _) => fault.clone(),
        (Broken::Lost(why), Stage::NotStarted) => Fault::new(
            FaultKind::NoLiveHost,
            format!("host {host} cannot be reached: {why}"),
        ),
        (Broken::Lost(why), Stage::Sent) => host_lost(format!(
            "host {host} was lost before it said whether the call started, so it may have run: {why}"
        )),
        (Broken::Lost(why), Stage::Started) => {
            host_lost(format!("host {host} was lost after the call had started: {why}"))
        }
    }
}

fn host_lost(message: String) -> Fault {
    Fault::new(FaultKind::HostLost, message)
        .help("call again if running twice does no harm; `idempotent = true` in orb.toml lets orb do that")
}

/// The caller's deadline has passed.
pub(super) fn too_late(timeout: Duration) -> Fault {
    Fault::new(
        FaultKind::DeadlineExceeded,
        format!("no answer within the caller's {} ms", timeout.as_millis()),
    )
    .help("the call may have run; allow it more time (--timeout)")
}

/// No host is left to be tried.
pub(super) fn no_host_left(failed: &[FailedAttempt], note: &str) -> Fault {
    let of_kind = |kind| failed.iter().find(|attempt| attempt.fault.kind == kind);
    // What may have run says so, and what is overloaded may be called again.
    for kind in [FaultKind::HostLost, FaultKind::Overloaded] {
        if let Some(attempt) = of_kind(kind) {
            return attempt.fault.clone();
        }
    }
    let mut message = match failed.is_empty() {
        true if note.is_empty() => "no live host is ready for this function".to_owned(),
        true => format!("no live host is ready for this function: {note}"),
        false => "none of the hosts that hold this function answered:".to_owned(),
    };
    for attempt in failed {
        let _ = write!(message, "\n  {}: {}", attempt.host.short(), attempt.fault);
    }
    Fault::new(FaultKind::NoLiveHost, message)
        .help("`orb inspect` shows where the function is held; start a host with `orb node`")
}
