//! Runs the commands of a case once, in one way.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ice::message::Terminal;
use ice::sys;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::case::{Case, Family, Step};
use crate::place::{self, Ran};
use crate::snapshot::{self, Snapshot};
use crate::user;

/// No command of a case takes a tenth of this.
const BOUND: Duration = Duration::from_secs(120);

/// How the commands are run.
#[derive(Clone, Debug)]
pub enum Way {
    /// The compiler itself.
    Plain,
    /// Ice in front of it, with a daemon at this socket.
    Cluster(PathBuf),
    /// Ice in front of it, and no daemon.
    Alone,
}

/// The places outside of a case's directory.
#[derive(Clone, Debug)]
pub struct World {
    /// The program.
    pub ice: PathBuf,
    /// Links to it under the names of compilers.
    pub masquerade: PathBuf,
    /// The user's home.
    pub home: PathBuf,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// Of every command.
    pub steps: Vec<Done>,
    /// The directory at the end.
    pub files: Snapshot,
}

/// What came of a command.
#[derive(Debug)]
pub struct Done {
    /// The shell's exit status, or 1000 and the number of the signal that killed it.
    pub status: i32,
    /// What it wrote, or what the terminal shows.
    pub stdout: Vec<u8>,
    /// What it wrote.
    pub stderr: Vec<u8>,
    /// Where its compiler calls ran; of a run with a cluster only.
    pub places: Vec<Ran>,
}

/// Runs the commands in `directory`; `scratch` is for what belongs to nobody else.
pub fn run(
    case: &Case,
    family: Family,
    way: &Way,
    world: &World,
    directory: &Path,
    scratch: &Path,
) -> Outcome {
    let log = place::make_log(scratch);
    let mut steps = Vec::new();
    for step in steps_of(case, family) {
        let mut command = shell(&spelled(&step.line, family, way), directory, world);
        match way {
            Way::Plain => {}
            Way::Cluster(socket) => {
                command.env("ICE_SOCKET", socket).env("ICE_JOB_LOG", &log);
            }
            Way::Alone => {
                command.env("ICE_SOCKET", scratch.join("nobody"));
            }
        }
        if !matches!(way, Way::Plain) {
            command.env(
                "PATH",
                format!("{}:/usr/bin:/bin", world.masquerade.display()),
            );
        }
        let mut done = match case.terminal {
            Some((columns, rows)) => on_terminal(command, Terminal { rows, columns }),
            None => into_files(command, scratch),
        };
        done.places = place::take(&log);
        steps.push(done);
    }
    Outcome {
        steps,
        files: snapshot::take(directory),
    }
}

/// The steps that this compiler runs.
pub fn steps_of(case: &Case, family: Family) -> impl Iterator<Item = &Step> {
    let steps = case.commands.iter();
    steps.filter(move |step| step.only.is_none_or(|only| only == family))
}

/// A shell of the user that runs `line` in `directory`, with nothing of ice in its environment.
pub fn shell(line: &str, directory: &Path, world: &World) -> Command {
    let mut command = Command::new("/bin/sh");
    command
        .arg("-c")
        .arg(format!("umask 022\n{line}"))
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", &world.home)
        .current_dir(directory)
        .stdin(Stdio::null())
        .process_group(0);
    user::become_user(&mut command);
    command
}

/// The line with the names of the compilers in it, and of ice where it is in front of them.
pub fn spelled(line: &str, family: Family, way: &Way) -> String {
    let is_part = |c: char| c.is_alphanumeric() || "_./-".contains(c);
    let mut spelled = String::new();
    let mut rest = line;
    while let Some(start) = rest.find(is_part) {
        let (before, from) = rest.split_at(start);
        let end = from.find(|c| !is_part(c)).unwrap_or(from.len());
        let (word, after) = from.split_at(end);
        spelled += before;
        // The end of a path or of a longer name may be the compiler's too.
        let (stem, name) = word.split_at(word.rfind(['/', '-']).map_or(0, |at| at + 1));
        spelled += match stem.starts_with('-') {
            true => word,
            false => stem,
        };
        spelled += match (name, way) {
            _ if stem.starts_with('-') => "",
            ("CC", _) => family.name(),
            ("CXX", _) => family.plus(),
            ("ICE", Way::Plain) => "",
            ("ICE", _) => "ice",
            (name, _) => name,
        };
        rest = after;
    }
    spelled + rest
}

fn into_files(mut command: Command, scratch: &Path) -> Done {
    let paths = ["stdout", "stderr"].map(|name| scratch.join(name));
    let [stdout, stderr] = paths.each_ref().map(|path| {
        let file = File::create(path).expect("make a file");
        // It may be opened again as /dev/stdout.
        user::give(path);
        file
    });
    command.stdout(stdout).stderr(stderr);
    let status = bounded(command, || ()).0;
    let [stdout, stderr] = paths.map(|path| std::fs::read(path).expect("read a file"));
    Done {
        status,
        stdout,
        stderr,
        places: Vec::new(),
    }
}

fn on_terminal(mut command: Command, size: Terminal) -> Done {
    let (screen, terminal) = sys::open_terminal(size).expect("open a terminal");
    let end = || Stdio::from(terminal.try_clone().expect("another descriptor"));
    command.stdin(end()).stdout(end()).stderr(end());
    command.env("TERM", "xterm-256color");
    drop(terminal);
    let (status, stdout) = bounded(command, || everything(screen));
    Done {
        status,
        stdout,
        stderr: Vec::new(),
        places: Vec::new(),
    }
}

/// Runs a command, and `meanwhile` once it has been started and the parent's ends of its streams
/// are closed. A command that does not end is killed with all its children.
fn bounded<T>(mut command: Command, meanwhile: impl FnOnce() -> T) -> (i32, T) {
    let mut child = command.spawn().expect("start a shell");
    drop(command);
    let group = Pid::from_raw(child.id() as i32);
    let (done, is_done) = mpsc::channel::<()>();
    let watch = thread::spawn(move || {
        let is_late = is_done.recv_timeout(BOUND) == Err(mpsc::RecvTimeoutError::Timeout);
        if is_late {
            let _ = killpg(group, Signal::SIGKILL);
        }
        is_late
    });
    let result = meanwhile();
    let status = child.wait().expect("wait for a shell");
    drop(done);
    assert!(
        !watch.join().expect("it only waits"),
        "not ended within {BOUND:?}"
    );
    let signal = status.signal().map(|signal| 1000 + signal);
    (
        status.code().or(signal).expect("a status or a signal"),
        result,
    )
}

/// What is written to a terminal until all of its other ends are closed: then reading fails.
fn everything(screen: OwnedFd) -> Vec<u8> {
    let mut said = Vec::new();
    let mut piece = [0; 4096];
    let mut screen = File::from(screen);
    while let Ok(count @ 1..) = screen.read(&mut piece) {
        said.extend_from_slice(&piece[..count]);
    }
    said
}
