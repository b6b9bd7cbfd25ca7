//! Accepts submitters and serves one job after another on each connection.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use smol::future::FutureExt;

use super::conversation;
use super::job::{self, Worker};
use crate::account;
use crate::connection::{Connection, ConnectionError, Receiver};
use crate::dictionary::Decoder;
use crate::executor;
use crate::greetings::Greetings;
use crate::key::Credentials;
use crate::message::{Failure, FromWorker, ToWorker};
use crate::reactor::{Async, Timer};

/// How long a newcomer may take to show that it has the key.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may be without a job. Submitters give theirs up after half of it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// How long what is still on its way here is heard out after a failure.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections of those who have the key, at a time. A submitter keeps at most 64 idle, so this is room for more than
/// a hundred busy ones.
const CONNECTIONS_MAX: usize = 8192;

/// Serves until the listener fails.
pub async fn serve(listener: Async<TcpListener>, worker: Arc<Worker>, credentials: Credentials) {
    let count = Arc::new(AtomicUsize::new(0));
    let mut greetings = Greetings::default();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let (worker, credentials) = (worker.clone(), credentials.clone());
                greetings.begin(greet(stream, peer, worker, credentials, count.clone()));
            }
            Err(error) => {
                // Usually out of descriptors; strangers may have some.
                log::warn!("accept a submitter: {error}");
                greetings.end_oldest();
                Timer::after(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Hears whether one who comes has the key; then he is served by a task of its own.
async fn greet(
    stream: Async<TcpStream>,
    peer: SocketAddr,
    worker: Arc<Worker>,
    credentials: Credentials,
    count: Arc<AtomicUsize>,
) {
    let connection = match Connection::accept(stream, &credentials, HANDSHAKE_TIMEOUT).await {
        Ok(connection) => connection,
        Err(error) => return log::info!("{peer}: {error}"),
    };
    if count.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
        log::warn!("{peer} is turned away: {CONNECTIONS_MAX} connections are open");
        return;
    }
    let counted = Counted::new(count);
    executor::spawn(async move {
        let _counted = counted;
        if let Err(error) = converse(connection, &worker).await {
            log::info!("{peer}: {error}");
        }
    })
    .detach();
}

/// Counts a connection as long as it lives.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn converse(connection: Connection, worker: &Arc<Worker>) -> Result<(), ConnectionError> {
    let peer = connection.peer();
    let (mut sender, mut receiver) = connection.split();
    let mut dictionary = Decoder::default();
    loop {
        let next = async { receiver.receive::<ToWorker>().await }
            .or(async {
                executor::late(IDLE_TIMEOUT).await;
                Ok(None)
            })
            .await?;
        let spec = match next {
            Some(ToWorker::Job(spec)) => *spec,
            // What crossed the end of the last job.
            Some(ToWorker::Cancel) => continue,
            Some(_) => {
                log::warn!("{peer}: a message out of turn; the connection ends");
                return Ok(());
            }
            None => return Ok(()),
        };
        let number = spec.job;
        let result = conversation::hold(&mut sender, &mut receiver, async |conversation| {
            job::run(worker, spec, &mut dictionary, conversation).await
        })
        .await?;
        match result {
            Ok(done) => {
                log::info!("job {number} done for {peer}: {done}");
                if let Some(statement) = account::statement() {
                    log::info!("account: {statement}");
                }
                sender
                    .send(&FromWorker::Done {
                        status: done.status,
                        usage: done.usage,
                    })
                    .await?;
            }
            Err(failed) => {
                log::info!("job {number} of {peer} has no result: {failed}");
                let ends = failed.failure != Failure::Busy;
                let message = FromWorker::Failed {
                    failure: failed.failure,
                    detail: failed.detail,
                };
                sender.send(&message).await?;
                // After any other failure it is not known what is still on its way here.
                if ends {
                    linger(&mut receiver).await;
                    return Ok(());
                }
            }
        }
    }
}

/// Hears the submitter out, until he has heard us and hangs up. To close while something of his is
/// unread would reset the connection, and could take our last word from him.
async fn linger(receiver: &mut Receiver) {
    let hear = async {
        while let Ok(Some(_)) = receiver.receive::<ToWorker>().await {
            smol::future::yield_now().await;
        }
    };
    let late = async {
        Timer::after(LINGER_TIMEOUT).await;
    };
    hear.or(late).await;
}
