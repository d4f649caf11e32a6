//! The sandbox of the command line: the one that hosts use, for one guest at a time.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::OnceLock;
use std::time::Duration;

use orb_runtime::{Sandbox, SandboxConfig};

use crate::config;
use crate::executor::{Executors, ExecutorsConfig, Launch};
use crate::failure::Failure;
use crate::output::{Output, Tone};

/// Guests at once. A command runs one; each reserves address space.
const INSTANCES_MAX: u32 = 2;
/// A person is told what takes so long after this time.
const PATIENCE: Duration = Duration::from_millis(700);

/// Made when it is first needed: most commands run nothing.
#[derive(Debug)]
pub(crate) struct LocalSandbox {
    cache: PathBuf,
    person: Option<Output>,
    sandbox: OnceLock<Sandbox>,
}

impl LocalSandbox {
    /// One that keeps compiled code in the folder `cache`.
    pub(crate) fn new(cache: PathBuf) -> Self {
        Self {
            cache,
            person: None,
            sandbox: OnceLock::new(),
        }
    }

    /// The same, telling a person why the first use on a machine takes longer.
    #[must_use]
    pub(crate) fn telling(mut self, out: Output) -> Self {
        self.person = Some(out).filter(|out| !out.is_json());
        self
    }

    /// The sandbox.
    ///
    /// # Errors
    /// When the machine does not give what it needs.
    pub(crate) fn get(&self) -> Result<&Sandbox, Failure> {
        if let Some(sandbox) = self.sandbox.get() {
            return Ok(sandbox);
        }
        let sandbox = Sandbox::new(self.config()).map_err(|error| no_sandbox(&error))?;
        Ok(self.sandbox.get_or_init(|| sandbox))
    }

    /// A process of its own for a guest, as on a host.
    ///
    /// # Errors
    /// When the machine does not give what it needs.
    pub(crate) async fn executors(&self) -> Result<Executors, Failure> {
        let config = ExecutorsConfig {
            sandbox: self.config(),
            processes: 1,
            memory_bytes: config::memory_share(),
            require_walls: false,
            launch: Launch::this_program(),
        };
        Executors::start(config).await.map_err(|error| no_sandbox(&error))
    }

    fn config(&self) -> SandboxConfig {
        SandboxConfig {
            cache_dir: Some(self.cache.clone()),
            instances_max: INSTANCES_MAX,
            ..SandboxConfig::default()
        }
    }

    /// Waits for work that needs the JavaScript engine.
    pub(crate) async fn patiently<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        if let Ok(done) = tokio::time::timeout(PATIENCE, &mut work).await {
            return done;
        }
        if let Some(out) = &self.person {
            let text = "compiling the JavaScript engine for this machine, which is done once …";
            out.note(&out.paint_err(Tone::Faint, text));
        }
        work.await
    }
}

fn no_sandbox(error: &dyn std::fmt::Display) -> Failure {
    Failure::local(error.to_string())
        .help("see what `orb doctor` says about the sandbox, and which folder ORB_HOME names")
}
