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

#[cfg(test)]
mod tests {
    use super::*;

    /// Renders an error at the first `‸` of the source, which is taken out.
    fn rendered(marked: &str) -> String {
        let before = marked.split('‸').next().unwrap_or("");
        let line = before.matches('\n').count() + 1;
        let last = before.rsplit('\n').next().unwrap_or("");
        let error = SyntaxError {
            message: "unexpected token".to_owned(),
            file: "index.js".to_owned(),
            line: line as u32,
            column: last.encode_utf16().count() as u32 + 1,
        };
        render(&marked.replace('‸', ""), &error)
    }

    #[test]
    fn shows_the_line_and_a_caret_under_the_column() {
        insta::assert_snapshot!(rendered("let a = 1;\nconst x = (1 + ‸;\n"), @r"
        index.js:2:16: unexpected token
          2 | const x = (1 + ;
            |                ^
        ");
    }

    #[test]
    fn a_tab_is_as_wide_under_the_line_as_in_it() {
        insta::assert_snapshot!(rendered("\t\tif\t(‸"), @r"
        index.js:1:7: unexpected token
          1 |         if    (
            |                ^
        ");
    }

    #[test]
    fn wide_and_combined_characters_keep_the_caret_in_place() {
        insta::assert_snapshot!(rendered("const s = '語🎉e\u{301}' ‸const;"), @r"
        index.js:1:19: unexpected token
          1 | const s = '語🎉é' const;
            |                   ^
        ");
    }

    #[test]
    fn a_long_line_is_cut_around_the_error() {
        let marked = format!("{}‸)){}", "var a=1;".repeat(50), "var b=2;".repeat(50));
        insta::assert_snapshot!(rendered(&marked), @r"
        index.js:1:401: unexpected token
          1 | …a=1;var a=1;var a=1;var a=1;var a=1;var a=1;var a=1;var a=1;))var b=2;var b=2;var b=2;var b=2;…
            |                                                              ^
        ");
    }

    #[test]
    fn an_error_at_the_end_of_a_file_points_behind_its_last_character() {
        insta::assert_snapshot!(rendered("f(\r\n{‸"), @r"
        index.js:2:2: unexpected token
          2 | {
            |  ^
        ");
    }

    #[test]
    fn an_error_without_a_place_is_one_line() {
        let error = SyntaxError {
            message: "no place".to_owned(),
            file: "index.js".to_owned(),
            line: 0,
            column: 0,
        };
        assert_eq!(render("x", &error), "index.js: no place");
        let behind = SyntaxError {
            line: 9,
            column: 1,
            ..error
        };
        assert_eq!(render("x", &behind), "index.js:9:1: no place");
    }
}
