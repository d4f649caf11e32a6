//! Executors in tests: the test's own binary, started again.

use std::time::Duration;

use orb_runtime::SandboxConfig;

use super::{Executors, ExecutorsConfig, Launch};

/// Tells the test's binary that it was started to be a child.
pub(super) const MARK: &str = "ORB_TEST_CHILD";

/// Not a test: what [`Launch::this_test`] starts.
#[test]
fn process() {
    if std::env::var_os(MARK).is_none() {
        return;
    }
    let parameter = std::env::args_os().next_back().unwrap_or_default();
    let task = super::Task::of(&parameter).expect("started to be a child");
    let code = super::run(task);
    // Without the words of the test harness on standard output, which may be compiled code.
    std::process::exit(if code == std::process::ExitCode::SUCCESS {
        0
    } else {
        1
    });
}

/// Settings for a test.
pub(crate) fn config(sandbox: SandboxConfig) -> ExecutorsConfig {
    ExecutorsConfig {
        sandbox,
        processes: 2,
        memory_bytes: 4 << 30,
        require_walls: false,
        launch: Launch::this_program(),
    }
}

/// Executors for a test.
pub(crate) async fn executors(sandbox: SandboxConfig) -> Executors {
    Executors::start(config(sandbox)).await.expect("executors start")
}

/// Longer than anything takes that a test waits for.
pub(super) const LONG: Duration = Duration::from_secs(60);
