//! Everything that ice's processes say to each other.
//!
//! This file has no behaviour. Four conversations: client and submitter over a unix socket,
//! submitter and worker, node and scheduler, and agent and node. postcard is positional: the
//! order of fields and variants *is* the protocol, so [`PROTOCOL`] counts its versions and
//! `tests/golden.rs` keeps the bytes.
//!
//! Sizes from outside meet the limits named here before they meet an allocation: a message as a
//! whole in [`crate::frame`] and [`crate::connection`], a list where its owner takes it in.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::id::{AbsPath, Bytes, Digest, JobId, LeaseId, NodeId, RequestId, SchedulerId, Term};
use crate::news::{LocalJobs, News, Snapshot, Totals};

/// The version of all that follows. Both ends of a connection must have the same.
pub const PROTOCOL: u16 = 1;

/// The largest message on a unix socket: a command line may have megabytes (Linux's own limit for
/// arguments and environment together is a quarter of the stack limit, usually 2 MiB).
pub const CALL_BYTES_MAX: usize = 16 << 20;

/// The largest message between nodes. Bulk data travels as [`Chunk`]s and is not limited by it.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// The uncompressed size of a chunk of bulk data, at most.
pub const CHUNK_BYTES_MAX: usize = 256 << 10;

// ---------------------------------------------------------------------------------------------
// Client and submitter

/// A client's only message: a compiler was called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// [`PROTOCOL`] of the client: a daemon of another version answers [`Answer::Local`].
    pub protocol: u16,
    /// What is asked for.
    pub kind: CallKind,
    /// The real compiler, as an absolute path: the client has looked past every masquerade.
    pub compiler: Bytes,
    /// The command line; `argv[0]` is what the compiler will be told as its own name.
    pub argv: Vec<Bytes>,
    /// The working directory, as the kernel names it (`getcwd`).
    pub cwd: Bytes,
    /// The whole environment, in its order; `PATH` without the masquerade's directories.
    pub env: Vec<(Bytes, Bytes)>,
    /// The umask, for the files that are written on the client's behalf.
    pub umask: u32,
    /// Whether the client's standard error is a terminal; if so, the size of the one that its
    /// standard input is, zero when that is none: gcc asks the one for colours and the other for
    /// the width.
    pub terminal: Option<Terminal>,
    /// The client's own niceness.
    pub niceness: i8,
    /// What the client sees at the paths that it names: a daemon that sees something else answers
    /// [`Answer::Local`].
    pub sight: Sight,
}

/// What a client sees at some paths; none where it sees nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sight {
    /// At `/`.
    pub root: Option<FileNumber>,
    /// At the working directory's path.
    pub directory: Option<FileNumber>,
    /// At the compiler's path.
    pub compiler: Option<FileNumber>,
}

/// How the kernel tells files apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileNumber {
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
}

/// The size of a terminal in characters; a compiler breaks its lines by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// Its height.
    pub rows: u16,
    /// Its width.
    pub columns: u16,
}

impl Call {
    /// The value of a variable in the client's environment.
    pub fn variable(&self, name: &str) -> Option<&Bytes> {
        self.env
            .iter()
            .find(|(other, _)| &other[..] == name.as_bytes())
            .map(|(_, value)| value)
    }
}

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallKind {
    /// Compile, wherever it is best.
    Compile,
    /// A local slot for this command, whatever it is (`ice local`, `ICECC=no`).
    Local,
}

/// What the submitter says to a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The call was understood. It comes at once; a client that does not see it within a second
    /// runs the compiler itself.
    Accepted,
    /// The compiler printed this. The client writes it, so that a terminal that does not read
    /// holds up its own client and nobody else.
    Output {
        /// 1 for standard output, 2 for standard error.
        stream: u8,
        /// What it printed.
        data: Bytes,
    },
    /// The compile was done remotely and its files are in place: exit so.
    Exit {
        /// The compiler's exit status.
        status: u8,
        /// What to write into the job log.
        report: Report,
    },
    /// Run the command yourself, now. The connection is the local slot: keep it open across
    /// `exec`; when the kernel closes it, the slot is free again.
    Local {
        /// What to write into the job log.
        report: Report,
    },
}

/// What the job log says of a call, besides what the client knows itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// How the job travelled, or would have.
    pub mode: Mode,
    /// The node that compiled, by name; empty when local.
    pub node: String,
    /// Why the job is local: a stable word and a sentence.
    pub reason: Option<(String, String)>,
    /// The main input as it was spelled; empty where there is none.
    pub file: Bytes,
    /// How many nodes were tried, this machine included.
    pub tries: u32,
    /// How many files, links and directories were shown to the compiler, its own not counted; 0 when local.
    pub files: u32,
    /// Where its time went, in the order of time, none overlapping another; at most [`SPANS_MAX`].
    pub phases: Vec<Span>,
}

/// The spans that a report has at most; later ones are left out.
pub const SPANS_MAX: usize = 32;

/// A part of a call's time, in microseconds since the call was taken in by whoever made the span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// What was done.
    pub phase: CallPhase,
    /// When it began.
    pub from_us: u64,
    /// When it ended.
    pub to_us: u64,
}

/// What a call spends its time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallPhase {
    /// The command line is read.
    Classify,
    /// The compiler's toolchain is found.
    Toolchain,
    /// The files that the job needs are found.
    Scan,
    /// It waits for a lease, and for the connection to its node.
    Wait,
    /// A node was tried and did not deliver.
    Lost,
    /// The job and the files that the node lacks are sent, until the compiler starts there.
    Send,
    /// The compiler runs.
    Compile,
    /// The results come back.
    Fetch,
    /// They are put in place.
    Commit,
    /// It waits for a local slot.
    Slot,
}

impl CallPhase {
    /// Its word in the job log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Classify => "classify",
            Self::Toolchain => "toolchain",
            Self::Scan => "scan",
            Self::Wait => "wait",
            Self::Lost => "lost",
            Self::Send => "send",
            Self::Compile => "compile",
            Self::Fetch => "fetch",
            Self::Commit => "commit",
            Self::Slot => "slot",
        }
    }
}

/// How a job travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Not at all.
    #[default]
    Local,
    /// The submitter preprocesses and the text travels.
    Preprocessed,
    /// Main file and headers travel by digest.
    Source,
}

// ---------------------------------------------------------------------------------------------
// Files, toolchains, jobs

/// A file, symlink or directory at an absolute path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// Where it is, on the submitter and on the worker alike.
    pub path: AbsPath,
    /// What it is.
    pub kind: EntryKind,
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EntryKind {
    /// A regular file.
    File {
        /// BLAKE3 of its content.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// Whether its owner may execute it.
        executable: bool,
        /// Its time of modification: gcc prints it (`__TIMESTAMP__`) and compares it (`#pragma once`).
        mtime: Mtime,
    },
    /// A symlink with this target, as it is spelled.
    Symlink(Bytes),
    /// A directory.
    Directory,
}

impl EntryKind {
    /// A file's size in bytes; none for what is no file.
    pub fn size(&self) -> Option<u64> {
        match self {
            Self::File { size, .. } => Some(*size),
            Self::Symlink(_) | Self::Directory => None,
        }
    }
}

/// A time of modification, as `stat` has it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Mtime {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Nanoseconds, 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// A toolchain: every file that its compiler needs to run. Its name is
/// [`crate::toolchain::closure::name`] of this list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The machine that its programs run on, as `uname -m` says it: `x86_64`.
    pub platform: String,
    /// Its files, sorted by path. Times are zero: a toolchain is the same after a reinstall.
    pub entries: Vec<Entry>,
}

impl Manifest {
    /// The size of its files, in bytes.
    pub fn bytes(&self) -> u64 {
        let sizes = self.entries.iter().filter_map(|entry| entry.kind.size());
        sizes.fold(0, u64::saturating_add)
    }
}

/// A job: a set of files at absolute paths, plus an unchanged command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// The submitter's number for it.
    pub job: JobId,
    /// The lease under which it runs.
    pub lease: LeaseId,
    /// The term in which that was granted.
    pub term: Term,
    /// Whose job it is: a random number that a submitter draws when it starts and tells nobody but
    /// its workers. Trees are never shared between two submitters, and none can pose as another.
    pub tenant: [u8; 16],
    /// The toolchain that compiles it.
    pub toolchain: Digest,
    /// The program to execute: a path within the toolchain.
    pub program: AbsPath,
    /// Its command line.
    pub argv: Vec<Bytes>,
    /// Its working directory.
    pub cwd: AbsPath,
    /// Its whole environment.
    pub env: Vec<(Bytes, Bytes)>,
    /// Its umask.
    pub umask: u32,
    /// The terminal that its standard error is to be, if it is to be one.
    pub terminal: Option<Terminal>,
    /// The directories that it may write into; what appears there travels back. They exist in the
    /// job's tree, and so does `cwd`.
    pub writable: Vec<AbsPath>,
    /// What stands where it writes its output and its dependency file.
    pub standing: Vec<Standing>,
    /// Entries that this connection has not named before; each gets the next number, from 0.
    pub fresh: Vec<Entry>,
    /// The job's files: numbers on this connection, ascending, each as the difference to the one
    /// before (the first as it is), so that a warm job's list is about one byte a file.
    pub entries: Vec<u32>,
}

/// A file that the command would find where it writes. What is in it does not matter, but a
/// compiler that fails may remove it, and one that writes over it leaves it its mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Where; within a directory that the command may write.
    pub path: AbsPath,
    /// Its permission bits.
    pub mode: u32,
    /// Whether it is empty: an assembler removes what is there only when it is not.
    pub is_empty: bool,
}

/// A piece of bulk data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// The size of `data` once decompressed; at most [`CHUNK_BYTES_MAX`].
    pub size: u32,
    /// An LZ4 block, or the data itself when its length is `size`.
    pub data: Bytes,
}

/// What a compile consumed on its worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time of the compiler, user and system, in microseconds.
    pub cpu_us: u64,
    /// Wall time from the start of the compiler to its end, in microseconds.
    pub wall_us: u64,
    /// The largest resident set of one of its processes, in KiB.
    pub rss_kib: u64,
    /// Wall time that the worker spent on the job's tree and sandbox, in microseconds.
    pub setup_us: u64,
}

// ---------------------------------------------------------------------------------------------
// Submitter and worker. One job at a time on a connection.

/// What a submitter says to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker {
    /// A job begins.
    Job(Box<JobSpec>),
    /// The toolchain that the worker asked for.
    Manifest(Manifest),
    /// A blob that the worker asked for begins; it follows as [`ToWorker::Chunk`]s.
    Blob {
        /// Its name.
        digest: Digest,
        /// Its size.
        size: u64,
    },
    /// The next piece of the blob.
    Chunk(Chunk),
    /// A blob that was asked for can't be sent: it is not what it was when it was hashed. The job
    /// ends without a result.
    Gone(Digest),
    /// Stop the job; the worker answers [`FromWorker::Failed`].
    Cancel,
}

/// What a worker says to a submitter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromWorker {
    /// The worker lacks the toolchain: send its manifest.
    NeedManifest(Digest),
    /// The worker lacks these blobs; send each, in this order.
    NeedBlobs(Vec<Digest>),
    /// Nothing new. A worker with a job says something at least every [`ALIVE_EVERY_MS`].
    Alive,
    /// The compiler was started.
    Started,
    /// The compiler printed something.
    Output {
        /// 1 for standard output, 2 for standard error.
        stream: u8,
        /// What it printed.
        chunk: Chunk,
    },
    /// The job wrote a file; its content follows as [`FromWorker::Chunk`]s.
    File {
        /// Where.
        path: AbsPath,
        /// Its permission bits.
        mode: u32,
        /// Its size.
        size: u64,
    },
    /// The next piece of the file.
    Chunk(Chunk),
    /// The job made a directory, or a symlink with this target.
    Made {
        /// Where.
        path: AbsPath,
        /// A symlink's target; none for a directory.
        target: Option<Bytes>,
    },
    /// The job removed a file that stood there before.
    Removed(AbsPath),
    /// The compiler ended, and all that it wrote has been sent.
    Done {
        /// Its exit status.
        status: u8,
        /// What it consumed.
        usage: Usage,
    },
    /// There is no result, for a reason that is not the compiler's.
    Failed {
        /// Which kind of reason: it decides what the submitter does next.
        failure: Failure,
        /// A sentence for the log.
        detail: String,
    },
}

/// A worker with a job speaks at least this often. Each word wakes its submitter, and where compiles take seconds
/// these words were a tenth of what a job cost him at 300 ms.
pub const ALIVE_EVERY_MS: u64 = 600;

/// A worker with a job that has not spoken for this long is taken for dead.
pub const SILENCE_MS: u64 = 1800;

/// Why a job has no result. Each means: try another node, then compile locally.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// All slots and the queue are full, or the daemon is about to end.
    Busy,
    /// The worker accepts no jobs at all (no sandbox, or `--no-remote`).
    NoRemote,
    /// The toolchain does not run here.
    Toolchain,
    /// The store or the tree has no room.
    Full,
    /// The compiler was killed by a signal that nobody here sent.
    Signal,
    /// The job went beyond its memory.
    Memory,
    /// The job went beyond its time.
    Time,
    /// The job was cancelled.
    Cancelled,
    /// The job's description makes no sense.
    Invalid,
    /// The lease is of a scheduler that has been followed by another since.
    Outdated,
    /// Anything else: the sandbox did not start, an I/O error.
    Internal,
}

// ---------------------------------------------------------------------------------------------
// Node and scheduler

/// What a node (or a program that looks on) says to the scheduler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToScheduler {
    /// A node introduces itself; the first message on its connection.
    Login(Login),
    /// The state of the node, when it changed and at least every [`REPORT_EVERY_MS`].
    State(NodeState),
    /// A submitter of this node speaks of slots.
    Deal(Deal),
    /// From now on the node has so many slots, and takes remote jobs or not, for this reason: as in its
    /// login. What runs goes on.
    Capacity {
        /// As [`Login::slots`].
        slots: u32,
        /// As [`Login::no_remote`].
        no_remote: Option<String>,
    },
    /// These toolchains are in the node's store now, and these no longer.
    Toolchains {
        /// New ones.
        added: Vec<Digest>,
        /// Evicted ones.
        removed: Vec<Digest>,
    },
    /// One [`FromScheduler::Status`], please. Needs no login.
    Status,
    /// A [`FromScheduler::Snapshot`] now and every [`FromScheduler::News`] from then on, please. Needs
    /// no login; said again, it is answered by a new snapshot.
    Watch,
    /// A person wants this node to get no more jobs of others, or to get some again. Needs no login.
    Block {
        /// Its name, or its address with or without port.
        node: String,
        /// Whether it gets none.
        is_blocked: bool,
    },
    /// Jobs of this node ran here without asking the scheduler. Said about once a second, while there
    /// are any.
    LocalJobs(Vec<LocalJobs>),
}

/// A scheduler hears from each node at least this often, and takes a node that it has not heard
/// for four times as long for dead. Each answers with [`FromScheduler::Alive`].
pub const REPORT_EVERY_MS: u64 = 500;

/// What [`Login::no_remote`] says when that is its owner's wish.
pub const NO_REMOTE_BY_CHOICE: &str = "it was started so (--no-remote, or no slots)";

/// Who a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// Its name; unique in a cluster, or the scheduler adds a number.
    pub name: String,
    /// The cluster's name within the key's holders (`--netname`).
    pub netname: String,
    /// `uname -m`.
    pub platform: String,
    /// The TCP port that takes jobs; 0 when the node takes none.
    pub port: u16,
    /// Slots for jobs, remote and local together.
    pub slots: u32,
    /// Why the node takes no remote jobs, if so.
    pub no_remote: Option<String>,
    /// The toolchains in its store.
    pub toolchains: Vec<Digest>,
    /// What runs and waits there now: a scheduler that takes over lends nothing that is in use.
    pub state: NodeState,
    /// The latest term that it has known; a scheduler of an earlier one is not the master any more.
    pub seen: Term,
}

impl Login {
    /// A node that only submits and has known no scheduler: no port, no slots, no toolchains.
    pub fn new(
        name: impl Into<String>,
        netname: impl Into<String>,
        platform: impl Into<String>,
    ) -> Self {
        Self {
            name: name.into(),
            netname: netname.into(),
            platform: platform.into(),
            port: 0,
            slots: 0,
            no_remote: None,
            toolchains: Vec::new(),
            state: NodeState::default(),
            seen: Term::default(),
        }
    }
}

/// What changes on a node all the time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeState {
    /// Local jobs that hold a slot.
    pub local_jobs: u32,
    /// Remote jobs that hold a slot.
    pub remote_jobs: u32,
    /// Jobs of this node's submitters that wait for a slot somewhere.
    pub waiting: u32,
    /// One-minute load average, times 1000.
    pub load_milli: u32,
    /// Memory that is available, in MiB.
    pub memory_mib: u64,
    /// The share of the last ten seconds in which something waited for a processor, in thousandths.
    pub processor_stall_milli: u16,
    /// The same for memory: the machine thrashes.
    pub memory_stall_milli: u16,
    /// The node's clock when this left it, in milliseconds since 1970; 0 when it was not looked at. Nothing is
    /// decided by it: a person may want to know whose clock is wrong.
    pub clock_ms: u64,
}

/// What a submitter says of slots. Nothing of it waits for an answer: a submitter runs job after
/// job on the leases that it holds, and tells afterwards what ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deal {
    /// A job waits for a slot. A lease that comes may be used for any job of the same submitter and
    /// [`Terms`].
    Want(Want),
    /// The job of this request no longer waits: its client is gone, or it is done otherwise.
    Withdraw(RequestId),
    /// A job that waited, or one that already runs elsewhere, runs under this lease from now on.
    Began {
        /// Which job.
        request: RequestId,
        /// Where.
        lease: LeaseId,
    },
    /// A job under this lease ended; the lease is still held. The next one may have begun before,
    /// while the results of this one were on their way.
    Ended {
        /// Which job.
        request: RequestId,
        /// Where.
        lease: LeaseId,
        /// What came of the job.
        outcome: Outcome,
    },
    /// A lease goes back; nothing runs under it.
    Return(LeaseId),
    /// What was measured of the way to the worker of this lease. Said when it is known first, and when it
    /// has changed; a few times in all.
    Way {
        /// A lease that is held, of any slot of the worker.
        lease: LeaseId,
        /// What was measured.
        way: Way,
    },
}

/// How far a worker is from a submitter, as he measured it; zero for what he does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// There and back, in microseconds.
    pub travel_us: u64,
    /// Bytes per second of what he sends there, before compression.
    pub up: u64,
    /// The same of what comes from there.
    pub down: u64,
}

/// What a submitter is told of slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Offer {
    /// A slot, to be used for job after job until it is returned, revoked, or void with its connection.
    Grant(Grant),
    /// What the job of this request will take, as far as is known from earlier ones. Said once, after
    /// the request, when there is anything to say.
    Size {
        /// Which request.
        request: RequestId,
        /// Its size.
        size: Size,
    },
    /// Start nothing new under this lease, and return it when what runs has ended.
    Revoke(LeaseId),
    /// There is and will be no slot for this request on the present nodes: compile locally.
    Deny {
        /// Which request.
        request: RequestId,
        /// A sentence.
        why: String,
    },
}

/// What a job takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Processor time on the reference node, in microseconds; 0 when unknown.
    pub cost_us: u64,
    /// Memory, in MiB; 0 when unknown.
    pub memory_mib: u64,
    /// Bytes of its output; 0 when unknown.
    pub output_bytes: u64,
}

/// A job that wants a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// The submitter's number for it.
    pub request: RequestId,
    /// The toolchain that the job needs.
    pub toolchain: Digest,
    /// The size of its files, should it have to be sent; 0 when unknown.
    pub toolchain_bytes: u64,
    /// What leases will do.
    pub terms: Terms,
    /// What is compiled: the scheduler learns sizes by it, and the monitor shows it.
    pub file: Bytes,
    /// A digest of whatever else tells one compile of a file of this name from another: the
    /// directory and the flags. With the file and the toolchain, it names the job's size.
    pub variant: u64,
    /// Not these: the job failed there.
    pub except: Vec<NodeId>,
    /// Whether the submitter's own node may be chosen.
    pub own: OwnNode,
}

impl Want {
    /// A job of which nothing else is known, and which may run on any node but the submitter's own.
    pub fn new(request: RequestId, toolchain: Digest, terms: Terms) -> Self {
        Self {
            request,
            toolchain,
            toolchain_bytes: 0,
            terms,
            file: Bytes::default(),
            variant: 0,
            except: Vec::new(),
            own: OwnNode::Nothing,
        }
    }
}

/// What decides which leases will do for a job, and how soon they are lent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Terms {
    /// 0 to 19; higher gives way.
    pub niceness: u8,
    /// The machine that the toolchain runs on.
    pub platform: String,
    /// Only this node, by name or address (`ICECC_PREFERRED_HOST`); empty for any.
    pub preferred: String,
}

impl Terms {
    /// Any node, and no giving way.
    pub fn new(platform: impl Into<String>) -> Self {
        Self {
            niceness: 0,
            platform: platform.into(),
            preferred: String::new(),
        }
    }
}

/// What a submitter's own node may do for its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OwnNode {
    /// Nothing: it was tried, or is not wanted.
    Nothing,
    /// Compile it locally, beside its other local work.
    Locally,
    /// Compile it like a job of anybody else.
    AsWorker,
}

/// What came of a job under a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It was compiled.
    Done {
        /// Its usage on the node.
        usage: Usage,
        /// Bytes of its output: with `usage`, the node's speed.
        output_bytes: u64,
    },
    /// Nothing that says anything of the node: it was given up, or done elsewhere.
    Unused,
    /// The node did not deliver. `dead` when it did not even answer.
    Failed {
        /// What was wrong.
        failure: Failure,
        /// Whether the node was out of reach or silent.
        dead: bool,
    },
    /// It was given up since another start of it ended first.
    Lagged {
        /// For how long the compiler had run here by then, in microseconds.
        ran_us: u64,
    },
}

/// What the scheduler says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromScheduler {
    /// The login is accepted.
    Welcome {
        /// The node's number here.
        node: NodeId,
        /// Its name here.
        name: String,
        /// The scheduler's term.
        term: Term,
    },
    /// The login is refused, and why; the connection ends.
    Refused(String),
    /// This scheduler stands by, and the master is there; the connection ends. Also the answer to
    /// [`ToScheduler::Status`].
    Elsewhere(SocketAddr),
    /// The schedulers that stand by, those first that would follow first: after the welcome, and when they
    /// change. The address of one beside the master may be a loopback address.
    Standbys(Vec<SocketAddr>),
    /// A submitter of this node is told of slots.
    Offer(Offer),
    /// Answer to [`ToScheduler::State`].
    Alive,
    /// Answer to [`ToScheduler::Status`].
    Status(Status),
    /// Answer to [`ToScheduler::Watch`].
    Snapshot(Snapshot),
    /// What has happened since the last word to this watcher. A heartbeat too: it comes at least
    /// once a second, with nothing in it when nothing happened.
    News {
        /// How many news were left out before these, since the watcher reads too slowly. What it
        /// believes is wrong then, and it should ask for a new snapshot.
        skipped: u64,
        /// In the order in which it happened; at most [`crate::news::NEWS_MAX`].
        news: Vec<News>,
    },
}

/// One slot of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// A request that it may be used for, which tells whose it is. That job may be under way by now
    /// with another lease.
    pub request: RequestId,
    /// For which jobs it is.
    pub terms: Terms,
    /// Its number.
    pub lease: LeaseId,
    /// The node.
    pub node: NodeId,
    /// The node's name.
    pub name: String,
    /// Where the node takes jobs.
    pub address: SocketAddr,
    /// The term of the scheduler that grants it. A worker that knows a later one refuses it.
    pub term: Term,
    /// Whether it is room on the submitter's own machine, for local compiles.
    pub home: Home,
    /// Whether it is for one job only, and goes back after it.
    pub once: bool,
    /// How many times longer than on the reference node a job takes there, in thousandths.
    pub slowness_milli: u32,
    /// Memory that is available there, in MiB; 0 when that is not known.
    pub memory_mib: u64,
}

/// How a lease relates to the submitter's own machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Home {
    /// Not at all: it is a worker's slot.
    No,
    /// For a local compile when nothing else of the submitter runs: one job is not worth the way.
    First,
    /// For local compiles while all workers are full.
    Overflow,
}

/// A picture of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The nodes, by name.
    pub nodes: Vec<NodeStatus>,
    /// Requests in the scheduler's queue.
    pub waiting: u32,
    /// What has been done since the scheduler started.
    pub totals: Totals,
    /// The scheduler's clock when this left it, in milliseconds since 1970; 0 when it was not looked at.
    pub clock_ms: u64,
}

/// A node in a [`Status`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Where it takes jobs.
    pub address: String,
    /// `uname -m`.
    pub platform: String,
    /// Its slots.
    pub slots: u32,
    /// Leases on it.
    pub running: u32,
    /// Local jobs on it.
    pub local_jobs: u32,
    /// Jobs that it compiled for others since it came.
    pub jobs_done: u64,
    /// Learned speed, relative to the mean of all nodes, in per cent; 0 when unknown.
    pub speed_percent: u32,
    /// Why it takes no remote jobs, if so.
    pub no_remote: Option<String>,
    /// One-minute load average, times 1000.
    pub load_milli: u32,
    /// By how many milliseconds its clock is ahead of the scheduler's, as its last report came; none before the
    /// first.
    pub skew_ms: Option<i64>,
}

// ---------------------------------------------------------------------------------------------
// Between schedulers, and from who looks for one: datagrams, see [`crate::discover`]

/// What is asked and answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Datagram {
    /// Which schedulers are there?
    Question {
        /// To be repeated in the answer.
        nonce: Nonce,
        /// What the one who asks is, if it is a scheduler. Anybody may have recorded it.
        asker: Option<Claim>,
    },
    /// This one is.
    Answer {
        /// The question's.
        nonce: Nonce,
        /// What it is.
        claim: Claim,
    },
}

/// Makes an answer belong to its question.
pub type Nonce = [u8; 16];

/// What a scheduler says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Who it is.
    pub id: SchedulerId,
    /// When it started, in milliseconds since 1970 by its own clock.
    pub started_ms: u64,
    /// The latest term that it knows; when it is the master, its own.
    pub term: Term,
    /// What it is.
    pub office: Office,
    /// Where it takes TCP connections.
    pub port: u16,
}

/// What a scheduler is among the schedulers of its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Office {
    /// It does not know yet who the master is, or no longer.
    Looking,
    /// It knows the master, and waits for its end.
    Standby,
    /// It places the jobs.
    Master,
}

// ---------------------------------------------------------------------------------------------
// Agent and node: a per-user submitter beside a system daemon

/// What an agent says to its node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToNode {
    /// To the scheduler; the node numbers the requests anew.
    Deal(Deal),
    /// A local slot for this request.
    WantLocal(RequestId),
    /// The local slot of this request is free again, or no longer wanted.
    ReturnLocal(RequestId),
    /// A job runs locally, without a lease.
    Local {
        /// Why: a stable word.
        reason: String,
        /// What it compiles; empty when that is unknown.
        file: Bytes,
    },
}

/// What a node says to its agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromNode {
    /// From the scheduler; a denial also when there is none.
    Offer(Offer),
    /// The scheduler is gone, and all leases are void: what runs goes on, nothing new is started
    /// under them. The requests that wait are made anew by the node.
    Void,
    /// A local slot is there.
    LocalSlot(RequestId),
}
