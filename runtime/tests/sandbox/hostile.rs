//! Guests that misbehave, under the product's default limits: each gets its own fault, and the
//! next call is unharmed.

use std::time::Duration;

use orb_runtime::{GuestFault, Job, Limits};

use crate::support::{
    SANDBOX, Seen, assert_unharmed, block_on, command, job, run, start, with_deadline, with_limits,
};

/// Runs a hostile guest; the sandbox must be as good as new afterwards.
fn misbehave(job: Job) -> Seen {
    block_on(async {
        let seen = run(job).await;
        assert_unharmed().await;
        seen
    })
}

fn fuel() -> GuestFault {
    GuestFault::Fuel {
        limit: Limits::default().fuel,
    }
}

fn memory() -> GuestFault {
    GuestFault::Memory {
        limit: Limits::default().memory_bytes,
    }
}

fn trap(message: &str) -> GuestFault {
    GuestFault::Trap {
        message: format!("wasm trap: {message}"),
    }
}

#[test]
fn an_endless_loop_runs_out_of_fuel() {
    let seen = misbehave(job(&start("(loop $l (br $l))")));
    assert_eq!(*seen.fault(), fuel());
    assert_eq!(seen.outcome.fuel, Limits::default().fuel);
}

#[test]
fn an_endless_loop_of_slow_instructions_runs_out_of_fuel_and_not_of_time() {
    // A tenth of the default limits: these instructions take more than a nanosecond for a unit.
    let body = r"(local $f f64) (local.set $f (f64.const 2))
        (loop $l (local.set $f (f64.sqrt (f64.add (local.get $f) (f64.const 1)))) (br $l))";
    let job = with_limits(job(&start(body)), |limits| {
        limits.fuel /= 10;
        limits.time_ms /= 10;
    });
    let seen = misbehave(job);
    assert_eq!(
        *seen.fault(),
        GuestFault::Fuel {
            limit: Limits::default().fuel / 10
        }
    );
}

#[test]
fn endless_calls_of_the_host_run_out_of_fuel_or_time() {
    let body = r"(loop $l (drop (call $random_get (i32.const 0) (i32.const 65536))) (br $l))";
    let job = with_limits(job(&start(body)), |limits| limits.fuel = 1_000_000_000);
    assert_eq!(*misbehave(job).fault(), GuestFault::Fuel { limit: 1_000_000_000 });
}

#[test]
fn growing_in_circles_runs_out_of_fuel() {
    let body = "(loop $l (drop (memory.grow (i32.const 0))) (br $l))";
    let job = with_limits(job(&start(body)), |limits| limits.fuel = 1_000_000_000);
    assert_eq!(*misbehave(job).fault(), GuestFault::Fuel { limit: 1_000_000_000 });
}

#[test]
fn endless_recursion_exhausts_the_stack() {
    let guest = command(r#"(func $f (export "_start") (call $f) (call $f))"#);
    assert_eq!(*misbehave(job(&guest)).fault(), trap("call stack exhausted"));
}

#[test]
fn memory_growth_is_stopped_at_the_limit() {
    let body = "(loop $l (drop (memory.grow (i32.const 16))) (br $l))";
    let seen = misbehave(job(&start(body)));
    assert_eq!(*seen.fault(), memory());
    let limit = Limits::default().memory_bytes;
    assert!(seen.outcome.memory_peak_bytes <= limit);
    assert!(seen.outcome.memory_peak_bytes > limit - 17 * 65_536);
}

#[test]
fn memory_that_is_asked_for_at_once_is_stopped() {
    let body = "(drop (memory.grow (i32.const 30000)))";
    assert_eq!(*misbehave(job(&start(body))).fault(), memory());
    let wasm = r#"(module (memory (export "memory") 2000) (func (export "_start")))"#;
    let guest = crate::support::store(&crate::support::wat(wasm));
    assert_eq!(*misbehave(job(&guest)).fault(), memory());
}

#[test]
fn a_memory_with_a_maximum_of_its_own_fails_to_grow_beyond() {
    let wasm = r#"(module (memory (export "memory") 1 2) (func (export "_start")
        (if (i32.ne (memory.grow (i32.const 5000)) (i32.const -1)) (then unreachable))))"#;
    let guest = crate::support::store(&crate::support::wat(wasm));
    assert_eq!(misbehave(job(&guest)).text(), "");
}

#[test]
fn a_flood_of_output_is_stopped_at_the_limit() {
    let body = "(loop $l (call $print (i32.const 1) (i32.const 0) (i32.const 65535)) (br $l))";
    let seen = misbehave(job(&start(body)));
    let limit = Limits::default().output_bytes;
    assert_eq!(*seen.fault(), GuestFault::Output { limit });
    assert_eq!(seen.output.len() as u64, limit);
}

#[test]
fn a_flood_of_log_is_cut_and_is_no_fault() {
    let body = r"(local $n i32)
        (loop $l
            (call $print (i32.const 2) (i32.const 0) (i32.const 65535))
            (local.set $n (i32.add (local.get $n) (i32.const 1)))
            (br_if $l (i32.lt_u (local.get $n) (i32.const 1000))))";
    let seen = misbehave(job(&start(body)));
    assert_eq!(seen.text(), "");
    assert_eq!(seen.log.len() as u64, Limits::default().log_bytes);
    assert!(seen.outcome.log_truncated);
}

#[test]
fn an_endless_flood_of_log_runs_out_of_fuel() {
    let body = "(loop $l (call $print (i32.const 2) (i32.const 0) (i32.const 65535)) (br $l))";
    assert_eq!(*misbehave(job(&start(body))).fault(), fuel());
}

#[test]
fn there_are_no_files_and_no_environment_and_no_network() {
    let guest = command(
        r#"(data (i32.const 100) "/etc/passwd")
           (func $refused (param i32 i32)
             (if (i32.ne (local.get 0) (local.get 1)) (then (call $proc_exit (local.get 0)))))
           (func (export "_start")
             (call $refused (call $fd_prestat_get (i32.const 3) (i32.const 200)) (i32.const 8))
             (call $refused (call $path_open (i32.const 3) (i32.const 0) (i32.const 100) (i32.const 11)
               (i32.const 0) (i64.const -1) (i64.const -1) (i32.const 0) (i32.const 200)) (i32.const 8))
             (call $refused (call $path_open (i32.const 0) (i32.const 0) (i32.const 100) (i32.const 11)
               (i32.const 0) (i64.const -1) (i64.const -1) (i32.const 0) (i32.const 200)) (i32.const 54))
             (call $refused (call $sock_shutdown (i32.const 4) (i32.const 0)) (i32.const 8))
             (call $refused (call $sock_shutdown (i32.const 1) (i32.const 0)) (i32.const 57))
             (call $expect_zero (call $environ_sizes_get (i32.const 200) (i32.const 204)))
             (call $expect_zero (i32.load (i32.const 200)))
             (call $expect_zero (i32.load (i32.const 204))))"#,
    );
    assert_eq!(misbehave(job(&guest)).text(), "");
}

#[test]
fn sleeping_past_the_deadline_is_stopped() {
    let guest = start("(call $sleep_ms (i64.const 3600000))");
    // So that the deadline does not pass while it is compiled.
    block_on(SANDBOX.prepare(&guest)).unwrap();
    let seen = misbehave(with_deadline(job(&guest), Duration::from_millis(300)));
    assert_eq!(*seen.fault(), GuestFault::Deadline);
    assert!(seen.started);
}

#[test]
fn sleeping_past_the_time_limit_is_stopped() {
    let guest = start("(call $sleep_ms (i64.const 3600000))");
    let seen = misbehave(with_limits(job(&guest), |limits| limits.time_ms = 100));
    assert_eq!(*seen.fault(), GuestFault::Time { limit_ms: 100 });
    assert!(seen.outcome.time_guest >= Duration::from_millis(100));
}

#[test]
fn many_short_sleeps_add_up() {
    let guest = start("(loop $l (call $sleep_ms (i64.const 10)) (br $l))");
    let seen = misbehave(with_limits(job(&guest), |limits| limits.time_ms = 100));
    assert_eq!(*seen.fault(), GuestFault::Time { limit_ms: 100 });
}

#[test]
fn computing_past_the_deadline_is_stopped() {
    let guest = start("(loop $l (br $l))");
    let seen = misbehave(with_deadline(job(&guest), Duration::from_millis(50)));
    assert_eq!(*seen.fault(), GuestFault::Deadline);
}

#[test]
fn computing_past_the_time_limit_is_stopped() {
    let guest = start("(loop $l (br $l))");
    let seen = misbehave(with_limits(job(&guest), |limits| {
        limits.time_ms = 50;
        limits.fuel = u64::MAX;
    }));
    assert_eq!(*seen.fault(), GuestFault::Time { limit_ms: 50 });
}

#[test]
fn waiting_for_input_that_never_comes_is_stopped() {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let guest = start("(drop (call $input (i32.const 100) (i32.const 100)))");
    let job = Job {
        input: orb_runtime::Input::Stream(receiver),
        ..job(&guest)
    };
    let seen = misbehave(with_limits(job, |limits| limits.time_ms = 50));
    assert_eq!(*seen.fault(), GuestFault::Time { limit_ms: 50 });
    drop(sender);
}

#[test]
fn a_trap_says_which() {
    assert_eq!(
        *misbehave(job(&start("unreachable"))).fault(),
        trap("wasm `unreachable` instruction executed")
    );
    let body = "(drop (i32.load (i32.const -4)))";
    assert_eq!(
        *misbehave(job(&start(body))).fault(),
        trap("out of bounds memory access")
    );
    let body = "(drop (i32.div_u (i32.const 1) (i32.const 0)))";
    assert_eq!(
        *misbehave(job(&start(body))).fault(),
        trap("integer divide by zero")
    );
}

#[test]
fn a_non_zero_exit_says_the_code() {
    let seen = misbehave(job(&start("(call $proc_exit (i32.const 3))")));
    assert_eq!(*seen.fault(), GuestFault::Exit { code: 3 });
}

#[test]
fn what_was_written_before_the_fault_is_there() {
    let guest = command(
        r#"(data (i32.const 100) "half")
           (func (export "_start")
             (call $print (i32.const 1) (i32.const 100) (i32.const 4))
             (call $print (i32.const 2) (i32.const 100) (i32.const 4))
             unreachable)"#,
    );
    let seen = misbehave(job(&guest));
    assert!(matches!(seen.fault(), GuestFault::Trap { .. }));
    assert_eq!((&*seen.output, &*seen.log), (&b"half"[..], &b"half"[..]));
}

#[test]
fn nothing_survives_from_one_call_to_the_next() {
    // Says what it found in a global, at the start of memory, in grown memory and in the table;
    // then leaves something there.
    let guest = command(
        r#"(global $g (mut i32) (i32.const 0))
           (table $t 4 funcref)
           (func $f)
           (elem declare func $f)
           (func (export "_start")
             (i32.store8 (i32.const 100) (i32.add (i32.const 48) (global.get $g)))
             (i32.store8 (i32.const 101) (i32.add (i32.const 48) (i32.load8_u (i32.const 60000))))
             (drop (memory.grow (i32.const 8)))
             (i32.store8 (i32.const 102) (i32.add (i32.const 48) (i32.load8_u (i32.const 300000))))
             (i32.store8 (i32.const 103) (i32.add (i32.const 49) (ref.is_null (table.get $t (i32.const 2)))))
             (global.set $g (i32.const 1))
             (i32.store8 (i32.const 60000) (i32.const 2))
             (i32.store8 (i32.const 300000) (i32.const 3))
             (table.set $t (i32.const 2) (ref.func $f))
             (call $print (i32.const 1) (i32.const 100) (i32.const 4)))"#,
    );
    for _ in 0..50 {
        assert_eq!(misbehave(job(&guest)).text(), "0002");
    }
}
