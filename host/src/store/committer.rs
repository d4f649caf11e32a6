//! Group commit: one thread that writes, so that writes that come together share one sync of the disk.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use redb::WriteTransaction;
use tokio::sync::oneshot;

use super::database::{Database, StoreError, TxnError};

/// Writes that wait: each holds a manifest of at most 32 KiB, so that all together hold 32 MiB.
const WAITING_MAX: usize = 1_024;
/// Writes that share a commit. More would make the first of them wait for the last.
const BATCH_MAX: usize = 64;

/// Takes writes from any task and answers each when it is durable.
#[derive(Debug)]
pub(crate) struct Committer {
    jobs: Option<SyncSender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    /// Starts the thread.
    pub(crate) fn start(database: Arc<Database>) -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel(WAITING_MAX);
        let thread = std::thread::Builder::new()
            .name("orb-commit".to_owned())
            .spawn(move || run(&database, &queue))?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// Has `write` done and returns when it is durable. It may run more than once, in different
    /// transactions: only the last one counts. A caller that goes away does not stop it.
    ///
    /// # Errors
    /// [`StoreError`] as of [`Database::write`]; [`StoreError::Busy`] beyond the bound.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        write: impl FnMut(&WriteTransaction) -> Result<T, TxnError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job = Write {
            write,
            outcome: None,
            reply,
        };
        let jobs = self.jobs.as_ref().ok_or(StoreError::Closed)?;
        jobs.try_send(Box::new(job)).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Busy,
            TrySendError::Disconnected(_) => StoreError::Closed,
        })?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }
}

impl Drop for Committer {
    /// What was handed in is written before this returns.
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // A panic in the thread was reported where it happened.
            let _ = thread.join();
        }
    }
}

trait Job: Send {
    fn run(&mut self, txn: &WriteTransaction) -> Result<(), TxnError>;
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Write<T, F> {
    write: F,
    outcome: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T: Send, F: FnMut(&WriteTransaction) -> Result<T, TxnError> + Send> Job for Write<T, F> {
    fn run(&mut self, txn: &WriteTransaction) -> Result<(), TxnError> {
        self.outcome = Some((self.write)(txn)?);
        Ok(())
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let Self { outcome, reply, .. } = *self;
        // Nobody may be waiting any more; what was written stays written.
        let _ = reply.send(committed.and_then(|()| outcome.ok_or(StoreError::Closed)));
    }
}

fn run(database: &Database, queue: &Receiver<Box<dyn Job>>) {
    while let Ok(first) = queue.recv() {
        let mut batch = vec![first];
        batch.extend(queue.try_iter().take(BATCH_MAX - 1));
        commit(database, batch);
    }
}

fn commit(database: &Database, mut batch: Vec<Box<dyn Job>>) {
    let together = database.write(|txn| batch.iter_mut().try_for_each(|job| job.run(txn)));
    if together.is_ok() || batch.len() == 1 {
        for job in batch {
            job.answer(together.clone());
        }
        return;
    }
    // One of them spoilt it for all: each for itself then.
    for mut job in batch {
        let committed = database.write(|txn| job.run(txn));
        job.answer(committed);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use redb::{ReadableTableMetadata, TableDefinition};

    use super::*;

    const TABLE: TableDefinition<'_, u64, u64> = TableDefinition::new("test");

    fn scratch() -> (tempfile::TempDir, Arc<Database>) {
        let scratch = tempfile::tempdir().unwrap();
        let database = Database::open(&scratch.path().join("orb.redb")).unwrap();
        (scratch, Arc::new(database))
    }

    fn count(database: &Database) -> u64 {
        database.read(|txn| Ok(txn.open_table(TABLE)?.len()?)).unwrap()
    }

    #[tokio::test]
    async fn every_write_is_answered_by_its_own_outcome() {
        let (_scratch, database) = scratch();
        let committer = Arc::new(Committer::start(Arc::clone(&database)).unwrap());
        let writes: Vec<_> = (0..200)
            .map(|number| {
                let committer = Arc::clone(&committer);
                tokio::spawn(async move {
                    let write = move |txn: &WriteTransaction| {
                        txn.open_table(TABLE)?.insert(number, number)?;
                        Ok(number)
                    };
                    committer.write(write).await
                })
            })
            .collect();
        for (number, write) in (0..).zip(writes) {
            assert_eq!(write.await.unwrap().unwrap(), number);
        }
        assert_eq!(count(&database), 200);
    }

    #[test]
    fn one_bad_write_spoils_no_other() {
        let (_scratch, database) = scratch();
        let job = |number: u64, good: bool| {
            let (reply, answer) = oneshot::channel();
            let write = move |txn: &WriteTransaction| {
                txn.open_table(TABLE)?.insert(number, number)?;
                good.then_some(()).ok_or(StoreError::Closed.into())
            };
            let job: Box<dyn Job> = Box::new(Write {
                write,
                outcome: None,
                reply,
            });
            (job, answer)
        };
        let (jobs, answers): (Vec<_>, Vec<_>) =
            [job(1, true), job(2, false), job(3, true)].into_iter().unzip();
        commit(&database, jobs);
        let outcomes: Vec<bool> = answers
            .into_iter()
            .map(|answer| answer.blocking_recv().unwrap().is_ok())
            .collect();
        assert_eq!(outcomes, [true, false, true]);
        assert_eq!(count(&database), 2);
    }

    #[tokio::test]
    async fn what_was_handed_in_is_written_before_the_end() {
        let (_scratch, database) = scratch();
        let committer = Committer::start(Arc::clone(&database)).unwrap();
        let write = |txn: &WriteTransaction| {
            txn.open_table(TABLE)?.insert(1, 1)?;
            Ok(())
        };
        let mut pending = Box::pin(committer.write(write));
        assert!(futures_poll_once(pending.as_mut()).await);
        drop(pending);
        drop(committer);
        assert_eq!(count(&database), 1);
    }

    /// Polls a future once, as a caller does that then goes away.
    async fn futures_poll_once<F: Future + Unpin>(mut future: F) -> bool {
        std::future::poll_fn(|context| {
            let _ = std::pin::Pin::new(&mut future).poll(context);
            std::task::Poll::Ready(true)
        })
        .await
    }
}
