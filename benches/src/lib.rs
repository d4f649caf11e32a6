//! What the benches share: baselines as source beside what they are compared with, and the real
//! daemons in processes of their own.
//!
//! - [`baseline`]: bare quinn (same crypto, same runtime flavour, a stream per request, same payload), direct
//!   and through a naive two-hop stream copy.
//! - [`network`]: a super node and hosts as real processes, and a client to call them.
//! - [`process`]: roles (a bench's own binary started again as a server), pinning, memory figures.

pub mod baseline;
pub mod idle;
pub mod network;
pub mod process;
