//! A guest's standard streams.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};

use crate::guest::Stop;
use crate::{Input, Limits};

/// What a file descriptor stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Input,
    Output,
    Log,
}

/// Where writing to standard output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StdoutIs {
    /// Into the answer.
    Answer,
    /// Into the log: the answer is what a JavaScript function returns, and nothing else.
    Log,
}

/// What the guest has written and its driver has not yet passed on, and whether it waits.
///
/// Shared between the host calls, which run inside the guest's future, and the driver that polls
/// that future: never held across an await.
#[derive(Debug, Default)]
pub(crate) struct Pipes {
    /// Output that is to be passed on.
    pub output: BytesMut,
    /// Log that is to be passed on.
    pub log: BytesMut,
    /// Time that the guest has spent waiting in host calls.
    pub waited: Duration,
    /// Set while the guest waits in a host call.
    pub waiting_since: Option<Instant>,
    /// Times that the guest gave way to others, having burnt `YIELD_FUEL` since the last time.
    pub turns: u64,
}

impl Pipes {
    /// Time spent waiting so far.
    pub(crate) fn waited(&self) -> Duration {
        self.waited + self.waiting_since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

/// A handle on a call's [`Pipes`].
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedPipes(Arc<Mutex<Pipes>>);

impl SharedPipes {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Pipes> {
        // A panic elsewhere leaves plain bytes and counters: nothing that could be half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Standard streams of one call and their limits.
#[derive(Debug)]
pub(crate) struct Stdio {
    /// What file descriptors 0, 1 and 2 stand for; none when closed.
    descriptors: [Option<Stream>; 3],
    input: Bytes,
    input_rest: Option<tokio::sync::mpsc::Receiver<Bytes>>,
    input_room: u64,
    output_room: u64,
    log_room: u64,
    limits: Limits,
    /// Whether some of the log was dropped.
    pub log_truncated: bool,
    pub pipes: SharedPipes,
}

impl Stdio {
    pub(crate) fn new(input: Input, stdout: StdoutIs, limits: &Limits) -> Self {
        let (input, input_rest) = match input {
            Input::Whole(bytes) => (bytes, None),
            Input::Stream(receiver) => (Bytes::new(), Some(receiver)),
        };
        let stdout = match stdout {
            StdoutIs::Answer => Stream::Output,
            StdoutIs::Log => Stream::Log,
        };
        Self {
            descriptors: [Some(Stream::Input), Some(stdout), Some(Stream::Log)],
            input,
            input_rest,
            input_room: limits.input_bytes,
            output_room: limits.output_bytes,
            log_room: limits.log_bytes,
            limits: *limits,
            log_truncated: false,
            pipes: SharedPipes::default(),
        }
    }

    /// What a file descriptor stands for, if it is open.
    pub(crate) fn stream(&self, descriptor: u32) -> Option<Stream> {
        *self.descriptors.get(descriptor as usize)?
    }

    /// Closes a file descriptor; tells whether it was open.
    pub(crate) fn close(&mut self, descriptor: u32) -> bool {
        let slot = self.descriptors.get_mut(descriptor as usize);
        slot.is_some_and(|slot| slot.take().is_some())
    }

    /// Makes `to` stand for what `from` did, and closes `from`; tells whether both were open.
    pub(crate) fn renumber(&mut self, from: u32, to: u32) -> bool {
        let (Some(stream), Some(_)) = (self.stream(from), self.stream(to)) else {
            return false;
        };
        self.descriptors[from as usize] = None;
        self.descriptors[to as usize] = Some(stream);
        true
    }

    /// Whether reading would not wait: there is input, or its end was reached.
    ///
    /// # Errors
    ///
    /// [`Stop::InputTooLarge`], which ends the guest.
    pub(crate) fn poll_input(&mut self) -> Result<bool, Stop> {
        while self.input.is_empty() {
            let Some(rest) = &mut self.input_rest else {
                return Ok(true);
            };
            match rest.try_recv() {
                Ok(bytes) => self.take_in(bytes)?,
                Err(tokio::sync::mpsc::error::TryRecvError::Empty) => return Ok(false),
                Err(tokio::sync::mpsc::error::TryRecvError::Disconnected) => self.input_rest = None,
            }
        }
        Ok(true)
    }

    /// Waits until reading would not wait. Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// [`Stop::InputTooLarge`], which ends the guest.
    pub(crate) async fn await_input(&mut self) -> Result<(), Stop> {
        while !self.poll_input()? {
            let Some(rest) = &mut self.input_rest else { break };
            match rest.recv().await {
                Some(bytes) => self.take_in(bytes)?,
                None => self.input_rest = None,
            }
        }
        Ok(())
    }

    fn take_in(&mut self, bytes: Bytes) -> Result<(), Stop> {
        let Some(room) = self.input_room.checked_sub(bytes.len() as u64) else {
            return Err(Stop::InputTooLarge {
                limit: self.limits.input_bytes,
            });
        };
        self.input_room = room;
        self.input = bytes;
        Ok(())
    }

    /// Takes input that is there; 0 bytes once its end is reached.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> usize {
        let taken = into.len().min(self.input.len());
        self.input.copy_to_slice(&mut into[..taken]);
        taken
    }

    /// Bytes that can be read without waiting.
    pub(crate) fn readable(&self) -> usize {
        self.input.len()
    }

    /// Writes a piece of the answer.
    ///
    /// # Errors
    ///
    /// [`Stop::Output`], which ends the guest; what fits is passed on.
    pub(crate) fn write_output(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let fits = bytes
            .len()
            .min(usize::try_from(self.output_room).unwrap_or(usize::MAX));
        self.output_room -= fits as u64;
        self.pipes.lock().output.extend_from_slice(&bytes[..fits]);
        if fits < bytes.len() {
            return Err(Stop::Output {
                limit: self.limits.output_bytes,
            });
        }
        Ok(())
    }

    /// Writes a piece of the log; what is over the limit is dropped.
    pub(crate) fn write_log(&mut self, bytes: &[u8]) {
        let fits = bytes
            .len()
            .min(usize::try_from(self.log_room).unwrap_or(usize::MAX));
        self.log_room -= fits as u64;
        self.log_truncated |= fits < bytes.len();
        if fits > 0 {
            self.pipes.lock().log.extend_from_slice(&bytes[..fits]);
        }
    }
}
