//! The connection to the scheduler: finds it, asks for its news, and finds the next one when it goes.
//!
//! What it hears goes into a channel with a bound: a reader that is too slow holds up the connection,
//! the scheduler then leaves news out, and here a new snapshot is asked for. A scheduler that says nothing
//! is gone, since its news are a heartbeat too.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use smol::channel::{Receiver, Sender};
use smol::future::FutureExt;

use crate::connection::{self, ConnectionError};
use crate::key::Credentials;
use crate::message::{FromScheduler, ToScheduler};
use crate::monitor::model::Event;
use crate::news::Snapshot;
use crate::reactor::Timer;
use crate::whereabouts;

/// How long connecting may take, and then a snapshot.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A scheduler that has said nothing for so long is gone; it says something every second.
const SILENCE: Duration = Duration::from_secs(4);
/// Schedulers that stand by and are asked in turn where the master is, at most.
const HOPS_MAX: usize = 8;
/// The pause after a failure, and the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_LONGEST: Duration = Duration::from_secs(2);

/// Finds schedulers; an error is a sentence.
pub type Find = Box<dyn Fn() -> Finding + Send>;
/// A search that is under way.
pub type Finding = Pin<Box<dyn Future<Output = Result<Vec<SocketAddr>, String>> + Send>>;

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// There is no connection, or it broke.
    #[error("{0}")]
    Connection(#[from] ConnectionError),
    /// None of the schedulers can be reached; a sentence.
    #[error("{0}")]
    Unreachable(String),
    /// The schedulers send us in circles.
    #[error("there is no master among the schedulers: {HOPS_MAX} were asked")]
    NoMaster,
    /// The scheduler wants no more watchers.
    #[error("it refuses: {0}")]
    Refused(String),
    /// The scheduler went away.
    #[error("it ended the connection")]
    Ended,
    /// The scheduler has stopped.
    #[error("it has said nothing for {SILENCE:?}")]
    Silent,
    /// What it says has no place here.
    #[error("it answers something else")]
    Other,
}

/// The cluster of the master of the schedulers at these addresses, at this moment.
pub async fn snapshot(
    addresses: &[SocketAddr],
    credentials: &Credentials,
) -> Result<Snapshot, WatchError> {
    let (_, snapshot) = Line::open(addresses, credentials).await?;
    Ok(snapshot)
}

/// Watches until nobody reads `events`. What comes through `requests` is said to the scheduler of
/// that moment, if there is one.
pub async fn watch(
    find: Find,
    credentials: Credentials,
    events: Sender<Event>,
    requests: Receiver<ToScheduler>,
) {
    let mut pause = PAUSE_FIRST;
    loop {
        let why = match find().await {
            Ok(addresses) => match Line::open(&addresses, &credentials).await {
                Ok((line, snapshot)) => {
                    pause = PAUSE_FIRST;
                    let address = line.address;
                    let ended = follow(line, snapshot, &events, &requests).await;
                    let Err(error) = ended else { return };
                    format!("the scheduler at {address}: {error}")
                }
                Err(error) => error.to_string(),
            },
            Err(why) => why,
        };
        if events.send(Event::Lost(why)).await.is_err() {
            return;
        }
        Timer::after(pause).await;
        pause = (pause * 3 / 2).min(PAUSE_LONGEST);
    }
}

/// Hears one scheduler to its end; without an error when nobody listens here any more.
async fn follow(
    line: Line,
    snapshot: Snapshot,
    events: &Sender<Event>,
    requests: &Receiver<ToScheduler>,
) -> Result<(), WatchError> {
    enum Next {
        Heard(Event),
        Say(ToScheduler),
        End,
    }
    while requests.try_recv().is_ok() {
        // It was meant for the scheduler before.
    }
    let Line {
        address,
        mut sender,
        mut receiver,
    } = line;
    for event in [Event::Found(address.to_string()), Event::Snapshot(snapshot)] {
        if events.send(event).await.is_err() {
            return Ok(());
        }
    }
    // A message may be half read, so whatever is said meanwhile must not interrupt the reading.
    loop {
        let mut heard = std::pin::pin!(hear(&mut receiver));
        let event = loop {
            let said = async {
                Ok(match requests.recv().await {
                    Ok(request) => Next::Say(request),
                    Err(_) => Next::End,
                })
            };
            let next = async {
                match heard.as_mut().await? {
                    Heard::News(event) => Ok(Next::Heard(event)),
                    // It stands by now: the master is found anew.
                    Heard::Elsewhere(_) => Err(WatchError::Ended),
                }
            };
            match next.or(said).await? {
                Next::Heard(event) => break event,
                Next::Say(request) => sender.send(&request).await?,
                Next::End => return Ok(()),
            }
        };
        let is_stale = matches!(event, Event::News { skipped, .. } if skipped > 0);
        if events.send(event).await.is_err() {
            return Ok(());
        }
        if is_stale {
            sender.send(&ToScheduler::Watch).await?;
        }
    }
}

/// A connection over which news come.
struct Line {
    address: SocketAddr,
    sender: connection::Sender,
    receiver: connection::Receiver,
}

impl Line {
    /// To the master: schedulers that stand by say where it is. Also its first snapshot.
    async fn open(
        addresses: &[SocketAddr],
        credentials: &Credentials,
    ) -> Result<(Self, Snapshot), WatchError> {
        let mut addresses = addresses.to_vec();
        for _ in 0..HOPS_MAX {
            let connection = whereabouts::reach_within(&addresses, credentials, TIMEOUT).await;
            let connection = connection.map_err(WatchError::Unreachable)?;
            let address = connection.peer();
            let (mut sender, mut receiver) = connection.split();
            sender.send(&ToScheduler::Watch).await?;
            match hear(&mut receiver).await? {
                Heard::News(Event::Snapshot(snapshot)) => {
                    let line = Self {
                        address,
                        sender,
                        receiver,
                    };
                    return Ok((line, snapshot));
                }
                Heard::News(_) => return Err(WatchError::Other),
                Heard::Elsewhere(mut master) => {
                    if master.ip().to_canonical().is_loopback() {
                        // It is on the same machine as the one that says so.
                        master.set_ip(address.ip());
                    }
                    addresses = vec![master];
                }
            }
        }
        Err(WatchError::NoMaster)
    }
}

/// What a scheduler says to a watcher.
enum Heard {
    News(Event),
    Elsewhere(SocketAddr),
}

async fn hear(receiver: &mut connection::Receiver) -> Result<Heard, WatchError> {
    loop {
        let silence = async {
            Timer::after(SILENCE).await;
            Err(WatchError::Silent)
        };
        // What has arrived counts, however late it is read: this process may have been stopped.
        let message = async { Ok(receiver.receive::<FromScheduler>().await?) };
        return match message.or(silence).await? {
            Some(FromScheduler::Snapshot(snapshot)) => Ok(Heard::News(Event::Snapshot(snapshot))),
            Some(FromScheduler::News { skipped, news }) => {
                Ok(Heard::News(Event::News { skipped, news }))
            }
            Some(FromScheduler::Elsewhere(master)) => Ok(Heard::Elsewhere(master)),
            Some(FromScheduler::Refused(why)) => Err(WatchError::Refused(why)),
            Some(FromScheduler::Alive) => continue,
            Some(_) => Err(WatchError::Other),
            None => Err(WatchError::Ended),
        };
    }
}
