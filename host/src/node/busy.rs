//! What a daemon still has to do before it may end.

use tokio::sync::watch;

/// Counts the streams that are being served.
#[derive(Debug, Default)]
pub(crate) struct Busy(watch::Sender<usize>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Task(watch::Sender<usize>);

impl Busy {
    /// One more.
    pub(crate) fn enter(&self) -> Task {
        self.0.send_modify(|count| *count += 1);
        Task(self.0.clone())
    }

    /// Returns when there are none.
    pub(crate) async fn idle(&self) {
        // The sender is ours, so that this cannot end otherwise.
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn idle_is_when_the_last_has_ended() {
        let busy = Busy::default();
        busy.idle().await;
        let (first, second) = (busy.enter(), busy.enter());
        let wait = busy.idle();
        tokio::pin!(wait);
        drop(first);
        tokio::select! {
            biased;
            () = &mut wait => panic!("one is left"),
            () = tokio::task::yield_now() => {}
        }
        drop(second);
        wait.await;
    }
}
