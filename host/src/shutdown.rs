//! The wish that a daemon ends.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Told to every part of a daemon that has to end in order. Clones hear the same wish.
#[derive(Debug, Clone)]
pub(crate) struct Shutdown(watch::Receiver<bool>);

/// Tells the [`Shutdown`]s that go with it. Dropping it tells them too.
#[derive(Debug)]
pub(crate) struct Trigger(watch::Sender<bool>);

impl Shutdown {
    /// A wish that somebody in this process will have.
    pub(crate) fn new() -> (Trigger, Self) {
        let (sender, receiver) = watch::channel(false);
        (Trigger(sender), Self(receiver))
    }

    /// The wish that SIGTERM or SIGINT brings. A second one ends the process at once, for whoever
    /// does not want to wait until calls have drained.
    ///
    /// # Errors
    /// When the process cannot listen to signals.
    pub(crate) fn on_signals() -> io::Result<Self> {
        let (trigger, shutdown) = Self::new();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::spawn(async move {
            for attempt in 0.. {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if attempt > 0 {
                    std::process::exit(130);
                }
                tracing::info!("ending: no new work is taken; signal again to end at once");
                trigger.pull();
            }
        });
        Ok(shutdown)
    }

    /// Returns once the end is wished for.
    pub(crate) async fn requested(&mut self) {
        // An error means that the trigger is gone, and nobody could ever tell us otherwise.
        let _ = self.0.wait_for(|wished| *wished).await;
    }

    /// Whether the end is wished for.
    #[cfg(test)]
    pub(crate) fn is_requested(&self) -> bool {
        *self.0.borrow()
    }
}

impl Trigger {
    /// Wishes for the end.
    pub(crate) fn pull(&self) {
        self.0.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_clone_hears_it() {
        let (trigger, mut shutdown) = Shutdown::new();
        let mut other = shutdown.clone();
        assert!(!shutdown.is_requested());
        trigger.pull();
        shutdown.requested().await;
        other.requested().await;
        assert!(other.is_requested());
    }

    #[tokio::test]
    async fn a_dropped_trigger_counts() {
        let (trigger, mut shutdown) = Shutdown::new();
        drop(trigger);
        shutdown.requested().await;
    }
}
