//! The form that bytecode is kept in: a first byte that says what follows.

/// How a program wants to be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It has a default export.
    Function,
    /// It has none.
    Script,
}

const SCRIPT: u8 = 1;

impl Kind {
    /// What packed bytecode says that it is.
    pub(crate) fn of(packed: &[u8]) -> Option<Self> {
        match packed.first()? & SCRIPT {
            0 => Some(Self::Function),
            _ => Some(Self::Script),
        }
    }
}

/// Packs QuickJS's bytecode.
pub(crate) fn pack(kind: Kind, bytecode: &[u8]) -> Vec<u8> {
    let tag = match kind {
        Kind::Function => 0,
        Kind::Script => SCRIPT,
    };
    let mut packed = Vec::with_capacity(bytecode.len() + 1);
    packed.push(tag);
    packed.extend_from_slice(bytecode);
    packed
}

/// QuickJS's bytecode again.
pub(crate) fn unpack(packed: &[u8]) -> Option<&[u8]> {
    packed.get(1..)
}
