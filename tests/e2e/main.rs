//! The real binary, end to end over loopback.

#![expect(clippy::unwrap_used, reason = "a test panics on surprise")]

mod bad_input;
mod bench;
mod bodies;
mod clock;
mod corruption;
mod crash;
mod dead_letters;
mod disks;
mod draining;
mod events;
mod federation;
mod floods;
mod half_upload;
mod javascript;
mod kills;
mod life_cycle;
mod mainline;
mod monsters;
mod overload;
mod peers;
mod policy;
mod relayed_packets;
mod removals;
mod restart;
mod rivals;
