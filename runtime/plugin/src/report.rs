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
        let place = stack.lines().filter_map(place).find(|place| place.0 == file);
        let message = cut(message(ctx, exception));
        Self {
            message,
            file: place.map(|place| place.0.to_owned()),
            line: place.map(|place| place.1),
            column: place.map(|place| place.2),
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
        if self.stack.is_empty() {
            return self.message.clone();
        }
        format!("{}\n{}", self.message, self.stack)
    }
}

/// Whether QuickJS itself ran out of memory. When not even the error could be made, it
/// throws null.
pub(crate) fn is_out_of_memory(ctx: &Ctx<'_>, exception: &Value<'_>) -> bool {
    if exception.is_null() {
        return !can_allocate(64 * 1024);
    }
    if !exception.is_error() {
        return false;
    }
    let _ = ctx;
    let Some(error) = exception.as_object() else {
        return false;
    };
    let is = |key: &str, text: &str| {
        error
            .get::<_, String>(key)
            .is_ok_and(|value| value.starts_with(text))
    };
    is("name", "InternalError") && is("message", "out of memory")
}

fn can_allocate(size: usize) -> bool {
    let mut probe = Vec::<u8>::new();
    probe.try_reserve_exact(size).is_ok()
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

/// (file, line, column) of a frame: `at name (file:1:2)` or `at file:1:2`.
fn place(frame: &str) -> Option<(&str, u32, u32)> {
    let frame = frame.trim().strip_prefix("at ")?;
    let inner = match frame.strip_suffix(')') {
        Some(frame) => frame.rsplit_once(" (")?.1,
        None => frame,
    };
    let (rest, column) = inner.rsplit_once(':')?;
    let (file, line) = rest.rsplit_once(':')?;
    Some((file, line.parse().ok()?, column.parse().ok()?))
}

/// A value as a developer wants to see it in a log.
pub(crate) fn show<'js>(ctx: &Ctx<'js>, value: &Value<'js>) -> String {
    if value.is_error() {
        return Report::of(ctx, value, "").to_text();
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
