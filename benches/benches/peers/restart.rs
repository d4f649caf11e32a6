//! The first call of a command of a megabyte after a restart, when its code was compiled before.
//!
//! The baseline does by hand what has to be done: a warm call, reading the file of compiled code, a keyed
//! BLAKE3 over it, and wasmtime's `Module::deserialize` of those bytes. Orb does besides: verify the artifact
//! itself, and keep the code in sealed memory. What a process needs to start is no part of either.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use orb_benches::race::Race;
use orb_host::executor::{Executors, ExecutorsConfig, Launch};
use orb_runtime::{Artifact, CallContext, Input, Job, Limits, Machine, Sandbox, SandboxConfig};
use tokio::runtime::Runtime;
use wasmtime::Module;

/// Functions of the command: with them it has about a megabyte.
const FUNCTIONS: usize = 4_000;
/// What precedes the code in a file of compiled code: what it is, and the key's hash of it.
const HEADER_BYTES: usize = 48;

pub(crate) fn measure(runtime: &Runtime, short: bool) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let wasm = command()?;
    let artifact = Artifact {
        hash: *blake3::hash(&wasm).as_bytes(),
        path: folder.path().join("artifact"),
    };
    std::fs::write(&artifact.path, &wasm)?;
    let sandbox = SandboxConfig {
        cache_dir: Some(folder.path().join("cache")),
        ..SandboxConfig::default()
    };
    let config = ExecutorsConfig {
        sandbox,
        processes: 1,
        memory_bytes: 4 << 30,
        require_walls: false,
        launch: Launch::this_program(),
    };
    let warm = Place::start(runtime, &config, Where::Executor)?;
    warm.call(runtime, &artifact)?;
    let warm_here = Place::start(runtime, &config, Where::Here)?;
    warm_here.call(runtime, &artifact)?;
    let code = code_file(&folder.path().join("cache"))?;
    let by_hand = ByHand {
        machine: Machine::new(&config.sandbox)?,
        path: &code,
    };
    let size = std::fs::metadata(&code)?.len();
    let title = format!(
        "first call after a restart, command of {} bytes ({size} compiled)",
        wasm.len()
    );
    for (place, warm) in [(Where::Executor, warm), (Where::Here, warm_here)] {
        Race::new(format!("{title}, {}", place.name()), short)
            .single()
            .baseline("a warm call, read, keyed BLAKE3 and deserialize", |_| {
                Ok(warm.call(runtime, &artifact)? + by_hand.load()?)
            })
            .contender("orb, first call", |_| {
                Place::start(runtime, &config, place)?.call(runtime, &artifact)
            })
            .run()?;
    }
    Ok(())
}

/// Where guests run.
#[derive(Clone, Copy)]
enum Where {
    Here,
    Executor,
}

impl Where {
    fn name(self) -> &'static str {
        match self {
            Self::Here => "in one process",
            Self::Executor => "in an executor",
        }
    }
}

enum Place {
    Here(Sandbox),
    Executor(Executors),
}

impl Place {
    fn start(runtime: &Runtime, config: &ExecutorsConfig, place: Where) -> Result<Self> {
        Ok(match place {
            Where::Here => Self::Here(Sandbox::new(config.sandbox.clone())?),
            Where::Executor => Self::Executor(runtime.block_on(Executors::start(config.clone()))?),
        })
    }

    /// One call, and how long it took.
    fn call(&self, runtime: &Runtime, artifact: &Artifact) -> Result<Duration> {
        let job = Job {
            artifact: artifact.clone(),
            context: CallContext::default(),
            limits: Limits::default(),
            input: Input::default(),
        };
        let began = Instant::now();
        let outcome = runtime.block_on(async {
            match self {
                Self::Here(sandbox) => sandbox.run(job, drop).await,
                Self::Executor(executors) => executors.run(job, drop).await,
            }
        });
        let took = began.elapsed();
        outcome.result?;
        Ok(took)
    }
}

/// Loading code without Orb.
struct ByHand<'a> {
    machine: Machine,
    path: &'a Path,
}

impl ByHand<'_> {
    fn load(&self) -> Result<Duration> {
        let began = Instant::now();
        let file = std::fs::read(self.path)?;
        std::hint::black_box(blake3::keyed_hash(&[7; blake3::KEY_LEN], &file));
        // SAFETY: the sandbox of this very process wrote the file, into a folder of ours.
        let module = unsafe { Module::deserialize(self.machine.engine(), &file[HEADER_BYTES..]) };
        let module = module.map_err(|error| anyhow!("{error:#}"))?;
        let took = began.elapsed();
        drop(module);
        Ok(took)
    }
}

/// The one file of compiled code in a cache.
fn code_file(cache: &Path) -> Result<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(cache)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "cwasm") {
            files.push(path);
        }
    }
    ensure!(
        files.len() == 1,
        "one module was compiled, and {} are there",
        files.len()
    );
    files.pop().context("one file")
}

/// A command of many functions, each of some arithmetic and memory, of which a call runs a few.
fn command() -> Result<Vec<u8>> {
    let mut text = String::from("(module (memory (export \"memory\") 2)\n");
    for index in 0..FUNCTIONS {
        function(&mut text, index)?;
    }
    text.push_str("(func (export \"_start\") (drop (call $f5 (i32.const 3) (i32.const 4)))))\n");
    Ok(wat::parse_str(&text)?)
}

fn function(text: &mut String, index: usize) -> Result<()> {
    write!(
        text,
        "(func $f{index} (param $a i32) (param $b i32) (result i32) (local $i i32) (local $s i64)\n\
         (if (i32.gt_u (local.get $a) (i32.const 100000)) (then (return (local.get $b))))\n\
         (loop $more\n"
    )?;
    for step in 0..6 {
        let at = (index * 61 + step * 1_009) % 65_000;
        write!(
            text,
            "(local.set $s (i64.add (i64.mul (local.get $s) (i64.const {odd})) (i64.extend_i32_u (i32.xor \
             (i32.load offset={at} (local.get $i)) (local.get $b)))))\n\
             (i32.store offset={at} (local.get $i) (i32.wrap_i64 (local.get $s)))\n",
            odd = index * 2 + step * 64 + 1,
        )?;
    }
    // Calls lead down, so that each ends.
    let callee = index / 2;
    let call = if index == 0 {
        "(local.get $b)".to_owned()
    } else {
        format!("(call $f{callee} (local.get $b) (local.get $i))")
    };
    write!(
        text,
        "(local.set $i (i32.add (local.get $i) (i32.const 1)))\n\
         (br_if $more (i32.lt_u (local.get $i) (i32.const 4))))\n(i32.add {call} (i32.wrap_i64 (local.get $s))))\n",
    )?;
    Ok(())
}
