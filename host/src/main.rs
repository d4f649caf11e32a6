//! `orb`: see the library for what is where.

use std::process::ExitCode;

fn main() -> ExitCode {
    orb_host::main()
}
