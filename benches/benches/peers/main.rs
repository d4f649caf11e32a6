//! Orb against what people would use instead, or would write in an afternoon. Both sides take turns.
//!
//! - `walled`: guests behind the second wall, against bare wasmtime there; and what counting fuel costs.
//! - `vm`: a JavaScript call, against Node with a fresh `vm` context for each.
//! - `restart`: the first call of a large command after a restart, against reading, checking and loading its code.
//! - `prototype`: relayed JavaScript calls, against the 2018 prototype's shape on socket.io.
//! - `bulk`: a large body through the relay, against a naive two-hop stream copy.
//! - `build`: `orb build`, against `node --check`.
//!
//! `cargo bench --workspace --bench peers -- [--quick] [NAME...]`, after `cargo build --release -p orb-host`.

mod build;
mod bulk;
mod prototype;
mod restart;
mod vm;
mod walled;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use orb_benches::baseline;
use orb_benches::process::role;
use tokio::runtime::Runtime;

fn main() -> ExitCode {
    // This binary is its own executor.
    if let Some(code) = orb_host::executor::child() {
        return code;
    }
    let measured = match role() {
        Some((role, length)) if role == walled::WALLED => walled::inside(&length),
        Some((role, argument)) => baseline::serve_role(&role, &argument),
        None => measure(),
    };
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let short = args.iter().any(|arg| arg == "--test" || arg == "--quick");
    let names: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let runtime = Runtime::new()?;
    type Measure = fn(&Runtime, bool) -> Result<()>;
    let all: [(&str, Measure); 6] = [
        ("walled", walled::measure),
        ("vm", vm::measure),
        ("restart", restart::measure),
        ("prototype", prototype::measure),
        ("bulk", bulk::measure),
        ("build", build::measure),
    ];
    for (name, measure) in all {
        if names.is_empty() || names.iter().any(|wanted| *wanted == name) {
            measure(&runtime, short)?;
        }
    }
    Ok(())
}

/// A script beside this file.
fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("benches/peers")
        .join(name)
}
