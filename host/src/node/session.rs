//! A host's session with one super node: connect, register, tell and be told, serve what comes, and
//! after a break do it again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use orb_protocol::fault::{Fault, FaultKind};
use orb_protocol::id::NodeId;
use orb_protocol::quic::frames::{FrameError, read_message, write_message};
use orb_protocol::quic::{AddressError, ConnectError, Connection, Endpoint, SuperAddr};
use orb_protocol::wire::codec::MESSAGE_LEN_MAX;
use orb_protocol::wire::control::{
    BEAT_INTERVAL_MS, Beat, Draining, HOLDING_MAX, HOLDINGS_ONLY, Held, Holding, HostMessage, Offer,
    Register, Registered, SuperMessage,
};
use orb_protocol::wire::extension::Extensions;
use orb_protocol::wire::{Reply, Request};
use quinn::{RecvStream, SendStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, timeout};

use super::Host;
use super::driver::{REPORTS_MAX, SessionId};
use super::streams;

/// How long a super node may take to answer a registration.
const REGISTER_MAX: Duration = Duration::from_secs(10);
/// How long a super node may take nothing that is written to it: as long as QUIC waits for a silent
/// peer.
const WRITE_MAX: Duration = Duration::from_secs(15);
/// Streams that a super node may have open to this host: offers of relay sessions come on them, one
/// for each caller that connects at the same moment.
const SUPER_STREAMS: u32 = 256;
/// The first pause before connecting again; it doubles with every failure.
const BACKOFF_MIN: Duration = Duration::from_millis(250);
/// The longest pause. A super node that restarts has its hosts back within it, and a thousand hosts
/// that wait for one cost it a hundred handshakes a second.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// So often a super node is tried before another one of its federation is.
const FAILURES_BEFORE_ANOTHER: u32 = 2;
/// Between two looks whether the one that was named answers again.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// The pause after an answer that will not change by itself: another node at the address, a policy
/// that says no, another version.
const BACKOFF_REFUSED: Duration = Duration::from_secs(60);

/// Why a session ended, or did not begin.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the super node does not take this host: {0}")]
    Refused(Fault),
    #[error(transparent)]
    Stream(#[from] FrameError),
    #[error("it took no reports for too long")]
    Behind,
}

impl SessionError {
    /// Whether trying again soon is of no use.
    fn is_lasting(&self) -> bool {
        match self {
            Self::Connect(error) => {
                matches!(
                    error,
                    ConnectError::WrongPeer { .. } | ConnectError::VersionMismatch
                )
            }
            Self::Refused(fault) => fault.kind != FaultKind::Overloaded && fault.kind != FaultKind::Internal,
            _ => false,
        }
    }
}

/// Keeps a session with one super node, for as long as the daemon lives.
pub(crate) async fn keep(host: Arc<Host>, endpoint: Endpoint, address: SuperAddr) {
    let mut backoff = Backoff::default();
    let mut state = State::default();
    loop {
        let error = match connect(&host, &endpoint, &address).await {
            Ok(session) => {
                state.on_up(&address);
                backoff = Backoff::default();
                session.run().await
            }
            Err(error) => error,
        };
        state.on_down(&address, &error);
        if backoff.failures >= FAILURES_BEFORE_ANOTHER {
            at_another(&host, &endpoint, &address).await;
            backoff.failures = FAILURES_BEFORE_ANOTHER - 1;
        }
        tokio::time::sleep(backoff.next(error.is_lasting())).await;
    }
}

/// Is at another super node of the federation while the one that was named does not answer. Returns when it
/// does again, or the other one is lost too.
async fn at_another(host: &Arc<Host>, endpoint: &Endpoint, address: &SuperAddr) {
    let is_new = |id: &NodeId| *id != address.id() && !host.sources.knows(id);
    let Some(other) = host.roster.pick(is_new) else {
        return;
    };
    let session = match connect(host, endpoint, &other).await {
        Ok(session) => session,
        Err(error) => {
            return tracing::debug!(address = %other, %error, "another super node is not reached either");
        }
    };
    tracing::info!(address = %other, "connected to another super node of the federation");
    tokio::select! {
        error = session.run() => tracing::info!(address = %other, %error, "not connected to it any more"),
        () = answers_again(endpoint, address) => {}
    }
}

/// Waits until a super node answers.
async fn answers_again(endpoint: &Endpoint, address: &SuperAddr) {
    loop {
        tokio::time::sleep(PROBE_INTERVAL).await;
        if let Ok(connection) = dial(endpoint, address).await {
            connection.close(0, "it answers again");
            return;
        }
    }
}

/// Says in the log what has changed, and not what is still the case.
#[derive(Debug, Default)]
struct State {
    last_error: Option<String>,
}

impl State {
    fn on_up(&mut self, address: &SuperAddr) {
        self.last_error = None;
        tracing::info!(%address, "connected to a super node");
    }

    fn on_down(&mut self, address: &SuperAddr, error: &SessionError) {
        let error = error.to_string();
        if self.last_error.as_ref() != Some(&error) {
            tracing::warn!(%address, %error, "not connected to a super node; trying again");
            self.last_error = Some(error);
        }
    }
}

/// Pauses that grow, with jitter: hosts that lost a super node at one moment come back one by one.
#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    fn next(&mut self, lasting: bool) -> Duration {
        let longest = if lasting {
            BACKOFF_REFUSED
        } else {
            BACKOFF_MIN
                .saturating_mul(1 << self.failures.min(16))
                .min(BACKOFF_MAX)
        };
        self.failures += 1;
        // Between half of it and all of it. Without randomness all of it is as good.
        let random = getrandom::u32().unwrap_or(u32::MAX);
        longest.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX))
    }
}

/// Connects and registers.
async fn connect(
    host: &Arc<Host>,
    endpoint: &Endpoint,
    address: &SuperAddr,
) -> Result<Session, SessionError> {
    let connection = dial(endpoint, address).await?;
    let registered = timeout(REGISTER_MAX, register(host, &connection)).await;
    let (registered, send, recv) = registered.unwrap_or(Err(FrameError::TimedOut(REGISTER_MAX).into()))?;
    tracing::debug!(%address, observed = %registered.observed, "registered");
    Ok(Session::new(host, endpoint, connection, send, recv))
}

async fn register(
    host: &Host,
    connection: &Connection,
) -> Result<(Registered, SendStream, RecvStream), SessionError> {
    connection.set_peer_streams(SUPER_STREAMS);
    let (mut send, mut recv) = connection.open_bi().await.map_err(FrameError::Lost)?;
    let register = Register {
        offer: offer(host),
        invite: host.config.invite.clone(),
        software: env!("CARGO_PKG_VERSION").to_owned(),
        extensions: Extensions::none(),
    };
    write_message(&mut send, &Request::from(register)).await?;
    let reply: Reply = read_message(&mut recv, MESSAGE_LEN_MAX).await?;
    let registered = reply.into_result().map_err(SessionError::Refused)?;
    Ok((registered, send, recv))
}

/// Tries the addresses of the super node's name, one after the other.
async fn dial(endpoint: &Endpoint, address: &SuperAddr) -> Result<Connection, SessionError> {
    let mut last = None;
    for addr in address.resolve().await? {
        match endpoint.connect(addr).await {
            Ok(connection) => return Ok(connection),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or(ConnectError::TimedOut).into())
}

fn offer(host: &Host) -> Offer {
    let policy = host.replicas.policy();
    Offer {
        capacity: host.config.capacity,
        ceiling: policy.ceiling,
        artifact_bytes_max: policy.artifact_bytes_max,
        disk_free_bytes: host.disk_free_bytes(),
        engines: policy.engines.into_iter().collect(),
        operator: host.config.operator.clone(),
        extensions: Extensions::none().with(HOLDINGS_ONLY, Vec::new()),
    }
}

struct Session {
    host: Arc<Host>,
    endpoint: Endpoint,
    connection: Connection,
    send: SendStream,
    recv: RecvStream,
    registration: Registration,
}

/// What others know of a session. Takes it back when dropped.
struct Registration {
    host: Arc<Host>,
    connection: Connection,
    id: SessionId,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.host.sources.remove(&self.connection);
        self.connection.close(0, "the session ended");
        let (host, id) = (Arc::clone(&self.host), self.id);
        tokio::spawn(async move { host.replicas.on_session_down(id).await });
    }
}

impl Session {
    fn new(
        host: &Arc<Host>,
        endpoint: &Endpoint,
        connection: Connection,
        send: SendStream,
        recv: RecvStream,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        host.sources.add(connection.peer(), connection.clone());
        Self {
            host: Arc::clone(host),
            endpoint: endpoint.clone(),
            registration: Registration {
                host: Arc::clone(host),
                connection: connection.clone(),
                id: NEXT.fetch_add(1, Ordering::Relaxed),
            },
            connection,
            send,
            recv,
        }
    }

    async fn run(self) -> SessionError {
        let id = self.registration.id;
        let streams = streams::serve_super(self.host.clone(), self.endpoint, self.connection.clone());
        let (reports, waiting) = mpsc::channel(REPORTS_MAX);
        let held = self.host.replicas.on_session_up(id, reports).await;
        let teller = Teller {
            host: Arc::clone(&self.host),
            send: self.send,
            told_run_times: 0,
        };
        tokio::select! {
            error = listen(&self.host, id, self.recv) => error,
            error = teller.run(held, waiting, self.host.draining.subscribe()) => error,
            error = streams => FrameError::Lost(error).into(),
        }
    }
}

/// Takes what the super node says.
async fn listen(host: &Host, id: SessionId, mut recv: RecvStream) -> SessionError {
    loop {
        match read_message::<SuperMessage>(&mut recv, MESSAGE_LEN_MAX).await {
            Ok(SuperMessage::Supers(supers)) => host.roster.learn(&supers.addresses),
            Ok(message) => host.replicas.on_told(id, message).await,
            Err(error) => return error.into(),
        }
    }
}

/// Says what the super node has to know.
struct Teller {
    host: Arc<Host>,
    send: SendStream,
    /// Up to where run times were told, see [`super::load::Load::changed`].
    told_run_times: u64,
}

impl Teller {
    async fn run(
        mut self,
        held: Vec<Held>,
        mut reports: mpsc::Receiver<HostMessage>,
        mut draining: watch::Receiver<bool>,
    ) -> SessionError {
        let mut pauses = self.host.pauses.changes();
        let mut beats = tokio::time::interval(Duration::from_millis(BEAT_INTERVAL_MS));
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if let Err(error) = self.introduce(held).await {
            return error;
        }
        let mut said_draining = false;
        loop {
            let message = tokio::select! {
                // That this host pauses comes before what it refuses because of that.
                biased;
                Ok(()) = pauses.changed() => self.beat(),
                _ = draining.wait_for(|draining| *draining), if !said_draining => {
                    said_draining = true;
                    Draining::default().into()
                }
                _ = beats.tick() => self.beat(),
                report = reports.recv() => match report {
                    Some(report) => report,
                    None => return SessionError::Behind,
                },
            };
            if let Err(error) = self.write(&message).await {
                return error;
            }
        }
    }

    /// What a super node has to know before it assigns anything.
    async fn introduce(&mut self, held: Vec<Held>) -> Result<(), SessionError> {
        if self.host.pauses.now().is_some() {
            let beat = self.beat();
            self.write(&beat).await?;
        }
        self.tell_held(held).await
    }

    async fn tell_held(&mut self, held: Vec<Held>) -> Result<(), SessionError> {
        let mut rest = held.as_slice();
        loop {
            let page;
            (page, rest) = rest.split_at(rest.len().min(HOLDING_MAX));
            let holding = Holding {
                replicas: page.to_vec(),
                last: rest.is_empty(),
                extensions: Extensions::none(),
            };
            self.write(&holding.into()).await?;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    fn beat(&mut self) -> HostMessage {
        let (run_times_us, told) = self.host.load.changed(self.told_run_times);
        self.told_run_times = told;
        let beat = Beat {
            running: self.host.queue.running(),
            waiting: self.host.queue.waiting(),
            disk_free_bytes: self.host.disk_free_bytes(),
            run_times_us,
            failure_permille: self.host.load.failure_permille(),
            extensions: Extensions::none(),
        };
        match self.host.pauses.now() {
            Some(pause) => beat.paused(&pause.to_string()).into(),
            None => beat.into(),
        }
    }

    async fn write(&mut self, message: &HostMessage) -> Result<(), SessionError> {
        let written = timeout(WRITE_MAX, write_message(&mut self.send, message)).await;
        Ok(written.unwrap_or(Err(FrameError::TimedOut(WRITE_MAX)))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_never_coincide() {
        let mut backoff = Backoff::default();
        let pauses: Vec<Duration> = (0..20).map(|_| backoff.next(false)).collect();
        assert!(pauses[0] >= BACKOFF_MIN / 2 && pauses[0] <= BACKOFF_MIN);
        assert!(pauses[19] >= BACKOFF_MAX / 2 && pauses[19] <= BACKOFF_MAX);
        assert!(pauses.windows(2).any(|pair| pair[0] != pair[1]));
        assert!(backoff.next(true) >= BACKOFF_REFUSED / 2);
    }

    #[test]
    fn another_node_or_a_policy_is_not_worth_trying_again_soon() {
        let fault = |kind| SessionError::Refused(Fault::new(kind, "no"));
        assert!(fault(FaultKind::Refused).is_lasting());
        assert!(!fault(FaultKind::Overloaded).is_lasting());
        assert!(!SessionError::Connect(ConnectError::TimedOut).is_lasting());
        assert!(SessionError::Connect(ConnectError::VersionMismatch).is_lasting());
    }
}
