//! The QuickJS runtime, made before the module is snapshotted.

use crate::globals;
use javy::quickjs::{Ctx, Value, qjs};
use javy::{Config, Runtime};

/// How deep JavaScript may nest, in bytes of the stack in linear memory. QuickJS then throws
/// a `RangeError`. That must come before the stack ends (build.sh gives it a quarter more) and
/// before the host's limit for compiled code, which needs up to four times as much
/// (`WASM_STACK_BYTES` in the runtime's `javy::abi`). Plain functions nest about 2,500 deep.
const STACK_BYTES: usize = 1024 * 1024;

/// Cycles are looked for when the heap has grown to this. An instance serves one call, so
/// collecting earlier would cost most calls time and save nothing.
const GC_THRESHOLD_BYTES: usize = 4 * 1024 * 1024;

static mut RUNTIME: Option<Runtime> = None;

/// Makes the runtime. What it holds is in every instance's first memory image.
pub(crate) fn initialize() {
    let mut config = Config::default();
    config
        .text_encoding(true)
        .javy_stream_io(true)
        .weak_ref(true)
        .max_stack_size(STACK_BYTES)
        .gc_threshold(GC_THRESHOLD_BYTES);
    let runtime = Runtime::new(config).expect("the configuration is valid");
    globals::register(&runtime);
    // SAFETY: the module has one thread, and nothing holds a reference yet.
    unsafe { RUNTIME = Some(runtime) };
}

/// Calls `work` with the JavaScript context.
pub(crate) fn with<R>(work: impl FnOnce(&Ctx<'_>) -> R) -> R {
    // SAFETY: the module has one thread; the runtime is not replaced after the snapshot.
    let runtime = unsafe { (*(&raw const RUNTIME)).as_ref() };
    runtime
        .expect("the module was initialized when it was built")
        .context()
        .with(|ctx| work(&ctx))
}

/// A value that QuickJS has just handed over, or the exception that it signals.
pub(crate) fn checked<'js>(ctx: &Ctx<'js>, raw: qjs::JSValue) -> Result<Value<'js>, Value<'js>> {
    // SAFETY: `raw` comes with its reference, which the `Value` takes over; the signal of an
    // exception holds none.
    unsafe {
        if qjs::JS_IsException(raw) {
            return Err(ctx.catch());
        }
        Ok(Value::from_raw(ctx.clone(), raw))
    }
}
