//! What Orb changes about the global object: `console` writes to the log, `Math.random` is
//! seeded in the call and not in the snapshot, `performance` counts from the call.

use crate::report;
use javy::Runtime;
use javy::quickjs::prelude::{Func, Rest};
use javy::quickjs::{Ctx, Object, Result, Value};
use std::cell::{Cell, RefCell};
use std::io::Write;
use std::time::Instant;

/// Most rejections without a handler that are kept until the call's end, to be logged then.
const REJECTIONS_MAX: usize = 16;

/// One rejection that nothing handles so far.
struct Rejection {
    /// The promise's address; the promise itself may be gone.
    promise: usize,
    reason: String,
}

thread_local! {
    static SEEDED: Cell<bool> = const { Cell::new(false) };
    static FIRST_LOOK: Cell<Option<Instant>> = const { Cell::new(None) };
    static REJECTIONS: RefCell<Vec<Rejection>> = const { RefCell::new(Vec::new()) };
}

/// Puts them in place.
pub(crate) fn register(runtime: &Runtime) {
    let context = runtime.context();
    context
        .with(|ctx| {
            register_console(&ctx)?;
            register_random(&ctx)?;
            register_performance(&ctx)
        })
        .expect("the global object takes properties");
    context
        .runtime()
        .set_host_promise_rejection_tracker(Some(Box::new(on_rejection)));
}

fn register_console(ctx: &Ctx<'_>) -> Result<()> {
    let console = Object::new(ctx.clone())?;
    for name in ["log", "info", "warn", "error", "debug", "trace"] {
        console.set(name, Func::from(log))?;
    }
    ctx.globals().set("console", console)
}

fn log<'js>(ctx: Ctx<'js>, values: Rest<Value<'js>>) {
    let words: Vec<String> = values.iter().map(|value| report::show(&ctx, value)).collect();
    write_log(&words.join(" "));
}

/// A log that takes no more is no fault of the function.
fn write_log(line: &str) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

fn register_random(ctx: &Ctx<'_>) -> Result<()> {
    let math: Object<'_> = ctx.globals().get("Math")?;
    math.set("random", Func::from(random))
}

fn random() -> f64 {
    if !SEEDED.replace(true) {
        fastrand::seed(seed());
    }
    fastrand::f64()
}

/// From the host: the snapshot must not hold it, so nothing of the standard library's will do.
fn seed() -> u64 {
    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    unsafe extern "C" {
        fn random_get(bytes: *mut u8, len: usize) -> u32;
    }
    let mut bytes = [0; 8];
    // SAFETY: the host fills the eight bytes. If it can't, the numbers are only predictable.
    let _ = unsafe { random_get(bytes.as_mut_ptr(), bytes.len()) };
    u64::from_le_bytes(bytes)
}

fn register_performance(ctx: &Ctx<'_>) -> Result<()> {
    let performance = Object::new(ctx.clone())?;
    performance.set("now", Func::from(performance_now))?;
    ctx.globals().set("performance", performance)
}

/// Milliseconds since the first look in this call.
fn performance_now() -> f64 {
    let now = Instant::now();
    let first = FIRST_LOOK.get().unwrap_or_else(|| {
        FIRST_LOOK.set(Some(now));
        now
    });
    now.duration_since(first).as_secs_f64() * 1e3
}

fn address(value: &Value<'_>) -> usize {
    // SAFETY: only promises, which are objects, come here.
    unsafe { javy::quickjs::qjs::JS_VALUE_GET_PTR(value.as_raw()) as usize }
}

/// QuickJS tells of a rejection without a handler, and again if one is added later.
#[expect(clippy::needless_pass_by_value, reason = "the tracker's type asks for it")]
fn on_rejection<'js>(ctx: Ctx<'js>, promise: Value<'js>, reason: Value<'js>, handled: bool) {
    forget_rejection(&promise);
    let rejection = Rejection {
        promise: address(&promise),
        reason: if handled { String::new() } else { report::show(&ctx, &reason) },
    };
    REJECTIONS.with_borrow_mut(|rejections| {
        if !handled && rejections.len() < REJECTIONS_MAX {
            rejections.push(rejection);
        }
    });
}

/// The rejection of this promise is told in another way: it is the outcome of the call.
pub(crate) fn forget_rejection(promise: &Value<'_>) {
    let promise = address(promise);
    REJECTIONS.with_borrow_mut(|all| all.retain(|rejection| rejection.promise != promise));
}

/// Logs what was rejected, and never handled, besides the call's own promise.
pub(crate) fn log_unhandled_rejections() {
    for rejection in REJECTIONS.take() {
        write_log(&format!("Uncaught (in promise) {}", rejection.reason));
    }
}
