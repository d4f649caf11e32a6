//! Waiting for something to become true.

use std::time::{Duration, Instant};

/// After this long something that should happen is taken never to happen: far more than it takes on
/// a busy machine, so that only a failing test waits this long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again until there is an answer.
///
/// # Panics
/// When there is none after [`PATIENCE`].
#[track_caller]
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(answer) = ask() {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("after {PATIENCE:?} still not: {what}");
}
