//! Artifacts that change on a disk: noticed, fetched again, never run.

use std::fs;

use orb_tests::{Network, Project, eventually, guest};

#[test]
fn a_replaced_artifact_on_a_hosts_disk_is_noticed_and_fetched_again() {
    let mut network = Network::start(1);
    let orb = network.user();
    let deployed = Project::wasm("good", &guest::say("good")).deploy(&orb);
    let artifact = deployed["artifact"].as_str().unwrap().to_owned();
    assert_eq!(orb.run(["call", "good", "null"]).text(), "good");
    network.hosts[0].stop();

    // Not noise but a whole other program: only its hash tells.
    let file = network
        .object(&network.host_data(0), &artifact)
        .expect("the host holds the artifact");
    fs::write(&file, guest::say("evil")).unwrap();
    network.hosts[0].start();
    let answer = eventually("the host answers", || {
        let call = orb.run(["call", "good", "null"]);
        (call.code == 0).then_some(call.stdout)
    });
    assert_eq!(String::from_utf8(answer).unwrap(), "good");
    let file = network
        .object(&network.host_data(0), &artifact)
        .expect("the host holds the artifact again");
    assert_eq!(fs::read(file).unwrap(), guest::say("good"));
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
