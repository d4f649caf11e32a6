//! Guests in the WebAssembly text format: WASI preview 1 commands that do one thing each.

/// Answers with its input.
pub fn echo() -> Vec<u8> {
    let echo = r#"
        (loop $more
            (i32.store (i32.const 0) (i32.const 1024))
            (i32.store (i32.const 4) (i32.const 65536))
            (call $check (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
            (if (i32.load (i32.const 8)) (then
                (call $write (i32.const 1) (i32.const 1024) (i32.load (i32.const 8)))
                (br $more))))"#;
    command(echo)
}

/// Sleeps for so long, in milliseconds, and then answers with a text. Takes no fuel to speak of.
pub fn sleep_then_say(sleep_ms: u64, text: &str) -> Vec<u8> {
    command(&format!(
        "(call $sleep (i64.const {})) {}",
        sleep_ms * 1_000_000,
        write(1, text)
    ))
}

/// Answers with a text.
pub fn say(text: &str) -> Vec<u8> {
    command(&write(1, text))
}

/// Writes a text to its stderr and ends with an exit code.
pub fn exit(code: u32, text: &str) -> Vec<u8> {
    command(&format!(
        "{} (call $proc_exit (i32.const {code}))",
        write(2, text)
    ))
}

/// Runs into code that must not be reached.
pub fn trap() -> Vec<u8> {
    command("unreachable")
}

/// Imports a function that nobody offers.
pub fn import(module: &str, function: &str) -> Vec<u8> {
    assemble(&format!(
        r#"(module (import "{module}" "{function}" (func)) (memory (export "memory") 1) (func (export "_start")))"#
    ))
}

/// The same module, made longer by so many bytes, which cannot be compressed and are never run.
///
/// # Panics
/// If the system has no randomness.
pub fn padded(mut module: Vec<u8>, bytes: usize) -> Vec<u8> {
    let mut section = vec![7];
    section.extend(b"padding");
    let from = section.len();
    section.resize(from + bytes, 0);
    getrandom::fill(&mut section[from..]).expect("the system has randomness");
    module.push(0);
    module.extend(leb128(section.len()));
    module.extend(section);
    module
}

fn leb128(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// The instructions that write a text to a file descriptor: its bytes one by one, then the call.
fn write(descriptor: u32, text: &str) -> String {
    let stores: String = text
        .bytes()
        .enumerate()
        .map(|(i, byte)| format!("(i32.store8 (i32.const {}) (i32.const {byte}))", 1024 + i))
        .collect();
    format!(
        "{stores} (call $write (i32.const {descriptor}) (i32.const 1024) (i32.const {}))",
        text.len()
    )
}

/// A command whose `_start` is `body`. Memory below 1,024 is for the helpers' arguments.
fn command(body: &str) -> Vec<u8> {
    assemble(&format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_read"
                (func $fd_read (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_write"
                (func $fd_write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "poll_oneoff"
                (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
            (memory (export "memory") 2)
            (func $check (param $errno i32)
                (if (local.get $errno) (then unreachable)))
            (func $write (param $descriptor i32) (param $from i32) (param $len i32)
                (loop $more
                    (i32.store (i32.const 16) (local.get $from))
                    (i32.store (i32.const 20) (local.get $len))
                    (call $check (call $fd_write
                        (local.get $descriptor) (i32.const 16) (i32.const 1) (i32.const 24)))
                    (local.set $from (i32.add (local.get $from) (i32.load (i32.const 24))))
                    (local.set $len (i32.sub (local.get $len) (i32.load (i32.const 24))))
                    (br_if $more (local.get $len))))
            (func $sleep (param $nanoseconds i64)
                ;; One subscription to the monotonic clock at 64, its event at 128, their number at 192.
                (i32.store (i32.const 80) (i32.const 1))
                (i64.store (i32.const 88) (local.get $nanoseconds))
                (call $check (call $poll_oneoff
                    (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 192))))
            (func (export "_start") {body}))"#
    ))
}

/// A module with this inside.
pub fn module(fields: &str) -> Vec<u8> {
    assemble(&format!("(module {fields})"))
}

fn assemble(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("the guests of this file are well-formed")
}
