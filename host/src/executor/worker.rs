//! An executor: a process that runs guests, and can do nothing else.
//!
//! One thread does everything: takes messages from the ring, runs guests in turns, puts what they
//! write into the other ring. It ends when its socket does, which is when the daemon ends.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Poll;

use bytes::Bytes;
use orb_runtime::{Code, CodeKind, GuestFault, Input, Machine, Outcome, Program, SealedFile, Work};
use tokio::io::Interest;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::channel::{Parts, Receiver, hang_up, watch};
use super::guest::Guest;
use super::lane::Lane;
use super::message::{self, CallId, CodeId, FromExecutor, Run, Setup, ToExecutor};
use super::outbox::Outbox;
use super::ring::Violation;
use super::socket;
use super::walls::{self, Role};

/// How much executors step back behind the daemon, in steps of nice(2): packets are handled and
/// heart-beats sent whatever guests do.
const NICENESS: i32 = 5;
/// How much sooner than others an executor is ended when the machine has no memory left
/// (`oom_score_adj`, of 1000): what it runs can be run again.
const OOM_SCORE: &str = "500";
/// Turns of guests between two looks at what the daemon wants.
const TURNS_MAX: u32 = 16;

/// Runs an executor until its daemon ends. Its socket is its standard input.
///
/// # Errors
/// What keeps it from running.
pub(super) fn run() -> anyhow::Result<()> {
    ignore_signals();
    step_back();
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let (setup, descriptors) = socket::receive(&socket)?;
    let setup: Setup = serde_json::from_slice(&setup)?;
    let outbox = Arc::new(OnceLock::<Arc<Outbox>>::new());
    let flushed = Arc::clone(&outbox);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(TURNS_MAX)
        // There is nothing to do any more, and so nothing to wait for.
        .on_thread_park(move || flushed.get().into_iter().for_each(|outbox| outbox.flush()))
        .build()?;
    runtime.block_on(async {
        let (sender, receiver) = parts(descriptors)?.executor_end()?;
        let outbox = outbox.get_or_init(|| Arc::new(Outbox::new(sender)));
        let gone = watch(socket.try_clone()?, Interest::READABLE)?;
        let machine = match Machine::new(&setup.sandbox) {
            Ok(machine) => machine,
            Err(error) => {
                outbox.say(&FromExecutor::Unfit(error.to_string()))?;
                outbox.flush();
                return Ok(());
            }
        };
        let walls = walls::build(Role::Executor, &setup.bounds);
        outbox.say(&FromExecutor::Ready(walls))?;
        let lane = Lane::default();
        let worker = Worker {
            machine,
            socket,
            outbox: Arc::clone(outbox),
            lane: lane.clone(),
            programs: HashMap::new(),
            calls: Arc::default(),
        };
        tokio::select! {
            ended = worker.serve(receiver) => Ok(ended?),
            () = lane.give_turns() => Ok(()),
            () = hang_up(&gone) => Ok(()),
        }
    })
}

fn parts(descriptors: Vec<OwnedFd>) -> anyhow::Result<Parts> {
    let [memory, to_executor, to_daemon] = <[OwnedFd; 3]>::try_from(descriptors)
        .map_err(|got| anyhow::anyhow!("{} descriptors instead of 3", got.len()))?;
    Ok(Parts {
        memory,
        to_executor,
        to_daemon,
    })
}

/// The daemon is who ends in order, and then ends this process.
fn ignore_signals() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE] {
        // SAFETY: ignoring a signal runs no code of ours.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Both are wishes: without them there is merely no order among processes.
fn step_back() {
    let _ = rustix::process::nice(NICENESS);
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
}

/// A call whose guest did not end in its first turn.
#[derive(Debug)]
struct Running {
    guest: AbortHandle,
    /// Where a streamed input goes; at most as many pieces as the daemon may send wait in it.
    input: Option<mpsc::UnboundedSender<Bytes>>,
}

/// A call whose guest is about to be entered.
struct Entering {
    call: CallId,
    guest: Guest,
    input: Option<mpsc::UnboundedSender<Bytes>>,
}

type Calls = Arc<Mutex<HashMap<CallId, Running>>>;

struct Worker {
    machine: Machine,
    socket: OwnedFd,
    outbox: Arc<Outbox>,
    lane: Lane,
    programs: HashMap<CodeId, Result<Program, GuestFault>>,
    calls: Calls,
}

impl Worker {
    async fn serve(mut self, mut receiver: Receiver) -> anyhow::Result<()> {
        let mut frame = Vec::new();
        loop {
            let (mut heard, mut turns) = (false, 0);
            while turns < TURNS_MAX && receiver.pop(&mut frame)? {
                heard = true;
                if let Some(entering) = self.on_message(message::message(&frame)?)? {
                    turns += 1;
                    self.enter(entering).await?;
                }
            }
            if heard {
                tokio::task::yield_now().await;
            } else {
                receiver.wait().await?;
            }
        }
    }

    /// Gives a guest its first turn, in this task: most need no other, and so no task of their own.
    async fn enter(&self, entering: Entering) -> Result<(), Violation> {
        let Entering {
            call,
            mut guest,
            input,
        } = entering;
        if let Poll::Ready(ended) = poll_fn(|context| Poll::Ready(Pin::new(&mut guest).poll(context))).await {
            return ended;
        }
        let calls = Arc::clone(&self.calls);
        let mut running = lock(&self.calls);
        let task = tokio::spawn(async move {
            // A daemon that is not what it should be is found out by the task that reads, too.
            let _ = guest.await;
            lock(&calls).remove(&call);
        });
        let guest = task.abort_handle();
        running.insert(call, Running { guest, input });
        Ok(())
    }

    /// What a message asks for is done, except that a guest is entered: that is left to who called.
    fn on_message(&mut self, message: ToExecutor) -> anyhow::Result<Option<Entering>> {
        match message {
            ToExecutor::Load(id, kind) => self.load(id, kind)?,
            ToExecutor::Unload(id) => drop(self.programs.remove(&id)),
            ToExecutor::Run(run) => return Ok(self.run(*run)?),
            ToExecutor::Input(call, piece) => self.on_input(call, piece),
            ToExecutor::Cancel(call) => {
                if let Some(running) = lock(&self.calls).remove(&call) {
                    running.guest.abort();
                }
            }
            ToExecutor::Ping => self.outbox.say(&FromExecutor::Pong)?,
            #[cfg(test)]
            ToExecutor::CrashIn(call) => {
                self.outbox.on_event(call, orb_runtime::Event::Started);
                std::process::abort();
            }
            #[cfg(test)]
            ToExecutor::Escape(attempt) => self.outbox.say(&FromExecutor::Escaped(attempt.make()))?,
        }
        Ok(None)
    }

    fn load(&mut self, id: CodeId, kind: CodeKind) -> anyhow::Result<()> {
        let (_, descriptors) = socket::receive(&self.socket)?;
        let bytes = descriptors.into_iter().next();
        let bytes = bytes.ok_or_else(|| anyhow::anyhow!("no descriptor came with code"))?;
        let loaded = match SealedFile::receive(bytes) {
            // SAFETY: it came on the socket from the daemon that started this process, which takes machine
            // code from its library only.
            Ok(sealed) => self.machine.load(&unsafe { Code::received(kind, sealed) }),
            Err(error) => Err(GuestFault::Internal {
                message: error.to_string(),
            }),
        };
        self.programs.insert(id, loaded);
        Ok(())
    }

    fn on_input(&self, call: CallId, piece: Bytes) {
        if let Some(running) = lock(&self.calls).get_mut(&call) {
            if piece.is_empty() {
                running.input = None;
            } else if let Some(input) = &running.input {
                // A guest that reads no more has dropped the other end.
                let _ = input.send(piece);
            }
        }
    }

    fn run(&self, run: Run) -> Result<Option<Entering>, Violation> {
        let call = run.call;
        let program = match self.programs.get(&run.code) {
            Some(Ok(program)) => program.clone(),
            Some(Err(fault)) => return self.fail(call, fault.clone()),
            None => return self.fail(call, unknown()),
        };
        let (whole, input) = match run.input {
            Some(whole) => (Input::Whole(whole), None),
            None => {
                let (pieces, queue) = mpsc::unbounded_channel();
                let (input, taken) = mpsc::channel(1);
                tokio::spawn(pass_on(call, queue, input, Arc::clone(&self.outbox)));
                (Input::Stream(taken), Some(pieces))
            }
        };
        let work = Work {
            context: run.context,
            limits: run.limits,
            input: whole,
        };
        let guest = Guest::new(call, &self.machine, program, work, &self.lane, &self.outbox);
        Ok(Some(Entering { call, guest, input }))
    }

    fn fail<T>(&self, call: CallId, fault: GuestFault) -> Result<Option<T>, Violation> {
        let outcome = Outcome {
            result: Err(fault),
            ..Outcome::not_started()
        };
        self.outbox.on_turn(call, Some(outcome))?;
        Ok(None)
    }
}

/// Passes a streamed input on to the guest, and tells the daemon of each piece that the guest took.
async fn pass_on(
    call: CallId,
    mut queue: mpsc::UnboundedReceiver<Bytes>,
    input: mpsc::Sender<Bytes>,
    outbox: Arc<Outbox>,
) {
    while let Some(piece) = queue.recv().await {
        if input.send(piece).await.is_err() {
            return;
        }
        let _ = outbox.say(&FromExecutor::Taken(call));
    }
}

fn unknown() -> GuestFault {
    GuestFault::Internal {
        message: "the function's code was not loaded".to_owned(),
    }
}

fn lock(calls: &Calls) -> MutexGuard<'_, HashMap<CallId, Running>> {
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}
