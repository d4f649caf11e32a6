//! How a super node gets what it has missed from another one.

use std::sync::Arc;

use super::links::DIAL_TIMEOUT;
use super::world::{Event, World};
use crate::head::SignedHead;
use crate::id::{FunctionId, NodeId};
use crate::manifest::Verified;
use crate::wire::federation::Cursor;

/// What a pull brought.
#[derive(Debug)]
pub(super) struct Pulled {
    changes: Vec<(Cursor, Arc<Verified>, Arc<SignedHead>)>,
    known: Vec<Cursor>,
}

impl World<'_> {
    pub(super) fn pull(&mut self, at: usize, node: NodeId) {
        let Some(&from) = self.super_numbers.get(&node) else {
            return;
        };
        let life = self.supers[at].life;
        let answer = (self.supers[from].up && self.network.is_open_both_ways(at, from)).then(|| {
            let (asker, asked) = (&self.supers[at], &self.supers[from]);
            let known = asked.disk.clock.cursors();
            let changes = if asker.hub.federation().is_beyond_clock(&node) {
                let (changes, bytes) = asker.lacks(asked).expect("both keep to the protocol");
                self.measured.reconciled += 1;
                self.measured.reconciled_bytes += bytes;
                changes
            } else {
                asked.missing(&asker.disk.clock)
            };
            let live = &self.supers[from].disk.live;
            let with = |(cursor, function): (Cursor, FunctionId)| {
                let (manifest, head) = &live[&function];
                (cursor, Arc::clone(manifest), Arc::clone(head))
            };
            let changes: Vec<_> = changes.into_iter().map(with).collect();
            self.measured.pulled_bytes += super::supers::pages_bytes(&changes);
            self.measured.pulled += changes.len() as u64;
            Box::new(Pulled { changes, known })
        });
        self.measured.pulls += 1;
        let delay = match &answer {
            Some(_) => 2 * self.network.latency(at, from),
            None => DIAL_TIMEOUT,
        };
        self.after(
            delay,
            Event::Pulled {
                at,
                from,
                life,
                answer,
            },
        );
    }

    pub(super) fn on_pulled(&mut self, at: usize, from: usize, life: u64, answer: Option<Box<Pulled>>) {
        if self.supers[at].life != life || !self.supers[at].up {
            return;
        }
        let node = self.supers[from].node;
        let known = answer.map(|answer| {
            for (cursor, manifest, head) in &answer.changes {
                self.store(at, *cursor, manifest, head);
            }
            for cursor in &answer.known {
                self.supers[at].disk.clock.raise(*cursor);
            }
            answer.known
        });
        let hub = &mut self.supers[at].hub;
        hub.with_peers(|federation| federation.on_pulled(node, known.as_deref()));
        self.drain(at);
    }

    pub(super) fn store(
        &mut self,
        number: usize,
        at: Cursor,
        manifest: &Arc<Verified>,
        head: &Arc<SignedHead>,
    ) {
        let node = &mut self.supers[number];
        let news = node.take_in(at, manifest, head);
        node.hub.on_stored(at, news.then_some(&**manifest));
    }
}
