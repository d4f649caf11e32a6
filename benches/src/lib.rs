//! What the benches share: baselines as source beside what they are compared with, and the real
//! daemons in processes of their own.
//!
//! - [`baseline`]: bare quinn (same crypto, same runtime flavour, a stream per request, same payload), direct
//!   and through a naive two-hop stream copy.
//! - [`network`]: a super node and hosts as real processes, and a client to call them.
//! - [`caller`]: a client of that network that calls one function.
//! - [`bare`]: wasmtime without Orb, and [`run`]: a call in Orb's sandbox.
//! - [`race`]: contenders that take turns. [`script`]: Node, as one of them.
//! - [`process`]: roles (a bench's own binary started again as a server), pinning, memory figures.

use bytes::Bytes;
use orb_protocol::client::Draft;
use orb_protocol::id::ArtifactHash;
use orb_protocol::manifest::{Kind, Publish, Visibility};
use orb_protocol::wire::extension::Extensions;
use orb_runtime::{Artifact, CallContext, Event, Input, Job, Limits, Sandbox};

pub mod bare;
pub mod baseline;
pub mod caller;
pub mod idle;
pub mod network;
pub mod process;
pub mod race;
pub mod script;

/// The JavaScript function that is called everywhere: parse JSON, small work, JSON out.
pub const JAVASCRIPT: &str =
    "export default (input) => ({ hello: input.name, sum: input.numbers.reduce((a, b) => a + b) })";
/// What it is called with.
pub const INPUT: &[u8] = br#"{"name":"world","numbers":[1,2,3]}"#;

/// A WASI command that does nothing: one page of memory, an empty `_start`.
pub const EMPTY_COMMAND: &[u8] = b"\0asm\x01\0\0\0\
    \x01\x04\x01\x60\0\0\
    \x03\x02\x01\0\
    \x05\x03\x01\0\x01\
    \x07\x13\x02\x06memory\x02\0\x06_start\0\0\
    \x0a\x04\x01\x02\0\x0b";

/// A command of this name to be deployed, under the limits that functions have by default.
///
/// # Errors
/// It is no name.
pub fn command(name: &str, replicas: u16) -> anyhow::Result<Draft> {
    Ok(Draft {
        name: name.parse()?,
        publish: Publish {
            // Filled in from the artifact.
            artifact: ArtifactHash::of(b""),
            artifact_bytes: 0,
            kind: Kind::Command,
            engine: None,
            limits: orb_protocol::manifest::Limits::default(),
            capabilities: Vec::new(),
            visibility: Visibility::default(),
            idempotent: true,
            replicas,
            content_type: "application/json".to_owned(),
            extensions: Extensions::none(),
        },
        message: String::new(),
    })
}

/// A call of an artifact with [`INPUT`], under the limits that functions have by default.
pub fn job(artifact: &Artifact) -> Job {
    Job {
        artifact: artifact.clone(),
        context: CallContext {
            function: "bench".to_owned(),
            revision: 1,
            ..CallContext::default()
        },
        limits: Limits::default(),
        input: Input::Whole(Bytes::from_static(INPUT)),
    }
}

/// Makes such a call in the sandbox; its answer.
///
/// # Errors
/// The guest failed.
pub async fn run(sandbox: &Sandbox, artifact: &Artifact) -> anyhow::Result<Bytes> {
    let mut output = Bytes::new();
    let outcome = sandbox.run(job(artifact), |event| {
        if let Event::Output(bytes) = event {
            output = bytes;
        }
    });
    outcome.await.result?;
    Ok(output)
}

/// Builds a JavaScript artifact as `orb build` does.
///
/// # Errors
/// A mistake in the source.
pub async fn build_javascript(sandbox: &Sandbox, source: &str) -> anyhow::Result<Vec<u8>> {
    let compiled = sandbox.compile_javascript(source.as_bytes(), "index.js").await?;
    Ok(orb_runtime::javy::emit(
        &compiled.bytecode,
        &orb_runtime::javy::engine_hash(),
    ))
}
