//! Namespaces of the process's own: no network, no file names, nobody else's IPC.

use std::io;

use super::State;

/// A folder that every Linux system has, into which nobody can put a file: it lists the numbers of this
/// process's own descriptors (`proc(5)`), and nothing else.
const EMPTY: &str = "/proc/self/fdinfo";

pub(super) fn enter() -> State {
    match try_enter() {
        Ok(()) => State::Up,
        Err((what, error)) => State::Missing(format!("{what}: {error}")),
    }
}

fn try_enter() -> Result<(), (&'static str, io::Error)> {
    let apart = libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWNS;
    // Without privileges a user namespace comes first, which gives them, to this process alone.
    unshare(libc::CLONE_NEWUSER | apart)
        .or_else(|_| unshare(apart))
        .map_err(|error| ("no namespaces are to be had", error))?;
    rustix::process::chroot(EMPTY)
        .and_then(|()| rustix::process::chdir("/"))
        .map_err(|error| ("the root can't be changed", error.into()))
}

fn unshare(what: libc::c_int) -> io::Result<()> {
    // SAFETY: it takes no pointers, and changes what this process, which has one thread, is part of.
    match unsafe { libc::unshare(what) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
