//! Small commands, in WebAssembly's text form.

const PRELUDE: &str = r#"
    (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 2)
    (func $print (param $fd i32) (param $at i32) (param $len i32)
        (i32.store (i32.const 8) (local.get $at))
        (i32.store (i32.const 12) (local.get $len))
        (drop (call $fd_write (local.get $fd) (i32.const 8) (i32.const 1) (i32.const 4))))
    (func $input (param $at i32) (param $len i32) (result i32)
        (i32.store (i32.const 8) (local.get $at))
        (i32.store (i32.const 12) (local.get $len))
        (drop (call $fd_read (i32.const 0) (i32.const 8) (i32.const 1) (i32.const 4)))
        (i32.load (i32.const 4)))
    (func $echo (local $n i32)
        (loop $more
            (local.set $n (call $input (i32.const 4096) (i32.const 65536)))
            (if (local.get $n) (then
                (call $print (i32.const 1) (i32.const 4096) (local.get $n))
                (br $more)))))
    (func $sleep_ms (param $ms i64)
        (memory.fill (i32.const 1024) (i32.const 0) (i32.const 48))
        (i32.store (i32.const 1040) (i32.const 1))
        (i64.store (i32.const 1048) (i64.mul (local.get $ms) (i64.const 1000000)))
        (drop (call $poll_oneoff (i32.const 1024) (i32.const 2048) (i32.const 1) (i32.const 4))))
"#;

fn command(body: &str) -> Vec<u8> {
    wat::parse_str(format!(
        r#"(module {PRELUDE} (func (export "_start") {body})
            (data (i32.const 512) "a line in the log\n")
            (data (i32.const 600) "before after"))"#
    ))
    .unwrap()
}

/// Answers with its input, and logs a line.
pub(super) fn echo() -> Vec<u8> {
    command("(call $print (i32.const 2) (i32.const 512) (i32.const 18)) (call $echo)")
}

/// Answers with this text.
pub(super) fn says(text: &str) -> Vec<u8> {
    let len = text.len();
    wat::parse_str(format!(
        r#"(module {PRELUDE} (func (export "_start") (call $print (i32.const 1) (i32.const 600) (i32.const {len})))
            (data (i32.const 600) "{text}"))"#
    ))
    .unwrap()
}

/// Answers "before ", sleeps, and goes on with "after".
pub(super) fn slow(ms: u64) -> Vec<u8> {
    command(&format!(
        "(call $print (i32.const 1) (i32.const 600) (i32.const 7))
         (call $sleep_ms (i64.const {ms}))
         (call $print (i32.const 1) (i32.const 607) (i32.const 5))"
    ))
}

/// Never ends by itself.
pub(super) fn endless() -> Vec<u8> {
    command("(call $print (i32.const 1) (i32.const 600) (i32.const 7)) (loop $more (br $more))")
}

/// Answers with a mebibyte, and once more, as often as it takes.
pub(super) fn flood(mebibytes: u32) -> Vec<u8> {
    command(&format!(
        "(local $n i32)
         (loop $more
            (call $print (i32.const 1) (i32.const 0) (i32.const 65536))
            (local.set $n (i32.add (local.get $n) (i32.const 1)))
            (br_if $more (i32.lt_u (local.get $n) (i32.const {}))))",
        mebibytes * 16
    ))
}
