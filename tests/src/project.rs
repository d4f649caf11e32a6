//! Folders with a function in them, as a developer has them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::command::Orb;
use crate::poll::eventually;
use crate::scratch;

/// A function's folder: `orb.toml` and its source or module.
#[derive(Debug)]
pub struct Project {
    folder: TempDir,
    name: String,
    source: &'static str,
    settings: String,
    limits: String,
}

impl Project {
    /// A function in JavaScript.
    pub fn js(name: &str, source: &str) -> Self {
        Self::of(name, "main", "index.js", source.as_bytes())
    }

    /// A function in WebAssembly.
    pub fn wasm(name: &str, module: &[u8]) -> Self {
        Self::of(name, "wasm", "function.wasm", module)
    }

    fn of(name: &str, key: &str, file: &'static str, bytes: &[u8]) -> Self {
        let project = Self {
            folder: scratch::folder(name),
            name: name.to_owned(),
            source: file,
            settings: format!("{key} = {file:?}\n"),
            limits: String::new(),
        };
        project.edit(bytes);
        project.write_settings();
        project
    }

    /// The same with a further line in `orb.toml`, as in `"idempotent = true"`.
    #[must_use]
    pub fn set(mut self, line: &str) -> Self {
        self.settings += &format!("{line}\n");
        self.write_settings();
        self
    }

    /// The same with a line under `[limits]`, as in `"fuel = 1000"`.
    #[must_use]
    pub fn limit(mut self, line: &str) -> Self {
        self.limits += &format!("{line}\n");
        self.write_settings();
        self
    }

    fn write_settings(&self) {
        let Self {
            name,
            settings,
            limits,
            ..
        } = self;
        let limits = if limits.is_empty() {
            String::new()
        } else {
            format!("[limits]\n{limits}")
        };
        self.write(
            "orb.toml",
            format!("schema = 1\nname = {name:?}\n{settings}{limits}"),
        );
    }

    /// Changes the source or the module.
    pub fn edit(&self, bytes: impl AsRef<[u8]>) {
        self.write(self.source, bytes);
    }

    /// Writes a file of the folder.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, file: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.folder.path().join(file), bytes).expect("a file of a scratch folder can be written");
    }

    /// The function's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Where `orb build` puts the artifact.
    pub fn artifact(&self) -> PathBuf {
        self.path().join(".orb").join(format!("{}.wasm", self.name))
    }

    /// Publishes it with `--json`, and waits until a host can answer.
    #[track_caller]
    pub fn deploy(&self, orb: &Orb) -> Value {
        self.deploy_to(orb, 1)
    }

    /// Publishes it with `--json`, and waits until so many hosts can answer.
    #[track_caller]
    pub fn deploy_to(&self, orb: &Orb, hosts: u64) -> Value {
        let deployed = self.deploy_with(orb, &["--wait", &hosts.to_string()]);
        // The command itself waits for 15 seconds at most, which is not enough on a busy machine.
        eventually(&format!("{hosts} hosts are ready for {}", self.name), || {
            let inspected = orb.run(["inspect", &self.name, "--json"]).json();
            (inspected["healthy"].as_u64()? >= hosts).then_some(())
        });
        deployed
    }

    /// Publishes it with `--json` and further arguments, and waits for nothing more.
    #[track_caller]
    pub fn deploy_with(&self, orb: &Orb, arguments: &[&str]) -> Value {
        let arguments = [&["deploy", "--json"], arguments].concat();
        orb.run_in(self.path(), arguments).json()
    }
}
