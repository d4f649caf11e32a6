//! The one wasmtime engine of a sandbox, and what identifies its configuration.

use std::hash::{Hash, Hasher};

use wasmtime::{Config, Enabled, Engine, OperatorCost, PoolingAllocationConfig, WasmFeatures};

use crate::admit::{FEATURES, TABLE_ELEMENTS_MAX, TABLES_MAX};
use crate::javy::abi::WASM_STACK_BYTES;
use crate::{AdmissionLimits, SandboxConfig};

/// How fuel is counted. It is named beside every fuel figure; figures of different versions
/// can't be compared.
pub const METERING_VERSION: &str = "wasmtime-48/orb-1";

/// The version of wasmtime that is built in. A test holds it against `Cargo.lock`.
pub(crate) const WASMTIME_VERSION: &str = "48.0.8";

/// Fuel of an operator that calls into the engine: such a call takes 10 to 60 ns here, where an
/// ordinary operator takes 0.02 to 2.
const LIBCALL_FUEL: u8 = 64;

/// The whole stack that a guest runs on; what is above [`WASM_STACK_BYTES`] is for host calls.
const ASYNC_STACK_BYTES: usize = WASM_STACK_BYTES + (1 << 20);

/// Memory of a finished instance that is cleared rather than given back to the system, so that the
/// next one takes no page faults: as much as a JavaScript call dirties, which then takes 25 µs in
/// all, and 105 without this. Where the dirty pages are not known all of it would be cleared each
/// time, which takes longer than the page faults do.
const MEMORY_KEEP_RESIDENT_BYTES: usize = 512 << 10;

/// As above, for tables: all of the JavaScript engine's.
const TABLE_KEEP_RESIDENT_BYTES: usize = 16 << 10;

/// Makes the engine of a sandbox.
///
/// # Errors
///
/// When the system has not got the address space for [`SandboxConfig::instances_max`] instances.
pub(crate) fn build(sandbox: &SandboxConfig) -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config
        .wasm_features(WasmFeatures::WASM3.difference(FEATURES), false)
        .wasm_features(FEATURES, true)
        .consume_fuel(true)
        .operator_cost(operator_cost())
        .max_wasm_stack(WASM_STACK_BYTES)
        .async_stack_size(ASYNC_STACK_BYTES)
        .memory_init_cow(true)
        .allocation_strategy(pool(sandbox));
    Engine::new(&config)
}

/// wasmtime's own costs (1 for an operator, and 1 per byte of bulk operations), except for
/// operators that take a hundred times longer than the others.
///
/// It keeps the time that a unit of fuel takes within reach of a nanosecond for every guest.
fn operator_cost() -> OperatorCost {
    let mut cost = OperatorCost::new();
    for operator in [
        &mut cost.MemoryGrow,
        &mut cost.MemoryFill,
        &mut cost.TableGrow,
        &mut cost.TableFill,
        &mut cost.TableInit,
        &mut cost.TableCopy,
        &mut cost.ElemDrop,
        &mut cost.RefFunc,
    ] {
        *operator = LIBCALL_FUEL;
    }
    // A page of memory is as much work as filling it.
    cost.variable.memory_grow_per_page = u8::MAX;
    cost
}

fn pool(sandbox: &SandboxConfig) -> PoolingAllocationConfig {
    let instances = sandbox.instances_max.max(1);
    // No 32-bit memory can be larger, and no more address space is set aside for one.
    let ceiling = sandbox.memory_bytes_ceiling.min(1 << 32) as usize;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(instances)
        .total_memories(instances)
        .total_tables(instances.saturating_mul(TABLES_MAX))
        .total_stacks(instances)
        .max_tables_per_module(TABLES_MAX)
        .table_elements(TABLE_ELEMENTS_MAX as usize)
        .max_memory_size(ceiling)
        .table_keep_resident(TABLE_KEEP_RESIDENT_BYTES)
        // Resetting an instance then touches only the pages that it dirtied (Linux 6.7).
        .pagemap_scan(Enabled::Auto);
    if pagemap_scan() {
        pool.linear_memory_keep_resident(MEMORY_KEEP_RESIDENT_BYTES);
    }
    pool
}

/// Whether instances are reset page by page (`PAGEMAP_SCAN`, Linux 6.7 and later).
pub(crate) fn pagemap_scan() -> bool {
    PoolingAllocationConfig::is_pagemap_scan_available()
}

/// Names everything that compiled code depends on: wasmtime's version, its settings, the
/// processor's features; and the limits that modules were admitted under.
pub(crate) fn fingerprint(engine: &Engine, admission: &AdmissionLimits) -> [u8; 32] {
    /// Feeds what std's `Hash` writes into BLAKE3.
    struct Sink(blake3::Hasher);
    impl Hasher for Sink {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let mut sink = Sink(blake3::Hasher::new_derive_key(
        "orb 2026 compiled module fingerprint",
    ));
    engine.precompile_compatibility_hash().hash(&mut sink);
    sink.0.update(format!("{admission:?}").as_bytes());
    *sink.0.finalize().as_bytes()
}
