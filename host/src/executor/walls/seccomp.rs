//! System calls: those that running (or compiling) guests takes, and no others.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use super::{Role, State};

/// `PAGEMAP_SCAN` of `linux/fs.h`: which pages of its own memory a guest has written to.
const PAGEMAP_SCAN: u64 = 0xc060_6610;
/// What `clone3(2)` and `statx(2)` answer: that they do not exist. The C library then uses the older
/// calls, whose arguments a filter can see.
const ABSENT: u32 = libc::ENOSYS as u32;
const REFUSED: u32 = libc::EPERM as u32;

/// System calls that are allowed whatever their arguments: memory of its own, time, waiting, and reading and
/// writing what is open.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd2,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_write,
    libc::SYS_writev,
];

pub(super) fn restrict(role: Role) -> State {
    let arch = match std::env::consts::ARCH.try_into() {
        Ok(arch) => arch,
        Err(error) => return State::Missing(format!("{error:?}")),
    };
    let installed = filters(role, arch)
        .map_err(seccompiler::Error::Backend)
        .and_then(|filters| {
            filters
                .iter()
                .try_for_each(|filter| seccompiler::apply_filter(filter))
        });
    match installed {
        Ok(()) => State::Up,
        Err(error) => State::Missing(error.to_string()),
    }
}

/// Two filters; of what they say the stricter holds.
fn filters(role: Role, arch: TargetArch) -> Result<[BpfProgram; 2], BackendError> {
    Ok([
        program(
            [(libc::SYS_clone3, vec![]), (libc::SYS_statx, vec![])].into(),
            SeccompAction::Allow,
            SeccompAction::Errno(ABSENT),
            arch,
        )?,
        program(
            allowed(role)?,
            SeccompAction::Errno(REFUSED),
            SeccompAction::Allow,
            arch,
        )?,
    ])
}

fn program(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matching: SeccompAction,
    arch: TargetArch,
) -> Result<BpfProgram, BackendError> {
    SeccompFilter::new(rules, otherwise, matching, arch)?.try_into()
}

fn allowed(role: Role) -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.iter().map(|&call| (call, vec![])).collect();
    // The first filter answers these; here they only must not be refused first.
    rules.extend([(libc::SYS_clone3, vec![]), (libc::SYS_statx, vec![])]);
    rules.insert(
        libc::SYS_ioctl,
        vec![argument(1, Len::Dword, Op::Eq, PAGEMAP_SCAN)?],
    );
    // Only to itself: `abort`, after a panic. 0 is no process's id.
    let own = u64::from(std::process::id());
    rules.insert(libc::SYS_tgkill, vec![argument(0, Len::Dword, Op::Eq, own)?]);
    rules.insert(libc::SYS_mmap, vec![]);
    if role == Role::Compiler {
        // Threads, not processes.
        let thread = libc::CLONE_THREAD as u64;
        rules.insert(
            libc::SYS_clone,
            vec![argument(0, Len::Qword, Op::MaskedEq(thread), thread)?],
        );
        rules.insert(libc::SYS_set_tid_address, vec![]);
        rules.insert(
            libc::SYS_prctl,
            vec![argument(0, Len::Dword, Op::Eq, libc::PR_SET_NAME as u64)?],
        );
    }
    Ok(rules)
}

fn argument(number: u8, len: Len, operator: Op, value: u64) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(number, len, operator, value)?])
}
