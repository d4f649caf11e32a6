//! An executor: a process that runs guests, and can do nothing else.
//!
//! One thread does everything: takes messages from the ring, runs guests in turns, puts what they
//! write into the other ring. It ends when its socket does, which is when the daemon ends.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use orb_runtime::{Code, CodeKind, Event, GuestFault, Input, Machine, Outcome, Program, SealedFile, Work};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::channel::{Parts, Receiver, Sender, watch};
use super::lane::Lane;
use super::message::{self, CallId, CodeId, FromExecutor, Run, Setup, ToExecutor, ended, events, frame};
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
/// A full ring is looked at again after this time. The daemon empties it whatever else it does.
const FULL_WAIT: Duration = Duration::from_micros(50);

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
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(TURNS_MAX)
        .build()?;
    runtime.block_on(async {
        let (sender, receiver) = parts(descriptors)?.executor_end()?;
        let gone = watch(socket.try_clone()?, Interest::READABLE)?;
        let machine = match Machine::new(&setup.sandbox) {
            Ok(machine) => machine,
            Err(error) => {
                push(&sender, &frame(&FromExecutor::Unfit(error.to_string())))?;
                sender.flush();
                return Ok(());
            }
        };
        let walls = walls::build(Role::Executor, &setup.bounds);
        push(&sender, &frame(&FromExecutor::Ready(walls)))?;
        let lane = Lane::default();
        let worker = Worker {
            machine,
            socket,
            sender: Arc::new(sender),
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

/// Waits for the end of the daemon. What comes on the socket before it is read elsewhere.
async fn hang_up(socket: &AsyncFd<OwnedFd>) {
    loop {
        match socket.readable().await {
            Ok(guard) if guard.ready().is_read_closed() => return,
            Ok(mut guard) => guard.clear_ready(),
            Err(_) => return,
        }
    }
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

/// Puts a frame into the ring, and waits as long as that is full.
fn push(sender: &Sender, frame: &[u8]) -> Result<(), Violation> {
    while sender.push(frame)?.is_err() {
        sender.flush();
        std::thread::sleep(FULL_WAIT);
    }
    Ok(())
}

/// A call that runs.
#[derive(Debug)]
struct Running {
    guest: Option<AbortHandle>,
    /// Where a streamed input goes; at most as many pieces as the daemon may send wait in it.
    input: Option<mpsc::UnboundedSender<Bytes>>,
}

type Calls = Arc<Mutex<HashMap<CallId, Running>>>;

struct Worker {
    machine: Machine,
    socket: OwnedFd,
    sender: Arc<Sender>,
    lane: Lane,
    programs: HashMap<CodeId, Result<Program, GuestFault>>,
    calls: Calls,
}

impl Worker {
    async fn serve(mut self, mut receiver: Receiver) -> anyhow::Result<()> {
        let mut frame = Vec::new();
        loop {
            let mut busy = false;
            while receiver.pop(&mut frame)? {
                self.on_message(message::message(&frame)?)?;
                busy = true;
            }
            self.sender.flush();
            if busy {
                tokio::task::yield_now().await;
            } else {
                receiver.wait().await?;
            }
        }
    }

    fn on_message(&mut self, message: ToExecutor) -> anyhow::Result<()> {
        match message {
            ToExecutor::Load(id, kind) => self.load(id, kind)?,
            ToExecutor::Unload(id) => drop(self.programs.remove(&id)),
            ToExecutor::Run(run) => self.run(*run)?,
            ToExecutor::Input(call, piece) => self.on_input(call, piece),
            ToExecutor::Cancel(call) => {
                let running = lock(&self.calls).remove(&call);
                if let Some(guest) = running.and_then(|running| running.guest) {
                    guest.abort();
                }
            }
            ToExecutor::Ping => push(&self.sender, &frame(&FromExecutor::Pong))?,
            #[cfg(test)]
            ToExecutor::Escape(attempt) => {
                let escaped = FromExecutor::Escaped(attempt.make());
                push(&self.sender, &frame(&escaped))?;
            }
        }
        Ok(())
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

    fn run(&mut self, run: Run) -> Result<(), Violation> {
        let call = run.call;
        let program = match self.programs.get(&run.code) {
            Some(Ok(program)) => program.clone(),
            Some(Err(fault)) => return self.fail(call, fault.clone()),
            None => return self.fail(call, unknown()),
        };
        let (input, pieces) = match run.input {
            Some(whole) => (Input::Whole(whole), None),
            None => {
                let (pieces, queue) = mpsc::unbounded_channel();
                let (input, taken) = mpsc::channel(1);
                tokio::spawn(pass_on(call, queue, input, Arc::clone(&self.sender)));
                (Input::Stream(taken), Some(pieces))
            }
        };
        let running = Running {
            guest: None,
            input: pieces,
        };
        lock(&self.calls).insert(call, running);
        let work = Work {
            context: run.context,
            limits: run.limits,
            input,
        };
        let guest = tokio::spawn(self.guest(call, program, work));
        if let Some(running) = lock(&self.calls).get_mut(&call) {
            running.guest = Some(guest.abort_handle());
        }
        Ok(())
    }

    /// The guest's task.
    fn guest(&self, call: CallId, program: Program, work: Work) -> impl Future<Output = ()> + Send + 'static {
        let (machine, sender, lane) = (self.machine.clone(), Arc::clone(&self.sender), self.lane.clone());
        let calls = Arc::clone(&self.calls);
        async move {
            let out = Arc::clone(&sender);
            let on_event = move |event: Event| {
                for frame in events(call, event) {
                    let _ = push(&out, &frame);
                }
            };
            let flush = || sender.flush();
            let outcome = lane.run(machine.run(&program, work, on_event), flush).await;
            lock(&calls).remove(&call);
            let _ = push(&sender, &ended(call, outcome));
            sender.flush();
        }
    }

    fn fail(&self, call: CallId, fault: GuestFault) -> Result<(), Violation> {
        let outcome = Outcome {
            result: Err(fault),
            ..Outcome::not_started()
        };
        push(&self.sender, &ended(call, outcome))
    }
}

/// Passes a streamed input on to the guest, and tells the daemon of each piece that the guest took.
async fn pass_on(
    call: CallId,
    mut queue: mpsc::UnboundedReceiver<Bytes>,
    input: mpsc::Sender<Bytes>,
    sender: Arc<Sender>,
) {
    while let Some(piece) = queue.recv().await {
        if input.send(piece).await.is_err() {
            return;
        }
        let _ = push(&sender, &frame(&FromExecutor::Taken(call)));
        sender.flush();
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
