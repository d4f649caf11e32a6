//! A function as a WASI program: the input comes on stdin, the answer goes to stdout, and what is
//! written to stderr is its log. Called once per request, in a fresh instance.

use std::io;

use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Input {
    numbers: Vec<f64>,
}

#[derive(Serialize)]
struct Answer {
    count: usize,
    sum: f64,
    mean: Option<f64>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let input: Input = serde_json::from_reader(io::stdin().lock())?;
    eprintln!("{} numbers", input.numbers.len());
    serde_json::to_writer(io::stdout().lock(), &answer(&input.numbers))?;
    Ok(())
}

fn answer(numbers: &[f64]) -> Answer {
    let sum: f64 = numbers.iter().sum();
    let mean = (!numbers.is_empty()).then(|| sum / numbers.len() as f64);
    Answer {
        count: numbers.len(),
        sum,
        mean,
    }
}
