//! A process of ice that stays: a scheduler or a daemon, on one machine of a network.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;

use crate::netns::Host;
use crate::tree;
use crate::wait::{BOUND, wait_until};

/// Whose process it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User(pub u32);

/// The superuser.
pub const ROOT: User = User(0);
/// An ordinary user, who has no name.
pub const ALICE: User = User(54321);
/// Another one.
pub const BOB: User = User(54322);

impl User {
    /// Makes `command` run as this user, in his group and no other, with his home at `home`.
    pub fn become_in(self, command: &mut Command, home: &Path) {
        command.env("HOME", home);
        if self != ROOT {
            // Without further ado this also gives up all supplementary groups.
            command.uid(self.0).gid(self.0);
        }
    }

    /// Makes a directory that belongs to this user.
    pub fn make_directory(self, path: &Path) {
        fs::create_dir_all(path).expect("make a directory");
        self.own(path);
    }

    /// Gives a file to this user.
    pub fn own(self, path: &Path) {
        std::os::unix::fs::chown(path, Some(self.0), Some(self.0)).expect("give a file away");
    }
}

/// A scheduler or a daemon.
#[derive(Debug)]
pub struct Node {
    /// Its name in what the test says.
    pub name: String,
    /// Its machine.
    pub host: Host,
    /// Its files.
    pub directory: PathBuf,
    command: Vec<String>,
    user: User,
    child: Option<Child>,
}

impl Node {
    /// Starts `command` on `host`, with its home in `directory`.
    pub fn start(
        name: &str,
        host: &Host,
        directory: &Path,
        command: Vec<String>,
        user: User,
    ) -> Self {
        let mut node = Self {
            name: name.to_owned(),
            host: host.clone(),
            directory: directory.to_owned(),
            command,
            user,
            child: None,
        };
        node.restart();
        node
    }

    /// Starts it anew, after it was killed.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "{} still runs", self.name);
        let log = File::options().create(true).append(true).open(self.log());
        let log = log.expect("open the log");
        let mut command = Command::new(&self.command[0]);
        command
            .args(&self.command[1..])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("another descriptor"))
            .stderr(log)
            .process_group(0);
        self.user.become_in(&mut command, &self.directory);
        // The processes of several users leave their things here when they are killed.
        let temporary = self.directory.join("tmp");
        fs::create_dir_all(&temporary).expect("make a directory");
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o1777)).expect("open it");
        command.env("TMPDIR", temporary);
        let child = self.host.enter(|| command.spawn());
        self.child = Some(child.expect("start ice"));
    }

    /// The number of its first process.
    pub fn pid(&self) -> i32 {
        self.child.as_ref().expect("it runs").id() as i32
    }

    /// Kills it and every process below it, without a chance to say anything.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Stopped first, so that none has the time to start another.
            tree::signal_all(child.id() as i32, Signal::SIGSTOP);
            for pid in tree::descendants(child.id() as i32).into_iter().rev() {
                tree::kill(pid);
            }
            child.wait().expect("it was killed");
        }
    }

    /// Stops every process below it: a machine that hangs, though its kernel still answers.
    pub fn freeze(&self) {
        tree::signal_all(self.pid(), Signal::SIGSTOP);
    }

    /// Lets all of them go on.
    pub fn thaw(&self) {
        tree::signal_all(self.pid(), Signal::SIGCONT);
    }

    /// Whether a compiler of the given name runs below it.
    pub fn runs(&self, command: &str) -> bool {
        self.child.is_some() && !tree::running(self.pid(), command).is_empty()
    }

    /// Whether its first process is alive.
    pub fn is_alive(&mut self) -> bool {
        let child = self.child.as_mut();
        child.is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Everything it has logged.
    pub fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Waits until it has logged `what`.
    pub fn wait_for_word(&self, what: &str) {
        wait_until(&format!("{} says {what:?}", self.name), BOUND, || {
            self.said().contains(what)
        });
    }

    /// The end of its log.
    pub fn tail(&self) -> String {
        const BYTES: u64 = 6000;
        let mut text = Vec::new();
        if let Ok(mut log) = File::open(self.log()) {
            let length = log.metadata().map_or(0, |metadata| metadata.len());
            let _ = log.seek(SeekFrom::Start(length.saturating_sub(BYTES)));
            let _ = log.read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    fn log(&self) -> PathBuf {
        self.directory.join("log")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {} said at last:\n{}", self.name, self.tail());
        }
        self.kill();
    }
}
