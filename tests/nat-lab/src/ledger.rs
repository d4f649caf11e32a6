//! What was tried and what was acknowledged, and what must be so because of it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::registry::{Registry, Revision};

/// Revisions whose artifacts a super node keeps (the brief).
const KEPT: usize = 10;

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    functions: BTreeMap<String, Entry>,
    /// What the super nodes agreed on last.
    agreed: Registry,
}

#[derive(Debug, Default)]
struct Entry {
    /// What was acknowledged, and by which super node.
    acknowledged: Vec<(usize, Revision)>,
    /// What each artifact answers that was ever handed in.
    answers: BTreeMap<String, String>,
    /// Those that were handed in since the registries agreed last.
    fresh: BTreeSet<String>,
}

impl Ledger {
    /// An artifact is handed in, whatever will come of it.
    pub(crate) fn on_tried(&mut self, function: &str, artifact: &str, answer: &str) {
        let entry = self.functions.entry(function.to_owned()).or_default();
        entry.answers.insert(artifact.to_owned(), answer.to_owned());
        entry.fresh.insert(answer.to_owned());
    }

    /// A super node has acknowledged a revision.
    pub(crate) fn on_acknowledged(
        &mut self,
        function: &str,
        super_node: usize,
        document: &Value,
    ) -> Result<()> {
        let revision = Revision::read(document)?;
        let entry = self.functions.entry(function.to_owned()).or_default();
        entry.acknowledged.push((super_node, revision));
        Ok(())
    }

    /// What the super nodes agree on has everything that was acknowledged, and nothing was ever taken back.
    pub(crate) fn check_registry(&mut self, registry: &Registry) -> Result<()> {
        for (name, entry) in &self.functions {
            let live = registry.get(name);
            let was = self.agreed.get(name).map(|revision| (None, revision));
            let acknowledged = entry
                .acknowledged
                .iter()
                .map(|(place, revision)| (Some(*place), revision));
            for (place, revision) in acknowledged.chain(was) {
                let by = place.map_or("all super nodes".to_owned(), |place| format!("super{place}"));
                let live = live.with_context(|| format!("{name} is lost; {by} said {revision}"))?;
                ensure!(
                    live.rank() >= revision.rank(),
                    "{name} is {live}, after {by} had said {revision}"
                );
            }
            if let Some(artifact) = live.and_then(|live| live.artifact.as_ref()) {
                let is_known = entry.answers.contains_key(artifact);
                ensure!(
                    is_known,
                    "{name} has the artifact {artifact}, which nobody handed in"
                );
            }
        }
        for name in registry.keys() {
            ensure!(self.functions.contains_key(name), "nobody made {name}");
        }
        self.agreed.clone_from(registry);
        Ok(())
    }

    /// A super node's history has what it acknowledged, with the bytes of the last revisions.
    pub(crate) fn check_history(&self, name: &str, super_node: usize, versions: &Value) -> Result<()> {
        let documents = versions["revisions"].as_array().context("revisions")?;
        let revisions: Vec<Revision> = documents.iter().map(Revision::read).collect::<Result<_>>()?;
        let entry = &self.functions[name];
        let mine = entry
            .acknowledged
            .iter()
            .filter(|(place, _)| *place == super_node);
        for (_, revision) in mine {
            // Two devices may have ended it at once: either tombstone does.
            let ends = |other: &Revision| other.artifact.is_none() && other.generation == revision.generation;
            let is_same =
                |other: &Revision| other == revision || (revision.artifact.is_none() && ends(other));
            let place = revisions.iter().position(is_same);
            let place =
                place.with_context(|| format!("super{super_node} said {revision}, and has lost it"))?;
            let of_this_life = revisions
                .iter()
                .take_while(|other| other.artifact.is_some() && other.generation == revisions[0].generation);
            if place < of_this_life.count().min(KEPT) {
                let has = documents[place]["has_artifact"] == true;
                ensure!(has, "super{super_node} said {revision}, and has lost its bytes");
            }
        }
        Ok(())
    }

    /// What a function that lives has to answer.
    pub(crate) fn answer(&self, name: &str) -> Option<&str> {
        let artifact = self.agreed.get(name)?.artifact.as_ref()?;
        self.functions[name].answers.get(artifact).map(String::as_str)
    }

    /// Whether an answer is one of a revision that is not older than the last time when everybody agreed.
    pub(crate) fn is_fresh(&self, name: &str, answer: &str) -> bool {
        self.functions[name].fresh.contains(answer)
    }

    /// Everybody has agreed, and has answered.
    pub(crate) fn settle(&mut self) {
        for entry in self.functions.values_mut() {
            entry.fresh.clear();
        }
    }

    /// Names of functions that live, and of those that have ended.
    pub(crate) fn names(&self) -> (Vec<String>, Vec<String>) {
        let names = self.agreed.iter();
        let (live, ended): (Vec<_>, Vec<_>) = names.partition(|(_, revision)| revision.artifact.is_some());
        let names = |some: Vec<(&String, _)>| some.into_iter().map(|(name, _)| name.clone()).collect();
        (names(live), names(ended))
    }

    /// Artifacts that no host may hold: those of functions that have ended.
    pub(crate) fn ended_artifacts(&self) -> BTreeSet<&str> {
        let ended = self
            .agreed
            .iter()
            .filter(|(_, revision)| revision.artifact.is_none());
        let artifacts = ended.flat_map(|(name, _)| self.functions[name].answers.keys());
        artifacts.map(String::as_str).collect()
    }

    /// How many acknowledgements there were.
    pub(crate) fn acknowledged(&self) -> usize {
        self.functions
            .values()
            .map(|entry| entry.acknowledged.len())
            .sum()
    }
}
