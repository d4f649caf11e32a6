//! What owners and callers do in a simulation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::hosts::Host;
use super::network::Micros;
use super::scenario::{Action as Wish, Scenario};
use super::world::{Event, World};
use crate::head::SignedHead;
use crate::holder::Answer;
use crate::id::{ArtifactHash, FunctionId};
use crate::key::OwnerKey;
use crate::manifest::{Action, Decommission, Kind, Limits, Manifest, Publish, Verified, Version, Visibility};
use crate::wire::extension::Extensions;

/// When functions begin to be deployed: hosts are connected by then.
const DEPLOYS_BEGIN: Micros = 4_000_000;
/// When calls begin.
pub(super) const FIRST_CALL: Micros = 8_000_000;
/// Within this time a call comes to its end, one way or the other.
const CALL_TRIES: u32 = 3;

/// A function, as its owner knows it.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) id: FunctionId,
    pub(super) newest: Arc<Verified>,
    first: Arc<Verified>,
}

/// An edit on its way to the hosts that held the function when it was published.
#[derive(Debug)]
struct Edit {
    at: Micros,
    version: Version,
    holders: BTreeSet<usize>,
}

/// Owners, their functions, and what became of their revisions.
#[derive(Debug)]
pub(super) struct Works {
    key: OwnerKey,
    pub(super) functions: Vec<Function>,
    /// Everything that a super node acknowledged.
    pub(super) acknowledged: Vec<Arc<Verified>>,
    edits: BTreeMap<FunctionId, Edit>,
    /// How long each edit took to each holder.
    pub(super) reached: Vec<Micros>,
    /// Holders that were superseded or left before they heard.
    pub(super) unreached: u64,
    pub(super) edits_made: u64,
    deploys: usize,
    artifact_bytes: u64,
    replicas: u16,
}

/// A call on its way to a host.
#[derive(Debug)]
pub(super) struct Call {
    function: FunctionId,
    known: Version,
    through: usize,
    host: usize,
    tries: u32,
}

impl Works {
    pub(super) fn new(scenario: &Scenario, seed: u64) -> Self {
        let mut bytes = [7; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Self {
            key: OwnerKey::from_seed(bytes),
            functions: Vec::new(),
            acknowledged: Vec::new(),
            edits: BTreeMap::new(),
            reached: Vec::new(),
            unreached: 0,
            edits_made: 0,
            deploys: scenario.functions,
            artifact_bytes: scenario.artifact_bytes,
            replicas: scenario.replicas,
        }
    }

    fn sign(&self, name: &str, version: Version, action: Action, message: &str) -> Arc<Verified> {
        let manifest = Manifest {
            owner: self.key.id(),
            name: name.parse().expect("simulated names are good"),
            version,
            parent: None,
            action,
            message: message.to_owned(),
            time_ms: 0,
            extensions: Extensions::none(),
        };
        let signed = manifest
            .sign(&self.key)
            .expect("simulated manifests are within bounds");
        Arc::new(signed.verify().expect("what was just signed verifies"))
    }

    fn publish(&self, artifact: &str) -> Action {
        Action::Publish(Publish {
            artifact: ArtifactHash::of(artifact.as_bytes()),
            artifact_bytes: self.artifact_bytes,
            kind: Kind::Command,
            engine: None,
            limits: Limits::default(),
            capabilities: Vec::new(),
            visibility: Visibility::default(),
            idempotent: true,
            replicas: self.replicas,
            content_type: "application/json".to_owned(),
            extensions: Extensions::none(),
        })
    }

    /// A host hears of a revision.
    pub(super) fn on_heard(&mut self, now: Micros, host: usize, manifest: &Verified) {
        if let Some(edit) = self.edits.get_mut(&manifest.function())
            && manifest.version() >= edit.version
            && edit.holders.remove(&host)
        {
            self.reached.push(now - edit.at);
        }
    }

    fn watch(&mut self, now: Micros, manifest: &Verified, holders: BTreeSet<usize>) {
        let edit = Edit {
            at: now,
            version: manifest.version(),
            holders,
        };
        self.edits_made += 1;
        let superseded = self.edits.insert(manifest.function(), edit);
        self.unreached += superseded.map_or(0, |edit| edit.holders.len() as u64);
    }
}

impl World<'_> {
    /// All functions are deployed, spread over a second.
    pub(super) fn deploy_all(&mut self) {
        // Signing is the same work whenever it is done; doing it now keeps the queue small.
        let deploys = self.works.deploys;
        for number in 0..deploys {
            let name = format!("f{number}");
            let version = Version {
                generation: 0,
                revision: 1,
            };
            let action = self.works.publish(&format!("{name} 1"));
            let manifest = self.works.sign(&name, version, action, "");
            self.works.functions.push(Function {
                id: manifest.function(),
                newest: Arc::clone(&manifest),
                first: manifest,
            });
        }
        self.after(DEPLOYS_BEGIN, Event::Work(usize::MAX, 0));
    }

    pub(super) fn on_work(&mut self, number: usize, nth: u64) {
        if number == usize::MAX {
            return self.deploy_next(nth);
        }
        let work = self.scenario.works[number];
        if nth + 1 < work.count {
            self.after(work.every_ms * 1_000, Event::Work(number, nth + 1));
        }
        let living = self
            .works
            .functions
            .iter()
            .filter(|f| !f.newest.is_tombstone())
            .count();
        if living == 0 {
            return;
        }
        let pick = self.rng.usize(0..living);
        let Some(index) = (0..self.works.functions.len())
            .filter(|&i| !self.works.functions[i].newest.is_tombstone())
            .nth(pick)
        else {
            return;
        };
        match work.action {
            Wish::Edit => self.change(index, Wish::Edit, ""),
            Wish::Rollback => self.change(index, Wish::Rollback, ""),
            Wish::Decommission => self.change(index, Wish::Decommission, ""),
            Wish::Collide => {
                let before = Arc::clone(&self.works.functions[index].newest);
                self.change(index, Wish::Edit, "one device");
                let one = std::mem::replace(&mut self.works.functions[index].newest, before);
                self.change(index, Wish::Edit, "another device");
                let function = &mut self.works.functions[index];
                if one.rank() > function.newest.rank() {
                    function.newest = one;
                }
            }
        }
    }

    fn deploy_next(&mut self, nth: u64) {
        let nth = nth as usize;
        let manifest = Arc::clone(&self.works.functions[nth].first);
        self.hand_in(&manifest);
        if nth + 1 < self.works.functions.len() {
            let pause = 1_000_000 / self.works.functions.len() as u64;
            self.after(pause, Event::Work(usize::MAX, nth as u64 + 1));
        }
    }

    fn change(&mut self, index: usize, wish: Wish, message: &str) {
        let function = &self.works.functions[index];
        let before = &function.newest;
        let version = Version {
            generation: before.version().generation,
            revision: before.version().revision + 1,
        };
        let name = before.manifest().name.as_str().to_owned();
        let action = match wish {
            Wish::Decommission => Action::Decommission(Decommission::default()),
            Wish::Rollback => function.first.manifest().action.clone(),
            _ => self
                .works
                .publish(&format!("{name} {} {message}", version.revision)),
        };
        let manifest = self.works.sign(&name, version, action, message);
        let function = manifest.function();
        let holds =
            |(_, host): &(usize, &Host)| host.site.is_some() && host.online && host.holder.holds(&function);
        let holders = self
            .hosts
            .iter()
            .enumerate()
            .filter(holds)
            .map(|(n, _)| n)
            .collect();
        if self.hand_in(&manifest) {
            self.works.functions[index].newest = Arc::clone(&manifest);
            self.works.watch(self.now, &manifest, holders);
        }
    }

    /// An owner hands a revision in at a super node that is up. Whether it was acknowledged.
    fn hand_in(&mut self, manifest: &Arc<Verified>) -> bool {
        let up: Vec<usize> = (0..self.supers.len()).filter(|&n| self.supers[n].up).collect();
        if up.is_empty() {
            return false;
        }
        let number = up[self.rng.usize(0..up.len())];
        let head = Arc::new(SignedHead::sign(&self.works.key, manifest));
        self.manifests
            .insert(manifest.hash(), (Arc::clone(manifest), Arc::clone(&head)));
        let node = &mut self.supers[number];
        let Some(change) = node.publish(manifest, &head) else {
            return false;
        };
        node.hub.on_published(manifest, &change);
        self.works.acknowledged.push(Arc::clone(manifest));
        self.drain(number);
        true
    }

    // -- calls -------------------------------------------------------------------------------------

    pub(super) fn on_call(&mut self) {
        let pause = 1_000_000 / u64::from(self.scenario.calls_per_s);
        if self.now < self.scenario.duration_s * 1_000_000 {
            self.after(pause, Event::Call);
        }
        let index = self.rng.usize(0..self.works.functions.len());
        let through = self.rng.usize(0..self.supers.len());
        let function = self.works.functions[index].id;
        self.measured.calls += 1;
        self.try_call(function, Version::default(), through, 0);
    }

    fn try_call(&mut self, function: FunctionId, known: Version, through: usize, tries: u32) {
        let Some(live) = self.supers[through]
            .disk
            .live
            .get(&function)
            .filter(|_| self.supers[through].up)
        else {
            self.measured.calls_unanswered += 1;
            return;
        };
        if live.0.is_tombstone() {
            self.measured.calls_decommissioned += 1;
            return;
        }
        let known = known.max(live.0.version());
        let found = self.lookup(through, &function);
        let Some((host, delay)) = found.filter(|_| tries < CALL_TRIES) else {
            self.measured.calls_unanswered += 1;
            return;
        };
        let call = Call {
            function,
            known,
            through,
            host,
            tries: tries + 1,
        };
        self.after(delay, Event::CallArrives(Box::new(call)));
    }

    pub(super) fn on_call_arrives(&mut self, call: &Call) {
        let now_ms = self.now_ms();
        let host = &self.hosts[call.host];
        let reachable = host.online && host.site.is_some();
        let answer = reachable.then(|| host.answer(now_ms, &call.function, call.known));
        match answer {
            Some(Answer::Serve(manifest)) => {
                if host.is_forbidden(&call.function, manifest.version()) {
                    self.measured.forbidden += 1;
                }
                self.measured.calls_answered += 1;
            }
            Some(Answer::Decommissioned) => self.measured.calls_decommissioned += 1,
            Some(Answer::Refresh(_) | Answer::NotHeld | Answer::CutOff) | None => {
                self.try_call(call.function, call.known, call.through, call.tries);
            }
        }
    }

    /// A host that can answer for a function, as a super node finds it, and how long the call takes to it:
    /// the directory is asked once at most.
    pub(super) fn lookup(&mut self, through: usize, function: &FunctionId) -> Option<(usize, Micros)> {
        let now_ms = self.now_ms();
        let coordinator = self.supers[through].hub.coordinator();
        let mut delay = 0;
        let mut hints = coordinator.route(now_ms, function);
        if hints.is_empty() {
            let directory = coordinator.directory(function);
            let me = self.supers[through].node;
            let keeper = directory
                .iter()
                .map(|node| self.super_numbers[node])
                .find(|&keeper| {
                    self.supers[keeper].node == me
                        || (self.supers[keeper].up && self.network.is_open_both_ways(through, keeper))
                })?;
            delay += 2 * self.network.latency(through, keeper);
            for site in self.supers[keeper].hub.coordinator().sites(function) {
                let site = self.super_numbers[&site];
                if self.supers[site].up && self.network.is_open_both_ways(through, site) {
                    delay += 2 * self.network.latency(through, site);
                    hints = self.supers[site].hub.coordinator().route(now_ms, function);
                    if !hints.is_empty() {
                        break;
                    }
                }
            }
        }
        // Any of them: a caller that comes again is not to find the same liar each time.
        let pick = self.rng.usize(0..hints.len().max(1));
        let host = self.host_numbers[&hints.get(pick)?.node];
        Some((
            host,
            delay + self.network.latency(through, self.hosts[host].place),
        ))
    }
}
