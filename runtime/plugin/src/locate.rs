//! Where a syntax error is.
//!
//! QuickJS tells the line, but its column is that of some token that it came back to before.
//! A parser that reads from front to back fails in the same way on any beginning of the
//! source that holds the offending token. The shortest such beginning ends with that token.

use crate::compile::evaluate;
use crate::report::Report;
use javy::quickjs::Ctx;
use std::ffi::CStr;

/// Longer sources are not searched: twenty more compilations would be felt.
const SOURCE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The byte offset of the token that `error` is about.
pub(crate) fn locate(ctx: &Ctx<'_>, name: &CStr, source: &[u8], error: &Report) -> usize {
    let end = source.trim_ascii_end().len();
    if error.message.ends_with(": ''") || error.message.contains("end of input") {
        return end;
    }
    if source.len() > SOURCE_BYTES_MAX {
        return line_start(source, error.line.unwrap_or(1));
    }
    // Beginnings of `fails` bytes fail like the whole, those of `other` bytes do not.
    let (mut other, mut fails) = (0, source.len());
    while fails - other > 1 {
        let middle = other + (fails - other) / 2;
        if fails_alike(ctx, name, &source[..middle], error) {
            fails = middle;
        } else {
            other = middle;
        }
    }
    token_start(&source[..fails.min(end)], &error.message)
}

fn fails_alike(ctx: &Ctx<'_>, name: &CStr, source: &[u8], error: &Report) -> bool {
    let Err(exception) = evaluate(ctx, name, source) else {
        return false;
    };
    let found = Report::of(ctx, &exception, &name.to_string_lossy());
    found.message == error.message && found.line == error.line
}

fn line_start(source: &[u8], line: u32) -> usize {
    let lines = source.split(|&byte| byte == b'\n');
    lines.take(line as usize - 1).map(|line| line.len() + 1).sum()
}

/// Where the last token of `source` begins. QuickJS's message may quote it.
fn token_start(source: &[u8], message: &str) -> usize {
    if let Some((_, quoted)) = message.strip_suffix('\'').and_then(|m| m.rsplit_once('\''))
        && source.ends_with(quoted.as_bytes())
    {
        return source.len() - quoted.len();
    }
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..);
    let word = source.iter().rev().take_while(|byte| is_word(byte)).count();
    source.len().saturating_sub(word.max(1))
}
