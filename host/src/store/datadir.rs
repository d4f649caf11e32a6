//! A daemon's data folder.
//!
//! | name | what |
//! | --- | --- |
//! | `version` | the format's number and the daemon's role, a line each |
//! | `lock` | locked while a daemon runs; holds its process id, and is empty after a clean stop |
//! | `node.key` | who the node is |
//! | `port` | the port that was chosen for `:0` |
//! | `address` | `NODEID@IP:PORT`, while a super node serves |
//! | `operator.sock` | where a super node's operator asks it ([`crate::operator`]) |
//! | `orb.redb` | the database |
//! | `objects/`, `cache/`, `logs/` | artifacts, what can be made again, what guests wrote |

use std::fmt;
use std::fs::{self, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use orb_protocol::key::NodeKey;
use orb_protocol::keyfile::{self, KeyFileError};

use super::files;

/// The format that this version reads and writes.
const FORMAT: u32 = 1;
/// What may stand in a folder that has no `version` yet: the rest of a first start that was cut off,
/// a key that the operator brought along, and what file systems put into their roots.
const HARMLESS: [&str; 4] = ["lock", "node.key", ".version.tmp", "lost+found"];

/// How long a folder that is in use is asked for again. A daemon that was killed lets go of it when the
/// system has taken it apart, and a process that it was just starting when that runs its own program.
const LOCK_WAIT: Duration = Duration::from_millis(250);
/// Between two such attempts.
const LOCK_STEP: Duration = Duration::from_millis(5);

/// Which daemon a folder belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// `orb super`.
    Super,
    /// `orb node`.
    Node,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Super => "super",
            Self::Node => "node",
        })
    }
}

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    /// The disk or its permissions.
    #[error("data folder: {} cannot be {doing}: {source}", path.display())]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What was tried: "made", "read", "written".
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Another daemon has it.
    #[error(
        "the data folder {} is in use by another orb daemon{}: stop that one, or give this one a folder of its own with --data",
        path.display(), pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The other daemon's process id, if it is known.
        pid: Option<u32>,
    },
    /// A newer orb wrote it.
    #[error(
        "the data folder {} has format {found}, and this version of orb knows formats up to {FORMAT}: update orb, or use another folder",
        path.display()
    )]
    Newer {
        /// The folder.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// It belongs to the other daemon.
    #[error(
        "the data folder {} belongs to an `orb {found}`, and this is `orb {wanted}`: use another folder",
        path.display()
    )]
    WrongRole {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Who wants it.
        wanted: Role,
    },
    /// It is no data folder, or not one any more.
    #[error("{} is not a data folder of orb: {reason}; use an empty or a new folder", path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The key file.
    #[error(transparent)]
    Key(#[from] KeyFileError),
}

/// An open data folder. It is this process's until it is dropped; only [`DataDir::close`] marks the
/// stop as a clean one.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    lock: files::File,
    unclean: bool,
}

impl DataDir {
    /// Opens a data folder, made if it is not there.
    ///
    /// # Errors
    /// [`DataDirError`]; the folder is then as it was.
    pub(crate) fn open(path: &Path, role: Role) -> Result<Self, DataDirError> {
        files::make_dir(path).map_err(io_error(path, "made"))?;
        let path = fs::canonicalize(path).map_err(io_error(path, "read"))?;
        // Before the first file is made in it: somebody may have named the wrong folder.
        let known = check_version(&path, role)?;
        let (lock, unclean) = lock(&path)?;
        let dir = Self { path, lock, unclean };
        dir.restrict();
        if !known {
            dir.write("version", format!("{FORMAT}\n{role}\n").as_bytes())?;
        }
        for folder in ["objects", "cache", "logs"] {
            let folder = dir.path.join(folder);
            files::make_dir(&folder).map_err(io_error(&folder, "made"))?;
        }
        dir.mark_running()?;
        dir.remove("address")?;
        Ok(dir)
    }

    /// The folder's absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the daemon before this one was killed, crashed, or lost its power: what it wrote
    /// last has to be checked.
    pub(crate) fn stopped_uncleanly(&self) -> bool {
        self.unclean
    }

    /// The node's key; made on first use.
    ///
    /// # Errors
    /// [`DataDirError::Key`].
    pub(crate) fn node_key(&self) -> Result<NodeKey, DataDirError> {
        Ok(keyfile::load_or_create_node_key(&self.path.join("node.key"))?)
    }

    /// Where the database is.
    pub(crate) fn database(&self) -> PathBuf {
        self.path.join("orb.redb")
    }

    /// The folder of artifacts.
    pub(crate) fn objects(&self) -> PathBuf {
        self.path.join("objects")
    }

    /// The folder of what can be made again at any time.
    pub(crate) fn cache(&self) -> PathBuf {
        self.path.join("cache")
    }

    /// The folder of what guests wrote.
    pub(crate) fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// The port that was chosen for `:0` at an earlier start.
    ///
    /// # Errors
    /// A file `port` that cannot be read or holds no port.
    pub(crate) fn kept_port(&self) -> Result<Option<u16>, DataDirError> {
        let path = self.path.join("port");
        match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error(&path, "read")(error)),
            Ok(text) => match text.trim().parse() {
                Ok(port) if port != 0 => Ok(Some(port)),
                _ => Err(foreign(&self.path, "its file \"port\" holds no port number")),
            },
        }
    }

    /// Keeps the port that was chosen for `:0`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn keep_port(&self, port: u16) -> Result<(), DataDirError> {
        self.write("port", format!("{port}\n").as_bytes())
    }

    /// Says where the daemon serves: to be called last, when it does.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn write_address(&self, address: &str) -> Result<(), DataDirError> {
        self.write("address", format!("{address}\n").as_bytes())
    }

    /// Marks the stop as a clean one. To be called when everything else is closed.
    ///
    /// # Errors
    /// The disk; the stop then counts as an unclean one.
    pub(crate) fn close(self) -> Result<(), DataDirError> {
        self.remove("address")?;
        let path = self.path.join("lock");
        self.lock.overwrite(b"").map_err(io_error(&path, "written"))
    }

    fn mark_running(&self) -> Result<(), DataDirError> {
        let path = self.path.join("lock");
        let id = format!("{}\n", std::process::id());
        self.lock
            .overwrite(id.as_bytes())
            .and_then(|()| files::sync_dir(&self.path))
            .map_err(io_error(&path, "written"))
    }

    fn restrict(&self) {
        let tightened = fs::metadata(&self.path).and_then(|metadata| {
            let mode = metadata.permissions().mode();
            if mode & 0o077 == 0 {
                return Ok(());
            }
            fs::set_permissions(&self.path, fs::Permissions::from_mode(0o700))
        });
        if let Err(error) = tightened {
            // The key file itself is not readable for others, so this is not worth a refusal.
            tracing::warn!(folder = %self.path.display(), %error, "the data folder is open to other users");
        }
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), DataDirError> {
        let path = self.path.join(name);
        files::replace(&path, content).map_err(io_error(&path, "written"))
    }

    fn remove(&self, name: &str) -> Result<(), DataDirError> {
        let path = self.path.join(name);
        files::remove(&path).map_err(io_error(&path, "removed"))
    }
}

/// Whether the folder has a version that is ours already; `false` for a new one. Changes nothing.
///
/// # Errors
/// [`DataDirError`] for a folder that is another's, or that cannot be read.
pub(crate) fn check_version(path: &Path, role: Role) -> Result<bool, DataDirError> {
    let file = path.join("version");
    let text = match fs::read(&file) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            check_empty(path)?;
            return Ok(false);
        }
        Err(error) => return Err(io_error(&file, "read")(error)),
    };
    let mut words = text.split_whitespace();
    let format: u64 = words
        .next()
        .and_then(|word| word.parse().ok())
        .ok_or_else(|| foreign(path, "its file \"version\" holds no number"))?;
    if format > u64::from(FORMAT) {
        let path = path.to_owned();
        return Err(DataDirError::Newer { path, found: format });
    }
    match words.next() {
        Some(found) if format == u64::from(FORMAT) && found == role.to_string() => Ok(true),
        Some(found @ ("super" | "node")) if format == u64::from(FORMAT) => Err(DataDirError::WrongRole {
            path: path.to_owned(),
            found: found.to_owned(),
            wanted: role,
        }),
        _ => Err(foreign(
            path,
            "its file \"version\" does not say what orb writes there",
        )),
    }
}

fn check_empty(path: &Path) -> Result<(), DataDirError> {
    for entry in fs::read_dir(path).map_err(io_error(path, "read"))? {
        let name = entry.map_err(io_error(path, "read"))?.file_name();
        let name = name.to_string_lossy();
        if !HARMLESS.contains(&name.as_ref()) {
            return Err(foreign(
                path,
                &format!("it holds {name:?} and no file \"version\""),
            ));
        }
    }
    Ok(())
}

/// Locks the folder, and tells whether whoever had it before did not end in order.
fn lock(path: &Path) -> Result<(files::File, bool), DataDirError> {
    let file = path.join("lock");
    let lock = files::open_or_create(&file).map_err(io_error(&file, "made"))?;
    let began = Instant::now();
    let mut locked = lock.system().try_lock();
    while matches!(locked, Err(TryLockError::WouldBlock)) && began.elapsed() < LOCK_WAIT {
        thread::sleep(LOCK_STEP);
        locked = lock.system().try_lock();
    }
    let mut holder = String::new();
    // What cannot be read as text is no process id, and no clean stop either.
    if lock.system().read_to_string(&mut holder).is_err() {
        holder = "?".to_owned();
    }
    match locked {
        Ok(()) => Ok((lock, !holder.is_empty())),
        Err(TryLockError::WouldBlock) => Err(DataDirError::InUse {
            path: path.to_owned(),
            pid: holder.trim().parse().ok(),
        }),
        Err(TryLockError::Error(error)) => Err(io_error(&file, "locked")(error)),
    }
}

fn foreign(path: &Path, reason: &str) -> DataDirError {
    DataDirError::Foreign {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}

fn io_error(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> DataDirError {
    let path = path.to_owned();
    move |source| DataDirError::Io { path, doing, source }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;

    fn says(result: Result<DataDir, DataDirError>, words: &[&str]) {
        let message = result.unwrap_err().to_string();
        for word in words {
            assert!(message.contains(word), "{message:?} does not say {word:?}");
        }
    }

    #[test]
    fn a_new_folder_is_laid_out_for_its_owner_only() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("a/b");
        let dir = DataDir::open(&path, Role::Super).unwrap();
        assert!(!dir.stopped_uncleanly());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_to_string(path.join("version")).unwrap(), "1\nsuper\n");
        for folder in [dir.objects(), dir.cache(), dir.logs()] {
            assert!(folder.is_dir());
        }
    }

    #[test]
    fn an_open_folder_is_closed_to_others() {
        let scratch = tempfile::tempdir().unwrap();
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let _dir = DataDir::open(scratch.path(), Role::Node).unwrap();
        let mode = fs::metadata(scratch.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_second_daemon_is_told_who_has_the_folder() {
        let scratch = tempfile::tempdir().unwrap();
        let first = DataDir::open(scratch.path(), Role::Node).unwrap();
        let pid = std::process::id().to_string();
        let folder = first.path().display().to_string();
        says(
            DataDir::open(scratch.path(), Role::Node),
            &["in use", &folder, &pid],
        );
        drop(first);
        DataDir::open(scratch.path(), Role::Node).unwrap();
    }

    #[test]
    fn a_folder_that_its_last_holder_is_just_letting_go_of_is_waited_for() {
        let scratch = tempfile::tempdir().unwrap();
        let first = DataDir::open(scratch.path(), Role::Node).unwrap();
        let holder = thread::spawn(move || {
            thread::sleep(LOCK_STEP * 4);
            drop(first);
        });
        DataDir::open(scratch.path(), Role::Node).unwrap();
        holder.join().unwrap();
    }

    #[test]
    fn only_a_close_is_a_clean_stop() {
        let scratch = tempfile::tempdir().unwrap();
        let open = || DataDir::open(scratch.path(), Role::Super).unwrap();
        open().close().unwrap();
        let dir = open();
        assert!(!dir.stopped_uncleanly());
        drop(dir);
        let dir = open();
        assert!(dir.stopped_uncleanly());
        dir.close().unwrap();
        assert!(!open().stopped_uncleanly());
    }

    #[test]
    fn an_address_lives_as_long_as_the_daemon_and_a_port_longer() {
        let scratch = tempfile::tempdir().unwrap();
        let open = || DataDir::open(scratch.path(), Role::Super).unwrap();
        let dir = open();
        assert_eq!(dir.kept_port().unwrap(), None);
        dir.keep_port(4433).unwrap();
        dir.write_address("x@127.0.0.1:4433").unwrap();
        let address = scratch.path().join("address");
        assert_eq!(fs::read_to_string(&address).unwrap(), "x@127.0.0.1:4433\n");
        drop(dir);
        // A daemon that was killed leaves its address; the next one does not serve yet.
        assert!(address.exists());
        let dir = open();
        assert!(!address.exists());
        assert_eq!(dir.kept_port().unwrap(), Some(4433));
        dir.write_address("x@127.0.0.1:4433").unwrap();
        dir.close().unwrap();
        assert!(!address.exists());
    }

    #[test]
    fn other_folders_are_refused_and_left_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        let version = |name: &str, text: &str| {
            fs::create_dir_all(at(name)).unwrap();
            fs::write(at(name).join("version"), text).unwrap();
        };
        version("newer", "999\n");
        says(
            DataDir::open(&at("newer"), Role::Super),
            &["format 999", "update orb"],
        );
        version("garbage", "\u{0}\u{fffd}");
        says(DataDir::open(&at("garbage"), Role::Super), &["no number"]);
        version("older", "0\nsuper\n");
        says(
            DataDir::open(&at("older"), Role::Super),
            &["not a data folder of orb"],
        );
        version("other", "1\nnode\n");
        says(
            DataDir::open(&at("other"), Role::Super),
            &["belongs to an `orb node`"],
        );
        fs::create_dir_all(at("home")).unwrap();
        fs::write(at("home").join("letter.txt"), "dear").unwrap();
        says(DataDir::open(&at("home"), Role::Super), &["letter.txt"]);
        for name in ["newer", "garbage", "older", "other", "home"] {
            assert_eq!(fs::read_dir(at(name)).unwrap().count(), 1, "{name}");
        }
    }

    #[test]
    fn a_file_is_no_folder() {
        let scratch = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(
            DataDir::open(scratch.path(), Role::Node),
            Err(DataDirError::Io { .. })
        ));
    }
}
