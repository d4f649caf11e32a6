//! A call's guest, from turn to turn.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use orb_runtime::{Machine, Outcome, Program, Work};

use super::lane::{Lane, Paced};
use super::message::CallId;
use super::outbox::Outbox;
use super::ring::Violation;

/// Runs to the guest's end, and says after each turn what came of it.
pub(super) struct Guest {
    call: CallId,
    turns: Paced<dyn Future<Output = Outcome> + Send>,
    outbox: Arc<Outbox>,
}

impl Guest {
    /// A guest that has not been entered yet.
    pub(super) fn new(
        call: CallId,
        machine: &Machine,
        program: Program,
        work: Work,
        lane: &Lane,
        outbox: &Arc<Outbox>,
    ) -> Self {
        let (machine, events) = (machine.clone(), Arc::clone(outbox));
        let guest = async move {
            let on_event = |event| events.on_event(call, event);
            machine.run(&program, work, on_event).await
        };
        Self {
            call,
            turns: lane.pace(Box::pin(guest)),
            outbox: Arc::clone(outbox),
        }
    }
}

impl Future for Guest {
    type Output = Result<(), Violation>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match Pin::new(&mut self.turns).poll(context) {
            Poll::Ready(outcome) => Poll::Ready(self.outbox.on_turn(self.call, Some(outcome))),
            Poll::Pending => match self.outbox.on_turn(self.call, None) {
                Ok(()) => Poll::Pending,
                violation => Poll::Ready(violation),
            },
        }
    }
}
