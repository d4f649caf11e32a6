//! One call, from host to host until one answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::attempt::{Attempt, Outcome, Progress, is_unknown_call};
use super::body::{Input, Output};
use super::call::{CallOptions, CallReport, CallTimes};
use super::directory::Resolution;
use super::error::{Broken, CallError, FailedAttempt};
use super::failover::{Circumstances, Failure, Next, Stage};
use super::hosts::HostConnection;
use super::{Inner, random, retry, verdict};
use crate::fault::{Fault, FaultKind, Party};
use crate::id::{FunctionId, NodeId, RequestId};
use crate::manifest::{Publish, Version};
use crate::wire::call::{Attach, Call, Started};
use crate::wire::extension::Extensions;

/// Hosts that one call is tried at, one host twice counted twice: each that fails may cost seconds.
const ATTEMPTS_MAX: usize = 6;
/// How often the super node is asked who can answer: a host that could not be reached is tried again
/// in the second round, if it is still said to live.
const ROUNDS: usize = 2;
/// What is waited before each attach: a host whose network changes or whose super node restarts is
/// back within a second or two; one that was killed should not cost much more.
const ATTACH_AFTER: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(500),
    Duration::from_millis(1_500),
];
/// How many of these are made for a call that has started and can be repeated: then it goes to another
/// host instead. One that has not started goes there at once.
const ATTACHES_IF_REPEATABLE: usize = 1;
/// What stands for no deadline, where the caller's lies beyond what a clock can say.
const FAR: Duration = Duration::from_secs(1 << 32);

/// Makes a call within its deadline.
pub(super) async fn dispatch(
    client: &Inner,
    function: FunctionId,
    options: &CallOptions,
    input: &mut Input,
    output: &mut Output,
) -> Result<CallReport, CallError> {
    let begun = Instant::now();
    let (request, unnamed) = match options
        .request
        .map_or_else(random::bytes, |id| Ok(*id.as_bytes()))
    {
        Ok(bytes) => (RequestId::from_bytes(bytes), None),
        Err(fault) => (RequestId::from_bytes([0; 16]), Some(fault)),
    };
    let mut dispatch = Dispatch {
        client,
        function,
        options,
        request,
        begun,
        deadline: begun.checked_add(options.timeout).unwrap_or_else(|| begun + FAR),
        times: CallTimes::default(),
        tried: HashMap::new(),
        failed: Vec::new(),
        progress: Progress::default(),
        may_have_run: false,
        report: None,
    };
    let result = match unnamed {
        Some(fault) => Err(fault),
        None => timeout_at(dispatch.deadline, dispatch.run(input, output))
            .await
            .unwrap_or_else(|_| Err(verdict::too_late(options.timeout))),
    };
    result.map_err(|fault| dispatch.error(fault))
}

/// A host that was tried.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tried {
    /// It could not be reached, or had not got the call, in this round.
    Unreached(usize),
    /// It has had its say.
    Done,
}

/// Why an attach brought no outcome.
enum NotAttached {
    /// The host could not be asked, so nothing new is known.
    Unreached,
    /// The host does not know the call: it never had it, or has its outcome no more.
    Unknown(Fault),
    /// What the host said, or that it was lost again.
    Failed(Failure),
}

struct Dispatch<'a> {
    client: &'a Inner,
    function: FunctionId,
    options: &'a CallOptions,
    request: RequestId,
    begun: Instant,
    deadline: Instant,
    times: CallTimes,
    tried: HashMap<NodeId, Tried>,
    failed: Vec<FailedAttempt>,
    /// At the host that is being tried.
    progress: Progress,
    /// At one of those before.
    may_have_run: bool,
    report: Option<Box<CallReport>>,
}

impl Dispatch<'_> {
    /// Goes round the hosts, and again after a while if all of them have too much to do.
    async fn run(&mut self, input: &mut Input, output: &mut Output) -> Result<CallReport, Fault> {
        let mut again = 0;
        loop {
            let before = self.failed.len();
            let fault = match self.go_round(input, output).await {
                Ok(report) => {
                    self.client.retries.on_answer();
                    return Ok(report);
                }
                Err(fault) => fault,
            };
            let Some(until) = self.may_ask_again(&fault, before, again) else {
                return Err(fault);
            };
            sleep_until(until).await;
            self.tried.clear();
            again += 1;
        }
    }

    /// When hosts that had too much to do are asked once more, if that is worth it.
    fn may_ask_again(&self, fault: &Fault, before: usize, again: u32) -> Option<Instant> {
        let asked_enough = again >= self.options.overload_retries || self.failed.len() >= ATTEMPTS_MAX;
        if fault.kind != FaultKind::Overloaded || self.may_have_run || asked_enough {
            return None;
        }
        let [random] = random::bytes().unwrap_or_default();
        let pause = retry::pause(self.failed.get(before..)?, again, random)?;
        let until = Instant::now().checked_add(pause)?;
        (until < self.deadline && self.client.retries.take()).then_some(until)
    }

    async fn go_round(&mut self, input: &mut Input, output: &mut Output) -> Result<CallReport, Fault> {
        let first = self.failed.len();
        let mut note = String::new();
        for round in 0..ROUNDS {
            let resolution = self.resolve(round == 0, input).await?;
            while let Some(host) = self.next_host(&resolution, round) {
                let failure = match self.try_host(host, &resolution, input, output).await {
                    Ok(report) => return Ok(report),
                    Err(failure) => failure,
                };
                let now = Circumstances {
                    attachable: false,
                    repeatable: self.is_repeatable(&resolution, input, output),
                };
                let fault = self.note(host, &failure, round);
                if failure.next(now) == Next::End {
                    return Err(fault);
                }
            }
            note.clone_from(&resolution.note);
        }
        let failed = self.failed.get(first..).unwrap_or_default();
        Err(verdict::no_host_left(failed, &note))
    }

    /// Who can answer, and whether they would take this input.
    async fn resolve(&mut self, remembered: bool, input: &Input) -> Result<Arc<Resolution>, Fault> {
        if remembered
            && let Some(resolution) = self.client.memory.resolution(&self.function)
            && verdict::check_input(publish(&resolution), input).is_ok()
        {
            return Ok(resolution);
        }
        let since = Instant::now();
        let resolution = Box::pin(self.client.resolve(self.function)).await;
        self.times.resolve += since.elapsed();
        let resolution = resolution?;
        verdict::check_input(publish(&resolution), input)?;
        Ok(resolution)
    }

    /// The best host that has not been tried, or not been reached in an earlier round.
    fn next_host(&self, resolution: &Resolution, round: usize) -> Option<NodeId> {
        if self.failed.len() >= ATTEMPTS_MAX {
            return None;
        }
        let may_be_tried = |host: &NodeId| match self.tried.get(host) {
            None => true,
            Some(Tried::Unreached(then)) => *then < round,
            Some(Tried::Done) => false,
        };
        resolution.hosts.iter().map(|hint| hint.node).find(may_be_tried)
    }

    /// Remembers a failure, and says it as a fault.
    fn note(&mut self, host: NodeId, failure: &Failure, round: usize) -> Fault {
        let fault = verdict::fault_of(host, failure);
        let unreached = failure.stage == Stage::NotStarted && fault.kind == FaultKind::NoLiveHost;
        self.tried.insert(
            host,
            if unreached {
                Tried::Unreached(round)
            } else {
                Tried::Done
            },
        );
        self.may_have_run |= failure.may_have_run();
        let guests_or_callers = matches!(fault.kind.party(), Party::Guest | Party::Caller);
        if !guests_or_callers || matches!(fault.kind, FaultKind::NotFound | FaultKind::Decommissioned) {
            self.client.memory.forget_resolution(&self.function);
        }
        self.failed.push(FailedAttempt {
            host,
            fault: fault.clone(),
        });
        fault
    }

    /// Makes the call at a host, and stays with it for as long as it may have the call's outcome.
    async fn try_host(
        &mut self,
        node: NodeId,
        resolution: &Resolution,
        input: &mut Input,
        output: &mut Output,
    ) -> Result<CallReport, Failure> {
        self.progress = Progress::default();
        let known = self.known(resolution);
        let once = !publish(resolution).is_some_and(|publish| publish.idempotent);
        let host = self.connect(node, once).await?;
        let request = self.call_request(resolution, known, input).into();
        let attempt = Attempt {
            host: &host,
            request: &request,
            known,
            progress: &self.progress,
        };
        let failure = match attempt.call(input, output).await {
            Ok(outcome) => return self.conclude(&host, outcome).map_err(failed_there),
            Err(failure) => failure,
        };
        Box::pin(self.stay_with(node, failure, known, resolution, input, output)).await
    }

    /// Attaches to the call at a host whose connection was lost, a few times.
    async fn stay_with(
        &mut self,
        node: NodeId,
        mut failure: Failure,
        known: Version,
        resolution: &Resolution,
        input: &Input,
        output: &mut Output,
    ) -> Result<CallReport, Failure> {
        for (tries, pause) in ATTACH_AFTER.into_iter().enumerate() {
            let repeatable = self.is_repeatable(resolution, input, output);
            // A host that has not got the whole input cannot go on.
            let attachable = self.progress.input_sent();
            let worth_it = failure.stage == Stage::Started && tries < ATTACHES_IF_REPEATABLE;
            let attachable = attachable && (!repeatable || worth_it);
            if failure.next(Circumstances {
                attachable,
                repeatable,
            }) != Next::Attach
            {
                break;
            }
            sleep(pause).await;
            match self.attach(node, known, output).await {
                Ok((host, outcome)) => return self.conclude(&host, outcome).map_err(failed_there),
                Err(NotAttached::Unreached) => {}
                Err(NotAttached::Failed(newer)) => failure = newer,
                Err(NotAttached::Unknown(why)) => {
                    failure.broken = Broken::Lost(why.to_string());
                    break;
                }
            }
        }
        Err(failure)
    }

    /// Asks a host for the outcome of a call whose connection was lost.
    async fn attach(
        &mut self,
        node: NodeId,
        known: Version,
        output: &mut Output,
    ) -> Result<(HostConnection, Outcome), NotAttached> {
        let host = self
            .connect(node, true)
            .await
            .map_err(|_| NotAttached::Unreached)?;
        let request = Attach {
            request: self.request,
            extensions: Extensions::none(),
        }
        .into();
        let attempt = Attempt {
            host: &host,
            request: &request,
            known,
            progress: &self.progress,
        };
        match attempt.attach(output).await {
            Ok(outcome) => Ok((host, outcome)),
            Err(Failure {
                broken: Broken::Fault(fault),
                ..
            }) if is_unknown_call(&fault) => Err(NotAttached::Unknown(fault)),
            Err(failure) => Err(NotAttached::Failed(failure)),
        }
    }

    /// A connection to a host; `once`, if what is sent there must not be sent twice.
    async fn connect(&mut self, node: NodeId, once: bool) -> Result<HostConnection, Failure> {
        let since = Instant::now();
        let connected = self.client.hosts.connect(node, &self.client.uplink, once).await;
        self.times.connect += since.elapsed();
        connected.map_err(|fault| Failure {
            stage: self.progress.stage(),
            broken: fault.into(),
        })
    }

    fn call_request(&self, resolution: &Resolution, known: Version, input: &Input) -> Call {
        let asks = publish(resolution).is_some_and(|publish| publish.visibility.callers.is_some());
        let remaining = self.deadline.saturating_duration_since(Instant::now());
        Call {
            request: self.request,
            function: self.function,
            known,
            remaining_us: u64::try_from(remaining.as_micros()).unwrap_or(u64::MAX),
            input_len: input.len(),
            credential: if asks { self.client.credential() } else { None },
            trace: self.options.trace,
            hops: self.options.hops,
            extensions: Extensions::none(),
        }
    }

    /// The version that an answer must not fall behind.
    fn known(&self, resolution: &Resolution) -> Version {
        self.client
            .memory
            .newest(&self.function)
            .max(resolution.manifest.version())
    }

    /// Whether the call may run twice, and can.
    fn is_repeatable(&self, resolution: &Resolution, input: &Input, output: &Output) -> bool {
        // A host that has started knows better: it may have a newer revision.
        let idempotent = match self.progress.stage() {
            Stage::Started => self.progress.idempotent(),
            _ => publish(resolution).is_some_and(|publish| publish.idempotent),
        };
        idempotent && input.can_be_sent_again() && output.can_be_replaced()
    }

    /// What a host said at the end of a call.
    fn conclude(&mut self, host: &HostConnection, outcome: Outcome) -> Result<CallReport, Fault> {
        let Outcome { started, trailer } = outcome;
        self.remember(&started);
        let report = CallReport {
            request: self.request,
            host: host.connection.peer(),
            version: started.version,
            content_type: started.content_type,
            path: host.connection.path().label().to_owned(),
            attempts: u32::try_from(self.failed.len() + 1).unwrap_or(u32::MAX),
            fuel: trailer.fuel,
            memory_peak_bytes: trailer.memory_peak_bytes,
            times: CallTimes {
                total: self.begun.elapsed(),
                queued: Duration::from_micros(trailer.queued_us),
                guest: Duration::from_micros(trailer.guest_us),
                compile: Duration::from_micros(trailer.compile_us),
                ..self.times
            },
            log_truncated: trailer.log_truncated,
        };
        match trailer.fault {
            None => Ok(report),
            Some(fault) => {
                self.report = Some(Box::new(report));
                Err(fault)
            }
        }
    }

    /// Remembers a version that is news, if its owner's signature came with it. A mere claim is not
    /// believed, but is a reason to ask the super node before the next call.
    fn remember(&self, started: &Started) {
        let memory = &self.client.memory;
        if started.version <= memory.newest(&self.function) {
            return;
        }
        if started.is_proven(&self.function) {
            memory.saw(self.function, started.version);
        } else {
            memory.forget_resolution(&self.function);
        }
    }

    fn error(self, fault: Fault) -> CallError {
        CallError {
            fault,
            request: self.request,
            may_have_run: self.may_have_run || self.progress.stage() != Stage::NotStarted,
            attempts: self.failed,
            report: self.report,
        }
    }
}

/// A host's word at the end of a call that it started.
fn failed_there(fault: Fault) -> Failure {
    Failure {
        stage: Stage::Started,
        broken: fault.into(),
    }
}

fn publish(resolution: &Resolution) -> Option<&Publish> {
    resolution.manifest.publish()
}
