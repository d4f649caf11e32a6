//! The bytes before a relayed packet.
//!
//! ```text
//! byte 0     00 kk vvvv   top two bits clear, kind, version
//! bytes 1-8  token        u64, big endian
//! bytes 9-   the QUIC packet, untouched
//! ```
//!
//! A QUIC v1 packet has bit 0x40 set, or 0x80 when it is a version negotiation; Orb's endpoints
//! never grease that bit. So the first byte alone tells a relayed packet from QUIC.

use std::fmt;

/// Bytes that a relayed packet is longer than the QUIC packet in it.
pub const RELAY_HEADER_LEN: usize = 9;

/// Kind 1 (a packet of a session), version 1.
const FIRST_BYTE: u8 = 0x11;

/// Either of these bits in the first byte marks a QUIC packet (RFC 9000, section 17).
const QUIC_BITS: u8 = 0xc0;

/// Names one leg of a relay session. Whoever holds it may send on that leg, from that leg's
/// address only; so it is random, and `Debug` does not print it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelayToken(u64);

impl RelayToken {
    /// Wraps 64 bits from a random source, or from the wire.
    pub const fn new(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits, for the wire.
    pub const fn bits(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for RelayToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RelayToken(…)")
    }
}

/// What the first bytes of a datagram say it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayHeader {
    /// Not for the relay: a QUIC packet.
    Quic,
    /// A packet of the session leg with this token.
    Packet(RelayToken),
    /// Neither: of a version that this node does not know, cut short, or garbage.
    Unknown,
}

impl RelayHeader {
    /// Reads the head of a datagram.
    pub fn parse(datagram: &[u8]) -> Self {
        match datagram.first() {
            Some(first) if first & QUIC_BITS != 0 => Self::Quic,
            // A header without anything behind it carries no packet.
            Some(&FIRST_BYTE) if datagram.len() > RELAY_HEADER_LEN => {
                let mut bits = [0; 8];
                bits.copy_from_slice(&datagram[1..RELAY_HEADER_LEN]);
                Self::Packet(RelayToken(u64::from_be_bytes(bits)))
            }
            _ => Self::Unknown,
        }
    }

    /// The header of a packet sent on the leg with this token.
    pub fn encode(token: RelayToken) -> [u8; RELAY_HEADER_LEN] {
        let mut header = [FIRST_BYTE; RELAY_HEADER_LEN];
        header[1..].copy_from_slice(&token.0.to_be_bytes());
        header
    }

    /// Puts another token into the header of a datagram that [`parse`](Self::parse) found to be a
    /// [`Packet`](Self::Packet). A shorter datagram is left alone.
    pub fn rewrite(datagram: &mut [u8], token: RelayToken) {
        if let Some(bits) = datagram.get_mut(1..RELAY_HEADER_LEN) {
            bits.copy_from_slice(&token.0.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn datagram(token: RelayToken, body: &[u8]) -> Vec<u8> {
        let mut bytes = RelayHeader::encode(token).to_vec();
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn the_bytes_are_fixed() {
        let bytes = RelayHeader::encode(RelayToken::new(0x0102_0304_0506_0708));
        assert_eq!(bytes, [0x11, 1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn a_header_alone_is_no_packet() {
        let header = RelayHeader::encode(RelayToken::new(7));
        assert_eq!(RelayHeader::parse(&header), RelayHeader::Unknown);
        assert_eq!(RelayHeader::parse(&header[..4]), RelayHeader::Unknown);
        assert_eq!(RelayHeader::parse(&[]), RelayHeader::Unknown);
    }

    #[test]
    fn another_version_is_unknown() {
        let mut bytes = datagram(RelayToken::new(7), b"x");
        bytes[0] = 0x12;
        assert_eq!(RelayHeader::parse(&bytes), RelayHeader::Unknown);
    }

    #[test]
    fn debug_hides_the_token() {
        let text = format!("{:?}", RelayHeader::Packet(RelayToken::new(123_456)));
        assert!(!text.contains("123456"));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_parsed(token: u64, body in prop::collection::vec(any::<u8>(), 1..64)) {
            let bytes = datagram(RelayToken::new(token), &body);
            prop_assert_eq!(RelayHeader::parse(&bytes), RelayHeader::Packet(RelayToken::new(token)));
        }

        #[test]
        fn rewriting_changes_the_token_alone(old: u64, new: u64, body in prop::collection::vec(any::<u8>(), 1..64)) {
            let mut bytes = datagram(RelayToken::new(old), &body);
            RelayHeader::rewrite(&mut bytes, RelayToken::new(new));
            prop_assert_eq!(bytes, datagram(RelayToken::new(new), &body));
        }

        #[test]
        fn any_bytes_parse_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..32)) {
            let parsed = RelayHeader::parse(&bytes);
            let quic = bytes.first().is_some_and(|b| b & 0xc0 != 0);
            prop_assert_eq!(parsed == RelayHeader::Quic, quic);
        }
    }
}
