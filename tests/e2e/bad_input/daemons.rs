//! Daemons that cannot start.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;

use orb_tests::{Daemon, Exit, Network, Orb, Project, guest, scratch};

/// Starts a daemon that must not come up; gives its exit code and what it said.
fn fails(log: &Path, arguments: &[&str]) -> (Exit, String) {
    let mut daemon = Daemon::new(arguments[0], log.to_owned()).args(arguments);
    daemon.start();
    let exit = daemon.wait();
    (exit, daemon.log())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_second_daemon_on_the_same_data_folder() {
    let network = Network::start(1);
    let orb = network.user();
    Project::wasm("first", &guest::say("first")).deploy(&orb);
    let address = fs::read(network.super_data().join("address")).unwrap();
    let log = network.folder().join("second.log");
    let (exit, said) = fails(
        &log,
        &[
            "super",
            "--listen",
            "127.0.0.1:0",
            "--data",
            text(&network.super_data()),
        ],
    );
    assert_eq!(exit, Exit::Code(1), "{said}");
    let pid = network.super_node.pid().to_string();
    assert!(
        said.contains("in use") && said.contains(&pid) && said.contains("--data"),
        "{said}"
    );

    let log = network.folder().join("second-node.log");
    let data = network.host_data(0);
    let node = ["node", "--super", &network.address, "--data", text(&data)];
    let (exit, said) = fails(&log, &node);
    assert_eq!(exit, Exit::Code(1), "{said}");
    assert!(said.contains("in use"), "{said}");

    assert_eq!(fs::read(network.super_data().join("address")).unwrap(), address);
    assert_eq!(orb.run(["call", "first", "null"]).text(), "first");
}

#[test]
fn a_port_in_use() {
    let folder = scratch::folder("port");
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let data = folder.path().join("data");
    let arguments = ["super", "--listen", &listen, "--data", text(&data), "--json"];
    let ended = Orb::new().run(arguments);
    ended.fails(1, "local").says(&[&listen, "--listen"]);
    assert!(!data.exists(), "nothing was made");
    // When the port is free it is fine.
    drop(taken);
    let mut daemon = Daemon::new("super", folder.path().join("log")).args(&arguments[..5]);
    daemon.start();
    assert!(daemon.wait_for_file(&data.join("address")).ends_with(&listen));
    daemon.stop();
}

#[test]
fn a_data_folder_of_a_newer_version() {
    let mut network = Network::start(1);
    let orb = network.user();
    Project::wasm("old", &guest::say("old")).deploy(&orb);
    network.super_node.stop();
    network.hosts[0].stop();
    for (data, arguments) in [
        (network.super_data(), vec!["super", "--listen", "127.0.0.1:0"]),
        (network.host_data(0), vec!["node", "--super", &network.address]),
    ] {
        let version = fs::read_to_string(data.join("version")).unwrap();
        fs::write(data.join("version"), version.replacen('1', "1000", 1)).unwrap();
        let before = snapshot(&data);
        let arguments = [arguments, vec!["--data", text(&data), "--json"]].concat();
        Orb::new()
            .run(arguments)
            .fails(4, "version_mismatch")
            .says(&["1000", "update orb"]);
        assert_eq!(snapshot(&data), before, "the folder is as it was");
        fs::write(data.join("version"), version).unwrap();
    }
    network.restart_super();
    network.hosts[0].start();
    orb_tests::eventually("all is well again", || {
        (orb.run(["call", "old", "null"]).code == 0).then_some(())
    });
}

#[test]
fn a_data_folder_of_the_other_daemon_or_of_somebody_else() {
    let network = Network::start(0);
    let folder = scratch::folder("foreign");
    fs::write(folder.path().join("holiday.jpg"), "not ours").unwrap();
    let ended = Orb::new().run([
        "super",
        "--listen",
        "127.0.0.1:0",
        "--data",
        text(folder.path()),
        "--json",
    ]);
    ended.fails(2, "config").says(&["holiday.jpg"]);
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "nothing was put there"
    );
    let data = network.super_data();
    let node = [
        "node",
        "--super",
        &network.address,
        "--data",
        text(&data),
        "--json",
    ];
    Orb::new().run(node).fails(2, "config").says(&["orb super"]);
}

#[test]
fn settings_that_say_nothing_or_nonsense() {
    let folder = scratch::folder("settings");
    let file = folder.path().join("super.toml");
    fs::write(&file, "listen = \"127.0.0.1:0\"\nquota = 5\n").unwrap();
    let orb = Orb::new();
    orb.run(["super", "--config", text(&file), "--json"])
        .fails(2, "config")
        .says(&["super.toml:2", "quota"]);
    orb.run(["super", "--json"]).fails(2, "usage").says(&["--listen"]);
    orb.run(["node", "--data", text(folder.path()), "--json"])
        .fails(2, "usage")
        .says(&["--super"]);
}

#[test]
fn a_name_where_an_address_to_listen_at_belongs() {
    let folder = scratch::folder("name");
    let data = folder.path().join("data");
    let orb = Orb::new();
    orb.run([
        "super",
        "--listen",
        "localhost:4433",
        "--data",
        text(&data),
        "--json",
    ])
    .fails(2, "usage")
    .says(&["localhost:4433", "--listen", "0.0.0.0:4433"]);
    let file = folder.path().join("super.toml");
    fs::write(&file, "listen = \"4433\"\n").unwrap();
    orb.run(["super", "--config", text(&file), "--json"])
        .fails(2, "config")
        .says(&["super.toml:1", "0.0.0.0:4433"]);
    assert!(!data.exists(), "nothing was made");
}

#[test]
fn a_log_level_that_is_none() {
    let folder = scratch::folder("level");
    let data = folder.path().join("data");
    let mut daemon = Daemon::new("super", folder.path().join("log"))
        .args(["super", "--listen", "127.0.0.1:0", "--data", text(&data)])
        .env("ORB_LOG", "inof");
    daemon.start();
    assert_eq!(daemon.wait(), Exit::Code(2));
    let said = daemon.log();
    assert!(
        said.contains("ORB_LOG") && said.contains("info,orb_host=debug"),
        "{said}"
    );
    assert!(!data.exists(), "nothing was made");
}

#[test]
fn a_policy_on_the_command_line_over_a_list_elsewhere() {
    let folder = scratch::folder("policy");
    let data = folder.path().join("data");
    let file = folder.path().join("super.toml");
    let key = Orb::new().owner();
    fs::write(&file, format!("owners = \"list\"\nowner_list = [\"{key}\"]\n")).unwrap();
    let mut daemon = Daemon::new("super", folder.path().join("log"))
        .args(["super", "--listen", "127.0.0.1:0", "--data", text(&data)])
        .args(["--config", text(&file), "--owners", "open"])
        .env("ORB_OWNER_LIST", &key);
    daemon.start();
    let address = daemon.wait_for_file(&data.join("address"));
    let stranger = Orb::at(&address);
    let project = Project::wasm("anybody", &guest::say("anybody"));
    project.deploy_with(&stranger, &["--no-wait"]);
    daemon.stop();
}

/// Names and contents of all files.
fn snapshot(folder: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = orb_tests::network::files(folder)
        .into_iter()
        .map(|file| (file.clone(), fs::read(&file).unwrap()))
        .collect();
    files.sort();
    files
}
