//! What a host is still to be told.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use orb_protocol::id::FunctionId;
use tokio::sync::Notify;

/// Messages that wait for one host: room for what a full host has to hear when it joins. Each costs
/// about 80 bytes, so that a host that does not read pins 16 MiB for at most the time that a message
/// may take.
pub(crate) const OUTBOX_MAX: usize = 200_000;

/// One message. The manifests that go with them are read when they are sent, so that a message never
/// tells anything that is already outdated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outgoing {
    /// Hold the function.
    Assign(FunctionId),
    /// It need not be held any more.
    Release(FunctionId),
    /// It changed.
    Changed(FunctionId),
    /// All is told.
    Synced,
    /// Which other super nodes there are.
    Supers,
}

/// A queue from the coordinator to the task that writes to the host.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<Outgoing>,
    /// Functions with a [`Outgoing::Changed`] in the queue: one tells the newest state, however many
    /// changes there were.
    changed: BTreeSet<FunctionId>,
}

/// The host does not read what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{OUTBOX_MAX} messages wait for the host: it does not read")]
pub(crate) struct OutboxFull;

impl Outbox {
    /// Adds a message.
    ///
    /// # Errors
    /// [`OutboxFull`]: the host has to be cut off.
    pub(crate) fn push(&self, message: Outgoing) -> Result<(), OutboxFull> {
        let mut waiting = self.lock();
        if let Outgoing::Changed(function) = message
            && !waiting.changed.insert(function)
        {
            return Ok(());
        }
        if waiting.messages.len() >= OUTBOX_MAX {
            return Err(OutboxFull);
        }
        waiting.messages.push_back(message);
        drop(waiting);
        self.wake.notify_one();
        Ok(())
    }

    /// Waits for the next message. For one task.
    pub(crate) async fn next(&self) -> Outgoing {
        loop {
            if let Some(message) = self.pop() {
                return message;
            }
            self.wake.notified().await;
        }
    }

    fn pop(&self) -> Option<Outgoing> {
        let mut waiting = self.lock();
        let message = waiting.messages.pop_front()?;
        if let Outgoing::Changed(function) = &message {
            waiting.changed.remove(function);
        }
        Some(message)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;

    fn function(byte: u8) -> FunctionId {
        FunctionId::from_bytes([byte; 32])
    }

    #[tokio::test]
    async fn messages_come_in_order_and_changes_once() {
        let outbox = Outbox::default();
        let sent = [
            Outgoing::Changed(function(1)),
            Outgoing::Assign(function(1)),
            Outgoing::Changed(function(1)),
            Outgoing::Release(function(1)),
            Outgoing::Assign(function(1)),
            Outgoing::Synced,
        ];
        for message in sent {
            outbox.push(message).unwrap();
        }
        for at in [0, 1, 3, 4, 5] {
            assert_eq!(outbox.next().await, sent[at]);
        }
        outbox.push(sent[0]).unwrap();
        assert_eq!(outbox.next().await, sent[0]);
    }

    #[test]
    fn a_host_that_does_not_read_is_found_out() {
        let outbox = Outbox::default();
        for _ in 0..OUTBOX_MAX {
            outbox.push(Outgoing::Synced).unwrap();
        }
        assert_eq!(outbox.push(Outgoing::Synced), Err(OutboxFull));
    }
}
