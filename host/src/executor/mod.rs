//! Where guests run: in child processes of the same binary, behind a second wall.
//!
//! The daemon holds keys and sockets, and neither runs nor compiles a guest. [`Executors`] is what it
//! has instead of a sandbox: a job goes in, events and an outcome come out.
//!
//! ```text
//!      daemon                                       executor (one of a few)
//!   ┌───────────────────────────────┐            ┌────────────────────────────┐
//!   │ pool     which one            │  channel   │ worker   one thread        │
//!   │ link     its end of the talk  │◀── rings ─▶│ lane     who runs next     │
//!   │ library  verified code        │── socket ─▶│ machine  guests            │
//!   └───────────────┬───────────────┘  (memfds)  └────────────────────────────┘
//!                   └── compile: a process for each module, ended at its limits
//! ```
//!
//! - [`pool`], [`link`], [`inbox`]: the daemon's side: which executor, what was said, who waits.
//! - [`worker`], [`guest`], [`lane`], [`outbox`]: the executor's side: who is entered, who runs next, when
//!   something is worth a wake-up.
//! - [`message`], [`channel`], [`ring`], [`shared`], [`socket`]: what they say to each other, and how. Messages go
//!   through two rings in shared memory; while both sides are at work there is no system call for them.
//!   Code goes as descriptors of sealed memory.
//! - [`process`], [`compile`]: starting child processes; compiling in one.
//! - [`walls`]: what such a process may still do.
//!
//! An executor that ends, or does what no executor does, is replaced. A call that was not started goes to
//! another one; a call that was is lost, and the caller hears that it may have run.

mod channel;
mod compile;
mod guest;
mod inbox;
mod lane;
mod link;
mod message;
mod outbox;
mod pool;
mod process;
mod ring;
mod shared;
mod socket;
mod walls;
mod worker;

#[cfg(test)]
mod escape;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests;

use std::process::ExitCode;

pub use link::StartError;
pub use pool::{Executors, ExecutorsConfig, ExecutorsError};
pub use process::Launch;
pub use walls::{State, Wall};

use self::process::Task;

/// How daemon and executor talk, for measurements.
#[doc(hidden)]
pub mod transport {
    pub use super::channel::{Parts, Receiver, Sender};
    pub use super::ring::{Full, Violation};
}

/// Builds an executor's walls around this process, for measurements. Nothing of it can be taken back.
#[doc(hidden)]
#[must_use]
pub fn enclose(memory_bytes: u64) -> Vec<Wall> {
    let bounds = walls::Bounds {
        memory_bytes,
        processor_s: None,
    };
    walls::build(walls::Role::Executor, &bounds)
}

/// What this process is, if it was started to be a child of a daemon: it does that, and has to end with
/// the code that is returned.
#[must_use]
pub fn child() -> Option<ExitCode> {
    let parameter = std::env::args_os().nth(1)?;
    Task::of(&parameter).map(run)
}

fn run(task: Task) -> ExitCode {
    die_of_panics();
    let end = match task {
        Task::Execute => worker::run().map(|()| 0),
        Task::Compile => compile::run(),
    };
    match end {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A thread that panics takes its process with it: what the others would do without it is not known,
/// and there is somebody who replaces the process.
fn die_of_panics() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}
