//! A queue of frames from one process to another, in memory that both have mapped.
//!
//! One producer, one consumer; both only ever move their own index forward. Each end keeps its own
//! index to itself and believes nothing that it reads of the other's: the other process may be
//! in a stranger's hands, and may write to the memory at any time. So whatever is read is
//! copied out before it is looked at, and an index that cannot be is a [`Violation`].
//!
//! While both are at work no system call is made. A consumer that is about to sleep says so in the
//! shared memory, and the producer then wakes it (`wake` in what [`Producer::publish`] returns).
//!
//! ```text
//!   head  u64   bytes written, ever          (producer)
//!   tail  u64   bytes read, ever             (consumer)
//!   asleep u32  the consumer wants to be woken
//!   note   u64  of the producer's own: what it is at, if it should end before it pushes more
//!   ...         to the end of the page
//!   CAPACITY bytes: frames, each a u32 (length, native order) and so many bytes, around the end
//! ```

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use super::shared::Mapping;

/// Bytes under way in one direction: enough for some thousand small calls, or sixteen chunks.
pub(super) const CAPACITY: usize = 1 << 20;
/// What stands before the bytes; a page, so that no index shares a line with anything else.
const HEADER_LEN: usize = 4096;
/// The memory of one ring.
pub(super) const RING_LEN: usize = HEADER_LEN + CAPACITY;
/// The longest frame: a chunk of 64 KiB with what stands around it, and any fault with its stack trace.
pub(super) const FRAME_LEN_MAX: usize = 128 << 10;

const HEAD_AT: usize = 0;
const TAIL_AT: usize = 128;
const ASLEEP_AT: usize = 256;
const NOTE_AT: usize = 384;
const LEN_BYTES: usize = size_of::<u32>();

/// The other process broke the rules of the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the other process broke the rules of the shared memory")]
pub struct Violation;

/// Where a ring lies.
#[derive(Debug, Clone)]
struct Place {
    memory: Arc<Mapping>,
    offset: usize,
}

impl Place {
    fn word64(&self, at: usize) -> &AtomicU64 {
        let address = self.memory.at(self.offset + at, size_of::<u64>());
        // SAFETY: inside of the mapping, which `self` holds; aligned, since rings begin at pages; and
        // only ever used as an atomic, by both processes.
        unsafe { address.cast::<AtomicU64>().as_ref() }
    }

    fn asleep(&self) -> &AtomicU32 {
        let address = self.memory.at(self.offset + ASLEEP_AT, size_of::<u32>());
        // SAFETY: as in `word64`.
        unsafe { address.cast::<AtomicU32>().as_ref() }
    }

    /// Copies bytes into the ring, from position `at` on.
    fn write(&self, at: u64, bytes: &[u8]) {
        let (start, first) = split(at, bytes.len());
        let (head, rest) = bytes.split_at(first);
        for (bytes, start) in [(head, start), (rest, 0)] {
            let target = self.memory.at(self.offset + HEADER_LEN + start, bytes.len());
            // SAFETY: inside of the mapping; the consumer does not look at these bytes before the
            // head is published. If the other process does so all the same, or writes to them, it is
            // its own frames that are spoilt.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), target.as_ptr(), bytes.len()) };
        }
    }

    /// Copies bytes out of the ring, from position `at` on.
    fn read(&self, at: u64, into: &mut [u8]) {
        let (start, first) = split(at, into.len());
        let (head, rest) = into.split_at_mut(first);
        for (bytes, start) in [(head, start), (rest, 0)] {
            let source = self.memory.at(self.offset + HEADER_LEN + start, bytes.len());
            // SAFETY: inside of the mapping. The other process may write meanwhile: then what is
            // copied is nonsense, and is judged as such after it was copied, never before.
            unsafe { ptr::copy_nonoverlapping(source.as_ptr(), bytes.as_mut_ptr(), bytes.len()) };
        }
    }
}

/// Where position `at` lies, and how many of `len` bytes come before the end.
fn split(at: u64, len: usize) -> (usize, usize) {
    let start = (at % CAPACITY as u64) as usize;
    (start, len.min(CAPACITY - start))
}

/// The end that writes.
#[derive(Debug)]
pub(super) struct Producer {
    place: Place,
    head: u64,
}

/// There is no room for a frame now.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

impl Producer {
    /// The writing end of the ring that begins at `offset`, a multiple of the page size. There must
    /// be only one.
    pub(super) fn new(memory: Arc<Mapping>, offset: usize) -> Self {
        let place = Place { memory, offset };
        Self { place, head: 0 }
    }

    /// Appends a frame. The consumer may see it from now on, but is not woken: see
    /// [`Producer::wants_waking`].
    ///
    /// # Errors
    /// [`Full`] when there is no room now; the frame must be no longer than [`FRAME_LEN_MAX`].
    pub(super) fn push(&mut self, frame: &[u8]) -> Result<Result<(), Full>, Violation> {
        debug_assert!(frame.len() <= FRAME_LEN_MAX, "frames are cut before");
        let tail = self.place.word64(TAIL_AT).load(Ordering::Acquire);
        let taken = self.head.checked_sub(tail).ok_or(Violation)?;
        let free = (CAPACITY as u64).checked_sub(taken).ok_or(Violation)?;
        if ((LEN_BYTES + frame.len()) as u64) > free {
            return Ok(Err(Full));
        }
        let len = u32::try_from(frame.len()).map_err(|_| Violation)?;
        self.place.write(self.head, &len.to_ne_bytes());
        self.place.write(self.head + LEN_BYTES as u64, frame);
        self.head += (LEN_BYTES + frame.len()) as u64;
        self.place.word64(HEAD_AT).store(self.head, Ordering::Release);
        Ok(Ok(()))
    }

    /// Leaves a note, in the place of the one before.
    pub(super) fn note(&self, note: u64) {
        self.place.word64(NOTE_AT).store(note, Ordering::Release);
    }

    /// Whether the consumer sleeps and does not know of what was pushed; whoever is told so has to
    /// wake it.
    pub(super) fn wants_waking(&self) -> bool {
        // What was pushed before must be seen by a consumer whose word of sleeping we do not see.
        fence(Ordering::SeqCst);
        let asleep = self.place.asleep();
        asleep.load(Ordering::Relaxed) != 0 && asleep.swap(0, Ordering::SeqCst) != 0
    }
}

/// The end that reads.
#[derive(Debug)]
pub(super) struct Consumer {
    place: Place,
    tail: u64,
}

impl Consumer {
    /// The reading end of the ring that begins at `offset`. There must be only one.
    pub(super) fn new(memory: Arc<Mapping>, offset: usize) -> Self {
        let place = Place { memory, offset };
        Self { place, tail: 0 }
    }

    /// Takes the next frame, if there is one.
    ///
    /// # Errors
    /// [`Violation`]: nothing that comes after it means anything.
    pub(super) fn pop(&mut self, frame: &mut Vec<u8>) -> Result<bool, Violation> {
        let ready = self.ready()?;
        if ready == 0 {
            return Ok(false);
        }
        let mut len = [0; LEN_BYTES];
        if ready < len.len() as u64 {
            return Err(Violation);
        }
        self.place.read(self.tail, &mut len);
        let len = u32::from_ne_bytes(len) as usize;
        if len > FRAME_LEN_MAX || ((LEN_BYTES + len) as u64) > ready {
            return Err(Violation);
        }
        frame.resize(len, 0);
        self.place.read(self.tail + LEN_BYTES as u64, frame);
        self.tail += (LEN_BYTES + len) as u64;
        self.place.word64(TAIL_AT).store(self.tail, Ordering::Release);
        Ok(true)
    }

    /// The producer's note; 0 before it left any.
    pub(super) fn note(&self) -> u64 {
        self.place.word64(NOTE_AT).load(Ordering::Acquire)
    }

    /// Says that the consumer sleeps from now on. If this is false it must not: there is something
    /// to be read.
    ///
    /// # Errors
    /// [`Violation`].
    pub(super) fn fall_asleep(&self) -> Result<bool, Violation> {
        self.place.asleep().store(1, Ordering::SeqCst);
        // The producer either sees the word, or has pushed before: then we see that.
        fence(Ordering::SeqCst);
        let quiet = self.ready()? == 0;
        if !quiet {
            self.wake_up();
        }
        Ok(quiet)
    }

    /// Takes back what [`Consumer::fall_asleep`] said.
    pub(super) fn wake_up(&self) {
        self.place.asleep().store(0, Ordering::Relaxed);
    }

    fn ready(&self) -> Result<u64, Violation> {
        let head = self.place.word64(HEAD_AT).load(Ordering::Acquire);
        let ready = head.checked_sub(self.tail).ok_or(Violation)?;
        if ready > CAPACITY as u64 {
            return Err(Violation);
        }
        Ok(ready)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn memory() -> Arc<Mapping> {
        let file = orb_runtime::unsealed().unwrap();
        file.set_len(RING_LEN as u64).unwrap();
        Arc::new(Mapping::new(&file, RING_LEN).unwrap())
    }

    fn ring() -> (Producer, Consumer, Place) {
        let memory = memory();
        let place = Place {
            memory: Arc::clone(&memory),
            offset: 0,
        };
        (
            Producer::new(Arc::clone(&memory), 0),
            Consumer::new(memory, 0),
            place,
        )
    }

    fn pop(consumer: &mut Consumer) -> Option<Vec<u8>> {
        let mut frame = Vec::new();
        consumer.pop(&mut frame).unwrap().then_some(frame)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_goes_in_comes_out_in_order(steps in prop::collection::vec((any::<bool>(), 0..FRAME_LEN_MAX), 1..200)) {
            let (mut producer, mut consumer, _) = ring();
            let mut expected = VecDeque::new();
            for (number, (push, len)) in steps.into_iter().enumerate() {
                if push {
                    let frame = vec![number as u8; len];
                    if producer.push(&frame).unwrap().is_ok() {
                        expected.push_back(frame);
                    }
                } else {
                    prop_assert_eq!(pop(&mut consumer), expected.pop_front());
                }
            }
        }
    }

    #[test]
    fn a_full_ring_takes_no_more_until_something_is_read() {
        let (mut producer, mut consumer, _) = ring();
        let frame = vec![7; FRAME_LEN_MAX];
        let mut pushed = 0;
        while producer.push(&frame).unwrap().is_ok() {
            pushed += 1;
        }
        assert_eq!(pushed, CAPACITY / (FRAME_LEN_MAX + LEN_BYTES));
        assert_eq!(pop(&mut consumer).unwrap(), frame);
        assert_eq!(producer.push(&frame).unwrap(), Ok(()));
    }

    #[test]
    fn only_a_sleeper_is_woken_and_only_once() {
        let (mut producer, mut consumer, _) = ring();
        producer.push(b"a").unwrap().unwrap();
        assert!(!producer.wants_waking());
        assert!(!consumer.fall_asleep().unwrap(), "there is something to read");
        pop(&mut consumer).unwrap();
        assert!(consumer.fall_asleep().unwrap());
        producer.push(b"b").unwrap().unwrap();
        assert!(producer.wants_waking());
        assert!(!producer.wants_waking());
    }

    #[test]
    fn the_last_note_is_there_whatever_was_pushed_and_read() {
        let (mut producer, mut consumer, _) = ring();
        assert_eq!(consumer.note(), 0);
        producer.note(7);
        producer.push(b"a").unwrap().unwrap();
        pop(&mut consumer).unwrap();
        assert_eq!(consumer.note(), 7);
        producer.note(u64::MAX);
        assert_eq!(consumer.note(), u64::MAX);
    }

    #[test]
    fn a_hostile_producer_is_found_out() {
        for head in [u64::MAX, CAPACITY as u64 + 1, 3] {
            let (_, mut consumer, place) = ring();
            place.word64(HEAD_AT).store(head, Ordering::SeqCst);
            place.write(0, &[0xff; 4]);
            assert_eq!(consumer.pop(&mut Vec::new()), Err(Violation));
        }
        // A frame that claims to be longer than what was written, and than any may be.
        for len in [100_u32, u32::MAX] {
            let (_, mut consumer, place) = ring();
            place.word64(HEAD_AT).store(50, Ordering::SeqCst);
            place.write(0, &len.to_ne_bytes());
            assert_eq!(consumer.pop(&mut Vec::new()), Err(Violation));
        }
    }

    #[test]
    fn a_hostile_consumer_is_found_out() {
        for tail in [1, u64::MAX] {
            let (mut producer, _, place) = ring();
            place.word64(TAIL_AT).store(tail, Ordering::SeqCst);
            assert_eq!(producer.push(b"a"), Err(Violation));
        }
    }
}
