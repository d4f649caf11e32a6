//! The wire format: its bytes today, what it takes from tomorrow's peers, and what it refuses.

mod allocation;
mod forward;
mod garbage;
mod samples;
mod signatures;
mod snapshots;
