//! Batches of datagrams: what the kernel hands over, and takes, in one buffer.
//!
//! With receive and segmentation offload one buffer holds many datagrams of one source, each
//! `stride` bytes long, only the last may be shorter. Relayed packets of several sessions and plain
//! QUIC from the same super node lie mixed in it. Everything here is pure.

use std::ops::Range;

use crate::relay::{RELAY_HEADER_LEN, RelayHeader, RelayToken};

/// Neighbouring datagrams with one header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    /// What they are.
    pub(crate) header: RelayHeader,
    /// Where they lie.
    pub(crate) range: Range<usize>,
}

impl Run {
    /// How many datagrams.
    pub(crate) fn count(&self, stride: usize) -> usize {
        self.range.len().div_ceil(stride.max(1))
    }

    /// The length of its longest datagram.
    pub(crate) fn datagram_len(&self, stride: usize) -> usize {
        self.range.len().min(stride)
    }
}

/// The run that starts at `at`, which is the start of a datagram. `None` at the end.
pub(crate) fn run_at(batch: &[u8], stride: usize, at: usize) -> Option<Run> {
    let stride = stride.max(1);
    let mut rest = batch.get(at..)?.chunks(stride);
    let first = rest.next()?;
    let header = RelayHeader::parse(first);
    let more: usize = rest
        .take_while(|datagram| RelayHeader::parse(datagram) == header)
        .map(<[u8]>::len)
        .sum();
    Some(Run {
        header,
        range: at..at + first.len() + more,
    })
}

/// Takes the relay header off each datagram of `range` and moves the rest to the buffer's start.
/// Returns the length of what lies there now; its stride is shorter by a header.
pub(crate) fn strip_in_place(batch: &mut [u8], stride: usize, range: Range<usize>) -> usize {
    let mut end = 0;
    let mut at = range.start;
    while at < range.end {
        let next = (at + stride).min(range.end);
        let body = (at + RELAY_HEADER_LEN).min(next)..next;
        let len = body.len();
        batch.copy_within(body, end);
        end += len;
        at = next;
    }
    end
}

/// Appends the datagrams of `run` to `out` without their relay headers.
pub(crate) fn strip_to(run: &[u8], stride: usize, out: &mut Vec<u8>) {
    for datagram in run.chunks(stride.max(1)) {
        out.extend_from_slice(datagram.get(RELAY_HEADER_LEN..).unwrap_or_default());
    }
}

/// Fills `out` with the datagrams of `batch`, a relay header before each. The stride grows by it.
pub(crate) fn wrap(batch: &[u8], stride: usize, token: RelayToken, out: &mut Vec<u8>) {
    let header = RelayHeader::encode(token);
    out.clear();
    for datagram in batch.chunks(stride.max(1)) {
        out.extend_from_slice(&header);
        out.extend_from_slice(datagram);
    }
}

/// Puts another token into every header of `run`.
pub(crate) fn rewrite(run: &mut [u8], stride: usize, token: RelayToken) {
    for datagram in run.chunks_mut(stride.max(1)) {
        RelayHeader::rewrite(datagram, token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn quic(len: usize) -> Vec<u8> {
        vec![0x40; len]
    }

    fn relayed(token: u64, len: usize) -> Vec<u8> {
        let mut datagram = RelayHeader::encode(RelayToken::new(token)).to_vec();
        datagram.resize(len, 0xaa);
        datagram
    }

    fn runs(batch: &[u8], stride: usize) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        while let Some(run) = run_at(batch, stride, runs.last().map_or(0, |r| r.range.end)) {
            runs.push(run);
        }
        runs
    }

    #[test]
    fn one_session_is_one_run() {
        let batch = [relayed(1, 100), relayed(1, 100), relayed(1, 30)].concat();
        let found = runs(&batch, 100);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].range, 0..230);
        assert_eq!(found[0].count(100), 3);
        assert_eq!(found[0].datagram_len(100), 100);
    }

    #[test]
    fn sessions_and_quic_are_told_apart() {
        let batch = [quic(50), relayed(1, 50), relayed(2, 50), relayed(2, 20)].concat();
        let headers: Vec<_> = runs(&batch, 50).into_iter().map(|r| r.header).collect();
        let packet = |token| RelayHeader::Packet(RelayToken::new(token));
        assert_eq!(headers, [RelayHeader::Quic, packet(1), packet(2)]);
    }

    #[test]
    fn an_empty_batch_has_no_run() {
        assert_eq!(run_at(&[], 0, 0), None);
        assert_eq!(run_at(&[1, 2], 2, 2), None);
        assert_eq!(run_at(&[1, 2], 2, 9), None);
    }

    fn bodies() -> impl Strategy<Value = (usize, Vec<Vec<u8>>)> {
        (1usize..64, 0usize..12).prop_flat_map(|(stride, full)| {
            let body = prop::collection::vec(any::<u8>(), stride);
            let last = prop::collection::vec(any::<u8>(), 1..=stride);
            let all = (prop::collection::vec(body, full), last);
            all.prop_map(move |(mut bodies, last)| {
                bodies.push(last);
                (stride, bodies)
            })
        })
    }

    proptest! {
        #[test]
        fn what_is_wrapped_is_stripped((stride, bodies) in bodies(), token: u64) {
            let plain = bodies.concat();
            let mut wrapped = Vec::new();
            wrap(&plain, stride, RelayToken::new(token), &mut wrapped);
            let wrapped_stride = stride + RELAY_HEADER_LEN;

            let found = runs(&wrapped, wrapped_stride);
            prop_assert_eq!(found.len(), 1);
            prop_assert_eq!(found[0].count(wrapped_stride), bodies.len());

            let mut copied = Vec::new();
            strip_to(&wrapped, wrapped_stride, &mut copied);
            prop_assert_eq!(&copied, &plain);

            let whole = 0..wrapped.len();
            let len = strip_in_place(&mut wrapped, wrapped_stride, whole);
            prop_assert_eq!(&wrapped[..len], &plain[..]);
        }

        #[test]
        fn a_run_in_the_middle_comes_out_whole(before in 0usize..5, (stride, bodies) in bodies()) {
            let stride = stride + RELAY_HEADER_LEN;
            let mut wrapped = Vec::new();
            wrap(&bodies.concat(), stride - RELAY_HEADER_LEN, RelayToken::new(3), &mut wrapped);
            let mut batch = relayed(9, stride).repeat(before);
            // Too short for a body: not a packet of session 9, so not part of what is tested.
            prop_assume!(stride > RELAY_HEADER_LEN);
            batch.extend_from_slice(&wrapped);
            let range = before * stride..batch.len();
            let len = strip_in_place(&mut batch, stride, range);
            prop_assert_eq!(&batch[..len], &bodies.concat()[..]);
        }

        #[test]
        fn runs_cover_any_batch(batch in prop::collection::vec(any::<u8>(), 0..400), stride in 0usize..50) {
            let found = runs(&batch, stride);
            let mut at = 0;
            for run in &found {
                prop_assert_eq!(run.range.start, at);
                prop_assert!(run.range.end > at);
                at = run.range.end;
            }
            prop_assert_eq!(at, batch.len());
            for pair in found.windows(2) {
                prop_assert_ne!(&pair[0].header, &pair[1].header);
            }
        }

        #[test]
        fn rewriting_moves_a_run_to_another_session((stride, bodies) in bodies(), old: u64, new: u64) {
            let (mut wrapped, mut wanted) = (Vec::new(), Vec::new());
            wrap(&bodies.concat(), stride, RelayToken::new(old), &mut wrapped);
            wrap(&bodies.concat(), stride, RelayToken::new(new), &mut wanted);
            rewrite(&mut wrapped, stride + RELAY_HEADER_LEN, RelayToken::new(new));
            prop_assert_eq!(wrapped, wanted);
        }
    }
}
