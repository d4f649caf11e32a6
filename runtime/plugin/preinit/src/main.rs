//! `orb-javy-preinit IN.wasm OUT.wasm`: runs the engine's `initialize-runtime` and writes a
//! module that starts out initialized, and its BLAKE3 to `OUT.wasm.b3`.
//!
//! The host functions are the same for everybody: clocks stand still, random bytes are
//! zero, the environment is empty. So the snapshot depends on nothing but the module.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use wasmtime::{Caller, Engine, Extern, Instance, Linker, Module, Result, Store, Val, bail};
use wasmtime_wizer::{InstanceState, SnapshotVal, ValType, Wizer};

const INITIALIZE: &str = "initialize-runtime";

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(input), Some(output)) = (args.next(), args.next()) else {
        bail!("usage: orb-javy-preinit IN.wasm OUT.wasm");
    };
    let wasm = std::fs::read(input)?;
    let mut wizer = Wizer::new();
    wizer.init_func(INITIALIZE);
    let (context, instrumented) = wizer.instrument(&wasm)?;
    let mut initialized = initialize(&instrumented)?;
    let snapshot = block_on(wizer.snapshot(&context, &mut initialized))?;
    std::fs::write(
        format!("{output}.b3"),
        format!("{}\n", blake3::hash(&snapshot).to_hex()),
    )?;
    std::fs::write(output, snapshot)?;
    Ok(())
}

/// An instance that has run its initialization.
struct Initialized {
    store: Store<()>,
    instance: Instance,
}

fn initialize(wasm: &[u8]) -> Result<Initialized> {
    let engine = Engine::default();
    let module = Module::new(&engine, wasm)?;
    let mut linker = Linker::new(&engine);
    provide_wasi(&mut linker)?;
    linker.define_unknown_imports_as_traps(&module)?;
    let mut store = Store::new(&engine, ());
    let instance = linker.instantiate(&mut store, &module)?;
    if let Some(start) = instance.get_func(&mut store, "_initialize") {
        start.call(&mut store, &[], &mut [])?;
    }
    instance
        .get_typed_func::<(), ()>(&mut store, INITIALIZE)?
        .call(&mut store, ())?;
    Ok(Initialized { store, instance })
}

/// What the C library asks for before the first JavaScript runs.
fn provide_wasi(linker: &mut Linker<()>) -> Result<()> {
    const WASI: &str = "wasi_snapshot_preview1";
    linker.func_wrap(
        WASI,
        "environ_sizes_get",
        |caller: Caller<'_, ()>, count: u32, size: u32| write(caller, &[(count, &[0; 4]), (size, &[0; 4])]),
    )?;
    linker.func_wrap(WASI, "environ_get", |_: u32, _: u32| 0_u32)?;
    linker.func_wrap(
        WASI,
        "clock_time_get",
        |caller: Caller<'_, ()>, _: u32, _: u64, at: u32| write(caller, &[(at, &[0; 8])]),
    )?;
    linker.func_wrap(WASI, "random_get", |caller: Caller<'_, ()>, at: u32, len: u32| {
        write(caller, &[(at, &vec![0; len as usize])])
    })?;
    Ok(())
}

fn write(mut caller: Caller<'_, ()>, parts: &[(u32, &[u8])]) -> Result<u32> {
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
        bail!("the module exports no memory");
    };
    for (at, bytes) in parts {
        memory.write(&mut caller, *at as usize, bytes)?;
    }
    Ok(0)
}

impl InstanceState for Initialized {
    async fn global_get(&mut self, name: &str, _: ValType) -> SnapshotVal {
        let global = self.instance.get_global(&mut self.store, name);
        match global.expect("wizer exports every global").get(&mut self.store) {
            Val::I32(x) => SnapshotVal::I32(x),
            Val::I64(x) => SnapshotVal::I64(x),
            Val::F32(x) => SnapshotVal::F32(x),
            Val::F64(x) => SnapshotVal::F64(x),
            Val::V128(x) => SnapshotVal::V128(x.as_u128()),
            other => panic!("a global of an unexpected type: {other:?}"),
        }
    }

    async fn memory_contents(&mut self, name: &str, contents: impl FnOnce(&[u8]) + Send) {
        let memory = self.instance.get_memory(&mut self.store, name);
        contents(memory.expect("wizer exports every memory").data(&self.store));
    }
}

/// The snapshot's future never waits: nothing here is really asynchronous.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
}
