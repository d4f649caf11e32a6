//! WASI preview 1, as far as a function needs it.

pub(crate) mod signatures;
