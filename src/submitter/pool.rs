//! Warm connections to workers: one job at a time on each, kept between jobs.
//!
//! A connection goes back only after a job that ended in order; whatever else happened to it, it
//! is dropped. Kept ones are bounded in number, per worker and together, and in idle time; the
//! longest idle leaves first, and the most recently used is taken first, so that what a burst of
//! jobs opened closes by itself.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::connection::{Connection, ConnectionError, Receiver, Sender};
use crate::dictionary::Encoder;
use crate::key::Credentials;

/// How long a worker may take to accept and shake hands.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);
/// Kept for one worker, at most.
const IDLE_PER_WORKER_MAX: usize = 64;
/// Kept for all workers, at most.
const IDLE_MAX: usize = 512;
/// Kept for so long, at most. Workers drop an idle connection after twice this time.
const IDLE_TIME_MAX: Duration = Duration::from_secs(60);

/// A connection to a worker, with what was said on it.
pub struct Warm {
    /// Its sending half.
    pub sender: Sender,
    /// Its receiving half.
    pub receiver: Receiver,
    /// The entries that the worker knows by number.
    pub dictionary: Encoder,
    /// Whether it has served a job before: if so, it may have died unnoticed.
    pub used: bool,
    /// The way to the worker and back, as it was when the connection was made.
    pub travel: Duration,
    address: SocketAddr,
}

/// The connections that wait for a job.
pub struct Pool {
    credentials: Credentials,
    idle: Mutex<Vec<(Instant, Warm)>>,
}

impl Pool {
    /// An empty pool.
    pub fn new(credentials: Credentials) -> Self {
        Self {
            credentials,
            idle: Mutex::new(Vec::new()),
        }
    }

    /// A warm connection to `address`, or a new one.
    pub async fn take(&self, address: SocketAddr) -> Result<Warm, ConnectionError> {
        let warm = {
            let mut idle = self.idle.lock().expect("no holder of this lock panics");
            let last = idle.iter().rposition(|(_, warm)| warm.address == address);
            last.map(|index| idle.remove(index).1)
        };
        match warm {
            Some(warm) => Ok(warm),
            None => self.open(address).await,
        }
    }

    /// A new connection to `address`.
    pub async fn open(&self, address: SocketAddr) -> Result<Warm, ConnectionError> {
        let began = Instant::now();
        let connection = Connection::connect(address, &self.credentials, CONNECT_TIMEOUT).await?;
        // To connect is to go there and back, and to shake hands is to do it again.
        let travel = began.elapsed() / 2;
        let (sender, receiver) = connection.split();
        Ok(Warm {
            sender,
            receiver,
            dictionary: Encoder::default(),
            used: false,
            travel,
            address,
        })
    }

    /// Forgets every connection to `address`: the worker there is dead.
    pub fn forget(&self, address: SocketAddr) {
        self.idle
            .lock()
            .expect("no holder of this lock panics")
            .retain(|(_, warm)| warm.address != address);
    }

    /// Takes back a connection whose job ended in order.
    pub fn give_back(&self, mut warm: Warm) {
        warm.used = true;
        let now = Instant::now();
        let mut idle = self.idle.lock().expect("no holder of this lock panics");
        idle.retain(|(since, _)| now.duration_since(*since) < IDLE_TIME_MAX);
        let same = idle
            .iter()
            .filter(|(_, other)| other.address == warm.address)
            .count();
        if same >= IDLE_PER_WORKER_MAX {
            return;
        }
        if idle.len() >= IDLE_MAX {
            idle.remove(0);
        }
        idle.push((now, warm));
    }
}
