//! The scheduler's sockets and clock around its core.
//!
//! One task owns the [`Core`] and never waits for a peer. Each connection has a task that reads and a task
//! that writes from a bounded outbox (`line`); whoever lets his outbox fill up is dropped. Connections
//! become peers only after handshake and first message (`door`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use smol::Task;
use smol::channel;
use smol::future::FutureExt;

use crate::clock;
use crate::discover::{Seal, Sockets};
use crate::executor;
use crate::id::{Term, Time};
use crate::key::Credentials;
use crate::message::{FromScheduler, NodeStatus, Status, ToScheduler};
use crate::reactor::{Async, Timer};
use crate::scheduler::audience::{self, Told};
use crate::scheduler::control::{self, Command, Picture};
use crate::scheduler::door::{Arrival, Input, admit};
use crate::scheduler::election::Role;
use crate::scheduler::herald::{self, HeraldConfig, News, Wish};
use crate::scheduler::http::{self, Desk, HttpConfig};
use crate::scheduler::line::{read, write};
use crate::scheduler::memory;
use crate::scheduler::policy::Algorithm;
use crate::scheduler::speed::Speeds;
use crate::scheduler::state::{Action, Core, Event, PeerId, Rules};
use crate::scheduler::tally::Tally;
use crate::scheduler::text_port::{self, Request};
use crate::threads;

/// Peers, at most: nodes and lookers.
const PEERS_MAX: usize = 4096;
/// Messages that wait to be sent to one peer, at most. Above the requests that one node may have waiting
/// ([`super::queue::WAITING_MAX`]), since all may be denied at once. Counted here: a channel of that size
/// takes its memory, more than a MiB, before anything is sent.
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
/// Arrivals that wait for an election, at most. It takes less than two seconds.
const UNDECIDED_MAX: usize = PEERS_MAX;
/// How long the nodes of another scheduler may take to come after an election.
const SETTLING: Duration = Duration::from_millis(1500);
/// A node that has known so many more elections than this scheduler lies.
const ROUNDS_AHEAD_MAX: u64 = 10_000;
/// Words between the dispatcher and the herald, at most.
const WISHES_MAX: usize = 64;
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
    /// Other schedulers of the cluster that may be out of a broadcast's reach: host and port.
    pub others: Vec<(String, u16)>,
    /// Whether it serves whoever connects, even when another scheduler is the master.
    pub is_persistent: bool,
    /// Where the text port listens, on the port after `port`; none for nowhere.
    pub control: Option<IpAddr>,
    /// Whether there are no other schedulers and nobody has to find this one.
    pub alone: bool,
    /// Where the page is served; none for nowhere.
    pub http: Option<HttpConfig>,
    /// Whether monitors of icecream may look on, at `port`.
    pub icecream_monitors: bool,
}

/// A scheduler that listens.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    listener: Async<TcpListener>,
    discovery: Option<Sockets>,
    control: Option<Async<TcpListener>>,
    http: Option<Async<TcpListener>>,
    address: SocketAddr,
}

/// Runs a scheduler until `stop` is ready. Errors: a port can't be had, and which.
pub async fn serve(config: ServerConfig, stop: impl Future<Output = ()>) -> io::Result<()> {
    let server = Server::bind(config)?;
    crate::background::serves()?;
    server.run(stop).await;
    Ok(())
}

impl Server {
    /// Takes the ports. Without the UDP port the scheduler works, and is not found by itself.
    pub fn bind(config: ServerConfig) -> io::Result<Self> {
        let listen = |at: SocketAddr| {
            let listener = Async::<TcpListener>::bind(at);
            listener
                .map_err(|error| io::Error::new(error.kind(), format!("listen at {at}: {error}")))
        };
        let listener = listen((config.bind, config.port).into())?;
        let http = config.http.as_ref();
        let http = http.map(|http| listen(http.address)).transpose()?;
        let address = listener.get_ref().local_addr()?;
        let discovery = match config.alone {
            true => None,
            false => Sockets::listen(address.port())
                .inspect_err(|error| {
                    log::warn!(
                        "listen on UDP port {}: {error}; nodes must be told where this scheduler is, \
                         and there must be no other",
                        address.port()
                    );
                })
                .ok(),
        };
        let control = config.control.and_then(|ip| {
            let at = SocketAddr::new(ip, address.port().checked_add(1)?);
            Async::<TcpListener>::bind(at)
                .inspect_err(|error| log::warn!("no text port: listen at {at}: {error}"))
                .ok()
        });
        Ok(Self {
            config,
            listener,
            discovery,
            control,
            http,
            address,
        })
    }

    /// Where the page is served, if it is.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref()?.get_ref().local_addr().ok()
    }

    /// Who may connect.
    pub fn credentials(&self) -> &Credentials {
        &self.config.credentials
    }

    /// Whether the text port could be had.
    pub fn has_text_port(&self) -> bool {
        self.control.is_some()
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
            control,
            http,
            address,
        } = self;
        log::info!("scheduler of {:?} listens on {address}", config.netname);
        let (inputs, received) = channel::bounded(INPUTS_MAX);
        let (wishes, wished) = channel::bounded(WISHES_MAX);
        let (news, told) = channel::bounded(WISHES_MAX);
        let herald = match discovery {
            Some(sockets) => {
                let config = HeraldConfig {
                    seal: Seal::new(config.credentials.datagram_key(), &config.netname),
                    port: address.port(),
                    is_persistent: config.is_persistent,
                    others: config.others.clone(),
                };
                executor::spawn(async move {
                    if let Err(error) = herald::run(config, sockets, wished, news).await {
                        log::error!("take part in the election of a scheduler: {error}");
                    }
                })
            }
            None => executor::spawn(herald::run_alone(wished, news)),
        };
        let (requests, asked) = channel::bounded(WISHES_MAX);
        let text_port = control.map(|listener| {
            let requests = requests.clone();
            executor::spawn(text_port::serve(listener, requests))
        });
        let (wanted, wants) = channel::bounded(WISHES_MAX);
        let (guests, coming) = audience::door();
        let page = http.map(|listener| {
            let desk = Desk {
                names: config
                    .http
                    .clone()
                    .map(|http| http.names)
                    .unwrap_or_default(),
                guests: guests.clone(),
                requests: wanted.clone(),
            };
            executor::spawn(http::serve(listener, desk))
        });
        let has_audience = page.is_some() || config.icecream_monitors;
        let guests = config.icecream_monitors.then_some(guests);
        let credentials = config.credentials.clone();
        let door = executor::spawn(admit(listener, credentials, inputs.clone(), guests));
        let mut dispatcher = Dispatcher::new(config, inputs, wishes);
        let audience = has_audience.then(|| {
            let (telling, heard) = channel::bounded(WISHES_MAX);
            dispatcher.audience = Some(telling);
            executor::spawn(audience::run(heard, wanted.clone(), coming))
        });
        dispatcher.run(received, told, asked, wants, stop).await;
        drop((door, herald, text_port, requests, audience, page, wanted));
    }
}

/// Owns the core and the peers.
struct Dispatcher {
    config: ServerConfig,
    /// What was learned in the terms before this one.
    speeds: Speeds,
    /// How many jobs had been learned from when that was written last.
    remembered_jobs: u64,
    remember_at: Instant,
    role: Role,
    /// There is one as long as this is the master, and it lasts for a term.
    core: Option<Core>,
    /// They came while nobody knew who the master is.
    undecided: VecDeque<Box<Arrival>>,
    /// What became of jobs in the terms before this one.
    tally: Tally,
    standbys: Vec<SocketAddr>,
    /// Names of hosts that get no jobs, in every term.
    blocks: BTreeSet<String>,
    start: Instant,
    peers: BTreeMap<PeerId, Peer>,
    peers_so_far: u64,
    inputs: channel::Sender<Input>,
    wishes: channel::Sender<Wish>,
    /// Those who look on without a key, if anybody may.
    audience: Option<channel::Sender<Told>>,
    /// As which peer they watch.
    lookout: Option<PeerId>,
}

struct Peer {
    from: SocketAddr,
    /// Its name, once it is a node.
    node: Option<String>,
    outbox: channel::Sender<FromScheduler>,
    /// Messages of news that were left out since the last that was not, and the news in them.
    left_out: (u32, u64),
    /// By how many milliseconds its clock is ahead of ours, as its last report came.
    skew_ms: Option<i64>,
    writer: Task<()>,
    /// Reads as long as it is held.
    _reader: Task<()>,
}

impl Dispatcher {
    fn new(
        config: ServerConfig,
        inputs: channel::Sender<Input>,
        wishes: channel::Sender<Wish>,
    ) -> Self {
        let memory = config.memory.as_deref();
        Self {
            speeds: memory.map(memory::read).unwrap_or_default(),
            config,
            remembered_jobs: 0,
            remember_at: Instant::now() + memory::EVERY,
            role: Role::Undecided,
            core: None,
            undecided: VecDeque::new(),
            tally: Tally::default(),
            standbys: Vec::new(),
            blocks: BTreeSet::new(),
            start: Instant::now(),
            peers: BTreeMap::new(),
            peers_so_far: 0,
            inputs,
            wishes,
            audience: None,
            lookout: None,
        }
    }

    async fn run(
        mut self,
        inputs: channel::Receiver<Input>,
        news: channel::Receiver<News>,
        requests: channel::Receiver<Request>,
        wants: channel::Receiver<audience::Request>,
        stop: impl Future<Output = ()>,
    ) {
        enum Next {
            Stop,
            Input(Input),
            News(News),
            Request(Request),
            Want(audience::Request),
            Tick,
        }
        let mut stop = pin!(stop);
        loop {
            let wake = self.core.as_ref().and_then(Core::next_wake);
            if wake.is_some_and(|wake| wake <= self.now()) {
                // Asked before the sockets, since a busy socket must not hide a dead node.
                self.event(Event::Tick);
                continue;
            }
            let stopped = async {
                stop.as_mut().await;
                Next::Stop
            };
            let news = async {
                match news.recv().await {
                    Ok(news) => Next::News(news),
                    Err(_) => Next::Stop,
                }
            };
            let request = async {
                match requests.recv().await {
                    Ok(request) => Next::Request(request),
                    Err(_) => Next::Stop,
                }
            };
            let want = async {
                match wants.recv().await {
                    Ok(want) => Next::Want(want),
                    Err(_) => Next::Stop,
                }
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
            let asked = request.or(want);
            match stopped.or(news).or(input).or(asked).or(tick).await {
                Next::Stop => break,
                Next::News(News::Role(role)) => self.become_role(role),
                Next::News(News::Standbys(standbys)) => self.take_standbys(standbys),
                Next::Input(input) => self.input(input),
                Next::Request(request) => self.answer(request),
                Next::Want(want) => self.show(want),
                Next::Tick => self.event(Event::Tick),
            }
            if self.remember_at <= Instant::now() {
                self.remember_at = Instant::now() + memory::EVERY;
                // It takes a while, and nobody has to wait for it.
                if let Some(write) = self.remember() {
                    threads::detached(write);
                }
            }
        }
        if let Some(write) = self.remember() {
            threads::unblock(write).await;
        }
    }

    /// What writes down all that was learned, if there is anything new and a place for it.
    fn remember(&mut self) -> Option<impl FnOnce() + Send + 'static> {
        let path = self.config.memory.clone()?;
        let speeds = self.core.as_ref()?.speeds();
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

    fn become_role(&mut self, role: Role) {
        if role != self.role {
            match role {
                Role::Undecided => log::info!("this scheduler looks for the master"),
                Role::Master(term) => log::info!("this scheduler is the master, in term {term}"),
                Role::Standby(at) => log::info!("this scheduler stands by for the one at {at}"),
            }
            self.role = role;
            self.standbys.clear();
            // Nothing that was lent is known in the next term, so nobody stays.
            if let Some(core) = self.core.take() {
                self.speeds = core.speeds().clone();
                self.tally.add(core.tally());
            }
            let why = "this scheduler is no longer the master";
            for id in self.peers.keys().copied().collect::<Vec<_>>() {
                if let Role::Standby(at) = role {
                    // Whoever does not read it is closed like the others.
                    let _ = self.send(id, FromScheduler::Elsewhere(at));
                }
                self.part(id, why);
            }
            if let Role::Master(term) = role {
                let first_lease = first_lease();
                let rules = Rules {
                    netname: self.config.netname.clone(),
                    algorithm: self.config.algorithm,
                    first_lease,
                    seed: first_lease,
                };
                let mut core = Core::new(rules, self.speeds.clone());
                core.begin(term, self.now().after(SETTLING));
                self.core = Some(core);
                self.event(Event::Blocked(self.blocks.clone()));
            }
            self.tell_audience(Told::Role(role));
        }
        for arrival in std::mem::take(&mut self.undecided) {
            match role {
                // The master has just given a sign of life.
                Role::Standby(at) => send_elsewhere(*arrival, at),
                Role::Master(_) | Role::Undecided => self.arrived(arrival),
            }
        }
    }

    fn tell_audience(&self, told: Told) {
        if let Some(audience) = &self.audience {
            // What is so old that it is pushed out is of no use to anybody.
            let _ = audience.force_send(told);
        }
    }

    /// Does what the audience wants.
    fn show(&mut self, want: audience::Request) {
        match want {
            // Whoever asked may be gone.
            audience::Request::Role(reply) => drop(reply.try_send(self.role)),
            audience::Request::Tally(reply) => {
                let mut tally = self.tally.clone();
                if let Some(core) = &self.core {
                    tally.add(core.tally());
                }
                drop(reply.try_send(tally));
            }
            audience::Request::Watch => {
                let known = self.lookout.filter(|id| self.peers.contains_key(id));
                if let Some(id) = known.or_else(|| self.admit_audience()) {
                    self.event(Event::Message(id, ToScheduler::Watch));
                }
            }
        }
    }

    /// The audience is a peer like any other, in each term a new one.
    fn admit_audience(&mut self) -> Option<PeerId> {
        self.core.as_ref()?;
        self.peers_so_far += 1;
        let id = PeerId(self.peers_so_far);
        let (outbox, outgoing) = channel::unbounded();
        let peer = Peer {
            from: (Ipv4Addr::LOCALHOST, 0).into(),
            node: None,
            outbox,
            left_out: (0, 0),
            skew_ms: None,
            writer: executor::spawn(async {}),
            _reader: executor::spawn(async {}),
        };
        self.peers.insert(id, peer);
        self.lookout = Some(id);
        self.tell_audience(Told::Line(outgoing));
        Some(id)
    }

    fn answer(&mut self, request: Request) {
        let (text, reply) = match request {
            Request::Banner(reply) => (control::banner(&self.picture()), reply),
            Request::Answer(command, reply) => {
                let removed = self.obey(&command);
                (control::answer(&command, &self.picture(), &removed), reply)
            }
        };
        // Whoever asked may be gone.
        let _ = reply.try_send(text);
    }

    /// Does what a command of the text port says; the names of the nodes that it removed.
    fn obey(&mut self, command: &Command) -> Vec<String> {
        match command {
            Command::Block(hosts) => control::block(&mut self.blocks, hosts),
            Command::Unblock(hosts) => self.blocks.retain(|host| !hosts.contains(host)),
            Command::Remove(hosts) => return self.remove(hosts),
            _ => return Vec::new(),
        }
        self.event(Event::Blocked(self.blocks.clone()));
        Vec::new()
    }

    fn remove(&mut self, hosts: &[String]) -> Vec<String> {
        let status = self.core.as_ref().map(Core::status).unwrap_or_default();
        let meant = |node: &&NodeStatus| hosts.iter().any(|host| control::is_called(node, host));
        let names: Vec<String> = status
            .nodes
            .iter()
            .filter(meant)
            .map(|node| node.name.clone())
            .collect();
        let peers = self.peers.iter().filter(|(_, peer)| {
            let name = peer.node.as_ref();
            name.is_some_and(|name| names.contains(name))
        });
        for id in peers.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.part(id, "removed at the text port");
            self.event(Event::Left(id));
        }
        names
    }

    fn picture(&self) -> Picture {
        Picture {
            status: self.core.as_ref().map(Core::status),
            master: match self.role {
                Role::Standby(at) => Some(at),
                Role::Undecided | Role::Master(_) => None,
            },
            jobs: self.core.as_ref().map(Core::jobs).unwrap_or_default(),
            blocks: self.blocks.clone(),
            placed: self.core.as_ref().map_or(0, Core::placed),
            uptime: self.start.elapsed(),
        }
    }

    fn take_standbys(&mut self, standbys: Vec<SocketAddr>) {
        self.standbys = standbys;
        let nodes = self.peers.iter().filter(|(_, peer)| peer.node.is_some());
        for id in nodes.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.tell_standbys(id);
        }
    }

    fn tell_standbys(&mut self, id: PeerId) {
        if let Err(why) = self.send(id, FromScheduler::Standbys(self.standbys.clone())) {
            self.part(id, why);
            self.event(Event::Left(id));
        }
    }

    fn now(&self) -> Time {
        Time(self.start.elapsed().as_micros() as u64)
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Arrived(arrival) => self.arrived(arrival),
            Input::Heard(peer, message) => {
                // A message may still be on its way from a peer that was closed.
                if self.peers.contains_key(&peer) {
                    match message {
                        ToScheduler::Block { node, is_blocked } => {
                            let hosts = vec![node];
                            self.obey(&match is_blocked {
                                true => Command::Block(hosts),
                                false => Command::Unblock(hosts),
                            });
                        }
                        message => {
                            self.compare_clocks(peer, &message);
                            self.event(Event::Message(peer, message));
                        }
                    }
                }
            }
            Input::Ended(peer, why) => {
                self.part(peer, &why);
                self.event(Event::Left(peer));
            }
        }
    }

    /// Notes how far a node's clock is from ours. The core knows neither: nothing is decided by them.
    fn compare_clocks(&mut self, peer: PeerId, message: &ToScheduler) {
        if let ToScheduler::State(state) = message
            && state.clock_ms > 0
            && let Some(peer) = self.peers.get_mut(&peer)
        {
            let ahead = i128::from(state.clock_ms) - i128::from(clock::now_ms());
            peer.skew_ms = i64::try_from(ahead).ok();
        }
    }

    /// Adds what only the shell knows.
    fn add_clocks(&self, status: &mut Status) {
        status.clock_ms = clock::now_ms();
        let named = |peer: &Peer| Some((peer.node.clone()?, peer.skew_ms?));
        let skews: BTreeMap<String, i64> = self.peers.values().filter_map(named).collect();
        for node in &mut status.nodes {
            node.skew_ms = skews.get(&node.name).copied();
        }
    }

    fn arrived(&mut self, arrival: Box<Arrival>) {
        match self.role {
            Role::Master(term) => match seen(&arrival.first) {
                Some(seen) if seen.round() > term.round() + ROUNDS_AHEAD_MAX => {
                    log::warn!("{} is refused: it has known term {seen}", arrival.from);
                }
                Some(seen) if seen > term => {
                    log::info!("{} has known term {seen}, later than {term}", arrival.from);
                    self.undecided.push_back(arrival);
                    let _ = self.wishes.try_send(Wish::Seen(seen));
                }
                _ => self.admit(*arrival),
            },
            Role::Standby(_) | Role::Undecided => {
                if self.undecided.len() >= UNDECIDED_MAX {
                    self.undecided.pop_front();
                }
                self.undecided.push_back(arrival);
                // A full channel says it already.
                let _ = self.wishes.try_send(Wish::Needed);
            }
        }
    }

    fn admit(&mut self, arrival: Arrival) {
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
        let (outbox, outgoing) = channel::unbounded();
        let is_node = matches!(first, ToScheduler::Login(_));
        // A watcher has nothing to say, and is noticed to be gone when it reads no news.
        let is_watcher = first == ToScheduler::Watch;
        let patience = (!is_node && !is_watcher).then_some(LOOKER_SILENCE);
        let peer = Peer {
            from,
            node: None,
            outbox,
            left_out: (0, 0),
            skew_ms: None,
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
        let Some(core) = &mut self.core else { return };
        let mut actions = VecDeque::from(core.on_event(event, now));
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Send(id, message) => {
                    if let Err(why) = self.send(id, message) {
                        self.part(id, why);
                        let core = self.core.as_mut();
                        actions.extend(
                            core.map_or_else(Vec::new, |core| core.on_event(Event::Left(id), now)),
                        );
                    }
                }
                Action::Close(id, why) => {
                    if let Some(Peer {
                        node: None, from, ..
                    }) = self.peers.get(&id)
                    {
                        log::warn!("{from} is refused: {why}");
                    }
                    self.part(id, &why);
                }
            }
        }
    }

    fn send(&mut self, id: PeerId, mut message: FromScheduler) -> Result<(), &'static str> {
        if let FromScheduler::Status(status) = &mut message {
            self.add_clocks(status);
        }
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
        if peer.outbox.len() >= OUTBOX_MAX {
            return Err("reads too slowly");
        }
        let is_welcome = matches!(message, FromScheduler::Welcome { .. });
        let mut sent = peer.outbox.try_send(message);
        if sent.is_ok() && is_welcome && !self.standbys.is_empty() {
            let standbys = FromScheduler::Standbys(self.standbys.clone());
            sent = peer.outbox.try_send(standbys);
        }
        // If it is closed, the end of its writer is on its way as an input.
        drop(sent);
        Ok(())
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

/// The latest term that a node which wants to log in has known.
fn seen(first: &ToScheduler) -> Option<Term> {
    match first {
        ToScheduler::Login(login) => Some(login.seen),
        _ => None,
    }
}

/// The number of the first lease of a term: leases of an earlier one, of this process or another, have lower
/// numbers, at up to a million grants a second.
fn first_lease() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as u64)
}

/// Tells a newcomer where the master is.
fn send_elsewhere(mut arrival: Arrival, at: SocketAddr) {
    let farewell = async move {
        // Whoever is gone already asks somebody else.
        let _ = arrival.sender.send(&FromScheduler::Elsewhere(at)).await;
    };
    let late = async {
        Timer::after(FAREWELL).await;
    };
    executor::spawn(farewell.or(late)).detach();
}
