//! WASI preview 1, as far as a function has any use for it: standard streams, clocks, randomness,
//! sleeping, exit. Of files, sockets, arguments and the environment it says that there are none.
//!
//! Not `wasmtime-wasi`, which was tried first. Its first write to a stream costs 15 µs where a
//! whole call takes 3, and work that it does for a guest is not metered: writing 64 MiB to standard
//! error costs a guest twenty units of fuel, and a long `poll_oneoff` takes host memory in
//! proportion. Here a host call costs fuel in proportion to its work, gives way to other guests,
//! copies once, and takes bounded memory.

mod calls;
mod errno;
mod poll;
pub(crate) mod signatures;
pub(crate) mod stdio;
pub(crate) mod wait;

pub(crate) use calls::add_to_linker;
