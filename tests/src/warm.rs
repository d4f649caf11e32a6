//! The compiled JavaScript engine, so that not every daemon and every user compiles it anew.
//!
//! A host compiles it when it starts for the first time, which takes seconds of both cores, and a
//! test run starts dozens of hosts. So one host does it, and the others begin with what it left in
//! its data folder, except for what makes it itself: its key and its port.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::network::files;
use crate::poll::eventually;
use crate::scratch;

/// Makes the data folder of a host that was started once before.
pub(crate) fn host_folder(folder: &Path) {
    fs::create_dir_all(folder).expect("a scratch folder can be made");
    let version = "version";
    fs::copy(first_host().join(version), folder.join(version)).expect("a host's folder has a version");
    link_all(&first_host().join("cache"), &folder.join("cache"));
}

/// Makes an `ORB_HOME` in which something was built once before.
pub(crate) fn home(folder: &Path) {
    link_all(&first_host().join("cache"), &folder.join("cache"));
}

/// The data folder of a host that has compiled the engine and is no more.
fn first_host() -> &'static Path {
    static FIRST: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, data) = FIRST.get_or_init(|| {
        let folder = scratch::folder("first-host");
        let data = folder.path().join("data");
        let nobody = orb_protocol::key::NodeKey::from_seed([1; 32]).id();
        let mut host = Daemon::new("first host", folder.path().join("log"))
            .args(["node", "--super", &format!("{nobody}@127.0.0.1:1"), "--data"])
            .args([&data]);
        host.start();
        eventually("a host has compiled the engine", || {
            let is_compiled = |file: &PathBuf| file.extension().is_some_and(|ending| ending == "cwasm");
            files(&data.join("cache")).iter().any(is_compiled).then_some(())
        });
        drop(host);
        (folder, data)
    });
    data
}

/// The same files in another folder. The cache replaces files and never writes into one.
fn link_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a scratch folder can be made");
    for file in files(from) {
        let name = file.file_name().expect("a file has a name");
        fs::hard_link(&file, to.join(name)).expect("a file of the scratch folders can be linked");
    }
}
