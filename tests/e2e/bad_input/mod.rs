//! The list of bad input: each gives a clear error with its exit code, and leaves everything
//! as it was.

mod calls;
mod daemons;
pub(crate) mod full_disk;
mod projects;
mod publishing;
mod supers;
