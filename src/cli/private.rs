//! A cluster of one machine, for as long as one command lives.
//!
//! It is made of the same scheduler and daemon as any other, as child processes with ports, a
//! key and a socket of their own. Whatever ends us ends them: they are told by the kernel when we
//! are killed, and by [`Drop`] otherwise.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::client::child::HeldSignals;
use crate::client::socket;

/// A process that is not ready by then will not be.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// How long the first compile is held back for the daemon to find its scheduler.
const LOGIN_PATIENCE: Duration = Duration::from_secs(2);

/// How long a process may take to end before it is killed.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// The pause between two looks at something that is to come.
const PAUSE: Duration = Duration::from_millis(10);

/// Commands at the same time whose caches survive; more than these have none to share.
const CACHES_MAX: usize = 16;

/// Why there is no private cluster.
#[derive(Debug, thiserror::Error)]
pub(super) enum PrivateError {
    /// The operating system refused something.
    #[error("can't {what}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What came of it.
        error: io::Error,
    },
    /// A process ended instead of serving.
    #[error("the private {role} ended at once ({status}): {log}")]
    Ended {
        /// Which.
        role: &'static str,
        /// How.
        status: ExitStatus,
        /// The end of what it logged.
        log: String,
    },
    /// A process does not serve.
    #[error("the private {role} was not ready in {START_PATIENCE:?}: {log}")]
    Late {
        /// Which.
        role: &'static str,
        /// The end of what it logged.
        log: String,
    },
    /// We are to end ourselves.
    #[error("interrupted")]
    Interrupted,
}

/// The running cluster.
#[derive(Debug)]
pub(super) struct PrivateCluster {
    // Dropped in this order: the daemon first, and the cache when nobody uses it any more.
    _daemon: Role,
    _scheduler: Role,
    _cache: Flock<File>,
}

impl PrivateCluster {
    /// Starts it with its files in `directory` and its cache below `cache_dir`; `socket` is where
    /// its daemon listens.
    pub(super) fn start(
        executable: &Path,
        directory: &Path,
        cache_dir: &Path,
        socket: &Path,
        signals: &HeldSignals,
    ) -> Result<Self, PrivateError> {
        let io = |what| move |error| PrivateError::Io { what, error };
        let (cache_dir, cache) = own_cache(cache_dir).map_err(io("make a cache"))?;
        let (port, node_port) = free_ports().map_err(io("find free ports"))?;
        let scheduler_address = format!("127.0.0.1:{port}");
        let key_file = directory.join("key");
        let netname = format!("run-{}", std::process::id());
        let start = |role: &'static str, options: &[&str]| {
            let log = directory.join(format!("{role}.log"));
            let mut command = Command::new(executable);
            command
                .arg(role)
                .args(options)
                .args(["--netname", &netname])
                .args(["--with-parent", &std::process::id().to_string()])
                .arg("--key-file")
                .arg(&key_file);
            Role::start(role, command, log, signals).map_err(io("start a process"))
        };

        let words = ["--alone", "--port", &port.to_string(), "--memory", "-"];
        let mut scheduler = start("scheduler", &words)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        scheduler.wait_until(signals, || {
            TcpStream::connect_timeout(&address, START_PATIENCE).is_ok()
        })?;

        let mut daemon = start(
            "daemon",
            &[
                "--scheduler",
                &scheduler_address,
                "--port",
                &node_port.to_string(),
                "--interface",
                "lo",
                "--loopback",
                "--socket",
                &socket.to_string_lossy(),
                "--cache-dir",
                &cache_dir.to_string_lossy(),
            ],
        )?;
        daemon.wait_until(signals, || {
            let deadline = Instant::now() + PAUSE;
            socket::reach(&[socket.to_owned()], deadline).is_ok()
        })?;
        wait_for_login(executable, &scheduler_address, &netname, &key_file);
        Ok(Self {
            _daemon: daemon,
            _scheduler: scheduler,
            _cache: cache,
        })
    }
}

/// A child process that serves until it is dropped.
#[derive(Debug)]
struct Role {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Role {
    fn start(
        name: &'static str,
        mut command: Command,
        log: PathBuf,
        signals: &HeldSignals,
    ) -> io::Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            // A terminal's interrupt is for the command; its compiles still need us.
            .process_group(0);
        let child = signals.spawn(&mut command)?;
        Ok(Self { name, child, log })
    }

    fn wait_until(
        &mut self,
        signals: &HeldSignals,
        mut is_ready: impl FnMut() -> bool,
    ) -> Result<(), PrivateError> {
        let deadline = Instant::now() + START_PATIENCE;
        let io = |error| PrivateError::Io {
            what: "wait for a process",
            error,
        };
        while !is_ready() {
            if let Some(status) = self.child.try_wait().map_err(io)? {
                return Err(PrivateError::Ended {
                    role: self.name,
                    status,
                    log: self.last_words(),
                });
            }
            if Instant::now() > deadline {
                return Err(PrivateError::Late {
                    role: self.name,
                    log: self.last_words(),
                });
            }
            if let Some(arrived) = signals.arrived().map_err(io)?
                && arrived.signal.is_some()
            {
                return Err(PrivateError::Interrupted);
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        log.lines().last().unwrap_or("it logged nothing").to_owned()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        let deadline = Instant::now() + END_PATIENCE;
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// Holds the first compile back until the scheduler knows a node. A compile that comes earlier is
/// only local, so whatever can't be found out here is no error.
fn wait_for_login(executable: &Path, scheduler: &str, netname: &str, key_file: &Path) {
    let deadline = Instant::now() + LOGIN_PATIENCE;
    while Instant::now() < deadline {
        let status = Command::new(executable)
            .args(["status", "--scheduler", scheduler, "--netname", netname])
            .arg("--key-file")
            .arg(key_file)
            .stderr(Stdio::null())
            .output();
        match status {
            Ok(output) if output.status.success() => {
                // The summary line, then a line per node.
                if output.stdout.iter().filter(|&&b| b == b'\n').count() > 1 {
                    return;
                }
            }
            _ => return,
        }
        std::thread::sleep(PAUSE);
    }
}

/// The first cache below `cache_dir` that no other command uses, and the lock that says so.
fn own_cache(cache_dir: &Path) -> io::Result<(PathBuf, Flock<File>)> {
    for number in 0..CACHES_MAX {
        let directory = cache_dir.join(format!("run-{number}"));
        fs::create_dir_all(&directory)?;
        let lock = File::create(cache_dir.join(format!("run-{number}.lock")))?;
        if let Ok(lock) = Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
            return Ok((directory, lock));
        }
    }
    Err(io::Error::other(format!(
        "{CACHES_MAX} commands use theirs already"
    )))
}

/// A port for a scheduler, with the next one free too, and a port for a daemon. Others can take
/// them before they are used; then the process that wanted them says so.
fn free_ports() -> io::Result<(u16, u16)> {
    let any = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0));
    for _ in 0..100 {
        let (first, second) = (any()?, any()?);
        let port = first.local_addr()?.port();
        let node_port = second.local_addr()?.port();
        let Some(next) = port.checked_add(1) else {
            continue;
        };
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, next)).is_ok()
            && UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
        {
            return Ok((port, node_port));
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_commands_have_two_caches_and_the_next_one_takes_over() {
        let directory = tempfile::tempdir().unwrap();
        let (first, first_lock) = own_cache(directory.path()).unwrap();
        let (second, _second_lock) = own_cache(directory.path()).unwrap();
        assert_ne!(first, second);
        drop(first_lock);
        assert_eq!(own_cache(directory.path()).unwrap().0, first);
    }
}
