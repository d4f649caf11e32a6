//! One exchange about a call with one host: the call itself, or an attach to it.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::sync::Notify;

use super::body::{Input, Output};
use super::error::Broken;
use super::exchange::{Exchange, unless_dead, unless_silent};
use super::failover::{Failure, Stage};
use super::hosts::HostConnection;
use crate::fault::{Fault, FaultKind};
use crate::manifest::Version;
use crate::quic::body::BodyReader;
use crate::quic::frames::{FrameError, read_message};
use crate::wire::call::{Started, Trailer};
use crate::wire::codec::MESSAGE_LEN_MAX;
use crate::wire::{Reply, Request};

/// What a host said about a call that it carried out, well or not.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) started: Started,
    pub(super) trailer: Trailer,
}

/// A call's progress at a host. It outlives the attempt, so that a deadline finds it.
#[derive(Debug, Default)]
pub(super) struct Progress {
    sent: AtomicBool,
    started: AtomicBool,
    idempotent: AtomicBool,
    input_sent: AtomicBool,
}

impl Progress {
    pub(super) fn stage(&self) -> Stage {
        match (self.started.load(Relaxed), self.sent.load(Relaxed)) {
            (true, _) => Stage::Started,
            (false, true) => Stage::Sent,
            (false, false) => Stage::NotStarted,
        }
    }

    /// Whether the host has said, when it started, that the call may run twice.
    pub(super) fn idempotent(&self) -> bool {
        self.idempotent.load(Relaxed)
    }

    /// Whether the whole input was written.
    pub(super) fn input_sent(&self) -> bool {
        self.input_sent.load(Relaxed)
    }
}

/// One attempt. `known` is the version that the host must not fall behind.
pub(super) struct Attempt<'a> {
    pub(super) host: &'a HostConnection,
    pub(super) request: &'a Request,
    pub(super) known: Version,
    pub(super) progress: &'a Progress,
}

impl Attempt<'_> {
    /// Makes the call: sends the input and takes the answer, both at the same time.
    pub(super) async fn call(&self, input: &mut Input, output: &mut Output) -> Result<Outcome, Failure> {
        let talk = async {
            let _way = self.host.hold();
            let mut exchange = Exchange::open(&self.host.connection).await?;
            self.progress.sent.store(true, Relaxed);
            let talk = async {
                if let Some(short) = input.short() {
                    exchange.request_with_body(self.request, short).await?;
                    self.progress.input_sent.store(true, Relaxed);
                    return self.receive(&mut exchange.recv, output, &Notify::new()).await;
                }
                exchange.request(self.request).await?;
                Box::pin(self.converse(&mut exchange, input, output)).await
            };
            let outcome = unless_dead(&self.host.connection, talk).await?;
            exchange.ended();
            Ok(outcome)
        };
        self.watched(talk).await
    }

    /// Takes the answer of a call that was made before.
    pub(super) async fn attach(&self, output: &mut Output) -> Result<Outcome, Failure> {
        let talk = async {
            let _way = self.host.hold();
            let mut exchange = Exchange::open(&self.host.connection).await?;
            exchange.request(self.request).await?;
            exchange.finish();
            let outcome = self.receive(&mut exchange.recv, output, &Notify::new()).await?;
            exchange.ended();
            Ok(outcome)
        };
        self.watched(talk).await
    }

    async fn watched(&self, talk: impl Future<Output = Result<Outcome, Broken>>) -> Result<Outcome, Failure> {
        match unless_silent(&self.host.connection, talk).await {
            Ok(outcome) => {
                self.host.heard();
                Ok(outcome)
            }
            Err(broken) => {
                if matches!(broken, Broken::Fault(_)) {
                    self.host.heard();
                }
                Err(Failure {
                    stage: self.progress.stage(),
                    broken,
                })
            }
        }
    }

    /// Sends and receives at once. The answer decides: a host need not take an input to its end.
    async fn converse(
        &self,
        exchange: &mut Exchange,
        input: &mut Input,
        output: &mut Output,
    ) -> Result<Outcome, Broken> {
        let started = Notify::new();
        let Exchange { send, recv, .. } = exchange;
        let sending = async {
            let sent = input.send(send, &started).await;
            if sent.is_ok() {
                self.progress.input_sent.store(true, Relaxed);
                let _ = send.finish();
            }
            sent
        };
        let receiving = self.receive(recv, output, &started);
        tokio::pin!(sending, receiving);
        let mut sent = false;
        loop {
            tokio::select! {
                biased;
                outcome = &mut receiving => return outcome,
                result = &mut sending, if !sent => match result {
                    // The caller's own doing ends the call; a host that takes no more says why.
                    Err(Broken::Fault(fault)) => return Err(fault.into()),
                    _ => sent = true,
                },
            }
        }
    }

    /// A fault in place of `Started` says that the call did not start. A host that is attached to
    /// says so too, unless it is that it does not know the call.
    fn on_fault(&self, fault: &Fault) {
        if !(matches!(self.request, Request::Attach(_)) && is_unknown_call(fault)) {
            self.progress.sent.store(false, Relaxed);
        }
    }

    /// Takes `Started`, the answer, and the trailer.
    async fn receive(
        &self,
        recv: &mut quinn::RecvStream,
        output: &mut Output,
        started_here: &Notify,
    ) -> Result<Outcome, Broken> {
        let reply: Reply = read_message(recv, MESSAGE_LEN_MAX).await?;
        if !reply.is_fault() {
            self.progress.started.store(true, Relaxed);
        }
        let started: Started = reply.into_result().inspect_err(|fault| self.on_fault(fault))?;
        self.progress.idempotent.store(started.idempotent, Relaxed);
        if started.version < self.known {
            return Err(outdated(started.version, self.known).into());
        }
        started_here.notify_one();
        output.begin();
        let mut body = BodyReader::new(recv, output.limit());
        while let Some(bytes) = body
            .next()
            .await
            .map_err(|error| in_answer(error, output.limit()))?
        {
            output.put(bytes).await;
        }
        let trailer: Trailer = read_message(recv, MESSAGE_LEN_MAX).await?;
        Ok(Outcome { started, trailer })
    }
}

/// Whether a host that was attached to says that it never had the call, or has its outcome no more.
pub(super) fn is_unknown_call(fault: &Fault) -> bool {
    matches!(fault.kind, FaultKind::HostLost | FaultKind::NotFound)
}

fn outdated(answered: Version, known: Version) -> Fault {
    let message = format!(
        "the host would have answered with revision {} (generation {}), though revision {} (generation {}) is known",
        answered.revision, answered.generation, known.revision, known.generation
    );
    Fault::new(FaultKind::Unverified, message)
}

fn in_answer(error: FrameError, limit: u64) -> Broken {
    match error {
        FrameError::TooLong { len, limit: most } if most == limit => {
            let message = format!("the answer has {len} bytes or more, and the caller takes {limit}");
            Fault::new(FaultKind::OutputLimit, message)
                .help("take longer answers, or stream them")
                .into()
        }
        error => error.into(),
    }
}
