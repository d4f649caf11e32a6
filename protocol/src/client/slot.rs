//! A place for one connection that many may want at once.

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::fault::Fault;

/// Holds a connection, and lets one at a time make a new one; those who wait meanwhile share what
/// comes of it.
pub(super) struct Slot<T>(Mutex<State<T>>);

struct State<T> {
    connection: Option<T>,
    failed: Option<(Instant, Fault)>,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self(Mutex::new(State {
            connection: None,
            failed: None,
        }))
    }
}

impl<T: Clone> Slot<T> {
    /// The connection that is there, unless one is being made.
    pub(super) fn current(&self) -> Option<T> {
        self.0.try_lock().ok()?.connection.clone()
    }

    /// The connection that is there, if it is `usable`, or else the one that `dial` makes. Whether it
    /// was made now comes with it.
    pub(super) async fn get<D: Future<Output = Result<T, Fault>>>(
        &self,
        usable: impl Fn(&T) -> bool,
        dial: impl FnOnce() -> D,
    ) -> Result<(T, bool), Fault> {
        let asked = Instant::now();
        let mut state = self.0.lock().await;
        if let Some(connection) = state.connection.as_ref().filter(|c| usable(c)) {
            return Ok((connection.clone(), false));
        }
        match &state.failed {
            Some((at, fault)) if *at >= asked => return Err(fault.clone()),
            _ => {}
        }
        state.connection = None;
        // Rare, and large: it shall not make every call's future as large.
        match Box::pin(dial()).await {
            Ok(connection) => {
                state.connection = Some(connection.clone());
                Ok((connection, true))
            }
            Err(fault) => {
                state.failed = Some((Instant::now(), fault.clone()));
                Err(fault)
            }
        }
    }
}
