//! What must hold when everything has settled, one checker for each property.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use super::scenario::FaultKind;
use super::world::World;
use crate::holder::Answer;
use crate::id::FunctionId;
use crate::manifest::{Verified, Version};

/// A property, and what speaks against it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Which.
    pub property: &'static str,
    /// How many things were looked at.
    pub looked_at: usize,
    /// How many of them are not as they should be.
    pub wrong: usize,
    /// The first of those.
    pub example: Option<String>,
}

impl Check {
    fn of(property: &'static str, looked_at: usize, wrong: Vec<String>) -> Self {
        Self {
            property,
            looked_at,
            wrong: wrong.len(),
            example: wrong.into_iter().next(),
        }
    }
}

pub(super) fn all(world: &World<'_>) -> Vec<Check> {
    vec![
        registries_converge(world),
        nothing_acknowledged_is_lost(world),
        every_function_has_its_replicas(world),
        no_answer_after_the_end(world),
        a_live_host_is_found(world),
        every_call_ends_once(world),
        nothing_waits(world),
    ]
}

fn registries_converge(world: &World<'_>) -> Check {
    let up: Vec<_> = world.supers.iter().filter(|node| node.up).collect();
    let mut wrong = Vec::new();
    let versions = |node: &super::supers::Super| -> BTreeMap<FunctionId, _> {
        let live = node.disk.live.iter();
        live.map(|(function, (manifest, _))| (*function, manifest.hash()))
            .collect()
    };
    if let Some(first) = up.first() {
        let expected = versions(first);
        for node in &up {
            if versions(node) != expected {
                let (a, b) = (first.node.short(), node.node.short());
                wrong.push(format!("super nodes {a} and {b} have different registries"));
            }
        }
    }
    Check::of("registries converge", up.len(), wrong)
}

fn nothing_acknowledged_is_lost(world: &World<'_>) -> Check {
    let mut join: BTreeMap<FunctionId, Arc<Verified>> = BTreeMap::new();
    let loses = |fault: &super::scenario::Fault| fault.kind == FaultKind::LoseDisks;
    // A disk that is lost with what nobody else had heard yet loses that.
    if !world.scenario.faults.iter().any(loses) {
        for manifest in &world.works.acknowledged {
            let known = join
                .entry(manifest.function())
                .or_insert_with(|| Arc::clone(manifest));
            if manifest.rank() > known.rank() {
                *known = Arc::clone(manifest);
            }
        }
    }
    let mut wrong = Vec::new();
    for node in world.supers.iter().filter(|node| node.up) {
        for (function, manifest) in &join {
            let live = node.disk.live.get(function);
            if live.is_none_or(|(live, _)| live.hash() != manifest.hash()) {
                wrong.push(format!("{} lacks {}", node.node.short(), function.short()));
            }
        }
    }
    Check::of("nothing acknowledged is lost", join.len(), wrong)
}

/// Hosts that can answer for a function's live version.
fn holders(world: &World<'_>, function: &FunctionId, version: Version) -> usize {
    let ready = |host: &&super::hosts::Host| {
        let answer = host.holder.answer(world.now_ms(), function, version);
        host.online && host.site.is_some() && matches!(answer, Answer::Serve(_))
    };
    world.hosts.iter().filter(ready).count()
}

/// So many functions are looked at, spread over all: each costs a look at every host.
const SAMPLE: usize = 500;

fn living<'a>(world: &'a World<'_>) -> Vec<&'a Verified> {
    let newest = world.works.functions.iter().map(|function| &*function.newest);
    let living: Vec<&Verified> = newest.filter(|newest| !newest.is_tombstone()).collect();
    let step = living.len().div_ceil(SAMPLE).max(1);
    living.into_iter().step_by(step).collect()
}

fn every_function_has_its_replicas(world: &World<'_>) -> Check {
    let online = world
        .hosts
        .iter()
        .filter(|host| host.online && host.site.is_some())
        .count();
    let wanted = usize::from(world.scenario.replicas).min(online);
    let functions = living(world);
    let mut wrong = Vec::new();
    for manifest in &functions {
        let found = holders(world, &manifest.function(), manifest.version());
        if found != wanted {
            wrong.push(format!("{} has {found} of {wanted}", manifest.function().short()));
        }
    }
    Check::of(
        "every function has its replicas, and no more",
        functions.len(),
        wrong,
    )
}

fn no_answer_after_the_end(world: &World<'_>) -> Check {
    let mut wrong =
        vec!["a host answered after it had heard of the end".to_owned(); world.measured.forbidden as usize];
    let ended: Vec<_> = world
        .works
        .functions
        .iter()
        .filter(|f| f.newest.is_tombstone())
        .collect();
    for function in &ended {
        let found = holders(world, &function.id, Version::default());
        if found > 0 {
            wrong.push(format!("{} ended, and {found} hosts answer", function.id.short()));
        }
    }
    Check::of("no answer after the end was heard", ended.len(), wrong)
}

fn a_live_host_is_found(world: &World<'_>) -> Check {
    let now_ms = world.now_ms();
    let functions = living(world);
    let mut wrong = Vec::new();
    for manifest in &functions {
        let function = manifest.function();
        if holders(world, &function, manifest.version()) == 0 {
            continue;
        }
        for asker in world.supers.iter().filter(|node| node.up).take(10) {
            let directory = asker.hub.coordinator().directory(&function);
            let keeper = directory
                .first()
                .map_or(asker.place, |node| world.super_numbers[node]);
            let sites = world.supers[keeper].hub.coordinator().sites(&function);
            let found = sites.iter().any(|site| {
                let site = &world.supers[world.super_numbers[site]];
                site.up && !site.hub.coordinator().route(now_ms, &function).is_empty()
            });
            if !found {
                wrong.push(format!(
                    "{} asks in vain for {}",
                    asker.node.short(),
                    function.short()
                ));
            }
        }
    }
    Check::of(
        "the directory finds a live host in one hop",
        functions.len(),
        wrong,
    )
}

fn every_call_ends_once(world: &World<'_>) -> Check {
    let m = &world.measured;
    let ended = m.calls_answered + m.calls_unanswered + m.calls_decommissioned;
    let wrong = (ended != m.calls).then(|| format!("{} calls, {ended} ends", m.calls));
    Check::of(
        "every call ends exactly once",
        m.calls as usize,
        wrong.into_iter().collect(),
    )
}

fn nothing_waits(world: &World<'_>) -> Check {
    let mut wrong = Vec::new();
    for node in world.supers.iter().filter(|node| node.up) {
        let waiting = node.hub.coordinator().waiting();
        if waiting > 0 {
            wrong.push(format!(
                "{} has {waiting} orders for unknown functions",
                node.node.short()
            ));
        }
    }
    let sites: BTreeSet<usize> = world.hosts.iter().filter_map(|host| host.site).collect();
    Check::of(
        "no queue keeps what nobody will take",
        world.supers.len().max(sites.len()),
        wrong,
    )
}
