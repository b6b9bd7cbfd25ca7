//! `ice run`: a command whose compiles are ours, without anything being set up.

use std::error::Error;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::private::{PrivateCluster, PrivateError};
use super::resolve::World;
use super::symlinks;
use super::tally::Tally;
use super::trace;
use crate::client::child::{self, HeldSignals};
use crate::client::lookup::search_path;
use crate::client::{Variables, socket};

/// A daemon whose queue of clients is full for so long is there, but of no use.
const DAEMON_PATIENCE: Duration = Duration::from_millis(200);

/// A unix socket's path may have 107 bytes; a directory longer than this leaves no room for it.
const DIRECTORY_BYTES_MAX: usize = 60;

/// The exit status of a command that was interrupted before it began, as a shell has it.
const INTERRUPTED_STATUS: u8 = 130;

/// Runs the command and returns its exit status, or dies by the signal that it died by. A trace of its compiles is
/// written to `trace`.
pub(super) fn run(
    command: Vec<OsString>,
    world: &World,
    trace: Option<&Path>,
) -> Result<u8, Box<dyn Error + Send + Sync>> {
    let variables = Variables::of_this_process();
    let signals = HeldSignals::hold()?;
    let directory = Scratch::make()?;
    let masquerade = directory.0.join("bin");
    symlinks::make(&masquerade, &variables)
        .map_err(|error| format!("can't make links in {}: {error}", masquerade.display()))?;
    let mut path = masquerade.into_os_string();
    path.push(":");
    path.push(std::ffi::OsStr::new(
        crate::id::Bytes::from(search_path(&variables)).as_os_str(),
    ));

    let log = JobLog::beginning_now(&variables, &directory.0)?;
    let mut environment = vec![
        ("PATH", path),
        ("ICE_JOB_LOG", log.path.clone().into_os_string()),
    ];
    let cluster = match private_cluster(&directory.0, &variables, world, &signals) {
        Ok(None) => None,
        Ok(Some((cluster, socket))) => {
            environment.push(("ICE_SOCKET", socket.into_os_string()));
            Some(cluster)
        }
        Err(PrivateError::Interrupted) => return Ok(INTERRUPTED_STATUS),
        Err(error) => {
            eprintln!("ice: everything is compiled without a cluster: {error}");
            None
        }
    };

    let (program, arguments) = command.split_first().ok_or("no command is given")?;
    let mut command = Command::new(program);
    command.args(arguments).envs(environment);
    let status = match signals.spawn(&mut command) {
        Ok(mut child) => signals.attend(&mut child)?,
        Err(error) => {
            eprintln!("ice: {}: {error}", Path::new(program).display());
            return Ok(match error.kind() {
                io::ErrorKind::NotFound => 127,
                _ => 126,
            });
        }
    };
    let lines = log.lines()?;
    eprintln!("ice: {}", Tally::of(&lines));
    if let Some(path) = trace {
        fs::write(path, trace::of(&lines))
            .map_err(|error| format!("write the trace {}: {error}", path.display()))?;
    }
    // Before we may die by a signal.
    drop(cluster);
    drop(directory);
    Ok(child::end_as(status))
}

/// A cluster of our own and its socket, unless a daemon is there already.
fn private_cluster(
    directory: &Path,
    variables: &Variables,
    world: &World,
    signals: &HeldSignals,
) -> Result<Option<(PrivateCluster, PathBuf)>, PrivateError> {
    let deadline = Instant::now() + DAEMON_PATIENCE;
    if socket::reach(&socket::places(variables), deadline).is_ok() {
        return Ok(None);
    }
    let io = |what| move |error| PrivateError::Io { what, error };
    let executable = symlinks::own_path().map_err(io("find ice's own executable"))?;
    let cache_dir = world
        .places
        .cache_dir()
        .map_err(|error| io("make a cache")(io::Error::other(error)))?;
    let socket = directory.join("ice.sock");
    let cluster = PrivateCluster::start(&executable, directory, &cache_dir, &socket, signals)?;
    Ok(Some((cluster, socket)))
}

/// A directory that is gone when we are.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> io::Result<Self> {
        let parent = std::env::temp_dir();
        let is_usable = parent.is_absolute() && parent.as_os_str().len() <= DIRECTORY_BYTES_MAX;
        let parent = if is_usable {
            parent
        } else {
            PathBuf::from("/tmp")
        };
        let directory = nix::unistd::mkdtemp(&parent.join("ice-run-XXXXXX")).map_err(|errno| {
            let error = io::Error::from(errno);
            let what = format!("can't make a directory in {}: {error}", parent.display());
            io::Error::new(error.kind(), what)
        })?;
        Ok(Self(directory))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What can't be removed is not worth a word behind the command's own.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The job log from the moment when the command began.
struct JobLog {
    path: PathBuf,
    from: u64,
}

impl JobLog {
    fn beginning_now(variables: &Variables, directory: &Path) -> io::Result<Self> {
        let path = match variables.os("ICE_JOB_LOG") {
            // The command's compiles may run in other directories.
            Some(path) => std::path::absolute(path)?,
            None => directory.join("jobs"),
        };
        let from = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        Ok(Self { path, from })
    }

    fn lines(&self) -> io::Result<Vec<u8>> {
        let mut lines = Vec::new();
        match File::open(&self.path) {
            Ok(mut file) => {
                file.seek(SeekFrom::Start(self.from))?;
                file.read_to_end(&mut lines)?;
            }
            // No compiler was called.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(lines)
    }
}
