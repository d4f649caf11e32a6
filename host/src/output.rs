//! What commands print: text for people, or one JSON document on stdout for programs.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::failure::Failure;

/// Where a command's results go, and in which form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
    paint_stdout: bool,
    paint_stderr: bool,
}

/// What a text means, shown as a colour where the terminal has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// It went well.
    Good,
    /// It did not.
    Bad,
    /// Something to look at.
    Warning,
    /// The thing itself.
    Strong,
    /// What surrounds it.
    Faint,
}

impl Tone {
    fn code(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Bad => "1;31",
            Self::Warning => "33",
            Self::Strong => "1",
            Self::Faint => "2",
        }
    }
}

impl Output {
    /// Looks at what stdout and stderr are. Colours only on a terminal, and not where `NO_COLOR` is
    /// set (<https://no-color.org>).
    pub(crate) fn new(json: bool) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self {
            json,
            paint_stdout: wanted && !json && io::stdout().is_terminal(),
            paint_stderr: wanted && io::stderr().is_terminal(),
        }
    }

    /// Whether stdout is for programs.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// A text for stdout, coloured if that is a terminal.
    pub(crate) fn paint(&self, tone: Tone, text: impl Display) -> String {
        painted(self.paint_stdout, tone, text)
    }

    /// A text for stderr, coloured if that is a terminal.
    pub(crate) fn paint_err(&self, tone: Tone, text: impl Display) -> String {
        painted(self.paint_stderr, tone, text)
    }

    /// The command's result: the document for programs, or the text for people. `summary` is one
    /// line: it goes to stderr beside the document.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub(crate) fn result(&self, document: &impl Serialize, summary: &str, text: &str) -> Result<(), Failure> {
        if !self.json {
            return self.print(text);
        }
        let document = serde_json::to_string(document)
            .map_err(|error| Failure::local(format!("the result has no JSON form: {error}")))?;
        self.print(&document)?;
        self.note(summary);
        Ok(())
    }

    /// Prints a line (or several) on stdout.
    ///
    /// # Errors
    /// As [`Output::bytes`].
    pub(crate) fn print(&self, text: &str) -> Result<(), Failure> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// Writes bytes to stdout as they are. A reader that went away (`orb list | head`) is no error.
    ///
    /// # Errors
    /// When stdout cannot be written for another reason: a full disk, for one.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        self.is_read(bytes).map(drop)
    }

    /// Prints one of the lines of a command that would go on for ever. Returns whether anybody reads
    /// them still.
    ///
    /// # Errors
    /// As [`Output::bytes`].
    pub(crate) fn next_line(&self, text: &str) -> Result<bool, Failure> {
        self.is_read(format!("{text}\n").as_bytes())
    }

    /// Writes bytes to stdout. Returns whether its reader is still there.
    fn is_read(&self, bytes: &[u8]) -> Result<bool, Failure> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Failure::local(format!("cannot write to stdout: {error}"))),
        }
    }

    /// Tells a person something on stderr. If stderr is gone there is nobody to tell.
    pub(crate) fn note(&self, text: &str) {
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// Tells how a command failed: the document for programs, and a person's line (with `--json`
    /// exactly one) on stderr.
    pub(crate) fn failure(&self, failure: &Failure) {
        if failure.is_shown() {
            return;
        }
        if self.json {
            let _ = self.print(&failure.to_json());
        }
        let head = self.paint_err(Tone::Bad, "error:");
        if self.json {
            self.note(&format!("{head} {}", on_one_line(&failure.message)));
            return;
        }
        let mut lines = failure.message.lines();
        self.note(&format!("{head} {}", lines.next().unwrap_or_default()));
        lines.for_each(|line| self.note(line));
        if let Some(stack) = &failure.stack {
            stack
                .lines()
                .for_each(|line| self.note(&self.paint_err(Tone::Faint, format!("    {}", line.trim()))));
        }
        let help = self.paint_err(Tone::Strong, " help:");
        self.note(&format!("{help} {}", failure.help));
    }
}

/// A message's first line; if that is only a heading, what stands below it too.
fn on_one_line(message: &str) -> String {
    match message.split_once('\n') {
        Some((first, rest)) if first.trim_end().ends_with(':') => {
            let rest: Vec<&str> = rest.lines().map(str::trim).collect();
            format!("{first} {}", rest.join("; "))
        }
        Some((first, _)) => first.to_owned(),
        None => message.to_owned(),
    }
}

fn painted(paint: bool, tone: Tone, text: impl Display) -> String {
    if paint {
        format!("\x1b[{}m{text}\x1b[0m", tone.code())
    } else {
        text.to_string()
    }
}

/// Lines of cells, in columns as wide as their widest cell.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new<const N: usize>(headings: [&str; N]) -> Self {
        Self {
            rows: vec![headings.iter().map(ToString::to_string).collect()],
        }
    }

    /// Adds a line.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// The table as text; `output` paints its headings.
    pub(crate) fn render(&self, output: &Output) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|i| {
                self.rows
                    .iter()
                    .filter_map(|row| row.get(i))
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let lines = self.rows.iter().map(|row| {
            let cells = row
                .iter()
                .zip(&widths)
                .map(|(cell, &width)| format!("{cell:width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        });
        let mut lines: Vec<String> = lines.collect();
        if let Some(head) = lines.first_mut() {
            *head = output.paint(Tone::Faint, &*head);
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Output {
        Output {
            json: false,
            paint_stdout: false,
            paint_stderr: true,
        }
    }

    #[test]
    fn colours_only_where_there_is_a_terminal() {
        assert_eq!(plain().paint(Tone::Good, "ok"), "ok");
        assert_eq!(plain().paint_err(Tone::Good, "ok"), "\x1b[32mok\x1b[0m");
    }

    #[test]
    fn a_heading_takes_what_it_announces_on_its_line() {
        assert_eq!(
            on_one_line("none can be used:\n  a: silent\n  b: silent"),
            "none can be used: a: silent; b: silent"
        );
        assert_eq!(
            on_one_line("index.js:2:1: what?\n  2 | )\n    | ^"),
            "index.js:2:1: what?"
        );
        assert_eq!(on_one_line("plain"), "plain");
    }

    #[test]
    fn a_table_has_columns() {
        let mut table = Table::new(["NAME", "REVISION"]);
        table.row(["a".to_owned(), "1".to_owned()]);
        table.row(["longer".to_owned(), "12".to_owned()]);
        assert_eq!(table.render(&plain()), "NAME    REVISION\na       1\nlonger  12");
    }
}
