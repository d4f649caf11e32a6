//! Serves calls: who may, what runs, and how it ends.
//!
//! A call's task runs the guest and answers the stream side by side. When the connection is lost the
//! answering ends and the running goes on, for whoever attaches; when the caller gives up, both end.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use orb_protocol::fault::{Fault, FaultKind};
use orb_protocol::holder::Answer;
use orb_protocol::id::NodeId;
use orb_protocol::manifest::{Kind, Publish, Verified};
use orb_protocol::quic::Connection;
use orb_protocol::quic::frames::take_end;
use orb_protocol::wire::call::{Attach, Call, HOPS_MAX, Started, Trailer};
use orb_protocol::wire::extension::Extensions;
use orb_runtime::{CallContext, Event, GuestFault, Input, Job, Limits, Outcome};
use quinn::{RecvStream, SendStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::Host;
use super::answer::{answer, refuse};
use super::driver::artifact_file;
use super::intake::{First, Intake, too_large};
use super::queue::{Ask, Caller, TurnedAway};
use super::requests::{Begun, Runner};
use crate::faults;

/// The longest deadline that a host keeps to, whatever the caller says: ten times the highest time
/// limit that an operator gives by default.
pub(super) const DEADLINE_MAX: Duration = Duration::from_secs(600);
/// How long a caller that knows of a newer revision waits for it here, before it is sent elsewhere:
/// fetching and compiling a small module takes less.
const REFRESH_MAX: Duration = Duration::from_secs(2);
/// The part of the caller's time that this may take.
const REFRESH_SHARE: u32 = 4;
/// Pieces of a streamed input that wait for the guest; a piece has at most 64 KiB.
const INPUT_PIECES_MAX: usize = 4;

/// Runs a function for a caller.
pub(crate) async fn handle_call(
    host: &Arc<Host>,
    connection: &Connection,
    call: Call,
    send: SendStream,
    recv: RecvStream,
) {
    let caller = connection.peer();
    match host.requests.begin(caller, call.request, call.function) {
        Ok(Begun::New(runner, reader)) => {
            let run = run(host, caller, &call, recv, Arc::new(runner));
            tokio::join!(run, answer(reader, send, &host.offences));
        }
        // The same call again, after an answer that did not arrive: it runs only once.
        Ok(Begun::Known(reader)) => answer(reader, send, &host.offences).await,
        Err(fault) => refuse(send, fault).await,
    }
}

/// Goes on with a call whose connection was lost.
pub(crate) async fn handle_attach(
    host: &Arc<Host>,
    connection: &Connection,
    attach: &Attach,
    send: SendStream,
) {
    match host.requests.attach(connection.peer(), attach.request) {
        Some(reader) => answer(reader, send, &host.offences).await,
        None => {
            let message = format!(
                "this host does not know the request {} of this caller (any more)",
                attach.request
            );
            let fault = Fault::new(FaultKind::HostLost, message);
            refuse(
                send,
                fault.help("the call may have run: call again if that does no harm"),
            )
            .await;
        }
    }
}

async fn run(host: &Arc<Host>, caller: NodeId, call: &Call, recv: RecvStream, runner: Arc<Runner>) {
    let end = tokio::select! {
        biased;
        () = runner.cancelled() => {
            tracing::debug!(request = %call.request, "cancelled");
            return;
        }
        end = run_to_end(host, caller, call, recv, &runner) => end,
    };
    if let Err(fault) = &end {
        let function = call.function;
        tracing::debug!(%function, request = %call.request, kind = fault.kind.label(), %fault, "not started");
    }
    runner.end(end);
}

/// A trailer if the guest was entered, or may have been; else the fault.
async fn run_to_end(
    host: &Arc<Host>,
    caller: NodeId,
    call: &Call,
    mut recv: RecvStream,
    runner: &Arc<Runner>,
) -> Result<Trailer, Fault> {
    let arrived = Instant::now();
    let deadline = arrived + Duration::from_micros(call.remaining_us).min(DEADLINE_MAX);
    check_host(host, call)?;
    let manifest = manifest(host, call, deadline).await?;
    let publish = manifest
        .publish()
        .ok_or_else(|| not_here("does not know what the live revision does"))?;
    let on_behalf = check_caller(&manifest, publish, caller, call)?;
    if call.input_len.is_some_and(|len| len > publish.limits.input_bytes) {
        return Err(too_large(publish.limits.input_bytes));
    }
    let measured = host.load.measured(&call.function);
    let ask = Ask {
        function: call.function,
        caller: on_behalf,
        forecast: measured.unwrap_or_else(|| host.load.mean()),
        measured: measured.is_some(),
        remaining: deadline.saturating_duration_since(Instant::now()),
    };
    let place = host.queue.enter(&ask).map_err(|away| overloaded(host, away))?;
    let mut intake = Intake::new(
        &mut recv,
        call.input_len,
        publish.limits.input_bytes,
        &host.offences,
    );
    let start = || runner.start(started(&manifest, publish, call));
    let input = match before(deadline, take(host, publish, &mut intake, start)).await {
        Ok(Ok(input)) => input,
        Ok(Err(fault)) | Err(fault) => return runner.ended_early(fault),
    };
    let turn = match before(deadline, place.turn()).await {
        Ok(Ok(turn)) => turn,
        Ok(Err(away)) => return runner.ended_early(overloaded(host, away)),
        Err(fault) => return runner.ended_early(fault),
    };
    let queued = arrived.elapsed();
    let guest = Guest {
        host,
        runner,
        call,
        manifest: &manifest,
        publish,
        deadline,
    };
    let outcome = match input {
        Taken::Whole(bytes) => guest.run(bytes.into()).await,
        Taken::Stream => {
            let (pieces, input) = mpsc::channel(INPUT_PIECES_MAX);
            tokio::select! {
                biased;
                outcome = guest.run(Input::Stream(input)) => outcome,
                fault = intake.feed(pieces) => return runner.ended_early(fault),
            }
        }
    };
    drop(turn);
    take_end(&mut recv);
    guest.end(outcome, queued).await
}

/// Whether this host takes calls at all.
fn check_host(host: &Host, call: &Call) -> Result<(), Fault> {
    if host.is_draining() {
        let fault = Fault::new(
            FaultKind::Overloaded,
            "this host is draining: it takes no new calls and is about to end",
        );
        return Err(fault.help("call another host"));
    }
    if let Some(pause) = host.pauses.now() {
        let message = format!("this host is paused by its operator's policy ({pause})");
        return Err(Fault::new(FaultKind::Overloaded, message).help("call another host"));
    }
    if call.hops > HOPS_MAX {
        let message = format!(
            "the call was passed on {} times, at most {HOPS_MAX} are allowed",
            call.hops
        );
        let fault = Fault::new(FaultKind::Refused, message);
        return Err(fault.help("look for gateways that call each other in a circle"));
    }
    Ok(())
}

/// The revision that answers.
async fn manifest(host: &Host, call: &Call, deadline: Instant) -> Result<Box<Verified>, Fault> {
    let now = Instant::now();
    let patience = deadline.saturating_duration_since(now) / REFRESH_SHARE;
    let until = now + patience.min(REFRESH_MAX);
    let answer = host
        .replicas
        .answer_refreshed(&call.function, call.known, until)
        .await;
    match answer {
        Answer::Serve(manifest) => Ok(manifest),
        Answer::Decommissioned => {
            let fault = Fault::new(
                FaultKind::Decommissioned,
                "the function was decommissioned by its owner",
            );
            Err(fault.help("the owner can publish it again with `orb deploy --resurrect`"))
        }
        Answer::NotHeld => Err(not_here("does not hold the function, or not yet")),
        Answer::Refresh(_) => Err(not_here(&format!(
            "is not ready for revision {}, which the caller knows of",
            call.known.revision
        ))),
        Answer::CutOff => Err(not_here(
            "has not heard from a super node for too long to know what has changed",
        )),
    }
}

/// The fault of a host that cannot answer where another one may.
fn not_here(why: &str) -> Fault {
    Fault::new(FaultKind::NoLiveHost, format!("this host {why}")).help("call another host")
}

/// Whether the caller may call the function, and for whom the call counts.
fn check_caller(
    manifest: &Verified,
    publish: &Publish,
    caller: NodeId,
    call: &Call,
) -> Result<Caller, Fault> {
    let Some(allowed) = &publish.visibility.callers else {
        return Ok(Caller::Node(caller));
    };
    let name = &manifest.manifest().name;
    let refused = |why: String| {
        Fault::new(
            FaultKind::Refused,
            format!("{name} is not public (its `visibility`): {why}"),
        )
        .help("call as its owner or as one of the keys that its owner lists")
    };
    let Some(credential) = &call.credential else {
        return Err(refused(
            "the call does not say on whose behalf it is made".to_owned(),
        ));
    };
    let now_ms = now_unix_ms();
    let owner = credential.verify(&caller, now_ms).map_err(|_| {
        match now_ms.checked_sub(credential.expires_ms) {
            // Callers make one for each call: then a clock is wrong, and not the caller.
            Some(late_ms @ 1..) => refused(format!(
                "the call's credential expired {} s ago by this host's clock",
                late_ms.div_ceil(1_000)
            ))
            .help("a clock is wrong: `orb doctor` compares this machine's with the super node's, and another host may be right"),
            _ => refused("the call's credential is forged or another node's".to_owned()),
        }
    })?;
    if owner != manifest.manifest().owner && !allowed.contains(&owner) {
        return Err(refused(format!("the key {owner} is not on its list")));
    }
    Ok(Caller::Owner(owner))
}

fn overloaded(host: &Host, away: TurnedAway) -> Fault {
    host.offences.calls_turned_away.add();
    let TurnedAway {
        retry_after,
        running,
        waiting,
    } = away;
    let message = format!("this host is overloaded: {running} calls run and {waiting} wait");
    let fault = Fault::new(FaultKind::Overloaded, message);
    Fault {
        retry_after_ms: u32::try_from(retry_after.as_millis()).ok(),
        ..fault.help("call another host, or again a little later")
    }
}

/// An input as it goes to the guest.
enum Taken {
    Whole(Bytes),
    Stream,
}

/// Takes the input as far as the guest needs it to begin. Calls `start` if that is more than a host
/// may take of a call that has not started.
async fn take(
    host: &Host,
    publish: &Publish,
    intake: &mut Intake<'_>,
    start: impl FnOnce(),
) -> Result<Taken, Fault> {
    let whole = publish.kind == Kind::JavyFunction;
    if !whole && !intake.is_short() {
        return Ok(Taken::Stream);
    }
    match intake.first().await? {
        First::Whole(bytes) => Ok(Taken::Whole(bytes)),
        First::Part(first) => {
            let _room = host.inputs.reserve(intake.len_max()).await;
            // Its input has to be whole before it begins, and the caller sends no more before that.
            start();
            Ok(Taken::Whole(intake.rest(first).await?))
        }
    }
}

/// Waits for something, but not beyond the caller's deadline.
async fn before<F: Future>(deadline: Instant, future: F) -> Result<F::Output, Fault> {
    timeout_at(deadline, future)
        .await
        .map_err(|_| faults::from_guest(&GuestFault::Deadline))
}

fn started(manifest: &Verified, publish: &Publish, call: &Call) -> Started {
    let started = Started {
        version: manifest.version(),
        content_type: publish.content_type.clone(),
        idempotent: publish.idempotent,
        extensions: Extensions::none(),
    };
    if started.version > call.known {
        started.with_proof(manifest.signed())
    } else {
        started
    }
}

/// One run of a guest.
struct Guest<'a> {
    host: &'a Arc<Host>,
    runner: &'a Arc<Runner>,
    call: &'a Call,
    manifest: &'a Verified,
    publish: &'a Publish,
    deadline: Instant,
}

impl Guest<'_> {
    async fn run(&self, input: Input) -> Outcome {
        let job = self.job(input);
        let runner = Arc::clone(self.runner);
        let started = started(self.manifest, self.publish, self.call);
        let (logs, function, request) = (Arc::clone(&self.host.logs), self.call.function, self.call.request);
        let mut log = None;
        let on_event = move |event| match event {
            Event::Started => runner.start(started.clone()),
            Event::Output(piece) => runner.output(piece),
            Event::Log(piece) => log
                .get_or_insert_with(|| logs.begin(function, request))
                .write(&piece),
        };
        self.host.executors.run(job, on_event).await
    }

    fn job(&self, input: Input) -> Job {
        Job {
            artifact: artifact_file(&self.host.objects, self.publish.artifact),
            context: CallContext {
                function: self.manifest.manifest().name.to_string(),
                revision: self.manifest.version().revision,
                request_id: self.call.request.to_string(),
                deadline: Some(self.deadline.saturating_duration_since(Instant::now())),
            },
            limits: limits(self.publish),
            input,
        }
    }

    /// What the caller is told, and what this host makes of it for itself.
    async fn end(&self, outcome: Outcome, queued: Duration) -> Result<Trailer, Fault> {
        let function = self.call.function;
        let failed = outcome.result.as_ref().err();
        let host_failed = failed.is_some_and(is_the_hosts);
        self.host.load.on_call(function, outcome.time_guest, host_failed);
        if let Some(GuestFault::Artifact { .. }) = failed {
            self.host
                .replicas
                .on_damaged(function, self.publish.artifact)
                .await;
        }
        if host_failed {
            tracing::warn!(%function, request = %self.call.request, fault = ?failed, "a call failed here");
        }
        let fault = failed.map(faults::from_guest);
        match fault {
            Some(fault) if !self.runner.has_started() => Err(elsewhere(failed, fault)),
            fault => {
                // A guest that ended well was entered, whether its start was reported or not.
                self.runner.start(started(self.manifest, self.publish, self.call));
                Ok(trailer(&outcome, queued, fault))
            }
        }
    }
}

fn is_the_hosts(fault: &GuestFault) -> bool {
    matches!(
        fault,
        GuestFault::Artifact { .. } | GuestFault::Lost { .. } | GuestFault::Internal { .. }
    )
}

/// A damaged artifact is a matter of this host's alone: what the caller needs to know is that another
/// one may answer.
fn elsewhere(failed: Option<&GuestFault>, fault: Fault) -> Fault {
    match failed {
        Some(GuestFault::Artifact { .. }) => {
            not_here("found its copy of the function damaged, and fetches it again")
        }
        _ => fault,
    }
}

fn limits(publish: &Publish) -> Limits {
    let limits = publish.limits;
    Limits {
        fuel: limits.fuel,
        memory_bytes: limits.memory_bytes,
        time_ms: limits.time_ms,
        input_bytes: limits.input_bytes,
        output_bytes: limits.output_bytes,
        log_bytes: limits.log_bytes,
    }
}

fn trailer(outcome: &Outcome, queued: Duration, fault: Option<Fault>) -> Trailer {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    Trailer {
        fault,
        fuel: outcome.fuel,
        memory_peak_bytes: outcome.memory_peak_bytes,
        queued_us: micros(queued + outcome.time_queued),
        guest_us: micros(outcome.time_guest),
        compile_us: micros(outcome.time_compile),
        log_truncated: outcome.log_truncated,
        extensions: Extensions::none(),
    }
}

fn now_unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
