//! Endpoints over loopback.
#![expect(clippy::unwrap_used, reason = "a test panics on surprise")]

mod connect;
mod proxy;
mod relay;
mod stream;

use std::net::{Ipv4Addr, SocketAddr};

use super::*;
use crate::key::NodeKey;

pub(super) const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

pub(super) fn config(seed: u8) -> EndpointConfig {
    EndpointConfig::new(NodeKey::from_seed([seed; 32]), LOOPBACK)
}

pub(super) fn endpoint(seed: u8) -> Endpoint {
    Endpoint::bind(config(seed)).unwrap()
}

pub(super) fn addr(endpoint: &Endpoint) -> NodeAddr {
    NodeAddr {
        id: endpoint.node_id(),
        addr: endpoint.local_addr().unwrap(),
    }
}

/// Ends a test of both address families where there is only one, which must be true.
pub(super) fn assert_no_ipv6() {
    let any = (std::net::Ipv6Addr::UNSPECIFIED, 0);
    assert!(std::net::UdpSocket::bind(any).is_err(), "there is IPv6 here");
    eprintln!("not tested: this machine has no IPv6");
}

/// Both ends of a direct connection, the dialler's first.
pub(super) async fn pair(from: &Endpoint, to: &Endpoint) -> (Connection, Connection) {
    let (dialled, accepted) = tokio::join!(from.connect(addr(to)), accept(to));
    (dialled.unwrap(), accepted)
}

pub(super) async fn accept(endpoint: &Endpoint) -> Connection {
    endpoint.accept().await.unwrap().handshake().await.unwrap()
}
