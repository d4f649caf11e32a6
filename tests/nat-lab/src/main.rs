//! The NAT lab: the real `orb` binary on networks with real kernel NATs.
//!
//! Each machine is a network namespace of its own; NATs are nftables rules in the routers' kernels
//! (crate `patchbay`). The super node is public; callers and hosts sit behind three kinds of NAT.
//!
//! - [`requirements`]: what the machine has to offer.
//! - [`topology`]: the machines and their routers.
//! - [`orb`]: the binary, run in a machine.
//! - [`capture`], [`packet`]: what crosses a machine's interfaces.
//! - [`scenario`]: what has to hold.
//! - [`report`]: results, one line each.
//!
//! Run it with `cargo run --release --manifest-path tests/nat-lab/Cargo.toml`; it takes the binary from
//! `target/release/orb` or from `ORB_BIN`.

mod capture;
mod orb;
mod packet;
mod report;
mod requirements;
mod scenario;
mod topology;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before any thread starts: entering a user namespace is for single-threaded processes.
    if let Err(missing) = requirements::enter() {
        return requirements::without(&missing);
    }
    let mut report = report::Report::default();
    if let Err(error) = scenario::run(&mut report) {
        report.record("the lab stands", Err(error));
    }
    report.finish()
}
