//! Where guests run: at first right where their call came in, later on threads of their own.
//!
//! Most calls take well under a millisecond, and handing one over to another thread and back takes
//! up to two tenths of one. So a guest begins on the network's threads; one that has used up
//! [`INLINE_MAX`] of running moves to the guests' threads, which the system schedules beside the
//! network's. However many endless loops there are, packets are handled and heart-beats sent.

use std::future::poll_fn;
use std::io;
use std::panic;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

/// How long a guest may run on the network's threads. Several times what a JavaScript call of
/// ordinary size takes (0.1 ms), and what delays the others no more than a busy network does.
const INLINE_MAX: Duration = Duration::from_millis(1);
/// How much the guests' threads step back behind the network's, in steps of nice(2).
const NICENESS: i32 = 5;

/// The guests' threads.
#[derive(Debug)]
pub(crate) struct Guests {
    handle: Handle,
    /// Taken only to be shut down.
    runtime: Option<Runtime>,
}

impl Guests {
    /// Starts as many threads as there are cores.
    ///
    /// # Errors
    /// The system gives no threads.
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .thread_name("orb-guests")
            .on_thread_start(|| {
                // On Linux this is the thread's own. Without it guests merely have an equal share.
                let _ = rustix::process::nice(NICENESS);
            })
            .enable_all()
            .build()?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    /// Runs a guest to its end. Dropping the future ends the guest.
    pub(crate) async fn run<T: Send + 'static>(&self, guest: impl Future<Output = T> + Send + 'static) -> T {
        let mut guest: Pin<Box<dyn Future<Output = T> + Send>> = Box::pin(guest);
        let mut ran = Duration::ZERO;
        let inline = poll_fn(|context| {
            let began = Instant::now();
            let polled = guest.as_mut().poll(context);
            ran += began.elapsed();
            match polled {
                Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
                Poll::Pending if ran > INLINE_MAX => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        });
        match inline.await {
            Some(outcome) => outcome,
            None => Moved(self.handle.spawn(guest)).await,
        }
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A runtime must not wait for its end inside another one; every guest has ended by now.
            runtime.shutdown_background();
        }
    }
}

/// A guest on the guests' threads; ends it when dropped.
struct Moved<T>(JoinHandle<T>);

impl<T> Future for Moved<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<T> {
        match Pin::new(&mut self.0).poll(context) {
            Poll::Ready(Ok(outcome)) => Poll::Ready(outcome),
            Poll::Ready(Err(error)) => match error.try_into_panic() {
                // It is the call's task that ends, as if the guest had run in it.
                Ok(reason) => panic::resume_unwind(reason),
                // Cancelled: the guests' threads are ending, and with them the daemon.
                Err(_) => Poll::Pending,
            },
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<T> Drop for Moved<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Keeps a thread busy a little, gives way, and so on.
    async fn spin(turns: usize, counter: Arc<AtomicUsize>) -> usize {
        for _ in 0..turns {
            let end = Instant::now() + Duration::from_millis(2);
            while Instant::now() < end {
                std::hint::spin_loop();
            }
            counter.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
        turns
    }

    fn thread() -> String {
        std::thread::current().name().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn a_short_guest_stays_and_a_long_one_moves() {
        let guests = Guests::start().unwrap();
        assert_ne!(guests.run(async { thread() }).await, "orb-guests");
        let long = async {
            spin(3, Arc::default()).await;
            thread()
        };
        assert_eq!(guests.run(long).await, "orb-guests");
    }

    #[tokio::test]
    async fn endless_guests_leave_the_network_alone_and_end_when_dropped() {
        let guests = Arc::new(Guests::start().unwrap());
        let counter = Arc::new(AtomicUsize::new(0));
        let running: Vec<_> = (0..8)
            .map(|_| {
                let (guests, counter) = (Arc::clone(&guests), Arc::clone(&counter));
                tokio::spawn(async move { guests.run(spin(usize::MAX, counter)).await })
            })
            .collect();
        // With all of them on this one thread, a turn of each would pass between two of ours.
        while counter.load(Ordering::Relaxed) < 64 {
            tokio::task::yield_now().await;
        }
        for guest in running {
            guest.abort();
            assert!(guest.await.unwrap_err().is_cancelled());
        }
        let handle = guests.handle.metrics();
        while handle.num_alive_tasks() > 0 {
            tokio::task::yield_now().await;
        }
    }
}
