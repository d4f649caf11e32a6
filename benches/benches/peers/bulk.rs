//! A large body through the relay and back, against bare quinn through a naive two-hop stream copy.
//!
//! The function answers with its input. The naive relay ends both QUIC connections, reads what it passes on
//! and copies streams, with one decryption and one encryption on each hop; Orb's passes packets on.

use std::time::Instant;

use anyhow::{Result, ensure};
use bytes::Bytes;
use orb_benches::baseline::{client, connect, request};
use orb_benches::caller::Caller;
use orb_benches::network::Network;
use orb_benches::process::Server;
use orb_benches::race::Race;
use tokio::runtime::Runtime;

/// Bytes each way: as much as the default limits take.
const BODY_BYTES: usize = 8 << 20;

/// Writes what it reads.
const ECHO: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 2)
    (func (export "_start")
        (loop $more
            (i32.store (i32.const 0) (i32.const 1024))
            (i32.store (i32.const 4) (i32.const 65536))
            (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
            (if (i32.load (i32.const 8)) (then
                (i32.store (i32.const 4) (i32.load (i32.const 8)))
                (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
                (br $more))))))"#;

pub(crate) fn measure(runtime: &Runtime, short: bool) -> Result<()> {
    let echo = Server::start("echo", "256")?;
    let relay = Server::start("two-hop", &echo.address.to_string())?;
    let network = Network::start(1)?;
    let toml = b"schema = 1\nreplicas = 1\nname = \"echo\"\nwasm = \"echo.wasm\"\n";
    network.deploy(
        "echo",
        &[("orb.toml", toml), ("echo.wasm", &wat::parse_str(ECHO)?)],
    )?;
    let (_endpoint, two_hop, caller) = runtime.block_on(async {
        let endpoint = client()?;
        let two_hop = connect(&endpoint, relay.address).await?;
        let caller = Caller::connect(&network, "echo").await?;
        anyhow::Ok((endpoint, two_hop, caller))
    })?;
    let body = Bytes::from_iter((0..BODY_BYTES).map(|at| (at % 251) as u8));
    Race::new("body of 8 MiB through the relay and back", short)
        .moving(2 * BODY_BYTES as u64)
        .baseline("quinn echo, naive two hops", |calls| {
            let began = Instant::now();
            for _ in 0..calls {
                let back = runtime.block_on(request(&two_hop, &body, BODY_BYTES))?;
                ensure!(back == body, "another body came back");
            }
            Ok(began.elapsed())
        })
        .contender("orb, relayed, a command that echoes", |calls| {
            let began = Instant::now();
            for _ in 0..calls {
                let back = runtime.block_on(caller.call(&body))?;
                ensure!(back == body, "another body came back");
            }
            Ok(began.elapsed())
        })
        .run()
}
