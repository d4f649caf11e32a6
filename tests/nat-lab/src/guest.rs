//! Functions that answer with a text.

use anyhow::Result;

/// A WASI preview 1 command that answers with a text. It is longer by so many bytes that are never run
/// and cannot be compressed: it is on its way for a while then.
pub(crate) fn say(text: &str, padding: usize) -> Result<Vec<u8>> {
    let mut module = wat::parse_str(format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write"
                (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 64) {text:?})
            (func (export "_start")
                (i32.store (i32.const 0) (i32.const 64))
                (i32.store (i32.const 4) (i32.const {}))
                (if (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16))
                    (then unreachable))))"#,
        text.len()
    ))?;
    if padding > 0 {
        let mut section = b"\x07padding".to_vec();
        let mut state = text.len() as u32 | 1;
        section.extend((0..padding).map(|_| {
            // Xorshift (Marsaglia 2003): the same bytes for the same text.
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        }));
        module.push(0);
        module.extend(leb128(section.len()));
        module.extend(section);
    }
    Ok(module)
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
