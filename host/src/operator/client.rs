//! Asks a super node over the socket in its data folder.

use std::io;
use std::path::Path;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;

use super::{Asked, Socket, Told};
use crate::failure::Failure;
use crate::store::datadir::{DataDirError, Role, check_version};

/// A super node's answers.
#[derive(Debug)]
pub(crate) struct Answers(Lines<BufReader<OwnedReadHalf>>);

/// Asks the super node that has a data folder.
///
/// # Errors
/// It does not run, or this user may not ask it.
pub(crate) async fn ask(folder: &Path, asked: &Asked) -> Result<Answers, Failure> {
    match check_version(folder, Role::Super) {
        Ok(true) => {}
        Err(newer @ DataDirError::Newer { .. }) => return Err(Failure::data_folder(&newer)),
        Ok(false) | Err(_) => return Err(no_super_node(folder)),
    }
    let stream = connect(folder).await.map_err(|error| no_answer(folder, &error))?;
    let (reader, mut writer) = stream.into_split();
    let line = serde_json::to_string(asked).map_err(|error| Failure::local(error.to_string()))? + "\n";
    writer
        .write_all(line.as_bytes())
        .await
        .map_err(|error| no_answer(folder, &error))?;
    // The other half stays open: that the super node is not listened to any more is said by closing both.
    writer.forget();
    Ok(Answers(BufReader::new(reader).lines()))
}

async fn connect(folder: &Path) -> io::Result<UnixStream> {
    let socket = Socket::of(folder)?;
    UnixStream::connect(socket.path()).await
}

fn no_super_node(folder: &Path) -> Failure {
    Failure::config(format!(
        "{} is not the data folder of a super node",
        folder.display()
    ))
    .help("name the folder that its `orb super` has as --data")
}

fn no_answer(folder: &Path, error: &io::Error) -> Failure {
    let folder = folder.display();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            Failure::local(format!("the super node of {folder} does not run"))
                .help("start it: it is the super node that sends dead letters, and nobody else reads its store meanwhile")
        }
        _ => Failure::local(format!("the super node of {folder} cannot be asked: {error}"))
            .help("run this as the user that the super node runs as"),
    }
}

impl Answers {
    /// The next answer.
    ///
    /// # Errors
    /// It ended before [`Told::Done`].
    pub(crate) async fn next(&mut self) -> Result<Told, Failure> {
        let broken = |why: String| {
            Failure::local(format!("the super node did not answer to the end: {why}"))
                .help("see its log, and show the dead letters again")
        };
        let line = self
            .0
            .next_line()
            .await
            .map_err(|error| broken(error.to_string()))?;
        let line = line.ok_or_else(|| broken("the connection ended".to_owned()))?;
        serde_json::from_str(&line).map_err(|error| broken(error.to_string()))
    }
}
