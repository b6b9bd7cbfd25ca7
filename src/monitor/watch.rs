//! The connection to the scheduler: finds it, asks for its news, and finds the next one when it goes.
//!
//! What it hears goes into a channel with a bound: a reader that is too slow holds up the connection,
//! the scheduler then leaves news out, and here a new snapshot is asked for. A scheduler that says nothing
//! is gone, since its news are a heartbeat too.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use smol::Timer;
use smol::channel::{Receiver, Sender};
use smol::future::FutureExt;

use crate::connection::{self, Connection, ConnectionError};
use crate::key::Credentials;
use crate::message::{FromScheduler, ToScheduler};
use crate::monitor::model::Event;
use crate::news::Snapshot;

/// How long connecting may take, and then a snapshot.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A scheduler that has said nothing for so long is gone; it says something every second.
const SILENCE: Duration = Duration::from_secs(4);
/// The pause after a failure, and the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_LONGEST: Duration = Duration::from_secs(2);

/// Finds a scheduler; an error is a sentence.
pub type Find = Box<dyn Fn() -> Finding + Send>;
/// A search that is under way.
pub type Finding = Pin<Box<dyn Future<Output = Result<SocketAddr, String>> + Send>>;

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// There is no connection, or it broke.
    #[error("{0}")]
    Connection(#[from] ConnectionError),
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

/// The cluster of the scheduler at `address` at this moment.
pub async fn snapshot(
    address: SocketAddr,
    credentials: &Credentials,
) -> Result<Snapshot, WatchError> {
    let mut line = Line::open(address, credentials).await?;
    match line.hear().await? {
        Event::Snapshot(snapshot) => Ok(snapshot),
        _ => Err(WatchError::Other),
    }
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
            Ok(address) => {
                let mut is_up = false;
                let ended = follow(address, &credentials, &events, &requests, &mut is_up).await;
                let Err(error) = ended else { return };
                if is_up {
                    pause = PAUSE_FIRST;
                }
                format!("the scheduler at {address}: {error}")
            }
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
    address: SocketAddr,
    credentials: &Credentials,
    events: &Sender<Event>,
    requests: &Receiver<ToScheduler>,
    is_up: &mut bool,
) -> Result<(), WatchError> {
    enum Next {
        Heard(Event),
        Say(ToScheduler),
        End,
    }
    let mut line = Line::open(address, credentials).await?;
    while requests.try_recv().is_ok() {
        // It was meant for the scheduler before.
    }
    if events
        .send(Event::Found(address.to_string()))
        .await
        .is_err()
    {
        return Ok(());
    }
    // A message may be half read, so whatever is said meanwhile must not interrupt the reading.
    let Line { sender, receiver } = &mut line;
    loop {
        let mut heard = std::pin::pin!(hear(receiver));
        let event = loop {
            let said = async {
                Ok(match requests.recv().await {
                    Ok(request) => Next::Say(request),
                    Err(_) => Next::End,
                })
            };
            let next = async { heard.as_mut().await.map(Next::Heard) }
                .or(said)
                .await;
            match next? {
                Next::Heard(event) => break event,
                Next::Say(request) => sender.send(&request).await?,
                Next::End => return Ok(()),
            }
        };
        let is_stale = matches!(event, Event::News { skipped, .. } if skipped > 0);
        *is_up |= matches!(event, Event::Snapshot(_));
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
    sender: connection::Sender,
    receiver: connection::Receiver,
}

impl Line {
    async fn open(address: SocketAddr, credentials: &Credentials) -> Result<Self, WatchError> {
        let connection = Connection::connect(address, credentials, TIMEOUT).await?;
        let (mut sender, receiver) = connection.split();
        sender.send(&ToScheduler::Watch).await?;
        Ok(Self { sender, receiver })
    }

    async fn hear(&mut self) -> Result<Event, WatchError> {
        hear(&mut self.receiver).await
    }
}

async fn hear(receiver: &mut connection::Receiver) -> Result<Event, WatchError> {
    loop {
        let silence = async {
            Timer::after(SILENCE).await;
            Err(WatchError::Silent)
        };
        // What has arrived counts, however late it is read: this process may have been stopped.
        let message = async { Ok(receiver.receive::<FromScheduler>().await?) };
        return match message.or(silence).await? {
            Some(FromScheduler::Snapshot(snapshot)) => Ok(Event::Snapshot(snapshot)),
            Some(FromScheduler::News { skipped, news }) => Ok(Event::News { skipped, news }),
            Some(FromScheduler::Refused(why)) => Err(WatchError::Refused(why)),
            Some(FromScheduler::Alive) => continue,
            Some(_) => Err(WatchError::Other),
            None => Err(WatchError::Ended),
        };
    }
}
