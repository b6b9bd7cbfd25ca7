//! The wishes that a process that stays should end, or read its configuration anew, as messages among
//! others.

use std::io;

use nix::sys::signal::{SigSet, Signal};
use smol::channel::{Receiver, bounded};

/// More wishes than this are not told apart from one another.
const WISHES_MAX: usize = 8;

/// Receives a message for every SIGINT or SIGTERM from now on, and for every SIGHUP unless [`hangups`] was asked for
/// before. The signals are the whole process's, so this can be asked for once. It starts a thread.
pub fn stops() -> Result<Receiver<()>, ctrlc::Error> {
    let (sender, receiver) = bounded(WISHES_MAX);
    ctrlc::set_handler(move || {
        // A full channel says it already; a closed one means that the end is near anyway.
        let _ = sender.try_send(());
    })?;
    Ok(receiver)
}

/// Receives a message for every SIGHUP from now on. To be asked for before any other thread is started: a signal
/// goes to a thread that does not block it, if there is one. It starts a thread. Programs that are started
/// later get SIGHUP as usual.
pub fn hangups() -> io::Result<Receiver<()>> {
    let (sender, receiver) = bounded(WISHES_MAX);
    let mut hangup = SigSet::empty();
    hangup.add(Signal::SIGHUP);
    hangup.thread_block()?;
    std::thread::Builder::new()
        .name("hangups".to_owned())
        .spawn(move || {
            while hangup.wait().is_ok() {
                let _ = sender.try_send(());
            }
        })?;
    Ok(receiver)
}
