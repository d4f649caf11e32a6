//! The deterministic simulator (feature `sim`): the very state machines that the daemons run, on a made-up network.
//!
//! - [`scenario`]: what is to happen, from a TOML file.
//! - [`network`]: who reaches whom, and how long it takes.
//! - [`world`]: the clock, the queue of events, and all nodes. [`supers`] and [`hosts`] have what daemons have around
//!   their state machines; [`driving`], [`links`], [`pulls`] and [`sessions`] are what daemons do.
//! - [`work`]: what owners and callers do. [`faults`]: what goes wrong.
//! - [`checks`]: one checker for each property. [`report`]: what came of it.
//!
//! One thread, one seed, no clock but its own: a run is a function of scenario and seed, and its report is the same
//! to the byte in every process.

mod checks;
mod driving;
mod faults;
mod hosts;
mod links;
mod network;
mod pulls;
mod queue;
mod report;
pub mod scenario;
mod sessions;
mod supers;
mod work;
mod world;

pub use report::Report;
pub use world::run;
