//! Many calls at once.

use std::pin::pin;
use std::time::Duration;

use orb_runtime::{Event, GuestFault, Input, Job, Outcome, Sandbox, SandboxConfig};
use tokio::sync::{mpsc, oneshot};

use crate::support::{
    ECHO, SANDBOX, assert_unharmed, block_on, job, job_on, run, run_in, start, with_deadline, with_limits,
};

#[test]
fn well_behaved_calls_go_through_among_hostile_ones() {
    block_on(async {
        let looping = start("(loop $l (br $l))");
        let growing = start("(loop $l (drop (memory.grow (i32.const 16))) (br $l))");
        let sleeping = start("(call $sleep_ms (i64.const 3600000))");
        let flooding = start("(loop $l (call $print (i32.const 2) (i32.const 0) (i32.const 65535)) (br $l))");
        let hostile: Vec<_> = (0..60)
            .map(|n| {
                let guest = [&looping, &growing, &sleeping, &flooding][n % 4];
                let job = with_limits(job(guest), |limits| {
                    limits.fuel = 300_000_000;
                    limits.time_ms = 2_000;
                });
                tokio::spawn(run(job))
            })
            .collect();
        let echo = start(ECHO);
        for n in 0..200 {
            assert_eq!(
                run(job_on(&echo, format!("call {n}"))).await.text(),
                format!("call {n}")
            );
        }
        for (n, call) in hostile.into_iter().enumerate() {
            let seen = call.await.unwrap();
            let expected = match n % 4 {
                0 | 3 => GuestFault::Fuel { limit: 300_000_000 },
                1 => GuestFault::Memory { limit: 64 << 20 },
                _ => GuestFault::Time { limit_ms: 2_000 },
            };
            assert_eq!(*seen.fault(), expected);
        }
    });
}

#[test]
fn a_guest_that_waits_for_a_turn_uses_no_time() {
    // Far more guests than cores, each computing for less than its limit by itself, and in all for
    // many times as long: none may run out of time.
    block_on(async {
        let guest = start("(loop $l (br $l))");
        let calls: Vec<_> = (0..32)
            .map(|_| {
                let job = with_limits(job(&guest), |limits| {
                    limits.fuel = 500_000_000;
                    limits.time_ms = 1_000;
                });
                tokio::spawn(run(job))
            })
            .collect();
        for call in calls {
            let seen = call.await.unwrap();
            assert_eq!(*seen.fault(), GuestFault::Fuel { limit: 500_000_000 });
        }
    });
}

/// A sandbox for a single guest.
fn narrow() -> Sandbox {
    let config = SandboxConfig {
        instances_max: 1,
        ..SandboxConfig::default()
    };
    Sandbox::new(config).unwrap()
}

#[test]
fn dropping_a_call_stops_the_guest_and_frees_its_place() {
    block_on(async {
        let sandbox = narrow();
        for body in ["(loop $l (br $l))", "(call $sleep_ms (i64.const 3600000))"] {
            let (started, has_started) = oneshot::channel();
            let call = tokio::spawn({
                let (sandbox, mut started) = (sandbox.clone(), Some(started));
                let job = with_limits(job(&start(body)), |limits| limits.fuel = u64::MAX);
                async move {
                    let on_event = |event| {
                        if let (Event::Started, Some(started)) = (event, started.take()) {
                            started.send(()).unwrap();
                        }
                    };
                    sandbox.run(job, on_event).await
                }
            });
            has_started.await.unwrap();
            call.abort();
            assert!(call.await.unwrap_err().is_cancelled());
            assert_eq!(
                run_in(&sandbox, job_on(&start(ECHO), "next")).await.text(),
                "next"
            );
        }
    });
}

#[test]
fn a_call_waits_for_a_place_until_its_deadline() {
    block_on(async {
        let sandbox = narrow();
        let echo = start(ECHO);
        sandbox.prepare(&echo).await.unwrap();
        // It has the only place until its input ends, however fast the machine is.
        let (input, pieces) = mpsc::channel(1);
        let (started, has_started) = oneshot::channel();
        let first = tokio::spawn({
            let (sandbox, mut started) = (sandbox.clone(), Some(started));
            let job = Job {
                input: Input::Stream(pieces),
                ..with_limits(job(&echo), |limits| limits.time_ms = 600_000)
            };
            async move {
                let on_event = |_| {
                    if let Some(started) = started.take() {
                        started.send(()).unwrap();
                    }
                };
                sandbox.run(job, on_event).await
            }
        });
        has_started.await.unwrap();
        let haste = Duration::from_millis(20);
        let hasty = || run_in(&sandbox, with_deadline(job(&echo), haste));
        let seen = hasty().await;
        assert_eq!(*seen.fault(), GuestFault::Deadline);
        assert!(!seen.started);

        let mut patient = pin!(run_in(&sandbox, job_on(&echo, "patient")));
        // It asked first, and a whole deadline later it has no place.
        tokio::select! {
            biased;
            seen = &mut patient => panic!("there is a place for one: {seen:?}"),
            seen = hasty() => assert_eq!(*seen.fault(), GuestFault::Deadline),
        }
        assert!(!first.is_finished());
        drop(input);
        let patient = patient.await;
        assert_eq!(patient.text(), "patient");
        // From when it asked; what is loaded already takes next to nothing of it.
        let Outcome {
            time_compile,
            time_queued,
            ..
        } = patient.outcome;
        assert!(time_compile + time_queued >= haste);
        assert_eq!(first.await.unwrap().result, Ok(()));
    });
}

#[test]
fn a_thousand_calls_reuse_the_places() {
    block_on(async {
        let echo = start(ECHO);
        let calls: Vec<_> = (0..1000)
            .map(|n| tokio::spawn(run(job_on(&echo, format!("{n}")))))
            .collect();
        for (n, call) in calls.into_iter().enumerate() {
            assert_eq!(call.await.unwrap().text(), format!("{n}"));
        }
        assert!(SANDBOX.features().instances_max < 1000);
        assert_unharmed().await;
    });
}
