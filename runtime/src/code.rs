//! Programs on their way from where they are verified and compiled to where they run.

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

/// A program that was verified, and compiled if it is machine code: sealed bytes that can cross a
/// process border.
///
/// Machine code is believed, so that there are only two ways to make one: a
/// [`Library`](crate::Library) makes it of an artifact, and [`Code::received`] takes it from a process
/// that is believed.
#[derive(Debug)]
pub struct Code {
    id: u64,
    kind: CodeKind,
    bytes: SealedFile,
}

impl Code {
    /// Code that this process made itself.
    pub(crate) fn made(kind: CodeKind, bytes: SealedFile) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { id, kind, bytes }
    }

    /// Code that another process made.
    ///
    /// # Safety
    /// The bytes must be what a [`Library`](crate::Library) of this very build made: machine code
    /// is executed as it is.
    #[must_use]
    pub unsafe fn received(kind: CodeKind, bytes: SealedFile) -> Self {
        Self::made(kind, bytes)
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

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &SealedFile {
        &self.bytes
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
