//! The `orb` binary under test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The `orb` binary of the profile that this test was built in; `ORB_BIN` names another one.
///
/// Cargo does not build another package's binary for a test, so the first caller has it built. That
/// takes a moment where it is up to date, as it is after `cargo build` or `cargo test --workspace`.
///
/// # Panics
/// If there is no binary and none can be built.
pub fn orb() -> &'static Path {
    static ORB: OnceLock<PathBuf> = OnceLock::new();
    ORB.get_or_init(|| match std::env::var_os("ORB_BIN") {
        Some(path) => given(path.into()),
        None => built(),
    })
}

fn given(path: PathBuf) -> PathBuf {
    assert!(
        path.is_file(),
        "ORB_BIN is {}, and there is no such file",
        path.display()
    );
    path
}

/// `target/PROFILE/orb`, seen from `target/PROFILE/deps/this-test`.
fn built() -> PathBuf {
    let test = std::env::current_exe().expect("a process knows its executable");
    let profile = test
        .ancestors()
        .nth(2)
        .expect("a test lies in target/PROFILE/deps")
        .to_owned();
    let orb = profile.join("orb");
    match std::env::var_os("CARGO") {
        Some(cargo) => build(Path::new(&cargo), &profile),
        None => assert!(
            orb.is_file(),
            "there is no {}: build it with `cargo build --release -p orb-host`, or name one in ORB_BIN",
            orb.display()
        ),
    }
    orb
}

fn build(cargo: &Path, profile: &Path) {
    let name = match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let target = profile
        .parent()
        .expect("a profile's folder lies in the target folder");
    let mut command = Command::new(cargo);
    // What cargo tells a test of its own package; build scripts that watch these variables (ring's does)
    // would run again, and everything above them would be compiled anew, twice: now and afterwards.
    let own = |name: &str| {
        ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"]
            .iter()
            .any(|start| name.starts_with(start))
            || ["OUT_DIR", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE"].contains(&name)
    };
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(own) {
            command.env_remove(&name);
        }
    }
    let output = command
        .args([
            "build",
            "--offline",
            "--quiet",
            "-p",
            "orb-host",
            "--bin",
            "orb",
            "--profile",
            name,
        ])
        .arg("--target-dir")
        .arg(target)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .output()
        .expect("cargo starts");
    assert!(
        output.status.success(),
        "the orb binary does not build:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
