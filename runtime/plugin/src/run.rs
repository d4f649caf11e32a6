//! One call of a compiled program.

use crate::engine::{self, checked};
use crate::globals;
use crate::pack;
use crate::report::{self, Report};
use javy::quickjs::{Ctx, Value, qjs};
use std::borrow::Cow;

/// What is run, on what. The texts end in a zero byte, which QuickJS's parser wants.
pub(crate) struct Program<'a> {
    /// Packed bytecode.
    pub(crate) packed: &'a [u8],
    /// The second parameter, JSON text.
    pub(crate) context: &'a [u8],
    /// The first, JSON text; without a use for a script.
    pub(crate) input: &'a [u8],
}

/// How it ended.
pub(crate) enum Outcome {
    Answer(Vec<u8>),
    Thrown(Report),
    Unsettled,
    BadOutput(String),
    BadInput(String),
    ScriptDone,
    OutOfMemory,
}

/// Runs a program once.
pub(crate) fn run(program: &Program<'_>) -> Outcome {
    engine::with(|ctx| {
        let outcome = call(ctx, program).unwrap_or_else(|outcome| outcome);
        globals::log_unhandled_rejections();
        outcome
    })
}

/// The error side holds every way of ending early.
fn call(ctx: &Ctx<'_>, program: &Program<'_>) -> Result<Outcome, Outcome> {
    let kind = pack::Kind::of(program.packed);
    if kind == Some(pack::Kind::Script) {
        let module = load(ctx, program)?;
        evaluate(ctx, &module)?;
        run_jobs(ctx, &module)?;
        return Ok(Outcome::ScriptDone);
    }
    // The input is looked at before anything of the program runs.
    let input = parse(ctx, program.input).map_err(|e| bad_input(ctx, &e))?;
    let context = parse(ctx, program.context).map_err(|e| bad_input(ctx, &e))?;
    let module = load(ctx, program)?;
    evaluate(ctx, &module)?;
    let function = module.default_export(ctx)?;
    let returned = apply(ctx, &module, &function, &input, &context)?;
    let answer = settle(ctx, &module, returned)?;
    let json = stringify(ctx, &module, &answer)?;
    run_jobs(ctx, &module)?;
    // The instance ends with this call: taking its objects apart would be for nothing.
    std::mem::forget((input, context, function, answer, module));
    Ok(Outcome::Answer(json))
}

/// A loaded module, and the name of the developer's file.
struct Module<'js> {
    value: Value<'js>,
    file: String,
}

impl<'js> Module<'js> {
    fn def(&self) -> *mut qjs::JSModuleDef {
        // SAFETY: `load` has checked the tag.
        unsafe { qjs::JS_VALUE_GET_PTR(self.value.as_raw()).cast() }
    }

    fn default_export(&self, ctx: &Ctx<'js>) -> Result<Value<'js>, Outcome> {
        let raw = ctx.as_raw().as_ptr();
        // SAFETY: the module is linked and evaluated, so it has a namespace.
        let export = unsafe {
            let namespace = checked(ctx, qjs::JS_GetModuleNamespace(raw, self.def()));
            namespace.and_then(|namespace| {
                let name = c"default".as_ptr();
                checked(ctx, qjs::JS_GetPropertyStr(raw, namespace.as_raw(), name))
            })
        };
        export.map_err(|e| thrown(ctx, self, &e))
    }
}

fn load<'js>(ctx: &Ctx<'js>, program: &Program<'_>) -> Result<Module<'js>, Outcome> {
    let damaged = || {
        Outcome::Thrown(Report {
            message: "InternalError: the bytecode is damaged".to_owned(),
            file: None,
            line: None,
            column: None,
            stack: String::new(),
        })
    };
    let bytecode = pack::unpack(program.packed).ok_or_else(damaged)?;
    // QuickJS refers into it as long as the instance lives.
    let bytecode = match bytecode {
        Cow::Borrowed(bytes) => bytes,
        Cow::Owned(bytes) => bytes.leak(),
    };
    let flags = qjs::JS_READ_OBJ_BYTECODE | qjs::JS_READ_OBJ_ROM_DATA;
    let raw = ctx.as_raw().as_ptr();
    // SAFETY: the bytes outlive the instance. Bytecode made to deceive can do in here what
    // any guest can do to itself.
    unsafe {
        let value = qjs::JS_ReadObject(raw, bytecode.as_ptr(), bytecode.len() as _, flags as i32);
        let value = checked(ctx, value).map_err(|e| {
            if report::is_out_of_memory(&e) { Outcome::OutOfMemory } else { damaged() }
        })?;
        if qjs::JS_VALUE_GET_TAG(value.as_raw()) != qjs::JS_TAG_MODULE {
            return Err(damaged());
        }
        let mut module = Module { value, file: String::new() };
        let atom = qjs::JS_GetModuleName(raw, module.def());
        let name = checked(ctx, qjs::JS_AtomToString(raw, atom));
        if let Ok(Some(name)) = name.map(|name| name.into_string()) {
            module.file = name.to_string().unwrap_or_default();
        }
        Ok(module)
    }
}

/// Runs the module's top level, awaits included.
fn evaluate<'js>(ctx: &Ctx<'js>, module: &Module<'js>) -> Result<(), Outcome> {
    // SAFETY: `JS_EvalFunction` takes a reference, so it gets one of its own.
    let promise = unsafe {
        let raw = ctx.as_raw().as_ptr();
        let function = qjs::JS_DupValue(raw, module.value.as_raw());
        checked(ctx, qjs::JS_EvalFunction(raw, function))
    };
    let promise = promise.map_err(|e| thrown(ctx, module, &e))?;
    settle(ctx, module, promise).map(drop)
}

fn apply<'js>(
    ctx: &Ctx<'js>,
    module: &Module<'js>,
    function: &Value<'js>,
    input: &Value<'js>,
    context: &Value<'js>,
) -> Result<Value<'js>, Outcome> {
    let mut params = [input.as_raw(), context.as_raw()];
    // SAFETY: the parameters are alive for the length of the call.
    let result = unsafe {
        qjs::JS_Call(
            ctx.as_raw().as_ptr(),
            function.as_raw(),
            qjs::JS_UNDEFINED,
            params.len() as i32,
            params.as_mut_ptr(),
        )
    };
    checked(ctx, result).map_err(|e| {
        if function.is_function() {
            thrown(ctx, module, &e)
        } else {
            not_a_function(module)
        }
    })
}

/// Awaits a promise; any other value is itself.
fn settle<'js>(
    ctx: &Ctx<'js>,
    module: &Module<'js>,
    value: Value<'js>,
) -> Result<Value<'js>, Outcome> {
    if !value.is_promise() {
        return Ok(value);
    }
    let raw = ctx.as_raw().as_ptr();
    loop {
        // SAFETY: it is a promise.
        match unsafe { qjs::JS_PromiseState(raw, value.as_raw()) } {
            qjs::JSPromiseStateEnum_JS_PROMISE_PENDING => {
                if !run_job(ctx, module)? {
                    return Err(Outcome::Unsettled);
                }
            }
            state => {
                // SAFETY: as above.
                let result = unsafe { qjs::JS_PromiseResult(raw, value.as_raw()) };
                // SAFETY: the result comes with its reference.
                let result = unsafe { Value::from_raw(ctx.clone(), result) };
                if state == qjs::JSPromiseStateEnum_JS_PROMISE_FULFILLED {
                    return Ok(result);
                }
                globals::forget_rejection(&value);
                return Err(thrown(ctx, module, &result));
            }
        }
    }
}

/// Runs one pending job. False: there is none.
fn run_job<'js>(ctx: &Ctx<'js>, module: &Module<'js>) -> Result<bool, Outcome> {
    let mut context = ctx.as_raw().as_ptr();
    // SAFETY: the runtime is this context's.
    let done = unsafe { qjs::JS_ExecutePendingJob(qjs::JS_GetRuntime(context), &mut context) };
    if done < 0 {
        return Err(thrown(ctx, module, &ctx.catch()));
    }
    Ok(done > 0)
}

/// What the program started and did not wait for.
fn run_jobs<'js>(ctx: &Ctx<'js>, module: &Module<'js>) -> Result<(), Outcome> {
    while run_job(ctx, module)? {}
    Ok(())
}

/// `text` ends in a zero byte.
fn parse<'js>(ctx: &Ctx<'js>, text: &[u8]) -> Result<Value<'js>, Value<'js>> {
    let len = text.len() - 1;
    // SAFETY: QuickJS wants a zero byte behind the text.
    let raw = unsafe {
        qjs::JS_ParseJSON(
            ctx.as_raw().as_ptr(),
            text.as_ptr().cast(),
            len as _,
            c"<input>".as_ptr(),
        )
    };
    checked(ctx, raw)
}

fn stringify<'js>(
    ctx: &Ctx<'js>,
    module: &Module<'js>,
    value: &Value<'js>,
) -> Result<Vec<u8>, Outcome> {
    if value.is_undefined() {
        return Ok(b"null".to_vec());
    }
    let raw = ctx.as_raw().as_ptr();
    // SAFETY: the value is alive.
    let json = unsafe {
        qjs::JS_JSONStringify(raw, value.as_raw(), qjs::JS_UNDEFINED, qjs::JS_UNDEFINED)
    };
    let json = checked(ctx, json).map_err(|e| no_json(ctx, module, &e))?;
    if json.is_undefined() {
        let what = if value.is_function() { "a function" } else { "a symbol" };
        return Err(Outcome::BadOutput(format!("the function returned {what}")));
    }
    let mut len: qjs::size_t = 0;
    // SAFETY: QuickJS hands over `len` bytes, or null when it has no memory for them.
    unsafe {
        let text = qjs::JS_ToCStringLen2(raw, &mut len, json.as_raw(), false);
        if text.is_null() {
            return Err(Outcome::OutOfMemory);
        }
        let bytes = std::slice::from_raw_parts(text.cast::<u8>(), len as usize);
        let mut answer = Vec::new();
        if answer.try_reserve_exact(bytes.len()).is_err() {
            return Err(Outcome::OutOfMemory);
        }
        answer.extend_from_slice(bytes);
        Ok(answer)
    }
}

fn thrown<'js>(ctx: &Ctx<'js>, module: &Module<'js>, exception: &Value<'js>) -> Outcome {
    if report::is_out_of_memory(exception) {
        return Outcome::OutOfMemory;
    }
    Outcome::Thrown(Report::of(ctx, exception, &module.file))
}

fn not_a_function(module: &Module<'_>) -> Outcome {
    Outcome::Thrown(Report {
        message: "TypeError: the default export is not a function".to_owned(),
        file: Some(module.file.clone()),
        line: Some(1),
        column: Some(1),
        stack: String::new(),
    })
}

fn no_json<'js>(ctx: &Ctx<'js>, module: &Module<'js>, exception: &Value<'js>) -> Outcome {
    match thrown(ctx, module, exception) {
        Outcome::Thrown(report) => Outcome::BadOutput(report.message),
        outcome => outcome,
    }
}

fn bad_input<'js>(ctx: &Ctx<'js>, exception: &Value<'js>) -> Outcome {
    if report::is_out_of_memory(exception) {
        return Outcome::OutOfMemory;
    }
    let report = Report::of(ctx, exception, "<input>");
    let message = report.message.strip_prefix("SyntaxError: ");
    let message = message.unwrap_or(&report.message);
    Outcome::BadInput(match (report.line, report.column) {
        // QuickJS counts the columns of a first line from 0.
        (Some(1), Some(column)) => format!("{message} (line 1, column {})", column + 1),
        (Some(line), Some(column)) => format!("{message} (line {line}, column {column})"),
        _ => message.to_owned(),
    })
}
