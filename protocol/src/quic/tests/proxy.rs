//! A UDP proxy for one client: a router whose cable can be cut and whose port can change.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;

use super::*;

pub(super) struct Proxy {
    /// What the client takes for the server.
    pub(super) addr: SocketAddr,
    inside: Arc<UdpSocket>,
    outside: Arc<Mutex<Arc<UdpSocket>>>,
    client: Arc<Mutex<Option<SocketAddr>>>,
    cut: Arc<AtomicBool>,
    server: SocketAddr,
}

impl Proxy {
    pub(super) async fn start(server: SocketAddr) -> Self {
        let inside = Arc::new(UdpSocket::bind(LOOPBACK).await.unwrap());
        let outside = Arc::new(UdpSocket::bind(LOOPBACK).await.unwrap());
        let proxy = Self {
            addr: inside.local_addr().unwrap(),
            inside,
            outside: Arc::new(Mutex::new(outside)),
            client: Arc::default(),
            cut: Arc::default(),
            server,
        };
        proxy.pass_out();
        proxy.pass_in();
        proxy
    }

    /// From now on nothing passes.
    pub(super) fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
    }

    /// Everything passes again.
    pub(super) fn mend(&self) {
        self.cut.store(false, Ordering::SeqCst);
    }

    /// From now on the client's packets come from another port, and answers to the old one are lost.
    pub(super) async fn move_port(&self) {
        let outside = Arc::new(UdpSocket::bind(LOOPBACK).await.unwrap());
        *self.outside.lock().unwrap() = outside;
        self.pass_in();
    }

    fn pass_out(&self) {
        let (inside, outside) = (Arc::clone(&self.inside), Arc::clone(&self.outside));
        let (client, cut, server) = (Arc::clone(&self.client), Arc::clone(&self.cut), self.server);
        tokio::spawn(async move {
            let mut packet = vec![0; 65_536];
            loop {
                let (len, from) = inside.recv_from(&mut packet).await.unwrap();
                *client.lock().unwrap() = Some(from);
                let outside = Arc::clone(&outside.lock().unwrap());
                if !cut.load(Ordering::SeqCst) {
                    outside.send_to(&packet[..len], server).await.unwrap();
                }
            }
        });
    }

    fn pass_in(&self) {
        let (inside, current) = (Arc::clone(&self.inside), Arc::clone(&self.outside));
        let (client, cut) = (Arc::clone(&self.client), Arc::clone(&self.cut));
        let outside = Arc::clone(&current.lock().unwrap());
        tokio::spawn(async move {
            let mut packet = vec![0; 65_536];
            loop {
                let len = outside.recv(&mut packet).await.unwrap();
                let to = *client.lock().unwrap();
                let open = Arc::ptr_eq(&outside, &current.lock().unwrap());
                if let Some(to) = to.filter(|_| open && !cut.load(Ordering::SeqCst)) {
                    inside.send_to(&packet[..len], to).await.unwrap();
                }
            }
        });
    }
}
