//! Waiting until hosts have removed a function.

use orb_protocol::client::Client;
use orb_protocol::fault::FaultKind;
use orb_protocol::id::{FunctionId, NodeId};
use orb_protocol::wire::directory::RemovalReport;
use serde::Serialize;

use super::wait::{WAIT_ALL_MAX, WAIT_MAX, Wait, WaitFor};
use crate::failure::Failure;
use crate::format;
use crate::output::Output;

/// Who has removed a function, for programs.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Removal {
    /// Hosts that have confirmed it.
    removed: Vec<String>,
    /// Hosts that were told and have not confirmed it yet.
    pending: Vec<String>,
    /// Hosts that cannot be told before they come back.
    offline: Vec<String>,
    /// Whether the super node was asked, and knew.
    #[serde(skip)]
    known: bool,
}

impl Removal {
    /// Waits for these hosts.
    ///
    /// # Errors
    /// When the super node cannot be asked. Hosts that do not confirm in time are no error.
    pub(crate) async fn wait(
        client: &Client,
        function: FunctionId,
        whom: WaitFor,
        out: Output,
    ) -> Result<Self, Failure> {
        let most = if whom == WaitFor::All {
            WAIT_ALL_MAX
        } else {
            WAIT_MAX
        };
        let mut wait = Wait::new(most, out);
        let mut removal = Self::default();
        while !removal.is_enough(whom)
            && let Some(time) = wait.next()
        {
            // The first answer comes at once, and the next when one more has confirmed.
            let more = u16::from(removal.known) + u16::try_from(removal.removed.len()).unwrap_or(u16::MAX);
            let report = match client.wait_removed(function, more, time).await {
                Ok(report) => report,
                Err(error) if error.kind() == FaultKind::VersionMismatch => return Ok(removal),
                Err(error) => return Err(error.into()),
            };
            removal = Self::of(&report);
            wait.say(removal.line());
        }
        Ok(removal)
    }

    fn of(report: &RemovalReport) -> Self {
        let ids = |nodes: &[NodeId]| nodes.iter().map(ToString::to_string).collect();
        Self {
            removed: ids(&report.removed),
            pending: ids(&report.pending),
            offline: ids(&report.offline),
            known: true,
        }
    }

    fn is_enough(&self, whom: WaitFor) -> bool {
        let reachable = self.known && self.pending.is_empty();
        match whom {
            WaitFor::Nobody => true,
            WaitFor::Count(count) => {
                self.removed.len() >= usize::from(count) || reachable && self.offline.is_empty()
            }
            WaitFor::Reachable => reachable,
            WaitFor::All => reachable && self.offline.is_empty(),
        }
    }

    /// For people.
    pub(crate) fn line(&self) -> String {
        let all = self.removed.len() + self.pending.len() + self.offline.len();
        if !self.known {
            return "hosts are being told".to_owned();
        }
        if all == 0 {
            return "no host held it".to_owned();
        }
        let mut line = match self.removed.len() {
            removed if removed == all => format!("removed on {}", format::count(all, "host")),
            removed => format!("removed on {removed} of {}", format::count(all, "host")),
        };
        for (hosts, state) in [(&self.pending, "still at it"), (&self.offline, "offline")] {
            if !hosts.is_empty() {
                line += &format!(", {} {state}", hosts.len());
            }
        }
        if !self.offline.is_empty() {
            line += " (told when it comes back, before it answers)";
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use orb_protocol::wire::extension::Extensions;

    use super::*;

    fn removal(removed: u8, pending: u8, offline: u8) -> Removal {
        let nodes = |count| (0..count).map(|byte| NodeId::from_bytes([byte; 32])).collect();
        Removal::of(&RemovalReport {
            removed: nodes(removed),
            pending: nodes(pending),
            offline: nodes(offline),
            extensions: Extensions::none(),
        })
    }

    #[test]
    fn a_person_reads_how_far_it_is() {
        let line = |removed, pending, offline| removal(removed, pending, offline).line();
        assert_eq!(line(5, 0, 0), "removed on 5 hosts");
        assert!(line(4, 0, 1).starts_with("removed on 4 of 5 hosts, 1 offline"));
        assert!(line(2, 2, 1).starts_with("removed on 2 of 5 hosts, 2 still at it, 1 offline"));
        assert_eq!(line(0, 0, 0), "no host held it");
        assert_eq!(Removal::default().line(), "hosts are being told");
    }

    #[test]
    fn it_is_enough_as_soon_as_those_have_removed_it_who_are_waited_for() {
        let cases = [
            (removal(4, 0, 1), [true, true, true, false]),
            (removal(2, 1, 0), [true, true, false, false]),
            (removal(1, 1, 0), [true, false, false, false]),
            (removal(1, 0, 0), [true, true, true, true]),
            (removal(0, 0, 1), [true, false, true, false]),
            (Removal::default(), [true, false, false, false]),
        ];
        let whom = [
            WaitFor::Nobody,
            WaitFor::Count(2),
            WaitFor::Reachable,
            WaitFor::All,
        ];
        for (removal, enough) in cases {
            assert_eq!(whom.map(|whom| removal.is_enough(whom)), enough, "{removal:?}");
        }
    }
}
