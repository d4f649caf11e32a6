//! Results, one line each, and a summary that test tools can read.

use std::process::ExitCode;

/// What was found so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    passed: usize,
    failures: Vec<(String, anyhow::Error)>,
}

impl Report {
    /// Takes down how a test ended.
    pub(crate) fn record(&mut self, name: impl Into<String>, result: anyhow::Result<()>) {
        let name = name.into();
        match result {
            Ok(()) => {
                println!("test {name} ... ok");
                self.passed += 1;
            }
            Err(error) => {
                println!("test {name} ... FAILED");
                self.failures.push((name, error));
            }
        }
    }

    /// Takes down that something without which there is no test did not come to be.
    pub(crate) fn check(&mut self, name: &str, result: anyhow::Result<()>) {
        if result.is_err() {
            self.record(name, result);
        }
    }

    /// Whether anything has failed.
    pub(crate) fn has_failures(&self) -> bool {
        !self.failures.is_empty()
    }

    /// Prints why tests failed, and the summary.
    pub(crate) fn finish(self) -> ExitCode {
        for (name, error) in &self.failures {
            println!("---- {name}: {error:#}");
        }
        println!("{} passed, {} failed", self.passed, self.failures.len());
        if self.failures.is_empty() && self.passed > 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}
