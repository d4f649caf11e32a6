//! The packet relay of a super node, as pure logic.
//!
//! Two nodes that cannot reach each other directly send their QUIC packets through a super node
//! that both are connected to. A *session* joins two *legs*; each leg has a random token. A node
//! puts a small [header](RelayHeader) with its own leg's token before every packet; the super node
//! looks the token up, checks where the packet came from, swaps it for the other leg's token and
//! passes the packet on. It reads nothing behind the header and keeps nothing of it.
//!
//! Nothing here reads a clock or draws a random number: the time comes in as the time since an
//! epoch of the caller's choice, tokens come in drawn, and what to do goes out as data. The socket
//! that obeys is `quic::socket`.

mod bucket;
mod header;
mod limits;
mod stats;
mod table;

pub use bucket::TokenBucket;
pub use header::{RELAY_HEADER_LEN, RelayHeader, RelayToken};
pub use limits::RelayLimits;
pub use stats::{RelayDrop, RelayStats};
pub use table::{Forward, LinkId, Opened, RelayBatch, RelayRefusal, RelayTable, SessionId, SessionTokens};
