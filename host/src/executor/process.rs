//! Child processes of the same binary.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use tokio::net::unix::pipe;
use tokio::sync::oneshot;

/// How this binary is started again.
#[derive(Debug, Clone)]
pub struct Launch {
    program: PathBuf,
    before: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

/// What a child process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// Running guests: [`super::worker`].
    Execute,
    /// Compiling one module: [`super::compile`].
    Compile,
}

impl Task {
    /// The first parameter of the process. It is no command, so that nobody types it by chance.
    pub(super) fn parameter(self) -> &'static str {
        match self {
            Self::Execute => "orb-executor",
            Self::Compile => "orb-compiler",
        }
    }

    pub(super) fn of(parameter: &std::ffi::OsStr) -> Option<Self> {
        [Self::Execute, Self::Compile]
            .into_iter()
            .find(|task| parameter == task.parameter())
    }
}

impl Launch {
    /// This very program, even if its file has been replaced since.
    #[cfg(not(test))]
    #[must_use]
    pub fn this_program() -> Self {
        Self {
            program: "/proc/self/exe".into(),
            before: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// A test's program: its one test that is no test, but what the binary does.
    #[cfg(test)]
    #[must_use]
    pub fn this_program() -> Self {
        let before = [
            "--exact",
            "executor::testing::process",
            "--nocapture",
            "--test-threads=1",
            "--",
        ];
        Self {
            program: "/proc/self/exe".into(),
            before: before.map(OsString::from).into(),
            environment: vec![(super::testing::MARK.into(), "1".into())],
        }
    }

    fn command(&self, task: Task) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg0("orb")
            .args(&self.before)
            .arg(task.parameter())
            .env_clear()
            .envs(self.environment.iter().cloned())
            .current_dir("/")
            // Keys that end a daemon at a terminal are not for it.
            .process_group(0);
        command
    }
}

/// A child that runs.
#[derive(Debug)]
pub(super) struct Spawned {
    pub(super) child: Child,
    /// What it says when something goes wrong with it.
    pub(super) stderr: pipe::Receiver,
}

struct Order {
    task: Task,
    socket: UnixStream,
    answer: oneshot::Sender<io::Result<Child>>,
}

/// Starts children, all from one thread that lives as long as there is somebody to start any for: to
/// the kernel that thread is their parent, and they end when it does.
#[derive(Debug, Clone)]
pub(super) struct Nursery(mpsc::Sender<Order>);

impl Nursery {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start(launch: Launch) -> io::Result<Self> {
        let (orders, queue) = mpsc::channel::<Order>();
        thread::Builder::new()
            .name("orb-nursery".to_owned())
            .spawn(move || {
                for order in queue {
                    let mut command = launch.command(order.task);
                    command.stdin(OwnedFd::from(order.socket));
                    command.stdout(Stdio::null()).stderr(Stdio::piped());
                    // Who does not wait any more has dropped its end of the socket, which ends the child.
                    let _ = order.answer.send(command.spawn());
                }
            })?;
        Ok(Self(orders))
    }

    /// Starts a child, with a socket as its standard input.
    ///
    /// # Errors
    /// The system starts none.
    pub(super) async fn spawn(&self, task: Task, socket: UnixStream) -> io::Result<Spawned> {
        let (answer, child) = oneshot::channel();
        let order = Order { task, socket, answer };
        let gone = || io::Error::other("the thread that starts processes has ended");
        self.0.send(order).map_err(|_| gone())?;
        let mut child = child.await.map_err(|_| gone())??;
        let stderr = child.stderr.take().ok_or_else(gone)?;
        let stderr = pipe::Receiver::from_owned_fd(stderr.into())?;
        Ok(Spawned { child, stderr })
    }
}

impl Drop for Spawned {
    /// Ends the child, and waits for its end, which is at hand.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
