//! Going into the background in such a way that whoever typed the command learns whether it worked.
//!
//! `daemon(3)` leaves the terminal before anything can fail: that a port is taken is then said to
//! nobody. Here the program starts itself again, with a socket as its standard input on which it says
//! when it serves. Until then it has the terminal, where it says what went wrong, and its exit status is
//! that of the command. Knows nothing of what serving means.

use std::env;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid};

/// Tells a process that it was started for the background.
const VARIABLE: &str = "_ICE_BACKGROUND";

/// Whether this process was started for the background.
pub fn is_here() -> bool {
    env::var_os(VARIABLE).is_some()
}

/// Starts this program again, with the same command line, and waits until it serves or ends. Returns
/// the exit status: 0 when it serves.
pub fn start() -> io::Result<u8> {
    let (mut ours, theirs) = UnixStream::pair()?;
    let mut words = env::args_os();
    let name = words.next().unwrap_or_else(|| "ice".into());
    let mut child = Command::new("/proc/self/exe")
        .arg0(name)
        .args(words)
        .env(VARIABLE, "1")
        .stdin(OwnedFd::from(theirs))
        .spawn()?;
    match ours.read(&mut [0])? {
        0 => {
            let status = child.wait()?.code();
            Ok(status
                .and_then(|status| status.try_into().ok())
                .unwrap_or(1))
        }
        _ => Ok(0),
    }
}

/// Leaves the terminal's session and the directory; what is printed still goes to the terminal.
pub fn enter() -> io::Result<()> {
    setsid()?;
    env::set_current_dir("/")
}

/// Says that this process serves, and lets go of the terminal. Does nothing when it is not in the
/// background. To be called before the first child that stays, or that would keep the terminal.
pub fn serves() -> io::Result<()> {
    if !is_here() {
        return Ok(());
    }
    let mut line = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&nothing)?;
    dup2_stdout(&nothing)?;
    dup2_stderr(&nothing)?;
    // Whoever waited may be gone.
    let _ = line.write_all(&[1]);
    Ok(())
}
