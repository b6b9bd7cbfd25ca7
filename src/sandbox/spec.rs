//! The words between the daemon, the zygote and a job's init: what to build, what to run, how it
//! ended.
//!
//! Nothing here does anything. The two processes are the same binary, so there is no version to
//! negotiate; still each frame meets a limit, since a job's command line came from outside.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{AbsPath, Bytes};
use crate::message::Entry;

/// The largest [`ZygoteSpec`]: a toolchain of some hundred thousand files.
pub const SPEC_BYTES_MAX: usize = 32 << 20;

/// The largest [`Launch`]: a command line and an environment, as the kernel limits them, and room.
pub const LAUNCH_BYTES_MAX: usize = 16 << 20;

/// The largest [`Report`]: a sentence.
pub const REPORT_BYTES_MAX: usize = 16 << 10;

/// What one zygote serves: one toolchain, on one rung of the ladder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZygoteSpec {
    /// A directory of the host below which the toolchain's files lie at their absolute paths.
    pub toolchain_root: Bytes,
    /// The toolchain. Its files are bound over the placeholders in a job's tree; its symlinks and
    /// directories are the tree's own.
    pub toolchain: Vec<Entry>,
    /// The size of all trees together, in bytes.
    pub tree_bytes: u64,
    /// The number of files and links in all trees together.
    pub tree_inodes: u64,
    /// How jobs are locked in.
    pub rung: Rung,
}

/// A way to build the sandbox, from the best to the one that is still good enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Rung {
    /// Everything within a user namespace: needs no rights at all.
    UserNamespaces,
    /// The same namespaces without that one, for a daemon that is root where user namespaces are
    /// forbidden. Jobs run under these ids.
    Root {
        /// The jobs' user; never 0.
        uid: u32,
        /// The jobs' group.
        gid: u32,
    },
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UserNamespaces => f.write_str("user namespaces"),
            Self::Root { uid, .. } => write!(f, "root's namespaces, jobs as user {uid}"),
        }
    }
}

/// One job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The tree that it sees as its root: `tree<number>` below the zygote's tree root. It has this
    /// tree alone until it is gone.
    pub tree: u32,
    /// The program, as the job sees it.
    pub program: AbsPath,
    /// Its command line.
    pub argv: Vec<Bytes>,
    /// Its whole environment.
    pub env: Vec<(Bytes, Bytes)>,
    /// Its working directory, which exists in the tree or in the toolchain.
    pub cwd: AbsPath,
    /// Its umask.
    pub umask: u32,
    /// The directories of the tree that it may write into; each exists and is reached without a
    /// symlink.
    pub writable: Vec<AbsPath>,
    /// What it may use.
    pub limits: Limits,
}

/// What a job may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Address space of one process, in bytes. A compiler that meets it says "out of memory" and
    /// exits like after any error, so leave room and let `memory_bytes` decide.
    pub address_space_bytes: u64,
    /// Memory of all its processes together, in bytes; it is looked at a few times a second.
    pub memory_bytes: u64,
    /// CPU time of one process, in seconds.
    pub cpu_seconds: u64,
    /// Wall time, in seconds.
    pub wall_seconds: u64,
    /// The largest file that it may write, in bytes.
    pub file_bytes: u64,
    /// Processes and threads at once.
    pub processes: u64,
    /// Open files of one process.
    pub open_files: u64,
    /// The size of its private `/tmp`, in bytes.
    pub tmp_bytes: u64,
    /// Its niceness; never below the daemon's own.
    pub niceness: i32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            address_space_bytes: 16 << 30,
            memory_bytes: 4 << 30,
            cpu_seconds: 1800,
            wall_seconds: 1800,
            file_bytes: 2 << 30,
            processes: 64,
            open_files: 1024,
            tmp_bytes: 1 << 30,
            niceness: 0,
        }
    }
}

/// How a job ended. Nothing of it runs any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    /// The program exited with this status.
    Exited(u8),
    /// This signal killed the program.
    Signalled(i32),
    /// It was stopped at the limit of its memory, or of its processes where the kernel does not
    /// hold that limit by itself (a daemon that is root).
    OutOfMemory,
    /// It was stopped at the limit of its wall time or CPU time.
    TimedOut,
    /// It was stopped because [`super::Running::kill`] asked for it.
    Killed,
}

/// What a job consumed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consumed {
    /// CPU time, user and system, of the program and of the processes that it waited for, in
    /// microseconds.
    pub cpu_us: u64,
    /// CPU time of building and leaving the sandbox, in microseconds.
    pub sandbox_us: u64,
    /// Wall time from the start of the program to its end, in microseconds.
    pub wall_us: u64,
    /// The largest resident set of one of its processes, in KiB.
    pub rss_kib: u64,
}

/// What is said about a zygote or a job while it starts, runs and ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Report {
    /// The zygote: it is ready. The tree root travels with it.
    Ready,
    /// The zygote: this is the job's init, as a process of the zygote's pid namespace.
    Cloned(i32),
    /// The init: the program was executed.
    Started,
    /// The init: the program ended.
    Ended(Ended, Consumed),
    /// The zygote: no process of the job is left. The CPU time of the whole pid namespace, in
    /// microseconds.
    Gone(u64),
    /// Either: it could not be done.
    Refused(Refusal),
}

/// Why a zygote or a job did not start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Refusal {
    /// Whose fault it is.
    pub fault: Fault,
    /// What was tried.
    pub tried: String,
    /// What came of it.
    pub errno: i32,
}

/// Whose fault a refusal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Fault {
    /// The machine's: the sandbox can't be built.
    Sandbox,
    /// The job's: its description does not fit its tree.
    Job,
    /// The program's: it can't be executed.
    Program,
}
