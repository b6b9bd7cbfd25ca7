//! Puts a node together: store, sandbox, worker, scheduler link, submitter, sockets.

use std::error::Error;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{getsockopt, sockopt};
use smol::future::FutureExt;

use super::agent::{self, Word};
use super::broker;
use super::link::{self, LinkConfig};
use super::node::{Node, RemoteRoom};
use crate::account;
use crate::config::DaemonConfig;
use crate::executor;
use crate::id::{Digest, LeaseId, Term};
use crate::key::{ClusterKey, Credentials};
use crate::message::Login;
use crate::reactor::Async;
use crate::sandbox::ladder;
use crate::sandbox::spec::{Limits, Rung};
use crate::sandbox::zygote::Starter;
use crate::submitter::job::Submitter;
use crate::submitter::placement::Placement;
use crate::sys;
use crate::threads;
use crate::worker::fetching::Fetching;
use crate::worker::job::{Admission, Promise, Room, Worker};
use crate::worker::store::Store;
use crate::worker::tenancy::Tenancies;
use crate::worker::tree::TreeLimits;

type Failure = Box<dyn Error + Send + Sync>;

/// Jobs of others get at most this much address space per process: far beyond what a compiler
/// needs, far below what hurts a 64-bit machine's page tables.
const ADDRESS_SPACE_BYTES: u64 = 32 << 30;
/// CPU time and wall time of a job.
const JOB_SECONDS: u64 = 3600;
/// Processes of a job: a driver, a compiler and an assembler, with room for threads.
const JOB_PROCESSES: u64 = 64;
/// Files of a job, each.
const JOB_FILE_BYTES: u64 = 4 << 30;
/// Inodes of a submitter's trees.
const TREE_INODES: u64 = 1_000_000;

/// Reads the daemon's configuration anew.
pub type Reload = Box<dyn Fn() -> Result<DaemonConfig, Failure> + Send + Sync>;

/// A daemon of an ordinary user: one process for everything.
pub fn run_alone(config: DaemonConfig, reload: Reload) -> Result<(), Failure> {
    // Before the first socket, which may bring a thread.
    let hangups = crate::signal::hangups()?;
    prepare();
    let credentials = Credentials::of(&config.cluster, true)?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.cache_dir)
        .map_err(|error| {
            format!(
                "make the cache directory {}: {error}",
                config.cache_dir.display()
            )
        })?;
    let listener = Async::new(listen_unix(&config.socket)?)?;
    fs::set_permissions(&config.socket, fs::Permissions::from_mode(0o600))?;
    crate::background::serves()?;
    let stops = crate::signal::stops()?;
    let result = executor::block_on(async {
        let node = start(&config, &credentials, None).await?;
        let (to_node, from_node) = node.open();
        let placement = Placement::new(to_node);
        let submitter = Submitter::new(
            placement.clone(),
            credentials,
            processors(),
            config.declined,
            platform(),
            config.cache_dir.join("archives"),
        )?;
        executor::spawn(async move { placement.listen(from_node).await }).detach();
        // Each client holds one end as long as it is served.
        let (served, all_served) = smol::channel::bounded::<()>(1);
        let door = executor::spawn(accept_clients(listener, submitter, served));
        log::info!("clients connect at {}", config.socket.display());
        let reloads = async {
            while hangups.recv().await.is_ok() {
                take_over(&node, &config, &reload);
            }
            smol::future::pending().await
        };
        let stopped = async {
            let _ = stops.recv().await;
        };
        stopped.or(reloads).await;
        // Whoever comes now finds nobody, and compiles by himself.
        let _ = fs::remove_file(&config.socket);
        drop(door);
        node.drain();
        if config.process.with_parent.is_none() {
            log::info!("no more jobs are taken; those that run are awaited");
            let done = async {
                let _ = all_served.recv().await;
                // The submitter of this process stays connected.
                node.idle(1).await;
            };
            let again = async {
                let _ = stops.recv().await;
                log::warn!("told again to stop: what runs is given up");
            };
            done.or(again).await;
        }
        Ok(())
    });
    let _ = fs::remove_file(&config.socket);
    result
}

/// Takes over what can be changed while the daemon runs.
fn take_over(node: &Node, before: &DaemonConfig, reload: &Reload) {
    match reload() {
        Ok(config) => {
            let slots = config.max_jobs.unwrap_or(processors() as u32);
            log::info!("the configuration was read anew: {slots} compiles at a time");
            node.resize(slots);
            let unchanged = DaemonConfig {
                max_jobs: before.max_jobs,
                ..config
            };
            if unchanged != *before {
                log::warn!("other changes of the configuration need a restart");
            }
        }
        Err(error) => log::error!("the configuration stays as it was: {error}"),
    }
}

/// The node of a daemon that root started, with the rights of `--user`.
pub fn run_below_broker(config: DaemonConfig, reload: Reload) -> Result<(), Failure> {
    prepare();
    // The key is in this process; nobody else who runs as this user may look at it.
    nix::sys::prctl::set_dumpable(false)?;
    // They are the broker's, which says what is to be done; a terminal sends them to all of its processes.
    let _hangups = crate::signal::hangups()?;
    let _stops = crate::signal::stops()?;
    let broker = Async::new(io::stdin().as_fd().try_clone_to_owned()?)?;
    executor::block_on(async {
        let Start { credentials, .. } = hear_start(&broker).await?;
        let node = start(&config, &credentials, Some(by_broker(&broker)?)).await?;
        loop {
            match agent::hear_broker(&broker).await? {
                Word::Descriptor(line) => {
                    let (to_node, from_node) = node.open();
                    let line = Async::new(UnixStream::from(line))?;
                    executor::spawn(agent::attend(line, to_node, from_node)).detach();
                }
                Word::Reload => take_over(&node, &config, &reload),
                Word::Drain => {
                    node.drain();
                    let gone = async {
                        while !matches!(agent::hear_broker(&broker).await, Ok(Word::Gone) | Err(_))
                        {
                        }
                    };
                    node.idle(0).or(gone).await;
                    return Ok(());
                }
                Word::Gone => return Ok(()),
            }
        }
    })
}

/// Zygotes that the broker starts, with root's rights, where the node's own are not enough.
fn by_broker(broker: &Async<OwnedFd>) -> io::Result<Starter> {
    let line = broker.get_ref().try_clone()?;
    Ok(Starter::Elsewhere(Arc::new(move |theirs: OwnedFd| {
        broker::pass(&line, b"Z", &theirs)
    })))
}

/// What a broker tells a child first.
pub struct Start {
    /// The cluster key, or that there is none.
    pub credentials: Credentials,
    /// The descriptors that came with it.
    pub descriptors: Vec<OwnedFd>,
}

/// Hears the first words of the broker.
pub async fn hear_start(broker: &Async<OwnedFd>) -> io::Result<Start> {
    let mut bytes = [0; 64];
    let (count, descriptors) = broker
        .read_with(|socket| Ok(sys::receive_with_fds(socket.as_fd(), &mut bytes)?))
        .await?;
    let credentials = match &bytes[..count] {
        [0] => Credentials::Open,
        [1, key @ ..] if key.len() == 32 => Credentials::Key(Arc::new(ClusterKey::from_bytes(
            key.try_into().expect("32 bytes were counted"),
        ))),
        _ => return Err(io::Error::other("the broker's first words make no sense")),
    };
    Ok(Start {
        credentials,
        descriptors,
    })
}

/// What every daemon process does first: as many descriptors as it may have (each waiting client
/// is one), and, where the variable `ICE_ACCOUNT` is set, an account of what each phase costs, which
/// is logged with every job.
pub fn prepare() {
    if std::env::var_os("ICE_ACCOUNT").is_some() {
        account::keep();
    }
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard.min(1 << 20), hard);
    }
}

/// The processors that this process may use.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Listens at `path`. A socket that nobody answers at is what a dead daemon left, and is replaced.
pub fn listen_unix(path: &Path) -> Result<UnixListener, Failure> {
    if let Some(directory) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .map_err(|error| format!("make {} for the socket: {error}", directory.display()))?;
    }
    // Of two that start together, the later one must not take the other's new socket for a dead one's.
    let _turn = match path.parent() {
        Some(directory) => Some(turn(directory)?),
        None => None,
    };
    if UnixStream::connect(path).is_ok() {
        return Err(format!("a daemon already listens at {}", path.display()).into());
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(format!("replace {}: {error}", path.display()).into());
        }
        _ => {}
    }
    UnixListener::bind(path)
        .map_err(|error| format!("listen at {}: {error}", path.display()).into())
}

/// Waits until no other daemon makes its socket in this directory, and keeps others from it.
fn turn(directory: &Path) -> Result<Flock<fs::File>, Failure> {
    let directory = match directory.as_os_str().is_empty() {
        true => Path::new("."),
        false => directory,
    };
    let failed = |error: io::Error| format!("lock {}: {error}", directory.display());
    let opened = fs::File::open(directory).map_err(failed)?;
    Flock::lock(opened, FlockArg::LockExclusive).map_err(|(_, errno)| failed(errno.into()).into())
}

async fn accept_clients(
    listener: Async<UnixListener>,
    submitter: Arc<Submitter>,
    served: smol::channel::Sender<()>,
) {
    let owner = nix::unistd::geteuid().as_raw();
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                // The submitter reads with its owner's rights, so it works for nobody else.
                let who = getsockopt(&client, sockopt::PeerCredentials).map(|who| who.uid());
                if who == Ok(owner) {
                    let (submitter, served) = (submitter.clone(), served.clone());
                    executor::spawn(async move {
                        submitter.serve(client).await;
                        drop(served);
                    })
                    .detach();
                }
            }
            Err(error) => {
                log::warn!("accept a client: {error}");
                crate::reactor::Timer::after(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

/// Lends the node's slots to the worker.
struct NodeSlots(Node);

impl Room for RemoteRoom {
    fn slot(&mut self) -> Promise<'_, ()> {
        Box::pin(self.turn())
    }
}

impl Admission for NodeSlots {
    fn room(&self, lease: LeaseId) -> Promise<'_, Box<dyn Room>> {
        Box::pin(async move {
            let room = self.0.remote_room(lease).await?;
            Some(Box::new(room) as Box<dyn Room>)
        })
    }

    fn is_outdated(&self, term: Term) -> bool {
        self.0.is_outdated(term)
    }

    fn toolchains(&self, added: Vec<Digest>, removed: Vec<Digest>) {
        self.0.toolchains(added, removed);
    }
}

/// Starts worker and link.
async fn start(
    config: &DaemonConfig,
    credentials: &Credentials,
    broker: Option<Starter>,
) -> Result<Node, Failure> {
    let slots = config.max_jobs.unwrap_or(processors() as u32);
    let (commands, link_commands) = smol::channel::unbounded();
    let (link_sender, link_events) = smol::channel::unbounded();
    let (node, dispatcher) = Node::new(slots, config.loopback, commands, link_events);
    executor::spawn(dispatcher).detach();

    let worker = if config.no_remote || slots == 0 {
        Err("it was started so (--no-remote, or no slots)".to_owned())
    } else {
        start_worker(config, credentials, slots, &node, broker).await
    };
    let (port, toolchains, no_remote) = match worker {
        Ok((port, toolchains)) => (port, toolchains, None),
        Err(why) => {
            // It goes into one line of a log and one of `ice status`.
            let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
            log::warn!("this node takes no remote jobs: {why}");
            (0, Vec::new(), Some(why))
        }
    };
    let name = config.name.clone().unwrap_or_else(host_name);
    let login = Login {
        port,
        slots,
        no_remote,
        toolchains,
        ..Login::new(name, config.cluster.netname.clone(), platform())
    };
    let link = LinkConfig {
        schedulers: config.schedulers.clone(),
        credentials: credentials.clone(),
        login,
    };
    executor::spawn(link::run(link, link_commands, link_sender)).detach();
    Ok(node)
}

/// Starts to take remote jobs; says at which port, and with which toolchains. An error is the
/// sentence why this node takes none.
async fn start_worker(
    config: &DaemonConfig,
    credentials: &Credentials,
    slots: u32,
    node: &Node,
    broker: Option<Starter>,
) -> Result<(u16, Vec<Digest>), String> {
    let address = match &config.interface {
        None => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        Some(name) => {
            sys::interface_address(name).map_err(|error| format!("interface {name}: {error}"))?
        }
    };
    let listener = bind(address, config.port)
        .map_err(|error| format!("listen at port {}: {error}", config.port))?;
    let port = listener
        .local_addr()
        .map_err(|error| error.to_string())?
        .port();
    let listener = Async::new(listener).map_err(|error| error.to_string())?;
    let (directory, limit) = (config.cache_dir.clone(), config.cache_limit);
    let store = threads::unblock(move || Store::open(&directory, limit)).await;
    let store = store.map_err(|error| format!("the cache: {error}"))?;
    let program = ladder::own_program();
    let mut rungs = vec![(Rung::UserNamespaces, Starter::Here(program.clone()))];
    // Jobs run as the node's own user there, too.
    let (uid, gid) = (
        nix::unistd::geteuid().as_raw(),
        nix::unistd::getegid().as_raw(),
    );
    rungs.extend(broker.map(|broker| (Rung::Root { uid, gid }, broker)));
    let (rung, starter) = ladder::probe(&program, &rungs).await.map_err(|failures| {
        let sentence = |(rung, why)| format!("{rung}: {why}");
        let sentences: Vec<String> = failures.into_iter().map(sentence).collect();
        format!("no sandbox can be built here ({})", sentences.join("; "))
    })?;
    log::info!("jobs of others run in a sandbox of {rung}");
    let memory = sys::memory_bytes();
    let limits = Limits {
        address_space_bytes: ADDRESS_SPACE_BYTES,
        memory_bytes: memory / 2,
        cpu_seconds: JOB_SECONDS,
        wall_seconds: JOB_SECONDS,
        file_bytes: JOB_FILE_BYTES.min(memory / 4),
        processes: JOB_PROCESSES,
        open_files: 1024,
        tmp_bytes: memory / 4,
        niceness: i32::from(config.nice),
    };
    let trees = TreeLimits {
        trees: 2 * slots as usize,
        bytes: memory / 4,
        inodes: TREE_INODES,
    };
    let toolchains = store.toolchains();
    let fetching = Fetching::new(&toolchains);
    let worker = Worker {
        store,
        tenancies: Ok(Tenancies::new(rung, starter, trees, config.verify_trees)),
        admission: Box::new(NodeSlots(node.clone())),
        limits,
        fetching,
    };
    executor::spawn(crate::worker::server::serve(
        listener,
        Arc::new(worker),
        credentials.clone(),
    ))
    .detach();
    Ok((port, toolchains))
}

/// Binds for both families where there are both.
fn bind(address: IpAddr, port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::new(address, port)) {
        Err(error)
            if address == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
                && error.kind() != io::ErrorKind::AddrInUse =>
        {
            TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], port)))
        }
        other => other,
    }
}

fn host_name() -> String {
    nix::unistd::gethostname().map_or_else(
        |_| "node".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// The machine as `uname -m` says it.
pub fn platform() -> String {
    nix::sys::utsname::uname().map_or_else(
        |_| "unknown".to_owned(),
        |uname| uname.machine().to_string_lossy().into_owned(),
    )
}
