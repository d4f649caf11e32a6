//! Programs that are ready to run: linked code.

use std::sync::Arc;

use wasmtime::{Engine, Extern, InstancePre, Linker, Module, ModuleExport, Store};

use crate::call::internal;
use crate::guest::Guest;
use crate::javy::{self, EngineExports, EngineInstance};
use crate::library::{internal_io, lost};
use crate::{Code, CodeKind, GuestFault};

/// A program that a [`Machine`](crate::Machine) runs. Clones are handles on the same one.
#[derive(Clone)]
pub struct Program(pub(crate) Linked);

impl std::fmt::Debug for Program {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.0 {
            Linked::Command(_) => "Command",
            Linked::Script(_) => "Script",
            Linked::Engine(_) => "Engine",
        };
        formatter.debug_tuple("Program").field(&name).finish()
    }
}

#[derive(Clone)]
pub(crate) enum Linked {
    /// A WASI command.
    Command(Arc<Command>),
    /// Bytecode for the JavaScript engine: no code of its own.
    Script(Arc<Script>),
    /// The JavaScript engine itself.
    Engine(Arc<JavaScriptEngine>),
}

/// A linked command.
pub(crate) struct Command {
    pub pre: InstancePre<Guest>,
    pub start: ModuleExport,
    pub memory: ModuleExport,
}

/// JavaScript as bytecode.
pub(crate) struct Script {
    pub kind: javy::Kind,
    pub bytecode: Vec<u8>,
}

/// The linked JavaScript engine.
pub(crate) struct JavaScriptEngine {
    pre: InstancePre<Guest>,
    exports: EngineExports,
    memory: ModuleExport,
}

impl JavaScriptEngine {
    /// An instance of the engine for one call.
    pub(crate) async fn instantiate(&self, store: &mut Store<Guest>) -> wasmtime::Result<EngineInstance> {
        let instance = self.pre.instantiate_async(&mut *store).await?;
        let memory = instance.get_module_export(&mut *store, &self.memory);
        store.data_mut().memory = memory.and_then(Extern::into_memory);
        self.exports.bind(store, &instance)
    }
}

/// Makes code ready to run.
pub(crate) fn link(engine: &Engine, linker: &Linker<Guest>, code: &Code) -> Result<Linked, GuestFault> {
    match code.kind() {
        CodeKind::Script(kind) => {
            let bytecode = code.bytes().map_err(|error| internal_io(&error))?.into_owned();
            Ok(Linked::Script(Arc::new(Script { kind, bytecode })))
        }
        CodeKind::Command => {
            let module = map(engine, code)?;
            Ok(Linked::Command(Arc::new(Command {
                pre: prepare(linker, &module)?,
                memory: export(&module, "memory")?,
                start: export(&module, "_start")?,
            })))
        }
        CodeKind::JavaScriptEngine => {
            let module = map(engine, code)?;
            Ok(Linked::Engine(Arc::new(JavaScriptEngine {
                pre: prepare(linker, &module)?,
                exports: EngineExports::resolve(&module).map_err(|error| internal(&error))?,
                memory: export(&module, "memory")?,
            })))
        }
    }
}

/// Maps machine code into this process.
fn map(engine: &Engine, code: &Code) -> Result<Module, GuestFault> {
    let file = code.sealed().map_err(|error| internal_io(&error))?.into_file();
    // SAFETY: the bytes were written by wasmtime's compiler for this node and, where they come from
    // its disk, were authenticated with a key that only this node has (`Code`). They are sealed, so
    // that they are still the same, and stay so while they are mapped. wasmtime itself checks that
    // its version and settings are the ones that compiled them.
    unsafe { Module::deserialize_open_file(engine, file) }.map_err(|error| internal(&error))
}

fn prepare(linker: &Linker<Guest>, module: &Module) -> Result<InstancePre<Guest>, GuestFault> {
    linker.instantiate_pre(module).map_err(|error| internal(&error))
}

fn export(module: &Module, name: &str) -> Result<ModuleExport, GuestFault> {
    module.get_export_index(name).ok_or_else(lost)
}
