//! Waiting until hosts can answer for a revision.

use orb_protocol::client::{Client, Deployed};
use orb_protocol::wire::directory::ReadyReport;
use serde::Serialize;

use super::describe;
use super::wait::{WAIT_MAX, Wait, WaitFor};
use crate::failure::Failure;
use crate::format;
use crate::output::Output;

/// Who can answer, for programs.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Readiness {
    /// Hosts that can answer.
    ready: Vec<String>,
    /// Hosts that are about to.
    pending: Vec<String>,
    /// Hosts that said no.
    refused: Vec<Refusal>,
    /// Why there are fewer than wanted; empty if there are not.
    note: String,
}

#[derive(Debug, Serialize)]
struct Refusal {
    host: String,
    reason: String,
}

impl Readiness {
    /// Waits for these hosts.
    ///
    /// # Errors
    /// When the super node cannot be asked. Too few hosts are no error.
    pub(crate) async fn wait(
        client: &Client,
        deployed: &Deployed,
        whom: WaitFor,
        out: Output,
    ) -> Result<Self, Failure> {
        let (function, version) = (deployed.manifest.function(), deployed.manifest.version());
        let goal = match whom {
            WaitFor::Nobody => return Ok(Self::not_waited_for(deployed)),
            WaitFor::Count(count) => count,
            WaitFor::Reachable => 1,
            WaitFor::All => deployed.manifest.publish().map_or(1, |publish| publish.replicas),
        };
        let mut wait = Wait::new(WAIT_MAX, out);
        let mut ready = 0;
        let mut report = ReadyReport::default();
        while let Some(time) = wait.next() {
            report = client.wait_ready(function, version, ready + 1, time).await?;
            ready = u16::try_from(report.ready.len()).unwrap_or(u16::MAX);
            let left = whom == WaitFor::Reachable && !report.pending.is_empty();
            if ready >= goal && !left {
                break;
            }
            wait.say(progress(&report, goal));
        }
        Ok(Self::of(&report, goal, &deployed.note))
    }

    fn not_waited_for(deployed: &Deployed) -> Self {
        Self {
            pending: deployed.assigned.iter().map(ToString::to_string).collect(),
            note: deployed.note.clone(),
            ..Self::default()
        }
    }

    fn of(report: &ReadyReport, wanted: u16, note: &str) -> Self {
        let refused = report.refused.iter().map(|(host, reason)| Refusal {
            host: host.to_string(),
            reason: describe::one_line(reason),
        });
        let enough = report.ready.len() >= usize::from(wanted);
        Self {
            ready: report.ready.iter().map(ToString::to_string).collect(),
            pending: report.pending.iter().map(ToString::to_string).collect(),
            refused: refused.collect(),
            note: if enough { String::new() } else { why(report, note) },
        }
    }

    /// Whether fewer hosts are ready than were wanted.
    pub(crate) fn is_short(&self) -> bool {
        !self.note.is_empty()
    }

    /// For people: who is ready, or why nobody is.
    pub(crate) fn line(&self) -> String {
        let short = |ids: &[String]| {
            ids.iter()
                .map(|id| id.get(..10).unwrap_or(id))
                .collect::<Vec<_>>()
                .join(", ")
        };
        match (self.ready.as_slice(), self.note.is_empty()) {
            ([], true) if self.pending.is_empty() => "not waited for".to_owned(),
            ([], true) => format!(
                "assigned to {}: {}",
                format::count(self.pending.len(), "host"),
                short(&self.pending)
            ),
            ([], false) => format!("no host took it yet: {}", self.note),
            (ready, true) => format!(
                "ready on {}: {}",
                format::count(ready.len(), "host"),
                short(ready)
            ),
            (ready, false) => format!(
                "ready on {} only ({}): {}",
                format::count(ready.len(), "host"),
                short(ready),
                self.note
            ),
        }
    }
}

/// For people who wait.
fn progress(report: &ReadyReport, goal: u16) -> String {
    let (ready, pending) = (report.ready.len(), report.pending.len());
    let all = (ready + pending).max(goal.into());
    let mut text = format!("ready on {ready} of {}", format::count(all, "host"));
    if !report.refused.is_empty() {
        text += &format!(", {} refused", report.refused.len());
    }
    text
}

/// Why fewer hosts are ready than were wanted.
fn why(report: &ReadyReport, note: &str) -> String {
    if report.hosts == 0 {
        return "no host is connected to the super node; it will be seeded as soon as one is".to_owned();
    }
    let mut reasons: Vec<String> = report
        .refused
        .iter()
        .map(|(host, reason)| format!("{} refused ({})", host.short(), describe::one_line(reason)))
        .collect();
    if !report.pending.is_empty() {
        reasons.push(format!(
            "{} still at it",
            format::count(report.pending.len(), "host")
        ));
    }
    if !note.is_empty() {
        reasons.push(describe::one_line(note));
    }
    if reasons.is_empty() {
        reasons.push(format!(
            "{} connected, and none of them was asked",
            format::count(report.hosts as usize, "host")
        ));
    }
    reasons.join("; ")
}

#[cfg(test)]
mod tests {
    use orb_protocol::id::NodeId;
    use orb_protocol::wire::extension::Extensions;

    use super::*;

    fn report(ready: u8, refused: &[&str], hosts: u32) -> ReadyReport {
        ReadyReport {
            ready: (0..ready).map(|i| NodeId::from_bytes([i; 32])).collect(),
            pending: Vec::new(),
            refused: refused
                .iter()
                .map(|reason| (NodeId::from_bytes([9; 32]), (*reason).to_owned()))
                .collect(),
            hosts,
            extensions: Extensions::none(),
        }
    }

    #[test]
    fn it_says_who_or_why_not() {
        let line = |report: &ReadyReport, wanted, note: &str| Readiness::of(report, wanted, note).line();
        assert!(line(&report(1, &[], 3), 1, "").starts_with("ready on 1 host: aaaaaaaaaa"));
        assert!(line(&report(1, &[], 1), 2, "").starts_with("ready on 1 host only"));
        assert!(line(&report(0, &[], 0), 1, "").contains("no host is connected"));
        let refused = line(&report(0, &["memory_bytes\nis above the ceiling"], 1), 1, "");
        assert!(
            refused.contains("refused (memory_bytes is above the ceiling)"),
            "{refused}"
        );
        assert!(line(&report(0, &[], 2), 1, "2 hosts lack room").contains("2 hosts lack room"));
    }
}
