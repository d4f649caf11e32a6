//! What is wrong with a function's folder.

use std::fs;

use orb_tests::{Network, Orb, Project, guest, scratch};

/// Neither of these commands takes the folder, and it is left without a build.
#[track_caller]
fn refused(project: &Project, kind: &str, says: &[&str]) {
    let orb = Network::shared().user();
    for command in [
        &["build", "--json"][..],
        &["run", "--json", "--input", "null"],
        &["deploy", "--json"],
    ] {
        orb.run_in(project.path(), command)
            .fails(2, kind)
            .says(says)
            .blames("caller");
    }
    assert!(!project.artifact().exists(), "nothing was built");
    assert_eq!(
        orb.run(["list", "--json"]).json()["functions"],
        serde_json::json!([])
    );
}

#[test]
fn a_folder_without_orb_toml() {
    let (orb, folder) = (Orb::new(), scratch::folder("empty"));
    for command in ["build", "deploy"] {
        orb.run_in(folder.path(), [command, "--json"])
            .fails(2, "no_project")
            .says(&["orb.toml", "orb new"]);
    }
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        0,
        "the folder is as it was"
    );
}

#[test]
fn unknown_keys_in_orb_toml() {
    let source = "export default () => 1;";
    refused(
        &Project::js("typo", source).set("idempotant = true"),
        "config",
        &["orb.toml:4", "idempotant"],
    );
    refused(
        &Project::js("typo", source).limit("memory = 1"),
        "config",
        &["orb.toml:5", "memory"],
    );
}

#[test]
fn a_syntax_error_in_the_source() {
    let source = "export default (input) => {\n  return input +;\n};\n";
    let project = Project::js("syntax", source);
    // The line and a caret below the place.
    refused(&project, "syntax", &["index.js:2:", "return input +;", "^"]);
}

#[test]
fn a_syntax_error_leaves_what_was_published() {
    let orb = Network::shared().user();
    let project = Project::js("fine", "export default () => 'first';");
    project.deploy(&orb);
    project.edit("export default () => {");
    orb.run_in(project.path(), ["deploy", "--json"])
        .fails(2, "syntax");
    assert_eq!(orb.answer("fine", "null"), "first");
    let versions = orb.run(["versions", "fine", "--json"]).json();
    assert_eq!(versions["revisions"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_wasm_file_that_is_not_wasm() {
    refused(
        &Project::wasm("text", b"#!/bin/sh\necho hello\n"),
        "not_wasm",
        &["function.wasm"],
    );
    refused(&Project::wasm("nothing", b""), "not_wasm", &["function.wasm"]);
    let mut cut = guest::echo();
    cut.truncate(cut.len() / 2);
    refused(&Project::wasm("cut", &cut), "not_wasm", &["function.wasm"]);
}

#[test]
fn a_module_that_imports_what_orb_does_not_offer() {
    let module = guest::import("env", "launch_missiles");
    refused(
        &Project::wasm("import", &module),
        "import",
        &["env", "launch_missiles"],
    );
}

#[test]
fn a_javy_artifact_that_our_emitter_did_not_make() {
    let orb = Orb::new();
    let project = Project::js("mine", "export default () => 1;");
    orb.run_in(project.path(), ["build"]).ok();
    let built = fs::read(project.artifact()).unwrap();
    // Taken as it is when it is just what the emitter made, and not when somebody added to it.
    let same = Project::wasm("same", &built);
    orb.run_in(same.path(), ["build"]).ok();
    refused(
        &Project::wasm("other", &guest::padded(built, 8)),
        "not_ours",
        &["javy"],
    );
}
