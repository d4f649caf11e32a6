//! What the machine has to offer, and what happens where it does not.

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

/// The tools that patchbay runs.
const TOOLS: [(&str, &str); 3] = [("nft", "nftables"), ("ip", "iproute2"), ("tc", "iproute2")];

/// Enters a user namespace in which this process may make networks.
///
/// # Errors
/// What is missing, a line each.
pub(crate) fn enter() -> Result<(), Vec<String>> {
    let mut missing: Vec<String> = TOOLS
        .into_iter()
        .filter(|(tool, _)| !runs(tool))
        .map(|(tool, package)| format!("the command `{tool}` (Debian package {package})"))
        .collect();
    if let Err(error) = patchbay::init_userns().and_then(|()| patchbay::check_caps()) {
        missing.push(format!(
            "leave to make user and network namespaces ({error:#}); as root, or with \
             `sysctl kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0`"
        ));
    }
    let orb = orb_path();
    if !orb.is_file() {
        missing.push(format!(
            "the binary {} (`cargo build --release`, or name one in ORB_BIN)",
            orb.display()
        ));
    }
    if missing.is_empty() { Ok(()) } else { Err(missing) }
}

/// The binary under test.
pub(crate) fn orb_path() -> PathBuf {
    match std::env::var_os("ORB_BIN") {
        Some(path) => path.into(),
        None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/release/orb")),
    }
}

/// Says what is missing. That is a failure where everything has to be tested (`CI=true`).
pub(crate) fn without(missing: &[String]) -> ExitCode {
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    println!("{}: the NAT lab needs", if ci { "FAILED" } else { "SKIPPED" });
    for thing in missing {
        println!("  - {thing}");
    }
    if ci {
        println!("0 passed, 1 failed");
        ExitCode::FAILURE
    } else {
        println!("!!! NO NAT WAS TESTED !!!");
        ExitCode::SUCCESS
    }
}

fn runs(tool: &str) -> bool {
    // Each of them knows a way to say its version, and any answer at all will do.
    Command::new(tool)
        .arg("-V")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}
