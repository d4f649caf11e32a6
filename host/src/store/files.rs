//! The few file operations that durability is made of.
//!
//! All that the store writes goes through here, the database too: one place to reason about. In
//! tests every step is also told to the [`journal`](super::journal) of the folder that it changes,
//! which can refuse it, and can tell what a power cut after it might leave.

use std::fs::{self, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

#[cfg(test)]
pub(crate) use super::journal::watch;

/// Only the daemon's own user may look into its folders.
const DIR_MODE: u32 = 0o700;
/// The same for files.
const FILE_MODE: u32 = 0o600;

/// A change of a disk, or the wish that the changes so far survive a power cut.
#[derive(Debug)]
#[cfg_attr(not(test), expect(dead_code, reason = "only tests look at what is done"))]
pub(crate) enum Step<'a> {
    /// A folder is made in one that is there.
    MakeDir(&'a Path),
    /// A file is made, or an older one is emptied.
    Create(&'a Path),
    /// A name becomes another one; what had that one is gone.
    Rename(&'a Path, &'a Path),
    /// A file loses its name.
    Remove(&'a Path),
    /// Bytes of a file, from an offset on.
    Write(&'a fs::File, u64, &'a [u8]),
    /// A file is cut off or extended with zeros.
    SetLen(&'a fs::File, u64),
    /// A file's bytes have to last.
    Sync(&'a fs::File),
    /// The names in a folder have to last.
    SyncDir(&'a Path),
}

/// Does a step.
#[cfg(not(test))]
pub(crate) fn watch<T>(_: Step<'_>, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    work()
}

/// An open file, for writing.
#[derive(Debug)]
pub(crate) struct File(fs::File);

impl File {
    /// Adds bytes where the last ones ended.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let at = self.0.stream_position()?;
        watch(Step::Write(&self.0, at, bytes), || (&self.0).write_all(bytes))
    }

    /// Makes the bytes last.
    pub(crate) fn sync(&self) -> io::Result<()> {
        watch(Step::Sync(&self.0), || self.0.sync_all())
    }

    /// Replaces all bytes, and makes the new ones last. A power cut may leave any part of either.
    pub(crate) fn overwrite(&self, bytes: &[u8]) -> io::Result<()> {
        watch(Step::SetLen(&self.0, 0), || self.0.set_len(0))?;
        if !bytes.is_empty() {
            watch(Step::Write(&self.0, 0, bytes), || self.0.write_all_at(bytes, 0))?;
        }
        self.sync()
    }

    /// The file itself, for locks and for reading.
    pub(crate) fn system(&self) -> &fs::File {
        &self.0
    }

    /// The file itself, for somebody who tells of what he does by [`watch`].
    pub(crate) fn into_system(self) -> fs::File {
        self.0
    }
}

/// Makes a folder and those above it, durably; no error if it is there.
pub(crate) fn make_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = parent(path);
    if above != path {
        make_dir(above)?;
    }
    let made = watch(Step::MakeDir(path), || {
        fs::DirBuilder::new().mode(DIR_MODE).create(path)
    });
    match made {
        // Somebody else was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        made => made?,
    }
    sync_dir(above)
}

/// Makes what happened in a folder (files made, renamed, removed) survive a power cut.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    watch(Step::SyncDir(path), || fs::File::open(path)?.sync_all())
}

/// Makes a new file for writing; an older one of the same name is emptied.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    let open = || {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(FILE_MODE)
            .open(path)
    };
    watch(Step::Create(path), open).map(File)
}

/// Opens a file for reading and writing, made if it is not there.
pub(crate) fn open_or_create(path: &Path) -> io::Result<File> {
    let open = |create: bool| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(create)
            .truncate(false)
            .mode(FILE_MODE)
            .open(path)
    };
    match open(false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            watch(Step::Create(path), || open(true)).map(File)
        }
        opened => opened.map(File),
    }
}

/// Gives a finished file its final name, durably: both its bytes and the name.
pub(crate) fn settle(file: &File, from: &Path, to: &Path) -> io::Result<()> {
    file.sync()?;
    rename(from, to)?;
    sync_dir(parent(to))
}

/// Writes a small file whole or not at all, durably. Its temporary form is `.NAME.tmp` beside it.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = temporary_of(path);
    let written = create(&temporary).and_then(|mut file| {
        file.write(content)?;
        settle(&file, &temporary, path)
    });
    if written.is_err() {
        let _ = remove(&temporary);
    }
    written
}

/// Gives a file another name; what had that one is gone.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    watch(Step::Rename(from, to), || fs::rename(from, to))
}

/// Removes a file; no error if there is none.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match watch(Step::Remove(path), || fs::remove_file(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes the files in a folder; no error if there is no folder.
pub(crate) fn clear(path: &Path) -> io::Result<()> {
    match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(mut entries) => entries.try_for_each(|entry| remove(&entry?.path())),
    }
}

/// Whether an error says that there is no more room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// Bytes that this process may still write on the file system of `path`.
pub(crate) fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The folder that a name is in.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

fn temporary_of(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.tmp"))
}
