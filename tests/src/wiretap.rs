//! Somebody on the way between a node and its super node: sees every packet, and does with it what
//! such a person can.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a packet is held back at most, until another one overtakes it.
const HELD: Duration = Duration::from_millis(2);
/// Packets that are remembered for being sent again.
const REMEMBERED: usize = 64;
/// After so many packets an old one is sent again.
const REPLAY_EVERY: usize = 4;

/// A UDP proxy for one client at a time.
#[derive(Debug)]
pub struct Wiretap {
    /// What the client takes for the server.
    pub address: SocketAddr,
    server: SocketAddr,
    wires: Arc<Wires>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Wires {
    inside: UdpSocket,
    outside: UdpSocket,
    client: Mutex<Option<SocketAddr>>,
    seen: Mutex<Vec<Vec<u8>>>,
    scrambles: bool,
    ended: AtomicBool,
}

/// One direction's packets on their way.
#[derive(Default)]
struct Scrambler {
    held: Option<Vec<u8>>,
    old: Vec<Vec<u8>>,
    passed: usize,
}

impl Wiretap {
    /// Passes everything on as it comes.
    ///
    /// # Panics
    /// If no socket can be bound.
    pub fn listening(server: SocketAddr) -> Self {
        Self::start(server, false)
    }

    /// Passes everything on twice and out of order, and old packets again and again.
    ///
    /// # Panics
    /// If no socket can be bound.
    pub fn scrambling(server: SocketAddr) -> Self {
        Self::start(server, true)
    }

    fn start(server: SocketAddr, scrambles: bool) -> Self {
        let bind = || {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a loopback port is free");
            let timeout = socket.set_read_timeout(Some(HELD));
            timeout.expect("a socket takes a timeout");
            socket
        };
        let wires = Arc::new(Wires {
            inside: bind(),
            outside: bind(),
            client: Mutex::default(),
            seen: Mutex::default(),
            scrambles,
            ended: AtomicBool::new(false),
        });
        let address = wires.inside.local_addr().expect("it is bound");
        let (out, back) = (Arc::clone(&wires), Arc::clone(&wires));
        let threads = vec![
            std::thread::spawn(move || out.pass_out(server)),
            std::thread::spawn(move || back.pass_back()),
        ];
        Self {
            address,
            server,
            wires,
            threads,
        }
    }

    /// Sends a packet to the server as if the client had.
    ///
    /// # Panics
    /// If it cannot be sent.
    pub fn inject(&self, packet: &[u8]) {
        let sent = self.wires.outside.send_to(packet, self.server);
        sent.expect("a datagram can be sent");
    }

    /// The last packets that the client sent, oldest first.
    pub fn seen(&self) -> Vec<Vec<u8>> {
        lock(&self.wires.seen).clone()
    }
}

impl Drop for Wiretap {
    fn drop(&mut self) {
        self.wires.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // One that failed has said why.
            let _ = thread.join();
        }
    }
}

impl Wires {
    fn pass_out(&self, server: SocketAddr) {
        let heard = |from| *lock(&self.client) = Some(from);
        self.pass(&self.inside, heard, |packet| {
            remember(&mut lock(&self.seen), packet);
            let _ = self.outside.send_to(packet, server);
        });
    }

    fn pass_back(&self) {
        self.pass(
            &self.outside,
            |_| {},
            |packet| {
                if let Some(client) = *lock(&self.client) {
                    // A client that is gone is told by an error of a later call.
                    let _ = self.inside.send_to(packet, client);
                }
            },
        );
    }

    /// Receives and sends on; `heard` is told whom each packet comes from.
    fn pass(&self, from: &UdpSocket, heard: impl Fn(SocketAddr), send: impl Fn(&[u8])) {
        let mut scrambler = Scrambler::default();
        let mut buffer = vec![0; 65_536];
        while !self.ended.load(Ordering::Relaxed) {
            match from.recv_from(&mut buffer) {
                Ok((len, source)) => {
                    heard(source);
                    match self.scrambles {
                        true => scrambler
                            .take(&buffer[..len])
                            .iter()
                            .for_each(|packet| send(packet)),
                        false => send(&buffer[..len]),
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    scrambler.held.take().iter().for_each(|packet| send(packet));
                }
                // What an earlier packet met at a port that is closed by now.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(error) => panic!("the wiretap fails: {error}"),
            }
        }
    }
}

impl Scrambler {
    /// What goes out now: every other packet is held back until the next one has overtaken it, each goes
    /// twice, and now and then one from long ago goes again.
    fn take(&mut self, packet: &[u8]) -> Vec<Vec<u8>> {
        let packet = packet.to_vec();
        remember(&mut self.old, &packet);
        self.passed += 1;
        let Some(held) = self.held.take() else {
            self.held = Some(packet);
            return Vec::new();
        };
        let mut out = vec![packet.clone(), held.clone(), packet, held];
        if self.passed.is_multiple_of(REPLAY_EVERY) {
            out.extend(self.old.first().cloned());
        }
        out
    }
}

fn remember(packets: &mut Vec<Vec<u8>>, packet: &[u8]) {
    if packets.len() >= REMEMBERED {
        packets.remove(0);
    }
    packets.push(packet.to_vec());
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
