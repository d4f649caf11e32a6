//! Modules that are meant to hurt before they are run: by being compiled, linked or instantiated.
//! Each is refused for a reason or runs within its limits; the sandbox is as good as new afterwards,
//! and others are served meanwhile.

use std::fmt::Write as _;

use orb_runtime::{AdmissionError, GuestFault, admit};

use crate::support::{
    ECHO, Seen, assert_unharmed, block_on, job, job_on, run, start, store, wat, with_limits,
};

/// What a command has to have.
const COMMAND: &str = r#"(memory (export "memory") 1) (func (export "_start"))"#;

/// Runs a module in text form, given as its inside.
fn attack(fields: &str) -> Seen {
    attack_with(&wat(&format!("(module {fields})")))
}

/// Runs a module; the sandbox must be as good as new afterwards.
fn attack_with(wasm: &[u8]) -> Seen {
    let artifact = store(wasm);
    block_on(async {
        let seen = run(job(&artifact)).await;
        assert_unharmed().await;
        seen
    })
}

/// A monster may be refused or fail, by its own fault; the host never fails over it.
#[track_caller]
fn assert_its_own_fault(seen: &Seen) {
    match &seen.outcome.result {
        Ok(())
        | Err(
            GuestFault::Compile { .. }
            | GuestFault::Refused { .. }
            | GuestFault::Trap { .. }
            | GuestFault::Fuel { .. }
            | GuestFault::Memory { .. }
            | GuestFault::Time { .. },
        ) => {}
        Err(fault) => panic!("{fault:?}"),
    }
}

fn repeated(count: usize, field: impl Fn(usize) -> String) -> String {
    let mut text = String::new();
    for number in 0..count {
        // Writing to a text cannot fail.
        let _ = text.write_str(&field(number));
    }
    text
}

/// A module whose one function is this code (without its `end`), in binary form: the text format's
/// parser has limits of its own.
fn with_code(locals: &[u8], code: &[u8]) -> Vec<u8> {
    fn section(id: u8, body: &[u8]) -> Vec<u8> {
        [&[id][..], &leb128(body.len()), body].concat()
    }
    fn leb128(mut value: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let low = (value & 0x7f) as u8;
            value >>= 7;
            if value == 0 {
                bytes.push(low);
                return bytes;
            }
            bytes.push(low | 0x80);
        }
    }
    let function = [locals, code, &[0x0b]].concat();
    let body = [&[1][..], &leb128(function.len()), &function].concat();
    [
        b"\0asm\x01\0\0\0".to_vec(),
        // One type without parameters and results, one function of it, one page of memory.
        section(1, b"\x01\x60\0\0"),
        section(3, b"\x01\0"),
        section(5, b"\x01\0\x01"),
        section(7, b"\x02\x06_start\0\0\x06memory\x02\0"),
        section(10, &body),
    ]
    .concat()
}

/// `block` after `block`, and as many ends.
fn nested(depth: usize) -> Vec<u8> {
    let mut code = [0x02, 0x40].repeat(depth);
    code.extend(std::iter::repeat_n(0x0b, depth));
    code
}

#[test]
fn deeply_nested_blocks_do_not_overflow_the_compiler() {
    for depth in [1_000, 150_000] {
        assert_its_own_fault(&attack_with(&with_code(&[0], &nested(depth))));
    }
}

#[test]
fn deeply_nested_loops_and_conditions_do_not_overflow_the_compiler() {
    let depth = 40_000;
    // `i32.const 0`, `if`; and `loop`.
    let mut code = [0x41, 0x00, 0x04, 0x40, 0x03, 0x40].repeat(depth);
    code.extend(std::iter::repeat_n(0x0b, 2 * depth));
    assert_its_own_fault(&attack_with(&with_code(&[0], &code)));
}

#[test]
fn a_branch_table_as_long_as_a_function_may_be_is_compiled_or_refused() {
    // block, i32.const 0, br_table with 400,000 targets, end.
    let targets = 400_000_usize;
    let mut code = vec![0x02, 0x40, 0x41, 0x00, 0x0e, 0x80, 0xb5, 0x18];
    code.extend(std::iter::repeat_n(0, targets + 1));
    code.push(0x0b);
    assert_its_own_fault(&attack_with(&with_code(&[0], &code)));
}

#[test]
fn the_largest_tables_are_reset_and_larger_ones_refused() {
    let largest = r"(table 65536 funcref) (table 65536 funcref)";
    for _ in 0..3 {
        assert_eq!(attack(&format!("{largest} {COMMAND}")).text(), "");
    }
    let seen = attack(&format!("(table 65537 funcref) {COMMAND}"));
    assert!(matches!(seen.fault(), GuestFault::Compile { .. }), "{seen:?}");
}

#[test]
fn a_table_that_grows_without_end_does_not() {
    let body =
        r"(loop $l (br_if $l (i32.ne (table.grow 0 (ref.null func) (i32.const 1000)) (i32.const -1))))";
    let seen = attack(&format!(
        r#"(table 1 funcref) (memory (export "memory") 1) (func (export "_start") {body})"#
    ));
    assert_eq!(seen.text(), "");
}

#[test]
fn thousands_of_functions_are_compiled_and_too_many_refused() {
    let many = repeated(10_000, |_| "(func)".to_owned());
    assert_eq!(attack(&format!("{many} {COMMAND}")).text(), "");
    let too_many = repeated(65_537, |_| "(func)".to_owned());
    let seen = attack(&format!("{too_many} {COMMAND}"));
    assert!(matches!(seen.fault(), GuestFault::Compile { .. }), "{seen:?}");
}

#[test]
fn a_table_of_all_functions_is_its_own_fault_at_most() {
    let functions = repeated(40_000, |_| "(func)".to_owned());
    let names = repeated(40_000, |number| format!(" {number}"));
    let table = format!("(table funcref (elem {names}))");
    assert_its_own_fault(&attack(&format!("{functions} {table} {COMMAND}")));
}

#[test]
fn maximal_exports_and_globals_are_its_own_fault_at_most() {
    let exports = repeated(50_000, |number| format!(r#"(func (export "f{number}"))"#));
    assert_its_own_fault(&attack(&format!("{exports} {COMMAND}")));
    let globals = repeated(10_000, |_| "(global (mut i64) (i64.const 7))".to_owned());
    assert_its_own_fault(&attack(&format!("{globals} {COMMAND}")));
}

#[test]
fn maximal_imports_are_refused() {
    let import = r#"(import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))"#;
    let some = repeated(500, |_| import.to_owned());
    assert_eq!(attack(&format!("{some} {COMMAND}")).text(), "");
    let wasm = wat(&format!(
        "(module {} {COMMAND})",
        repeated(60_000, |_| import.to_owned())
    ));
    let refused = admit(&wasm).unwrap_err();
    assert!(
        matches!(&refused, AdmissionError::TooMany { what, .. } if what == "imports"),
        "{refused:?}"
    );
    let seen = attack_with(&wasm);
    assert!(matches!(seen.fault(), GuestFault::Compile { .. }), "{seen:?}");
}

#[test]
fn a_proposal_that_is_not_enabled_is_refused_by_name() {
    for fields in [
        "(memory 1) (memory 1)",
        "(memory i64 1)",
        "(tag (param i32))",
        "(type (struct))",
    ] {
        let seen = attack(&format!("{fields} {COMMAND}"));
        let GuestFault::Refused { message } = seen.fault() else {
            panic!("{fields}: {seen:?}");
        };
        assert!(message.contains("proposal"), "{message}");
    }
}

#[test]
fn a_start_function_that_loops_runs_out_of_fuel() {
    let fields = format!("{COMMAND} (func $forever (loop $l (br $l))) (start $forever)");
    let artifact = store(&wat(&format!("(module {fields})")));
    let limit = 1_000_000_000;
    block_on(async {
        let seen = run(with_limits(job(&artifact), |limits| limits.fuel = limit)).await;
        assert_eq!(*seen.fault(), GuestFault::Fuel { limit });
        assert_eq!(seen.outcome.fuel, limit);
        assert_unharmed().await;
    });
}

#[test]
fn a_start_function_that_traps_is_a_trap() {
    let seen = attack(&format!("{COMMAND} (func $no unreachable) (start $no)"));
    assert!(matches!(seen.fault(), GuestFault::Trap { .. }), "{seen:?}");
}

#[test]
fn data_and_elements_out_of_bounds_are_traps() {
    for fields in [
        r#"(data (i32.const 65535) "ab")"#,
        "(table 1 funcref) (func $f) (elem (i32.const 1) func $f)",
    ] {
        let seen = attack(&format!("{COMMAND} {fields}"));
        assert!(
            matches!(seen.fault(), GuestFault::Trap { .. }),
            "{fields}: {seen:?}"
        );
    }
}

/// One function of nearly the largest size, all of it arithmetic on thousands of locals that are live
/// to the end: what takes a register allocator longest.
fn slow_to_compile(salt: u8) -> Vec<u8> {
    // 8,192 locals of type i64.
    let locals = [0x01, 0x80, 0x40, 0x7e];
    let mut code = vec![0x42, salt & 0x3f, 0x1a];
    let local = |number: usize| [0x80 | (number & 0x7f) as u8, (number >> 7) as u8 & 0x3f];
    for number in 0..40_000_usize {
        // local[n * 7] = local[n] * local[n * 3] + local[n * 7], in a block of its own each.
        let [a, b, c] = [number % 8_192, number * 3 % 8_192, number * 7 % 8_192].map(local);
        code.extend([0x20, a[0], a[1], 0x20, b[0], b[1], 0x7e]);
        code.extend([0x20, c[0], c[1], 0x7c, 0x21, c[0], c[1]]);
    }
    code.truncate(500 << 10);
    with_code(&locals, &code)
}

#[test]
fn what_takes_long_to_compile_holds_up_nobody_else() {
    block_on(async {
        let echo = start(ECHO);
        // Known before: what has to be compiled itself waits for its turn.
        assert_eq!(run(job_on(&echo, "before")).await.text(), "before");
        let bombs: Vec<_> = (0..3)
            .map(|salt| {
                let bomb = job(&store(&slow_to_compile(salt)));
                tokio::spawn(async move { run(bomb).await })
            })
            .collect();
        let mut served = 0;
        while served < 100 || (served < 10_000 && !bombs.iter().all(tokio::task::JoinHandle::is_finished)) {
            assert_eq!(run(job_on(&echo, "during")).await.text(), "during");
            served += 1;
        }
        for bomb in bombs {
            assert_its_own_fault(&bomb.await.unwrap());
        }
        assert_unharmed().await;
    });
}

#[test]
fn well_behaved_calls_go_through_among_all_monsters() {
    let looping = format!("{COMMAND} (func $forever (loop $l (br $l))) (start $forever)");
    let tables = format!("(table 65536 funcref) (table 65536 funcref) {COMMAND}");
    let functions = format!("{} {COMMAND}", repeated(5_000, |_| "(func)".to_owned()));
    let threads = format!("(memory 1 1 shared) {COMMAND}");
    let mut monsters: Vec<Vec<u8>> = [looping, tables, functions, threads]
        .iter()
        .map(|fields| wat(&format!("(module {fields})")))
        .collect();
    monsters.push(with_code(&[0], &nested(20_000)));
    block_on(async {
        let hostile: Vec<_> = (0..60)
            .map(|number| {
                let monster = store(&monsters[number % monsters.len()]);
                let job = with_limits(job(&monster), |limits| limits.fuel = 100_000_000);
                tokio::spawn(async move { run(job).await })
            })
            .collect();
        let echo = start(ECHO);
        for number in 0..200 {
            let said = format!("call {number}");
            assert_eq!(run(job_on(&echo, said.clone())).await.text(), said);
        }
        for monster in hostile {
            assert_its_own_fault(&monster.await.unwrap());
        }
        assert_unharmed().await;
    });
}
