//! Executors as processes: what they do, what they cannot do, and what becomes of their calls.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use orb_runtime::{
    Artifact, CallContext, Event, GuestFault, Input, Job, Kind, Limits, Outcome, SandboxConfig,
};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::escape::Attempt;
use super::inbox::Said;
use super::message::ToExecutor;
use super::testing::{LONG, config, executors};
use super::walls::State;
use super::{Executors, ExecutorsError};

/// Copies its input to its output.
const ECHO: &str = r#"
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 2)
    (func (export "_start")
      (loop $more
        (i32.store (i32.const 0) (i32.const 64))
        (i32.store (i32.const 4) (i32.const 65536))
        (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
        (if (i32.load (i32.const 8)) (then
          (i32.store (i32.const 4) (i32.load (i32.const 8)))
          (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))
          (br $more)))))"#;
/// Never ends.
const ENDLESS: &str = r#"(memory (export "memory") 1) (func (export "_start") (loop $on (br $on)))"#;

/// A folder for artifacts and compiled code.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn sandbox(&self) -> SandboxConfig {
        SandboxConfig {
            cache_dir: Some(self.0.path().join("cache")),
            instances_max: 8,
            ..SandboxConfig::default()
        }
    }

    fn module(&self, body: &str) -> Artifact {
        self.artifact(&wat::parse_str(format!("(module {body})")).unwrap())
    }

    fn artifact(&self, wasm: &[u8]) -> Artifact {
        let hash = blake3::hash(wasm);
        let path: PathBuf = self.0.path().join(hash.to_hex().as_str());
        std::fs::write(&path, wasm).unwrap();
        Artifact {
            hash: *hash.as_bytes(),
            path,
        }
    }
}

fn job(artifact: &Artifact, input: impl Into<Input>) -> Job {
    Job {
        artifact: artifact.clone(),
        context: CallContext::default(),
        limits: Limits::default(),
        input: input.into(),
    }
}

async fn run(executors: &Executors, job: Job) -> (Outcome, Vec<u8>) {
    let mut output = Vec::new();
    let on_event = |event| {
        if let Event::Output(piece) = event {
            output.extend_from_slice(&piece);
        }
    };
    let outcome = timeout(LONG, executors.run(job, on_event)).await.unwrap();
    (outcome, output)
}

async fn echoes(executors: &Executors, echo: &Artifact) {
    let (outcome, output) = run(executors, job(echo, bytes::Bytes::from_static(b"hello"))).await;
    assert_eq!((outcome.result, output.as_slice()), (Ok(()), b"hello".as_slice()));
}

/// Has somebody try to get out of every executor; what the system said.
async fn attempt(executors: &Executors, attempt: Attempt) -> Result<(), String> {
    let link = executors.links().remove(0);
    link.send(&ToExecutor::Escape(attempt)).await.unwrap();
    match timeout(LONG, link.escaped.next()).await.unwrap() {
        Said::Ended(outcome) => outcome.result.map_err(|fault| fault.to_string()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_command_runs_in_another_process() {
    let place = Place::new();
    let executors = executors(place.sandbox()).await;
    let echo = place.module(ECHO);
    assert_eq!(executors.prepare(&echo).await.unwrap().kind, Kind::Command);
    echoes(&executors, &echo).await;
    let pids = executors.pids();
    assert_eq!(pids.len(), 2);
    assert!(pids.iter().all(|&pid| pid != std::process::id()));
}

#[tokio::test]
async fn a_javascript_function_runs_in_another_process() {
    let place = Place::new();
    let config = place.sandbox();
    let sandbox = orb_runtime::Sandbox::new(config.clone()).unwrap();
    let source = "export default (input) => { console.log('seen'); return { sum: input.a + input.b }; }";
    let compiled = sandbox
        .compile_javascript(source.as_bytes(), "index.js")
        .await
        .unwrap();
    let wasm = orb_runtime::javy::emit(&compiled.bytecode, &orb_runtime::javy::engine_hash());
    let executors = executors(config).await;
    executors.warm_up().await.unwrap();
    // The engine was compiled by the other one, into the same folder.
    assert_eq!(executors.library().compiled(), 0);
    let input = bytes::Bytes::from_static(br#"{"a": 1, "b": 2}"#);
    let (outcome, output) = run(&executors, job(&place.artifact(&wasm), input)).await;
    assert_eq!(outcome.result, Ok(()));
    assert_eq!(output, br#"{"sum":3}"#);
    assert!(outcome.fuel > 0 && outcome.memory_peak_bytes > 0);
}

#[tokio::test]
async fn long_inputs_and_streams_arrive_whole() {
    let place = Place::new();
    let executors = executors(place.sandbox()).await;
    let echo = place.module(ECHO);
    let long: Vec<u8> = (0..1_000_000_u32).map(|number| number as u8).collect();
    let (outcome, output) = run(&executors, job(&echo, bytes::Bytes::from(long.clone()))).await;
    assert_eq!(outcome.result, Ok(()));
    assert!(output == long);
    let (pieces, input) = mpsc::channel(1);
    let source = long.clone();
    tokio::spawn(async move {
        for piece in source.chunks(100_000) {
            pieces.send(bytes::Bytes::copy_from_slice(piece)).await.unwrap();
        }
    });
    let (outcome, output) = run(&executors, job(&echo, Input::Stream(input))).await;
    assert_eq!(outcome.result, Ok(()));
    assert!(output == long);
}

#[tokio::test]
async fn a_guest_that_does_not_read_holds_nobody_up() {
    let place = Place::new();
    let executors = executors(place.sandbox()).await;
    let (endless, echo) = (place.module(ENDLESS), place.module(ECHO));
    let many: Vec<_> = (0..4)
        .map(|_| {
            let (executors, job) = (
                executors.clone(),
                job(&endless, bytes::Bytes::from(vec![0; 4 << 20])),
            );
            tokio::spawn(async move { executors.run(job, drop).await })
        })
        .collect();
    for _ in 0..20 {
        echoes(&executors, &echo).await;
    }
    for guest in many {
        guest.abort();
    }
}

#[tokio::test]
async fn what_nobody_waits_for_is_stopped() {
    let place = Place::new();
    let executors = executors(place.sandbox()).await;
    let endless = place.module(ENDLESS);
    let started = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&started);
    let call = tokio::spawn({
        let (executors, job) = (executors.clone(), job(&endless, Input::default()));
        async move {
            executors
                .run(job, move |event| {
                    seen.fetch_add(u32::from(event == Event::Started), Ordering::Relaxed);
                })
                .await
        }
    });
    while started.load(Ordering::Relaxed) == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    call.abort();
    // All places are free again: as many calls as there are run side by side in one executor.
    let echo = place.module(ECHO);
    for _ in 0..20 {
        echoes(&executors, &echo).await;
    }
    assert!(executors.links().iter().all(|link| link.running() == 0));
}

#[tokio::test]
async fn a_lost_executor_is_replaced_and_its_calls_are_told() {
    let place = Place::new();
    let executors = executors(place.sandbox()).await;
    let (endless, echo) = (place.module(ENDLESS), place.module(ECHO));
    let (started, mut starts) = mpsc::unbounded_channel();
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let (executors, job, started) = (
                executors.clone(),
                job(&endless, Input::default()),
                started.clone(),
            );
            tokio::spawn(async move {
                let on_event = move |event| {
                    if event == Event::Started {
                        let _ = started.send(());
                    }
                };
                executors.run(job, on_event).await
            })
        })
        .collect();
    for _ in 0..4 {
        timeout(LONG, starts.recv()).await.unwrap().unwrap();
    }
    let before = executors.pids();
    let victim = rustix::process::Pid::from_raw(before[0].cast_signed()).unwrap();
    rustix::process::kill_process(victim, rustix::process::Signal::KILL).unwrap();
    // Calls go on, in the executor that is left and then in the new one.
    for _ in 0..10 {
        echoes(&executors, &echo).await;
    }
    timeout(LONG, async {
        while executors.pids().len() < 2 || executors.pids() == before {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(executors.lost(), 1);
    // The calls of the one that was killed are lost, since they were started; the others run.
    let (ended, running): (Vec<_>, Vec<_>) =
        calls.into_iter().partition(tokio::task::JoinHandle::is_finished);
    assert_eq!((ended.len(), running.len()), (2, 2));
    for call in ended {
        assert!(matches!(call.await.unwrap().result, Err(GuestFault::Lost { .. })));
    }
    for call in running {
        call.abort();
    }
    for _ in 0..10 {
        echoes(&executors, &echo).await;
    }
}

#[tokio::test]
async fn an_executor_that_breaks_down_is_replaced() {
    let place = Place::new();
    let executors = executors(place.sandbox()).await;
    let echo = place.module(ECHO);
    for link in executors.links() {
        link.send(&ToExecutor::Escape(Attempt::Crash)).await.unwrap();
    }
    timeout(LONG, async {
        while executors.lost() < 2 {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    // With none left at first: calls wait for one.
    for _ in 0..4 {
        echoes(&executors, &echo).await;
    }
}

#[tokio::test]
async fn whoever_was_entered_when_its_executor_broke_down_was_started_and_others_were_not() {
    // A function's guest is entered when its input is whole, which this one's never is.
    let place = Place::new();
    let sandbox = orb_runtime::Sandbox::new(place.sandbox()).unwrap();
    let source = b"export default (input) => input";
    let compiled = sandbox.compile_javascript(source, "index.js").await.unwrap();
    let wasm = orb_runtime::javy::emit(&compiled.bytecode, &orb_runtime::javy::engine_hash());
    let artifact = place.artifact(&wasm);
    for entered in [true, false] {
        let executors = executors(place.sandbox()).await;
        executors.prepare(&artifact).await.unwrap();
        let (pieces, input) = mpsc::channel(1);
        let starts = Arc::new(AtomicU32::new(0));
        let call = tokio::spawn({
            let (executors, job) = (executors.clone(), job(&artifact, Input::Stream(input)));
            let seen = Arc::clone(&starts);
            let on_event = move |event| {
                seen.fetch_add(u32::from(event == Event::Started), Ordering::Relaxed);
            };
            async move { executors.run(job, on_event).await }
        });
        let link = timeout(LONG, async {
            loop {
                let links = executors.links();
                if let Some(link) = links.into_iter().find(|link| link.running() == 1) {
                    break link;
                }
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
        let call_id = u64::from(!entered);
        link.send(&ToExecutor::CrashIn(call_id)).await.unwrap();
        timeout(LONG, async {
            while executors.lost() < 1 {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .unwrap();
        if entered {
            let outcome = timeout(LONG, call).await.unwrap().unwrap();
            assert!(
                matches!(outcome.result, Err(GuestFault::Lost { .. })),
                "{outcome:?}"
            );
            assert_eq!(starts.load(Ordering::Relaxed), 1);
        } else {
            // Another one has it, and goes on.
            pieces.send(bytes::Bytes::from_static(b"1")).await.unwrap();
            drop(pieces);
            let outcome = timeout(LONG, call).await.unwrap().unwrap();
            assert_eq!(outcome.result, Ok(()));
        }
    }
}

#[tokio::test]
async fn an_executor_that_hangs_is_replaced() {
    let place = Place::new();
    let executors = executors(place.sandbox()).await;
    let echo = place.module(ECHO);
    let link = executors.links().remove(0);
    link.send(&ToExecutor::Escape(Attempt::Hang)).await.unwrap();
    timeout(LONG, async {
        while executors.lost() < 1 {
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .unwrap();
    for _ in 0..4 {
        echoes(&executors, &echo).await;
    }
}

/// Everything that somebody in an executor might try, and that must fail there. Each works in this very
/// process, or would if it were asked: the first test that follows makes sure of it.
fn attempts(file: &Path) -> Vec<Attempt> {
    let daemon = std::process::id().cast_signed();
    let file = |name: &str| file.join(name).display().to_string();
    vec![
        Attempt::OpenFile("/etc/passwd".to_owned()),
        Attempt::OpenFile("/proc/self/maps".to_owned()),
        Attempt::OpenFile(file("secret")),
        Attempt::OpenFile("0".to_owned()),
        Attempt::MakeFile(file("made")),
        Attempt::MakeFile("made".to_owned()),
        Attempt::ListFolder("/".to_owned()),
        Attempt::StatFile("/etc/passwd".to_owned()),
        Attempt::Socket(libc::AF_INET),
        Attempt::Socket(libc::AF_INET6),
        Attempt::Socket(libc::AF_UNIX),
        Attempt::Socket(libc::AF_NETLINK),
        Attempt::Execute,
        Attempt::Fork,
        Attempt::Thread,
        Attempt::Trace(daemon),
        Attempt::ReadMemory(daemon),
        Attempt::MapMemory(daemon),
        Attempt::Signal(daemon),
        Attempt::Privileges,
        Attempt::Mount,
        Attempt::RaiseLimit,
        Attempt::TakeMemory(64 << 30),
    ]
}

#[tokio::test]
async fn nobody_gets_out_of_an_executor() {
    let place = Place::new();
    std::fs::write(place.0.path().join("secret"), "keys").unwrap();
    let executors = executors(place.sandbox()).await;
    // Where a wall is missing this test would pass for the wrong reason, or fail for a right one.
    let gaps: Vec<String> = executors
        .walls()
        .iter()
        .filter(|wall| wall.state != State::Up)
        .map(ToString::to_string)
        .collect();
    assert!(gaps.is_empty(), "this kernel does not have every wall: {gaps:?}");
    assert_eq!(attempt(&executors, Attempt::Nothing).await, Ok(()));
    for way in attempts(place.0.path()) {
        let said = attempt(&executors, way.clone()).await;
        assert!(said.is_err(), "{way:?} got out");
    }
    assert!(!place.0.path().join("made").exists());
    assert_eq!(executors.lost(), 0);
}

#[test]
fn what_fails_in_an_executor_works_outside_of_one() {
    let place = Place::new();
    std::fs::write(place.0.path().join("secret"), "keys").unwrap();
    let works = |attempt: Attempt| {
        let made = attempt.make();
        assert_eq!(made, Ok(()), "{attempt:?}");
    };
    works(Attempt::OpenFile("/etc/passwd".to_owned()));
    works(Attempt::MakeFile(
        place.0.path().join("made").display().to_string(),
    ));
    works(Attempt::ListFolder("/".to_owned()));
    works(Attempt::StatFile("/etc/passwd".to_owned()));
    works(Attempt::Socket(libc::AF_INET));
    works(Attempt::Socket(libc::AF_UNIX));
    works(Attempt::Execute);
    works(Attempt::Thread);
    works(Attempt::ReadMemory(std::process::id().cast_signed()));
    works(Attempt::MapMemory(std::process::id().cast_signed()));
    works(Attempt::Signal(std::process::id().cast_signed()));
}

#[tokio::test]
async fn an_operator_may_insist_on_every_wall() {
    let place = Place::new();
    let mut insisting = config(place.sandbox());
    insisting.require_walls = true;
    let started = Executors::start(insisting).await;
    match started {
        Ok(executors) => assert!(executors.walls().iter().all(|wall| wall.gap().is_none())),
        Err(error) => assert!(matches!(error, ExecutorsError::Walls(_)), "{error}"),
    }
}

#[tokio::test]
async fn a_module_that_takes_too_long_to_compile_costs_its_compiler() {
    let place = Place::new();
    let sandbox = SandboxConfig {
        compile_time_max: Duration::from_millis(300),
        ..place.sandbox()
    };
    let executors = executors(sandbox).await;
    // Admitted: many functions, each with a long chain of operations on many locals.
    let body: String = (0..2_000)
        .map(|at| {
            format!(
                "(local.set {0} (i64.add (local.get {0}) (i64.mul (local.get {1}) (i64.const {at}))))",
                at % 40,
                (at * 7) % 40
            )
        })
        .collect();
    let locals = "(local i64) ".repeat(40);
    let functions: String = (0..400).map(|_| format!("(func {locals} {body})")).collect();
    let bomb = place.module(&format!(
        r#"(memory (export "memory") 1) {functions} (func (export "_start"))"#
    ));
    let (outcome, _) = run(&executors, job(&bomb, Input::default())).await;
    assert!(
        matches!(outcome.result, Err(GuestFault::Compile { .. })),
        "{:?}",
        outcome.result
    );
    assert_eq!(executors.lost(), 0);
}

#[tokio::test]
async fn a_compiled_file_that_another_one_replaced_is_not_run() {
    let place = Place::new();
    let (echo, other) = (
        place.module(ECHO),
        place.module(r#"(memory (export "memory") 1) (func (export "_start") unreachable)"#),
    );
    let first = executors(place.sandbox()).await;
    first.prepare(&echo).await.unwrap();
    first.prepare(&other).await.unwrap();
    assert_eq!(first.library().compiled(), 2);
    drop(first);
    let cache = place.0.path().join("cache");
    let file = |artifact: &Artifact| {
        let start = blake3::Hash::from_bytes(artifact.hash).to_hex();
        std::fs::read_dir(&cache)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| {
                path.file_name()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .starts_with(start.as_str())
            })
            .unwrap()
    };
    std::fs::copy(file(&other), file(&echo)).unwrap();
    let second = executors(place.sandbox()).await;
    echoes(&second, &echo).await;
    assert_eq!((second.library().rejected(), second.library().compiled()), (1, 1));
}
