//! What goes to make room for another artifact, and what stays.
//!
//! First what need not be held any more, then, if the operator lets them go, functions that were not
//! called for long: the least recently called first. Nothing goes if all of it together would not do,
//! and nothing that turns out not to be needed for it.

use std::collections::BTreeMap;
use std::fmt;

use crate::id::{ArtifactHash, FunctionId};

/// Artifacts, with how many functions need each: one that several share goes with the last of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    entries: BTreeMap<ArtifactHash, (u64, usize)>,
    bytes: u64,
}

impl Ledger {
    /// A function needs an artifact of so many bytes.
    pub(super) fn enter(&mut self, artifact: ArtifactHash, bytes: u64) {
        let (entered, needs) = self.entries.entry(artifact).or_insert((bytes, 0));
        *needs += 1;
        if *needs == 1 {
            self.bytes = self.bytes.saturating_add(*entered);
        }
    }

    /// A function needs an artifact no more.
    pub(super) fn strike(&mut self, artifact: &ArtifactHash) {
        let Some((bytes, needs)) = self.entries.get_mut(artifact) else {
            return;
        };
        *needs = needs.saturating_sub(1);
        if *needs == 0 {
            self.bytes = self.bytes.saturating_sub(*bytes);
            self.entries.remove(artifact);
        }
    }

    /// What goes with a candidate.
    pub(super) fn let_go(&mut self, candidate: &Candidate) {
        candidate
            .artifacts
            .iter()
            .for_each(|(artifact, _)| self.strike(artifact));
    }

    /// The candidate stays after all.
    fn take_back(&mut self, candidate: &Candidate) {
        candidate
            .artifacts
            .iter()
            .for_each(|&(artifact, bytes)| self.enter(artifact, bytes));
    }

    /// Whether any function needs an artifact.
    pub(super) fn has(&self, artifact: &ArtifactHash) -> bool {
        self.entries.contains_key(artifact)
    }

    /// All of them together, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// What goes of a function, in the order in which it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Goes {
    /// The whole: there is a newer revision, which this host was not told to hold.
    Superseded,
    /// The bytes of the old revision, while the new one is on its way.
    OldBytes,
    /// The whole: nobody called it for long.
    NotCalled,
}

impl fmt::Display for Goes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Superseded => "superseded, it goes",
            Self::OldBytes => "superseded, its old bytes go",
            Self::NotCalled => "not called for long, it goes",
        })
    }
}

/// Something that may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    /// The function.
    pub(super) function: FunctionId,
    /// What goes of it.
    pub(super) goes: Goes,
    /// When it was last called, or came, in milliseconds.
    pub(super) used_ms: u64,
    /// The artifacts that it needs no more then, with their sizes in bytes.
    pub(super) artifacts: Vec<(ArtifactHash, u64)>,
}

/// Which of the candidates, which go in this order, have to go so that at most so many bytes stay. None of
/// them if all would not do.
pub(super) fn plan(mut ledger: Ledger, candidates: Vec<Candidate>, most: u64) -> Vec<Candidate> {
    let mut going: Vec<Candidate> = Vec::new();
    for candidate in candidates {
        if ledger.bytes() <= most {
            break;
        }
        ledger.let_go(&candidate);
        going.push(candidate);
    }
    if ledger.bytes() > most {
        return Vec::new();
    }
    spare(ledger, going, most)
}

/// Takes back what turns out not to have been needed: a small one that went before a large one did. Of
/// those, whoever is to go last stays first.
fn spare(mut ledger: Ledger, going: Vec<Candidate>, most: u64) -> Vec<Candidate> {
    let needed = |candidate: &Candidate| {
        ledger.take_back(candidate);
        let needed = ledger.bytes() > most;
        if needed {
            ledger.let_go(candidate);
        }
        needed
    };
    let mut kept: Vec<Candidate> = going.into_iter().rev().filter(needed).collect();
    kept.reverse();
    kept
}
