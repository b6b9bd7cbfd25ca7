//! The starts of one job that are under way: one as a rule, two when the first lags.
//!
//! Whichever ends first with a result wins; the others are dropped, which ends them on their workers.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use smol::future::FutureExt;

use super::placement::{Lease, Ticket, Word};
use crate::id::LeaseId;

/// A start under way.
type Run<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The starts of one job.
pub struct Race<'a, T> {
    runners: Vec<(Lease, Run<'a, T>)>,
}

/// What happens next.
pub enum Next<T> {
    /// A start has ended.
    Ended(Lease, T),
    /// Another lease is there for the job.
    Lease(Lease),
    /// No lease is to be had, and nothing runs.
    Denied(String),
}

impl<'a, T> Race<'a, T> {
    /// Nothing is under way yet.
    pub fn new() -> Self {
        Self {
            runners: Vec::new(),
        }
    }

    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.runners.is_empty()
    }

    /// Runs the job under one more lease.
    pub fn enter(&mut self, lease: Lease, run: impl Future<Output = T> + Send + 'a) {
        self.runners.push((lease, Box::pin(run)));
    }

    /// Waits for what happens next.
    pub async fn next(&mut self, ticket: &Ticket) -> Next<T> {
        loop {
            let ended = async {
                let (lease, result) = poll_fn(|context| self.poll(context)).await;
                Next::Ended(lease, result)
            };
            let word = async {
                match ticket.word().await {
                    Word::Lease(lease) => Ok(Next::Lease(lease)),
                    Word::Denied(why) => Ok(Next::Denied(why)),
                    Word::Recall(lease) => Err(lease),
                }
            };
            match async { Ok(ended.await) }.or(word).await {
                Ok(Next::Denied(_)) if !self.is_empty() => {
                    // What runs may still bring a result, and there will be no more words.
                    let (lease, result) = poll_fn(|context| self.poll(context)).await;
                    return Next::Ended(lease, result);
                }
                Ok(next) => return next,
                Err(recalled) => self.recall(recalled),
            }
        }
    }

    /// One start has brought the result: the others are given up, and how far they came tells of their nodes.
    pub fn is_won(&mut self) {
        for (lease, run) in self.runners.drain(..) {
            drop(run);
            lease.lags();
        }
    }

    /// Gives up one start, unless the compiler has started: then it is nearer to its end than any other
    /// start could be.
    fn recall(&mut self, id: LeaseId) {
        self.runners
            .retain(|(lease, _)| lease.grant().lease != id || lease.has_started());
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<(Lease, T)> {
        for number in 0..self.runners.len() {
            if let Poll::Ready(result) = self.runners[number].1.as_mut().poll(context) {
                let (lease, _) = self.runners.remove(number);
                return Poll::Ready((lease, result));
            }
        }
        Poll::Pending
    }
}

impl<T> Default for Race<'_, T> {
    fn default() -> Self {
        Self::new()
    }
}
