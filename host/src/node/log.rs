//! What functions write to their logs: `logs/FUNCTION.log`, one file per function, by its short id.
//!
//! A line is the time (UTC), the request's id, and what the guest wrote. Guests are strangers, so
//! control characters are written as escapes, and everything has a bound: a line, a file (which is
//! then renamed to `FUNCTION.log.1`), all files together. One thread writes; calls never wait for
//! the disk, and what it cannot keep up with is counted and lost.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use bytes::Bytes;
use orb_protocol::id::{FunctionId, RequestId};
use tokio::sync::mpsc;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

/// The longest line, in bytes; the rest goes on in the next. Long enough for a stack trace's line or
/// a JSON document of ordinary size.
const LINE_BYTES_MAX: usize = 8 * 1024;
/// A log file that is longer is set aside, in bytes. With the one before it, some ten thousand lines
/// of every function.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// All log files together, in bytes: that of 128 talkative functions. The files that were not
/// written to for longest go first.
const TOTAL_BYTES_MAX: u64 = 256 << 20;
/// How much goes at once, as a share of the total, so that it does not begin again at once.
const TOTAL_SHARE_FREED: u64 = 8;
/// Files that are kept open: more than there are functions called at the same time.
const OPEN_MAX: usize = 64;
/// Pieces of log that wait for the disk. A piece has at most a few KiB.
const WAITING_MAX: usize = 1_024;

/// Takes the logs of all functions.
#[derive(Debug)]
pub(crate) struct FunctionLogs {
    pieces: mpsc::Sender<Piece>,
    lost: Arc<AtomicU64>,
    writer: Option<JoinHandle<()>>,
}

/// The log of one call; what is left of its last line is written when it is dropped.
#[derive(Debug)]
pub(crate) struct CallLog {
    logs: Arc<FunctionLogs>,
    function: FunctionId,
    request: RequestId,
    /// The last line, as far as it has come.
    line: Vec<u8>,
}

#[derive(Debug)]
struct Piece {
    function: FunctionId,
    request: RequestId,
    lines: Vec<u8>,
}

impl FunctionLogs {
    /// Writes into `folder`, which has to be there.
    ///
    /// # Errors
    /// The folder cannot be read, or no thread can be had.
    pub(crate) fn open(folder: &Path) -> io::Result<Arc<Self>> {
        let mut files = LogFiles::open(folder, FILE_BYTES_MAX, TOTAL_BYTES_MAX)?;
        let (pieces, mut waiting) = mpsc::channel::<Piece>(WAITING_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&lost);
        let writer = std::thread::Builder::new()
            .name("orb-logs".to_owned())
            .spawn(move || {
                let mut failing = false;
                while let Some(piece) = waiting.blocking_recv() {
                    let result = files.write(&piece);
                    report(&result, &mut failing, counter.swap(0, Ordering::Relaxed));
                }
            })?;
        Ok(Arc::new(Self {
            pieces,
            lost,
            writer: Some(writer),
        }))
    }

    /// The log of one call.
    pub(crate) fn begin(self: &Arc<Self>, function: FunctionId, request: RequestId) -> CallLog {
        CallLog {
            logs: Arc::clone(self),
            function,
            request,
            line: Vec::new(),
        }
    }

    fn put(&self, piece: Piece) {
        if self.pieces.try_send(piece).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for FunctionLogs {
    /// Waits until everything is written.
    fn drop(&mut self) {
        let (closed, _) = mpsc::channel(1);
        self.pieces = closed;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl CallLog {
    /// The guest wrote this, not aligned to lines.
    pub(crate) fn write(&mut self, bytes: &Bytes) {
        let mut lines = Vec::new();
        for byte in bytes {
            self.line.push(*byte);
            if *byte == b'\n' || self.line.len() >= LINE_BYTES_MAX {
                self.end_line(&mut lines);
            }
        }
        self.put(lines);
    }

    fn end_line(&mut self, lines: &mut Vec<u8>) {
        lines.append(&mut self.line);
        if lines.last() != Some(&b'\n') {
            lines.push(b'\n');
        }
    }

    fn put(&self, lines: Vec<u8>) {
        if !lines.is_empty() {
            self.logs.put(Piece {
                function: self.function,
                request: self.request,
                lines,
            });
        }
    }
}

impl Drop for CallLog {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            let mut lines = Vec::new();
            self.end_line(&mut lines);
            self.put(lines);
        }
    }
}

/// The files, with their lengths.
#[derive(Debug)]
struct LogFiles {
    folder: PathBuf,
    open: HashMap<FunctionId, LogFile>,
    file_bytes_max: u64,
    total_bytes_max: u64,
    total_bytes: u64,
}

#[derive(Debug)]
struct LogFile {
    file: File,
    len: u64,
}

impl LogFiles {
    fn open(folder: &Path, file_bytes_max: u64, total_bytes_max: u64) -> io::Result<Self> {
        let mut files = Self {
            folder: folder.to_owned(),
            open: HashMap::new(),
            file_bytes_max,
            total_bytes_max,
            total_bytes: 0,
        };
        files.total_bytes = files.by_age()?.iter().map(|(_, _, len)| len).sum();
        Ok(files)
    }

    fn write(&mut self, piece: &Piece) -> io::Result<()> {
        let text = render(piece);
        self.make_room(text.len() as u64)?;
        let most = self.file_bytes_max;
        let file = self.file(piece.function)?;
        if file.len > 0 && file.len + text.len() as u64 > most {
            self.rotate(piece.function)?;
        }
        let file = self.file(piece.function)?;
        file.file.write_all(text.as_bytes())?;
        file.len += text.len() as u64;
        self.total_bytes += text.len() as u64;
        Ok(())
    }

    fn file(&mut self, function: FunctionId) -> io::Result<&mut LogFile> {
        if !self.open.contains_key(&function) {
            if self.open.len() >= OPEN_MAX {
                self.open.clear();
            }
            let file = OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .open(self.path(function))?;
            let len = file.metadata()?.len();
            self.open.insert(function, LogFile { file, len });
        }
        Ok(self
            .open
            .get_mut(&function)
            .expect("the file was just opened, or was open"))
    }

    /// Sets the function's file aside; the one set aside before is gone.
    fn rotate(&mut self, function: FunctionId) -> io::Result<()> {
        self.open.remove(&function);
        let path = self.path(function);
        let old = path.with_extension("log.1");
        let gone = fs::metadata(&old).map_or(0, |metadata| metadata.len());
        fs::rename(&path, &old)?;
        self.total_bytes = self.total_bytes.saturating_sub(gone);
        Ok(())
    }

    fn make_room(&mut self, len: u64) -> io::Result<()> {
        if self.total_bytes + len <= self.total_bytes_max {
            return Ok(());
        }
        let target = self.total_bytes_max - self.total_bytes_max / TOTAL_SHARE_FREED;
        self.open.clear();
        let files = self.by_age()?;
        self.total_bytes = files.iter().map(|(_, _, len)| len).sum();
        for (_, path, len) in files {
            if self.total_bytes <= target {
                break;
            }
            fs::remove_file(path)?;
            self.total_bytes -= len;
        }
        Ok(())
    }

    /// All files, the one that was not written to for longest first.
    fn by_age(&self) -> io::Result<Vec<(std::time::SystemTime, PathBuf, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_file() {
                files.push((metadata.modified()?, entry.path(), metadata.len()));
            }
        }
        files.sort();
        Ok(files)
    }

    fn path(&self, function: FunctionId) -> PathBuf {
        self.folder.join(format!("{}.log", function.short()))
    }
}

/// The lines of a piece, each with its time and its request, free of control characters.
fn render(piece: &Piece) -> String {
    let mut head = String::new();
    // Into a string this cannot fail; a clock before 1970 gives a text that says so.
    let _ = SystemTime.format_time(&mut Writer::new(&mut head));
    let _ = write!(head, " {} ", piece.request);
    let mut text = String::with_capacity(piece.lines.len() + head.len());
    let lines = piece.lines.strip_suffix(b"\n").unwrap_or(&piece.lines);
    for line in lines.split(|byte| *byte == b'\n') {
        text.push_str(&head);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        for character in String::from_utf8_lossy(line).chars() {
            if character.is_control() && character != '\t' {
                text.extend(character.escape_default());
            } else {
                text.push(character);
            }
        }
        text.push('\n');
    }
    text
}

/// Tells the operator once when the logs begin to fail, and once when they work again.
fn report(result: &io::Result<()>, failing: &mut bool, lost: u64) {
    if lost > 0 {
        tracing::warn!(
            pieces = lost,
            "functions log faster than the disk writes: some of it is lost"
        );
    }
    match result {
        Err(error) if !*failing => {
            tracing::warn!(%error, "the logs of functions cannot be written");
        }
        Ok(()) if *failing => tracing::info!("the logs of functions are written again"),
        _ => {}
    }
    *failing = result.is_err();
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;

    const REQUEST: RequestId = RequestId::from_bytes([7; 16]);

    fn function(byte: u8) -> FunctionId {
        FunctionId::from_bytes([byte; 32])
    }

    fn piece(byte: u8, lines: &[u8]) -> Piece {
        Piece {
            function: function(byte),
            request: REQUEST,
            lines: lines.to_vec(),
        }
    }

    #[test]
    fn lines_come_with_time_and_request_however_they_were_cut() {
        let folder = tempfile::tempdir().unwrap();
        let logs = FunctionLogs::open(folder.path()).unwrap();
        let mut call = logs.begin(function(1), REQUEST);
        call.write(&Bytes::from_static(b"first li"));
        call.write(&Bytes::from_static(b"ne\nsecond\nthi"));
        drop(call);
        drop(logs);
        let name = format!("{}.log", function(1).short());
        let text = fs::read_to_string(folder.path().join(name)).unwrap();
        let lines: Vec<Vec<&str>> = text.lines().map(|l| l.splitn(3, ' ').collect()).collect();
        let said: Vec<&str> = lines.iter().map(|line| line[2]).collect();
        assert_eq!(said, ["first line", "second", "thi"]);
        assert_eq!(lines[0][1], REQUEST.to_string());
        assert!(lines[0][0].ends_with('Z') && lines[0][0].contains('T'), "{text}");
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        let text = render(&piece(1, b"\x1b[31mred\x07\t\xff\r\n"));
        assert!(text.ends_with(" \\u{1b}[31mred\\u{7}\t\u{fffd}\n"), "{text:?}");
    }

    #[test]
    fn a_long_line_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let logs = FunctionLogs::open(folder.path()).unwrap();
        logs.begin(function(1), REQUEST)
            .write(&vec![b'x'; LINE_BYTES_MAX + 1].into());
        drop(logs);
        let name = format!("{}.log", function(1).short());
        let text = fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn a_long_file_is_set_aside_and_one_old_one_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = LogFiles::open(folder.path(), 200, 10_000).unwrap();
        for number in 0..20 {
            files
                .write(&piece(1, format!("line {number}\n").as_bytes()))
                .unwrap();
        }
        let path = files.path(function(1));
        let (new, old) = (path.clone(), path.with_extension("log.1"));
        assert!(fs::metadata(&new).unwrap().len() <= 200);
        assert!(fs::metadata(&old).unwrap().len() <= 200);
        assert!(fs::read_to_string(&new).unwrap().contains("line 19"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        let total = fs::metadata(&new).unwrap().len() + fs::metadata(&old).unwrap().len();
        assert_eq!(files.total_bytes, total);
    }

    #[test]
    fn all_files_together_stay_within_their_bound() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = LogFiles::open(folder.path(), 1_000, 2_000).unwrap();
        for number in 0..100 {
            files.write(&piece(number, b"some words in a line\n")).unwrap();
        }
        let lens = fs::read_dir(folder.path())
            .unwrap()
            .map(|e| e.unwrap().metadata().unwrap().len());
        let total: u64 = lens.sum();
        assert!(total <= 2_000, "{total}");
        assert_eq!(files.total_bytes, total);
        // A new start counts what is there.
        assert_eq!(
            LogFiles::open(folder.path(), 1_000, 2_000).unwrap().total_bytes,
            total
        );
    }
}
