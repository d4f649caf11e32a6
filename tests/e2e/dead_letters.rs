//! `orb super dead-letters`, as an operator uses it. What is sent again is tested beside the webhooks themselves: an
//! event is given up after half an hour.

use std::fs;

use orb_tests::{Daemon, Orb, scratch};

#[test]
fn an_operator_asks_the_super_node_that_runs_and_is_told_what_is_wrong() {
    let folder = scratch::folder("operator");
    let (data, config) = (folder.path().join("data"), folder.path().join("super.toml"));
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let webhook = "http://127.0.0.1:9/hook";
    let text = format!("[[webhook]]\nurl = \"{webhook}\"\nsecret = \"{secret}\"\nallow_private = true\n");
    fs::write(&config, text).unwrap();
    let mut super_node = Daemon::new("super", folder.path().join("super.log"))
        .args(["super", "--listen", "127.0.0.1:0"])
        .args([
            "--config".as_ref(),
            config.as_os_str(),
            "--data".as_ref(),
            data.as_os_str(),
        ]);
    let orb = Orb::new();
    let ask = |more: &[&str]| {
        let first = [
            "super",
            "dead-letters",
            "--json",
            "--data",
            data.to_str().unwrap(),
        ];
        orb.run([&first, more].concat())
    };
    ask(&[])
        .fails(2, "config")
        .says(&["is not the data folder of a super node", "--data"]);
    super_node.start();
    super_node.wait_for_file(&data.join("address"));
    assert_eq!(ask(&[]).json()["letters"], serde_json::json!([]));
    let resent = ask(&["--resend", "--webhook", webhook]).json();
    assert_eq!(resent, serde_json::json!({"delivered": [], "failed": []}));
    ask(&["--resend", "--webhook", "https://example.org/"])
        .fails(2, "input_invalid")
        .says(&["no webhook https://example.org/", webhook]);
    ask(&["--resend", "7"])
        .fails(2, "input_invalid")
        .says(&["-7 is not among the dead letters"]);
    ask(&["tomorrow"])
        .fails(2, "input_invalid")
        .says(&["tomorrow is no event"]);
    // It is for the operator only, and there after a kill, too.
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(data.join("operator.sock")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    super_node.kill();
    ask(&[]).fails(1, "local").says(&["does not run", "start it"]);
    fs::remove_file(data.join("address")).unwrap();
    super_node.start();
    super_node.wait_for_file(&data.join("address"));
    assert_eq!(ask(&[]).json()["letters"], serde_json::json!([]));
    super_node.stop();
    ask(&[]).fails(1, "local").says(&["does not run"]);
}
