//! How long a host that drains waits for a peer that says nothing.
//!
//! An answer counts as delivered when the peer has acknowledged it, and a peer that vanished never
//! does: QUIC gives it up after its idle timeout, which is long for somebody who waits for this host to
//! end.

use std::time::Duration;

use orb_protocol::quic::Connection;
use tokio::time::{Instant, sleep};

use super::Host;

/// How long a peer may be silent once no call runs here any more. QUIC has sent it what it did not
/// acknowledge two or three times more by then.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// How often is looked whether something came.
const STEP: Duration = Duration::from_millis(200);

/// Serves a stream to its end, or until this host drains and its peer has vanished.
pub(crate) async fn while_heard(host: &Host, connection: &Connection, served: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        () = served => {}
        () = silence(host, connection) => {
            tracing::info!(peer = %connection.peer(), "a peer is silent: it is not waited for");
        }
    }
}

/// Returns when this host drains, no call runs, and nothing came from the peer for [`SILENCE_MAX`].
async fn silence(host: &Host, connection: &Connection) {
    host.drains().await;
    let heard = || connection.quinn().stats().udp_rx.datagrams;
    let (mut last, mut since) = (heard(), Instant::now());
    while since.elapsed() < SILENCE_MAX {
        sleep(STEP).await;
        let now = heard();
        if now != last || host.requests.running() > 0 {
            (last, since) = (now, Instant::now());
        }
    }
}
