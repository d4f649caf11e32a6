//! What somebody would try who got through the first wall: native code inside of an executor, run
//! after its walls were built. Only tests have it.

use std::ffi::CString;
use std::io;

use serde::{Deserialize, Serialize};

/// An attempt to get out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Attempt {
    /// Open a file for reading.
    OpenFile(String),
    /// Make a file.
    MakeFile(String),
    /// List a folder.
    ListFolder(String),
    /// Ask whether a file is there.
    StatFile(String),
    /// Open a socket of a family.
    Socket(i32),
    /// Start another program.
    Execute,
    /// Make another process.
    Fork,
    /// Make a thread.
    Thread,
    /// Attach to a process.
    Trace(i32),
    /// Read a process's memory.
    ReadMemory(i32),
    /// Open a process's memory as a file.
    MapMemory(i32),
    /// Send a signal to a process.
    Signal(i32),
    /// Become root again.
    Privileges,
    /// Load a module of the kernel, mount, reboot: what only root may.
    Mount,
    /// Raise a limit.
    RaiseLimit,
    /// Take more memory than there may be.
    TakeMemory(u64),
    /// Nothing: what works.
    Nothing,
    /// End, as a guest that breaks its engine would.
    Crash,
    /// Never give way.
    Hang,
}

impl Attempt {
    /// Makes it. What the system says, or that it worked.
    pub(super) fn make(&self) -> Result<(), String> {
        self.try_make().map_err(|error| error.to_string())
    }

    fn try_make(&self) -> io::Result<()> {
        match self {
            Self::OpenFile(path) => std::fs::File::open(path).map(drop),
            Self::MakeFile(path) => std::fs::write(path, "out"),
            Self::ListFolder(path) => std::fs::read_dir(path).map(drop),
            Self::StatFile(path) => {
                let path = CString::new(path.as_str())?;
                // SAFETY: a path that ends in a zero, and room for what is said of it.
                let mut about = unsafe { std::mem::zeroed::<libc::stat>() };
                // SAFETY: as above.
                call(unsafe { libc::stat(path.as_ptr(), &raw mut about) }.into())
            }
            // SAFETY: it takes no pointers.
            Self::Socket(family) => call(unsafe { libc::socket(*family, libc::SOCK_STREAM, 0) }.into()),
            Self::Execute => std::process::Command::new("/bin/true").status().map(drop),
            // SAFETY: a child, should there be one, ends at once.
            Self::Fork => match unsafe { libc::syscall(libc::SYS_fork) } {
                0 => std::process::exit(0),
                result => call(result),
            },
            Self::Thread => std::thread::Builder::new().spawn(|| ()).map(drop),
            // SAFETY: attaching takes no pointers.
            Self::Trace(pid) => call(unsafe { libc::ptrace(libc::PTRACE_ATTACH, *pid, 0, 0) }),
            Self::ReadMemory(pid) => read_memory(*pid),
            Self::MapMemory(pid) => std::fs::File::open(format!("/proc/{pid}/mem")).map(drop),
            // SAFETY: it takes no pointers. Signal 0 only asks whether it could be sent.
            Self::Signal(pid) => call(unsafe { libc::kill(*pid, 0) }.into()),
            // SAFETY: it takes no pointers.
            Self::Privileges => call(unsafe { libc::unshare(libc::CLONE_NEWUSER) }.into()),
            Self::Mount => {
                let (none, root) = (c"none".as_ptr(), c"/".as_ptr());
                // SAFETY: strings that end in zeros, and no data.
                call(unsafe { libc::mount(none, root, c"tmpfs".as_ptr(), 0, std::ptr::null()) }.into())
            }
            Self::RaiseLimit => {
                let limit = libc::rlimit {
                    rlim_cur: 1 << 20,
                    rlim_max: 1 << 20,
                };
                // SAFETY: a limit to read.
                call(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }.into())
            }
            Self::TakeMemory(bytes) => take_memory(*bytes),
            Self::Nothing => Ok(()),
            Self::Crash => std::process::abort(),
            Self::Hang => loop {
                std::hint::spin_loop();
            },
        }
    }
}

fn call(result: libc::c_long) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn read_memory(pid: i32) -> io::Result<()> {
    let mut byte = 0_u8;
    let own = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    let theirs = libc::iovec {
        iov_base: own.iov_base,
        iov_len: 1,
    };
    // SAFETY: one byte of our own to be written, and an address in another process.
    call(unsafe { libc::process_vm_readv(pid, &raw const own, 1, &raw const theirs, 1, 0) } as libc::c_long)
}

fn take_memory(bytes: u64) -> io::Result<()> {
    let len = usize::try_from(bytes).map_err(io::Error::other)?;
    let (protection, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    );
    // SAFETY: a fresh mapping at an address of the kernel's choice.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
