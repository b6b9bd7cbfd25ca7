//! Whose cluster and whose compiles they are: an ordinary user's, also when root runs the tests.
//!
//! To root no file is unreadable and no directory closed, so to run as root would hide something.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// An ordinary user, who has no name.
const NUMBER: u32 = 54321;

/// Whether this process may become somebody else, and mount.
pub fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

/// Makes the command run as the user.
pub fn become_user(command: &mut Command) {
    if is_root() {
        // Without further ado this also gives up all supplementary groups.
        command.uid(NUMBER).gid(NUMBER);
    }
}

/// Gives a file to the user; a link itself and not what it leads to.
pub fn give(path: &Path) {
    if is_root() {
        let owner = Some(NUMBER);
        std::os::unix::fs::lchown(path, owner, owner).expect("give a file away");
    }
}
