//! Programs on their way from where they are verified and compiled to where they run.

use std::borrow::Cow;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::{Kind, SealedFile, javy};

/// What a program's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CodeKind {
    /// Machine code of a WASI command.
    Command,
    /// Bytecode for the JavaScript engine.
    Script(javy::Kind),
    /// Machine code of the JavaScript engine itself.
    JavaScriptEngine,
}

/// A program that was verified, and compiled if it is machine code: bytes that can cross a process
/// border.
///
/// Machine code is believed, so that there are only two ways to make one: a
/// [`Library`](crate::Library) makes it of an artifact, and [`Code::received`] takes it from a process
/// that is believed.
#[derive(Debug)]
pub struct Code {
    id: u64,
    kind: CodeKind,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    /// To be mapped. Each takes a descriptor.
    Sealed(SealedFile),
    /// To be read.
    Plain(Vec<u8>),
}

impl Code {
    /// Machine code that this process's compiler made.
    pub(crate) fn machine(kind: CodeKind, bytes: SealedFile) -> Self {
        Self::new(kind, Bytes::Sealed(bytes))
    }

    /// Bytecode.
    pub(crate) fn script(kind: javy::Kind, bytecode: Vec<u8>) -> Self {
        Self::new(CodeKind::Script(kind), Bytes::Plain(bytecode))
    }

    /// Code that another process made.
    ///
    /// # Safety
    /// The bytes must be what a [`Library`](crate::Library) of this very build made: machine code
    /// is executed as it is.
    #[must_use]
    pub unsafe fn received(kind: CodeKind, bytes: SealedFile) -> Self {
        Self::new(kind, Bytes::Sealed(bytes))
    }

    fn new(kind: CodeKind, bytes: Bytes) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { id, kind, bytes }
    }

    /// A number that no other code of this process has.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What the bytes are.
    #[must_use]
    pub fn kind(&self) -> CodeKind {
        self.kind
    }

    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> u64 {
        match &self.bytes {
            Bytes::Sealed(file) => file.len(),
            Bytes::Plain(bytes) => bytes.len() as u64,
        }
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes as sealed memory: to be mapped, or handed to another process.
    ///
    /// # Errors
    /// The system has no memory or no descriptor for it.
    pub fn sealed(&self) -> io::Result<SealedFile> {
        match &self.bytes {
            Bytes::Sealed(file) => file.try_clone(),
            Bytes::Plain(bytes) => SealedFile::copy_of(bytes),
        }
    }

    /// The bytes, to be read.
    pub(crate) fn bytes(&self) -> io::Result<Cow<'_, [u8]>> {
        match &self.bytes {
            Bytes::Sealed(file) => file.to_vec().map(Cow::Owned),
            Bytes::Plain(bytes) => Ok(Cow::Borrowed(bytes)),
        }
    }
}

impl CodeKind {
    /// The kind of artifact that becomes such code; none for the engine, which is no artifact.
    #[must_use]
    pub fn artifact(self) -> Option<Kind> {
        match self {
            Self::Command => Some(Kind::Command),
            Self::Script(kind) => Some(kind.into()),
            Self::JavaScriptEngine => None,
        }
    }
}
