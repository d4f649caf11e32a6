//! A harness that drives the real `orb` binary with real processes over loopback.
//!
//! - [`binary`]: finds the binary, and has it built first.
//! - [`scratch`]: folders that are gone afterwards, whatever happens.
//! - [`daemon`]: a super node or a host node as a child process, its log, its signals.
//! - [`network`]: a super node and some hosts. [`federation`]: several of them, linked.
//! - [`command`]: the command line as somebody uses it, and what it answered.
//! - [`project`], [`guest`]: functions to publish.
//! - [`wiretap`]: somebody on the way between a node and its super node.
//! - [`poll`]: waiting for something to become true.
//!
//! The harness panics where a test has failed: its callers are tests.

pub mod binary;
pub mod command;
pub mod daemon;
pub mod federation;
pub mod guest;
pub mod network;
pub mod poll;
pub mod project;
pub mod scratch;
mod warm;
pub mod wiretap;

pub use command::{Ended, Orb};
pub use daemon::{Daemon, Exit};
pub use federation::Federation;
pub use network::Network;
pub use poll::eventually;
pub use project::Project;
pub use wiretap::Wiretap;
