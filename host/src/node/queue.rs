//! Admission: which calls run now, which wait, and which are turned away.
//!
//! A call first takes a [`Place`], or is turned away before anything was done for it. Then it waits for
//! its [`Turn`]. [`admission`] decides, [`shares`] says whose turn is next; here are the locks and the
//! waiting.

mod admission;
mod shares;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use self::admission::Admission;
pub(crate) use self::admission::{Ask, Bounds, Caller};
use self::shares::Ticket;

/// The shortest wait that is proposed to somebody who was turned away: calls end all the time, and
/// the round trip back takes some of it (a guess).
const RETRY_AFTER_MIN: Duration = Duration::from_millis(50);
/// The longest: after it the queue looks altogether different.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);
/// A call that has waited for so many times as long as was accepted for it is turned away after all:
/// the forecasts were wrong, and another host is the better bet (a guess).
const OVERDUE: u32 = 2;

/// The host's places and turns.
#[derive(Debug)]
pub(crate) struct Queue(Mutex<State>);

#[derive(Debug)]
struct State {
    admission: Admission,
    waiting: HashMap<Ticket, oneshot::Sender<Instant>>,
}

/// The right to wait for a turn, and to be counted as waiting.
#[derive(Debug)]
pub(crate) struct Place {
    queue: Arc<Queue>,
    ticket: Ticket,
    turn: oneshot::Receiver<Instant>,
    patience: Duration,
    began: Option<Instant>,
}

/// The right to run a guest, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    _place: Place,
}

/// No: the host has too much to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TurnedAway {
    /// When there may be room.
    pub(crate) retry_after: Duration,
    /// Calls that run.
    pub(crate) running: u32,
    /// Calls that wait.
    pub(crate) waiting: u32,
}

impl Queue {
    /// A queue with nobody in it.
    pub(crate) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            admission: Admission::new(bounds),
            waiting: HashMap::new(),
        })))
    }

    /// A place for a call; perhaps at the cost of somebody who has many.
    ///
    /// # Errors
    /// There is none for it.
    pub(crate) fn enter(self: &Arc<Self>, ask: &Ask) -> Result<Place, TurnedAway> {
        let mut state = self.state();
        let patience = state.admission.patience(ask);
        let entered = state.admission.enter(ask).ok_or_else(|| state.turned_away())?;
        if let Some(shed) = entered.shed {
            // Its sender is what it waits for.
            state.waiting.remove(&shed);
        }
        let (sender, turn) = oneshot::channel();
        state.waiting.insert(entered.ticket, sender);
        Ok(Place {
            queue: Arc::clone(self),
            ticket: entered.ticket,
            turn,
            patience,
            began: None,
        })
    }

    /// Calls that run.
    pub(crate) fn running(&self) -> u32 {
        self.state().admission.running()
    }

    /// Calls that have a place and do not run yet.
    pub(crate) fn waiting(&self) -> u32 {
        self.state().admission.waiting()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn start_next(&mut self) {
        while let Some(ticket) = self.admission.next() {
            if let Some(sender) = self.waiting.remove(&ticket) {
                // A call that has gone away meanwhile gives its turn back by itself.
                let _ = sender.send(Instant::now());
            }
        }
    }

    fn turned_away(&self) -> TurnedAway {
        TurnedAway {
            retry_after: self
                .admission
                .expected_wait()
                .clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX),
            running: self.admission.running(),
            waiting: self.admission.waiting(),
        }
    }
}

impl Place {
    /// Waits until it is this call's turn.
    ///
    /// # Errors
    /// Somebody else needed the place, or it took far longer than was to be expected.
    pub(crate) async fn turn(mut self) -> Result<Turn, TurnedAway> {
        {
            let mut state = self.queue.state();
            state.admission.ready(self.ticket);
            state.start_next();
        }
        match timeout(self.patience * OVERDUE, &mut self.turn).await {
            Ok(Ok(began)) => {
                self.began = Some(began);
                Ok(Turn { _place: self })
            }
            Ok(Err(_)) | Err(_) => Err(self.queue.state().turned_away()),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let ran = self.began.map(|began| began.elapsed()).unwrap_or_default();
        let mut state = self.queue.state();
        state.waiting.remove(&self.ticket);
        state.admission.leave(self.ticket, ran);
        state.start_next();
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use orb_protocol::id::{FunctionId, NodeId};

    use super::*;

    fn queue(capacity: u32, waiting_max: u32) -> Arc<Queue> {
        Queue::new(Bounds {
            capacity,
            waiting_max,
            wait_max: Duration::from_secs(1),
        })
    }

    fn ask(caller: u8) -> Ask {
        Ask {
            function: FunctionId::from_bytes([1; 32]),
            caller: Caller::Node(NodeId::from_bytes([caller; 32])),
            forecast: Duration::from_millis(100),
            measured: true,
            remaining: Duration::from_secs(30),
        }
    }

    #[tokio::test]
    async fn so_many_run_so_many_wait_and_the_next_is_turned_away() {
        let queue = queue(1, 2);
        let first = queue.enter(&ask(1)).unwrap().turn().await.unwrap();
        let second = queue.enter(&ask(1)).unwrap();
        let third = queue.enter(&ask(1)).unwrap();
        assert_eq!((queue.running(), queue.waiting()), (1, 2));
        assert_eq!(queue.enter(&ask(1)).unwrap_err().waiting, 2);
        // Somebody who gives up waiting makes room for another one.
        drop(third);
        assert!(queue.enter(&ask(1)).is_ok());
        drop(first);
        let second = second.turn().await.unwrap();
        assert_eq!((queue.running(), queue.waiting()), (1, 0));
        drop(second);
        assert_eq!((queue.running(), queue.waiting()), (0, 0));
    }

    #[tokio::test]
    async fn of_one_caller_the_first_to_come_is_the_first_to_run() {
        let queue = queue(1, 8);
        let running = queue.enter(&ask(1)).unwrap().turn().await.unwrap();
        let (done, mut order) = tokio::sync::mpsc::channel(8);
        for number in 0..4 {
            let (place, done) = (queue.enter(&ask(1)).unwrap(), done.clone());
            tokio::spawn(async move {
                let _turn = place.turn().await.unwrap();
                done.send(number).await.unwrap();
            });
            tokio::task::yield_now().await;
        }
        drop((running, done));
        for number in 0..4 {
            assert_eq!(order.recv().await, Some(number));
        }
    }

    #[tokio::test]
    async fn whoever_loses_its_place_hears_it_while_it_waits() {
        let queue = queue(1, 2);
        let running = queue.enter(&ask(1)).unwrap().turn().await.unwrap();
        let kept = queue.enter(&ask(1)).unwrap();
        let lost = tokio::spawn(queue.enter(&ask(1)).unwrap().turn());
        tokio::task::yield_now().await;
        let newcomer = queue.enter(&ask(2)).unwrap();
        assert!(lost.await.unwrap().is_err());
        assert_eq!((queue.running(), queue.waiting()), (1, 2));
        drop(running);
        let turn = kept.turn().await.unwrap();
        drop(turn);
        newcomer.turn().await.unwrap();
    }

    #[tokio::test]
    async fn nobody_waits_for_ever_behind_calls_that_do_not_end() {
        let queue = Queue::new(Bounds {
            capacity: 1,
            waiting_max: 8,
            wait_max: Duration::from_millis(5),
        });
        let short = |caller| Ask {
            forecast: Duration::from_millis(1),
            ..ask(caller)
        };
        let running = queue.enter(&short(1)).unwrap().turn().await.unwrap();
        let place = queue.enter(&short(2)).unwrap();
        assert!(place.turn().await.is_err());
        assert_eq!((queue.running(), queue.waiting()), (1, 0));
        drop(running);
        queue.enter(&ask(2)).unwrap().turn().await.unwrap();
    }

    #[tokio::test]
    async fn a_turn_that_nobody_takes_goes_to_the_next() {
        let queue = queue(1, 8);
        let running = queue.enter(&ask(1)).unwrap().turn().await.unwrap();
        let gone = tokio::spawn(queue.enter(&ask(2)).unwrap().turn());
        tokio::task::yield_now().await;
        let next = queue.enter(&ask(3)).unwrap();
        // Its turn comes, and its caller goes before it has noticed.
        drop(running);
        gone.abort();
        assert!(next.turn().await.is_ok());
    }

    #[tokio::test]
    async fn the_wait_that_is_proposed_grows_with_the_queue_within_bounds() {
        let queue = queue(2, 12);
        let mut places = Vec::new();
        for _ in 0..14 {
            places.push(queue.enter(&ask(1)).unwrap());
        }
        let away = queue.enter(&ask(1)).unwrap_err();
        assert_eq!(away.retry_after, Duration::from_millis(700));
        places.truncate(2);
        assert_eq!(
            queue.state().turned_away().retry_after,
            Duration::from_millis(100)
        );
        places.truncate(1);
        assert_eq!(queue.state().turned_away().retry_after, RETRY_AFTER_MIN);
    }
}
