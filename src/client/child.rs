//! Waiting for a child as if it were this process: signals go on to it, and its end is ours.
//!
//! No handler is installed and no thread is started: the signals are blocked here, not in the
//! child, and read one after the other.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};

use nix::errno::Errno;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill, raise};
use nix::sys::signalfd::SignalFd;
use nix::unistd::Pid;

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

/// Waits for the end of `child`, forwarding signals to it, and leaves the forwarded signals
/// blocked: what the caller has to put in order still, it does undisturbed.
pub fn attend(child: &mut Child) -> io::Result<ExitStatus> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    for signal in FORWARDED {
        signals.add(signal);
    }
    signals.thread_block()?;
    let arriving = SignalFd::new(&signals)?;
    let pid = Pid::from_raw(child.id() as i32);
    loop {
        // Asked again after every signal, since several ends of children are one SIGCHLD.
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        match arriving.read_signal() {
            Ok(Some(arrived)) => {
                let signal = FORWARDED
                    .into_iter()
                    .find(|&signal| signal as u32 == arrived.ssi_signo);
                if let Some(signal) = signal
                    && arrived.ssi_code != SENT_BY_KERNEL
                {
                    // It may have ended just now.
                    let _ = kill(pid, signal);
                }
            }
            Ok(None) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Ends as the child did: returns its exit status, or dies by the signal that it died by.
pub fn end_as(status: ExitStatus) -> u8 {
    if let Some(code) = status.code() {
        return code as u8;
    }
    let number = status.signal().unwrap_or(Signal::SIGKILL as i32);
    if let Ok(signal) = Signal::try_from(number) {
        // The compiler's own core is enough.
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
        let mut set = SigSet::empty();
        set.add(signal);
        let _ = set.thread_unblock();
        // Twice: the runtime's handler for a bad address only restores the default.
        let _ = raise(signal);
        let _ = raise(signal);
    }
    // A signal that this process ignores.
    128u8.wrapping_add(number as u8)
}
