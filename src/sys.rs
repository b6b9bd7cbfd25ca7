//! Safe wrappers of system calls that neither the standard library nor nix has a safe word for.
#![allow(unsafe_code)] // This is the file for it: each block says why it is sound.

use nix::errno::Errno;
use nix::libc;

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
