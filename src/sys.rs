//! Safe wrappers of the few system calls that nix leaves unsafe or does not have.
//!
//! One of two files that may say `unsafe`. Each function is complete in itself: no caller has to
//! know more than its signature says.

#![allow(unsafe_code)] // This is the file that the lint points to.

use std::ffi::CStr;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::sys::statfs::statfs;
use nix::unistd::{Gid, Uid};

use crate::message::Terminal;

/// The most descriptors that are accepted with one message.
pub const RECEIVED_FDS_MAX: usize = 4;

/// Receives bytes and the descriptors that travel with them; each is closed on `exec`. Descriptors
/// beyond [`RECEIVED_FDS_MAX`] are dropped by the kernel. Zero bytes are the end of the stream.
pub fn receive_with_fds(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
) -> nix::Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([i32; RECEIVED_FDS_MAX]);
    let mut pieces = [io::IoSliceMut::new(bytes)];
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut pieces,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = control {
            for fd in received {
                // SAFETY: the kernel has just made this descriptor for us, and nobody else knows
                // of it.
                fds.push(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
    Ok((message.bytes, fds))
}

/// A detached copy of the mount that `path` (below `directory`; empty: `directory` itself) lies
/// on, with `path` as its root: what `mount --bind` copies, before it is attached anywhere.
pub fn open_tree(directory: BorrowedFd<'_>, path: &CStr, recursive: bool) -> nix::Result<OwnedFd> {
    let mut flags = libc::OPEN_TREE_CLONE
        | libc::OPEN_TREE_CLOEXEC
        | (libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW) as libc::c_uint;
    if recursive {
        flags |= libc::AT_RECURSIVE as libc::c_uint;
    }
    // SAFETY: `path` is a C string that outlives the call, which writes no memory of ours.
    let fd = Errno::result(unsafe {
        libc::syscall(
            libc::SYS_open_tree,
            directory.as_raw_fd(),
            path.as_ptr(),
            flags,
        )
    })?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Attaches a detached mount at `path` below `directory` (empty: at `directory` itself). The last
/// component is not followed when it is a symlink.
pub fn move_mount(
    mount: BorrowedFd<'_>,
    directory: BorrowedFd<'_>,
    path: &CStr,
) -> nix::Result<()> {
    const F_EMPTY_PATH: libc::c_uint = 0x4;
    const T_EMPTY_PATH: libc::c_uint = 0x40;
    // SAFETY: both paths are C strings that outlive the call, which writes no memory of ours.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            directory.as_raw_fd(),
            path.as_ptr(),
            F_EMPTY_PATH | T_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// Restricts a mount and all below it: set-user-id bits and device nodes mean nothing there, and
/// with `read_only` nothing can be written. It only ever adds restrictions, so mounts that a
/// user namespace inherited locked can be restricted further.
pub fn restrict_mount(mount: BorrowedFd<'_>, read_only: bool, devices: bool) -> nix::Result<()> {
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    const READ_ONLY: u64 = 0x1;
    const NO_SUID: u64 = 0x2;
    const NO_DEVICES: u64 = 0x4;
    let attr = MountAttr {
        set: NO_SUID | if read_only { READ_ONLY } else { 0 } | if devices { 0 } else { NO_DEVICES },
        clear: 0,
        propagation: 0,
        user_namespace: 0,
    };
    // SAFETY: the kernel reads `attr`, whose size it is told, and an empty C string.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// The standard descriptors that were closed when this process began, a bit each.
static CLOSED_STREAMS: AtomicU8 = AtomicU8::new(0);

/// What a process needs before its first line: the standard descriptors are open, so that nothing
/// else takes their place, and a write to a reader who has gone is an error.
pub fn prepare_process() {
    for descriptor in 0..=2 {
        // SAFETY: reading a descriptor's flags touches no memory.
        let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFD) };
        if flags == -1 {
            CLOSED_STREAMS.fetch_or(1 << descriptor, Ordering::Relaxed);
            // The lowest free one is this one. It stays open, also for programs that are executed,
            // unless `leave_closed_streams_closed` says otherwise.
            // SAFETY: the path is a C string.
            unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
        }
    }
    // SAFETY: ignoring a signal runs no code of ours.
    let ignored = unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) };
    ignored.expect("SIGPIPE can be ignored");
}

/// Whether this process was started without a standard output or a standard error.
pub fn has_closed_output() -> bool {
    CLOSED_STREAMS.load(Ordering::Relaxed) & 0b110 != 0
}

/// Lets programs that are executed from now on find closed what this process found closed.
pub fn leave_closed_streams_closed() {
    let closed = CLOSED_STREAMS.load(Ordering::Relaxed);
    for descriptor in (0..=2).filter(|descriptor| closed & (1 << descriptor) != 0) {
        // SAFETY: setting a descriptor's flags touches no memory. Should it fail, the program finds
        // an open stream that leads nowhere.
        unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// The niceness of this process; 0 when the kernel does not tell.
pub fn niceness() -> i8 {
    Errno::clear();
    // SAFETY: getpriority reads and writes no memory of ours.
    let niceness = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    // -1 is a niceness as well as the sign of an error.
    if niceness == -1 && Errno::last_raw() != 0 {
        return 0;
    }
    i8::try_from(niceness).unwrap_or(0)
}

/// Lets the command begin with these signals held, and no others.
pub fn set_signals_held_by(command: &mut Command, signals: SigSet) {
    // SAFETY: sigprocmask, all that happens here, is async-signal-safe; nothing is allocated.
    unsafe {
        command.pre_exec(move || Ok(signals.thread_set_mask()?));
    }
}

/// Lets the command run under this umask.
pub fn set_umask_of(command: &mut Command, umask: u32) {
    // SAFETY: umask is async-signal-safe and can't fail; nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            libc::umask(umask as libc::mode_t);
            Ok(())
        });
    }
}

/// Lets the command run as this user, with these groups and no others. Needs root.
pub fn become_user(command: &mut Command, uid: Uid, gid: Gid, groups: Vec<Gid>) {
    // SAFETY: three system calls over memory that is ready; nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            nix::unistd::setgroups(&groups)?;
            nix::unistd::setgid(gid)?;
            nix::unistd::setuid(uid)?;
            Ok(())
        });
    }
}

/// The supplementary groups of the process at the other end of a unix socket, when it connected.
pub fn peer_groups(socket: BorrowedFd<'_>) -> nix::Result<Vec<Gid>> {
    // Linux allows 65536 groups; nobody has more than a few hundred, and who has more compiles
    // with those that fit.
    let mut groups = vec![0 as libc::gid_t; 1024];
    let mut bytes = size_of_val(&groups[..]) as libc::socklen_t;
    // SAFETY: the kernel writes at most `bytes` bytes to `groups` and says how many it wrote.
    Errno::result(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut bytes,
        )
    })?;
    groups.truncate(bytes as usize / size_of::<libc::gid_t>());
    Ok(groups.into_iter().map(Gid::from_raw).collect())
}

/// The first address of a network interface.
pub fn interface_address(name: &str) -> io::Result<IpAddr> {
    let of_interface = nix::ifaddrs::getifaddrs()?.filter(|entry| entry.interface_name == name);
    let mut addresses = of_interface.filter_map(|entry| {
        let address = entry.address?;
        let four = address
            .as_sockaddr_in()
            .map(|address| IpAddr::V4(address.ip()));
        four.or_else(|| {
            address
                .as_sockaddr_in6()
                .map(|address| IpAddr::V6(address.ip()))
        })
    });
    addresses
        .next()
        .ok_or_else(|| io::Error::other("there is no such interface, or it has no address"))
}

/// Where the files of a file system are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// On this machine, and nothing changes behind the kernel's back.
    Local,
    /// On this machine, in layers: a file may get another inode.
    Layered,
    /// On another machine, in some program's hands, or not known.
    Other,
}

/// The file system that `path` lies on.
pub fn file_system(path: &Path) -> FileSystem {
    // ext2 to ext4, xfs, btrfs, tmpfs, f2fs, bcachefs, zfs, jfs, ramfs
    const LOCAL: [i64; 9] = [
        0xef53,
        0x5846_5342,
        0x9123_683e,
        0x0102_1994,
        0xf2f5_2010,
        0xca45_1a4e,
        0x2fc1_2fc1,
        0x3153_464a,
        0x8584_58f6,
    ];
    const OVERLAY: i64 = 0x794c_7630;
    // A type with its highest bit set arrives with a sign.
    let number = statfs(path).map(|found| found.filesystem_type().0 & 0xffff_ffff);
    match number {
        Ok(number) if LOCAL.contains(&number) => FileSystem::Local,
        Ok(OVERLAY) => FileSystem::Layered,
        Ok(_) | Err(_) => FileSystem::Other,
    }
}

/// The machine's memory in bytes.
pub fn memory_bytes() -> u64 {
    nix::sys::sysinfo::sysinfo().map_or(1 << 30, |info| info.ram_total())
}

/// Sees to it that no capability can ever be gained by `exec`. It takes a capability itself, so it
/// comes before [`drop_capabilities`] and before any change of user.
pub fn drop_bounding_set() -> nix::Result<()> {
    for capability in 0.. {
        // SAFETY: this option takes numbers only.
        let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        match Errno::result(dropped) {
            Ok(_) => {}
            Err(Errno::EINVAL) => break, // The kernel knows no more of them.
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Gives up every capability that this thread has.
pub fn drop_capabilities() -> nix::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let none = [0_u32; 6];
    // SAFETY: the kernel reads the header and, for this version, two sets of three words.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) })
        .map(drop)
}

/// Gives a signal its default action.
pub fn default_signal(number: Signal) -> nix::Result<()> {
    // SAFETY: the default action runs no code of ours.
    unsafe { signal(number, SigHandler::SigDfl) }.map(drop)
}

/// A child that has ended.
#[derive(Clone, Copy, Debug)]
pub struct EndedChild {
    /// Its process id.
    pub pid: i32,
    /// How it ended, as `wait` has it.
    pub status: i32,
    /// CPU time of it and of all descendants that were waited for, in microseconds.
    pub cpu_us: u64,
    /// The largest resident set among them, in KiB.
    pub rss_kib: u64,
}

/// Any one child that has ended; none when all live, or there are none.
pub fn wait_any() -> Option<EndedChild> {
    let mut status = 0;
    // SAFETY: `rusage` is plain numbers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to variables that outlive the call.
    let pid = unsafe { libc::wait4(-1, &mut status, libc::WNOHANG, &mut usage) };
    let microseconds = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    (pid > 0).then(|| EndedChild {
        pid,
        status,
        cpu_us: microseconds(usage.ru_utime) + microseconds(usage.ru_stime),
        rss_kib: usage.ru_maxrss as u64,
    })
}

/// A descriptor that becomes readable when a child of ours ends.
///
/// # Errors
/// Those of `pidfd_open`; Linux has it since 5.3.
pub fn watch_process(child: u32) -> nix::Result<OwnedFd> {
    // SAFETY: two numbers go in, and nothing is written to.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, child as libc::pid_t, 0) };
    let descriptor = Errno::result(descriptor)? as i32;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// The size of the terminal behind a descriptor; none when it is no terminal.
pub fn terminal(descriptor: BorrowedFd<'_>) -> Option<Terminal> {
    // SAFETY: `winsize` is plain numbers, for which zero is a value.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes a `winsize` to where the pointer points.
    let done = unsafe { libc::ioctl(descriptor.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    Errno::result(done).ok()?;
    Some(Terminal {
        rows: size.ws_row,
        columns: size.ws_col,
    })
}

/// A terminal of this size that passes bytes on as they are: its two ends, ours and the program's.
pub fn open_terminal(size: Terminal) -> nix::Result<(OwnedFd, OwnedFd)> {
    let window = libc::winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let ends = nix::pty::openpty(&window, None)?;
    let mut raw = nix::sys::termios::tcgetattr(&ends.slave)?;
    nix::sys::termios::cfmakeraw(&mut raw);
    nix::sys::termios::tcsetattr(&ends.slave, nix::sys::termios::SetArg::TCSANOW, &raw)?;
    // No job inherits them but by its own standard error.
    for end in [&ends.master, &ends.slave] {
        nix::fcntl::fcntl(
            end,
            nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC),
        )?;
    }
    Ok((ends.master, ends.slave))
}
