//! The sandbox of the command line: the one that hosts use, for one guest at a time.

use std::path::PathBuf;
use std::sync::OnceLock;

use orb_runtime::{Sandbox, SandboxConfig};

use crate::failure::Failure;

/// Guests at once. A command runs one; each reserves address space.
const INSTANCES_MAX: u32 = 2;

/// Made when it is first needed: most commands run nothing.
#[derive(Debug)]
pub(crate) struct LocalSandbox {
    cache: PathBuf,
    sandbox: OnceLock<Sandbox>,
}

impl LocalSandbox {
    /// One that keeps compiled code in the folder `cache`.
    pub(crate) fn new(cache: PathBuf) -> Self {
        Self {
            cache,
            sandbox: OnceLock::new(),
        }
    }

    /// The sandbox.
    ///
    /// # Errors
    /// When the machine does not give what it needs.
    pub(crate) fn get(&self) -> Result<&Sandbox, Failure> {
        if let Some(sandbox) = self.sandbox.get() {
            return Ok(sandbox);
        }
        let config = SandboxConfig {
            cache_dir: Some(self.cache.clone()),
            instances_max: INSTANCES_MAX,
            ..SandboxConfig::default()
        };
        let sandbox = Sandbox::new(config).map_err(|error| {
            Failure::local(error.to_string())
                .help("see what `orb doctor` says about the sandbox, and which folder ORB_HOME names")
        })?;
        Ok(self.sandbox.get_or_init(|| sandbox))
    }
}
