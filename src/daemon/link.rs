//! The link to the scheduler: finds it, stays connected, carries words in both directions.
//!
//! Sockets and clock around a [`Session`], which decides everything. Knows nothing of jobs and slots.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use smol::Task;
use smol::channel::{self, Receiver, Sender};
use smol::future::FutureExt;

use crate::clock;
use crate::connection::{self, Connection, ConnectionError};
use crate::daemon::session::{Input, Output, Session};
pub use crate::daemon::session::{LinkCommand, LinkEvent};
use crate::executor;
use crate::id::Time;
use crate::key::Credentials;
use crate::message::{FromScheduler, Login, ToScheduler};
use crate::reactor::Timer;
use crate::whereabouts;

/// How long one attempt to find a scheduler by broadcast lasts.
const FIND_TIMEOUT: Duration = Duration::from_secs(1);
/// How long one address may take to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Messages that wait to be sent, at most; a scheduler that reads so slowly is as good as dead.
const OUTBOX_MAX: usize = 16_384;
/// Messages from the scheduler that wait, at most; then its socket waits.
const INBOX_MAX: usize = 1024;
/// Bytes that are sent at once, about.
const BATCH_BYTES: usize = 64 << 10;

/// How long those may take that the last master or another scheduler has named. They are asked first, and they are
/// most likely near.
const HINT_TIMEOUT: Duration = Duration::from_millis(1200);
/// What a link is told at its start.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// Each `HOST` or `HOST:PORT`; none to find a scheduler by broadcast, and `:PORT` to find it so at
    /// another port than [`whereabouts::SCHEDULER_PORT`].
    pub schedulers: Vec<String>,
    /// What proves that this node belongs to the cluster.
    pub credentials: Credentials,
    /// How this node introduces itself; the netname is the one that is looked for.
    pub login: Login,
}

/// Keeps the link until `commands` is closed; the connection then ends. `events` holds no more than an answer
/// to each request that was made and a word for each connection, and should have no bound of its own: a
/// link that waits for its daemon looks dead to the scheduler.
pub async fn run(config: LinkConfig, commands: Receiver<LinkCommand>, events: Sender<LinkEvent>) {
    let link = Link {
        session: Session::new(config.login.clone()),
        config,
        start: Instant::now(),
        events,
        attempt: None,
        wire: None,
        master: None,
        hints: Hints::default(),
    };
    link.run(commands).await;
}

#[derive(Debug)]
struct Link {
    config: LinkConfig,
    session: Session,
    start: Instant,
    events: Sender<LinkEvent>,
    attempt: Option<Task<Result<Connection, String>>>,
    wire: Option<Wire>,
    /// Where the connection leads.
    master: Option<SocketAddr>,
    hints: Hints,
}

/// A connection and its two tasks, which end when it is dropped.
#[derive(Debug)]
struct Wire {
    inbox: Receiver<Result<FromScheduler, String>>,
    outbox: Sender<ToScheduler>,
    _tasks: [Task<()>; 2],
}

enum Next {
    Command(LinkCommand),
    Attempted(Result<Connection, String>),
    Heard(Result<FromScheduler, String>),
    Tick,
    End,
}

impl Link {
    async fn run(mut self, commands: Receiver<LinkCommand>) {
        loop {
            let wake = self.session.next_wake();
            if wake.is_some_and(|wake| wake <= self.now()) {
                self.input(Input::Tick).await;
                continue;
            }
            match self.next(&commands, wake).await {
                Next::Command(command) => self.input(Input::Command(command)).await,
                Next::Attempted(Ok(connection)) => {
                    self.attempt = None;
                    self.master = Some(connection.peer());
                    self.hints.named = None;
                    self.wire = Some(Wire::new(connection));
                    self.input(Input::Connected).await;
                }
                Next::Attempted(Err(why)) => {
                    self.attempt = None;
                    // They had their chance.
                    self.hints = Hints::default();
                    self.input(Input::Lost(why)).await;
                }
                Next::Heard(Ok(FromScheduler::Standbys(standbys))) => {
                    self.hints.standbys = self.reachable(standbys);
                }
                Next::Heard(Ok(message)) => {
                    if let FromScheduler::Elsewhere(at) = message {
                        self.hints.named = self.reachable(vec![at]).pop();
                    }
                    self.input(Input::Heard(message)).await;
                }
                Next::Heard(Err(why)) => {
                    self.wire = None;
                    self.input(Input::Lost(why)).await;
                }
                Next::Tick => self.input(Input::Tick).await,
                Next::End => return,
            }
        }
    }

    async fn next(&mut self, commands: &Receiver<LinkCommand>, wake: Option<Time>) -> Next {
        let start = self.start;
        let tick = async {
            match wake {
                Some(wake) => Timer::at(start + Duration::from_micros(wake.0)).await,
                None => smol::future::pending().await,
            };
            Next::Tick
        };
        let command = async { commands.recv().await.map_or(Next::End, Next::Command) };
        let attempt = &mut self.attempt;
        let attempted = async {
            match attempt {
                Some(attempt) => Next::Attempted(attempt.await),
                None => smol::future::pending().await,
            }
        };
        let wire = &self.wire;
        let heard = async {
            match wire {
                Some(wire) => Next::Heard(wire.hear().await),
                None => smol::future::pending().await,
            }
        };
        heard.or(command).or(attempted).or(tick).await
    }

    /// What a scheduler names by a loopback address is found where that scheduler is.
    fn reachable(&self, addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
        let here = self.master.map(|master| master.ip());
        let found = addresses.into_iter().map(|mut address| {
            if let Some(here) = here
                && address.ip().to_canonical().is_loopback()
            {
                address.set_ip(here);
            }
            address
        });
        found.collect()
    }

    fn now(&self) -> Time {
        Time(self.start.elapsed().as_micros() as u64)
    }

    async fn input(&mut self, input: Input) {
        let now = self.now();
        let mut outputs = self.session.on_input(input, now);
        outputs.reverse();
        while let Some(output) = outputs.pop() {
            match output {
                Output::Connect => {
                    let hints = self.hints.clone();
                    self.attempt = Some(executor::spawn(connect(self.config.clone(), hints)));
                }
                Output::Disconnect => self.wire = None,
                Output::Tell(event) => {
                    // A daemon that no longer listens is about to close the commands, too.
                    self.events.send(event).await.ok();
                }
                Output::Send(mut message) => {
                    let Some(wire) = &self.wire else { continue };
                    if let ToScheduler::State(state) = &mut message {
                        state.clock_ms = clock::now_ms();
                    }
                    if wire.outbox.try_send(message).is_err() {
                        self.wire = None;
                        let why = "the scheduler does not read".to_owned();
                        let mut more = self.session.on_input(Input::Lost(why), now);
                        more.reverse();
                        // What was to be sent is moot; what was to be told is not.
                        more.append(&mut outputs);
                        outputs = more;
                    }
                }
            }
        }
    }
}

impl Wire {
    fn new(connection: Connection) -> Self {
        let (sender, receiver) = connection.split();
        let (inward, inbox) = channel::bounded(INBOX_MAX);
        let (outbox, outgoing) = channel::bounded(OUTBOX_MAX);
        Self {
            inbox,
            outbox,
            _tasks: [
                executor::spawn(read(receiver, inward.clone())),
                executor::spawn(write(sender, outgoing, inward)),
            ],
        }
    }

    async fn hear(&self) -> Result<FromScheduler, String> {
        let heard = self.inbox.recv().await;
        heard.unwrap_or_else(|_| Err("the connection ended".into()))
    }
}

async fn read(mut receiver: connection::Receiver, inward: Sender<Result<FromScheduler, String>>) {
    loop {
        let (heard, is_end) = match receiver.receive().await {
            Ok(Some(message)) => (Ok(message), false),
            Ok(None) => (Err("the connection ended".to_owned()), true),
            Err(error) => (Err(error.to_string()), true),
        };
        if inward.send(heard).await.is_err() || is_end {
            return;
        }
    }
}

async fn write(
    mut sender: connection::Sender,
    outgoing: Receiver<ToScheduler>,
    inward: Sender<Result<FromScheduler, String>>,
) {
    while let Ok(message) = outgoing.recv().await {
        if let Err(error) = write_batch(&mut sender, message, &outgoing).await {
            inward.send(Err(error.to_string())).await.ok();
            return;
        }
    }
}

async fn write_batch(
    sender: &mut connection::Sender,
    first: ToScheduler,
    outgoing: &Receiver<ToScheduler>,
) -> Result<(), ConnectionError> {
    sender.queue(&first)?;
    while sender.queued_bytes() < BATCH_BYTES
        && let Ok(message) = outgoing.try_recv()
    {
        sender.queue(&message)?;
    }
    sender.flush().await
}

/// What is known of where the scheduler may be, beyond what the configuration says.
#[derive(Clone, Debug, Default)]
struct Hints {
    /// A scheduler that stands by has named the master.
    named: Option<SocketAddr>,
    /// Those that stood by for the last master. One that still does, names it.
    standbys: Vec<SocketAddr>,
}

/// Finds the scheduler and connects; the error is a sentence.
async fn connect(config: LinkConfig, hints: Hints) -> Result<Connection, String> {
    let credentials = &config.credentials;
    for known in [hints.named.as_slice(), &hints.standbys] {
        if known.is_empty() {
            continue;
        }
        match whereabouts::reach_within(known, credentials, HINT_TIMEOUT).await {
            Ok(connection) => return Ok(connection),
            Err(why) => log::debug!("{why}"),
        }
    }
    let netname = &config.login.netname;
    let found = whereabouts::locate(&config.schedulers, credentials, netname, FIND_TIMEOUT).await?;
    whereabouts::reach(&found, credentials, CONNECT_TIMEOUT).await
}
