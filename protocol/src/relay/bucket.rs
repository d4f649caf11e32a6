//! A token bucket: how many bytes a node may send just now.

use std::time::Duration;

/// Fills at a steady rate up to a burst; what is sent is taken from it.
///
/// Time is the time since any fixed epoch. A time before the last one seen adds nothing.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    rate_bytes_per_s: u64,
    burst_bytes: u64,
    level_bytes: u64,
    filled_at: Duration,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(rate_bytes_per_s: u64, burst_bytes: u64, now: Duration) -> Self {
        Self {
            rate_bytes_per_s,
            burst_bytes,
            level_bytes: burst_bytes,
            filled_at: now,
        }
    }

    /// Takes room for as many of `count` equal pieces as there is, and says for how many.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use orb_protocol::relay::TokenBucket;
    /// let mut bucket = TokenBucket::new(1_000, 3_000, Duration::ZERO);
    /// assert_eq!(bucket.take_pieces(4, 1_000, Duration::ZERO), 3);
    /// assert_eq!(bucket.take_pieces(4, 1_000, Duration::from_secs(1)), 1);
    /// ```
    pub fn take_pieces(&mut self, count: usize, piece_bytes: u64, now: Duration) -> usize {
        self.fill(now);
        let Some(room) = self.level_bytes.checked_div(piece_bytes) else {
            return count;
        };
        let taken = count.min(usize::try_from(room).unwrap_or(usize::MAX));
        self.level_bytes -= taken as u64 * piece_bytes;
        taken
    }

    fn fill(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.filled_at);
        let gained = elapsed.as_nanos() * u128::from(self.rate_bytes_per_s) / NANOS_PER_S;
        // Below one whole byte the time is left to add up, or a fast sender would never be paid.
        if gained > 0 {
            let gained = u64::try_from(gained).unwrap_or(u64::MAX);
            self.level_bytes = self.level_bytes.saturating_add(gained).min(self.burst_bytes);
            self.filled_at = now;
        }
    }
}

const NANOS_PER_S: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_clock_that_steps_back_adds_nothing() {
        let mut bucket = TokenBucket::new(100, 100, Duration::from_secs(10));
        assert_eq!(bucket.take_pieces(1, 100, Duration::from_secs(10)), 1);
        assert_eq!(bucket.take_pieces(1, 100, Duration::from_secs(5)), 0);
    }

    #[test]
    fn a_slow_rate_still_fills() {
        let mut bucket = TokenBucket::new(1, 1, Duration::ZERO);
        assert_eq!(bucket.take_pieces(1, 1, Duration::ZERO), 1);
        let mut paid = 0;
        for ms in 1..=1_000 {
            paid += bucket.take_pieces(1, 1, Duration::from_millis(ms));
        }
        assert_eq!(paid, 1);
    }

    #[test]
    fn an_empty_piece_costs_nothing() {
        let mut bucket = TokenBucket::new(0, 0, Duration::ZERO);
        assert_eq!(bucket.take_pieces(5, 0, Duration::ZERO), 5);
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate(
            rate in 0u64..10_000,
            burst in 0u64..10_000,
            wants in prop::collection::vec((0u64..2_000, 0usize..8, 1u64..500), 1..50),
        ) {
            let mut bucket = TokenBucket::new(rate, burst, Duration::ZERO);
            let (mut now_ms, mut sent) = (0, 0);
            for (step_ms, count, piece) in wants {
                now_ms += step_ms;
                let taken = bucket.take_pieces(count, piece, Duration::from_millis(now_ms));
                prop_assert!(taken <= count);
                sent += taken as u64 * piece;
            }
            prop_assert!(sent <= burst + rate * now_ms / 1_000);
        }
    }
}
