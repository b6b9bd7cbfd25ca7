//! What a daemon that root started keeps root's rights for: to give each user an agent.
//!
//! It accepts clients, asks the kernel who they are, and hands each one's socket to the agent of
//! that user, which it starts when there is none. The agents' lines to the node go through
//! here once, as a socket pair. It reads nothing that a client sends, opens no network socket,
//! and blocks: accepting and passing on is all that there is to do.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fs};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, getsockopt, sendmsg,
    socketpair, sockopt,
};
use nix::unistd::{Gid, Uid};

use super::agent;
use crate::config::{DaemonConfig, Declined, ProcessConfig};
use crate::key::{ClusterKey, Credentials};
use crate::names::{self, Account};
use crate::sandbox::zygote::ZYGOTE_ARGUMENT;
use crate::sys;

/// Tells a child that its standard input is the socket to its broker.
const CHILD_VARIABLE: &str = "_ICE_BROKER";

/// Users who are served at a time. Each has a process of some MB; who comes later compiles locally.
const AGENTS_MAX: usize = 256;

/// Clients of one user who wait to be handed to his agent, at most. Each is a descriptor here.
const WAITING_MAX: usize = 2048;

/// How long a client may wait for that; then it has given up by itself.
const WAITING_TIME_MAX: Duration = Duration::from_secs(1);

/// Users that nobody is: names to be tried for the node when `--user` is not given.
const USERS: [&str; 2] = ["ice", "nobody"];

type Failure = Box<dyn Error + Send + Sync>;

/// Whether this process was started by a broker.
pub fn is_child() -> bool {
    env::var_os(CHILD_VARIABLE).is_some()
}

/// Runs until the node ends or a signal comes.
pub fn run(config: &DaemonConfig) -> Result<(), Failure> {
    let user = node_user(config.user.as_deref())?;
    let key = match Credentials::of(&config.cluster, true)? {
        Credentials::Key(key) => Some(key),
        Credentials::Open => None,
    };
    own_directory(&config.cache_dir, &user)?;
    let mut listener = Some(listen(&config.socket)?);
    crate::background::serves()?;
    // Before any child is started; a child gets an empty mask.
    let signals = held_signals()?;
    let mut is_draining = false;
    let mut broker = Broker {
        node: spawn_node(&user, &key, &config.process)?,
        key,
        agents: BTreeMap::new(),
        zygotes: Vec::new(),
        process: config.process.clone(),
        declined: config.declined,
    };
    log::info!(
        "the node runs as {}; clients connect at {}",
        user.name,
        config.socket.display()
    );
    // Every client that waits is a descriptor.
    super::process::prepare();
    loop {
        // A broker that is killed needs no clean-up: every child sees its own line close.
        let mut watched = vec![
            PollFd::new(broker.node.line.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        let door = listener
            .as_ref()
            .map(|door| PollFd::new(door.as_fd(), PollFlags::POLLIN));
        watched.extend(door);
        let quiet = watched.len();
        let full = broker.agents.values().filter(|agent| agent.has_waiting());
        watched.extend(full.map(|agent| PollFd::new(agent.line.as_fd(), PollFlags::POLLOUT)));
        let timeout = match watched.len() {
            count if count == quiet => PollTimeout::NONE,
            _ => PollTimeout::try_from(WAITING_TIME_MAX).expect("it fits"),
        };
        match poll(&mut watched, timeout) {
            Err(nix::errno::Errno::EINTR) => continue,
            other => other?,
        };
        let (node, signal) = (watched[0].any(), watched[1].any());
        let client = listener.is_some() && watched[2].any() == Some(true);
        if node == Some(true) && !broker.hear_node(&config.cache_dir, &user)? {
            let status = broker.node.child.wait()?;
            if is_draining && status.success() {
                return Ok(());
            }
            return Err(format!("the node ended: {status}").into());
        }
        if signal == Some(true)
            && let Some(told) = signals.read_signal()?
        {
            if told.ssi_signo == Signal::SIGHUP as u32 {
                nix::unistd::write(&broker.node.line, agent::RELOAD)?;
            } else if is_draining || config.process.with_parent.is_some() {
                // Every child sees its line close.
                let _ = fs::remove_file(&config.socket);
                return Ok(());
            } else {
                log::info!("no more jobs are taken; those that run are awaited");
                is_draining = true;
                // Whoever comes now finds nobody, and compiles by himself.
                let _ = fs::remove_file(&config.socket);
                listener = None;
                broker.drain()?;
                continue;
            }
        }
        for agent in broker
            .agents
            .values_mut()
            .filter(|agent| agent.has_waiting())
        {
            // One that is found dead is replaced when its user calls again; these run here.
            if agent.pass_on().is_err() {
                agent.waiting.clear();
            }
        }
        if client && let Some(listener) = &listener {
            let served = listener
                .accept()
                .and_then(|(client, _)| broker.serve(client));
            if let Err(error) = served {
                log::warn!("a client is left to itself: {error}");
            }
        }
    }
}

/// The signals that the broker acts upon, as a descriptor.
fn held_signals() -> Result<SignalFd, Failure> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block()?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    Ok(SignalFd::with_flags(&signals, flags)?)
}

/// A process that was started here, and the socket to it.
struct Started {
    child: Child,
    line: OwnedFd,
    /// Clients for whom there was no room in the socket yet, and since when they wait.
    waiting: VecDeque<(Instant, UnixStream)>,
}

impl Started {
    fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Hands over as many clients as there is room for. An error says that the process is gone.
    fn pass_on(&mut self) -> io::Result<()> {
        while let Some((since, client)) = self.waiting.front() {
            if since.elapsed() < WAITING_TIME_MAX {
                match pass(&self.line, b"C", client) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    other => other?,
                }
            }
            self.waiting.pop_front();
        }
        Ok(())
    }
}

struct Broker {
    node: Started,
    key: Option<Arc<ClusterKey>>,
    agents: BTreeMap<u32, Started>,
    /// Zygotes that were started for the node. They end with their sockets.
    zygotes: Vec<Child>,
    process: ProcessConfig,
    /// What agents are told.
    declined: Declined,
}

impl Broker {
    fn serve(&mut self, client: UnixStream) -> io::Result<()> {
        let who = getsockopt(&client, sockopt::PeerCredentials)?;
        self.agents
            .retain(|_, agent| !matches!(agent.child.try_wait(), Ok(Some(_)) | Err(_)));
        let mut waiting = VecDeque::new();
        if let Some(agent) = self.agents.get_mut(&who.uid()) {
            // Its user has stopped it, or asks too much of it. That is his own loss.
            if agent.waiting.len() >= WAITING_MAX {
                return Err(io::Error::other("too many clients of one user wait"));
            }
            agent.waiting.push_back((Instant::now(), client));
            if agent.pass_on().is_ok() {
                return Ok(());
            }
            // It is about to end. Nobody would ask for its status after this.
            waiting = std::mem::take(&mut agent.waiting);
            agent.child.kill()?;
            agent.child.wait()?;
            self.agents.remove(&who.uid());
        } else {
            waiting.push_back((Instant::now(), client));
        }
        if self.agents.len() >= AGENTS_MAX {
            return Err(io::Error::other(format!(
                "{AGENTS_MAX} users are being served"
            )));
        }
        let client = &waiting.back().expect("the newest is there").1;
        let groups = sys::peer_groups(client.as_fd())?;
        let mut agent =
            self.spawn_agent(Uid::from_raw(who.uid()), Gid::from_raw(who.gid()), groups)?;
        agent.waiting = waiting;
        agent.pass_on()?;
        self.agents.insert(who.uid(), agent);
        Ok(())
    }

    /// Lets the agents finish what they do, and then the node, which waits for them.
    fn drain(&self) -> io::Result<()> {
        for agent in self.agents.values() {
            // One that is gone already needs no word.
            let _ = nix::unistd::write(&agent.line, agent::DRAIN);
        }
        nix::unistd::write(&self.node.line, agent::DRAIN)?;
        Ok(())
    }

    /// Serves the node's one wish: a sandbox zygote that has root's rights, for jobs of the node's
    /// own user and toolchains from its own cache. Says whether the node is still there.
    fn hear_node(&mut self, cache: &Path, user: &Account) -> io::Result<bool> {
        self.zygotes
            .retain_mut(|zygote| matches!(zygote.try_wait(), Ok(None)));
        let mut bytes = [0; 8];
        let (count, mut descriptors) = sys::receive_with_fds(self.node.line.as_fd(), &mut bytes)?;
        if let (b"Z", Some(socket)) = (&bytes[..count], descriptors.pop()) {
            let mut command = Command::new("/proc/self/exe");
            command
                .arg(ZYGOTE_ARGUMENT)
                .args([user.uid.to_string(), user.gid.to_string()])
                .arg(cache);
            command
                .env_clear()
                .current_dir("/")
                .stdin(socket)
                .stdout(Stdio::null());
            match command.spawn() {
                Ok(zygote) => self.zygotes.push(zygote),
                // The node finds its socket closed.
                Err(error) => log::warn!("start a sandbox for the node: {error}"),
            }
        }
        Ok(count > 0)
    }

    fn spawn_agent(&self, uid: Uid, gid: Gid, groups: Vec<Gid>) -> io::Result<Started> {
        let mut command = Command::new("/proc/self/exe");
        command.arg("agent");
        command.args((0..self.process.verbosity).map(|_| "-v"));
        command.args(["--declined", self.declined.name()]);
        sys::become_user(&mut command, uid, gid, groups);
        let agent = spawn(command, &self.process)?;
        // The agent's line to the node: one end to each.
        let (to_node, to_agent) = UnixStream::pair()?;
        pass(&self.node.line, b"P", &to_node)?;
        pass(&agent.line, &first_words(&self.key), &to_agent)?;
        log::info!("user {uid} has an agent now");
        Ok(agent)
    }
}

fn spawn_node(
    user: &Account,
    key: &Option<Arc<ClusterKey>>,
    process: &ProcessConfig,
) -> io::Result<Started> {
    let mut command = Command::new("/proc/self/exe");
    command.args(env::args_os().skip(1));
    sys::become_user(&mut command, user.uid, user.gid, vec![user.gid]);
    let node = spawn(command, process)?;
    nix::unistd::write(&node.line, &first_words(key))?;
    Ok(node)
}

/// What a child hears first, as `process::hear_start` understands it: whether there is a key, and the
/// key.
fn first_words(key: &Option<Arc<ClusterKey>>) -> Vec<u8> {
    let mut words = vec![u8::from(key.is_some())];
    words.extend(key.iter().flat_map(|key| *key.bytes()));
    words
}

/// Starts a child whose standard input is a socket to here. It ends when that socket closes.
fn spawn(mut command: Command, process: &ProcessConfig) -> io::Result<Started> {
    if let Some(path) = &process.log_file {
        let file = fs::File::options().append(true).create(true).open(path)?;
        command.stderr(file);
    }
    let (ours, theirs) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?;
    let child = command
        .env(CHILD_VARIABLE, "1")
        .stdin(Stdio::from(theirs))
        .spawn()?;
    Ok(Started {
        child,
        line: ours,
        waiting: VecDeque::new(),
    })
}

/// Sends `bytes` and a descriptor. Never waits: an agent that does not listen, which its user can
/// bring about, must not hold up the others.
pub(super) fn pass(line: &OwnedFd, bytes: &[u8], descriptor: &impl AsRawFd) -> io::Result<()> {
    let descriptors = [descriptor.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    sendmsg::<UnixAddr>(
        line.as_raw_fd(),
        &[IoSlice::new(bytes)],
        &rights,
        MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
        None,
    )?;
    Ok(())
}

fn node_user(name: Option<&str>) -> Result<Account, Failure> {
    let names: Vec<&str> = name.map_or(USERS.to_vec(), |name| vec![name]);
    for name in &names {
        if let Some(user) = names::user(name) {
            if user.uid.is_root() {
                return Err(format!("--user {name}: foreign jobs are not run by root").into());
            }
            return Ok(user);
        }
    }
    Err(format!(
        "there is no user {}: name one with --user",
        names.join(" and no user ")
    )
    .into())
}

/// Makes the cache directory and gives it to the node's user.
fn own_directory(path: &Path, user: &Account) -> Result<(), Failure> {
    let failed = |error: io::Error| format!("make the cache directory {}: {error}", path.display());
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .map_err(failed)?;
    std::os::unix::fs::chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
        .map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed)?;
    Ok(())
}

/// Listens at `path`, for every user. What a dead daemon left there is replaced.
fn listen(path: &Path) -> Result<UnixListener, Failure> {
    let listener = super::process::listen_unix(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}
