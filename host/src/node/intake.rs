//! A call's input as it comes from the wire.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use orb_protocol::fault::{Fault, FaultKind};
use orb_protocol::quic::body::BodyReader;
use orb_protocol::quic::frames::FrameError;
use orb_protocol::wire::CHUNK_LEN_MAX;
use quinn::RecvStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use super::offences::Offences;

/// How long nothing may come of an input that is awaited. As long as a lost packet takes to be sent
/// again several times.
const STALL_MAX: Duration = Duration::from_secs(10);
/// Inputs that are being collected, all together, in KiB: 32 of the default limit.
const COLLECTED_KIB_MAX: u32 = 256 << 10;

/// How much is collected of the inputs that have to be whole before their guest begins.
#[derive(Debug)]
pub(crate) struct InputBudget(std::sync::Arc<Semaphore>);

impl InputBudget {
    /// All of it is free.
    pub(crate) fn new() -> Self {
        Self(std::sync::Arc::new(Semaphore::new(COLLECTED_KIB_MAX as usize)))
    }

    /// Waits until `bytes` more may be collected; they may as long as the permit lives.
    pub(crate) async fn reserve(&self, bytes: u64) -> OwnedSemaphorePermit {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        // Longer ones than all of it go one at a time.
        std::sync::Arc::clone(&self.0)
            .acquire_many_owned(kib.min(COLLECTED_KIB_MAX))
            .await
            .expect("the budget's semaphore is never closed")
    }
}

/// What came before the guest has to begin.
#[derive(Debug)]
pub(crate) enum First {
    /// All of it.
    Whole(Bytes),
    /// A beginning, of 64 KiB or a little more.
    Part(BytesMut),
}

/// Takes an input.
#[derive(Debug)]
pub(crate) struct Intake<'a> {
    body: BodyReader<'a>,
    /// As the caller announced it.
    len: Option<u64>,
    limit: u64,
    taken: u64,
    offences: &'a Offences,
}

impl<'a> Intake<'a> {
    /// An input of at most `limit` bytes; of exactly `len`, if the caller said so.
    pub(crate) fn new(
        stream: &'a mut RecvStream,
        len: Option<u64>,
        limit: u64,
        offences: &'a Offences,
    ) -> Self {
        Self {
            body: BodyReader::new(stream, limit),
            len,
            limit,
            taken: 0,
            offences,
        }
    }

    /// Whether it is known to be no longer than what a host may take before the guest begins.
    pub(crate) fn is_short(&self) -> bool {
        self.len.is_some_and(|len| len <= CHUNK_LEN_MAX as u64)
    }

    /// How long it will be at most, in bytes.
    pub(crate) fn len_max(&self) -> u64 {
        self.len.unwrap_or(self.limit)
    }

    /// Takes as much as a host may take before the guest begins.
    ///
    /// # Errors
    /// The fault that the call ends with.
    pub(crate) async fn first(&mut self) -> Result<First, Fault> {
        let mut bytes = BytesMut::new();
        while self.len != Some(self.taken) {
            if bytes.len() >= CHUNK_LEN_MAX {
                return Ok(First::Part(bytes));
            }
            match self.next().await? {
                // The common case, without a copy: all of it came as one piece.
                Some(piece) if bytes.is_empty() && self.len == Some(self.taken) => {
                    return Ok(First::Whole(piece));
                }
                Some(piece) => bytes.extend_from_slice(&piece),
                None => break,
            }
        }
        Ok(First::Whole(bytes.freeze()))
    }

    /// Takes the rest of it.
    ///
    /// # Errors
    /// The fault that the call ends with.
    pub(crate) async fn rest(&mut self, first: BytesMut) -> Result<Bytes, Fault> {
        let mut bytes = first;
        while self.len != Some(self.taken)
            && let Some(piece) = self.next().await?
        {
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.freeze())
    }

    /// Hands it on as it comes. Returns only if it does not come to a good end, with the fault that
    /// the call ends with: a guest must not take half an input for a whole one.
    pub(crate) async fn feed(&mut self, guest: mpsc::Sender<Bytes>) -> Fault {
        loop {
            // No limit on waiting here: the function's own time runs.
            let piece = match self.body.next_gathered().await {
                Ok(Some(piece)) => self.count(piece),
                Ok(None) => self.check_end().map(|()| Bytes::new()),
                Err(error) => Err(self.fault(&error)),
            };
            match piece {
                Ok(piece) if piece.is_empty() => break,
                // A guest that does not want more has closed its end.
                Ok(piece) => drop(guest.send(piece).await),
                Err(fault) => return fault,
            }
        }
        drop(guest);
        std::future::pending().await
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        let next = timeout(STALL_MAX, self.body.next()).await;
        match next.unwrap_or(Err(FrameError::TimedOut(STALL_MAX))) {
            Ok(Some(piece)) => self.count(piece).map(Some),
            Ok(None) => self.check_end().map(|()| None),
            Err(error) => Err(self.fault(&error)),
        }
    }

    fn count(&mut self, piece: Bytes) -> Result<Bytes, Fault> {
        self.taken += piece.len() as u64;
        match self.len {
            Some(len) if self.taken > len => Err(self.other_than_announced("more")),
            _ => Ok(piece),
        }
    }

    fn check_end(&self) -> Result<(), Fault> {
        match self.len {
            Some(len) if self.taken < len => Err(self.other_than_announced("fewer")),
            _ => Ok(()),
        }
    }

    fn other_than_announced(&self, than: &str) -> Fault {
        self.offences.inputs_broken.add();
        let announced = self.len.unwrap_or_default();
        let message = format!("the caller announced an input of {announced} bytes and sent {than}");
        Fault::new(FaultKind::InputInvalid, message).help("this is an error in the caller's client")
    }

    fn fault(&self, error: &FrameError) -> Fault {
        // A connection that is lost, or a call that is given up, is no offence.
        if !matches!(error, FrameError::Lost(_) | FrameError::Reset(_)) {
            self.offences.inputs_broken.add();
        }
        match error {
            FrameError::TooLong { limit, .. } if *limit == self.limit => too_large(self.limit),
            other => Fault::new(
                FaultKind::InputInvalid,
                format!("the input broke off after {} bytes: {other}", self.taken),
            )
            .help("call again; the function was not given half an input"),
        }
    }
}

/// The fault for an input above the function's limit.
pub(crate) fn too_large(limit: u64) -> Fault {
    crate::faults::from_guest(&orb_runtime::GuestFault::InputTooLarge { limit })
}
