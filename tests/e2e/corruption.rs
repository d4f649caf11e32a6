//! What changes on a disk: artifacts and databases. Noticed, mended where there is another copy, and
//! never believed.

use std::fs;
use std::path::PathBuf;

use orb_tests::{Daemon, Exit, Network, Orb, Project, eventually, guest};

#[test]
fn an_artifact_that_changed_on_a_hosts_disk_is_noticed_and_fetched_again() {
    let mut network = Network::start(1);
    let orb = network.user();
    let evil = network.user();
    let js = Project::js("js", "export default () => 'evil';");
    js.deploy(&evil);
    let evil_js = fs::read(js.artifact()).unwrap();
    // Not noise but a whole other program: only its hash tells.
    let cases = [
        Case::publish(
            &orb,
            Project::wasm("replaced", &guest::say("good")),
            Some(guest::say("evil")),
        ),
        Case::publish(
            &orb,
            Project::js("script", "export default () => 'good';"),
            Some(evil_js),
        ),
        Case::publish(
            &orb,
            Project::wasm("cut", &guest::padded(guest::say("good"), 9)),
            Some(guest::say("good")),
        ),
        Case::publish(
            &orb,
            Project::wasm("gone", &guest::padded(guest::say("good"), 8)),
            None,
        ),
    ];
    network.hosts[0].stop();
    for case in &cases {
        case.spoil(&network);
    }
    network.hosts[0].start();
    for case in &cases {
        let answer = eventually("the host answers", || {
            let call = orb.run(["call", &case.function, "null"]);
            (call.code == 0).then(|| String::from_utf8(call.stdout).unwrap())
        });
        assert_eq!(answer.trim().trim_matches('"'), "good", "{}", case.function);
        assert_eq!(case.on_disk(&network), case.right, "{}", case.function);
        // What was wrong is kept for the operator to look at.
        if let Some(wrong) = &case.wrong {
            let damaged = network.host_data(0).join("objects/damaged").join(&case.artifact);
            assert_eq!(&fs::read(damaged).unwrap(), wrong, "{}", case.function);
        }
    }
}

#[test]
fn an_artifact_that_changes_below_a_running_host_is_never_run() {
    let network = Network::start(1);
    let orb = network.user();
    let case = Case::publish(
        &orb,
        Project::wasm("running", &guest::say("good")),
        Some(guest::say("evil")),
    );
    case.spoil(&network);
    for _ in 0..5 {
        let answer = orb.run(["call", "running", "null"]);
        assert_ne!(answer.stdout, b"evil");
    }
    eventually("the host answers", || {
        let call = orb.run(["call", "running", "null"]);
        (call.code == 0).then(|| assert_eq!(call.stdout, b"good"))
    });
}

/// A function whose artifact is spoilt on the first host's disk.
struct Case {
    function: String,
    artifact: String,
    right: Vec<u8>,
    /// What the file holds instead; `None` if it is gone.
    wrong: Option<Vec<u8>>,
}

impl Case {
    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "a case has its project to itself")]
    fn publish(orb: &Orb, project: Project, wrong: Option<Vec<u8>>) -> Self {
        let deployed = project.deploy(orb);
        Self {
            function: project.name().to_owned(),
            artifact: deployed["artifact"].as_str().unwrap().to_owned(),
            right: fs::read(project.artifact()).unwrap(),
            wrong,
        }
    }

    fn spoil(&self, network: &Network) {
        let file = self.file(network);
        match &self.wrong {
            Some(bytes) => fs::write(file, bytes).unwrap(),
            None => fs::remove_file(file).unwrap(),
        }
    }

    fn on_disk(&self, network: &Network) -> Vec<u8> {
        fs::read(self.file(network)).unwrap()
    }

    fn file(&self, network: &Network) -> PathBuf {
        let file = network.object(&network.host_data(0), &self.artifact);
        file.expect("the host holds the artifact")
    }
}

#[test]
fn spoilt_compiled_code_is_made_anew() {
    let mut network = Network::start(1);
    let orb = network.user();
    Project::js("js", "export default () => 'fine';").deploy(&orb);
    Project::wasm("command", &guest::say("fine")).deploy(&orb);
    network.hosts[0].stop();
    let mut spoilt = 0;
    for file in orb_tests::network::files(&network.host_data(0).join("cache")) {
        let mut bytes = fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        if let Some(byte) = bytes.get_mut(middle) {
            *byte ^= 0xff;
            // A new file: this one may have other names, in other data folders.
            fs::remove_file(&file).unwrap();
            fs::write(&file, bytes).unwrap();
            spoilt += 1;
        }
    }
    assert!(spoilt > 0, "a host keeps compiled code");
    network.hosts[0].start();
    eventually("the host answers", || {
        (orb.run(["call", "js", "null"]).code == 0).then_some(())
    });
    assert_eq!(orb.answer("js", "null"), "fine");
    assert_eq!(orb.run(["call", "command", "null"]).text(), "fine");
}

#[test]
fn an_artifact_that_is_wrong_at_the_super_node_is_taken_by_no_host() {
    let mut network = Network::start(0);
    let orb = network.user();
    let deployed = Project::wasm("good", &guest::say("good")).deploy_with(&orb, &["--no-wait"]);
    let artifact = deployed["artifact"].as_str().unwrap().to_owned();
    let file = network
        .object(&network.super_data(), &artifact)
        .expect("the super node holds the artifact");
    fs::write(&file, guest::say("evil")).unwrap();
    network.add_host(&[]);
    network.wait_for_hosts();
    // The host was told to hold it, and says why it does not, or is still trying.
    orb.run(["call", "good", "null", "--json"])
        .fails(8, "no_live_host");
    // The owner still has the right bytes, and publishing them again mends it.
    Project::wasm("good", &guest::say("good")).deploy(&orb);
    assert_eq!(orb.run(["call", "good", "null"]).text(), "good");
}

/// A database file as it is, and in turn with one bit flipped in each place that names a function.
fn flipped_in_each_place(file: &[u8], name: &str) -> Vec<Vec<u8>> {
    let places = file.windows(name.len()).enumerate();
    let places = places.filter(|(_, window)| *window == name.as_bytes());
    let flipped = places.map(|(at, _)| {
        let mut bytes = file.to_vec();
        bytes[at] ^= 0x10;
        bytes
    });
    let flipped: Vec<Vec<u8>> = flipped.collect();
    assert!(!flipped.is_empty(), "the database knows {name}");
    flipped
}

#[test]
fn a_bit_flipped_in_a_hosts_database_is_mended_from_the_super_node() {
    let mut network = Network::start(1);
    let orb = network.user();
    Project::wasm("kept-here", &guest::say("kept")).deploy(&orb);
    Project::wasm("gone-again", &guest::say("gone")).deploy(&orb);
    orb.run(["decommission", "gone-again", "--yes"]).ok();
    let database = network.host_data(0).join("orb.redb");
    network.hosts[0].stop();
    let mut noticed = 0;
    for bytes in flipped_in_each_place(&fs::read(&database).unwrap(), "kept-here") {
        fs::write(&database, bytes).unwrap();
        network.hosts[0].start();
        eventually("the host answers", || {
            let call = orb.run(["call", "kept-here", "null"]);
            (call.code == 0).then(|| assert_eq!(call.stdout, b"kept"))
        });
        orb.run(["call", "gone-again", "null", "--json"])
            .fails(6, "decommissioned");
        let log = network.hosts[0].log_since_start();
        noticed += usize::from(log.contains("the database is damaged"));
        network.hosts[0].stop();
    }
    // Some places are in pages that are not in use any more.
    assert!(noticed > 0);
}

#[test]
fn a_bit_flipped_in_a_super_nodes_database_is_refused_with_the_mend() {
    let mut network = Network::start(1);
    let orb = network.user();
    let project = Project::wasm("kept-here", &guest::say("old"));
    project.deploy(&orb);
    project.edit(guest::say("kept"));
    project.deploy(&orb);
    network.super_node.stop();
    let database = network.super_data().join("orb.redb");
    let backup = fs::read(&database).unwrap();
    let mut refused = 0;
    for bytes in flipped_in_each_place(&backup, "kept-here") {
        fs::write(&database, bytes).unwrap();
        let mut daemon = Daemon::new("super", network.folder().join("flipped.log"))
            .args(["super", "--listen", "127.0.0.1:0", "--data"])
            .args([network.super_data()]);
        let _ = fs::remove_file(network.super_data().join("address"));
        daemon.start();
        let serves = eventually("it serves or it does not", || {
            let serves = network.super_data().join("address").exists();
            (serves || !daemon.is_running()).then_some(serves)
        });
        if serves {
            let versions = orb.run(["versions", "kept-here", "--json"]).json();
            assert_eq!(
                versions["revisions"].as_array().map(Vec::len),
                Some(2),
                "{versions}"
            );
            daemon.stop();
            continue;
        }
        refused += 1;
        assert_eq!(daemon.wait(), Exit::Code(1));
        let said = daemon.log_since_start();
        for word in ["orb.redb", "is damaged", "restore it from a backup"] {
            assert!(said.contains(word), "{word:?} is not in {said}");
        }
    }
    assert!(refused > 0);
    fs::write(&database, backup).unwrap();
    network.restart_super();
    eventually("all is as it was", || {
        let call = orb.run(["call", "kept-here", "null"]);
        (call.code == 0).then(|| assert_eq!(call.stdout, b"kept"))
    });
}
