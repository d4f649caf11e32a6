//! wasmtime with nothing of Orb's around it: what the sandbox is compared with.
//!
//! The same pool (copy-on-write, `pagemap_scan` where the kernel has it, the same memory kept resident), and
//! a fresh store and instance per call from an `InstancePre`.

use anyhow::{Context, Result};
use bytes::Bytes;
use wasmtime::{
    Config, Enabled, Engine, Instance, InstanceAllocationStrategy, InstancePre, Linker, Module,
    PoolingAllocationConfig, Store,
};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::pipe::{MemoryInputPipe, MemoryOutputPipe};

use crate::{EMPTY_COMMAND, INPUT};

/// Fuel after which a metered guest gives way, as in Orb.
const YIELD_FUEL: u64 = 1_000_000;

/// Wasmtime as one would embed it without Orb.
pub struct Bare {
    /// With the same pool as Orb's.
    pub engine: Engine,
    linker: Linker<WasiP1Ctx>,
    /// What each call may burn; not counted if there is none.
    fuel: Option<u64>,
}

/// A program and how it is instantiated.
pub enum BareProgram {
    /// By itself.
    Command(InstancePre<WasiP1Ctx>),
    /// The plugin, and the module that imports what it exports.
    JavaScript(InstancePre<WasiP1Ctx>, Module),
}

/// The empty command with nothing around it: what an instance costs.
pub struct Naked(InstancePre<()>);

impl Naked {
    /// Compiles it.
    ///
    /// # Errors
    /// wasmtime's.
    pub fn new(engine: &Engine) -> Result<Self> {
        let module = Module::new(engine, EMPTY_COMMAND).map_err(plain)?;
        let pre = Linker::new(engine).instantiate_pre(&module).map_err(plain)?;
        Ok(Self(pre))
    }

    /// One call.
    ///
    /// # Errors
    /// wasmtime's.
    pub fn call(&self, engine: &Engine) -> Result<()> {
        let mut store = Store::new(engine, ());
        let instance = self.0.instantiate(&mut store).map_err(plain)?;
        let start = instance
            .get_typed_func::<(), ()>(&mut store, "_start")
            .map_err(plain)?;
        start.call(&mut store, ()).map_err(plain)
    }
}

impl Bare {
    /// An engine; with `fuel` it counts that, as Orb does.
    ///
    /// # Errors
    /// wasmtime's.
    pub fn new(fuel: Option<u64>) -> Result<Self> {
        let mut pool = PoolingAllocationConfig::default();
        pool.total_core_instances(64)
            .total_memories(64)
            .total_tables(64)
            .total_stacks(64)
            .table_keep_resident(16 << 10)
            .pagemap_scan(Enabled::Auto);
        if PoolingAllocationConfig::is_pagemap_scan_available() {
            pool.linear_memory_keep_resident(512 << 10);
        }
        let mut config = Config::new();
        config
            .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
            .consume_fuel(fuel.is_some());
        let engine = Engine::new(&config).map_err(plain)?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p1::add_to_linker_async(&mut linker, |ctx| ctx).map_err(plain)?;
        Ok(Self { engine, linker, fuel })
    }

    fn store(&self, wasi: WasiP1Ctx) -> Result<Store<WasiP1Ctx>> {
        let mut store = Store::new(&self.engine, wasi);
        if let Some(fuel) = self.fuel {
            store.set_fuel(fuel).map_err(plain)?;
            store.fuel_async_yield_interval(Some(YIELD_FUEL)).map_err(plain)?;
        }
        Ok(store)
    }

    fn pre(&self, wasm: &[u8]) -> Result<InstancePre<WasiP1Ctx>> {
        let module = Module::new(&self.engine, wasm).map_err(plain)?;
        self.linker.instantiate_pre(&module).map_err(plain)
    }

    /// A WASI command.
    ///
    /// # Errors
    /// wasmtime's.
    pub fn command(&self, wasm: &[u8]) -> Result<BareProgram> {
        Ok(BareProgram::Command(self.pre(wasm)?))
    }

    /// A JavaScript artifact, on the plugin that Orb has.
    ///
    /// # Errors
    /// wasmtime's.
    pub fn javascript(&self, wasm: &[u8]) -> Result<BareProgram> {
        let plugin = self.pre(orb_runtime::javy::engine::ENGINE_WASM)?;
        let module = Module::new(&self.engine, wasm).map_err(plain)?;
        Ok(BareProgram::JavaScript(plugin, module))
    }
}

impl BareProgram {
    /// One call, in an instance of its own.
    ///
    /// # Errors
    /// wasmtime's.
    pub async fn call(&self, bare: &Bare) -> Result<Bytes> {
        let stdout = MemoryOutputPipe::new(1 << 20);
        let wasi = WasiCtxBuilder::new()
            .stdin(MemoryInputPipe::new(Bytes::from_static(INPUT)))
            .stdout(stdout.clone())
            .build_p1();
        let mut store = bare.store(wasi)?;
        let instance = self.instantiate(&mut store).await?;
        let start = instance
            .get_typed_func::<(), ()>(&mut store, "_start")
            .map_err(plain)?;
        start.call_async(&mut store, ()).await.map_err(plain)?;
        Ok(stdout.contents())
    }

    async fn instantiate(&self, store: &mut Store<WasiP1Ctx>) -> Result<Instance> {
        match self {
            Self::Command(pre) => pre.instantiate_async(store).await.map_err(plain),
            Self::JavaScript(plugin, module) => {
                let plugin = plugin.instantiate_async(&mut *store).await.map_err(plain)?;
                let imports = module
                    .imports()
                    .map(|import| plugin.get_export(&mut *store, import.name()))
                    .collect::<Option<Vec<_>>>()
                    .context("the plugin exports what its artifacts import")?;
                Instance::new_async(store, module, &imports).await.map_err(plain)
            }
        }
    }
}

/// wasmtime's error as one that `?` takes.
#[expect(clippy::needless_pass_by_value, reason = "made for `map_err`")]
fn plain(error: wasmtime::Error) -> anyhow::Error {
    anyhow::anyhow!("{error}")
}
