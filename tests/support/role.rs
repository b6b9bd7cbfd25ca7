//! A role of ice as a child process of a test, and waiting for what it does.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::user;

/// How long anything may take that takes a second on an idle machine.
const BOUND: Duration = Duration::from_secs(60);

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// A child process that serves until it is dropped.
#[derive(Debug)]
pub struct Role(Child);

impl Role {
    /// Starts `command` as the tests' user, with these directories and nothing else of the environment.
    pub fn start(mut command: Command, home: &Path, temporary: &Path, log: File) -> Self {
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", home)
            .env("TMPDIR", temporary)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        user::become_user(&mut command);
        Self(command.spawn().expect("start ice"))
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let began = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) {
            if began.elapsed() > BOUND {
                let _ = self.0.kill();
                let _ = self.0.wait();
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// Waits until something is so; panics when it takes too long.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < BOUND, "not within {BOUND:?}: {what}");
        std::thread::sleep(PAUSE);
    }
}
