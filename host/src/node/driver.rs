//! Drives a [`Holder`] with real fetches, a real disk and real executors.
//!
//! One task owns the decisions: everything that happens comes to it as an [`Event`], in order, and
//! what the holder wants done is done by it, or by a fetch that reports back to it. So what is on
//! disk follows what was decided, in the same order, and nothing that ends late brings back what was
//! removed meanwhile. Calls only look: [`Replicas::answer`].

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use orb_protocol::holder::{Answer, Effect, Holder, SeedPolicy};
use orb_protocol::id::{ArtifactHash, FunctionId};
use orb_protocol::manifest::{SignedManifest, Verified, Version};
use orb_protocol::wire::control::{Dropped, Held, HostMessage, Ready, Refused, SuperMessage};
use orb_protocol::wire::extension::Extensions;
use orb_runtime::{Artifact, GuestFault};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::fetch::{self, FetchError};
use super::load::Load;
use super::manifests::{HeldManifests, ManifestsError};
use super::pause::Pauses;
use super::sources::Sources;
use crate::executor::Executors;
use crate::store::blocking;
use crate::store::objects::ObjectStore;

/// Events that wait for the driver. Who has more to say waits: sessions stop reading.
const EVENTS_MAX: usize = 256;
/// Reports that wait for one super node. One that takes none of so many is cut off, and told all
/// that is held when it is connected again.
pub(crate) const REPORTS_MAX: usize = 4_096;
/// Artifacts that are fetched and prepared at one time: enough to fill a home line, and each may
/// have a megabyte in memory.
const OBTAINS_MAX: usize = 4;
/// Functions that a host holds. At the bound their manifests take 300 MiB of memory at the very
/// worst, and ten as a rule.
const FUNCTIONS_MAX: usize = 10_000;
/// Between two ticks of the holder (its documentation).
const TICK: Duration = Duration::from_secs(1);

/// What a host holds, for those who only want to look.
#[derive(Debug)]
pub(crate) struct Replicas {
    holder: Mutex<Holder>,
    /// Counts the events that were handled.
    changes: watch::Sender<u64>,
    events: mpsc::Sender<Event>,
    began: Instant,
}

/// A session with a super node, as the driver knows it.
pub(crate) type SessionId = u64;

/// What happens to a driver.
#[derive(Debug)]
enum Event {
    SessionUp {
        session: SessionId,
        reports: mpsc::Sender<HostMessage>,
        held: oneshot::Sender<Vec<Held>>,
    },
    Told(SessionId, Told),
    SessionDown(SessionId),
    Damaged(FunctionId, ArtifactHash),
    Stop(oneshot::Sender<()>),
}

/// What a super node said, verified.
#[derive(Debug)]
enum Told {
    Assign(Box<Verified>),
    Changed(Box<Verified>),
    Release(FunctionId),
    Synced,
}

/// What a driver works with.
pub(crate) struct Tools {
    /// Artifacts.
    pub(crate) objects: ObjectStore,
    /// Manifests.
    pub(crate) manifests: HeldManifests,
    /// Prepares artifacts.
    pub(crate) executors: Executors,
    /// Where to fetch from.
    pub(crate) sources: Arc<Sources>,
    /// Forgets functions that are not held any more.
    pub(crate) load: Arc<Load>,
    /// Seed nothing, and say what would be seeded.
    pub(crate) dry_run: bool,
    /// While it pauses, it takes no further functions.
    pub(crate) pauses: Pauses,
}

impl Replicas {
    /// Takes up what is stored, and starts the driver. It ends with [`Replicas::stop`].
    ///
    /// # Errors
    /// The disk.
    pub(crate) async fn start(policy: SeedPolicy, tools: Tools) -> Result<Arc<Self>, ManifestsError> {
        let mut holder = Holder::new(policy);
        if !tools.dry_run {
            restore(&mut holder, &tools).await?;
        }
        let (events, queue) = mpsc::channel(EVENTS_MAX);
        let replicas = Arc::new(Self {
            holder: Mutex::new(holder),
            changes: watch::Sender::new(0),
            events,
            began: Instant::now(),
        });
        let driver = Driver {
            replicas: Arc::downgrade(&replicas),
            tools: Arc::new(tools),
            sessions: HashMap::new(),
            obtains: JoinSet::new(),
            places: Arc::new(Semaphore::new(OBTAINS_MAX)),
        };
        tokio::spawn(driver.run(queue));
        Ok(replicas)
    }

    /// What to do about a call from somebody who knows of version `known`.
    pub(crate) fn answer(&self, function: &FunctionId, known: Version) -> Answer {
        let now_ms = self.now_ms();
        let mut holder = self.holder();
        let answer = holder.answer(now_ms, function, known);
        if matches!(answer, Answer::Serve(_)) {
            holder.on_called(now_ms, function);
        }
        answer
    }

    /// The same, but waits for a newer revision that is on its way, until `deadline`.
    pub(crate) async fn answer_refreshed(
        &self,
        function: &FunctionId,
        known: Version,
        deadline: Instant,
    ) -> Answer {
        let mut changes = self.changes.subscribe();
        loop {
            let answer = self.answer(function, known);
            if !matches!(answer, Answer::Refresh(_)) {
                return answer;
            }
            match tokio::time::timeout_at(deadline, changes.changed()).await {
                Ok(Ok(())) => {}
                _ => return answer,
            }
        }
    }

    /// Room for more artifacts within the policy, in bytes; and how much of it is taken by what would go
    /// to make room.
    pub(crate) fn disk_free_bytes(&self) -> (u64, u64) {
        let holder = self.holder();
        let room = holder.disk_free_bytes();
        let free = holder.policy().disk_bytes_max.saturating_sub(holder.disk_bytes());
        (room, room.saturating_sub(free))
    }

    /// The policy.
    pub(crate) fn policy(&self) -> SeedPolicy {
        self.holder().policy().clone()
    }

    /// The sandbox did not run a function, since its artifact is not what it should be.
    pub(crate) async fn on_damaged(&self, function: FunctionId, artifact: ArtifactHash) {
        self.tell(Event::Damaged(function, artifact)).await;
    }

    /// A super node is connected: reports go to `reports` from now on, and begin where the list ends
    /// that is returned.
    pub(crate) async fn on_session_up(
        &self,
        session: SessionId,
        reports: mpsc::Sender<HostMessage>,
    ) -> Vec<Held> {
        let (held, answer) = oneshot::channel();
        self.tell(Event::SessionUp {
            session,
            reports,
            held,
        })
        .await;
        answer.await.unwrap_or_default()
    }

    /// A super node said something.
    pub(crate) async fn on_told(&self, session: SessionId, message: SuperMessage) {
        let told = match message {
            SuperMessage::Assign(assign) => verify(assign.manifest).map(Told::Assign),
            SuperMessage::Changed(changed) => verify(changed.manifest).map(Told::Changed),
            SuperMessage::Release(release) => Some(Told::Release(release.function)),
            SuperMessage::Synced(_) => Some(Told::Synced),
            // The first is for the session. The other is a newer super node's, which has to do without.
            SuperMessage::Supers(_) | SuperMessage::Unknown(_) => None,
        };
        if let Some(told) = told {
            self.tell(Event::Told(session, told)).await;
        }
    }

    /// A super node is not connected any more.
    pub(crate) async fn on_session_down(&self, session: SessionId) {
        self.tell(Event::SessionDown(session)).await;
    }

    /// Ends the driver: fetches are given up, and the database is closed.
    pub(crate) async fn stop(&self) {
        let (stopped, answer) = oneshot::channel();
        self.tell(Event::Stop(stopped)).await;
        let _ = answer.await;
    }

    async fn tell(&self, event: Event) {
        // Once the driver has stopped there is nothing left to be done.
        let _ = self.events.send(event).await;
    }

    fn holder(&self) -> MutexGuard<'_, Holder> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

fn verify(manifest: SignedManifest) -> Option<Box<Verified>> {
    manifest
        .verify()
        .inspect_err(|error| tracing::warn!(%error, "a super node sent a manifest that is not to be trusted"))
        .ok()
        .map(Box::new)
}

/// Takes up what is stored. Everything is verified and prepared again before it answers, as if it had
/// just been assigned; only that its bytes are here already.
async fn restore(holder: &mut Holder, tools: &Tools) -> Result<(), ManifestsError> {
    let manifests = tools.manifests.clone();
    let stored = blocking(move || manifests.all()).await?;
    let count = stored.len();
    for manifest in stored {
        let allowed = match manifest.publish() {
            Some(publish) => holder
                .policy()
                .decide(&manifest.manifest().owner, publish, holder.disk_bytes()),
            None => Ok(()),
        };
        match allowed {
            Ok(()) => holder.restore(manifest, false),
            Err(reason) => {
                tracing::info!(function = %manifest.function(), %reason, "dropped: the policy has changed");
                let (manifests, function) = (tools.manifests.clone(), manifest.function());
                blocking(move || manifests.remove(function)).await?;
            }
        }
    }
    tracing::debug!(manifests = count, "took up what is stored");
    sweep(holder, tools).await;
    Ok(())
}

/// Removes artifacts that nothing refers to: left by a fetch whose manifest was not written any more.
async fn sweep(holder: &Holder, tools: &Tools) {
    let objects = tools.objects.clone();
    let stored = blocking(move || objects.list()).await.unwrap_or_default();
    for (artifact, _) in stored {
        if !holder.needs(&artifact) {
            remove(tools, artifact).await;
        }
    }
}

async fn remove(tools: &Tools, artifact: ArtifactHash) {
    tools.executors.forget(artifact.as_bytes());
    let objects = tools.objects.clone();
    if let Err(error) = blocking(move || objects.remove(&artifact)).await {
        // It is swept away at the next start.
        tracing::warn!(%error, "an artifact could not be removed");
    }
}

/// Why a revision is not ready.
#[derive(Debug, thiserror::Error)]
enum ObtainError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("{0}")]
    Prepare(GuestFault),
    #[error(transparent)]
    Manifest(#[from] ManifestsError),
}

/// How an attempt to obtain a revision ended.
type Obtained = (Box<Verified>, Result<(), ObtainError>);

#[derive(Debug)]
struct Session {
    reports: mpsc::Sender<HostMessage>,
    synced: bool,
}

struct Driver {
    replicas: std::sync::Weak<Replicas>,
    tools: Arc<Tools>,
    sessions: HashMap<SessionId, Session>,
    obtains: JoinSet<Obtained>,
    places: Arc<Semaphore>,
}

impl Driver {
    async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(Event::Stop(stopped)) => {
                        self.obtains.shutdown().await;
                        drop(self);
                        let _ = stopped.send(());
                        return;
                    }
                    Some(event) => self.on_event(event).await,
                    None => return,
                },
                Some(obtained) = self.obtains.join_next() => match obtained {
                    Ok((manifest, result)) => self.on_obtained(manifest, result).await,
                    Err(error) => tracing::error!(%error, "a fetch ended without a result"),
                },
                _ = ticks.tick() => self.decide(|holder, now_ms| holder.on_tick(now_ms)),
            }
            self.work_off().await;
        }
    }

    async fn on_event(&mut self, event: Event) {
        match event {
            Event::SessionUp {
                session,
                reports,
                held,
            } => {
                let synced = false;
                self.sessions.insert(session, Session { reports, synced });
                let list = self.with_holder(|holder| holder.held()).unwrap_or_default();
                let _ = held.send(list);
            }
            Event::Told(session, told) => self.on_told(session, told),
            Event::SessionDown(session) => self.end_session(session),
            Event::Damaged(function, artifact) => self.on_damaged(function, artifact).await,
            // Ends the loop, where it comes out.
            Event::Stop(_) => {}
        }
    }

    fn on_told(&mut self, session: SessionId, told: Told) {
        match told {
            Told::Assign(manifest) => self.on_assign(session, *manifest),
            Told::Changed(manifest) => self.decide(|holder, _| holder.on_changed(*manifest)),
            Told::Release(function) => self.decide(|holder, _| holder.on_release(function)),
            Told::Synced => {
                let first = self
                    .sessions
                    .get_mut(&session)
                    .is_some_and(|session| !std::mem::replace(&mut session.synced, true));
                if first {
                    self.decide(|holder, _| holder.on_synced());
                }
            }
        }
    }

    fn on_assign(&mut self, session: SessionId, manifest: Verified) {
        match self.unwilling(&manifest) {
            None => self.decide(|holder, _| holder.on_assign(manifest)),
            Some(reason) => {
                tracing::info!(function = %manifest.function(), %reason, "not seeded");
                let refused = refused(manifest.function(), manifest.version(), reason);
                self.report_to(session, refused);
            }
        }
    }

    /// Why this host as a whole takes no further function, whatever the function.
    fn unwilling(&self, manifest: &Verified) -> Option<String> {
        let publish = manifest.publish()?;
        self.with_holder(|holder| {
            if self.tools.dry_run {
                let decided = holder.policy().decide(&manifest.manifest().owner, publish, 0);
                return Some(match decided {
                    Ok(()) => "dry run: it would be seeded".to_owned(),
                    Err(reason) => format!("dry run: it would not be seeded either: {reason}"),
                });
            }
            if holder.holds(&manifest.function()) {
                return None;
            }
            if let Some(pause) = self.tools.pauses.now() {
                return Some(format!("this host is paused: {pause}"));
            }
            let full = holder.len() >= FUNCTIONS_MAX;
            full.then(|| format!("this host holds {FUNCTIONS_MAX} functions, and no more"))
        })
        .flatten()
    }

    async fn on_damaged(&mut self, function: FunctionId, artifact: ArtifactHash) {
        let objects = self.tools.objects.clone();
        // Reading it sets it aside if it is damaged; by now it may be mended already.
        if let Err(error) = blocking(move || objects.open_checked(&artifact)).await {
            tracing::error!(%function, %error, "a held artifact is not what it was: it is fetched again");
        }
        self.tools.executors.forget(artifact.as_bytes());
        self.decide(|holder, _| holder.on_damaged(function));
    }

    async fn on_obtained(&mut self, manifest: Box<Verified>, result: Result<(), ObtainError>) {
        let (function, version) = (manifest.function(), manifest.version());
        let wanted = self.with_holder(|holder| holder.wants(&manifest));
        if wanted != Some(true) {
            return self.drop_unneeded(&manifest).await;
        }
        let result = match result {
            Ok(()) => {
                let (manifests, manifest) = (self.tools.manifests.clone(), manifest.clone());
                let stored = blocking(move || manifests.put(&manifest)).await;
                stored.map_err(ObtainError::from)
            }
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => self.decide(|holder, _| holder.on_obtained(&manifest)),
            Err(ObtainError::Prepare(fault)) if is_the_artifacts(&fault) => {
                let reason = fault.to_string();
                self.decide(|holder, _| holder.on_unfit(&manifest, reason));
            }
            Err(error) => {
                tracing::warn!(%function, revision = version.revision, %error, "a function cannot be seeded now; it is tried again");
                self.decide(|holder, now_ms| holder.on_failed(now_ms, &manifest));
            }
        }
    }

    async fn drop_unneeded(&self, manifest: &Verified) {
        let artifact = manifest.publish().map(|publish| publish.artifact);
        let needed = |artifact: &ArtifactHash| self.with_holder(|holder| holder.needs(artifact));
        if let Some(artifact) = artifact.filter(|artifact| needed(artifact) == Some(false)) {
            remove(&self.tools, artifact).await;
        }
    }

    /// Does what the holder wants done.
    async fn work_off(&mut self) {
        while let Some(effect) = self.with_holder(Holder::poll_effect).flatten() {
            self.on_effect(effect).await;
        }
        if let Some(replicas) = self.replicas.upgrade() {
            replicas.changes.send_modify(|count| *count += 1);
        }
    }

    async fn on_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Obtain(manifest) => self.obtain(manifest),
            Effect::Purge(function, tombstone) => self.purge(function, tombstone).await,
            Effect::RemoveArtifact(artifact) => remove(&self.tools, artifact).await,
            Effect::ReportReady(function, version) => {
                let (revision, generation) = (version.revision, version.generation);
                tracing::info!(%function, revision, generation, "seeding");
                let extensions = Extensions::none();
                self.report(
                    &Ready {
                        function,
                        version,
                        extensions,
                    }
                    .into(),
                );
            }
            Effect::ReportRefused(function, version, reason) => {
                tracing::info!(%function, revision = version.revision, %reason, "not seeded");
                self.report(&refused(function, version, reason));
            }
            Effect::LogEvicted(function, reason) => tracing::info!(%function, %reason, "evicted"),
            Effect::ReportDropped(function) => {
                tracing::info!(%function, "not held any more");
                self.tools.load.forget(&function);
                let extensions = Extensions::none();
                self.report(&Dropped { function, extensions }.into());
            }
        }
    }

    fn obtain(&mut self, manifest: Box<Verified>) {
        let (tools, places) = (Arc::clone(&self.tools), Arc::clone(&self.places));
        self.obtains.spawn(async move {
            let _place = places
                .acquire_owned()
                .await
                .expect("the semaphore of places is never closed");
            let result = obtain(&tools, &manifest).await;
            (manifest, result)
        });
    }

    async fn purge(&self, function: FunctionId, tombstone: Option<Box<Verified>>) {
        let manifests = self.tools.manifests.clone();
        let purged = blocking(move || match tombstone {
            Some(tombstone) => manifests.put(&tombstone),
            None => manifests.remove(function),
        });
        if let Err(error) = purged.await {
            // Until the next start it is as good as done, and then a super node tells again.
            tracing::error!(%function, %error, "a removal could not be written down");
        }
    }

    fn report(&mut self, message: &HostMessage) {
        let sessions: Vec<SessionId> = self.sessions.keys().copied().collect();
        for session in sessions {
            self.report_to(session, message.clone());
        }
    }

    fn report_to(&mut self, session: SessionId, message: HostMessage) {
        let Some(known) = self.sessions.get(&session) else {
            return;
        };
        if matches!(known.reports.try_send(message), Err(TrySendError::Full(_))) {
            tracing::warn!("a super node takes no reports: it is cut off and connected again");
            self.end_session(session);
        }
    }

    /// Without the sender of its reports the session ends by itself.
    fn end_session(&mut self, session: SessionId) {
        let was_synced = self
            .sessions
            .remove(&session)
            .is_some_and(|session| session.synced);
        if was_synced {
            self.decide(|holder, now_ms| holder.on_unsynced(now_ms));
        }
    }

    fn decide(&self, decide: impl FnOnce(&mut Holder, u64)) {
        if let Some(replicas) = self.replicas.upgrade() {
            let now_ms = replicas.now_ms();
            decide(&mut replicas.holder(), now_ms);
        }
    }

    fn with_holder<T>(&self, look: impl FnOnce(&mut Holder) -> T) -> Option<T> {
        let replicas = self.replicas.upgrade()?;
        let result = look(&mut replicas.holder());
        Some(result)
    }
}

/// Whether trying again would end in the same way.
fn is_the_artifacts(fault: &GuestFault) -> bool {
    matches!(fault, GuestFault::Refused { .. } | GuestFault::Compile { .. })
}

fn refused(function: FunctionId, version: Version, reason: String) -> HostMessage {
    HostMessage::Refused(Refused {
        function,
        version,
        reason,
        extensions: Extensions::none(),
    })
}

async fn obtain(tools: &Tools, manifest: &Verified) -> Result<(), ObtainError> {
    let Some(publish) = manifest.publish() else {
        return Ok(());
    };
    fetch::obtain(&tools.objects, &tools.sources, manifest.function(), publish).await?;
    let prepared = tools
        .executors
        .prepare(&artifact_file(&tools.objects, publish.artifact))
        .await;
    prepared.map(|_| ()).map_err(ObtainError::Prepare)
}

/// An artifact as the sandbox takes it.
pub(crate) fn artifact_file(objects: &ObjectStore, artifact: ArtifactHash) -> Artifact {
    let path: PathBuf = objects.path(&artifact);
    Artifact {
        hash: *artifact.as_bytes(),
        path,
    }
}
