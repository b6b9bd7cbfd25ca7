//! The one task that owns the core, and never waits for a peer.
//!
//! Whatever comes in becomes an event of the core or an answer out of what it knows, and what the core wants done
//! goes into outboxes. There is a core as long as this scheduler is the master: with each term a new one begins,
//! and only what was learned and counted goes on.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::pin::pin;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use smol::channel::{self, Receiver};
use smol::future::FutureExt;

use crate::executor;
use crate::id::{Term, Time};
use crate::message::{FromScheduler, NodeStatus, ToScheduler};
use crate::reactor::Timer;
use crate::scheduler::audience::{self, Told};
use crate::scheduler::control::{self, Command, Picture};
use crate::scheduler::door::{Arrival, Input};
use crate::scheduler::election::Role;
use crate::scheduler::herald::{News, Wish};
use crate::scheduler::memory::Keeper;
use crate::scheduler::peers::{FAREWELL, PEERS_MAX, Peers};
use crate::scheduler::policy::Algorithm;
use crate::scheduler::speed::Speeds;
use crate::scheduler::state::{Action, Core, Event, PeerId, Rules};
use crate::scheduler::tally::Tally;
use crate::scheduler::text_port::Request;
use crate::threads;

/// Arrivals that wait for an election, at most. It takes less than two seconds.
const UNDECIDED_MAX: usize = PEERS_MAX;
/// How long the nodes of another scheduler may take to come after an election.
const SETTLING: Duration = Duration::from_millis(1500);
/// A node that has known so many more elections than this scheduler lies.
const ROUNDS_AHEAD_MAX: u64 = 10_000;

/// Those to whom it listens.
pub(super) struct Callers {
    /// Peers and those who want to be one.
    pub(super) inputs: Receiver<Input>,
    /// The herald.
    pub(super) news: Receiver<News>,
    /// The text port.
    pub(super) requests: Receiver<Request>,
    /// The audience.
    pub(super) wants: Receiver<audience::Request>,
}

/// What comes next.
enum Next {
    Stop,
    Input(Input),
    News(News),
    Request(Request),
    Want(audience::Request),
    Tick,
}

impl Callers {
    /// The next word of anybody, the herald first.
    async fn next(&self) -> Next {
        let asked = hear(&self.requests, Next::Request).or(hear(&self.wants, Next::Want));
        hear(&self.news, Next::News)
            .or(hear(&self.inputs, Next::Input))
            .or(asked)
            .await
    }
}

/// Nobody who is listened to goes before the end.
async fn hear<T>(from: &Receiver<T>, next: fn(T) -> Next) -> Next {
    from.recv().await.map_or(Next::Stop, next)
}

/// The core, its peers, and what lasts longer than a term.
pub(super) struct Dispatcher {
    netname: String,
    algorithm: Algorithm,
    keeper: Keeper,
    /// What was learned in the terms before this one.
    speeds: Speeds,
    /// What became of jobs in the terms before this one.
    tally: Tally,
    /// Names of hosts that get no jobs, in every term.
    blocks: BTreeSet<String>,
    role: Role,
    /// There is one as long as this is the master, and it lasts for a term.
    core: Option<Core>,
    peers: Peers,
    /// They came while nobody knew who the master is.
    undecided: VecDeque<Box<Arrival>>,
    standbys: Vec<SocketAddr>,
    start: Instant,
    wishes: channel::Sender<Wish>,
    /// Those who look on without a key, if anybody may.
    audience: Option<channel::Sender<Told>>,
    /// As which peer they watch.
    lookout: Option<PeerId>,
}

impl Dispatcher {
    /// One that is nothing yet, for a cluster of this name.
    pub(super) fn new(
        netname: String,
        algorithm: Algorithm,
        keeper: Keeper,
        peers: Peers,
        wishes: channel::Sender<Wish>,
        audience: Option<channel::Sender<Told>>,
    ) -> Self {
        Self {
            netname,
            algorithm,
            speeds: keeper.recall(),
            keeper,
            tally: Tally::default(),
            blocks: BTreeSet::new(),
            role: Role::Undecided,
            core: None,
            peers,
            undecided: VecDeque::new(),
            standbys: Vec::new(),
            start: Instant::now(),
            wishes,
            audience,
            lookout: None,
        }
    }

    /// Serves `callers` until `stop` is ready or one of them is gone, and writes down what was learned.
    pub(super) async fn run(mut self, callers: Callers, stop: impl Future<Output = ()>) {
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
            let tick = async {
                match wake {
                    Some(wake) => Timer::at(self.start + Duration::from_micros(wake.0)).await,
                    None => smol::future::pending().await,
                };
                Next::Tick
            };
            match stopped.or(callers.next()).or(tick).await {
                Next::Stop => break,
                Next::News(News::Role(role)) => self.become_role(role),
                Next::News(News::Standbys(standbys)) => self.take_standbys(standbys),
                Next::Input(input) => self.input(input),
                Next::Request(request) => self.answer(request),
                Next::Want(want) => self.show(want),
                Next::Tick => self.event(Event::Tick),
            }
            if self.keeper.is_due(Instant::now())
                && let Some(write) = self.remember()
            {
                // It takes a while, and nobody has to wait for it.
                threads::detached(write);
            }
        }
        if let Some(write) = self.remember() {
            threads::unblock(write).await;
        }
    }

    fn now(&self) -> Time {
        Time(self.start.elapsed().as_micros() as u64)
    }

    /// What writes down all that was learned, if there is anything new and a place for it.
    fn remember(&mut self) -> Option<impl FnOnce() + Send + 'static> {
        self.keeper.keep(self.core.as_ref()?.speeds())
    }

    // The herald.

    fn become_role(&mut self, role: Role) {
        if role != self.role {
            match role {
                Role::Undecided => log::info!("this scheduler looks for the master"),
                Role::Master(term) => log::info!("this scheduler is the master, in term {term}"),
                Role::Standby(at) => log::info!("this scheduler stands by for the one at {at}"),
            }
            self.role = role;
            self.standbys.clear();
            self.end_term(role);
            if let Role::Master(term) = role {
                self.begin_term(term);
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

    /// Nothing that was lent is known in the next term, so nobody stays.
    fn end_term(&mut self, next: Role) {
        if let Some(core) = self.core.take() {
            self.speeds = core.speeds().clone();
            self.tally.add(core.tally());
        }
        for id in self.peers.ids() {
            if let Role::Standby(at) = next {
                // Whoever does not read it is closed like the others.
                let _ = self.peers.send(id, FromScheduler::Elsewhere(at));
            }
            self.peers
                .part(id, "this scheduler is no longer the master");
        }
    }

    fn begin_term(&mut self, term: Term) {
        let first_lease = first_lease();
        let rules = Rules {
            netname: self.netname.clone(),
            algorithm: self.algorithm,
            first_lease,
            seed: first_lease,
        };
        let mut core = Core::new(rules, self.speeds.clone());
        core.begin(term, self.now().after(SETTLING));
        self.core = Some(core);
        self.event(Event::Blocked(self.blocks.clone()));
    }

    fn take_standbys(&mut self, standbys: Vec<SocketAddr>) {
        self.standbys = standbys;
        for id in self.peers.nodes(|_| true) {
            let standbys = FromScheduler::Standbys(self.standbys.clone());
            if let Err(why) = self.peers.send(id, standbys) {
                self.part(id, why);
            }
        }
    }

    // Peers, and who wants to be one.

    fn input(&mut self, input: Input) {
        match input {
            Input::Arrived(arrival) => self.arrived(arrival),
            // A message may still be on its way from a peer that was closed.
            Input::Heard(peer, _) if !self.peers.has(peer) => {}
            Input::Heard(_, ToScheduler::Block { node, is_blocked }) => {
                let hosts = vec![node];
                self.obey(&match is_blocked {
                    true => Command::Block(hosts),
                    false => Command::Unblock(hosts),
                });
            }
            Input::Heard(peer, message) => {
                if let ToScheduler::State(state) = &message {
                    self.peers.compare_clocks(peer, state.clock_ms);
                }
                self.event(Event::Message(peer, message));
            }
            Input::Ended(peer, why) => self.part(peer, &why),
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
                    self.wait_for_election(arrival, Wish::Seen(seen));
                }
                _ => self.admit(*arrival),
            },
            Role::Standby(_) | Role::Undecided => self.wait_for_election(arrival, Wish::Needed),
        }
    }

    fn wait_for_election(&mut self, arrival: Box<Arrival>, wish: Wish) {
        if self.undecided.len() >= UNDECIDED_MAX {
            self.undecided.pop_front();
        }
        self.undecided.push_back(arrival);
        // A full channel says it already.
        let _ = self.wishes.try_send(wish);
    }

    fn admit(&mut self, arrival: Arrival) {
        if let Some(event) = self.peers.admit(arrival) {
            self.event(event);
        }
    }

    fn part(&mut self, id: PeerId, why: &str) {
        self.peers.part(id, why);
        self.event(Event::Left(id));
    }

    /// Lets the core know, and does what it wants done.
    fn event(&mut self, event: Event) {
        let now = self.now();
        let Some(core) = &mut self.core else { return };
        let mut actions = VecDeque::from(core.on_event(event, now));
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Send(id, message) => {
                    if let Err(why) = send(&mut self.peers, &self.standbys, id, message) {
                        self.peers.part(id, why);
                        actions.extend(core.on_event(Event::Left(id), now));
                    }
                }
                Action::Close(id, why) => self.peers.refuse(id, &why),
            }
        }
    }

    // The text port.

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

    /// Does what a command says; the names of the nodes that it removed.
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
        let nodes = status.nodes.iter().filter(meant);
        let names: Vec<String> = nodes.map(|node| node.name.clone()).collect();
        for id in self
            .peers
            .nodes(|name| names.iter().any(|meant| meant == name))
        {
            self.part(id, "removed at the text port");
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

    // The audience.

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
                let known = self.lookout.filter(|id| self.peers.has(*id));
                if let Some(id) = known.or_else(|| self.admit_audience()) {
                    self.event(Event::Message(id, ToScheduler::Watch));
                }
            }
        }
    }

    /// The audience is a peer like any other, in each term a new one.
    fn admit_audience(&mut self) -> Option<PeerId> {
        self.core.as_ref()?;
        let (id, line) = self.peers.admit_audience();
        self.lookout = Some(id);
        self.tell_audience(Told::Line(line));
        Some(id)
    }

    fn tell_audience(&self, told: Told) {
        if let Some(audience) = &self.audience {
            // What is so old that it is pushed out is of no use to anybody.
            let _ = audience.force_send(told);
        }
    }
}

/// Sends what the core says, with what only the shell knows. Errors: why the peer has to go.
fn send(
    peers: &mut Peers,
    standbys: &[SocketAddr],
    id: PeerId,
    mut message: FromScheduler,
) -> Result<(), &'static str> {
    if let FromScheduler::Status(status) = &mut message {
        peers.add_clocks(status);
    }
    let is_welcome = matches!(message, FromScheduler::Welcome { .. });
    peers.send(id, message)?;
    match is_welcome && !standbys.is_empty() {
        true => peers.send(id, FromScheduler::Standbys(standbys.to_vec())),
        false => Ok(()),
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
