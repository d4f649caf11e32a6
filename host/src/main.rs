//! Orb.
fn main() {}
