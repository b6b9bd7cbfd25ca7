//! Warm connections to workers: one job at a time on each, kept between jobs.
//!
//! A connection goes back only after a job that ended in order; whatever else happened to it, it
//! is dropped. Kept ones are bounded in number, per worker and together, and in idle time, whether or
//! not another job comes; the longest idle leaves first, and the most recently used is taken first, so
//! that what a burst of jobs opened closes by itself.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::connection::{Connection, ConnectionError, Receiver, Sender};
use crate::dictionary::Encoder;
use crate::executor;
use crate::key::Credentials;

/// How long a worker may take to accept and shake hands.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);
/// Kept for one worker, at most.
const IDLE_PER_WORKER_MAX: usize = 64;
/// Kept for all workers, at most.
const IDLE_MAX: usize = 512;
/// Kept for so long, and until somebody comes by to tidy. Workers drop an idle connection after twice this time.
const IDLE_TIME_MAX: Duration = Duration::from_secs(60);
/// Between two rounds of whoever tidies.
const TIDY_EVERY: Duration = Duration::from_secs(30);

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
    idle: Arc<Mutex<Idle<Warm>>>,
}

impl Pool {
    /// An empty pool.
    pub fn new(credentials: Credentials) -> Self {
        Self {
            credentials,
            idle: Arc::default(),
        }
    }

    /// A warm connection to `address`, or a new one.
    pub async fn take(&self, address: SocketAddr) -> Result<Warm, ConnectionError> {
        let warm = lock(&self.idle).take(address);
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
        lock(&self.idle).forget(address);
    }

    /// Takes back a connection whose job ended in order.
    pub fn give_back(&self, mut warm: Warm) {
        warm.used = true;
        let mut idle = lock(&self.idle);
        idle.put(warm.address, warm, Instant::now());
        if std::mem::replace(&mut idle.is_tidied, true) {
            return;
        }
        drop(idle);
        let idle = self.idle.clone();
        executor::repeat(TIDY_EVERY, move || {
            let mut idle = lock(&idle);
            idle.forget_idle(Instant::now());
            idle.is_tidied = !idle.waiting.is_empty();
            idle.is_tidied
        });
    }
}

fn lock<T>(idle: &Mutex<Idle<T>>) -> MutexGuard<'_, Idle<T>> {
    idle.lock().expect("no holder of this lock panics")
}

/// What waits for a job, with the worker it leads to, the longest unused first. Knows no clock and no socket.
struct Idle<T> {
    waiting: Vec<(Instant, SocketAddr, T)>,
    /// Whether somebody comes by to tidy it.
    is_tidied: bool,
}

impl<T> Default for Idle<T> {
    fn default() -> Self {
        Self {
            waiting: Vec::new(),
            is_tidied: false,
        }
    }
}

impl<T> Idle<T> {
    fn take(&mut self, address: SocketAddr) -> Option<T> {
        let is_there = |(_, other, _): &(Instant, SocketAddr, T)| *other == address;
        let last = self.waiting.iter().rposition(is_there);
        last.map(|index| self.waiting.remove(index).2)
    }

    /// Keeps one more; when there are enough for its worker, it goes, and when there are enough together, the
    /// longest unused.
    fn put(&mut self, address: SocketAddr, one: T, now: Instant) {
        let same = self
            .waiting
            .iter()
            .filter(|(_, other, _)| *other == address);
        if same.count() >= IDLE_PER_WORKER_MAX {
            return;
        }
        if self.waiting.len() >= IDLE_MAX {
            self.waiting.remove(0);
        }
        self.waiting.push((now, address, one));
    }

    fn forget(&mut self, address: SocketAddr) {
        self.waiting.retain(|(_, other, _)| *other != address);
    }

    fn forget_idle(&mut self, now: Instant) {
        let idle = |since: Instant| now.saturating_duration_since(since);
        self.waiting
            .retain(|(since, ..)| idle(*since) < IDLE_TIME_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(number: u16) -> SocketAddr {
        ([10, 0, 0, 1], number).into()
    }

    #[test]
    fn the_most_recently_used_is_taken_first_and_of_its_own_worker_only() {
        let now = Instant::now();
        let mut idle = Idle::default();
        for (number, name) in [(1, "a"), (2, "b"), (1, "c")] {
            idle.put(worker(number), name, now);
        }
        assert_eq!(idle.take(worker(1)), Some("c"));
        assert_eq!(idle.take(worker(1)), Some("a"));
        assert_eq!(idle.take(worker(1)), None);
        idle.forget(worker(2));
        assert_eq!(idle.take(worker(2)), None);
    }

    #[test]
    fn what_waits_is_bounded_for_each_worker_and_together() {
        let now = Instant::now();
        let mut idle = Idle::default();
        let workers = (IDLE_MAX / IDLE_PER_WORKER_MAX) as u16;
        for number in 0..workers {
            for name in 0..=IDLE_PER_WORKER_MAX {
                idle.put(worker(number), name, now);
            }
        }
        assert_eq!(idle.waiting.len(), IDLE_MAX);
        idle.put(worker(workers), 0, now);
        assert_eq!(idle.waiting.len(), IDLE_MAX);
        assert_eq!(idle.waiting[0].2, 1, "the longest unused has gone");
    }

    #[test]
    fn what_no_job_takes_goes_in_time() {
        let start = Instant::now();
        let mut idle = Idle::default();
        idle.put(worker(1), "old", start);
        idle.put(worker(1), "new", start + Duration::from_secs(1));
        idle.forget_idle(start + IDLE_TIME_MAX);
        assert_eq!(idle.take(worker(1)), Some("new"));
        assert_eq!(idle.take(worker(1)), None);
    }
}
