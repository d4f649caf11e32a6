//! The lab: the real `orb` binary on networks of real kernels, with NATs, partitions and kills.
//!
//! Each machine is a network namespace of its own. Three parts:
//!
//! - NAT ([`scenario`], [`topology`]): NATs are nftables rules in the routers' kernels (crate `patchbay`). The
//!   super node is public; callers and hosts sit behind three kinds of NAT.
//! - Partition ([`partition`]): five super nodes with twenty hosts at one [`switch`], parted and healed.
//! - Crash ([`crash`]): a load while processes are killed and packets dropped, round after round. [`plan`] says
//!   what happens in a round, [`ledger`] what must be so afterwards, [`tally`] what is counted.
//!
//! What they share:
//!
//! - [`arguments`], [`requirements`]: what is run, and what the machine has to offer.
//! - [`machine`], [`namespace`]: where commands are run.
//! - [`orb`], [`daemon`], [`federation`]: the binary, as a command, as a daemon, and many of them.
//! - [`registry`], [`artifacts`], [`guest`]: what super nodes know, what hosts hold, what they run.
//! - [`capture`], [`packet`]: what crosses a machine's interfaces.
//! - [`dice`], [`interrupt`], [`report`]: randomness, an end before the end, and results, one line each.
//!
//! Run it with `cargo run --release --manifest-path tests/nat-lab/Cargo.toml`; it takes the binary from
//! `target/release/orb` or from `ORB_BIN`. Arguments: see [`arguments::USAGE`].

mod arguments;
mod artifacts;
mod capture;
mod crash;
mod daemon;
mod dice;
mod federation;
mod guest;
mod interrupt;
mod ledger;
mod machine;
mod namespace;
mod orb;
mod packet;
mod partition;
mod plan;
mod registry;
mod report;
mod requirements;
mod scenario;
mod switch;
mod tally;
mod topology;

use std::process::ExitCode;

use arguments::Arguments;

fn main() -> ExitCode {
    let arguments = match Arguments::read(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}\n{}", arguments::USAGE);
            return ExitCode::from(2);
        }
    };
    // Before any thread starts: entering a user namespace is for single-threaded processes.
    if let Err(missing) = requirements::enter() {
        return requirements::without(&missing);
    }
    interrupt::listen();
    let mut report = report::Report::default();
    if arguments.nat {
        let result = scenario::run(&mut report);
        report.check("the lab with NATs stands", result);
    }
    if arguments.partition {
        let result = partition::run(&mut report);
        report.check("the lab with partitions stands", result);
    }
    if arguments.crash {
        let result = crash::run(&mut report, arguments.seed, arguments.rounds);
        report.check("the lab with kills stands", result);
    }
    report.finish()
}
