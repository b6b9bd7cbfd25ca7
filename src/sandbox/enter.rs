//! The zygote and a job's init: the two processes between the daemon and a foreign compiler.
//!
//! The zygote is a fresh execution of this program, with one thread, so all that stands here is
//! ordinary code; a daemon with threads could do almost nothing between `fork` and `exec`. It makes
//! the namespaces and the view once and then clones an init per job.
//!
//! The init is process 1 of the job's pid namespace: it builds the job's view, starts the compiler
//! and waits for it. When it leaves, the kernel kills whatever the compiler left behind. It leaves
//! when the compiler ends, when the daemon closes the job's stream, when the zygote dies
//! (`PR_SET_PDEATHSIG`: it has one thread, so the signal means what it says) or when time is up.
//!
//! The zygote itself is *not* tied to the daemon by that signal, since it is sent when the *thread*
//! ends that started the zygote, and a daemon's threads come and go. The end of the control stream
//! says the same reliably.
//!
//! The compiler runs in one more user namespace, without any ids in it. It costs little and does
//! two things: the kernel counts processes per user *and* namespace, so one job's limit is not
//! another's; and the job is a stranger to the namespace that owns its mounts.
//!
//! One of two files that may say `unsafe`.

#![allow(unsafe_code)] // This is the file that the lint points to.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::OsString;
use std::ffi::{CStr, CString};
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{self, Gid, Uid};
use seccompiler::BpfProgram;

use super::bounds::Bounds;
use super::spec::{
    Consumed, Ended, Fault, LAUNCH_BYTES_MAX, Launch, Limits, REPORT_BYTES_MAX, Refusal, Report,
    Rung, SPEC_BYTES_MAX, ZygoteSpec,
};
use super::view::{self, Base, refused};
use crate::frame::{self, Decoder};
use crate::sys::{
    default_signal, drop_bounding_set, drop_capabilities, receive_with_fds, wait_any,
};

/// The id that the zygote has within its user namespace. Which one does not matter, as long as it
/// is not 0: the capabilities of a new namespace would come back with every `exec`.
const INNER_ID: u32 = 1000;

/// Runs the zygote on the control socket that is its standard input.
pub fn zygote_main(arguments: &[OsString]) -> ! {
    let bounds = Bounds::parse(arguments);
    let started = bounds.ok_or(Over).and_then(|bounds| Zygote::start(&bounds));
    let status = match started {
        Ok(mut zygote) => zygote.serve().map_or_else(|_| 1, |()| 0),
        Err(_) => 1,
    };
    std::process::exit(status)
}

struct Zygote {
    control: OwnedFd,
    children: SignalFd,
    base: Base,
    rung: Rung,
    filter: BpfProgram,
    null: OwnedFd,
    /// The streams of the jobs that run, by their init.
    jobs: BTreeMap<i32, UnixStream>,
}

/// The zygote can't do its work; what there was to say has been said.
struct Over;

impl Zygote {
    fn start(bounds: &Bounds) -> Result<Self, Over> {
        // SAFETY: nothing else in this process owns descriptor 0.
        let control = unsafe { OwnedFd::from_raw_fd(0) };
        let mut byte = [0];
        let (_, fds) = receive_with_fds(control.as_fd(), &mut byte).map_err(|_| Over)?;
        let [stream] = <[OwnedFd; 1]>::try_from(fds).map_err(|_| Over)?;
        let mut stream = UnixStream::from(stream);
        let spec = receive::<ZygoteSpec>(&mut stream, SPEC_BYTES_MAX).ok_or(Over)?;
        if !bounds.allow(&spec, &super::ladder::own_program()) {
            let refusal = refused(Fault::Job, "start beyond what was agreed")(Errno::EPERM);
            say(&mut stream, &Report::Refused(refusal));
            return Err(Over);
        }
        match Self::enter(control, &spec) {
            Ok((zygote, trees)) => {
                let mut ready = Vec::new();
                frame::encode(&Report::Ready, REPORT_BYTES_MAX, &mut ready).map_err(|_| Over)?;
                sendmsg::<()>(
                    stream.as_raw_fd(),
                    &[std::io::IoSlice::new(&ready)],
                    &[ControlMessage::ScmRights(&[trees.as_raw_fd()])],
                    MsgFlags::empty(),
                    None,
                )
                .map_err(|_| Over)?;
                Ok(zygote)
            }
            Err(refusal) => {
                say(&mut stream, &Report::Refused(refusal));
                Err(Over)
            }
        }
    }

    fn enter(control: OwnedFd, spec: &ZygoteSpec) -> Result<(Self, OwnedFd), Refusal> {
        let sandbox = |tried: &'static str| refused(Fault::Sandbox, tried);
        // Descriptors 0 and 1 are the daemon's business no more. The number 0 stays taken, so
        // that no descriptor of a job is ever mistaken for its standard input.
        let moved = fcntl(&control, FcntlArg::F_DUPFD_CLOEXEC(3))
            .map_err(sandbox("move the control socket"))?;
        // SAFETY: `fcntl` has just made this descriptor for us.
        let moved = unsafe { OwnedFd::from_raw_fd(moved) };
        let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(sandbox("open /dev/null"))?;
        unistd::dup2_stdin(&null).map_err(sandbox("close the standard input"))?;
        unistd::dup2_stdout(&null).map_err(sandbox("close the standard output"))?;
        std::mem::forget(control); // It is /dev/null now, for good.

        let filter = super::filter::program().map_err(|tried| Refusal {
            fault: Fault::Sandbox,
            tried,
            errno: Errno::ENOSYS as i32,
        })?;
        // When memory runs out, a compiler goes before anything of the user's. It is a wish.
        let _ = fs::write("/proc/self/oom_score_adj", "800");
        enter_namespaces(spec.rung)?;
        let (base, trees) = view::build_base(spec)?;

        default_signals().map_err(sandbox("reset the signals"))?;
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)
            .map_err(sandbox("block SIGCHLD"))?;
        let children = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(sandbox("make a signal descriptor"))?;
        let zygote = Self {
            control: moved,
            children,
            base,
            rung: spec.rung,
            filter,
            null,
            jobs: BTreeMap::new(),
        };
        Ok((zygote, trees))
    }

    /// Serves until the daemon closes the control socket.
    fn serve(&mut self) -> nix::Result<()> {
        loop {
            let mut ready = [
                PollFd::new(self.control.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.children.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut ready, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
            let [control, children] = ready.map(|fd| fd.any().unwrap_or(false));
            if children {
                while let Ok(Some(_)) = self.children.read_signal() {}
                self.bury();
            }
            if control && !self.accept()? {
                return Ok(());
            }
        }
    }

    /// Takes in one job; false at the end of the control stream.
    fn accept(&mut self) -> nix::Result<bool> {
        let mut byte = [0];
        let (length, fds) = match receive_with_fds(self.control.as_fd(), &mut byte) {
            Err(Errno::EINTR) => return Ok(true),
            other => other?,
        };
        if length == 0 {
            return Ok(false);
        }
        let Ok([stream, stdout, stderr]) = <[OwnedFd; 3]>::try_from(fds) else {
            return Ok(true);
        };
        let mut stream = UnixStream::from(stream);
        match clone_init() {
            Ok(0) => {
                self.jobs.clear();
                let status = Init {
                    zygote: self,
                    stream,
                    stdout,
                    stderr,
                }
                .run();
                // SAFETY: it ends this process without running what the zygote has left to run.
                unsafe { libc::_exit(status) }
            }
            Ok(pid) => {
                say(&mut stream, &Report::Cloned(pid));
                self.jobs.insert(pid, stream);
            }
            Err(errno) => {
                let refusal = refused(Fault::Sandbox, "clone a job's init")(errno);
                say(&mut stream, &Report::Refused(refusal));
            }
        }
        Ok(true)
    }

    /// Reports the jobs whose init is dead. The kernel lets an init be waited for only when
    /// nothing else is left in its pid namespace.
    fn bury(&mut self) {
        while let Some(child) = wait_any() {
            if let Some(mut stream) = self.jobs.remove(&child.pid) {
                say(&mut stream, &Report::Gone(child.cpu_us));
            }
        }
    }
}

fn enter_namespaces(rung: Rung) -> Result<(), Refusal> {
    let common = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    let (uid, gid) = (Uid::effective(), Gid::effective());
    match rung {
        Rung::UserNamespaces => {
            unshare(common | CloneFlags::CLONE_NEWUSER)
                .map_err(refused(Fault::Sandbox, "make a user namespace"))?;
            let map = |file: &str, text: &str| {
                fs::write(format!("/proc/self/{file}"), text).map_err(|error| Refusal {
                    fault: Fault::Sandbox,
                    tried: format!("write {file}"),
                    errno: error.raw_os_error().unwrap_or_default(),
                })
            };
            map("setgroups", "deny")?;
            map("uid_map", &format!("{INNER_ID} {uid} 1"))?;
            map("gid_map", &format!("{INNER_ID} {gid} 1"))?;
        }
        Rung::Root { uid, gid } => {
            if uid == 0 || gid == 0 {
                return Err(refused(Fault::Job, "run jobs as root")(Errno::EINVAL));
            }
            unshare(common).map_err(refused(Fault::Sandbox, "make namespaces"))?;
        }
    }
    match unistd::sethostname("ice") {
        // What podman's own filter of system calls allows in a container is all that a sandbox needs but this.
        // A machine's name is no secret: whoever may send it a job has it from the scheduler.
        Err(Errno::EPERM) => Ok(()),
        named => named.map_err(refused(Fault::Sandbox, "set the host name")),
    }
}

/// What the daemon's starter ignored is not to be ignored by a compiler.
fn default_signals() -> nix::Result<()> {
    [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGCHLD,
        Signal::SIGTSTP,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ]
    .into_iter()
    .try_for_each(default_signal)
}

/// `fork` into a new mount and pid namespace.
fn clone_init() -> nix::Result<i32> {
    let flags = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::SIGCHLD;
    // SAFETY: without a stack and without CLONE_VM it is `fork`; this process has one thread, so
    // the child's memory is whole. The C library's own `fork` takes no flags.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    Errno::result(pid).map(|pid| pid as i32)
}

struct Init<'a> {
    zygote: &'a Zygote,
    stream: UnixStream,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Init<'_> {
    /// The life of a job; returns when it is over.
    fn run(mut self) -> i32 {
        let _ = prctl::set_pdeathsig(Signal::SIGKILL);
        let Some(launch) = receive::<Launch>(&mut self.stream, LAUNCH_BYTES_MAX) else {
            return 1;
        };
        let program = match self.start(&launch) {
            Ok(program) => program,
            Err(refusal) => {
                say(&mut self.stream, &Report::Refused(refusal));
                return 1;
            }
        };
        let started = Instant::now();
        say(&mut self.stream, &Report::Started);
        // The compiler alone holds its outputs open: their reader sees the end when it has ended.
        drop((self.stdout, self.stderr));
        let wall = Duration::from_secs(launch.limits.wall_seconds);
        let ended = watch(&self.zygote.children, &self.stream, program, started + wall);
        if let Some((ended, mut consumed)) = ended {
            consumed.wall_us = started.elapsed().as_micros() as u64;
            say(&mut self.stream, &Report::Ended(ended, consumed));
        }
        0
    }

    fn start(&self, launch: &Launch) -> Result<i32, Refusal> {
        let words = |bytes: &[u8]| {
            CString::new(bytes).map_err(|_| refused(Fault::Job, "read an argument")(Errno::EINVAL))
        };
        let program = words(launch.program.as_bytes())?;
        let argv: Vec<CString> = launch
            .argv
            .iter()
            .map(|word| words(word))
            .collect::<Result<_, _>>()?;
        let env: Vec<CString> = launch
            .env
            .iter()
            .map(|(name, value)| words(&[name, &b"="[..], value].concat()))
            .collect::<Result<_, _>>()?;
        let cwd = words(launch.cwd.as_bytes())?;

        view::build_job(&self.zygote.base, launch)?;
        self.spawn(&Command {
            program: &program,
            argv: pointers(&argv),
            env: pointers(&env),
            cwd: &cwd,
            launch,
        })
    }

    /// Starts the program; returns when it is executed, or could not be.
    fn spawn(&self, command: &Command<'_>) -> Result<i32, Refusal> {
        // The child shares our memory until it executes, and we wait for that: it costs a third of
        // a `fork`, and the child's failure is simply a value here.
        let mut flags = CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK;
        if self.zygote.rung == Rung::UserNamespaces {
            flags |= CloneFlags::CLONE_NEWUSER;
        }
        let mut stack = vec![0; 128 << 10];
        let mut refusal = None;
        let child = Box::new(|| {
            let Err(error) = self.become_program(command);
            refusal = Some(error);
            127
        });
        // SAFETY: the closure runs on a stack of its own while this thread is suspended; it
        // neither allocates on its way to `exec` nor returns into our frames.
        let pid = unsafe { nix::sched::clone(child, &mut stack, flags, Some(libc::SIGCHLD)) }
            .map_err(refused(Fault::Sandbox, "clone the program's process"))?;
        match refusal {
            None => Ok(pid.as_raw()),
            Some((fault, tried, errno)) => Err(refused(fault, tried)(errno)),
        }
    }

    fn become_program(
        &self,
        command: &Command<'_>,
    ) -> Result<Infallible, (Fault, &'static str, Errno)> {
        let sandbox = |tried: &'static str| move |errno| (Fault::Sandbox, tried, errno);
        let launch = command.launch;
        unistd::setsid().map_err(sandbox("make a session"))?;
        unistd::dup2_stdin(&self.zygote.null).map_err(sandbox("set the standard input"))?;
        unistd::dup2_stdout(&self.stdout).map_err(sandbox("set the standard output"))?;
        unistd::dup2_stderr(&self.stderr).map_err(sandbox("set the standard error"))?;
        // SAFETY: the descriptors are this process's own copies, and it opens none after this.
        Errno::result(unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) })
            .map_err(sandbox("close the other descriptors"))?;
        umask(Mode::from_bits_truncate(launch.umask));
        unistd::chdir(command.cwd)
            .map_err(|errno| (Fault::Job, "enter the working directory", errno))?;

        let niceness = launch.limits.niceness;
        if niceness > 0 {
            // SAFETY: it touches no memory. The daemon may be nice already; this adds to it.
            unsafe { libc::nice(niceness) };
        }
        prctl::set_no_new_privs()
            .and_then(|()| drop_bounding_set())
            .map_err(sandbox("give up privileges for ever"))?;
        if let Rung::Root { uid, gid } = self.zygote.rung {
            unistd::setgroups(&[])
                .and_then(|()| unistd::setgid(gid.into()))
                .and_then(|()| unistd::setuid(uid.into()))
                .map_err(sandbox("become the jobs' user"))?;
        }
        drop_capabilities().map_err(sandbox("drop the capabilities"))?;
        limit(&launch.limits).map_err(sandbox("set the limits"))?;
        default_signal(Signal::SIGPIPE).map_err(sandbox("reset SIGPIPE"))?;
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
            .map_err(sandbox("unblock the signals"))?;
        seccompiler::apply_filter(&self.zygote.filter)
            .map_err(|_| (Fault::Sandbox, "install the seccomp filter", Errno::last()))?;
        // SAFETY: both arrays end with a null pointer and, like the strings that they point to,
        // outlive the call.
        unsafe {
            libc::execve(
                command.program.as_ptr(),
                command.argv.as_ptr(),
                command.env.as_ptr(),
            )
        };
        Err((Fault::Program, "execute the program", Errno::last()))
    }
}

struct Command<'a> {
    program: &'a CStr,
    argv: Vec<*const libc::c_char>,
    env: Vec<*const libc::c_char>,
    cwd: &'a CStr,
    launch: &'a Launch,
}

/// What `execve` wants; made before the clone, where one may allocate.
fn pointers(words: &[CString]) -> Vec<*const libc::c_char> {
    words
        .iter()
        .map(|word| word.as_ptr())
        .chain([std::ptr::null()])
        .collect()
}

fn limit(limits: &Limits) -> nix::Result<()> {
    for (resource, most) in [
        (Resource::RLIMIT_AS, limits.address_space_bytes),
        (Resource::RLIMIT_CPU, limits.cpu_seconds),
        (Resource::RLIMIT_FSIZE, limits.file_bytes),
        (Resource::RLIMIT_NPROC, limits.processes),
        (Resource::RLIMIT_NOFILE, limits.open_files),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_MEMLOCK, 64 << 10),
        (Resource::RLIMIT_MSGQUEUE, 0),
    ] {
        let (_, hard) = getrlimit(resource)?;
        // At the soft limit of CPU time comes SIGXCPU, which tells why; at the hard one SIGKILL.
        let grace = u64::from(resource == Resource::RLIMIT_CPU);
        setrlimit(
            resource,
            most.min(hard),
            most.saturating_add(grace).min(hard),
        )?;
    }
    Ok(())
}

/// Waits until the program ends and buries the orphans meanwhile; nothing when nobody waits for
/// the job any more.
fn watch(
    children: &SignalFd,
    stream: &UnixStream,
    program: i32,
    deadline: Instant,
) -> Option<(Ended, Consumed)> {
    loop {
        while let Some(child) = wait_any() {
            if child.pid == program {
                let consumed = Consumed {
                    cpu_us: child.cpu_us,
                    rss_kib: child.rss_kib,
                    ..Consumed::default()
                };
                return Some((ended(child.status), consumed));
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Some((Ended::TimedOut, Consumed::default()));
        }
        // A timeout is at most half a minute: `poll` counts in milliseconds of a small type.
        let timeout = PollTimeout::try_from(left.min(Duration::from_secs(30)))
            .unwrap_or(PollTimeout::MAX)
            .max(PollTimeout::from(1_u8));
        let mut ready = [
            PollFd::new(children.as_fd(), PollFlags::POLLIN),
            // The daemon sends nothing after the launch, so this is the end of its stream.
            PollFd::new(stream.as_fd(), PollFlags::POLLIN),
        ];
        let _ = poll(&mut ready, timeout);
        if ready[1].any().unwrap_or(false) {
            return None;
        }
        while let Ok(Some(_)) = children.read_signal() {}
    }
}

fn ended(status: i32) -> Ended {
    if libc::WIFEXITED(status) {
        return Ended::Exited(libc::WEXITSTATUS(status) as u8);
    }
    match libc::WTERMSIG(status) {
        libc::SIGXCPU => Ended::TimedOut,
        signal => Ended::Signalled(signal),
    }
}

/// Reads one message. Its sender is the daemon: when it is gone, there is nobody to tell.
fn receive<T: serde::de::DeserializeOwned>(stream: &mut UnixStream, limit: usize) -> Option<T> {
    let mut decoder = Decoder::new(limit);
    let mut piece = [0; 16 << 10];
    loop {
        if let Some(message) = decoder.take().ok()? {
            return Some(message);
        }
        match stream.read(&mut piece) {
            Ok(0) => return None,
            Ok(length) => decoder.push(&piece[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

/// Tells the daemon. One small write, so that the zygote's and the init's words to the same stream
/// don't mix; a daemon that is gone needs no word.
fn say(stream: &mut UnixStream, report: &Report) {
    let mut bytes = Vec::new();
    if frame::encode(report, REPORT_BYTES_MAX, &mut bytes).is_ok() {
        let _ = stream.write_all(&bytes);
    }
}
