//! A host that takes nothing for a while.

use bytes::Bytes;
use orb_protocol::fault::FaultKind;
use orb_protocol::quic::body::write_body;
use orb_protocol::wire::control::HostMessage;

use super::guests;
use super::network::{Net, call, config};
use crate::node::Node;
use crate::node::pause::Pause;
use crate::node::testing::{manifest, owner};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_turns_calls_away_and_cuts_none_that_runs() {
    let net = Net::start().await;
    let echo = guests::echo();
    let first = manifest(&owner(1), "echo", 1, &echo);
    net.seed(&first, &echo).await;
    // It runs until its input ends.
    let mut running = net.caller.open(call(first.function()).into()).await;
    running.started().await.unwrap();
    net.upper.forget();
    let night = "22:00-07:00".parse().unwrap();
    net.node.host.pauses.set(Some(Pause::QuietHours(night)));
    let fault = net.caller.call(call(first.function()), b"").await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Overloaded);
    assert!(fault.message.contains("quiet hours 22:00-07:00"), "{fault}");
    let paused = |m: &HostMessage| matches!(m, HostMessage::Beat(beat) if beat.pause().is_some());
    net.upper.hears(paused).await;
    // A newer revision of what it holds is taken, and nothing else.
    let (edit, other) = (
        manifest(&owner(1), "echo", 2, &echo),
        manifest(&owner(1), "other", 1, &echo),
    );
    net.seed(&edit, &echo).await;
    net.upper.assign(&other, &echo);
    let refused = |m: &HostMessage| matches!(m, HostMessage::Refused(r) if r.function == other.function() && r.reason.contains("paused"));
    net.upper.hears(refused).await;
    write_body(&mut running.send, Bytes::from_static(b"all of it"))
        .await
        .unwrap();
    let (output, trailer) = running.rest().await;
    assert_eq!(
        (output.as_slice(), trailer.fault),
        (b"all of it".as_slice(), None)
    );
    net.upper.forget();
    net.node.host.pauses.set(None);
    let over = |m: &HostMessage| matches!(m, HostMessage::Beat(beat) if beat.pause().is_none());
    net.upper.hears(over).await;
    let done = net.caller.call(call(first.function()), b"again").await.unwrap();
    assert_eq!(done.text(), "again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_starts_in_a_pause_says_so_before_it_says_what_it_holds() {
    let Net {
        folder, upper, node, ..
    } = Net::start().await;
    node.drain().await.unwrap();
    upper.forget();
    let mut config = config(folder.path(), &[&upper]);
    // All of the day, which no operator can ask for, so that it holds whenever this runs.
    let day = ["04:00-16:00", "16:00-04:00"];
    config.pauses.quiet_hours = day.map(|range| range.parse().unwrap()).to_vec();
    let node = Node::start(config).await.unwrap();
    upper.hears_holdings().await;
    let said = upper.shared.said();
    assert!(
        matches!(&said[0], HostMessage::Beat(beat) if beat.pause().is_some()),
        "{said:?}"
    );
    node.drain().await.unwrap();
}
