//! The wish that a process that stays should end, as a message among others.

use smol::channel::{Receiver, bounded};

/// More wishes than this are not told apart from one another.
const WISHES_MAX: usize = 8;

/// Receives a message for every SIGINT, SIGTERM or SIGHUP from now on. The signals are the whole
/// process's, so this can be asked for once. It starts a thread.
pub fn stops() -> Result<Receiver<()>, ctrlc::Error> {
    let (sender, receiver) = bounded(WISHES_MAX);
    ctrlc::set_handler(move || {
        // A full channel says it already; a closed one means that the end is near anyway.
        let _ = sender.try_send(());
    })?;
    Ok(receiver)
}
