//! A disk that is full during a deploy: a real small tmpfs.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use orb_tests::{Daemon, Orb, Project, eventually, guest, scratch};

/// Room for an empty database and a few megabytes of artifacts.
const DISK_BYTES: usize = 16 << 20;

#[test]
fn a_full_disk_during_a_deploy() {
    if !can_mount() {
        return;
    }
    let folder = scratch::folder("disk");
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let mut super_node = Daemon::new("super", folder.path().join("super.log"))
        .wrapped(on_a_small_disk(&disk))
        .args(["super", "--listen", "127.0.0.1:0", "--data"])
        .args([disk.join("data")]);
    super_node.start();
    // Only the daemon sees its disk, and all look through its eyes.
    let seen_disk = super_node.root().join(disk.strip_prefix("/").unwrap());
    let address = super_node.wait_for_file(&seen_disk.join("data/address"));
    let mut host = Daemon::new("host", folder.path().join("host.log"))
        .args(["node", "--super", &address, "--data"])
        .args([folder.path().join("host")]);
    host.start();
    let orb = Orb::at(&address);

    let project = Project::wasm("kept", &guest::say("before"));
    project.deploy(&orb);
    eventually("a host is ready", || {
        (orb.run(["call", "kept", "null"]).code == 0).then_some(())
    });
    let unchanged = || {
        assert_eq!(orb.run(["call", "kept", "null"]).text(), "before");
        let versions = orb.run(["versions", "kept", "--json"]).json();
        assert_eq!(
            versions["revisions"].as_array().map(Vec::len),
            Some(1),
            "{versions}"
        );
    };

    // Full in the middle of the artifact's bytes.
    let ballast = seen_disk.join("ballast");
    fill(&ballast, 1 << 20);
    project.edit(guest::padded(guest::say("too big"), 3 << 20));
    let full = |arguments: &[&str]| {
        let ended = orb.run_in(project.path(), arguments);
        ended.fails(1, "internal").blames("host").says(&["disk"]);
    };
    full(&["deploy", "--json"]);
    unchanged();

    // Not a byte left: neither for the artifact nor for the database.
    fill(&ballast, 0);
    project.edit(guest::say("no room"));
    full(&["deploy", "--json"]);
    unchanged();
    let more = Project::wasm("more", &guest::say("more"));
    orb.run_in(more.path(), ["deploy", "--json"]).fails(1, "internal");
    orb.run(["inspect", "more", "--json"]).fails(6, "not_found");

    // Room again: as if nothing had happened, and nothing is left of the attempts.
    fs::remove_file(&ballast).unwrap();
    project.edit(guest::say("after"));
    assert_eq!(project.deploy(&orb)["revision"], 2);
    assert_eq!(orb.run(["call", "kept", "null"]).text(), "after");
    let left: u64 = orb_tests::network::files(&seen_disk.join("data/objects"))
        .iter()
        .map(|file| fs::metadata(file).unwrap().len())
        .sum();
    assert!(left < 100_000, "{left} bytes of artifacts");
    super_node.stop();
}

/// The words of a command that becomes another one, whose disk at `disk` is small. It is in a mount
/// namespace of its own, so that the disk is gone with it.
pub(crate) fn on_a_small_disk(disk: &Path) -> Vec<OsString> {
    let script = format!("mount -t tmpfs -o size={DISK_BYTES} none \"$0\" && exec \"$@\"");
    let mut words: Vec<OsString> = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        &script,
    ]
    .map(OsString::from)
    .into();
    words.push(disk.into());
    words
}

/// Whether this machine lets us make one. In CI it has to.
pub(crate) fn can_mount() -> bool {
    let Err(missing) = try_to_mount() else {
        return true;
    };
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!ci, "a small disk cannot be made: {missing}");
    eprintln!("SKIPPED: a small disk cannot be made: {missing}");
    false
}

fn try_to_mount() -> Result<(), String> {
    let folder = scratch::folder("mount");
    let words = on_a_small_disk(folder.path());
    match Command::new(&words[0]).args(&words[1..]).arg("true").output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Err(format!(
            "the command unshare (Debian package util-linux): {error}"
        )),
    }
}

/// Fills the disk that `ballast` lies on, up to so many free bytes.
pub(crate) fn fill(ballast: &Path, free_bytes: usize) {
    use std::io::Write;
    let mut file = fs::File::options()
        .create(true)
        .append(true)
        .open(ballast)
        .unwrap();
    let mut len = file.metadata().unwrap().len();
    while file.write_all(&[0; 4096]).is_ok() {
        len += 4096;
    }
    file.set_len(len.saturating_sub(free_bytes as u64)).unwrap();
}
