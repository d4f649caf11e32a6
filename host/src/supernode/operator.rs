//! Answers the operator on this machine: see [`crate::operator`].

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::webhooks::dead::DeadLetterOffice;
use crate::operator::{Asked, LINE_BYTES_MAX, Socket, Told};

/// Requests that are answered at once; further ones wait.
const REQUESTS_MAX: usize = 8;
/// How long a request may take to come, and the next answer to be read.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers until it is dropped. Without a socket it goes on serving everybody else.
pub(crate) async fn run(folder: PathBuf, office: DeadLetterOffice) {
    let office = Arc::new(office);
    let (listener, _socket) = match listen(&folder) {
        Ok(listening) => listening,
        Err(error) => {
            tracing::warn!(folder = %folder.display(), %error, "the operator's socket cannot be made: `orb super dead-letters` will not work");
            return;
        }
    };
    let mut requests = JoinSet::new();
    loop {
        tokio::select! {
            stream = listener.accept(), if requests.len() < REQUESTS_MAX => match stream {
                Ok((stream, _)) => {
                    let office = Arc::clone(&office);
                    requests.spawn(async move {
                        if let Err(error) = answer(stream, &office).await {
                            tracing::debug!(%error, "the operator was not answered");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the operator's socket fails");
                    tokio::time::sleep(PATIENCE).await;
                }
            },
            Some(ended) = requests.join_next() => if let Err(error) = ended {
                tracing::error!(%error, "a request of the operator failed");
            },
        }
    }
}

/// Takes the socket away when it ends, so that a folder at rest has files only.
struct Listening(Socket);

impl Drop for Listening {
    fn drop(&mut self) {
        // One that is left is taken away at the next start.
        let _ = std::fs::remove_file(self.0.path());
    }
}

fn listen(folder: &Path) -> io::Result<(UnixListener, Listening)> {
    let socket = Socket::of(folder)?;
    // What one that was killed has left. The folder is locked: nobody else serves there.
    match std::fs::remove_file(socket.path()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket.path())?;
    std::fs::set_permissions(socket.path(), Permissions::from_mode(0o600))?;
    Ok((listener, Listening(socket)))
}

async fn answer(stream: UnixStream, office: &DeadLetterOffice) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(reader).take(LINE_BYTES_MAX);
    timeout(PATIENCE, reader.read_line(&mut line)).await??;
    let (tell, mut told) = mpsc::channel(1);
    let answering = async move {
        match serde_json::from_str(&line) {
            Ok(Asked::DeadLetters(asked)) => office.answer(&asked, &tell).await,
            Err(error) => {
                let refused = Told::Refused {
                    message: format!("the super node does not understand what is asked: {error}"),
                    help: "use the orb that the super node runs".to_owned(),
                };
                let _ = tell.send(refused).await;
            }
        }
        drop(tell);
    };
    let writing = async {
        while let Some(told) = told.recv().await {
            let line = serde_json::to_string(&told)? + "\n";
            timeout(PATIENCE, writer.write_all(line.as_bytes())).await??;
        }
        io::Result::Ok(())
    };
    // Nobody who is gone has anything sent.
    tokio::select! {
        biased;
        written = writing => written,
        () = async { answering.await; std::future::pending().await } => Ok(()),
    }
}
