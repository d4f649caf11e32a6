//! A machine that commands can be run at: one of patchbay's behind a NAT, or one at a switch.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use anyhow::Result;
use patchbay::Device;

use crate::namespace::Namespace;

/// See the module's text.
pub(crate) trait Machine: Send + Sync {
    /// What it is called in results.
    fn name(&self) -> &str;

    /// Starts a command there.
    fn spawn(&self, command: Command) -> Result<Child>;
}

impl Machine for Device {
    fn name(&self) -> &str {
        Device::name(self)
    }

    fn spawn(&self, mut command: Command) -> Result<Child> {
        die_with_the_lab(&mut command);
        self.spawn_command_sync(command)
    }
}

impl Machine for Namespace {
    fn name(&self) -> &str {
        Namespace::name(self)
    }

    fn spawn(&self, mut command: Command) -> Result<Child> {
        die_with_the_lab(&mut command);
        self.enter_with(&mut command);
        Ok(command.spawn()?)
    }
}

/// Whoever kills the lab without giving it time to clean up has its daemons killed too.
fn die_with_the_lab(command: &mut Command) {
    // SAFETY: prctl is a bare system call, which is safe between fork and exec.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}
