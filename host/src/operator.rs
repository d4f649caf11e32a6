//! What the operator of a super node asks it, on the machine where it runs: over a socket in its data folder, which
//! nobody else may open. One request, then answers until [`Told::Done`] or [`Told::Refused`], each a line of JSON.

mod client;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub(crate) use client::ask;

/// The socket's name in the data folder.
const SOCKET: &str = "operator.sock";
/// The longest path that a socket may have, in bytes: what every system takes.
const PATH_BYTES_MAX: usize = 100;
/// The longest line, in bytes.
pub(crate) const LINE_BYTES_MAX: u64 = 64 << 10;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Asked {
    /// About events that webhooks could not be told of.
    DeadLetters(DeadLetters),
}

/// Which dead letters, and what is to become of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeadLetters {
    /// Only those of webhooks with this address, or at this host.
    pub(crate) webhook: Option<String>,
    /// Only of these events, by id or cursor; none: of all.
    pub(crate) events: Vec<String>,
    /// Send them again, rather than show them.
    pub(crate) resend: bool,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Told {
    /// A dead letter.
    Letter(Letter),
    /// It was delivered, and is a dead letter no more.
    Delivered(Letter),
    /// It failed again and stays, as do those of its webhook that come after it.
    Failed(Letter),
    /// Nothing was done.
    Refused {
        /// What is wrong.
        message: String,
        /// The mend.
        help: String,
    },
    /// That was all.
    Done,
}

/// An event that a webhook could not be told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Letter {
    /// The webhook's address.
    pub(crate) webhook: String,
    /// The event's id.
    pub(crate) id: String,
    /// How often it was tried.
    pub(crate) attempts: u32,
    /// What went wrong the last time.
    pub(crate) reason: String,
    /// The event, as webhooks and `orb events --json` have it.
    pub(crate) event: serde_json::Value,
}

/// The way to a folder's socket.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
    /// Keeps a detour open, where the path is too long to be a socket's.
    _folder: Option<File>,
}

impl Socket {
    /// That of a data folder.
    ///
    /// # Errors
    /// A folder with a long path that cannot be opened.
    pub(crate) fn of(folder: &Path) -> io::Result<Self> {
        let path = folder.join(SOCKET);
        if path.as_os_str().len() <= PATH_BYTES_MAX {
            return Ok(Self { path, _folder: None });
        }
        let folder = File::open(folder)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()));
        let _folder = Some(folder);
        Ok(Self { path, _folder })
    }

    /// Where to bind or connect.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn a_folder_has_a_socket_however_long_its_path_is() {
        let scratch = tempfile::tempdir().unwrap();
        for name in ["short".to_owned(), "long".repeat(50)] {
            let folder = scratch.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            let socket = Socket::of(&folder).unwrap();
            let _listener = UnixListener::bind(socket.path()).unwrap();
            assert!(folder.join(SOCKET).exists());
            UnixStream::connect(Socket::of(&folder).unwrap().path()).unwrap();
        }
    }
}
