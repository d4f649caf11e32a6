//! The part of the host's `config` that `orb.toml` is read with.

#[cfg_attr(
    not(test),
    expect(dead_code, reason = "files are read elsewhere: here is only their text")
)]
#[path = "../../../host/src/config/file.rs"]
mod file;

pub(crate) use file::{FileError, parse};
