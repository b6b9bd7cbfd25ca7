//! The scheduler's sockets and clock around its core.
//!
//! One task owns the [`Core`] and never waits for a peer. Each connection has a task that reads and a task
//! that writes from a bounded outbox; whoever lets his outbox fill up is dropped. Connections become peers
//! only after handshake and first message, which happen in tasks of their own and within a time: a thousand
//! idle or babbling strangers cost memory for five seconds and nothing else.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use smol::channel::{self, TrySendError};
use smol::future::FutureExt;
use smol::{Async, Task, Timer};

use crate::connection::{Connection, ConnectionError, Receiver, Sender};
use crate::discover;
use crate::executor;
use crate::id::Time;
use crate::key::Credentials;
use crate::message::{FromScheduler, ToScheduler};
use crate::scheduler::memory;
use crate::scheduler::policy::Algorithm;
use crate::scheduler::state::{Action, Core, Event, PeerId, Rules};

/// Connections whose handshake is under way, at most; one more pushes the oldest out, since an honest
/// handshake takes milliseconds.
const GREETINGS_MAX: usize = 1024;
/// How long handshake and first message may take together.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// Peers, at most: nodes and lookers.
const PEERS_MAX: usize = 4096;
/// Messages that wait to be sent to one peer, at most. Above the requests that one node may have waiting
/// ([`super::queue::WAITING_MAX`]), since all may be denied at once.
const OUTBOX_MAX: usize = 8192;
/// The same while a status is among them, which is large.
const OUTBOX_MAX_FOR_STATUS: usize = 2;
/// News messages that wait to be sent to one watcher, at most; then news are left out and counted.
const OUTBOX_MAX_FOR_NEWS: usize = 32;
/// A watcher for whom so many messages in a row were left out has stopped reading. They are not
/// fewer than one a second.
const NEWS_LEFT_OUT_MAX: u32 = 300;
/// Events that wait for the core, at most; then the readers wait.
const INPUTS_MAX: usize = 1024;
/// Bytes that are sent at once, about.
const BATCH_BYTES: usize = 64 << 10;
/// How long a peer that is closed may take to read why.
const FAREWELL: Duration = Duration::from_secs(1);
/// A peer that is no node may be silent for so long.
const LOOKER_SILENCE: Duration = Duration::from_secs(60);

/// What a scheduler is told at its start.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// TCP and UDP port; 0 for any, which only tests want.
    pub port: u16,
    /// The cluster's name.
    pub netname: String,
    /// Who may connect.
    pub credentials: Credentials,
    /// The address to listen on; unspecified for all.
    pub bind: IpAddr,
    /// How nodes are chosen.
    pub algorithm: Algorithm,
    /// Where what was learned is kept; none to forget it.
    pub memory: Option<PathBuf>,
}

/// A scheduler that listens.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    listener: Async<TcpListener>,
    discovery: Option<Async<UdpSocket>>,
    address: SocketAddr,
}

/// Runs a scheduler until `stop` is ready. Errors: the port can't be had.
pub async fn serve(config: ServerConfig, stop: impl Future<Output = ()>) -> io::Result<()> {
    Server::bind(config)?.run(stop).await;
    Ok(())
}

impl Server {
    /// Takes the ports. Without the UDP port the scheduler works, and is not found by itself.
    pub fn bind(config: ServerConfig) -> io::Result<Self> {
        let listener = Async::<TcpListener>::bind((config.bind, config.port))?;
        let address = listener.get_ref().local_addr()?;
        let discovery = match discover::listen(address.port()) {
            Ok(socket) => Some(socket),
            Err(error) => {
                log::warn!(
                    "listen on UDP port {}: {error}; nodes must be told where this scheduler is",
                    address.port()
                );
                None
            }
        };
        Ok(Self {
            config,
            listener,
            discovery,
            address,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is ready; then every connection ends.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self {
            config,
            listener,
            discovery,
            address,
        } = self;
        log::info!("scheduler of {:?} listens on {address}", config.netname);
        let (inputs, received) = channel::bounded(INPUTS_MAX);
        let answers = discovery.map(|socket| {
            let key = config.credentials.datagram_key();
            let netname = config.netname.clone();
            executor::spawn(async move {
                discover::answer(&socket, &key, &netname, address.port()).await;
            })
        });
        let credentials = config.credentials.clone();
        let door = executor::spawn(admit(listener, credentials, inputs.clone()));
        Dispatcher::new(&config, inputs).run(received, stop).await;
        drop((door, answers));
    }
}

/// What the tasks of the connections tell the dispatcher.
enum Input {
    Arrived(Box<Arrival>),
    Heard(PeerId, ToScheduler),
    Ended(PeerId, String),
}

/// A connection that is no stranger's.
struct Arrival {
    from: SocketAddr,
    here: IpAddr,
    first: ToScheduler,
    sender: Sender,
    receiver: Receiver,
}

async fn admit(
    listener: Async<TcpListener>,
    credentials: Credentials,
    inputs: channel::Sender<Input>,
) {
    let mut greetings: BTreeMap<u64, Task<()>> = BTreeMap::new();
    let mut next = 0;
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                if greetings.len() >= GREETINGS_MAX {
                    greetings.retain(|_, greeting| !greeting.is_finished());
                }
                if greetings.len() >= GREETINGS_MAX {
                    greetings.pop_first();
                }
                let greeting = greet(stream, from, credentials.clone(), inputs.clone());
                greetings.insert(next, executor::spawn(greeting));
                next += 1;
            }
            Err(error) => {
                // Most likely there are no descriptors left; strangers have some.
                log::warn!("accept a connection: {error}");
                greetings.pop_first();
                Timer::after(Duration::from_millis(20)).await;
            }
        }
    }
}

async fn greet(
    stream: Async<TcpStream>,
    from: SocketAddr,
    credentials: Credentials,
    inputs: channel::Sender<Input>,
) {
    let arrival = async {
        let here = stream.get_ref().local_addr()?.ip().to_canonical();
        let connection = Connection::accept(stream, &credentials, GREETING_TIMEOUT).await?;
        let (sender, mut receiver) = connection.split();
        let Some(first) = receiver.receive().await? else {
            return Ok(None);
        };
        Ok(Some(Arrival {
            from,
            here,
            first,
            sender,
            receiver,
        }))
    };
    let late = async {
        Timer::after(GREETING_TIMEOUT).await;
        Err(ConnectionError::Timeout(GREETING_TIMEOUT))
    };
    match arrival.or(late).await {
        Ok(Some(arrival)) => {
            // The dispatcher is gone only when everything ends.
            inputs.send(Input::Arrived(Box::new(arrival))).await.ok();
        }
        Ok(None) => log::debug!("{from} said nothing"),
        Err(
            error @ (ConnectionError::OtherKey { .. }
            | ConnectionError::OpenMismatch(_)
            | ConnectionError::Protocol(_)),
        ) => log::warn!("{from} is refused: {error}"),
        Err(error) => log::debug!("{from} is no peer: {error}"),
    }
}

/// Owns the core and the peers.
struct Dispatcher {
    core: Core,
    memory: Option<PathBuf>,
    /// How many jobs had been learned from when the memory was written last.
    remembered_jobs: u64,
    remember_at: Instant,
    start: Instant,
    peers: BTreeMap<PeerId, Peer>,
    peers_so_far: u64,
    inputs: channel::Sender<Input>,
}

struct Peer {
    from: SocketAddr,
    /// Its name, once it is a node.
    node: Option<String>,
    outbox: channel::Sender<FromScheduler>,
    /// Messages of news that were left out since the last that was not, and the news in them.
    left_out: (u32, u64),
    writer: Task<()>,
    /// Reads as long as it is held.
    _reader: Task<()>,
}

impl Dispatcher {
    fn new(config: &ServerConfig, inputs: channel::Sender<Input>) -> Self {
        // Leases of an earlier start have other numbers, at up to a million grants a second.
        let seconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        Self {
            core: Core::new(
                Rules {
                    netname: config.netname.clone(),
                    algorithm: config.algorithm,
                    first_lease: seconds << 20,
                    seed: seconds,
                },
                config
                    .memory
                    .as_deref()
                    .map(memory::read)
                    .unwrap_or_default(),
            ),
            memory: config.memory.clone(),
            remembered_jobs: 0,
            remember_at: Instant::now() + memory::EVERY,
            start: Instant::now(),
            peers: BTreeMap::new(),
            peers_so_far: 0,
            inputs,
        }
    }

    async fn run(mut self, inputs: channel::Receiver<Input>, stop: impl Future<Output = ()>) {
        enum Next {
            Stop,
            Input(Input),
            Tick,
        }
        let mut stop = pin!(stop);
        loop {
            let wake = self.core.next_wake();
            if wake.is_some_and(|wake| wake <= self.now()) {
                // Asked before the sockets, since a busy socket must not hide a dead node.
                self.event(Event::Tick);
                continue;
            }
            let stopped = async {
                stop.as_mut().await;
                Next::Stop
            };
            let input = async {
                match inputs.recv().await {
                    Ok(input) => Next::Input(input),
                    Err(_) => Next::Stop,
                }
            };
            let tick = async {
                match wake {
                    Some(wake) => Timer::at(self.start + Duration::from_micros(wake.0)).await,
                    None => smol::future::pending().await,
                };
                Next::Tick
            };
            match stopped.or(input).or(tick).await {
                Next::Stop => break,
                Next::Input(input) => self.input(input),
                Next::Tick => self.event(Event::Tick),
            }
            if self.remember_at <= Instant::now() {
                self.remember_at = Instant::now() + memory::EVERY;
                // It takes a while, and nobody has to wait for it.
                if let Some(write) = self.remember() {
                    executor::spawn(smol::unblock(write)).detach();
                }
            }
        }
        if let Some(write) = self.remember() {
            smol::unblock(write).await;
        }
    }

    /// What writes down all that was learned, if there is anything new and a place for it.
    fn remember(&mut self) -> Option<impl FnOnce() + Send + 'static> {
        let path = self.memory.clone()?;
        let speeds = self.core.speeds();
        if std::mem::replace(&mut self.remembered_jobs, speeds.jobs()) == speeds.jobs() {
            return None;
        }
        let recollection = speeds.recollection();
        Some(move || {
            if let Err(error) = memory::write(&path, &recollection) {
                log::warn!("write {}: {error}", path.display());
            }
        })
    }

    fn now(&self) -> Time {
        Time(self.start.elapsed().as_micros() as u64)
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Arrived(arrival) => self.arrived(*arrival),
            Input::Heard(peer, message) => {
                // A message may still be on its way from a peer that was closed.
                if self.peers.contains_key(&peer) {
                    self.event(Event::Message(peer, message));
                }
            }
            Input::Ended(peer, why) => {
                self.part(peer, &why);
                self.event(Event::Left(peer));
            }
        }
    }

    fn arrived(&mut self, arrival: Arrival) {
        let Arrival {
            from,
            here,
            first,
            sender,
            receiver,
        } = arrival;
        if self.peers.len() >= PEERS_MAX {
            log::warn!("{from} is refused: there are {PEERS_MAX} connections already");
            return;
        }
        self.peers_so_far += 1;
        let id = PeerId(self.peers_so_far);
        let (outbox, outgoing) = channel::bounded(OUTBOX_MAX);
        let is_node = matches!(first, ToScheduler::Login(_));
        // A watcher has nothing to say, and is noticed to be gone when it reads no news.
        let is_watcher = first == ToScheduler::Watch;
        let patience = (!is_node && !is_watcher).then_some(LOOKER_SILENCE);
        let peer = Peer {
            from,
            node: None,
            outbox,
            left_out: (0, 0),
            writer: executor::spawn(write(id, sender, outgoing, self.inputs.clone())),
            _reader: executor::spawn(read(id, receiver, patience, self.inputs.clone())),
        };
        self.peers.insert(id, peer);
        self.event(match first {
            ToScheduler::Login(login) => Event::Joined {
                peer: id,
                login,
                from: from.ip().to_canonical(),
                here,
            },
            message => Event::Message(id, message),
        });
    }

    fn event(&mut self, event: Event) {
        let now = self.now();
        let mut actions = VecDeque::from(self.core.on_event(event, now));
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Send(id, message) => {
                    if let Err(why) = self.send(id, message) {
                        self.part(id, why);
                        actions.extend(self.core.on_event(Event::Left(id), now));
                    }
                }
                Action::Close(id, why) => self.part(id, &why),
            }
        }
    }

    fn send(&mut self, id: PeerId, mut message: FromScheduler) -> Result<(), &'static str> {
        let Some(peer) = self.peers.get_mut(&id) else {
            // It was dropped by an action before this one.
            return Ok(());
        };
        match &mut message {
            FromScheduler::News { news, .. } if peer.outbox.len() >= OUTBOX_MAX_FOR_NEWS => {
                let (messages, left_out) = &mut peer.left_out;
                *messages += 1;
                *left_out += news.len() as u64;
                return match *messages > NEWS_LEFT_OUT_MAX {
                    true => Err("does not read its news"),
                    false => Ok(()),
                };
            }
            FromScheduler::News { skipped, .. } => {
                *skipped = std::mem::take(&mut peer.left_out).1;
            }
            FromScheduler::Welcome { name, .. } => {
                log::info!("node {name} joined from {}", peer.from);
                peer.node = Some(name.clone());
            }
            FromScheduler::Status(_) if peer.outbox.len() >= OUTBOX_MAX_FOR_STATUS => {
                return Err("asks faster than it reads");
            }
            FromScheduler::Snapshot(_) if peer.outbox.len() >= OUTBOX_MAX_FOR_NEWS => {
                return Err("asks faster than it reads");
            }
            _ => {}
        }
        match peer.outbox.try_send(message) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => Err("reads too slowly"),
            // The end of its writer is on its way as an input.
            Err(TrySendError::Closed(_)) => Ok(()),
        }
    }

    /// Forgets a peer; what is in its outbox still goes out, if it is quick.
    fn part(&mut self, id: PeerId, why: &str) {
        let Some(peer) = self.peers.remove(&id) else {
            return;
        };
        match &peer.node {
            Some(name) => log::info!("node {name} left: {why}"),
            None => log::debug!("{} left: {why}", peer.from),
        }
        drop(peer.outbox);
        let farewell = peer.writer.or(async {
            Timer::after(FAREWELL).await;
        });
        executor::spawn(farewell).detach();
    }
}

async fn read(
    id: PeerId,
    mut receiver: Receiver,
    patience: Option<Duration>,
    inputs: channel::Sender<Input>,
) {
    let why = loop {
        let silence = async {
            match patience {
                Some(patience) => Timer::after(patience).await,
                None => smol::future::pending().await,
            };
            Ok(None)
        };
        match receiver.receive().or(silence).await {
            Ok(Some(message)) => {
                if inputs.send(Input::Heard(id, message)).await.is_err() {
                    return;
                }
            }
            Ok(None) => break "the connection ended".to_owned(),
            Err(error) => break error.to_string(),
        }
    };
    inputs.send(Input::Ended(id, why)).await.ok();
}

async fn write(
    id: PeerId,
    mut sender: Sender,
    outgoing: channel::Receiver<FromScheduler>,
    inputs: channel::Sender<Input>,
) {
    while let Ok(message) = outgoing.recv().await {
        let mut prepared = sender.queue(&message);
        while prepared.is_ok()
            && sender.queued_bytes() < BATCH_BYTES
            && let Ok(message) = outgoing.try_recv()
        {
            prepared = sender.queue(&message);
        }
        let sent = match prepared {
            Ok(()) => sender.flush().await,
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            inputs.send(Input::Ended(id, error.to_string())).await.ok();
            return;
        }
    }
}
