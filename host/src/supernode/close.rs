//! The codes with which a super node ends connections; the reasons go with them in words.

/// It is ending.
pub(crate) const ENDING: u32 = 1;
/// The same node has a newer connection.
pub(crate) const REPLACED: u32 = 2;
/// Nothing was heard of the host.
pub(crate) const LOST: u32 = 3;
/// The host does not read what it is sent.
pub(crate) const TOO_SLOW: u32 = 4;
/// The peer broke the protocol.
pub(crate) const PROTOCOL: u32 = 5;
