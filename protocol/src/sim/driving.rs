//! What a daemon does around a super node's state machines: it lets time pass, and carries out what they want done.

use std::sync::Arc;

use super::hosts::{Host, Told};
use super::world::{Event, TICK, World};
use crate::hub::{Effect, GATHER_MS};
use crate::id::NodeId;
use crate::{coordinator, federation};

impl World<'_> {
    pub(super) fn on_super_tick(&mut self, number: usize, life: u64) {
        let now_ms = self.now_ms();
        let node = &mut self.supers[number];
        if node.life != life || !node.up {
            return;
        }
        node.hub.with_hosts(|coordinator| coordinator.on_tick(now_ms));
        node.hub.with_peers(|federation| federation.on_tick(now_ms));
        self.drain(number);
        self.after(TICK, Event::SuperTick(number, life));
    }

    pub(super) fn on_super_wake(&mut self, number: usize, life: u64) {
        let node = &mut self.supers[number];
        if node.life == life && node.up {
            node.hub.on_wake();
            self.drain(number);
        }
    }

    /// Does what a super node's state machines want done.
    pub(super) fn drain(&mut self, number: usize) {
        while let Some(effect) = self.supers[number].hub.poll_effect() {
            match effect {
                Effect::Host(effect) => self.tell_host(number, &effect),
                Effect::Peer(effect) => self.do_for_peer(number, effect),
                Effect::Wake => {
                    let life = self.supers[number].life;
                    self.after(GATHER_MS * 1_000, Event::SuperWake(number, life));
                }
            }
        }
    }

    fn tell_host(&mut self, number: usize, effect: &coordinator::Effect) {
        use coordinator::Effect as E;
        let live = |function| {
            let live = self.supers[number].disk.live.get(function);
            live.map(|(manifest, _)| Arc::clone(manifest))
        };
        let (node, told) = match effect {
            E::Assign(node, function) => (node, live(function).map(Told::Assign)),
            E::Notify(node, function) => (node, live(function).map(Told::Changed)),
            E::Release(node, function) => (node, Some(Told::Release(*function))),
            E::Synced(node) => (node, Some(Told::Synced)),
            E::Lost(node) => return self.close_session(number, *node),
        };
        let (Some(told), Some(&host)) = (told, self.host_numbers.get(node)) else {
            return;
        };
        let Host {
            site, session, place, ..
        } = self.hosts[host];
        if site != Some(number) || !self.network.is_open_both_ways(number, place) {
            return;
        }
        self.measured.to_hosts += 1;
        let arrival = self.network.arrival(self.now, number, place);
        self.at(arrival, Event::ToHost(host, session, told));
    }

    /// A super node closes the connection of a host that it has lost.
    fn close_session(&mut self, number: usize, node: NodeId) {
        let host = self.host_numbers[&node];
        let Host {
            site, session, place, ..
        } = self.hosts[host];
        if site == Some(number) && self.network.is_open_both_ways(number, place) {
            let delay = self.network.latency(number, place);
            self.after(delay, Event::SessionLost(host, session));
        }
    }

    fn do_for_peer(&mut self, number: usize, effect: federation::Effect) {
        use federation::Effect as E;
        match effect {
            E::Dial(node, _) => self.dial(number, node),
            E::Send(node, message) => self.send_peer(number, node, message),
            E::Pull(node) => self.pull(number, node),
            E::Close(node, _) => {
                if let Some(&peer) = self.super_numbers.get(&node) {
                    self.break_link(number, peer);
                    self.notice(number, peer);
                }
            }
            E::Keep(record) => {
                let verified = self.verified(&record);
                self.supers[number].keep(&verified);
            }
            E::Joined(_) | E::Left(_) => {}
        }
    }
}
