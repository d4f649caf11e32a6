//! Random numbers and the time of day: what only the outermost layer may draw.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::fault::{Fault, FaultKind};

/// Random bytes from the system.
pub(super) fn bytes<const N: usize>() -> Result<[u8; N], Fault> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        Fault::new(
            FaultKind::Internal,
            format!("the system has no random numbers: {error}"),
        )
    })?;
    Ok(bytes)
}

/// Milliseconds since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
