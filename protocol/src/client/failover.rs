//! When a call may go on at another host. Pure.
//!
//! A call may have run once its first byte was written to a host, unless that host answered that it
//! did not start. That a host does not know a call is no such answer: it may have restarted.
//!
//! | how far the call was | what happened | next |
//! | --- | --- | --- |
//! | nothing was sent | the host cannot be reached | another host |
//! | sent, or not started | the host says no, and another may say yes | another host |
//! | sent, or not started | the host says what every host will say | the end |
//! | sent | the connection broke | attach; then another host if the function is idempotent |
//! | started | the connection broke | attach; then another host if the function is idempotent |
//! | started | the host failed | another host if the function is idempotent |
//! | started | the guest failed, or the deadline passed | the end |
//!
//! "If the function is idempotent" means also that the input can be sent again.

use super::error::Broken;
use crate::fault::{Fault, FaultKind, Party};

/// How far a call was at a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// The host has seen nothing of it, or has answered that it did not start.
    NotStarted,
    /// It was sent, and the host has not answered.
    Sent,
    /// The host has said that the guest is entered.
    Started,
}

/// How a call ended at a host, if not with its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) stage: Stage,
    pub(super) broken: Broken,
}

/// What to do after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask the same host for the same call's outcome.
    Attach,
    /// Make the call at another host.
    Another,
    /// Report the failure.
    End,
}

/// What is known when a host has failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Circumstances {
    /// Whether the host may still be asked to go on with the call.
    pub(super) attachable: bool,
    /// Whether the function may run twice, and the input can be sent again.
    pub(super) repeatable: bool,
}

impl Failure {
    /// What to do now.
    pub(super) fn next(&self, now: Circumstances) -> Next {
        match (&self.broken, self.stage) {
            (Broken::Lost(_), Stage::Sent | Stage::Started) if now.attachable => Next::Attach,
            (Broken::Lost(_), Stage::NotStarted) => Next::Another,
            (Broken::Lost(_), _) if now.repeatable => Next::Another,
            (Broken::Fault(fault), Stage::NotStarted) if others_may_differ(fault) => Next::Another,
            (Broken::Fault(fault), _) if now.repeatable && is_hosts_own(fault) => Next::Another,
            _ => Next::End,
        }
    }

    /// Whether the host may have run the function.
    pub(super) fn may_have_run(&self) -> bool {
        self.stage != Stage::NotStarted
    }
}

/// Whether the fault lies with the host that had it, or on the way there.
fn is_hosts_own(fault: &Fault) -> bool {
    matches!(fault.kind.party(), Party::Host | Party::Network)
}

/// Whether another host may well answer where this one would not start. One that holds the function
/// no more says that it does not know it.
fn others_may_differ(fault: &Fault) -> bool {
    is_hosts_own(fault) || fault.kind == FaultKind::NotFound
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(kind: FaultKind) -> Broken {
        Broken::Fault(Fault::new(kind, "test"))
    }

    fn lost() -> Broken {
        Broken::Lost("test".to_owned())
    }

    fn next(stage: Stage, broken: Broken, attachable: bool, repeatable: bool) -> Next {
        Failure { stage, broken }.next(Circumstances {
            attachable,
            repeatable,
        })
    }

    #[test]
    fn what_did_not_start_goes_to_another_host() {
        for kind in [
            FaultKind::Overloaded,
            FaultKind::NoLiveHost,
            FaultKind::NotFound,
            FaultKind::Internal,
        ] {
            assert_eq!(
                next(Stage::NotStarted, fault(kind), true, false),
                Next::Another,
                "{kind:?}"
            );
        }
        assert_eq!(next(Stage::NotStarted, lost(), true, false), Next::Another);
    }

    #[test]
    fn what_every_host_would_say_is_the_end() {
        let kinds = [
            FaultKind::Refused,
            FaultKind::InputTooLarge,
            FaultKind::Decommissioned,
            FaultKind::Trap,
        ];
        for kind in kinds {
            assert_eq!(
                next(Stage::NotStarted, fault(kind), true, true),
                Next::End,
                "{kind:?}"
            );
        }
    }

    #[test]
    fn a_lost_call_is_attached_to_and_then_repeated_only_if_it_may_be() {
        for stage in [Stage::Sent, Stage::Started] {
            assert_eq!(next(stage, lost(), true, true), Next::Attach);
            assert_eq!(next(stage, lost(), true, false), Next::Attach);
            assert_eq!(next(stage, lost(), false, true), Next::Another);
            assert_eq!(next(stage, lost(), false, false), Next::End);
        }
    }

    #[test]
    fn a_started_call_is_repeated_only_for_the_hosts_own_faults() {
        for kind in FaultKind::ALL {
            let hosts = matches!(kind.party(), Party::Host | Party::Network);
            let expected = if hosts { Next::Another } else { Next::End };
            assert_eq!(
                next(Stage::Started, fault(*kind), true, true),
                expected,
                "{kind:?}"
            );
            assert_eq!(
                next(Stage::Started, fault(*kind), true, false),
                Next::End,
                "{kind:?}"
            );
        }
    }
}
