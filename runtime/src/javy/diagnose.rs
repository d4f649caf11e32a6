//! A syntax error as a person wants to see it: where, what, the line, a caret.

use super::abi::SyntaxError;
use std::fmt::Write;

/// Columns of the source line that are shown. A longer line (minified code has lines of
/// megabytes) is cut around the error.
const LINE_WIDTH_MAX: usize = 96;

/// Columns shown before the error when the line is cut there.
const LEAD_WIDTH: usize = 60;

/// How wide a tab is shown.
const TAB: &str = "    ";

/// Renders `error` with the line of `source` that it is in:
///
/// ```text
/// index.js:2:17: unexpected token in expression: ';'
///   2 | const x = (1 + ;
///     |                ^
/// ```
///
/// Only the first line if the error has no position in the source. No newline at the end.
pub fn render(source: &str, error: &SyntaxError) -> String {
    let SyntaxError {
        message,
        file,
        line,
        column,
    } = error;
    if *line == 0 {
        return format!("{file}: {message}");
    }
    let head = format!("{file}:{line}:{column}: {message}");
    let Some(text) = source.split('\n').nth(*line as usize - 1) else {
        return head;
    };
    let text = text.strip_suffix('\r').unwrap_or(text);
    let (shown, indent) = excerpt(text, *column as usize);
    let gutter = " ".repeat(line.to_string().len());
    format!("{head}\n  {line} | {shown}\n  {gutter} | {}^", " ".repeat(indent))
}

/// What is shown of a line, and how many columns lie before the caret.
fn excerpt(line: &str, column: usize) -> (String, usize) {
    let at = byte_offset(line, column);
    let (before, after) = (expand(&line[..at]), expand(&line[at..]));
    let (before, indent) = match width(&before) {
        all if all + width(&after) <= LINE_WIDTH_MAX || all <= LEAD_WIDTH => (before, all),
        _ => {
            let tail = take_width(before.chars().rev(), LEAD_WIDTH);
            let tail: String = tail.chars().rev().collect();
            let indent = width(&tail) + 1;
            (format!("…{tail}"), indent)
        }
    };
    let room = LINE_WIDTH_MAX.saturating_sub(indent);
    let mut shown = before;
    if width(&after) <= room {
        shown.push_str(&after);
    } else {
        let _ = write!(shown, "{}…", take_width(after.chars(), room - 1));
    }
    (shown, indent)
}

/// Where the character at a column (from 1, in UTF-16 code units) begins; the line's end for
/// a column behind it.
fn byte_offset(line: &str, column: usize) -> usize {
    let mut units = 1;
    for (at, c) in line.char_indices() {
        if units >= column {
            return at;
        }
        units += c.len_utf16();
    }
    line.len()
}

/// Tabs at a fixed width, control characters (which could drive a terminal) as a mark.
fn expand(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => shown.push_str(TAB),
            c if c.is_control() => shown.push(char::REPLACEMENT_CHARACTER),
            c => shown.push(c),
        }
    }
    shown
}

fn take_width(chars: impl Iterator<Item = char>, columns: usize) -> String {
    let mut left = columns;
    chars
        .take_while(|&c| {
            let fits = char_width(c) <= left;
            left = left.saturating_sub(char_width(c));
            fits
        })
        .collect()
}

fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

/// Columns that a terminal gives a character: the common ranges of Unicode's East Asian Width
/// (UAX 11), combining marks and joiners. Elsewhere a caret may stand a little off.
fn char_width(c: char) -> usize {
    match u32::from(c) {
        0x0300..=0x036f | 0x200b..=0x200f | 0x20d0..=0x20ff | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f
        | 0x2e80..=0x303e
        | 0x3041..=0x33ff
        | 0x3400..=0x4dbf
        | 0x4e00..=0x9fff
        | 0xa000..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe4f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1f64f
        | 0x1f900..=0x1f9ff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}
