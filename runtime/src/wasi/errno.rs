//! Error numbers of WASI preview 1, and how a host call fails.

/// An error number, from `wasi_snapshot_preview1.witx`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub u16);

impl Errno {
    pub(crate) const SUCCESS: Self = Self(0);
    pub(crate) const BADF: Self = Self(8);
    pub(crate) const FAULT: Self = Self(21);
    pub(crate) const INVAL: Self = Self(28);
    pub(crate) const IO: Self = Self(29);
    pub(crate) const NOTDIR: Self = Self(54);
    pub(crate) const NOTSOCK: Self = Self(57);
    pub(crate) const NOTSUP: Self = Self(58);
    pub(crate) const SPIPE: Self = Self(70);
}

/// A host call that did not do what it was asked for.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The guest gets to know and goes on.
    Errno(Errno),
    /// The guest is stopped.
    Stop(wasmtime::Error),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<wasmtime::Error> for Failure {
    fn from(error: wasmtime::Error) -> Self {
        Self::Stop(error)
    }
}

impl From<crate::guest::Stop> for Failure {
    fn from(stop: crate::guest::Stop) -> Self {
        Self::Stop(stop.into())
    }
}

/// What the guest sees of a host call's result.
pub(crate) fn answer(result: Result<(), Failure>) -> wasmtime::Result<i32> {
    match result {
        Ok(()) => Ok(i32::from(Errno::SUCCESS.0)),
        Err(Failure::Errno(errno)) => Ok(i32::from(errno.0)),
        Err(Failure::Stop(error)) => Err(error),
    }
}
