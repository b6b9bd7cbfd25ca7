//! The link to the scheduler: finds it, stays connected, carries words in both directions.
//!
//! Sockets and clock around a [`Session`], which decides everything. Knows nothing of jobs and slots.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use smol::Task;
use smol::channel::{self, Receiver, Sender};
use smol::future::FutureExt;

use crate::connection::{self, Connection, ConnectionError};
use crate::daemon::session::{Input, Output, Session};
pub use crate::daemon::session::{LinkCommand, LinkEvent};
use crate::discover;
use crate::executor;
use crate::id::Time;
use crate::key::Credentials;
use crate::message::{FromScheduler, Login, ToScheduler};
use crate::names;
use crate::reactor::Timer;

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

/// Where a scheduler listens, TCP and UDP, unless it is told otherwise; icecream's port.
pub const SCHEDULER_PORT: u16 = 8765;

/// What a link is told at its start.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// `HOST` or `HOST:PORT`; none to find the scheduler by broadcast, and `:PORT` to find it so at
    /// another port than [`SCHEDULER_PORT`].
    pub scheduler: Option<String>,
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
                    self.wire = Some(Wire::new(connection));
                    self.input(Input::Connected).await;
                }
                Next::Attempted(Err(why)) => {
                    self.attempt = None;
                    self.input(Input::Lost(why)).await;
                }
                Next::Heard(Ok(message)) => self.input(Input::Heard(message)).await,
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
                    self.attempt = Some(executor::spawn(connect(self.config.clone())))
                }
                Output::Disconnect => self.wire = None,
                Output::Tell(event) => {
                    // A daemon that no longer listens is about to close the commands, too.
                    self.events.send(event).await.ok();
                }
                Output::Send(message) => {
                    let Some(wire) = &self.wire else { continue };
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

/// Finds the scheduler and connects; the error is a sentence.
async fn connect(config: LinkConfig) -> Result<Connection, String> {
    let named = config.scheduler.as_deref().unwrap_or("");
    let (host, port) =
        host_and_port(named).ok_or_else(|| format!("{named:?} is not HOST or HOST:PORT"))?;
    let addresses = match host {
        "" => find(&config, port).await?,
        host => resolve(host, port).await?,
    };
    let mut why = String::new();
    for address in addresses {
        match Connection::connect(address, &config.credentials, CONNECT_TIMEOUT).await {
            Ok(connection) => return Ok(connection),
            Err(error) => why = format!("connect to the scheduler at {address}: {error}"),
        }
    }
    Err(why)
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let name = host.to_owned();
    let found = smol::unblock(move || names::host(&name, port)).await;
    match found {
        Ok(addresses) if addresses.is_empty() => Err(format!("{host} has no address")),
        Ok(addresses) => Ok(addresses),
        Err(error) => Err(format!("look up {host}: {error}")),
    }
}

async fn find(config: &LinkConfig, port: u16) -> Result<Vec<SocketAddr>, String> {
    let key = config.credentials.datagram_key();
    let netname = &config.login.netname;
    let found = discover::find(&key, netname, port, FIND_TIMEOUT).await;
    match found {
        Ok(addresses) if addresses.is_empty() => Err(format!(
            "no scheduler of {netname:?} answers on UDP port {port}"
        )),
        Ok(addresses) => Ok(addresses),
        Err(error) => Err(format!("ask for a scheduler: {error}")),
    }
}

/// Splits `HOST`, `HOST:PORT`, `[V6]:PORT`, `[V6]`, a bare IPv6 address, or `:PORT` with its empty host; the
/// port is [`SCHEDULER_PORT`] where none is named.
pub fn host_and_port(text: &str) -> Option<(&str, u16)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, port.parse().ok()?)),
            None => rest.is_empty().then_some((host, SCHEDULER_PORT)),
        };
    }
    match text.split_once(':') {
        Some((_, rest)) if rest.contains(':') => Some((text, SCHEDULER_PORT)),
        Some((host, port)) => Some((host, port.parse().ok()?)),
        None => Some((text, SCHEDULER_PORT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheduler_is_named_with_or_without_port() {
        for (text, expect) in [
            ("build", Some(("build", 8765))),
            ("build:99", Some(("build", 99))),
            ("10.0.0.1:99", Some(("10.0.0.1", 99))),
            ("::1", Some(("::1", 8765))),
            ("[::1]", Some(("::1", 8765))),
            ("[::1]:99", Some(("::1", 99))),
            ("", Some(("", 8765))),
            (":99", Some(("", 99))),
            ("build:", None),
            ("build:port", None),
            ("build:65536", None),
            ("[::1", None),
            ("[::1]99", None),
        ] {
            assert_eq!(host_and_port(text), expect, "{text}");
        }
    }
}
