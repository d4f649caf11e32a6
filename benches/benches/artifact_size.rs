//! Size of a JavaScript function's artifact against its source: at most 1 x + 1 KiB, line information kept.
//!
//! Sources are generated to look like what people write: helpers, a class, strings, comments. Each ends in
//! a function that throws on its last line but one, and the call's error has to name that line.

use std::fmt::Write as _;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use orb_benches::build_javascript;
use orb_runtime::{Artifact, CallContext, GuestFault, Input, Job, Limits, Sandbox, SandboxConfig};

/// Source sizes, in bytes.
const SIZES: [usize; 3] = [200, 10_000, 100_000];
/// What each source ends in.
const THROWS: &str = "export default (input) => {\n  \
     if (input.name === undefined) throw new Error(\"nobody is named\");\n  \
     return { hello: input.name };\n};\n";

fn main() -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let sandbox = Sandbox::new(SandboxConfig::default())?;
    println!(
        "{:>10} {:>10} {:>8}   (bar: source + 1,024)",
        "source", "artifact", "ratio"
    );
    for size in SIZES {
        let source = source(size);
        let artifact = runtime.block_on(build_javascript(&sandbox, &source))?;
        let line = runtime.block_on(line_of_the_error(&sandbox, &artifact))?;
        let (is, from) = (artifact.len(), source.len());
        println!(
            "{from:>10} {is:>10} {:>7.2}x   error on line {line}",
            is as f64 / from as f64
        );
        ensure!(
            is <= from + 1_024,
            "an artifact of {is} bytes from {from} bytes of source is over the bar"
        );
        let thrown = source.lines().count() - 2;
        ensure!(
            line as usize == thrown,
            "the error is on line {thrown}, and line {line} is named"
        );
    }
    Ok(())
}

/// Runs the function so that it throws, and says which line the error names.
async fn line_of_the_error(sandbox: &Sandbox, artifact: &[u8]) -> Result<u32> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("artifact");
    std::fs::write(&path, artifact)?;
    let hash = *orb_protocol::id::ArtifactHash::of(artifact).as_bytes();
    let job = Job {
        artifact: Artifact { hash, path },
        context: CallContext::default(),
        limits: Limits::default(),
        input: Input::Whole(Bytes::from_static(b"{}")),
    };
    match sandbox.run(job, |_| {}).await.result {
        Err(GuestFault::Thrown { location, .. }) => Ok(location.context("the error has a place")?.line),
        other => bail!("the function should have thrown: {other:?}"),
    }
}

/// About `size` bytes of JavaScript of the ordinary sort.
fn source(size: usize) -> String {
    let mut source = String::from("// Greets whoever is named in the input, and nobody else.\n");
    let mut index = 0;
    while source.len() + THROWS.len() + 120 < size {
        let _ = write!(source, "{}", block(index));
        index += 1;
    }
    source + THROWS
}

fn block(index: usize) -> String {
    match index % 3 {
        0 => format!(
            "\n// Adds up what is due for order {index}.\nfunction total{index}(items, rate = 0.{index}) {{\n  \
             let sum = 0;\n  for (const item of items) {{\n    sum += item.price * (item.count ?? 1);\n  }}\n  \
             return Math.round(sum * (1 + rate) * 100) / 100;\n}}\n"
        ),
        1 => format!(
            "\nclass Account{index} {{\n  constructor(owner, balance = {index}) {{\n    this.owner = owner;\n    \
             this.balance = balance;\n  }}\n\n  withdraw(amount) {{\n    if (amount > this.balance) {{\n      \
             throw new Error(`account ${{this.owner}} has only ${{this.balance}}`);\n    }}\n    this.balance -= \
             amount;\n    return this;\n  }}\n}}\n"
        ),
        _ => format!(
            "\n/** Words of a text, most frequent first. */\nconst words{index} = (text) => {{\n  const counts = new \
             Map();\n  for (const word of text.toLowerCase().split(/\\W+/)) {{\n    if (word.length > {}) \
             counts.set(word, (counts.get(word) ?? 0) + 1);\n  }}\n  return [...counts].sort((a, b) => b[1] - \
             a[1]).slice(0, {index});\n}};\n",
            index % 7
        ),
    }
}
