//! What a well-behaved command can rely on.

use std::time::Duration;

use bytes::Bytes;
use orb_runtime::{Event, GuestFault, Input, Kind};
use tokio::sync::mpsc;

use crate::support::{ECHO, SANDBOX, block_on, command, job, job_on, run, start, with_deadline, with_limits};

#[test]
fn stdin_is_the_input_and_stdout_the_answer() {
    block_on(async {
        let seen = run(job_on(&start(ECHO), "hello")).await;
        assert_eq!(seen.text(), "hello");
        assert!(seen.started && seen.log.is_empty());
        assert!(seen.outcome.fuel > 0);
        assert_eq!(seen.outcome.memory_peak_bytes, 65_536);
        assert!(!seen.outcome.log_truncated);
    });
}

#[test]
fn stderr_is_the_log() {
    block_on(async {
        let guest = command(
            r#"(data (i32.const 100) "note")
               (func (export "_start") (call $print (i32.const 2) (i32.const 100) (i32.const 4)))"#,
        );
        let seen = run(job(&guest)).await;
        assert_eq!(seen.text(), "");
        assert_eq!(seen.log, b"note");
    });
}

#[test]
fn large_input_passes_unchanged() {
    block_on(async {
        let input: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
        let seen = run(job_on(&start(ECHO), input.clone())).await;
        assert_eq!(seen.output, input);
    });
}

#[test]
fn input_that_streams_in_is_read_as_it_comes() {
    block_on(async {
        let (sender, receiver) = mpsc::channel(1);
        let (echoed, mut echoes) = mpsc::unbounded_channel();
        let call = tokio::spawn(async move {
            let job = orb_runtime::Job {
                input: Input::Stream(receiver),
                ..job(&start(ECHO))
            };
            let on_event = |event| {
                if let Event::Output(bytes) = event {
                    echoed.send(bytes).unwrap();
                }
            };
            SANDBOX.run(job, on_event).await
        });
        for piece in ["one", "two", "three"] {
            sender.send(Bytes::from(piece)).await.unwrap();
            // The next piece is not sent before this one came back.
            assert_eq!(echoes.recv().await.unwrap(), piece);
        }
        drop(sender);
        assert_eq!(call.await.unwrap().result, Ok(()));
    });
}

#[test]
fn several_buffers_are_written_in_order() {
    block_on(async {
        let guest = command(
            r#"(data (i32.const 100) "ab") (data (i32.const 200) "cd")
               (data (i32.const 300) "\c8\00\00\00\02\00\00\00\64\00\00\00\02\00\00\00")
               (func (export "_start")
                 (call $expect_zero (call $fd_write (i32.const 1) (i32.const 300) (i32.const 2) (i32.const 4)))
                 (if (i32.ne (i32.load (i32.const 4)) (i32.const 4)) (then unreachable)))"#,
        );
        assert_eq!(run(job(&guest)).await.text(), "cdab");
    });
}

#[test]
fn the_only_argument_is_the_functions_name() {
    block_on(async {
        let guest = start(
            r"(call $expect_zero (call $args_sizes_get (i32.const 16) (i32.const 20)))
              (if (i32.ne (i32.load (i32.const 16)) (i32.const 1)) (then unreachable))
              (call $expect_zero (call $args_get (i32.const 24) (i32.const 100)))
              (call $print (i32.const 1) (i32.load (i32.const 24)) (i32.load (i32.const 20)))",
        );
        assert_eq!(run(job(&guest)).await.text(), "owner/test\0");
    });
}

#[test]
fn exit_code_0_is_success() {
    block_on(async {
        assert_eq!(
            run(job(&start("(call $proc_exit (i32.const 0))"))).await.text(),
            ""
        );
    });
}

#[test]
fn sleeping_takes_time_and_next_to_no_fuel() {
    block_on(async {
        let seen = run(job(&start("(call $sleep_ms (i64.const 50))"))).await;
        assert_eq!(seen.text(), "");
        assert!(seen.outcome.time_guest >= Duration::from_millis(50));
        assert!(seen.outcome.fuel < 10_000);
    });
}

#[test]
fn sleeping_ends_early_when_input_comes() {
    block_on(async {
        // Subscribes to an hour and to standard input; gives the number of events and the type of
        // the first.
        let guest = start(
            r"(i32.store (i32.const 1040) (i32.const 1))
              (i64.store (i32.const 1048) (i64.const 3600000000000))
              (i32.store8 (i32.const 1080) (i32.const 1))
              (call $expect_zero (call $poll_oneoff (i32.const 1024) (i32.const 2048) (i32.const 2) (i32.const 4)))
              (i32.store8 (i32.const 100) (i32.add (i32.const 48) (i32.load (i32.const 4))))
              (i32.store8 (i32.const 101) (i32.add (i32.const 48) (i32.load8_u (i32.const 2058))))
              (call $print (i32.const 1) (i32.const 100) (i32.const 2))",
        );
        let (sender, receiver) = mpsc::channel(1);
        let job = orb_runtime::Job {
            input: Input::Stream(receiver),
            ..job(&guest)
        };
        let call = tokio::spawn(run(job));
        tokio::time::sleep(Duration::from_millis(20)).await;
        sender.send(Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(call.await.unwrap().text(), "11");
    });
}

#[test]
fn clocks_go_forward() {
    block_on(async {
        let guest = start(
            r"(call $expect_zero (call $clock_time_get (i32.const 1) (i64.const 0) (i32.const 16)))
              (call $sleep_ms (i64.const 2))
              (call $expect_zero (call $clock_time_get (i32.const 1) (i64.const 0) (i32.const 24)))
              (if (i64.lt_u (i64.sub (i64.load (i32.const 24)) (i64.load (i32.const 16))) (i64.const 2000000))
                (then unreachable))
              (call $expect_zero (call $clock_time_get (i32.const 0) (i64.const 0) (i32.const 16)))
              (if (i64.lt_u (i64.load (i32.const 16)) (i64.const 1700000000000000000)) (then unreachable))",
        );
        assert_eq!(run(job(&guest)).await.text(), "");
    });
}

#[test]
fn randomness_differs_from_call_to_call() {
    block_on(async {
        let guest = start(
            r"(call $expect_zero (call $random_get (i32.const 100) (i32.const 32)))
              (call $print (i32.const 1) (i32.const 100) (i32.const 32))",
        );
        let (one, other) = (run(job(&guest)).await, run(job(&guest)).await);
        assert_eq!(one.output.len(), 32);
        assert_ne!(one.output, other.output);
    });
}

#[test]
fn a_closed_stream_is_closed() {
    block_on(async {
        let guest = start(
            r"(call $expect_zero (call $fd_close (i32.const 1)))
              (if (i32.ne (call $fd_close (i32.const 1)) (i32.const 8)) (then unreachable))
              (if (i32.ne (call $fd_write (i32.const 1) (i32.const 100) (i32.const 0) (i32.const 4)) (i32.const 8))
                (then unreachable))",
        );
        assert_eq!(run(job(&guest)).await.text(), "");
    });
}

#[test]
fn pointers_out_of_memory_are_an_error_number() {
    block_on(async {
        let guest = start(
            r"(if (i32.ne (call $random_get (i32.const 65530) (i32.const 7)) (i32.const 21)) (then unreachable))
              (if (i32.ne (call $random_get (i32.const -1) (i32.const -1)) (i32.const 21)) (then unreachable))
              (if (i32.ne (call $fd_write (i32.const 1) (i32.const -4) (i32.const 1) (i32.const 4)) (i32.const 21)) (then unreachable))
              (if (i32.ne (call $fd_write (i32.const 1) (i32.const 0) (i32.const -1) (i32.const 4)) (i32.const 28)) (then unreachable))
              (if (i32.ne (call $poll_oneoff (i32.const -8) (i32.const -8) (i32.const 3) (i32.const -4)) (i32.const 21)) (then unreachable))
              (if (i32.ne (call $args_get (i32.const 65535) (i32.const 0)) (i32.const 21)) (then unreachable))",
        );
        assert_eq!(run(job(&guest)).await.text(), "");
    });
}

#[test]
fn a_start_function_may_use_the_streams() {
    block_on(async {
        let guest = command(
            r#"(data (i32.const 100) "early")
               (func $early (call $print (i32.const 1) (i32.const 100) (i32.const 5)))
               (start $early)
               (func (export "_start"))"#,
        );
        assert_eq!(run(job(&guest)).await.text(), "early");
    });
}

#[test]
fn input_over_the_limit_is_refused_before_the_guest_starts() {
    block_on(async {
        let job = with_limits(job_on(&start(ECHO), "12345"), |limits| limits.input_bytes = 4);
        let seen = run(job).await;
        assert_eq!(*seen.fault(), GuestFault::InputTooLarge { limit: 4 });
        assert!(!seen.started);
    });
}

#[test]
fn streamed_input_over_the_limit_ends_the_guest() {
    block_on(async {
        let (sender, receiver) = mpsc::channel(3);
        for _ in 0..3 {
            sender.send(Bytes::from_static(b"12345")).await.unwrap();
        }
        let job = orb_runtime::Job {
            input: Input::Stream(receiver),
            ..job(&start(ECHO))
        };
        let seen = run(with_limits(job, |limits| limits.input_bytes = 14)).await;
        assert_eq!(*seen.fault(), GuestFault::InputTooLarge { limit: 14 });
    });
}

#[test]
fn a_deadline_that_has_passed_starts_nothing() {
    block_on(async {
        // Never compiled before, so that there is something to wait for.
        let guest = start(r"(call $expect_zero (i32.const 0)) (call $sleep_ms (i64.const 1))");
        let seen = run(with_deadline(job(&guest), Duration::ZERO)).await;
        assert_eq!(*seen.fault(), GuestFault::Deadline);
        assert!(!seen.started);
    });
}

#[test]
fn preparing_says_what_it_is() {
    block_on(async {
        let prepared = SANDBOX.prepare(&start("(nop)")).await.unwrap();
        assert_eq!(prepared.kind, Kind::Command);
    });
}
