//! The second wall around guests: what the process that runs or compiles them may still do.
//!
//! The first wall is WebAssembly. Whoever gets through it, by a bug in a compiler or an engine, finds
//! a process without keys, without a network, without files, and with few system calls. Each part
//! of the wall stands on its own:
//!
//! | part | keeps out | kernel |
//! | --- | --- | --- |
//! | [`namespaces`] | networks, other processes' IPC, every file name (an empty root) | user namespaces, or root |
//! | [`privileges`] | what root may do; being traced; surviving the daemon | any |
//! | [`rlimits`] | memory without bound, descriptors, files, core dumps | any |
//! | [`landlock`](files) | every file name, TCP, signals and sockets of others | Linux 5.13, 6.7, 6.12 |
//! | [`seccomp`] | every system call but those that running guests takes | Linux 3.17 |
//!
//! What a kernel does not have is reported, and `--require-sandbox` makes a host refuse to start
//! without it.

mod files;
mod namespaces;
mod privileges;
mod rlimits;
mod seccomp;

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

pub(super) use rlimits::Bounds;

/// Whether a part of the wall stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// It stands.
    Up,
    /// Some of it does; what is missing.
    Partly(String),
    /// It does not; why.
    Missing(String),
}

/// One part of the wall.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wall {
    /// What it is called in the log and by `orb doctor`.
    pub name: String,
    /// Whether it stands.
    pub state: State,
}

impl Wall {
    /// What is missing of it.
    #[must_use]
    pub fn gap(&self) -> Option<&str> {
        match &self.state {
            State::Up => None,
            State::Partly(why) | State::Missing(why) => Some(why),
        }
    }
}

impl Display for Wall {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match &self.state {
            State::Up => write!(formatter, "{}", self.name),
            State::Partly(why) => write!(formatter, "{} in part: {why}", self.name),
            State::Missing(why) => write!(formatter, "no {}: {why}", self.name),
        }
    }
}

/// What a process behind the wall is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Runs guests, on one thread.
    Executor,
    /// Compiles one module, on as many threads as there are cores.
    Compiler,
}

/// Builds the wall around this process. Nothing of it can be taken back.
///
/// It must have one thread, and all that it needs of the system open already. The order matters:
/// each step needs what the later ones take away.
pub(super) fn build(role: Role, bounds: &Bounds) -> Vec<Wall> {
    let wall = |name: &str, state| Wall {
        name: name.to_owned(),
        state,
    };
    vec![
        wall("namespaces", namespaces::enter()),
        wall("privileges", privileges::drop_all()),
        wall("resource limits", rlimits::set(bounds)),
        wall("Landlock", files::restrict()),
        wall("seccomp", seccomp::restrict(role)),
    ]
}
