//! Writes the seeds `tests/fuzz/corpus/NAME/seed-*`: one good input of every sort, from which the
//! fuzzer goes on. To be run again when a format changes:
//! `cargo run --release -p orb-decoders --example seeds`.

#![expect(clippy::unwrap_used, reason = "it ends when something is wrong")]

use std::fs;
use std::path::Path;

use orb_decoders::{entry, reader_of};
use orb_protocol::wire::codec;
use orb_protocol::wire::extension::Extensions;
use orb_protocol::wire::tagged::Tagged;
use orb_runtime::javy::{emit, engine_hash};

#[path = "../../../protocol/tests/wire/samples.rs"]
#[expect(dead_code, reason = "snapshots need more of it")]
mod samples;

fn main() {
    messages();
    frames();
    relay();
    modules();
    texts();
}

fn seed(decoder: &str, name: &str, bytes: &[u8]) {
    // It has to be a good one.
    entry(decoder)(bytes);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(decoder);
    fs::create_dir_all(&folder).unwrap();
    let name = name.to_lowercase().replace(' ', "-");
    fs::write(folder.join(format!("seed-{name}")), bytes).unwrap();
}

fn messages() {
    for sample in samples::all() {
        let name = sample.name;
        let kind = name.split(' ').next().unwrap();
        match (kind, reader_of(kind)) {
            (_, Some((decoder, which))) => seed(decoder, name, &[&[which][..], &sample.bytes].concat()),
            ("Manifest" | "SignedManifest", _) => seed("manifest", name, &sample.bytes),
            ("SignedHead", _) => seed("head", name, &sample.bytes),
            (kind, None) => inside_another(kind, &sample.bytes),
        }
    }
    let (_, which) = reader_of("Extensions").unwrap();
    let extensions = Extensions::none().with(7, vec![1, 2, 3]).with(8, Vec::new());
    seed(
        "extension",
        "two",
        &[&[which][..], &codec::encode(&extensions)].concat(),
    );
}

/// A variant of one of the control streams' enums.
fn inside_another(kind: &str, payload: &[u8]) {
    let host = ["Holding", "Beat", "Ready", "Refused", "Dropped", "Draining"];
    let upper = ["Assign", "Release", "Changed", "Synced"];
    for (message, variants) in [("HostMessage", &host[..]), ("SuperMessage", &upper)] {
        let Some(at) = variants.iter().position(|variant| *variant == kind) else {
            continue;
        };
        let tagged = Tagged {
            tag: u16::try_from(at + 1).unwrap(),
            payload: payload.to_vec(),
        };
        let (decoder, which) = reader_of(message).unwrap();
        seed(decoder, kind, &[&[which][..], &codec::encode(&tagged)].concat());
    }
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_le_bytes()[..], bytes].concat()
}

fn frames() {
    let request = samples::all()
        .into_iter()
        .find(|sample| sample.name == "Request")
        .unwrap();
    let two = [framed(&request.bytes), framed(&request.bytes)].concat();
    seed("frames", "messages", &[&[0][..], &two].concat());
    let body = [framed(b"one"), framed(b"and two"), framed(b"")].concat();
    seed("frames", "body", &[&[1][..], &body].concat());
}

fn relay() {
    let token = orb_protocol::relay::RelayToken::new(0x0102_0304_0506_0708);
    let header = orb_protocol::relay::RelayHeader::encode(token);
    seed("relay_header", "packet", &[&header[..], b"\x40packet"].concat());
    seed("relay_header", "quic", b"\xc0\0\0\0\x01packet");
    // Two links up, a session, packets both ways, a move, the end.
    let life = [
        [0, 1, 1],
        [0, 2, 2],
        [3, 0, 2],
        [4, 0, 1],
        [5, 1, 2],
        [2, 0, 5],
        [4, 0, 5],
        [6, 255, 255],
        [1, 0, 0],
    ];
    seed("relay_table", "life", &life.concat());
}

fn modules() {
    let command = r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (table 2 funcref)
        (global $g (mut i32) (i32.const 0))
        (func $f (param i32) (result i32) (i32.add (local.get 0) (global.get $g)))
        (elem (i32.const 0) func $f)
        (data (i32.const 8) "text")
        (func (export "_start")
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 4)))
            (block $b (loop $l (br_if $b (call $f (i32.const 1))) (br $l)))))"#;
    let command = wat::parse_str(command).unwrap();
    seed("admission", "command", &command);
    seed("admission", "command without its head", &command[8..]);
    seed("emitter", "plain", &[&[0, 0][..], b"bytecode"].concat());
    seed(
        "emitter",
        "changed",
        &[&[1, 9, 0, 1, 1][..], b"bytecode"].concat(),
    );
    let artifact = emit(b"\0bytecode", &engine_hash());
    seed("emitter", "artifact", &artifact);
    seed("admission", "artifact", &artifact);
}

fn texts() {
    let id = samples::node();
    seed("text", "id", id.to_string().as_bytes());
    seed("text", "name", b"a.good-name_1");
    seed(
        "text",
        "address",
        format!("{id}@relay.example.org:4433").as_bytes(),
    );
    seed(
        "text",
        "address six",
        format!("{id}@[2001:db8::1]:4433").as_bytes(),
    );
    let owner = samples::owner().id();
    seed(
        "project",
        "short",
        b"schema = 1\nname = \"hello\"\nmain = \"index.js\"\n",
    );
    let long = format!(
        "schema = 1\nname = \"sum\"\nwasm = \"target/sum.wasm\"\ncontent_type = \"text/plain\"\n\
         idempotent = true\nvisibility = [\"{owner}\"]\nreplicas = 5\ncapabilities = []\n\
         [build]\ncommand = \"make\"\n[limits]\nfuel = 1_000\nmemory_bytes = 1_048_576\ntime_ms = 5\n\
         input_bytes = 0\noutput_bytes = 1\nlog_bytes = 0\n"
    );
    seed("project", "long", long.as_bytes());
    seed(
        "project",
        "public",
        b"schema = 1\nname = 'a'\nmain = \"\"\"b.js\"\"\"\nvisibility = \"public\" # all\n",
    );
}
