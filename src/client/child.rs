//! Waiting for a child as if it were this process: signals go on to it, and its end is ours.
//!
//! No handler is installed and no thread is started: the signals are blocked here, not in the
//! child, and read one after the other.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use crate::sys;

/// The signals that are meant for the child when they come to us.
const FORWARDED: [Signal; 4] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
];

/// The kernel's own mark on a signal (`SI_KERNEL`): a terminal's signals carry it, and go to the
/// whole process group, so the child has got its own.
const SENT_BY_KERNEL: i32 = 0x80;

/// Signals that wait to be read instead of ending this process.
#[derive(Debug)]
pub struct HeldSignals {
    /// What was held before, by whoever started this process: a child of ours holds no more.
    before: SigSet,
    descriptor: SignalFd,
}

/// A signal that was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// Which; none for the end of a child.
    pub signal: Option<Signal>,
    /// Whether the whole process group has got it, and so has the child.
    pub by_terminal: bool,
}

impl HeldSignals {
    /// Holds the signals from now on until the process ends: what has to be put in order then
    /// is put in order undisturbed.
    pub fn hold() -> io::Result<Self> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGCHLD);
        for signal in FORWARDED {
            set.add(signal);
        }
        let before = set.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let descriptor =
            SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { before, descriptor })
    }

    /// Starts a child that gets its signals as usual. They stay held here meanwhile: one that came just
    /// after the start would end us, and nobody would tell the child.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        sys::set_signals_held_by(command, self.before);
        command.spawn()
    }

    /// The next signal that has arrived, if any.
    pub fn arrived(&self) -> io::Result<Option<Arrived>> {
        let Some(arrived) = self.descriptor.read_signal()? else {
            return Ok(None);
        };
        let signal = FORWARDED
            .into_iter()
            .find(|&s| s as u32 == arrived.ssi_signo);
        Ok(Some(Arrived {
            signal,
            by_terminal: arrived.ssi_code == SENT_BY_KERNEL,
        }))
    }

    /// Waits for the end of `child` and passes on the signals that only we have got.
    pub fn attend(&self, child: &mut Child) -> io::Result<ExitStatus> {
        let pid = Pid::from_raw(child.id() as i32);
        loop {
            // Asked again after every signal, since several ends of children are one SIGCHLD.
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            match self.arrived()? {
                Some(Arrived {
                    signal: Some(signal),
                    by_terminal: false,
                }) => {
                    // It may have ended just now.
                    let _ = kill(pid, signal);
                }
                Some(_) => {}
                None => self.wait()?,
            }
        }
    }

    fn wait(&self) -> io::Result<()> {
        let mut waiting = [PollFd::new(self.descriptor.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waiting, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// The exit status as a shell has it: 128 and the signal's number for a death by a signal.
pub fn shell_status(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// Ends as the child did: returns its exit status, or dies by the signal that it died by.
pub fn end_as(status: ExitStatus) -> u8 {
    if let Some(signal) = status.signal().and_then(|s| Signal::try_from(s).ok()) {
        // The child's own core is enough.
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
        let mut set = SigSet::empty();
        set.add(signal);
        let _ = set.thread_unblock();
        // Twice: the runtime's handler for a bad address only restores the default.
        let _ = raise(signal);
        let _ = raise(signal);
    }
    // An ordinary end, or a signal that this process ignores.
    shell_status(status) as u8
}
