//! How a command fails: who is at fault, what happened, what to do, and the exit code.

use orb_protocol::client::{CallError, ClientError};
use orb_protocol::fault::{Fault, FaultKind, Party};
use orb_protocol::quic::BindError;
use serde::Serialize;

use crate::config::FileError;
use crate::store::datadir::DataDirError;

/// What ends a command without its result.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    /// A word for programs: a fault's label, or one of this file's.
    pub(crate) kind: &'static str,
    /// Who has to do something about it.
    pub(crate) fault: Party,
    /// What happened; the first line says it all.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) help: String,
    /// The guest's stack trace, if there is one.
    pub(crate) stack: Option<String>,
    /// When it may make sense to try again, in milliseconds.
    pub(crate) retry_after_ms: Option<u32>,
    /// The command's exit code.
    pub(crate) exit: u8,
}

/// A failure in JSON: `{"error": {…}}`.
#[derive(Serialize)]
struct Document<'a> {
    error: Body<'a>,
}

#[derive(Serialize)]
struct Body<'a> {
    kind: &'a str,
    fault: Party,
    message: &'a str,
    help: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    stack: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u32>,
}

impl Failure {
    /// A failure of this kind. Exit code 1 and the caller's fault, unless said otherwise.
    pub(crate) fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            fault: Party::Caller,
            message: message.into(),
            help: "mend what the message names, and try again".to_owned(),
            stack: None,
            retry_after_ms: None,
            exit: 1,
        }
    }

    /// The command was given something that it does not take. Exit code 2.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new("usage", message)
            .exit(2)
            .help("see `orb COMMAND --help`")
    }

    /// A configuration file, a project file or a variable says something that does not hold. Exit code 2.
    pub(crate) fn config(message: impl Into<String>) -> Self {
        Self::new("config", message).exit(2)
    }

    /// This machine did not do what it was asked to: a disk, a process, a permission. Exit code 1.
    pub(crate) fn local(message: impl Into<String>) -> Self {
        Self::new("local", message).party(Party::Host)
    }

    /// What went wrong is in the command's own result: only the exit code is left to tell.
    pub(crate) fn shown(exit: u8) -> Self {
        Self::new("shown", "").exit(exit)
    }

    /// Whether there is nothing left to tell.
    pub(crate) fn is_shown(&self) -> bool {
        self.message.is_empty()
    }

    /// The same, saying what to do about it.
    #[must_use]
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }

    /// The same, at somebody's fault.
    #[must_use]
    pub(crate) fn party(mut self, fault: Party) -> Self {
        self.fault = fault;
        self
    }

    /// The same with another exit code.
    #[must_use]
    pub(crate) fn exit(mut self, exit: u8) -> Self {
        self.exit = exit;
        self
    }

    /// What `--json` prints.
    pub(crate) fn to_json(&self) -> String {
        let body = Body {
            kind: self.kind,
            fault: self.fault,
            message: &self.message,
            help: &self.help,
            stack: self.stack.as_deref(),
            retry_after_ms: self.retry_after_ms,
        };
        serde_json::to_string(&Document { error: body }).expect("strings and numbers always become JSON")
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self {
            kind: fault.kind.label(),
            fault: fault.kind.party(),
            message: fault.message,
            help: if fault.help.is_empty() {
                usual_help(fault.kind).to_owned()
            } else {
                fault.help
            },
            stack: fault.stack,
            retry_after_ms: fault.retry_after_ms,
            exit: fault.kind.exit_code(),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        error.fault.into()
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        error.fault.into()
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        let failure = Self::config(error.to_string());
        match error {
            FileError::Line { .. } => {
                failure.help("mend that line; unknown keys are errors, so that a typo is noticed")
            }
            _ => failure,
        }
    }
}

impl From<anyhow::Error> for Failure {
    /// Keeps what a daemon or a library says in its own terms; everything else is exit code 1.
    fn from(error: anyhow::Error) -> Self {
        let error = match error.downcast::<Self>() {
            Ok(failure) => return failure,
            Err(error) => error,
        };
        let error = match error.downcast::<Fault>() {
            Ok(fault) => return fault.into(),
            Err(error) => error,
        };
        if let Some(folder) = error.downcast_ref::<DataDirError>() {
            return Self::data_folder(folder);
        }
        match error.downcast_ref::<BindError>() {
            // Its text names its source already.
            Some(bind) if error.chain().next().is_some_and(|first| first.is::<BindError>()) => {
                Self::local(bind.to_string()).help("end what uses it, or name another one with --listen")
            }
            _ => Self::local(format!("{error:#}")),
        }
    }
}

impl Failure {
    /// A daemon's folder that it cannot use.
    pub(crate) fn data_folder(error: &DataDirError) -> Self {
        let message = error.to_string();
        match error {
            DataDirError::Newer { .. } => Self::from(Fault::new(FaultKind::VersionMismatch, message))
                .party(Party::Host)
                .help("update orb, or name another folder with --data"),
            DataDirError::WrongRole { .. } | DataDirError::Foreign { .. } => {
                Self::config(message).help("name an empty or a new folder with --data")
            }
            DataDirError::InUse { .. } => {
                Self::local(message).help("stop the other daemon, or name another folder with --data")
            }
            DataDirError::Io { .. } => Self::local(message).help(
                "give it room on the disk and this user's permission, or name another folder with --data",
            ),
            DataDirError::Key(_) => Self::local(message),
        }
    }
}

/// What to do about a fault when whoever noticed it did not say.
fn usual_help(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::NotFound => "look at `orb list`, or deploy it first with `orb deploy`",
        FaultKind::Decommissioned => {
            "its owner ended it; the owner can publish it again with `orb deploy --resurrect`"
        }
        FaultKind::NoLiveHost => {
            "see `orb inspect` for where its replicas are, and `orb doctor` for this machine's side"
        }
        FaultKind::HostLost => "the call may have run: call again if running it twice does no harm",
        FaultKind::DeadlineExceeded => "the call may have run; give it longer with --timeout",
        FaultKind::Trap | FaultKind::ExitCode | FaultKind::Thrown => {
            "the function failed, not the network: try the same input with `orb run`"
        }
        FaultKind::UnsettledPromise => "await something that settles; a host runs no event loop for ever",
        FaultKind::BadOutput => "return what JSON can hold: no BigInt, no cycle, no function",
        FaultKind::FuelExhausted => "make it do less, or raise `fuel` under [limits] in orb.toml",
        FaultKind::MemoryLimit => "make it hold less, or raise `memory_bytes` under [limits] in orb.toml",
        FaultKind::TimeLimit => "make it faster, or raise `time_ms` under [limits] in orb.toml",
        FaultKind::OutputLimit => "answer less, or raise `output_bytes` under [limits] in orb.toml",
        FaultKind::CompileLimit => "build the module smaller: strip it, optimize for size",
        FaultKind::Refused => "the message names the rule; ask whoever operates that node",
        FaultKind::Overloaded => "try again in a moment",
        FaultKind::InputTooLarge => "send less, or raise `input_bytes` under [limits] in orb.toml",
        FaultKind::InputInvalid => "a JavaScript function takes JSON: quote strings as '\"text\"'",
        FaultKind::Unverified => {
            "somebody sent what is not genuine: check the id in the address, and what you deployed"
        }
        FaultKind::VersionMismatch => "make sure that both sides run the same version of orb",
        FaultKind::Internal => "see the log of the node that answered",
        FaultKind::Unknown(_) => "a newer node answered: update orb",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_keeps_its_kind_and_exit_code_and_says_what_to_do() {
        for &kind in FaultKind::ALL {
            let failure = Failure::from(Fault::new(kind, "it failed"));
            assert_eq!(failure.kind, kind.label());
            assert_eq!(failure.exit, kind.exit_code());
            assert!(!failure.help.is_empty(), "{kind:?}");
        }
    }

    #[test]
    fn a_fault_inside_an_anyhow_error_is_found() {
        let error = anyhow::Error::from(Fault::new(FaultKind::Refused, "over quota"));
        assert_eq!(Failure::from(error).exit, 7);
        let error = anyhow::Error::from(Failure::config("no"));
        assert_eq!(Failure::from(error).exit, 2);
        let error = anyhow::anyhow!("disk").context("cannot store");
        assert_eq!(Failure::from(error).message, "cannot store: disk");
    }

    #[test]
    fn json_has_the_four_fields() {
        let json = Failure::usage("what?").help("that").to_json();
        assert_eq!(
            json,
            r#"{"error":{"kind":"usage","fault":"caller","message":"what?","help":"that"}}"#
        );
    }
}
