//! Runs a scenario of the simulator: `sim SCENARIO [--seed N] [--seeds COUNT] [--json]`.

use std::process::ExitCode;

use orb_protocol::sim::{Report, run, scenario::Scenario};

const USAGE: &str = "usage: sim SCENARIO.toml [--seed N] [--seeds COUNT] [--json]

Runs the scenario with the seed (1), or with so many seeds from it on. The exit code is 1 if a property does not hold,
and the command that shows it again is printed.";

struct Arguments {
    file: String,
    seed: u64,
    seeds: u64,
    json: bool,
}

fn main() -> ExitCode {
    match arguments().and_then(|arguments| simulate(&arguments)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
    }
}

fn arguments() -> Result<Arguments, String> {
    let (mut file, mut seed, mut seeds, mut json) = (None, 1, 1, false);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || {
            let word = words.next().unwrap_or_default();
            word.parse::<u64>()
                .map_err(|_| format!("{word:?} is no number\n{USAGE}"))
        };
        match word.as_str() {
            "--seed" => seed = number()?,
            "--seeds" => seeds = number()?,
            "--json" => json = true,
            _ if file.is_none() && !word.starts_with('-') => file = Some(word),
            _ => return Err(format!("{word:?} is not understood\n{USAGE}")),
        }
    }
    let file = file.ok_or(USAGE)?;
    Ok(Arguments {
        file,
        seed,
        seeds,
        json,
    })
}

fn simulate(arguments: &Arguments) -> Result<bool, String> {
    let file = &arguments.file;
    let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let scenario = Scenario::parse(&text).map_err(|error| format!("{file}: {error}"))?;
    let mut ok = true;
    for seed in arguments.seed..arguments.seed + arguments.seeds {
        let report = run(&scenario, seed);
        if arguments.json {
            println!(
                "{}",
                serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?
            );
        } else {
            print(&report);
        }
        if !report.ok {
            ok = false;
            eprintln!(
                "again: cargo run --release -p orb-protocol --features sim --bin sim -- {file} --seed {seed}"
            );
        }
    }
    Ok(ok)
}

fn print(report: &Report) {
    println!("seed {}: {}", report.seed, if report.ok { "ok" } else { "WRONG" });
    for check in &report.checks {
        let example = check.example.as_deref().unwrap_or_default();
        println!(
            "  {:48} {:>8} looked at, {} wrong {example}",
            check.property, check.looked_at, check.wrong
        );
    }
    let spread = &report.spread;
    println!(
        "  {} edits reached {} hosts: p50 {:.1} ms, p99 {:.1} ms ({:.2} round trips), last {:.1} ms",
        spread.edits, spread.holders, spread.p50_ms, spread.p99_ms, spread.p99_round_trips, spread.last_ms
    );
}
