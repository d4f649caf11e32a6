#![expect(clippy::unwrap_used, reason = "a test panics on surprise")]

use orb_protocol::manifest::Verified;
use orb_protocol::wire::federation::Cursor;

use super::super::super::testing::{FakeSuper, Guest, Super, wasm};
use super::*;
use crate::store::testing::{manifest, owner, publish, version};

/// More than anybody is asked for, or believed.
const MANY: usize = 1_000;

fn nothing() -> Cursor {
    Cursor {
        log: [7; 16],
        number: 0,
    }
}

fn node(number: usize) -> NodeId {
    NodeId::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn hint(number: usize) -> HostHint {
    HostHint {
        node: node(number),
        version: version(0, 1),
        rtt_us: 0,
        queue: 0,
        capacity: 1,
        run_us: 0,
        failure_permille: 0,
        extensions: Extensions::none(),
    }
}

fn located(supers: Vec<NodeId>) -> Option<Reply> {
    let extensions = Extensions::none();
    Some(Reply::ok(&Located { supers, extensions }))
}

fn resolved(function: &Verified, hosts: Vec<HostHint>) -> Option<Reply> {
    Some(Reply::ok(&Resolved {
        manifest: function.signed().clone(),
        hosts,
        extensions: Extensions::none(),
    }))
}

#[tokio::test]
async fn a_directory_full_of_lies_is_worked_around() {
    let super_node = Super::start_with(tempfile::tempdir().unwrap(), |config| config.open_peers = true).await;
    let guest = Guest::connect(&super_node).await;
    // Whichever of the others is the first of a function's directory.
    for name in ["a", "b", "c", "d", "e", "f"] {
        let function = manifest(&owner(1), name, version(0, 1), publish(&wasm(0)));
        guest.publish(&owner(1), &function, &wasm(0)).await.unwrap();
        let liar = FakeSuper::join(&super_node, 8, nothing()).await;
        let honest = FakeSuper::join(&super_node, 9, nothing()).await;
        let (liars_id, told) = (liar.id(), function.clone());
        liar.answer(move |asked| match asked {
            Request::Locate(_) => located((0..MANY).map(node).chain([liars_id]).collect()),
            Request::Resolve(_) => resolved(&told, Vec::new()),
            _ => None,
        });
        let (id, told) = (honest.id(), function.clone());
        honest.answer(move |asked| match asked {
            Request::Locate(_) => located(vec![id]),
            // But it exaggerates.
            Request::Resolve(_) => resolved(&told, (0..MANY).map(hint).collect()),
            _ => None,
        });
        let resolve = Resolve {
            function: function.function(),
            credential: None,
            extensions: Extensions::none(),
        };
        let answer: Resolved = guest.ask(resolve).await.unwrap();
        assert_eq!(answer.hosts.len(), HOSTS_MAX);
        let via = format!("{id}@127.0.0.1:1");
        assert!(
            answer
                .hosts
                .iter()
                .all(|host| host.extensions.get(VIA) == Some(via.as_bytes()))
        );
        liar.guest.connection.close(0, "done");
        honest.guest.connection.close(0, "done");
    }
    super_node.stop().await;
}
