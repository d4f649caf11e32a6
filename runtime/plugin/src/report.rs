//! What is told of an exception.

use javy::quickjs::{Ctx, Object, Value};

/// Most bytes of a message, and of a stack, that are told. The host refuses longer reports.
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// An exception, in words.
pub(crate) struct Report {
    /// `Name: message`, or the text of a value that is no `Error`.
    pub(crate) message: String,
    /// The developer's file, when the innermost frames name it.
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u32>,
    pub(crate) column: Option<u32>,
    /// One line per frame; empty where there is none.
    pub(crate) stack: String,
}

impl Report {
    /// Describes `exception`. `file` is the developer's: the position told is the innermost
    /// one in it.
    pub(crate) fn of<'js>(ctx: &Ctx<'js>, exception: &Value<'js>, file: &str) -> Self {
        let stack = stack(ctx, exception);
        let place = stack.lines().find_map(|frame| place(frame, file));
        let message = cut(message(ctx, exception));
        Self {
            message,
            file: place.map(|_| file.to_owned()),
            line: place.map(|place| place.0),
            column: place.map(|place| place.1),
            stack: cut(stack),
        }
    }

    /// `{message, file, line, column, stack}`.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let mut json = String::from("{\"message\":");
        push_json_string(&mut json, &self.message);
        if let (Some(file), Some(line), Some(column)) = (&self.file, self.line, self.column) {
            json.push_str(",\"file\":");
            push_json_string(&mut json, file);
            json.push_str(&format!(",\"line\":{line},\"column\":{column}"));
        }
        json.push_str(",\"stack\":");
        push_json_string(&mut json, &self.stack);
        json.push('}');
        json.into_bytes()
    }

    /// As a console shows it.
    pub(crate) fn to_text(&self) -> String {
        text(&self.message, &self.stack)
    }
}

/// Set by the allocator that `quickjs_on_wasi.h` puts in QuickJS's way.
#[unsafe(no_mangle)]
static mut orb_allocation_failed: i32 = 0;

/// Whether QuickJS itself ran out of memory. When not even the error could be made, it
/// throws null.
pub(crate) fn is_out_of_memory(exception: &Value<'_>) -> bool {
    // SAFETY: the module has one thread.
    let allocation_failed = unsafe { orb_allocation_failed } != 0;
    if !allocation_failed || exception.is_null() {
        return allocation_failed;
    }
    let Some(error) = exception.as_object().filter(|_| exception.is_error()) else {
        return false;
    };
    error
        .get::<_, String>("message")
        .is_ok_and(|message| message.starts_with("out of memory"))
}

fn message<'js>(ctx: &Ctx<'js>, exception: &Value<'js>) -> String {
    if let Some(text) = exception.as_string() {
        return lossy(ctx, text.as_value());
    }
    if !exception.is_error() {
        return show(ctx, exception);
    }
    // Not `String(error)`: its `toString` is the developer's to replace.
    let error = exception.as_object();
    let part = |key: &str| {
        let value = error.and_then(|error| property(ctx, error, key));
        value.filter(|value| !value.is_undefined()).map(|value| lossy(ctx, &value))
    };
    let name = part("name").unwrap_or_else(|| "Error".to_owned());
    match part("message") {
        Some(text) if !text.is_empty() => format!("{name}: {text}"),
        _ => name,
    }
}

fn stack<'js>(ctx: &Ctx<'js>, exception: &Value<'js>) -> String {
    let stack = exception
        .as_object()
        .filter(|_| exception.is_error())
        .and_then(|error| property(ctx, error, "stack"))
        .filter(Value::is_string)
        .map(|value| lossy(ctx, &value))
        .unwrap_or_default();
    stack.trim_end().to_owned()
}

/// A property, or nothing if reading it throws.
fn property<'js>(ctx: &Ctx<'js>, object: &Object<'js>, key: &str) -> Option<Value<'js>> {
    object.get(key).map_err(|_| drop(ctx.catch())).ok()
}

/// Line and column of a frame, if it is in `file`: `at name (file:1:2)` or `at file:1:2`.
fn place(frame: &str, file: &str) -> Option<(u32, u32)> {
    let (before, after) = frame.rsplit_once(file)?;
    if !before.ends_with(" (") && !before.ends_with("at ") {
        return None;
    }
    let after = after.strip_prefix(':')?;
    let (line, column) = after.trim_end_matches(')').split_once(':')?;
    Some((line.parse().ok()?, column.parse().ok()?))
}

/// A value as a developer wants to see it in a log.
pub(crate) fn show<'js>(ctx: &Ctx<'js>, value: &Value<'js>) -> String {
    if value.is_error() {
        let (message, stack) = (message(ctx, value), stack(ctx, value));
        return text(&message, &stack);
    }
    if value.is_object() && !value.is_function() {
        match ctx.json_stringify(value.clone()) {
            Ok(Some(json)) => return lossy(ctx, json.as_value()),
            Ok(None) => {}
            Err(_) => drop(ctx.catch()),
        }
    }
    lossy(ctx, value)
}

/// A value's text, lone surrogates replaced.
fn lossy<'js>(ctx: &Ctx<'js>, value: &Value<'js>) -> String {
    javy::val_to_string(ctx, value.clone()).unwrap_or_else(|_| {
        drop(ctx.catch());
        "[a value without text]".to_owned()
    })
}

fn text(message: &str, stack: &str) -> String {
    let gap = if stack.is_empty() { "" } else { "\n" };
    format!("{message}{gap}{stack}")
}

fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let mut at = TEXT_BYTES_MAX;
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        text.truncate(at);
        text.push('…');
    }
    text
}

/// Appends `text` as a JSON string.
pub(crate) fn push_json_string(json: &mut String, text: &str) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            c if c < ' ' => json.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => json.push(c),
        }
    }
    json.push('"');
}
