//! Speaks with the other schedulers, and answers who looks for one: the sockets and clock of an
//! [`Election`].
//!
//! Tells the dispatcher what this scheduler is. A scheduler that is to be alone, or that has no UDP port, is the
//! master from the beginning.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::reactor::{Async, Timer};
use smol::channel::{self, Receiver, Sender};
use smol::future::FutureExt;

use crate::discover::{self, Seal, Sockets};
use crate::executor;
use crate::id::{SchedulerId, Term, Time};
use crate::key::ClusterKey;
use crate::message::{Datagram, Nonce};
use crate::names;
use crate::scheduler::election::{Action, Election, Event, Role, STANDBYS_MAX};
use crate::threads;

/// Questions whose answers are still believed, at most.
const NONCES_MAX: usize = 256;
/// An answer that takes longer than this is none.
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// Between two looks at the names of other schedulers, and at the network's interfaces.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);
/// How long the first of them may take.
const RESOLVE_TIME: Duration = Duration::from_secs(3);

/// What the dispatcher wants of the herald.
#[derive(Clone, Copy, Debug)]
pub enum Wish {
    /// Somebody waits for the master.
    Needed,
    /// A node has known this term.
    Seen(Term),
}

/// What the herald tells the dispatcher.
#[derive(Clone, Debug)]
pub enum News {
    /// What this scheduler is. Repeated for a standby after [`Wish::Needed`], when the master has answered.
    Role(Role),
    /// Who stands by, when this one is the master and it has changed.
    Standbys(Vec<SocketAddr>),
}

/// What a herald is told at its start.
#[derive(Debug)]
pub struct HeraldConfig {
    /// What proves that a datagram belongs to the cluster.
    pub seal: Seal,
    /// This scheduler's TCP and UDP port.
    pub port: u16,
    /// Whether it is the master of whoever comes.
    pub is_persistent: bool,
    /// Other schedulers, which broadcasts may not reach: host and port.
    pub others: Vec<(String, u16)>,
}

/// Takes part in the election on `sockets`, until `wishes` is closed or `news` is.
pub async fn run(
    config: HeraldConfig,
    sockets: Sockets,
    wishes: Receiver<Wish>,
    news: Sender<News>,
) -> io::Result<()> {
    let started_ms = milliseconds_since_1970();
    let secret = *ClusterKey::random()?.bytes();
    let id = blake3::hash(&secret).as_bytes()[..8].try_into();
    let id = u64::from_le_bytes(id.expect("eight of 32 bytes"));
    // Who leads before it has asked those that it was told of may lead beside them.
    let late = async {
        Timer::after(RESOLVE_TIME).await;
        Vec::new()
    };
    let others = resolve(config.others.clone()).or(late).await;
    let (resolved, resolutions) = channel::bounded(1);
    let names = config.others.clone();
    let _resolver = executor::spawn(async move {
        loop {
            Timer::after(RESOLVE_EVERY).await;
            if resolved.send(resolve(names.clone()).await).await.is_err() {
                return;
            }
        }
    });
    let herald = Herald {
        election: Election::new(
            SchedulerId(id),
            started_ms,
            config.port,
            config.is_persistent,
            Time(0),
        ),
        config,
        sockets,
        news,
        start: Instant::now(),
        secret,
        questions: 0,
        nonces: VecDeque::new(),
        watch: None,
        others,
        resolutions,
        role: Role::Undecided,
        standbys: Vec::new(),
        is_needed: false,
    };
    herald.run(wishes).await;
    Ok(())
}

/// The herald of a scheduler that has no others: the master, in a later term whenever a node has known one.
pub async fn run_alone(wishes: Receiver<Wish>, news: Sender<News>) {
    let started_ms = milliseconds_since_1970();
    let mut term = Term::default();
    loop {
        term = term.next(started_ms);
        if news.send(News::Role(Role::Master(term))).await.is_err() {
            return;
        }
        loop {
            match wishes.recv().await {
                Ok(Wish::Seen(seen)) if seen > term => {
                    term = seen;
                    break;
                }
                Ok(Wish::Seen(_) | Wish::Needed) => {}
                Err(_) => return,
            }
        }
    }
}

fn milliseconds_since_1970() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

struct Herald {
    config: HeraldConfig,
    sockets: Sockets,
    news: Sender<News>,
    start: Instant,
    election: Election,
    /// Nonces are made of these two: nobody else can tell the next one.
    secret: [u8; 32],
    questions: u64,
    /// Of the questions whose answers are believed, oldest first.
    nonces: VecDeque<(Nonce, Instant)>,
    /// Connected to the master, so that the kernel tells when nobody listens there any more.
    watch: Option<(SocketAddr, Async<UdpSocket>)>,
    /// Where the other schedulers are that were named.
    others: Vec<SocketAddr>,
    /// The same, looked up anew.
    resolutions: Receiver<Vec<SocketAddr>>,
    role: Role,
    standbys: Vec<SocketAddr>,
    /// Whether the dispatcher waits for a word of the master.
    is_needed: bool,
}

enum Next {
    Tick,
    Resolved(Vec<SocketAddr>),
    Wish(Wish),
    Received(Vec<u8>, SocketAddr),
    Unreachable(SocketAddr),
    End,
}

impl Herald {
    async fn run(mut self, wishes: Receiver<Wish>) {
        loop {
            if self.election.next_wake() <= self.now() {
                if self.event(Event::Tick).await.is_none() {
                    return;
                }
                continue;
            }
            let handled = match self.next(&wishes).await {
                Next::Tick => self.event(Event::Tick).await,
                Next::Resolved(others) => {
                    self.others = others;
                    self.sockets.join();
                    Some(())
                }
                Next::Wish(Wish::Needed) => {
                    self.is_needed = true;
                    self.event(Event::Needed).await
                }
                Next::Wish(Wish::Seen(term)) => self.event(Event::Seen(term)).await,
                Next::Received(bytes, from) => self.received(&bytes, from).await,
                Next::Unreachable(at) => self.event(Event::Unreachable(at)).await,
                Next::End => None,
            };
            if handled.is_none() {
                return;
            }
        }
    }

    async fn next(&self, wishes: &Receiver<Wish>) -> Next {
        let wake = self.start + Duration::from_micros(self.election.next_wake().0);
        let tick = async {
            Timer::at(wake).await;
            Next::Tick
        };
        let resolved = async {
            match self.resolutions.recv().await {
                Ok(others) => Next::Resolved(others),
                Err(_) => smol::future::pending().await,
            }
        };
        let wish = async { wishes.recv().await.map_or(Next::End, Next::Wish) };
        let received = async {
            let (bytes, from) = self.sockets.receive().await;
            Next::Received(bytes, from)
        };
        let watched = async {
            let Some((at, socket)) = &self.watch else {
                return smol::future::pending().await;
            };
            let mut bytes = [0; 256];
            match socket.recv(&mut bytes).await {
                Ok(length) => Next::Received(bytes[..length].to_vec(), *at),
                Err(_) => Next::Unreachable(*at),
            }
        };
        received.or(watched).or(wish).or(tick).or(resolved).await
    }

    fn now(&self) -> Time {
        Time(self.start.elapsed().as_micros() as u64)
    }

    async fn received(&mut self, bytes: &[u8], from: SocketAddr) -> Option<()> {
        match self.config.seal.open(bytes) {
            Some(Datagram::Question { nonce, asker }) => {
                let claim = self.election.claim();
                let answer = self.config.seal.seal(&Datagram::Answer { nonce, claim });
                self.sockets.send(&answer, from).await;
                match asker {
                    Some(claim) if claim.port != 0 => {
                        let at = discover::at_port(from, claim.port);
                        self.event(Event::Asked { claim, at }).await
                    }
                    _ => Some(()),
                }
            }
            Some(Datagram::Answer { nonce, claim }) => {
                let known = self.nonces.iter().find(|(of, _)| *of == nonce);
                let is_fresh = known.is_some_and(|(_, asked)| asked.elapsed() < ANSWER_TIME);
                if !is_fresh || claim.port == 0 {
                    return Some(());
                }
                let at = discover::at_port(from, claim.port);
                self.event(Event::Answered { claim, at }).await?;
                if self.is_needed && self.role == Role::Standby(at) {
                    self.is_needed = false;
                    self.tell(News::Role(self.role)).await?;
                }
                Some(())
            }
            None => Some(()),
        }
    }

    /// None says that the dispatcher is gone.
    async fn event(&mut self, event: Event) -> Option<()> {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.election.on_event(event, self.now()) {
                match action {
                    Action::AskAll => self.ask_all().await,
                    Action::Ask(at) => {
                        if !self.ask(at).await {
                            events.push_back(Event::Unreachable(at));
                        }
                    }
                    Action::Become(role) => self.become_role(role).await?,
                }
            }
        }
        if let Role::Master(_) = self.role {
            let mut standbys = self.election.known(self.now());
            standbys.truncate(STANDBYS_MAX);
            if standbys != self.standbys {
                self.standbys.clone_from(&standbys);
                self.tell(News::Standbys(standbys)).await?;
            }
        }
        Some(())
    }

    async fn ask_all(&mut self) {
        let question = self.question();
        let port = self.config.port;
        self.sockets.send_to_all(&question, port).await;
        let mut others = self.election.known(self.now());
        others.extend(&self.others);
        others.sort_unstable();
        others.dedup();
        for other in others {
            self.sockets.send(&question, other).await;
        }
    }

    /// Says whether somebody can be there.
    async fn ask(&mut self, at: SocketAddr) -> bool {
        let question = self.question();
        match &self.watch {
            Some((watched, socket)) if *watched == at => socket.send(&question).await.is_ok(),
            _ => {
                self.sockets.send(&question, at).await;
                true
            }
        }
    }

    async fn become_role(&mut self, role: Role) -> Option<()> {
        self.role = role;
        self.watch = match role {
            Role::Standby(at) => watch(at)
                .inspect_err(|error| log::debug!("watch {at}: {error}"))
                .ok()
                .map(|socket| (at, socket)),
            Role::Undecided | Role::Master(_) => None,
        };
        self.standbys.clear();
        self.tell(News::Role(role)).await
    }

    async fn tell(&self, news: News) -> Option<()> {
        self.news.send(news).await.ok()
    }

    fn question(&mut self) -> Vec<u8> {
        self.questions += 1;
        let hash = blake3::keyed_hash(&self.secret, &self.questions.to_le_bytes());
        let mut nonce = Nonce::default();
        nonce.copy_from_slice(&hash.as_bytes()[..16]);
        if self.nonces.len() >= NONCES_MAX {
            self.nonces.pop_front();
        }
        self.nonces.push_back((nonce, Instant::now()));
        let asker = Some(self.election.claim());
        self.config.seal.seal(&Datagram::Question { nonce, asker })
    }
}

/// Looks schedulers up; one that has no address now may have one later.
async fn resolve(names: Vec<(String, u16)>) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for (host, port) in names {
        let name = host.clone();
        match threads::unblock(move || names::host(&name, port)).await {
            Ok(addresses) => found.extend(addresses),
            Err(error) => log::warn!("look up the scheduler {host}: {error}"),
        }
    }
    found
}

fn watch(at: SocketAddr) -> io::Result<Async<UdpSocket>> {
    let socket = match at {
        SocketAddr::V4(_) => Async::<UdpSocket>::bind((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => Async::<UdpSocket>::bind((Ipv6Addr::UNSPECIFIED, 0)),
    }?;
    socket.get_ref().connect(at)?;
    Ok(socket)
}
