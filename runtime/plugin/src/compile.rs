//! Source to packed bytecode.

use crate::engine;
use crate::locate;
use crate::pack::{self, Kind};
use crate::report::{self, Report};
use javy::quickjs::{Ctx, Value, qjs};
use std::ffi::{CStr, CString};

/// Why there is no bytecode.
pub(crate) enum CompileFailure {
    /// JSON `{message, file, line, column}`.
    Syntax(Vec<u8>),
    OutOfMemory,
}

/// Compiles a module. `name` stands in errors and stack traces.
pub(crate) fn compile(name: &str, source: &[u8]) -> Result<(Vec<u8>, Kind), CompileFailure> {
    if let Err(error) = std::str::from_utf8(source) {
        return Err(not_utf8(name, source, error.valid_up_to()));
    }
    let Ok(c_name) = CString::new(name) else {
        return Err(syntax("the file's name holds a zero byte", name, 0, 0));
    };
    engine::with(|ctx| {
        let bytecode = evaluate(ctx, &c_name, source)
            .and_then(|module| write(ctx, &module))
            .map_err(|exception| failure(ctx, &exception, &c_name, source))?;
        let kind = match has_default_export(&bytecode) {
            Some(true) => Kind::Function,
            Some(false) => Kind::Script,
            None => unreachable!("QuickJS wrote the bytecode a moment ago"),
        };
        Ok((pack::pack(kind, &bytecode), kind))
    })
}

/// Compiles and does not run.
///
/// QuickJS counts the columns of a first line from 0, and of all others from 1. So the source
/// goes two lines down, and lines are counted from -1 (0 stands for QuickJS's default).
pub(crate) fn evaluate<'js>(
    ctx: &Ctx<'js>,
    name: &CStr,
    source: &[u8],
) -> Result<Value<'js>, Value<'js>> {
    let mut text = Vec::with_capacity(source.len() + 3);
    text.extend_from_slice(b"\n\n");
    text.extend_from_slice(source);
    text.push(0);
    if source.starts_with(b"#!") {
        text[2..4].copy_from_slice(b"//");
    }
    let flags =
        qjs::JS_EVAL_TYPE_MODULE | qjs::JS_EVAL_FLAG_STRICT | qjs::JS_EVAL_FLAG_COMPILE_ONLY;
    let mut options = qjs::JSEvalOptions {
        version: qjs::JS_EVAL_OPTIONS_VERSION as i32,
        eval_flags: flags as i32,
        filename: name.as_ptr(),
        line_num: -1,
    };
    // SAFETY: the text is followed by the zero byte that QuickJS wants.
    let raw = unsafe {
        qjs::JS_Eval2(
            ctx.as_raw().as_ptr(),
            text.as_ptr().cast(),
            (text.len() - 1) as qjs::size_t,
            &mut options,
        )
    };
    engine::checked(ctx, raw)
}

/// The module as bytecode, with its line table and without its text.
fn write<'js>(ctx: &Ctx<'js>, module: &Value<'js>) -> Result<Vec<u8>, Value<'js>> {
    let mut len: qjs::size_t = 0;
    let flags = qjs::JS_WRITE_OBJ_BYTECODE | qjs::JS_WRITE_OBJ_STRIP_SOURCE;
    // SAFETY: QuickJS hands over `len` bytes, or null and an exception.
    unsafe {
        let raw = ctx.as_raw().as_ptr();
        let bytes = qjs::JS_WriteObject(raw, &mut len, module.as_raw(), flags as i32);
        if bytes.is_null() {
            return Err(ctx.catch());
        }
        Ok(std::slice::from_raw_parts(bytes, len as usize).to_vec())
    }
}

fn failure<'js>(
    ctx: &Ctx<'js>,
    exception: &Value<'js>,
    name: &CStr,
    source: &[u8],
) -> CompileFailure {
    if report::is_out_of_memory(exception) {
        return CompileFailure::OutOfMemory;
    }
    let file = name.to_string_lossy();
    let error = Report::of(ctx, exception, &file);
    if let Some(specifier) = unknown_module(&error.message) {
        let (line, column) = quoted_at(source, specifier).unwrap_or((0, 0));
        let message = format!(
            "cannot import '{specifier}': a function is one file, so bundle what it imports"
        );
        return syntax(&message, &file, line, column);
    }
    let at = locate::locate(ctx, name, source, &error);
    let (line, column) = position(source, at);
    let message = error.message.strip_prefix("SyntaxError: ").unwrap_or(&error.message);
    match message.strip_suffix(": ''") {
        Some(message) => syntax(&format!("{message}: end of file"), &file, line, column),
        None => syntax(message, &file, line, column),
    }
}

fn syntax(message: &str, file: &str, line: u32, column: u32) -> CompileFailure {
    let mut json = String::from("{\"message\":");
    report::push_json_string(&mut json, message);
    json.push_str(",\"file\":");
    report::push_json_string(&mut json, file);
    json.push_str(&format!(",\"line\":{line},\"column\":{column}}}"));
    CompileFailure::Syntax(json.into_bytes())
}

fn not_utf8(name: &str, text: &[u8], at: usize) -> CompileFailure {
    let (line, column) = position(text, at);
    syntax("the source is not UTF-8 from here on", name, line, column)
}

/// The specifier in QuickJS's complaint about an import.
fn unknown_module(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("could not load module")?;
    let (_, rest) = rest.split_once('\'')?;
    rest.strip_suffix('\'')
}

/// Where a specifier stands in quotes. QuickJS does not say where the import is.
fn quoted_at(text: &[u8], specifier: &str) -> Option<(u32, u32)> {
    ["'", "\""].iter().find_map(|quote| {
        let wanted = format!("{quote}{specifier}{quote}");
        let at = text
            .windows(wanted.len())
            .position(|window| window == wanted.as_bytes())?;
        Some(position(text, at))
    })
}

/// Line and column, from 1, of a byte offset in text that is UTF-8 up to there.
fn position(text: &[u8], at: usize) -> (u32, u32) {
    let before = String::from_utf8_lossy(&text[..at]);
    let line = before.matches('\n').count() as u32 + 1;
    let last = before.rsplit('\n').next().unwrap_or("");
    (line, last.encode_utf16().count() as u32 + 1)
}

/// Whether a module's bytecode lists an export named `default`. None if it can't be read.
///
/// Layout (quickjs.c, `JS_WriteObjectAtoms` and `JS_WriteModule`): version, checksum (4),
/// atoms, then the module's tag, name, requested modules, exports.
fn has_default_export(bytecode: &[u8]) -> Option<bool> {
    let mut reader = Reader { rest: bytecode.get(5..)? };
    for _ in 0..reader.leb()? {
        match reader.byte()? {
            0 => reader.skip(4)?,
            _ => reader.string()?,
        }
    }
    reader.byte()?;
    reader.leb()?;
    for _ in 0..reader.leb()? {
        reader.leb()?;
    }
    let mut found = false;
    for _ in 0..reader.leb()? {
        let local = reader.byte()? == 0;
        reader.leb()?;
        if !local {
            reader.leb()?;
        }
        // The lowest bit marks an integer; the rest is the atom's number.
        found |= reader.leb()? == qjs::JS_ATOM_default << 1;
    }
    Some(found)
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.rest = self.rest.get(count..)?;
        Some(())
    }

    fn leb(&mut self) -> Option<u32> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            value |= u32::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// Length in characters, with in the lowest bit whether they are two bytes wide.
    fn string(&mut self) -> Option<()> {
        let head = self.leb()?;
        self.skip((head as usize >> 1) << (head & 1))
    }
}
