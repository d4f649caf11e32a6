//! The bytes of every message. A change here is a change of the protocol: older peers must still
//! understand it, or the ALPN gets another number.

use std::fmt::Write;

use crate::samples;

/// Bytes in one line of a dump.
const LINE: usize = 32;

#[test]
fn every_message_has_the_bytes_that_it_had() {
    let mut dump = String::new();
    for sample in samples::all() {
        writeln!(dump, "{} ({} bytes)", sample.name, sample.bytes.len()).expect("a string takes all");
        for line in sample.bytes.chunks(LINE) {
            let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(dump, "  {}", hex.join(" ")).expect("a string takes all");
        }
    }
    insta::assert_snapshot!(dump);
}

#[test]
fn every_message_comes_back() {
    for sample in samples::all() {
        assert_eq!(
            (sample.recode)(&sample.bytes).as_ref(),
            Ok(&sample.bytes),
            "{}",
            sample.name
        );
    }
}
