//! The fuzzer's entry points as ordinary tests: the corpus is replayed, as it is and damaged, and a
//! bounded number of random inputs is tried. `tests/fuzz/run` is the long form.

#![expect(clippy::unwrap_used, reason = "a test panics on surprise")]

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use orb_decoders::{ENTRIES, Entry};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Random inputs for each decoder.
const RANDOM_CASES: u32 = 512;
/// Damaged seeds for each decoder.
const DAMAGED_CASES: u32 = 512;
/// The longest random input, in bytes.
const RANDOM_BYTES_MAX: usize = 300;
/// All seeds together, in bytes: they are checked in.
const CORPUS_BYTES_MAX: u64 = 200 << 10;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

fn names(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(fuzz().join(folder)).unwrap();
    let stem = |entry: fs::DirEntry| entry.path().file_stem().unwrap().to_str().unwrap().to_owned();
    entries.map(|entry| stem(entry.unwrap())).collect()
}

/// A decoder's seeds, in the order of their names.
fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = fs::read_dir(fuzz().join("corpus").join(name)).unwrap();
    let mut seeds: Vec<_> = folder
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    seeds.sort();
    seeds
}

#[test]
fn every_decoder_has_a_target_and_seeds() {
    let entries: BTreeSet<String> = ENTRIES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("fuzz_targets"), entries);
    assert_eq!(names("corpus"), entries);
    let mut bytes = 0;
    for name in &entries {
        let seeds = corpus(name);
        assert!(!seeds.is_empty(), "{name} has no seeds");
        bytes += seeds.iter().map(|(_, seed)| seed.len() as u64).sum::<u64>();
    }
    assert!(bytes <= CORPUS_BYTES_MAX, "the corpus has {bytes} bytes");
}

#[test]
fn the_corpus_is_replayed() {
    for (name, entry) in ENTRIES {
        for (path, seed) in corpus(name) {
            let held = catch_unwind(AssertUnwindSafe(|| entry(&seed)));
            assert!(held.is_ok(), "{name} breaks on {}", path.display());
        }
    }
}

/// Tries an entry on inputs that a strategy makes; what breaks it is made as small as can be.
fn check(name: &str, entry: Entry, cases: u32, inputs: impl Strategy<Value = Vec<u8>>) {
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let result = TestRunner::new(config).run(&inputs, |bytes| {
        entry(&bytes);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{name}: {error}");
    }
}

#[test]
fn random_bytes_break_no_decoder() {
    for (name, entry) in ENTRIES {
        let bytes = prop::collection::vec(any::<u8>(), 0..RANDOM_BYTES_MAX);
        check(name, *entry, RANDOM_CASES, bytes);
    }
}

#[test]
fn damaged_seeds_break_no_decoder() {
    for (name, entry) in ENTRIES {
        let seeds: Vec<Vec<u8>> = corpus(name).into_iter().map(|(_, seed)| seed).collect();
        let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6);
        let cut = prop::option::of(any::<prop::sample::Index>());
        let inputs = (prop::sample::select(seeds), damage, cut).prop_map(|(mut seed, damage, cut)| {
            for (at, byte) in damage {
                if !seed.is_empty() {
                    let at = at.index(seed.len());
                    seed[at] = byte;
                }
            }
            if let Some(at) = cut {
                seed.truncate(at.index(seed.len() + 1));
            }
            seed
        });
        check(name, *entry, DAMAGED_CASES, inputs);
    }
}
