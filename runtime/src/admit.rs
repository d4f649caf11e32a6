//! Tells from the bytes alone whether an artifact runs here.
//!
//! One pass of validation, no compilation: cheap enough for `orb build`, for a super node that
//! takes a deploy from a stranger, and for a host before it compiles.

use serde::{Deserialize, Serialize};
use wasmparser::{
    BinaryReaderError, ExternalKind, FuncType, Parser, Payload, TypeRef, Validator, WasmFeatures,
};

use crate::javy::{self, JavyArtifact, NotOurs};
use crate::wasi::signatures;

/// The proposals that modules may use: WebAssembly 2.0 with tail calls and extended constant
/// expressions, which is what stable Rust, Zig, C, Go and AssemblyScript emit. Not relaxed SIMD
/// (its results differ between machines), threads, several memories or garbage collection.
pub(crate) const FEATURES: WasmFeatures = WasmFeatures::WASM2
    .difference(WasmFeatures::GC_TYPES)
    .union(WasmFeatures::TAIL_CALL)
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::CALL_INDIRECT_OVERLONG);

/// Elements that a table may ever have: address space is reserved for them. Enough for a table of
/// all functions.
pub(crate) const TABLE_ELEMENTS_MAX: u32 = 65_536;

/// Compilers emit one table; hand-written modules now and then a second.
pub(crate) const TABLES_MAX: u32 = 2;

/// WASI has 46 functions, and compilers import each once; every instance has room for each import.
const IMPORTS_MAX: u32 = 1_000;

/// What kind of program an artifact is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A WASI preview 1 program: stdin is the input, stdout the answer, stderr the log.
    Command,
    /// JavaScript with a default export: JSON in, JSON out.
    JavyFunction,
    /// JavaScript without a default export: reads and writes raw bytes.
    JavyScript,
}

impl From<javy::Kind> for Kind {
    fn from(kind: javy::Kind) -> Self {
        match kind {
            javy::Kind::Function => Self::JavyFunction,
            javy::Kind::Script => Self::JavyScript,
        }
    }
}

/// What is known of an artifact that runs here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admitted {
    /// What kind of program it is.
    pub kind: Kind,
    /// BLAKE3 of the engine that a JavaScript artifact is linked against; none for a command.
    pub engine: Option<[u8; 32]>,
}

/// How large a module may be. They bound what validation and compilation cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdmissionLimits {
    /// Bytes of the whole module. Default 32 MiB (large programs with a language runtime inside,
    /// such as Go's or Python's, have 2 to 25 MB).
    pub module_bytes: u64,
    /// Functions. Default 65,536 (the JavaScript engine has about 3,000, Go programs 10,000).
    pub functions: u32,
    /// Bytes of the largest function, since a compiler's time grows faster than a function.
    /// Default 512 KiB (the interpreter loop of the JavaScript engine has about 100).
    pub function_bytes: u32,
    /// Local variables of all functions, parameters included: a few bytes can declare 50,000.
    /// Default 4,000,000 (the JavaScript engine has about 30 for each function).
    pub locals: u32,
    /// Globals. Default 10,000 (a guess; programs have a handful).
    pub globals: u32,
}

impl Default for AdmissionLimits {
    fn default() -> Self {
        Self {
            module_bytes: 32 << 20,
            functions: 65_536,
            function_bytes: 512 << 10,
            locals: 4_000_000,
            globals: 10_000,
        }
    }
}

/// Why an artifact does not run here. It is always the artifact's fault; each message ends in
/// what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum AdmissionError {
    /// The bytes do not begin like WebAssembly.
    #[error("this is not WebAssembly{}: build the function to a .wasm file and give that", if_text(*.text))]
    NotWasm {
        /// Whether it looks like WebAssembly's text format.
        text: bool,
    },
    /// A component, not a module.
    #[error(
        "this is a WebAssembly component, and Orb runs core modules: build for WASI preview 1 (wasm32-wasip1)"
    )]
    Component,
    /// Broken, cut off, or of an unknown version.
    #[error("this is not valid WebAssembly (at byte {offset}: {message}): build it again")]
    Invalid {
        /// Where in the module.
        offset: u64,
        /// What the validator said.
        message: String,
    },
    /// Valid, but for a proposal that is not enabled here.
    #[error(
        "the module uses a WebAssembly proposal that Orb does not enable (at byte {offset}: {message}): build for plain WebAssembly 2.0"
    )]
    ProposalNotEnabled {
        /// Where in the module.
        offset: u64,
        /// What the validator said.
        message: String,
    },
    /// An import that Orb does not offer.
    #[error(
        "the module imports {module}.{field}, which Orb does not offer: it offers the functions of wasi_snapshot_preview1, so build for WASI preview 1 (wasm32-wasip1) and leave out what is not in there"
    )]
    ImportNotOffered {
        /// The import's module name.
        module: String,
        /// The import's own name.
        field: String,
    },
    /// An import with the right name and the wrong type.
    #[error(
        "the module imports {module}.{field} with another type than it has ({expected}): build it against the WASI preview 1 headers of its own compiler"
    )]
    ImportType {
        /// The import's module name.
        module: String,
        /// The import's own name.
        field: String,
        /// The type that Orb offers it with.
        expected: String,
    },
    /// No `_start` function without parameters and results.
    #[error(
        "the module has no _start function{}: build it as a program (a binary with a main), not as a library",
        wrong(*.exists)
    )]
    NoStart {
        /// Whether `_start` is there, but something else.
        exists: bool,
    },
    /// No exported memory.
    #[error("the module exports no memory, which WASI needs: export it as \"memory\"")]
    NoMemory,
    /// A JavaScript artifact that Orb's own emitter would not have made of the bytecode in it.
    #[error(
        "this links against Orb's JavaScript engine, but Orb's own emitter did not make it ({message}): build it with `orb build`"
    )]
    ForeignJavy {
        /// What is different.
        message: String,
    },
    /// A JavaScript artifact for an engine that this build of Orb does not have.
    #[error(
        "this was built for another version of Orb's JavaScript engine ({wanted}; this one is {have}): build it again with this version of Orb"
    )]
    EngineUnknown {
        /// What it was built for.
        wanted: String,
        /// What there is.
        have: String,
    },
    /// More bytes than a module may have.
    #[error("the module has {bytes} bytes, {max} are allowed: strip it, or build it for size")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// More of something than a module may have.
    #[error("the module has {count} {what}, {max} are allowed: build it for size, or split it")]
    TooMany {
        /// What there is too much of.
        what: String,
        /// How much there is.
        count: u64,
        /// The limit.
        max: u64,
    },
}

impl AdmissionError {
    /// Whether the artifact is too large to compile, rather than of the wrong sort.
    #[must_use]
    pub fn is_compile_limit(&self) -> bool {
        matches!(self, Self::TooLarge { .. } | Self::TooMany { .. })
    }
}

/// Tells whether `wasm` runs here, and as what. Uses the default [`AdmissionLimits`].
///
/// # Errors
///
/// Says what is wrong with the artifact and how to mend it.
pub fn admit(wasm: &[u8]) -> Result<Admitted, AdmissionError> {
    admit_within(wasm, &AdmissionLimits::default())
}

/// Like [`admit`], with limits of one's own.
///
/// # Errors
///
/// Says what is wrong with the artifact and how to mend it.
pub fn admit_within(wasm: &[u8], limits: &AdmissionLimits) -> Result<Admitted, AdmissionError> {
    recognise(wasm, limits).map(|(admitted, _)| admitted)
}

/// Like [`admit_within`]; gives a JavaScript artifact's parts, too.
pub(crate) fn recognise<'a>(
    wasm: &'a [u8],
    limits: &AdmissionLimits,
) -> Result<(Admitted, Option<JavyArtifact<'a>>), AdmissionError> {
    recognise_form(wasm)?;
    let bytes = wasm.len() as u64;
    if bytes > limits.module_bytes {
        let max = limits.module_bytes;
        return Err(AdmissionError::TooLarge { bytes, max });
    }
    if let Some(script) = javy::recognise(wasm).map_err(not_ours)? {
        let kind = script.kind.into();
        return Ok((
            Admitted {
                kind,
                engine: Some(script.engine),
            },
            Some(script),
        ));
    }
    let module = Module::read(wasm, limits)?;
    module.check_imports()?;
    module.check_exports()?;
    Ok((
        Admitted {
            kind: Kind::Command,
            engine: None,
        },
        None,
    ))
}

fn not_ours(error: NotOurs) -> AdmissionError {
    match error {
        NotOurs::EngineUnknown { engine } => {
            let [wanted, have] = [engine, javy::engine_hash()]
                .map(|hash| blake3::Hash::from_bytes(hash).to_hex()[..10].to_owned());
            AdmissionError::EngineUnknown { wanted, have }
        }
        other => AdmissionError::ForeignJavy {
            message: other.to_string(),
        },
    }
}

/// Tells WebAssembly modules from everything else by their first eight bytes.
fn recognise_form(wasm: &[u8]) -> Result<(), AdmissionError> {
    if !wasm.starts_with(b"\0asm") {
        let text = wasm.trim_ascii_start().starts_with(b"(");
        return Err(AdmissionError::NotWasm { text });
    }
    if Parser::is_component(wasm) {
        return Err(AdmissionError::Component);
    }
    Ok(())
}

/// What admission needs to know of a valid module.
#[derive(Default)]
struct Module<'a> {
    types: Vec<FuncType>,
    /// Type index of every function, imported ones first.
    functions: Vec<u32>,
    imports: Vec<(&'a str, &'a str, TypeRef)>,
    start: Option<(ExternalKind, u32)>,
    memory_exported: bool,
}

impl<'a> Module<'a> {
    /// Validates the module and collects what is to be checked further.
    fn read(wasm: &'a [u8], limits: &AdmissionLimits) -> Result<Self, AdmissionError> {
        let mut validator = Validator::new_with_features(FEATURES);
        let mut allocations = wasmparser::FuncValidatorAllocations::default();
        let mut module = Self::default();
        let mut locals = 0;
        for payload in Parser::new(0).parse_all(wasm) {
            let payload = payload.map_err(|error| invalid(wasm, &error))?;
            check_size(&payload, limits)?;
            let valid = validator
                .payload(&payload)
                .map_err(|error| invalid(wasm, &error))?;
            if let wasmparser::ValidPayload::Func(function, body) = valid {
                let mut function = function.into_validator(allocations);
                function.validate(&body).map_err(|error| invalid(wasm, &error))?;
                locals += u64::from(function.len_locals());
                at_most("local variables", locals, limits.locals)?;
                allocations = function.into_allocations();
            }
            module.note(payload).map_err(|error| invalid(wasm, &error))?;
        }
        Ok(module)
    }

    fn note(&mut self, payload: Payload<'a>) -> Result<(), BinaryReaderError> {
        match payload {
            Payload::TypeSection(types) => {
                for ty in types.into_iter_err_on_gc_types() {
                    self.types.push(ty?);
                }
            }
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let import = import?;
                    if let TypeRef::Func(ty) = import.ty {
                        self.functions.push(ty);
                    }
                    self.imports.push((import.module, import.name, import.ty));
                }
            }
            Payload::FunctionSection(functions) => {
                for ty in functions {
                    self.functions.push(ty?);
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    let export = export?;
                    match export.name {
                        "_start" => self.start = Some((export.kind, export.index)),
                        "memory" => self.memory_exported = export.kind == ExternalKind::Memory,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn check_imports(&self) -> Result<(), AdmissionError> {
        self.imports
            .iter()
            .try_for_each(|(module, field, ty)| self.check_import(module, field, *ty))
    }

    fn check_import(&self, module: &str, field: &str, ty: TypeRef) -> Result<(), AdmissionError> {
        let offered = signatures::FUNCTIONS
            .iter()
            .find(|(name, ..)| module == signatures::MODULE && *name == field);
        let Some((_, parameters, results)) = offered else {
            return Err(AdmissionError::ImportNotOffered {
                module: shorten(module),
                field: shorten(field),
            });
        };
        let fits = match ty {
            TypeRef::Func(index) => self.types.get(index as usize).is_some_and(|ty| {
                signatures::matches(parameters, ty.params()) && signatures::matches(results, ty.results())
            }),
            _ => false,
        };
        if fits {
            return Ok(());
        }
        Err(AdmissionError::ImportType {
            module: module.to_owned(),
            field: field.to_owned(),
            expected: signatures::display(parameters, results),
        })
    }

    fn check_exports(&self) -> Result<(), AdmissionError> {
        let Some((kind, index)) = self.start else {
            return Err(AdmissionError::NoStart { exists: false });
        };
        let ty = self
            .functions
            .get(index as usize)
            .and_then(|ty| self.types.get(*ty as usize));
        let plain = ty.is_some_and(|ty| ty.params().is_empty() && ty.results().is_empty());
        if kind != ExternalKind::Func || !plain {
            return Err(AdmissionError::NoStart { exists: true });
        }
        if !self.memory_exported {
            return Err(AdmissionError::NoMemory);
        }
        Ok(())
    }
}

/// Refuses what is too large before time is spent on it.
fn check_size(payload: &Payload<'_>, limits: &AdmissionLimits) -> Result<(), AdmissionError> {
    match payload {
        Payload::TypeSection(types) => at_most("types", types.count().into(), limits.functions),
        Payload::ImportSection(imports) => at_most("imports", imports.count().into(), IMPORTS_MAX),
        Payload::FunctionSection(functions) => {
            at_most("functions", functions.count().into(), limits.functions)
        }
        Payload::GlobalSection(globals) => at_most("globals", globals.count().into(), limits.globals),
        Payload::CodeSectionEntry(body) => {
            let bytes = body.range().len() as u64;
            at_most("bytes in one function", bytes, limits.function_bytes)
        }
        Payload::TableSection(tables) => {
            at_most("tables", tables.count().into(), TABLES_MAX)?;
            tables
                .clone()
                .into_iter()
                .flatten()
                .try_for_each(|table| at_most("elements in one table", table.ty.initial, TABLE_ELEMENTS_MAX))
        }
        _ => Ok(()),
    }
}

fn at_most(what: &str, count: u64, max: u32) -> Result<(), AdmissionError> {
    let max = u64::from(max);
    if count <= max {
        return Ok(());
    }
    let what = what.to_owned();
    Err(AdmissionError::TooMany { what, count, max })
}

/// Tells a broken module from one that would be valid with further proposals.
fn invalid(wasm: &[u8], error: &BinaryReaderError) -> AdmissionError {
    let offset = error.offset() as u64;
    let message = shorten(error.message());
    let elsewhere = Validator::new_with_features(WasmFeatures::all()).validate_all(wasm);
    if elsewhere.is_ok() {
        AdmissionError::ProposalNotEnabled { offset, message }
    } else {
        AdmissionError::Invalid { offset, message }
    }
}

/// A stranger's name in a message, or the validator's words with such names in them: not longer than
/// a line or two, and nothing in it that drives a terminal.
fn shorten(text: &str) -> String {
    const CHARS_MAX: usize = 160;
    let shown = |text: &str| -> String {
        text.chars()
            .flat_map(|c| match c {
                '\'' | '"' => vec![c],
                _ => c.escape_debug().collect(),
            })
            .collect()
    };
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", shown(&text[..end])),
        None => shown(text),
    }
}

fn if_text(text: bool) -> &'static str {
    if text {
        " in binary form but looks like its text format"
    } else {
        ""
    }
}

fn wrong(exists: bool) -> &'static str {
    if exists {
        " without parameters and results"
    } else {
        ""
    }
}
