//! Datagrams that were received and found no buffer of QUIC's to go into.
//!
//! One buffer of the kernel's may hold packets of many peers, and QUIC takes one peer a buffer. What
//! is left over waits here, in order, and goes first at the next poll. Nothing is received while
//! anything waits, so it never holds more than one batch of the kernel's: QUIC's own receive buffer.

use std::collections::VecDeque;
use std::io::IoSliceMut;

use quinn_udp::RecvMeta;

use super::segments;
use super::socket::relayed_meta;

/// Memory kept for the next time once all is taken; a larger batch is rare.
const KEPT_BYTES: usize = 256 << 10;

#[derive(Default)]
pub(crate) struct Overflow {
    bytes: Vec<u8>,
    /// What lies in `bytes`, and from where on.
    waiting: VecDeque<(usize, RecvMeta)>,
}

impl Overflow {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Copies a run in, without its relay headers if it has them.
    pub(crate) fn push(&mut self, run: &[u8], relayed: bool, meta: RecvMeta) {
        let start = self.bytes.len();
        let meta = if relayed {
            segments::strip_to(run, meta.stride, &mut self.bytes);
            relayed_meta(self.bytes.len() - start, meta)
        } else {
            self.bytes.extend_from_slice(run);
            RecvMeta {
                len: run.len(),
                ..meta
            }
        };
        self.waiting.push_back((start, meta));
    }

    /// Moves what fits into QUIC's buffers, and says how many of those it filled.
    pub(crate) fn take(&mut self, bufs: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> usize {
        let mut filled = 0;
        for (buf, slot) in bufs.iter_mut().zip(metas) {
            let Some((start, meta)) = self.waiting.pop_front() else {
                break;
            };
            // A run is part of what came out of one such buffer, so it fits.
            let len = meta.len.min(buf.len());
            buf[..len].copy_from_slice(&self.bytes[start..start + len]);
            *slot = RecvMeta { len, ..meta };
            filled += 1;
        }
        if self.waiting.is_empty() {
            self.bytes.clear();
            self.bytes.shrink_to(KEPT_BYTES);
        }
        filled
    }
}
