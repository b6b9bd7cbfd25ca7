//! What a doctor can find out, before anybody judges it.
//!
//! Plain data with no opinion. What could not be looked at, because something it depends on is missing, is
//! none and not a guess.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::message::{NO_REMOTE_BY_CHOICE, NodeStatus, Status};

/// Everything.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The cluster key.
    pub key: KeyFacts,
    /// The daemon on this machine.
    pub daemon: DaemonFacts,
    /// The scheduler.
    pub scheduler: SchedulerFacts,
    /// Whether a sandbox can be built: the rung, or why not. None when there is no program to try it with.
    pub sandbox: Option<Result<String, String>>,
    /// The compilers that were looked for.
    pub compilers: Vec<CompilerFacts>,
    /// `ICECC_VERSION`, when it is set.
    pub archive: Option<ArchiveFacts>,
    /// What a build finds in `PATH`.
    pub calls: CallFacts,
    /// What this machine has of things that run out.
    pub limits: LimitFacts,
    /// The nodes beside this one, as they are seen from here; in the order of the scheduler's list.
    pub nodes: Vec<NodeFacts>,
    /// How many more nodes there are that were not tried.
    pub nodes_left_out: usize,
}

/// The cluster key.
#[derive(Clone, Debug, Default)]
pub struct KeyFacts {
    /// Whether the cluster goes without one.
    pub is_open: bool,
    /// Where it is looked for.
    pub file: PathBuf,
    /// Its state.
    pub state: KeyState,
    /// The permission bits of its file.
    pub mode: u32,
}

/// The state of a key's file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KeyState {
    /// There is none.
    #[default]
    Missing,
    /// It can't be read: a sentence.
    Unreadable(String),
    /// It holds something else.
    Malformed,
    /// It holds the key with this fingerprint.
    Read(String),
}

/// The daemon on this machine.
#[derive(Clone, Debug, Default)]
pub struct DaemonFacts {
    /// Where its socket is looked for.
    pub places: Vec<PathBuf>,
    /// What came of it.
    pub state: DaemonState,
    /// The user who looks.
    pub user: u32,
}

/// What came of talking to the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DaemonState {
    /// Nobody listens.
    #[default]
    Absent,
    /// A socket is there, and may not be used.
    Forbidden(PathBuf),
    /// It took the connection and said nothing.
    Silent(PathBuf),
    /// It speaks another version.
    OtherVersion(PathBuf, String),
    /// It sees other files than this process.
    OtherFiles(PathBuf),
    /// It took a call. With the user whose process it is.
    Answers(PathBuf, u32),
}

/// The scheduler.
#[derive(Clone, Debug, Default)]
pub struct SchedulerFacts {
    /// Those that are named; none when it is looked for.
    pub named: Vec<String>,
    /// The UDP port at which it is looked for.
    pub port: u16,
    /// The cluster's name.
    pub netname: String,
    /// The addresses that answered a broadcast.
    pub discovered: Vec<String>,
    /// Why nobody could be asked by broadcast, if so.
    pub unasked: Option<String>,
    /// What came of connecting.
    pub state: SchedulerState,
    /// What it says of the cluster.
    pub status: Option<Status>,
    /// This machine's clock when that came, in milliseconds since 1970, and how long the answer took.
    pub clock: (u64, u64),
    /// The nodes of its list that are on this machine.
    pub own_nodes: Vec<String>,
    /// This node's name, as the configuration has it.
    pub name: String,
}

impl SchedulerFacts {
    /// Whether the nodes of this machine were told to take no jobs of others.
    pub fn only_submits(&self) -> bool {
        let listed = self.status.iter().flat_map(|status| &status.nodes);
        let mut own = listed.filter(|node| self.own_nodes.contains(&node.name));
        !self.own_nodes.is_empty() && own.all(only_submits)
    }
}

/// Whether this node was told to take no jobs of others.
pub(super) fn only_submits(node: &NodeStatus) -> bool {
    node.slots == 0 || node.no_remote.as_deref() == Some(NO_REMOTE_BY_CHOICE)
}

/// What came of connecting to the scheduler.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SchedulerState {
    /// There is no credential to try with.
    #[default]
    Untried,
    /// There is no address to try: a sentence.
    NotFound(String),
    /// It was not reached: the address and how.
    Unreached(String, Reach),
    /// It answered here.
    Answers(String),
}

/// What came of knocking at a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// A handshake was made.
    #[default]
    Reached,
    /// The machine is there, and nobody listens.
    Refused,
    /// Nothing came back.
    Silent,
    /// There is no way to that machine.
    NoRoute(String),
    /// It has another key.
    OtherKey(String),
    /// It speaks another version of ice's protocol, or something else.
    Other(String),
}

/// One compiler of this machine.
#[derive(Clone, Debug)]
pub struct CompilerFacts {
    /// Its name.
    pub name: String,
    /// Its program; none when `PATH` has none.
    pub program: Option<String>,
    /// Its files and their bytes, or why it can't be sent.
    pub closure: Result<(usize, u64), String>,
}

/// An archive that the user wants to be used instead of this machine's compiler.
#[derive(Clone, Debug)]
pub struct ArchiveFacts {
    /// The variable's value.
    pub value: String,
    /// The archive of it that is for this machine's compiler.
    pub file: Option<String>,
    /// Whether it is the installed compiler, or why it can't be used.
    pub state: Result<ArchiveState, String>,
}

/// How an archive's compiler differs from the installed one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArchiveState {
    /// It does not.
    Same,
    /// The installed compiler has programs that are not in the archive, of which this is one.
    Differs(String),
}

/// What a build finds when it calls a compiler by its name.
#[derive(Clone, Debug, Default)]
pub struct CallFacts {
    /// By name: the programs of this name in `PATH`, the first first.
    pub by_name: BTreeMap<String, Vec<Called>>,
    /// Variables of the environment that matter, by name.
    pub variables: BTreeMap<String, String>,
}

/// A program that is called by a compiler's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Called {
    /// Its path.
    pub path: String,
    /// What it is.
    pub kind: CalledKind,
}

/// What stands at a compiler's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CalledKind {
    /// This program.
    ThisIce,
    /// Another copy of ice.
    OtherIce,
    /// A link that leads nowhere.
    Dangling,
    /// ccache.
    Ccache,
    /// A compiler, or something else.
    Compiler,
}

/// Things that run out.
#[derive(Clone, Debug, Default)]
pub struct LimitFacts {
    /// `fs.inotify.max_user_watches`, and whether one more could be had.
    pub watches: Option<(u64, bool)>,
    /// `fs.inotify.max_user_instances`, and whether one more could be had.
    pub instances: Option<(u64, bool)>,
    /// Descriptors that a process may have.
    pub descriptors: u64,
    /// The directories that are written to.
    pub directories: Vec<DirectoryFacts>,
}

/// A directory that is written to.
#[derive(Clone, Debug)]
pub struct DirectoryFacts {
    /// What it is for.
    pub purpose: &'static str,
    /// Where.
    pub path: PathBuf,
    /// Bytes that an ordinary user may still write, and inodes that he may still use (none where the file system
    /// does not count them).
    pub free: (u64, Option<u64>),
    /// Why nothing could be written there, if so.
    pub refusal: Option<String>,
}

/// A node, seen from here.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Where it takes jobs.
    pub address: String,
    /// What came of knocking there.
    pub reach: Reach,
    /// What came of a compile there; none when it was not tried.
    pub trial: Option<Trial>,
}

/// What came of a trial compile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trial {
    /// The node compiled, and the object is the plain compiler's; in milliseconds.
    Same(u64),
    /// The node compiled, and the object differs.
    Differs,
    /// It was compiled elsewhere: the reason, as in the job log.
    Elsewhere(String),
    /// It did not come to an end.
    Failed(String),
}

/// A machine that is as it should be, for tests that break one thing of it.
#[cfg(test)]
pub(super) fn healthy() -> Facts {
    let node = |name: &str, last: u8| NodeStatus {
        name: name.into(),
        address: format!("10.0.0.{last}:10245"),
        platform: "x86_64".into(),
        slots: 8,
        running: 0,
        local_jobs: 0,
        jobs_done: 3,
        speed_percent: 100,
        no_remote: None,
        load_milli: 10,
        skew_ms: Some(-20),
    };
    let called = |path: &str, kind| Called {
        path: path.into(),
        kind,
    };
    Facts {
        key: KeyFacts {
            is_open: false,
            file: "/home/u/.config/ice/key".into(),
            state: KeyState::Read("0a1b2c3d".into()),
            mode: 0o600,
        },
        daemon: DaemonFacts {
            places: vec!["/run/user/7/ice/ice.sock".into()],
            state: DaemonState::Answers("/run/user/7/ice/ice.sock".into(), 7),
            user: 7,
        },
        scheduler: SchedulerFacts {
            named: Vec::new(),
            port: 8765,
            netname: "ICECREAM".into(),
            discovered: vec!["10.0.0.1:8765".into()],
            unasked: None,
            state: SchedulerState::Answers("10.0.0.1:8765".into()),
            status: Some(Status {
                nodes: vec![node("anvil", 1), node("bellows", 2)],
                clock_ms: 1_000_000_000,
                ..Status::default()
            }),
            clock: (1_000_000_010, 4),
            own_nodes: vec!["anvil".into()],
            name: "anvil".into(),
        },
        sandbox: Some(Ok("user namespaces".into())),
        compilers: vec![
            CompilerFacts {
                name: "gcc".into(),
                program: Some("/usr/bin/gcc".into()),
                closure: Ok((40, 90 << 20)),
            },
            CompilerFacts {
                name: "clang".into(),
                program: None,
                closure: Ok((0, 0)),
            },
        ],
        archive: None,
        calls: CallFacts {
            by_name: BTreeMap::from([(
                "gcc".into(),
                vec![
                    called("/home/u/ice/gcc", CalledKind::ThisIce),
                    called("/usr/bin/gcc", CalledKind::Compiler),
                ],
            )]),
            variables: BTreeMap::new(),
        },
        limits: LimitFacts {
            watches: Some((524_288, true)),
            instances: Some((128, true)),
            descriptors: 524_288,
            directories: vec![DirectoryFacts {
                purpose: "cache",
                path: "/home/u/.cache/ice".into(),
                free: (100 << 30, Some(1_000_000)),
                refusal: None,
            }],
        },
        nodes: vec![NodeFacts {
            name: "bellows".into(),
            address: "10.0.0.2:10245".into(),
            reach: Reach::Reached,
            trial: Some(Trial::Same(40)),
        }],
        nodes_left_out: 0,
    }
}
