#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| orb_decoders::entry("federation")(bytes));
