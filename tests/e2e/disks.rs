//! Disks that are full or read-only, under a host and at the start. (A full disk under a super node is
//! among the bad input; disks that refuse in the middle are simulated in the store's own tests.)

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use orb_tests::{Daemon, Exit, Network, Project, eventually, guest};

use crate::bad_input::full_disk::{can_mount, fill, on_a_small_disk};

#[test]
fn a_full_disk_under_a_host_costs_only_what_does_not_fit() {
    if !can_mount() {
        return;
    }
    let network = Network::start(0);
    let orb = network.user();
    let disk = network.folder().join("disk");
    fs::create_dir(&disk).unwrap();
    let mut host = Daemon::new("host", network.folder().join("host.log"))
        .wrapped(on_a_small_disk(&disk))
        .args(["node", "--super", &network.address, "--data"])
        .args([disk.join("data")])
        .args(["--cache".into(), network.folder().join("cache")]);
    host.start();
    let seen_disk = host.root().join(disk.strip_prefix("/").unwrap());
    let small = Project::wasm("small", &guest::say("one"));
    small.deploy(&orb);

    let ballast = seen_disk.join("ballast");
    fill(&ballast, 1 << 20);
    let big = Project::wasm("big", &guest::padded(guest::say("big"), 3 << 20));
    big.deploy_with(&orb, &["--no-wait"]);
    eventually("the host says why it does not hold it", || {
        let log = host.log_since_start();
        (log.contains("cannot be seeded now") && log.contains("full")).then_some(())
    });
    orb.run(["call", "big", "null", "--json"])
        .fails(8, "no_live_host");
    assert_eq!(orb.run(["call", "small", "null"]).text(), "one");

    // Not a byte left, for the database either: an edit is not answered, and never by what was before.
    fill(&ballast, 0);
    small.edit(guest::say("two"));
    small.deploy_with(&orb, &["--no-wait"]);
    orb.run(["call", "small", "null", "--timeout", "2s", "--json"])
        .fails(8, "no_live_host");

    fs::remove_file(&ballast).unwrap();
    for (name, answer) in [("small", "two"), ("big", "big")] {
        eventually("there is room again", || {
            let call = orb.run(["call", name, "null"]);
            (call.code == 0).then(|| assert_eq!(call.stdout, answer.as_bytes()))
        });
    }
    host.stop();
}

#[test]
fn a_read_only_disk_is_named_at_the_start_and_left_as_it_is() {
    if !can_mount() {
        return;
    }
    let mut network = Network::start(1);
    let orb = network.user();
    Project::wasm("kept", &guest::say("kept")).deploy(&orb);
    network.super_node.stop();
    network.hosts[0].stop();
    let (super_data, host_data) = (network.super_data(), network.host_data(0));
    let folders = [
        (&super_data, vec!["super", "--listen", "127.0.0.1:0"]),
        (&host_data, vec!["node", "--super", &network.address]),
    ];
    for (data, arguments) in folders {
        let mut daemon = Daemon::new(arguments[0], network.folder().join("read-only.log"))
            .wrapped(read_only(data))
            .args(arguments)
            .args(["--data".into(), data.as_os_str().to_owned()]);
        daemon.start();
        assert_eq!(daemon.wait(), Exit::Code(1), "{}", daemon.log_tail());
        let said = daemon.log_since_start();
        for word in ["Read-only file system", &data.display().to_string(), "--data"] {
            assert!(said.contains(word), "{word:?} is not in {said}");
        }
    }
    network.restart_super();
    network.hosts[0].start();
    eventually("all is as it was", || {
        let call = orb.run(["call", "kept", "null"]);
        (call.code == 0).then(|| assert_eq!(call.stdout, b"kept"))
    });
}

/// The words of a command that becomes another one, for which a folder is read-only.
fn read_only(folder: &Path) -> Vec<OsString> {
    let script = "mount --bind \"$0\" \"$0\" && mount -o remount,ro,bind \"$0\" && exec \"$@\"";
    let unshare = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        script,
    ];
    let words = unshare.into_iter().map(OsString::from);
    words.chain([folder.as_os_str().to_owned()]).collect()
}
