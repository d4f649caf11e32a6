//! Hosts' connections to super nodes, what both say on them, and what a host does about it.

use std::sync::Arc;

use super::hosts::{Host, Said, Told};
use super::links::IDLE_TIMEOUT;
use super::world::{Event, TICK, World};
use crate::holder;
use crate::manifest::Verified;
use crate::placement::FailureDomain;
use crate::wire::control::{BEAT_INTERVAL_MS, Beat};
use crate::wire::extension::Extensions;

impl World<'_> {
    pub(super) fn on_host_tick(&mut self, number: usize) {
        let now_ms = self.now_ms();
        self.after(TICK, Event::HostTick(number));
        let host = &mut self.hosts[number];
        if !host.online {
            return;
        }
        host.holder.on_tick(now_ms);
        self.drain_host(number);
        let beats = (self.now / TICK).is_multiple_of(BEAT_INTERVAL_MS / 1_000);
        if beats && self.hosts[number].site.is_some() {
            self.say(number, Said::Beat);
        }
    }

    /// A host tries to connect: at its own super node first, then at any.
    pub(super) fn on_connect(&mut self, number: usize) {
        let Host {
            online,
            site,
            place,
            home,
            failures,
            ..
        } = self.hosts[number];
        if !online || site.is_some() {
            return;
        }
        let target = if failures < 2 {
            home
        } else {
            self.rng.usize(0..self.supers.len())
        };
        if !self.supers[target].up || !self.network.is_open_both_ways(place, target) {
            self.hosts[number].failures += 1;
            let pause = 500_000 + self.rng.u64(0..1_000_000);
            return self.after(pause, Event::Connect(number));
        }
        let host = &mut self.hosts[number];
        host.failures = 0;
        host.site = Some(target);
        host.session += 1;
        self.say(number, Said::Register);
    }

    fn say(&mut self, number: usize, said: Said) {
        let Host {
            site, session, place, ..
        } = self.hosts[number];
        let Some(target) = site else { return };
        if !self.supers[target].up || !self.network.is_open_both_ways(place, target) {
            // Nothing is acknowledged: QUIC finds out after its idle timeout.
            return self.after(IDLE_TIMEOUT, Event::SessionLost(number, session));
        }
        self.measured.from_hosts += 1;
        let arrival = self.network.arrival(self.now, place, target);
        self.at(arrival, Event::ToSuper(number, session, said));
    }

    pub(super) fn on_said(&mut self, number: usize, session: u64, said: Said) {
        let host = &self.hosts[number];
        let Some(site) = host.site.filter(|_| host.session == session && host.online) else {
            return;
        };
        if !self.supers[site].up {
            return;
        }
        let (now_ms, node) = (self.now_ms(), host.node);
        let rtt_us = 2 * self.network.latency(host.place, site);
        let rtt_us = u32::try_from(rtt_us).unwrap_or(u32::MAX);
        let registers = matches!(said, Said::Register);
        let held = match registers {
            true => host.holder.held(),
            false => Vec::new(),
        };
        let hub = &mut self.supers[site].hub;
        if !registers && !hub.coordinator().is_here(&node) {
            // A connection that the super node does not know is reset.
            let delay = self.network.latency(site, host.place);
            return self.after(delay, Event::SessionLost(number, session));
        }
        hub.with_hosts(|c| match said {
            Said::Register => {
                let domain = FailureDomain::of(
                    &Host::offer(number).operator,
                    std::net::IpAddr::from([10, (number >> 8) as u8, number as u8, 1]),
                );
                let registered = c.on_registered(now_ms, node, Host::offer(number), domain);
                registered.expect("a super node has room for the hosts of a scenario");
                let joined = c.on_holding(now_ms, node, &held, true);
                joined.expect("a host has registered before");
            }
            Said::Beat => c.on_beat(now_ms, node, rtt_us, &beat()),
            Said::Ready(function, version) => c.on_ready(now_ms, node, function, version),
            Said::Refused(function, version, reason) => {
                c.on_refused(now_ms, node, function, version, reason);
            }
            Said::Dropped(function) => c.on_dropped(now_ms, node, function),
        });
        self.drain(site);
    }

    pub(super) fn on_told(&mut self, number: usize, session: u64, told: Told) {
        let now = self.now;
        let host = &mut self.hosts[number];
        if host.session != session || !host.online || host.site.is_none() {
            return;
        }
        match told {
            Told::Assign(manifest) => {
                self.works.on_heard(now, number, &manifest);
                host.hear_of(&manifest);
                host.holder.on_assign((*manifest).clone());
            }
            Told::Changed(manifest) => {
                self.works.on_heard(now, number, &manifest);
                host.hear_of(&manifest);
                host.holder.on_changed((*manifest).clone());
            }
            Told::Release(function) => host.holder.on_release(function),
            Told::Synced => {
                if !std::mem::replace(&mut host.synced, true) {
                    host.holder.on_synced();
                }
            }
        }
        self.drain_host(number);
    }

    pub(super) fn on_session_lost(&mut self, number: usize, session: u64) {
        let now_ms = self.now_ms();
        let host = &mut self.hosts[number];
        if host.session != session || host.site.is_none() {
            return;
        }
        let site = host.site.take();
        if std::mem::take(&mut host.synced) {
            host.holder.on_unsynced(now_ms);
        }
        let (online, node) = (host.online, host.node);
        if let Some(site) = site.filter(|site| self.supers[*site].up) {
            let hub = &mut self.supers[site].hub;
            hub.with_hosts(|coordinator| coordinator.on_closed(node));
            self.drain(site);
        }
        if online {
            self.after(500_000, Event::Connect(number));
        }
    }

    pub(super) fn on_obtained(&mut self, number: usize, manifest: &Verified) {
        let host = &mut self.hosts[number];
        if !host.online || !host.holder.wants(manifest) {
            return;
        }
        let (stored, _) = self.manifests[&manifest.hash()].clone();
        host.disk.insert(manifest.function(), stored);
        host.holder.on_obtained(manifest);
        self.measured.fetched_bytes += manifest.publish().map_or(0, |publish| publish.artifact_bytes);
        self.measured.fetches += 1;
        self.drain_host(number);
    }

    pub(super) fn drain_host(&mut self, number: usize) {
        use holder::Effect as E;
        while let Some(effect) = self.hosts[number].holder.poll_effect() {
            match effect {
                E::Obtain(manifest) => {
                    let Host {
                        site, place, home, ..
                    } = self.hosts[number];
                    let bytes = manifest.publish().map_or(0, |publish| publish.artifact_bytes);
                    let delay = self.network.transfer(site.unwrap_or(home), place, bytes);
                    self.after(delay, Event::Obtained(number, manifest));
                }
                E::Purge(function, tombstone) => {
                    let disk = &mut self.hosts[number].disk;
                    match tombstone {
                        Some(tombstone) => {
                            disk.insert(function, Arc::new(*tombstone));
                        }
                        None => {
                            disk.remove(&function);
                        }
                    }
                }
                E::RemoveArtifact(_) | E::LogEvicted(..) => {}
                E::ReportReady(function, version) => self.say(number, Said::Ready(function, version)),
                E::ReportRefused(function, version, reason) => {
                    self.say(number, Said::Refused(function, version, reason));
                }
                E::ReportDropped(function) => self.say(number, Said::Dropped(function)),
            }
        }
    }
}

fn beat() -> Beat {
    Beat {
        running: 0,
        waiting: 0,
        disk_free_bytes: 1 << 30,
        run_times_us: Vec::new(),
        failure_permille: 0,
        extensions: Extensions::none(),
    }
}
