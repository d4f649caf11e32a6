//! What the tests share: one runtime, one sandbox, and a way to make and run artifacts.

use std::future::Future;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use orb_runtime::{
    Artifact, CallContext, Event, GuestFault, Input, Job, Limits, Outcome, Sandbox, SandboxConfig,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
static FOLDER: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().unwrap());

/// The sandbox that all tests share.
pub(crate) static SANDBOX: LazyLock<Sandbox> =
    LazyLock::new(|| Sandbox::new(SandboxConfig::default()).unwrap());

/// Runs a test on the shared runtime.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    RUNTIME.block_on(future)
}

/// Stores an artifact in `folder`, under its hash.
pub(crate) fn store_in(folder: &Path, wasm: &[u8]) -> Artifact {
    let hash = blake3::hash(wasm);
    let path = folder.join(hash.to_hex().as_str());
    // Several tests may store the same artifact at once: none may see half of it.
    let file = tempfile::NamedTempFile::new_in(folder).unwrap();
    std::fs::write(file.path(), wasm).unwrap();
    file.persist(&path).unwrap();
    Artifact {
        hash: *hash.as_bytes(),
        path,
    }
}

/// Stores an artifact.
pub(crate) fn store(wasm: &[u8]) -> Artifact {
    store_in(FOLDER.path(), wasm)
}

/// The imports that the guests of these tests use, and a memory of one page, growable.
const PRELUDE: &str = r#"
    (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_prestat_get" (func $fd_prestat_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_open" (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_time_get" (func $clock_time_get (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "sock_shutdown" (func $sock_shutdown (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
    (memory (export "memory") 1)
    ;; Writes `len` bytes at `at` to a stream.
    (func $print (param $fd i32) (param $at i32) (param $len i32)
        (i32.store (i32.const 8) (local.get $at))
        (i32.store (i32.const 12) (local.get $len))
        (drop (call $fd_write (local.get $fd) (i32.const 8) (i32.const 1) (i32.const 4))))
    ;; Reads at most `len` bytes to `at`; gives how many there were.
    (func $input (param $at i32) (param $len i32) (result i32)
        (i32.store (i32.const 8) (local.get $at))
        (i32.store (i32.const 12) (local.get $len))
        (drop (call $fd_read (i32.const 0) (i32.const 8) (i32.const 1) (i32.const 4)))
        (i32.load (i32.const 4)))
    ;; Ends with exit code 100 + n if that is not 0.
    (func $expect_zero (param $n i32)
        (if (local.get $n) (then (call $proc_exit (i32.add (i32.const 100) (local.get $n))))))
    ;; Sleeps.
    (func $sleep_ms (param $ms i64)
        (memory.fill (i32.const 1024) (i32.const 0) (i32.const 48))
        (i32.store (i32.const 1040) (i32.const 1))
        (i64.store (i32.const 1048) (i64.mul (local.get $ms) (i64.const 1000000)))
        (call $expect_zero (call $poll_oneoff (i32.const 1024) (i32.const 2048) (i32.const 1) (i32.const 4))))
"#;

/// A command: `fields` is the inside of a module in text form, after the prelude.
pub(crate) fn command(fields: &str) -> Artifact {
    let text = format!("(module {PRELUDE} {fields})");
    store(&wat(&text))
}

/// A command whose `_start` has this body.
pub(crate) fn start(body: &str) -> Artifact {
    command(&format!(r#"(func (export "_start") {body})"#))
}

/// WebAssembly's text form in binary form.
pub(crate) fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

/// A call under the product's default limits, without input.
pub(crate) fn job(artifact: &Artifact) -> Job {
    Job {
        artifact: artifact.clone(),
        context: CallContext {
            function: "owner/test".to_owned(),
            revision: 1,
            request_id: "request-1".to_owned(),
            deadline: None,
        },
        limits: Limits::default(),
        input: Input::default(),
    }
}

/// A call with this input.
pub(crate) fn job_on(artifact: &Artifact, input: impl Into<Bytes>) -> Job {
    Job {
        input: Input::Whole(input.into()),
        ..job(artifact)
    }
}

/// The caller's deadline, from when the job is handed over.
pub(crate) fn with_deadline(mut job: Job, deadline: Duration) -> Job {
    job.context.deadline = Some(deadline);
    job
}

/// The limits of a job, changed.
pub(crate) fn with_limits(mut job: Job, change: impl FnOnce(&mut Limits)) -> Job {
    change(&mut job.limits);
    job
}

/// Everything that one call shows.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) outcome: Outcome,
    pub(crate) started: bool,
    pub(crate) output: Vec<u8>,
    pub(crate) log: Vec<u8>,
}

impl Seen {
    /// The fault, which there must be.
    pub(crate) fn fault(&self) -> &GuestFault {
        self.outcome.result.as_ref().unwrap_err()
    }

    /// The output as text, of a call that must have succeeded.
    pub(crate) fn text(&self) -> &str {
        assert_eq!(
            self.outcome.result,
            Ok(()),
            "log: {}",
            String::from_utf8_lossy(&self.log)
        );
        std::str::from_utf8(&self.output).unwrap()
    }
}

/// Runs a job in a sandbox.
pub(crate) async fn run_in(sandbox: &Sandbox, job: Job) -> Seen {
    let (mut started, mut output, mut log) = (0, Vec::new(), Vec::new());
    let outcome = sandbox
        .run(job, |event| match event {
            Event::Started => started += 1,
            Event::Output(bytes) => output.extend_from_slice(&bytes),
            Event::Log(bytes) => log.extend_from_slice(&bytes),
        })
        .await;
    assert!(started <= 1, "Started is sent once");
    assert!(
        started == 1 || output.is_empty() && log.is_empty(),
        "Started comes first"
    );
    Seen {
        outcome,
        started: started == 1,
        output,
        log,
    }
}

/// Runs a job in the shared sandbox.
pub(crate) async fn run(job: Job) -> Seen {
    run_in(&SANDBOX, job).await
}

/// Checks that the shared sandbox works as ever.
pub(crate) async fn assert_unharmed() {
    let echo = start(ECHO);
    assert_eq!(run(job_on(&echo, "well")).await.text(), "well");
}

/// Copies the input to the output.
pub(crate) const ECHO: &str = r#"
    (local $n i32)
    (loop $more
        (local.set $n (call $input (i32.const 4096) (i32.const 4096)))
        (if (local.get $n) (then
            (call $print (i32.const 1) (i32.const 4096) (local.get $n))
            (br $more))))
"#;
