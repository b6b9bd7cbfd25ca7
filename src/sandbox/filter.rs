//! What a job may ask of the kernel: a seccomp program.
//!
//! A list of what is refused, under a ceiling: a system call newer than this file does not exist
//! for a job. A list of what is allowed would be tighter by a little (the namespaces and the
//! missing capabilities already stop what matters), but it breaks compilers that we have never
//! seen, and each such break is a job that fails far from home. What is refused here is what
//! reaches kernel code that no compiler needs: namespaces and mounts, the network, other
//! processes' memory, keys, tracing, asynchronous rings, and memory that belongs to no process
//! and thus escapes the counting in [`super::memory`].
//!
//! The program is a search tree over the numbers and not a list: the kernel translates it, and
//! tries it for every number there is, each time that it is installed, which is once per job. As a
//! list it was the dearest part of the sandbox.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{BpfProgram, sock_filter};

/// The newest system call that this file has an opinion about: `mseal`, Linux 6.10. Numbers are
/// the same on all architectures since Linux 5.0. The ceiling also hides x32's calls.
const NEWEST: u32 = 462;

/// What the kernel calls this architecture; a call by another one's rules kills the process.
const ARCHITECTURE: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xc000_003e)
} else if cfg!(target_arch = "aarch64") {
    Some(0xc000_00b7)
} else if cfg!(target_arch = "riscv64") {
    Some(0xc000_00f3)
} else {
    None
};

/// The program, or why there is none for this machine.
pub(super) fn program() -> Result<BpfProgram, String> {
    let architecture = ARCHITECTURE.ok_or("there is no seccomp filter for this processor")?;
    let mut program = vec![
        step(LOAD, 0, 0, ARCHITECTURE_OFFSET),
        step(JUMP_EQUAL, 1, 0, architecture),
        step(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        step(LOAD, 0, 0, NUMBER_OFFSET),
    ];
    search(&segments(), &mut program).ok_or("the seccomp filter is too long for its own jumps")?;
    Ok(program)
}

/// What is done about a system call.
#[derive(Clone, Debug, PartialEq)]
enum Verdict {
    Allow,
    /// "Not permitted".
    Refuse,
    /// "No such system call".
    Missing,
    /// A program of its own, which ends with a verdict.
    Ask(Vec<sock_filter>),
}

impl Verdict {
    fn steps(&self) -> Vec<sock_filter> {
        let verdict = match self {
            Self::Allow => libc::SECCOMP_RET_ALLOW,
            Self::Refuse => libc::SECCOMP_RET_ERRNO | libc::EPERM as u32,
            Self::Missing => libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32,
            Self::Ask(program) => return program.clone(),
        };
        vec![step(RETURN, 0, 0, verdict)]
    }
}

/// From which number on which verdict holds, up to the next one.
fn segments() -> Vec<(u32, Verdict)> {
    let mut verdicts: BTreeMap<u32, Verdict> = REFUSED
        .iter()
        .map(|&call| (call as u32, Verdict::Refuse))
        .collect();
    // Its flags lie in memory, where a filter can't look; the C library falls back to `clone`.
    verdicts.insert(libc::SYS_clone3 as u32, Verdict::Missing);
    verdicts.insert(libc::SYS_clone as u32, Verdict::Ask(ask_clone()));
    verdicts.insert(libc::SYS_ioctl as u32, Verdict::Ask(ask_ioctl()));
    verdicts.insert(
        libc::SYS_personality as u32,
        Verdict::Ask(ask_personality()),
    );

    let mut segments: Vec<(u32, Verdict)> = Vec::new();
    for number in 0..=NEWEST + 1 {
        let verdict = match verdicts.remove(&number) {
            Some(verdict) => verdict,
            None if number > NEWEST => Verdict::Missing,
            None => Verdict::Allow,
        };
        if segments.last().is_none_or(|(_, last)| *last != verdict) {
            segments.push((number, verdict));
        }
    }
    segments
}

/// Appends the search for the segment of the loaded number; none when a jump is too far.
fn search(segments: &[(u32, Verdict)], program: &mut BpfProgram) -> Option<()> {
    if let [(_, verdict)] = segments {
        program.extend(verdict.steps());
        return Some(());
    }
    let (low, high) = segments.split_at(segments.len() / 2);
    let jump = program.len();
    program.push(step(JUMP_AT_LEAST, 0, 0, high[0].0));
    search(low, program)?;
    program[jump].jt = u8::try_from(program.len() - jump - 1).ok()?;
    search(high, program)
}

/// Refuses new namespaces.
fn ask_clone() -> BpfProgram {
    let namespaces = libc::CLONE_NEWNS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET;
    let mut program = vec![
        step(LOAD, 0, 0, argument_offset(0)),
        step(JUMP_SET, 0, 1, namespaces as u32),
    ];
    program.extend(Verdict::Refuse.steps());
    program.extend(Verdict::Allow.steps());
    program
}

/// Refuses to push characters into a terminal's input, where the user's shell would read them.
fn ask_ioctl() -> BpfProgram {
    const TIOCLINUX: u32 = 0x541c;
    let mut program = vec![
        step(LOAD, 0, 0, argument_offset(1)),
        step(JUMP_EQUAL, 1, 0, libc::TIOCSTI as u32),
        step(JUMP_EQUAL, 0, 1, TIOCLINUX),
    ];
    program.extend(Verdict::Refuse.steps());
    program.extend(Verdict::Allow.steps());
    program
}

/// A compiler asks which personality it has, and switches address randomisation off for its
/// precompiled headers; anything else is refused.
fn ask_personality() -> BpfProgram {
    let mut program = vec![
        step(LOAD, 0, 0, argument_offset(0)),
        step(JUMP_EQUAL, 3, 0, 0xffff_ffff),
        step(JUMP_EQUAL, 2, 0, 0),
        step(JUMP_EQUAL, 1, 0, libc::ADDR_NO_RANDOMIZE as u32),
    ];
    program.extend(Verdict::Refuse.steps());
    program.extend(Verdict::Allow.steps());
    program
}

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JUMP_SET: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

// Where things are in the kernel's `struct seccomp_data`.
const NUMBER_OFFSET: u32 = 0;
const ARCHITECTURE_OFFSET: u32 = 4;

/// The low half of an argument; the kernel looks at no more of those that are asked about.
const fn argument_offset(argument: u32) -> u32 {
    let low_half = if cfg!(target_endian = "little") { 0 } else { 4 };
    16 + 8 * argument + low_half
}

const fn step(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
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

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    const MISSING: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

    /// What the kernel does with the program.
    fn verdict(number: i64, arguments: [u64; 2]) -> u32 {
        run(ARCHITECTURE.unwrap(), number as u32, arguments)
    }

    fn run(architecture: u32, number: u32, arguments: [u64; 2]) -> u32 {
        let program = program().unwrap();
        let mut loaded = 0;
        let mut at = 0;
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            let holds = match code {
                LOAD => {
                    loaded = match k {
                        NUMBER_OFFSET => number,
                        ARCHITECTURE_OFFSET => architecture,
                        _ => arguments[(k as usize - 16) / 8] as u32,
                    };
                    continue;
                }
                RETURN => return k,
                JUMP_AT_LEAST => loaded >= k,
                JUMP_EQUAL => loaded == k,
                JUMP_SET => loaded & k != 0,
                _ => panic!("no such step: {code}"),
            };
            at += usize::from(if holds { jt } else { jf });
        }
    }

    #[test]
    fn each_call_gets_its_verdict() {
        for number in 0..=NEWEST {
            let expect = if REFUSED.contains(&i64::from(number)) {
                REFUSE
            } else if i64::from(number) == libc::SYS_clone3 {
                MISSING
            } else if i64::from(number) == libc::SYS_personality {
                continue;
            } else {
                ALLOW
            };
            assert_eq!(verdict(number.into(), [0, 0]), expect, "{number}");
        }
    }

    #[test]
    fn what_is_newer_or_of_another_architecture_does_not_exist() {
        const X32: i64 = 0x4000_0000;
        for number in [
            i64::from(NEWEST) + 1,
            1000,
            X32 + libc::SYS_mount,
            i64::from(u32::MAX),
        ] {
            assert_eq!(verdict(number, [0, 0]), MISSING, "{number}");
        }
        const I386: u32 = 0x4000_0003;
        assert_eq!(run(I386, 0, [0, 0]), libc::SECCOMP_RET_KILL_PROCESS);
    }

    #[test]
    fn some_calls_depend_on_their_arguments() {
        let fork = libc::SIGCHLD as u64;
        for (call, arguments, expect) in [
            (libc::SYS_clone, [fork, 0], ALLOW),
            (
                libc::SYS_clone,
                [fork | libc::CLONE_NEWUSER as u64, 0],
                REFUSE,
            ),
            (
                libc::SYS_clone,
                [fork | libc::CLONE_NEWNS as u64, 0],
                REFUSE,
            ),
            (libc::SYS_ioctl, [0, libc::TCGETS], ALLOW),
            (libc::SYS_ioctl, [0, libc::TIOCSTI], REFUSE),
            // The kernel takes 32 bits of it, so a bit above them must not hide it.
            (libc::SYS_ioctl, [0, libc::TIOCSTI | 1 << 40], REFUSE),
            (libc::SYS_ioctl, [0, 0x541c], REFUSE),
            (libc::SYS_personality, [0xffff_ffff, 0], ALLOW),
            (libc::SYS_personality, [0, 0], ALLOW),
            (libc::SYS_personality, [0x0004_0000, 0], ALLOW),
            (libc::SYS_personality, [0x0040_0000, 0], REFUSE),
        ] {
            assert_eq!(verdict(call, arguments), expect, "{call} {arguments:?}");
        }
    }

    #[test]
    fn the_program_is_short() {
        // The kernel translates it for each job.
        let length = program().unwrap().len();
        assert!(length < 256, "{length} steps");
    }
}
