//! What a job may ask of the kernel: a seccomp program.
//!
//! A list of what is refused, under a ceiling: a system call newer than this file does not exist
//! for a job. A list of what is allowed would be tighter by a little (the namespaces and the
//! missing capabilities already stop what matters), but it breaks compilers that we have never
//! seen, and each such break is a job that fails far from home. What is refused here is what
//! reaches kernel code that no compiler needs: namespaces and mounts, the network, other
//! processes' memory, keys, tracing, asynchronous rings, and memory that belongs to no process
//! and thus escapes the counting in [`super::memory`].

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

/// The newest system call that this file has an opinion about: `mseal`, Linux 6.10. Numbers are
/// the same on all architectures since Linux 5.0. The ceiling also hides x32's calls.
const NEWEST: u32 = 462;

/// The program, or why there is none for this machine.
pub(super) fn program() -> Result<BpfProgram, String> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)
        .map_err(|error| format!("no seccomp filter for this machine: {error}"))?;
    let refused = REFUSED
        .iter()
        .map(|&call| (call, Vec::new()))
        .chain(conditional().map_err(|error| error.to_string())?)
        .collect();
    let filter = SeccompFilter::new(
        refused,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
        arch,
    )
    .map_err(|error| error.to_string())?;
    let rest: BpfProgram = filter.try_into().map_err(|error| format!("{error}"))?;
    Ok(missing().into_iter().chain(rest).collect())
}

/// The head of the program: what answers "no such system call" rather than "not permitted".
/// `clone3` is one, since its flags lie in memory where a filter can't look; the C library falls
/// back to `clone`. The architecture is checked by what follows, which kills a foreign one.
fn missing() -> [sock_filter; 4] {
    const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_GREATER: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
    const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    [
        step(LOAD_WORD, 0, 0, 0), // The system call's number is the first word.
        step(JUMP_GREATER, 1, 0, NEWEST),
        step(JUMP_EQUAL, 0, 1, libc::SYS_clone3 as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
    ]
}

/// Refused whatever the arguments.
const REFUSED: &[i64] = &[
    // The network, and sockets of any kind: pipes are what compilers talk through.
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    // Mounts, roots, namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    SYS_STATMOUNT,
    SYS_LISTMOUNT,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    SYS_QUOTACTL_FD,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_mknodat,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    // Memory that no process has mapped.
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_semget,
    libc::SYS_mq_open,
    // Keys, programs in the kernel, tracing, rings.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_bpf,
    libc::SYS_seccomp,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_setup,
    libc::SYS_io_submit,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    libc::SYS_inotify_init1,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_restrict_self,
    libc::SYS_lookup_dcookie,
    SYS_LSM_GET_SELF_ATTR,
    SYS_LSM_SET_SELF_ATTR,
    SYS_LSM_LIST_MODULES,
    // The machine.
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_nfsservctl,
    libc::SYS_mbind,
    libc::SYS_set_mempolicy,
    SYS_SET_MEMPOLICY_HOME_NODE,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_inotify_init,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ustat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_sysfs,
    #[cfg(target_arch = "x86_64")]
    libc::SYS__sysctl,
];

// Numbers that the C library's headers do not have everywhere yet.
const SYS_QUOTACTL_FD: i64 = 443;
const SYS_SET_MEMPOLICY_HOME_NODE: i64 = 450;
const SYS_STATMOUNT: i64 = 457;
const SYS_LISTMOUNT: i64 = 458;
const SYS_LSM_GET_SELF_ATTR: i64 = 459;
const SYS_LSM_SET_SELF_ATTR: i64 = 460;
const SYS_LSM_LIST_MODULES: i64 = 461;

/// Refused for certain arguments.
fn conditional() -> seccompiler::Result<Vec<(i64, Vec<SeccompRule>)>> {
    let mut rules = Vec::new();

    let mut clone = Vec::new();
    for flag in [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ] {
        let flag = flag as u64;
        clone.push(rule(vec![(0, SeccompCmpOp::MaskedEq(flag), flag)])?);
    }
    rules.push((libc::SYS_clone, clone));

    // Both push characters into a terminal's input, where the user's shell reads them.
    const TIOCLINUX: u64 = 0x541c;
    rules.push((
        libc::SYS_ioctl,
        vec![
            rule(vec![(1, SeccompCmpOp::Eq, libc::TIOCSTI)])?,
            rule(vec![(1, SeccompCmpOp::Eq, TIOCLINUX)])?,
        ],
    ));

    // A compiler asks which personality it has, and switches address randomisation off for its
    // precompiled headers.
    let asked = [0xffff_ffff, 0, libc::ADDR_NO_RANDOMIZE as u64];
    rules.push((
        libc::SYS_personality,
        vec![rule(
            asked.map(|value| (0, SeccompCmpOp::Ne, value)).to_vec(),
        )?],
    ));
    Ok(rules)
}

/// All conditions together: argument, comparison, value (32 bits).
fn rule(conditions: Vec<(u8, SeccompCmpOp, u64)>) -> seccompiler::Result<SeccompRule> {
    let conditions = conditions
        .into_iter()
        .map(|(argument, operator, value)| {
            SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
        })
        .collect::<Result<_, _>>()
        .map_err(seccompiler::Error::Backend)?;
    SeccompRule::new(conditions).map_err(seccompiler::Error::Backend)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_can_be_built_and_is_short() {
        let length = program().unwrap().len();
        // The kernel accepts 4096 steps; each job pays for their translation.
        assert!((100..800).contains(&length), "{length} steps");
    }

    #[test]
    fn nothing_is_refused_above_the_ceiling() {
        assert!(REFUSED.iter().all(|&call| call as u32 <= NEWEST));
        assert!(libc::SYS_clone3 as u32 <= NEWEST);
    }
}
