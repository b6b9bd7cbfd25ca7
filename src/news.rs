//! What the scheduler tells those who look on: a snapshot of the cluster, then the news.
//!
//! Words like [`crate::message`], in a file of their own since they are for people who watch and
//! decide nothing: no node ever hears them. A watcher that was too slow to hear all of it is told how
//! much it missed, and asks for a new snapshot.

pub mod json;

use serde::{Deserialize, Serialize};

use crate::id::{Bytes, NodeId};
use crate::message::{Failure, Usage};

/// News in one message, at most.
pub const NEWS_MAX: usize = 1024;
/// Jobs in one snapshot, at most; the youngest are left out.
pub const SNAPSHOT_JOBS_MAX: usize = 16 << 10;
/// The end of a file's name that is told, in bytes: enough to know it by.
pub const FILE_BYTES_MAX: usize = 200;
/// Different reasons for local compiles that are counted apart, at most; the others are counted
/// together as [`OTHER_REASONS`].
pub const REASONS_MAX: usize = 64;
/// The reason under which reasons beyond [`REASONS_MAX`] are counted.
pub const OTHER_REASONS: &str = "other";

/// A job, as watchers know it: numbered by the scheduler in the order of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobNumber(pub u64);

/// The cluster at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The cluster's name.
    pub netname: String,
    /// The version of the scheduler's program.
    pub version: String,
    /// How long the scheduler has been running, in seconds.
    pub uptime_s: u64,
    /// The nodes, by number.
    pub nodes: Vec<NodePicture>,
    /// The jobs that wait or run, the oldest first; at most [`SNAPSHOT_JOBS_MAX`].
    pub jobs: Vec<JobPicture>,
    /// How many jobs were left out.
    pub jobs_omitted: u32,
    /// What has been done since the scheduler started.
    pub totals: Totals,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePicture {
    /// Its number.
    pub node: NodeId,
    /// Its name, unique in the cluster.
    pub name: String,
    /// Where it takes jobs, as `HOST:PORT`; port 0 when it takes none.
    pub address: String,
    /// `uname -m`.
    pub platform: String,
    /// Slots for jobs, remote and local together.
    pub slots: u32,
    /// Why it takes no jobs of others, if so.
    pub no_remote: Option<String>,
    /// Whether somebody has blocked it: it gets no new jobs of others.
    pub is_blocked: bool,
    /// Learned speed, relative to the mean of all nodes, in per cent; 0 when unknown.
    pub speed_percent: u32,
    /// Local jobs that hold a slot of it.
    pub local_jobs: u32,
    /// One-minute load average, times 1000.
    pub load_milli: u32,
    /// Memory that is available, in MiB.
    pub memory_mib: u64,
    /// Jobs that it compiled for others since it came.
    pub jobs_done: u64,
}

/// A job that waits or runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobPicture {
    /// Its number.
    pub job: JobNumber,
    /// Whose it is.
    pub submitter: NodeId,
    /// Where it runs; none while it waits.
    pub worker: Option<NodeId>,
    /// What is compiled, as the command spells it; only its end when it is long.
    pub file: Bytes,
    /// How long it has been waiting or running, in milliseconds.
    pub age_ms: u64,
}

/// What has been done since the scheduler started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Jobs that were compiled on another node than their submitter's.
    pub remote: u64,
    /// Jobs for which the scheduler chose the submitter's own node.
    pub own: u64,
    /// Leases whose node did not deliver.
    pub failed: u64,
    /// Processor time that other nodes spent on jobs, in microseconds.
    pub remote_cpu_us: u64,
    /// Bytes of output that came from other nodes.
    pub output_bytes: u64,
    /// Jobs that went to no scheduler, by reason; at most [`REASONS_MAX`] and [`OTHER_REASONS`].
    pub local: Vec<(String, u64)>,
}

/// Something that happened in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum News {
    /// A node came, or something about it changed. Changes of its load are told once a second.
    Node(NodePicture),
    /// A node left, and the jobs that it had anything to do with have ended.
    Left {
        /// Which.
        node: NodeId,
    },
    /// A job waits for a slot. Not told of a job that gets one at once.
    Queued {
        /// Which.
        job: JobNumber,
        /// Whose it is.
        submitter: NodeId,
        /// What is compiled, as the command spells it; only its end when it is long.
        file: Bytes,
    },
    /// A job got a slot.
    Started {
        /// Which.
        job: JobNumber,
        /// Whose it is.
        submitter: NodeId,
        /// Where it runs; the submitter itself when it is compiled on its own machine.
        worker: NodeId,
        /// What is compiled, as the command spells it; only its end when it is long.
        file: Bytes,
    },
    /// A job ended; one that was only queued ends too, when it gets no slot.
    Ended {
        /// Which.
        job: JobNumber,
        /// How.
        ending: Ending,
    },
    /// Jobs ran on their submitter's machine without asking the scheduler.
    Local {
        /// Whose they are.
        node: NodeId,
        /// Why: a stable word.
        reason: String,
        /// How many.
        jobs: u32,
        /// What the last of them compiled; empty when that is unknown.
        file: Bytes,
    },
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// It was compiled on a worker.
    Done {
        /// What it consumed there.
        usage: Usage,
        /// Bytes of its output.
        output_bytes: u64,
    },
    /// It was compiled on its submitter's machine, under the scheduler's lease.
    Own,
    /// The lease was not used.
    Unused,
    /// The node did not deliver; the job goes on elsewhere, under a new number.
    Failed {
        /// What was wrong.
        failure: Failure,
        /// Whether the node was out of reach or silent.
        dead: bool,
    },
    /// Its node or its submitter left.
    Lost,
    /// It was withdrawn before it got a slot.
    Withdrawn,
    /// It got no slot, for this reason, and is compiled locally.
    Denied(String),
}

/// The words for how jobs end, in the order of [`Ending::number`], as events and metrics have them.
pub const OUTCOMES: [&str; 8] = [
    "done",
    "own",
    "unused",
    "failed",
    "dead",
    "lost",
    "withdrawn",
    "denied",
];

impl Ending {
    /// Its place among [`OUTCOMES`].
    pub fn number(&self) -> usize {
        match self {
            Self::Done { .. } => 0,
            Self::Own => 1,
            Self::Unused => 2,
            Self::Failed { dead: false, .. } => 3,
            Self::Failed { dead: true, .. } => 4,
            Self::Lost => 5,
            Self::Withdrawn => 6,
            Self::Denied(_) => 7,
        }
    }

    /// Its word.
    pub fn outcome(&self) -> &'static str {
        OUTCOMES[self.number()]
    }
}

/// Jobs that ran on their submitter's machine without asking the scheduler, as a node reports them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalJobs {
    /// Why: a stable word, as in the job log.
    pub reason: String,
    /// How many since the last report.
    pub jobs: u32,
    /// What the last of them compiled; empty when that is unknown.
    pub file: Bytes,
}

/// The end of a file's name, [`FILE_BYTES_MAX`] at most.
pub fn file_end(file: &[u8]) -> Bytes {
    Bytes::from(&file[file.len().saturating_sub(FILE_BYTES_MAX)..])
}
