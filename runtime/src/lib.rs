//! Orb's sandbox: artifact and input in, outcome out, under fuel, memory and time limits.
//!
//! A [`Sandbox`] takes a [`Job`] (an artifact named by its hash, an input, limits), runs it in a
//! fresh WebAssembly instance, reports [`Event`]s while it runs and ends with one [`Outcome`].
//! The interface is plain data in and plain data out, so that it can be put behind a process
//! border; it knows nothing of the network, of keys or of who is calling.
//!
//! It has two halves, which a host keeps in different processes: a [`Library`] verifies artifacts and
//! has them compiled to [`Code`]; a [`Machine`] runs such code and can do nothing else.
//!
//! [`admit`] tells, without compiling anything, whether an artifact is of a kind that runs here
//! and what is wrong with it if not.

mod admit;
mod cache;
mod call;
mod code;
mod compiler;
mod config;
mod engine;
mod features;
mod guest;
pub mod javy;
mod job;
mod library;
mod limits;
mod machine;
mod meter;
mod outcome;
mod program;
mod sandbox;
mod sealed;
mod wasi;

pub use admit::{AdmissionError, AdmissionLimits, Admitted, Kind, admit, admit_within};
pub use code::{Code, CodeKind};
pub use compiler::{Compiler, Compiling, ModuleCompiler};
pub use config::SandboxConfig;
pub use engine::METERING_VERSION;
pub use features::Features;
pub use job::{Artifact, CallContext, Input, Job};
pub use library::{Library, too_long};
pub use limits::Limits;
pub use machine::{Machine, Work};
pub use outcome::{Event, GuestFault, Location, Outcome};
pub use program::Program;
pub use sandbox::{CompileJavaScriptError, Prepared, Sandbox, SandboxError};
pub use sealed::{SealedFile, fixed_len, unsealed};
