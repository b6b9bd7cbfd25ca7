//! Lets connections in: handshake and first message, each in a task of its own and within a time.
//!
//! A thousand idle or babbling strangers cost memory for five seconds and nothing else; none of them is known to the
//! dispatcher. Knows no node and no role: whoever holds the key and has said something is handed on.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use smol::channel;
use smol::future::FutureExt;

use crate::connection::{Connection, ConnectionError, Receiver, Sender};
use crate::executor;
use crate::greetings::Greetings;
use crate::key::Credentials;
use crate::message::ToScheduler;
use crate::reactor::{Async, Timer};
use crate::scheduler::audience::Guest;
use crate::scheduler::icecream_port;
use crate::scheduler::state::PeerId;

/// How long handshake and first message may take together.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// What the tasks of the connections tell the dispatcher.
pub(super) enum Input {
    Arrived(Box<Arrival>),
    Heard(PeerId, ToScheduler),
    Ended(PeerId, String),
}

/// A connection that is no stranger's.
pub(super) struct Arrival {
    pub(super) from: SocketAddr,
    pub(super) here: IpAddr,
    pub(super) first: ToScheduler,
    pub(super) sender: Sender,
    pub(super) receiver: Receiver,
}

/// Accepts connections until it is dropped, which ends the handshakes that are under way.
pub(super) async fn admit(
    listener: Async<TcpListener>,
    credentials: Credentials,
    inputs: channel::Sender<Input>,
    guests: Option<channel::Sender<Guest>>,
) {
    let mut greetings = Greetings::default();
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let (inputs, guests) = (inputs.clone(), guests.clone());
                greetings.begin(greet(stream, from, credentials.clone(), inputs, guests));
            }
            Err(error) => {
                // Most likely there are no descriptors left; strangers have some.
                log::warn!("accept a connection: {error}");
                greetings.end_oldest();
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
    guests: Option<channel::Sender<Guest>>,
) {
    if let Some(guests) = guests {
        let late = async {
            Timer::after(GREETING_TIMEOUT).await;
            Err(io::ErrorKind::TimedOut.into())
        };
        match icecream_port::is_icecream(&stream).or(late).await {
            Ok(false) => {}
            Ok(true) => {
                // It lasts, so it is no greeting any more.
                executor::spawn(async move {
                    if let Err(error) = icecream_port::serve(stream, from, &guests).await {
                        log::info!("{from}, which speaks icecream's protocol, is let go: {error}");
                    }
                })
                .detach();
                return;
            }
            Err(error) => {
                log::debug!("{from} is no peer: {error}");
                return;
            }
        }
    }
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
