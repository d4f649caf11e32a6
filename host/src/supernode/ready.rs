//! Waiting for hosts: until they are ready for a revision, or have removed a function.

use std::time::Duration;

use orb_protocol::fault::Fault;
use orb_protocol::id::FunctionId;
use orb_protocol::wire::directory::{LOCAL, ReadyReport, RemovalReport, WaitReady, WaitRemoved};
use orb_protocol::wire::extension::Extensions;
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;

use super::peers::remote;
use super::{SuperNode, directory, faults};

/// The longest wait that is granted. Whoever wants more asks again.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// How much longer another super node may take to say that the time is over.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How many may wait at once: each is asked anew after every change, so they cost time, not memory.
pub(crate) const WAITING_MAX: usize = 1_024;
/// Hosts that are named in a report, in each of its lists: four times what a function may ask for.
const HOSTS_SHOWN_MAX: usize = 256;

/// Waits until enough hosts are ready for a version, or the time is over. Whoever waits for none is
/// answered at once, whatever the function: so one learns how many hosts there are.
pub(crate) async fn wait(node: &SuperNode, asked: &WaitReady) -> Result<ReadyReport, Fault> {
    directory::check(&asked.extensions)?;
    let _place = place(node)?;
    if asked.count > 0 {
        check_live(node, asked.function).await?;
    }
    if let Some(report) = first_waits(node, asked).await {
        return Ok(report);
    }
    let until = Instant::now() + Duration::from_millis(asked.wait_ms.into()).min(WAIT_MAX);
    let mut changes = node.driver.changes();
    loop {
        let report = node.driver.ready_report(&asked.function, asked.version);
        if report.ready.len() >= usize::from(asked.count) {
            return Ok(shortened(report));
        }
        // The driver lives as long as the node, so there always is somebody to say that it changed.
        let changed = tokio::time::timeout_at(until, changes.changed()).await;
        if changed.is_err() {
            return Ok(shortened(report));
        }
    }
}

/// Has the super node wait that places the function, if that is another one: it hears of all replicas.
async fn first_waits(node: &SuperNode, asked: &WaitReady) -> Option<ReadyReport> {
    // Nothing is waited for: it is this node's hosts that are asked about.
    if asked.count == 0 {
        return None;
    }
    let first = directory::first_elsewhere(node, asked.function, &asked.extensions)?;
    let wait = Duration::from_millis(asked.wait_ms.into()).min(WAIT_MAX) + ANSWER_MAX;
    let asked = WaitReady {
        extensions: Extensions::none().with(LOCAL, Vec::new()),
        ..asked.clone()
    };
    let answer = remote::ask_super(node, &first, asked.into(), wait).await?;
    answer
        .inspect_err(
            |fault| tracing::debug!(super_node = %first, %fault, "hosts could not be waited for there"),
        )
        .ok()
}

/// Waits until enough hosts have removed a function, or nobody is left to do it, or the time is over.
pub(crate) async fn wait_removed(node: &SuperNode, asked: &WaitRemoved) -> Result<RemovalReport, Fault> {
    directory::check(&asked.extensions)?;
    let _place = place(node)?;
    let until = Instant::now() + Duration::from_millis(asked.wait_ms.into()).min(WAIT_MAX);
    let mut changes = node.driver.changes();
    loop {
        // It names no more hosts than one removal follows.
        let report = node.driver.removal_report(&asked.function);
        let all = report.pending.is_empty() && report.offline.is_empty();
        if all || report.removed.len() >= usize::from(asked.count) {
            return Ok(report);
        }
        if tokio::time::timeout_at(until, changes.changed()).await.is_err() {
            return Ok(node.driver.removal_report(&asked.function));
        }
    }
}

fn place(node: &SuperNode) -> Result<SemaphorePermit<'_>, Fault> {
    node.waiting
        .try_acquire()
        .map_err(|_| faults::overloaded("too many wait for hosts"))
}

async fn check_live(node: &SuperNode, function: FunctionId) -> Result<(), Fault> {
    let live = directory::live(node, function).await?;
    if live.is_tombstone() {
        return Err(directory::decommissioned(&live));
    }
    Ok(())
}

fn shortened(mut report: ReadyReport) -> ReadyReport {
    report.ready.truncate(HOSTS_SHOWN_MAX);
    report.pending.truncate(HOSTS_SHOWN_MAX);
    report.refused.truncate(HOSTS_SHOWN_MAX);
    report
}
