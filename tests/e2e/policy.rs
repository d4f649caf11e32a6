//! Hosts that keep to their operator's policy.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use orb_tests::{Network, Orb, Project, eventually, scratch};

/// Quiet hours that hold now: from the hour before this one to the end of the next, by this machine's time.
fn quiet_now() -> String {
    let date = Command::new("date").arg("+%H").output().unwrap().stdout;
    let hour: u32 = String::from_utf8(date).unwrap().trim().parse().unwrap();
    format!("{:02}:00-{:02}:00", (hour + 23) % 24, (hour + 2) % 24)
}

/// A network of hosts, each with a file of settings.
struct Operated {
    network: Network,
    // The last field: folders go after the processes that read in them.
    folder: tempfile::TempDir,
}

impl Operated {
    fn start(hosts: usize) -> Self {
        let folder = scratch::folder("settings");
        let mut operated = Self {
            network: Network::start(0),
            folder,
        };
        for host in 0..hosts {
            let file = operated.file(host);
            fs::write(&file, "").unwrap();
            operated.network.add_host(&["--config", file.to_str().unwrap()]);
        }
        operated.network.wait_for_hosts();
        operated
    }

    fn file(&self, host: usize) -> PathBuf {
        self.folder.path().join(format!("host{host}.toml"))
    }

    /// Has a host begin again with other settings.
    fn set(&mut self, host: usize, settings: &str) {
        fs::write(self.file(host), settings).unwrap();
        self.network.hosts[host].stop();
        self.network.hosts[host].start();
        self.network.wait_for_hosts();
    }
}

fn state_of(orb: &Orb, function: &str, host: &str) -> Option<String> {
    let inspected = orb.run(["inspect", function, "--json"]).json();
    let hosts = inspected["hosts"].as_array()?;
    let host = hosts.iter().find(|entry| entry["host"] == host)?;
    Some(format!(
        "{} {}",
        host["state"].as_str()?,
        host["reason"].as_str().unwrap_or_default()
    ))
}

#[test]
fn a_host_in_its_quiet_hours_keeps_what_it_holds_and_takes_nothing() {
    let mut operated = Operated::start(2);
    let orb = operated.network.user();
    Project::js("known", "export default () => 1;").deploy_to(&orb, 2);
    let quiet = format!("quiet_hours = [\"{}\"]\n", quiet_now());
    operated.set(0, &quiet);
    let network = &operated.network;
    let paused = network.host_id(0);
    let state = eventually("the host is seen to pause", || {
        state_of(&orb, "known", &paused).filter(|state| state.starts_with("paused"))
    });
    assert!(state.contains(&format!("quiet hours {}", quiet_now())), "{state}");
    for _ in 0..5 {
        assert_ne!(orb.call("known", "null")["host"], *paused);
    }
    // Nothing new is placed there, and it is said why there are so few.
    let deployed = Project::js("new", "export default () => 2;").deploy_with(&orb, &["--wait", "1"]);
    assert_eq!(deployed["ready"].as_array().map(Vec::len), Some(1), "{deployed}");
    assert_eq!(state_of(&orb, "new", &paused), None);
    let note = orb.run(["inspect", "new", "--json"]).json()["note"].to_string();
    assert!(note.contains("a host is paused: quiet hours"), "{note}");
    let log = network.hosts[0].log_since_start();
    assert_eq!(
        log.matches("paused: no calls and no further functions").count(),
        1,
        "{log}"
    );
    // When everybody pauses, callers are told why nobody answers.
    operated.set(1, &quiet);
    eventually("it is said that all hosts pause", || {
        let call = orb.run(["call", "known", "null", "--json"]);
        String::from_utf8_lossy(&call.stdout)
            .contains("paused: quiet hours")
            .then_some(())
    });
    // It answers with its old copy as soon as it goes on, though nobody else is there.
    operated.set(0, "");
    operated.network.hosts[1].stop();
    eventually("the host that paused answers", || {
        let answer = orb.run(["call", "known", "null", "--json"]);
        (answer.code == 0 && answer.json()["host"] == *paused).then_some(())
    });
}

#[test]
fn contradictions_keep_a_host_from_starting_and_name_the_mend() {
    let orb = Orb::new();
    let folder = scratch::folder("contradiction");
    let file = folder.path().join("node.toml");
    let address = &Network::shared().address;
    let supers = format!("super = [{address:?}]\ndata = \"data\"\n");
    for (settings, parts) in [
        (
            "quiet_hours = [\"22:00-07:00\", \"06:00-08:00\"]",
            ["overlap", "one range"],
        ),
        (
            "quiet_hours = [\"00:00-12:00\", \"12:00-00:00\"]",
            ["no minute of the day", "shorten"],
        ),
        ("quiet_hours = [\"at night\"]", ["node.toml:3", "22:00-07:00"]),
        ("disk_bytes_max = 0", ["`disk_bytes_max` is 0", "raise"]),
        (
            "disk_bytes_max = \"1MiB\"\nartifact_bytes_max = \"1MiB\"",
            ["`artifact_bytes_max`", "raise `disk_bytes_max`"],
        ),
        ("idle_load_max = 0", ["node.toml:3", "load per core"]),
    ] {
        fs::write(&file, format!("{supers}{settings}\n")).unwrap();
        let path = file.to_str().expect("a scratch folder has a plain name");
        orb.run_in(folder.path(), ["node", "--config", path, "--json"])
            .fails(2, "config")
            .says(&parts);
        // And the doctor finds them before.
        let report = orb.run(["doctor", "--config", path, "--json"]);
        let text = String::from_utf8_lossy(&report.stdout).into_owned();
        assert!(
            parts.iter().all(|part| text.contains(part.trim_matches('`'))),
            "{text}"
        );
    }
    assert!(!folder.path().join("data").exists());
}

#[test]
fn the_doctor_says_what_the_policy_decides_now() {
    let orb = Network::shared().user();
    let folder = scratch::folder("policy");
    let file = folder.path().join("node.toml");
    let look = |settings: &str| {
        fs::write(&file, settings).unwrap();
        let path = file.to_str().expect("a scratch folder has a plain name");
        let report = orb.run(["doctor", "--config", path, "--json"]).json();
        let checks = report["checks"].as_array().expect("a list of checks").clone();
        move |name: &str| {
            let check = checks.iter().find(|check| check["name"] == name);
            check.map(|check| check["detail"].as_str().unwrap_or_default().to_owned())
        }
    };
    let plain = look("");
    assert!(plain("policy").is_some_and(|text| text.contains("everybody")));
    assert!(plain("pause").is_some_and(|text| text.contains("at any time")));
    let always = look("quiet_hours = [\"00:00-23:59\"]\nevict = true\n");
    let pause = always("pause").expect("it says whether a host would pause");
    assert!(
        pause.contains("nothing now: quiet hours") || pause.contains("it is 23:59"),
        "{pause}"
    );
    assert!(always("policy").is_some_and(|text| text.contains("10 minutes goes")));
}
