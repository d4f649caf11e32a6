//! What the process may do because of who runs it: nothing more than anybody.

use std::io;

use rustix::process::{DumpableBehavior, Signal, set_dumpable_behavior, set_parent_process_death_signal};

use super::State;

pub(super) fn drop_all() -> State {
    match try_drop_all() {
        Ok(()) => State::Up,
        Err(error) => State::Missing(error.to_string()),
    }
}

fn try_drop_all() -> io::Result<()> {
    drop_capabilities()?;
    // Nobody attaches to it, and it shows nobody its memory.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // It must not outlive the daemon, which may be killed. Changing privileges clears this, so that
    // it comes last; the daemon has gone already if this process is somebody else's child by now, and
    // then the end of its channel ends it.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}

/// Takes every capability away, also from what root would execute.
fn drop_capabilities() -> io::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3` of `linux/capability.h`: two words for each set.
    const VERSION_3: u32 = 0x2008_0522;
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    #[derive(Default)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let none = [Data::default(), Data::default()];
    // SAFETY: capset(2) reads a header and two words of each set, which is what it is given.
    match unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
