//! Wall clocks that are set back and forward by a day, under daemons that run.
//!
//! Time namespaces do not know the wall clock, so the daemons' `clock_gettime` is another one
//! (`clock.c`). Nothing but credentials may depend on what it says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use orb_tests::{Daemon, Network, Orb, Project, eventually, guest};

const DAY_S: i64 = 24 * 60 * 60;

/// The clock of some daemons.
struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    fn new(folder: &Path, name: &str) -> Self {
        let library = folder.join("clock.so");
        if !library.exists() {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/clock.c");
            let mut compiler = Command::new("cc");
            compiler.args(["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"]);
            let status = compiler.arg(&library).arg(source).status();
            assert!(
                status.is_ok_and(|status| status.success()),
                "a C compiler is there"
            );
        }
        let clock = Self {
            library,
            file: folder.join(name),
        };
        clock.set(0);
        clock
    }

    /// Sets it so many seconds before the right time, or after it.
    fn set(&self, wrong_by_s: i64) {
        use std::os::unix::fs::FileExt;
        let file = fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&self.file);
        file.unwrap().write_all_at(&wrong_by_s.to_ne_bytes(), 0).unwrap();
    }

    fn worn_by(&self, daemon: Daemon) -> Daemon {
        daemon
            .env("LD_PRELOAD", &self.library)
            .env("TEST_CLOCK", &self.file)
    }
}

#[test]
fn a_clock_that_jumps_by_a_day_changes_nothing_but_credentials_and_those_say_so() {
    let network = Network::start(0);
    let folder = network.folder();
    let (super_clock, host_clock) = (
        Clock::new(folder, "super-clock"),
        Clock::new(folder, "host-clock"),
    );
    let data = folder.join("late-super");
    let super_node = Daemon::new("late super", folder.join("late-super.log"))
        .args(["super", "--listen", "127.0.0.1:0", "--data"])
        .args([&data]);
    let mut super_node = super_clock.worn_by(super_node);
    super_node.start();
    let address = super_node.wait_for_file(&data.join("address"));
    let host = Daemon::new("late host", folder.join("late-host.log"))
        .args(["node", "--super", &address, "--data"])
        .args([folder.join("late-host")]);
    let mut host = host_clock.worn_by(host);
    host.start();
    let orb = Orb::at(&address);
    let owner = orb.owner();
    let open = Project::wasm("open", &guest::say("first"));
    open.deploy(&orb);
    Project::wasm("private", &guest::say("private"))
        .set(&format!("visibility = [{owner:?}]"))
        .deploy(&orb);

    for (number, shift_s) in [DAY_S, -DAY_S].into_iter().enumerate() {
        for clock in [&super_clock, &host_clock] {
            clock.set(shift_s);
            assert_eq!(
                doctor_complains(&orb),
                std::ptr::eq(clock, &super_clock),
                "{shift_s}"
            );
            go_through_a_life(&orb, &open, &format!("{number}, {}", clock.file.display()));
            let private = orb.run(["call", "private", "null", "--json"]);
            if shift_s > 0 && std::ptr::eq(clock, &host_clock) {
                private
                    .fails(7, "refused")
                    .says(&["expired", "clock", "orb doctor"]);
            } else {
                private.ok();
            }
            // Restarted in the wrong time, and put right while they run.
            host.stop();
            super_node.stop();
            super_node.start();
            host.start();
            answers(&orb, "open", "last");
            clock.set(0);
            answers(&orb, "private", "private");
        }
    }
    host.stop();
    super_node.stop();
}

fn answers(orb: &Orb, name: &str, answer: &str) {
    eventually("the host answers", || {
        let call = orb.run(["call", name, "null"]);
        (call.code == 0).then(|| assert_eq!(call.stdout, answer.as_bytes()))
    });
}

/// An edit, a rollback, an end and a new beginning.
fn go_through_a_life(orb: &Orb, project: &Project, mark: &str) {
    let name = project.name();
    for answer in [mark, "last"] {
        project.edit(guest::say(answer));
        project.deploy(orb);
        answers(orb, name, answer);
    }
    orb.run(["rollback", name]).ok();
    answers(orb, name, mark);
    orb.run(["decommission", name, "--yes"]).ok();
    orb.run(["call", name, "null", "--json"])
        .fails(6, "decommissioned");
    project.edit(guest::say("last"));
    project.deploy_with(orb, &["--resurrect", "--wait", "1"]);
    answers(orb, name, "last");
}

/// Whether this machine's clock is another one than the super node's.
fn doctor_complains(orb: &Orb) -> bool {
    let report = orb.run(["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let clock = checks.iter().find(|check| check["name"] == "clock");
    clock.unwrap_or_else(|| panic!("{report}"))["state"] != "ok"
}
