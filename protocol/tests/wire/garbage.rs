//! Bytes that are no message: an error, never a panic.

use proptest::prelude::*;

use orb_protocol::wire::codec::{DecodeError, MESSAGE_LEN_MAX};

use crate::allocation::largest;
use crate::samples;

/// What a decoder may ask for at once: serde reserves at most 1 MiB for a sequence on a claim alone.
const ALLOCATION_MAX: usize = 1 << 20;

#[test]
fn every_message_that_is_cut_short_or_goes_on_is_refused() {
    for sample in samples::all() {
        for len in 0..sample.bytes.len() {
            let cut = (sample.recode)(&sample.bytes[..len]);
            assert!(cut.is_err(), "{} cut to {len} bytes", sample.name);
        }
        let longer = [sample.bytes.as_slice(), &[0]].concat();
        assert!((sample.recode)(&longer).is_err(), "{} and a byte", sample.name);
    }
}

#[test]
fn a_message_over_the_limit_is_refused_unread() {
    for sample in samples::all() {
        let long = vec![0; MESSAGE_LEN_MAX + 1];
        assert_eq!(
            (sample.recode)(&long),
            Err(DecodeError::TooLong {
                limit: MESSAGE_LEN_MAX
            })
        );
    }
}

/// Claims of 2^64 - 1, 2^32 - 1, and a little more than the limit, as bincode writes them.
const CLAIMS: [&[u8]; 3] = [
    &[253, 255, 255, 255, 255, 255, 255, 255, 255],
    &[252, 255, 255, 255, 255],
    &[252, 1, 0, 4, 0],
];

#[test]
fn a_claim_of_length_makes_nobody_allocate() {
    for sample in samples::all() {
        for at in 0..sample.bytes.len() {
            for claim in CLAIMS {
                let bytes = [&sample.bytes[..at], claim, &sample.bytes[at + 1..]].concat();
                let (_, most) = largest(|| (sample.recode)(&bytes));
                assert!(
                    most <= ALLOCATION_MAX,
                    "{}: {most} bytes for a claim at {at}",
                    sample.name
                );
            }
        }
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        for sample in samples::all() {
            let (_, most) = largest(|| (sample.recode)(&bytes));
            prop_assert!(most <= ALLOCATION_MAX);
        }
    }

    #[test]
    fn damaged_messages_never_panic(
        which in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let samples = samples::all();
        let sample = &samples[which.index(samples.len())];
        let mut bytes = sample.bytes.clone();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let (_, most) = largest(|| (sample.recode)(&bytes));
        prop_assert!(most <= ALLOCATION_MAX);
    }
}
