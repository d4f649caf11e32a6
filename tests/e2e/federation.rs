//! Several super nodes: what is handed in at one is found, called and ended at every other one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use orb_tests::{Federation, Orb, Project, eventually, guest};

/// Whether a super node knows a function, and that it lives.
fn lives_at(federation: &Federation, place: usize, function: &str) -> Option<bool> {
    let ended = federation.user(place).run(["versions", function, "--json"]);
    let told: serde_json::Value = serde_json::from_slice(&ended.stdout).ok()?;
    let newest = told["revisions"].as_array()?.first()?.clone();
    newest["live"].as_bool()
}

#[test]
fn what_is_deployed_at_one_super_node_is_called_through_another() {
    // The first super node has no host at all.
    let federation = Federation::start(&[0, 2]);
    let owner = federation.user(0);
    Project::wasm("say", &guest::say("hello")).deploy_to(&owner, 1);
    let name = format!("{}/say", owner.owner());
    for place in [0, 1] {
        let call = federation.user(place).call(&name, "null");
        assert_eq!(call["attempts"], 1, "through super{place}: {call}");
    }
    // An edit and the end are heard at both.
    Project::wasm("say", &guest::say("bye")).deploy_to(&owner, 1);
    for place in [0, 1] {
        assert_eq!(federation.user(place).run(["call", &name, "null"]).text(), "bye");
    }
    owner.run(["decommission", "say", "--yes"]).ok();
    eventually("the other super node has heard of the end", || {
        (lives_at(&federation, 1, &name) == Some(false)).then_some(())
    });
    for place in [0, 1] {
        federation
            .user(place)
            .run(["call", &name, "null", "--json"])
            .fails(6, "decommissioned");
    }
}

#[test]
fn a_function_has_as_many_replicas_as_its_owner_wants_over_all_super_nodes() {
    let federation = Federation::start(&[2, 2, 2]);
    let owner = federation.user(0);
    Project::wasm("three", &guest::say("hello")).deploy_to(&owner, 3);
    for place in 0..3 {
        let user = federation.user(place);
        let name = format!("{}/three", owner.owner());
        federation.wait_until_ready(&user, &name, 3);
        let inspected = user.run(["inspect", &name, "--json"]).json();
        assert_eq!(inspected["healthy"], 3, "as super{place} says: {inspected}");
        assert_eq!(user.run(["call", &name, "null"]).text(), "hello");
    }
}

#[test]
fn any_super_node_says_where_all_hosts_are_and_which_counts_are_its_own() {
    let federation = Federation::start(&[1, 1, 1, 1]);
    let owner = federation.user(0);
    let names = ["one", "two", "three"];
    for name in names {
        Project::wasm(name, &guest::say("hello")).deploy_to(&owner, 3);
    }
    let mut own_only = 0;
    for name in names {
        let full = format!("{}/{name}", owner.owner());
        let first = owner.run(["inspect", &full, "--json"]).json();
        let (mut hosts, mut places): (Vec<String>, BTreeSet<usize>) = Default::default();
        for host in first["hosts"].as_array().unwrap() {
            hosts.push(host["host"].as_str().unwrap().to_owned());
            let at = format!(
                "{}@{}",
                host["super_node"].as_str().unwrap(),
                host["super_address"].as_str().unwrap()
            );
            places.insert(
                federation
                    .addresses
                    .iter()
                    .position(|address| *address == at)
                    .unwrap(),
            );
        }
        // Each super node has one host.
        assert_eq!(places.len(), 3, "{first}");
        let mut everywhere = 0;
        for place in 0..4 {
            let user = federation.user(place);
            let inspected = user.run(["inspect", &full, "--json"]).json();
            let told = inspected["hosts"].as_array().unwrap().iter();
            assert_eq!(
                told.map(|host| host["host"].as_str().unwrap())
                    .collect::<Vec<_>>(),
                hosts
            );
            assert_eq!(
                (&inspected["healthy"], &inspected["note"]),
                (&3.into(), &"".into())
            );
            // Those of the directory that do not place it hear of replicas a moment later.
            let function = eventually(&format!("super{place} counts what it knows of {name}"), || {
                let listed = user.run(["list", "--owner", &owner.owner(), "--json"]).json();
                let mut functions = listed["functions"].as_array()?.iter();
                let function = functions.find(|function| function["name"] == name)?.clone();
                let is_whole = function["ready"] == 3 || function["ready_everywhere"] == false;
                is_whole.then_some(function)
            });
            match function["ready_everywhere"].as_bool().unwrap() {
                true => everywhere += 1,
                false => assert!(function["ready"].as_u64() <= Some(1), "{function}"),
            }
        }
        // The three of its directory know.
        assert_eq!(everywhere, 3);
        own_only += 4 - everywhere;
    }
    assert_eq!(own_only, names.len());
    let texts: Vec<String> = (0..4)
        .map(|place| {
            federation
                .user(place)
                .run(["list", "--owner", &owner.owner()])
                .text()
        })
        .collect();
    assert_eq!(
        texts.concat().matches(" here of 3").count(),
        names.len(),
        "{texts:?}"
    );
    let text = owner.run(["inspect", "one"]).text();
    assert!(
        text.contains("3 of 3 replicas healthy") && text.contains("SUPER NODE"),
        "{text}"
    );
}

#[test]
fn a_super_node_that_was_away_hears_what_it_missed_and_one_that_is_lost_is_done_without() {
    let mut federation = Federation::start(&[0, 1, 1]);
    let owner = federation.user(1);
    let name = |function: &str| format!("{}/{function}", owner.owner());
    Project::wasm("before", &guest::say("before")).deploy_to(&owner, 1);
    federation.supers[0].kill();
    Project::wasm("meanwhile", &guest::say("meanwhile")).deploy_to(&owner, 1);
    owner.run(["decommission", "before", "--yes"]).ok();
    // The others go on.
    assert_eq!(
        federation
            .user(2)
            .run(["call", &name("meanwhile"), "null"])
            .text(),
        "meanwhile"
    );
    federation.restart_super(0);
    eventually("it has heard what it missed", || {
        let live = |function| lives_at(&federation, 0, &name(function));
        (live("meanwhile") == Some(true) && live("before") == Some(false)).then_some(())
    });
    eventually("it finds hosts of others again", || {
        let ended = federation.user(0).run(["call", &name("meanwhile"), "null"]);
        (ended.code == 0).then_some(())
    });
}

/// The numbers of a function's revisions as a super node lists them, newest first.
fn numbers_at(federation: &Federation, place: usize, function: &str) -> Vec<u64> {
    let versions = federation
        .user(place)
        .run(["versions", function, "--json"])
        .json();
    let revisions = versions["revisions"].as_array().unwrap();
    revisions
        .iter()
        .map(|revision| revision["revision"].as_u64().unwrap())
        .collect()
}

#[test]
fn a_super_node_that_missed_revisions_has_all_of_the_history_and_goes_back_to_any() {
    let mut federation = Federation::start(&[1, 0, 1]);
    let mut owner = federation.user(0);
    let name = format!("{}/kept", owner.owner());
    let deploy = |owner: &Orb, number: u64| {
        let program = guest::say(&number.to_string());
        Project::wasm("kept", &program).deploy_to(owner, 1);
    };
    deploy(&owner, 1);
    eventually("the last super node has heard of it", || {
        (lives_at(&federation, 2, &name) == Some(true)).then_some(())
    });
    federation.supers[2].kill();
    (2..=5).for_each(|number| deploy(&owner, number));
    federation.restart_super(2);
    eventually("it lists all of them", || {
        let user = federation.user(2);
        let ended = user.run(["versions", &name, "--json"]);
        let told: serde_json::Value = serde_json::from_slice(&ended.stdout).ok()?;
        let revisions = told["revisions"].as_array()?;
        let whole = revisions.len() == 5 && told["complete"] == true;
        whole.then(|| assert!(revisions.iter().all(|r| r["has_artifact"] == true), "{told}"))
    });
    // It keeps what it was told: those who told it are not needed any more.
    federation.supers[0].kill();
    federation.supers[1].kill();
    assert_eq!(numbers_at(&federation, 2, &name), [5, 4, 3, 2, 1]);
    federation.restart_super(0);
    federation.restart_super(1);
    // And it goes back to what it had missed, without the owner's own copy of the bytes.
    owner.move_to(&federation.addresses[2]);
    std::fs::remove_dir_all(owner.home().join("artifacts")).unwrap();
    eventually("it is rolled back there", || {
        let ended = owner.run(["rollback", "kept", "--to", "3", "--json"]);
        (ended.code == 0).then_some(())
    });
    assert_eq!(owner.run(["call", &name, "null"]).text(), "3");
    assert_eq!(numbers_at(&federation, 2, &name), [6, 5, 4, 3, 2, 1]);
}

#[test]
fn hosts_of_a_lost_super_node_go_to_another_one_and_back() {
    let mut federation = Federation::start(&[1, 0]);
    let owner = federation.user(1);
    let name = format!("{}/stay", owner.owner());
    Project::wasm("stay", &guest::say("here")).deploy_to(&owner, 1);
    federation.supers[0].kill();
    // It was started with the address of the first one only.
    eventually("the host is at the other super node", || {
        let ended = federation.user(1).run(["call", &name, "null", "--timeout", "4s"]);
        (ended.code == 0).then_some(())
    });
    federation.restart_super(0);
    eventually("the host is back", || {
        let log = federation.hosts[0].1.log_since_start();
        (log.matches("connected to a super node").count() >= 2).then_some(())
    });
    assert_eq!(federation.user(1).run(["call", &name, "null"]).text(), "here");
}

#[test]
fn an_artifact_that_a_super_node_lost_comes_from_a_host() {
    let mut federation = Federation::start(&[1]);
    let owner = federation.user(0);
    let name = format!("{}/kept", owner.owner());
    Project::wasm("kept", &guest::say("kept")).deploy_to(&owner, 1);
    federation.supers[0].stop();
    let objects = federation.super_data(0).join("objects");
    let artifact = only_artifact(&objects);
    std::fs::remove_file(&artifact).expect("the artifact is removed");
    federation.restart_super(0);
    federation.add_host(0);
    federation.wait_until_ready(&owner, &name, 2);
    assert_eq!(only_artifact(&objects), artifact, "it is at the super node again");
    federation.hosts[0].1.kill();
    assert_eq!(owner.run(["call", &name, "null"]).text(), "kept");
}

#[test]
fn a_host_takes_an_artifact_from_another_one_if_its_super_node_does_not_have_it() {
    let mut federation = Federation::start(&[1]);
    // This one takes no artifacts but small ones.
    federation.add_super_with(&["--artifact-bytes-max", "4KiB"]);
    federation.wait_until_linked();
    federation.add_host(1);
    let (owner, friend) = (federation.user(0), federation.user(1));
    let name = format!("{}/large", owner.owner());
    // A host need not be one that may call the function.
    let visibility = format!("visibility = [{:?}, {:?}]", owner.owner(), friend.owner());
    Project::wasm("large", &guest::padded(guest::say("large"), 64 << 10))
        .set(&visibility)
        .deploy_to(&owner, 2);
    federation.wait_until_ready(&owner, &name, 2);
    assert_eq!(
        files(&federation.super_data(1).join("objects")),
        [] as [PathBuf; 0]
    );
    federation.hosts[0].1.kill();
    eventually("the other host answers", || {
        let ended = friend.run(["call", &name, "null"]);
        (ended.code == 0).then(|| assert_eq!(ended.text(), "large"))
    });
}

fn only_artifact(objects: &Path) -> PathBuf {
    let mut files = files(objects);
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => all.extend(files(&path)),
            path => all.push(path),
        }
    }
    all
}
