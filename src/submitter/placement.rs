//! The submitter's line to its node: a clock and channels around its [`Holdings`], and local slots.
//!
//! A job asks with a [`Ticket`] and is handed leases; what it held goes back when it is dropped. The node is
//! another task of this process, or another process when this is an agent: both sides are two channels of
//! messages, and what is behind them does not matter here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use smol::channel::{self, Receiver, Sender};
use smol::future::FutureExt;

use super::holdings::{Action, Event, Holdings};
use super::ways::Measured;
use crate::id::{Bytes, LeaseId, RequestId, Time};
use crate::message::{FromNode, Grant, Home, Outcome, ToNode, Want};
use crate::reactor::Timer;

/// The submitter's line to its node.
pub struct Placement {
    to_node: Sender<ToNode>,
    start: Instant,
    state: Mutex<State>,
    /// Says that there is something to wake up for earlier than was thought.
    sooner: (Sender<()>, Receiver<()>),
}

#[derive(Default)]
struct State {
    holdings: Holdings,
    /// Who waits for words on his job.
    jobs: BTreeMap<RequestId, Sender<Word>>,
    /// Who waits for a local slot.
    locals: BTreeMap<RequestId, Sender<()>>,
    locals_so_far: u64,
    /// When the listener wakes up next.
    wakes_at: Option<Time>,
    is_gone: bool,
}

/// What the holder of a ticket hears.
pub enum Word {
    /// Run the job under this lease; also while it already runs elsewhere.
    Lease(Lease),
    /// Give this one up, unless the compiler has started there.
    Recall(LeaseId),
    /// There is none, for this reason.
    Denied(String),
}

impl Placement {
    /// Speaks over `to_node`; [`Placement::listen`] must run as long as answers are expected.
    pub fn new(to_node: Sender<ToNode>) -> Arc<Self> {
        Arc::new(Self {
            to_node,
            start: Instant::now(),
            state: Mutex::default(),
            sooner: channel::bounded(1),
        })
    }

    /// Takes in the node's answers, until the node is gone.
    pub async fn listen(self: &Arc<Self>, from_node: Receiver<FromNode>) {
        loop {
            let wake = self.next_wake();
            let heard = async { Some(from_node.recv().await) };
            let tick = async {
                match wake {
                    Some(wake) => Timer::at(self.start + Duration::from_micros(wake.0)).await,
                    None => smol::future::pending().await,
                };
                None
            };
            let sooner = async {
                // Both ends are held here: it is never closed.
                let _ = self.sooner.1.recv().await;
                None
            };
            match heard.or(tick).or(sooner).await {
                Some(Ok(FromNode::Offer(offer))) => self.event(Event::Offer(offer)),
                Some(Ok(FromNode::Void)) => self.event(Event::Void),
                Some(Ok(FromNode::LocalSlot(request))) => self.hand_out(request),
                Some(Err(_)) => break,
                None => self.event(Event::Tick),
            }
        }
        // Whoever waits finds the channel closed.
        let mut state = self.lock();
        state.is_gone = true;
        state.jobs.clear();
        state.locals.clear();
    }

    /// Asks for leases for one job. `want.request` is filled in here.
    pub fn ask(self: &Arc<Self>, want: Want) -> Ticket {
        // A lease, a second one, and a word on each.
        let (sender, words) = channel::bounded(8);
        let mut state = self.lock();
        let (request, actions) = state.holdings.want(want, self.now());
        if !state.is_gone {
            state.jobs.insert(request, sender);
        }
        self.act(state, actions);
        Ticket {
            placement: self.clone(),
            request,
            words,
        }
    }

    /// A local slot, as soon as there is one.
    pub async fn local_slot(self: &Arc<Self>) -> LocalSlot {
        let (sender, answer) = channel::bounded(1);
        let request = {
            let mut state = self.lock();
            state.locals_so_far += 1;
            let request = RequestId(state.locals_so_far);
            if !state.is_gone {
                state.locals.insert(request, sender);
            }
            request
        };
        // From here on, dropping this future gives the slot back, granted or not.
        let mut slot = LocalSlot {
            placement: self.clone(),
            request: Some(request),
        };
        // Without a node nobody counts slots, and the user's compiler must not wait for one.
        let asked = self.to_node.try_send(ToNode::WantLocal(request)).is_ok();
        if !asked || answer.recv().await.is_err() {
            slot.request = None;
        }
        slot
    }

    /// Tells the node that a job runs here without a lease, and why.
    pub fn note_local(&self, reason: &str, file: &Bytes) {
        let (reason, file) = (reason.to_owned(), file.clone());
        // As in `act`: it is closed only when the node is gone.
        let _ = self.to_node.try_send(ToNode::Local { reason, file });
    }

    /// The slot goes to who asked for it, or back.
    fn hand_out(&self, request: RequestId) {
        let waiter = self.lock().locals.remove(&request);
        // Who has stopped waiting has given it back already.
        if let Some(waiter) = waiter {
            let _ = waiter.try_send(());
        }
    }

    fn event(self: &Arc<Self>, event: Event) {
        let mut state = self.lock();
        let actions = state.holdings.on_event(event, self.now());
        self.act(state, actions);
    }

    /// Does what is to be done. What is said to the node is said in order; what is handed to jobs may come
    /// back at once, which takes the lock anew.
    fn act(self: &Arc<Self>, mut state: MutexGuard<'_, State>, actions: Vec<Action>) {
        let mut words = Vec::new();
        for action in actions {
            match action {
                Action::Tell(deal) => {
                    // The channel has no bound and is closed only when the node is gone, and all its
                    // slots with it.
                    let _ = self.to_node.try_send(ToNode::Deal(deal));
                }
                Action::Start(request, grant) => {
                    let lease = Lease {
                        placement: self.clone(),
                        request,
                        grant: Arc::new(grant),
                        started: Arc::default(),
                        outcome: Some(Outcome::Unused),
                    };
                    words.push((state.jobs.get(&request).cloned(), Word::Lease(lease)));
                }
                Action::Recall(request, lease) => {
                    words.push((state.jobs.get(&request).cloned(), Word::Recall(lease)));
                }
                Action::Deny(request, why) => {
                    words.push((state.jobs.remove(&request), Word::Denied(why)));
                }
            }
        }
        let wake = state.holdings.next_wake(self.now());
        let is_sooner = match (wake, state.wakes_at) {
            (Some(wake), Some(at)) => wake < at,
            (Some(_), None) => true,
            (None, _) => false,
        };
        drop(state);
        if is_sooner {
            // When it is full, the listener will look anyway.
            let _ = self.sooner.0.try_send(());
        }
        for (job, word) in words {
            if let Some(job) = job {
                // A lease that nobody takes is dropped, and so given back.
                let _ = job.try_send(word);
            }
        }
    }

    fn next_wake(&self) -> Option<Time> {
        let mut state = self.lock();
        let wake = state.holdings.next_wake(self.now());
        state.wakes_at = wake;
        wake
    }

    fn now(&self) -> Time {
        Time(self.start.elapsed().as_micros() as u64)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

/// A job's claim to leases; given up when dropped.
pub struct Ticket {
    placement: Arc<Placement>,
    request: RequestId,
    words: Receiver<Word>,
}

impl Ticket {
    /// The next word on the job.
    pub async fn word(&self) -> Word {
        match self.words.recv().await {
            Ok(word) => word,
            Err(_) => Word::Denied("the node is gone".to_owned()),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.placement.lock().jobs.remove(&self.request);
        self.placement.event(Event::Gone(self.request));
        // Words that nobody has read are dropped with the channel, and leases among them go back.
    }
}

/// A slot on a node for one job; returned when dropped.
pub struct Lease {
    placement: Arc<Placement>,
    request: RequestId,
    grant: Arc<Grant>,
    started: Arc<OnceLock<Instant>>,
    outcome: Option<Outcome>,
}

impl Lease {
    /// What was granted.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Whether it is for this machine: the job is compiled locally under it.
    pub fn is_own(&self) -> bool {
        self.grant.home != Home::No
    }

    /// Whether the compiler has started under it.
    pub fn has_started(&self) -> bool {
        self.started.get().is_some()
    }

    /// Another start of the job has ended first.
    pub fn lags(self) {
        let ran = self.started.get().map(Instant::elapsed);
        if let Some(ran) = ran {
            let ran_us = ran.as_micros() as u64;
            self.end(Outcome::Lagged { ran_us });
        }
    }

    /// What is to be told of the worker while the job is under way.
    pub fn progress(&self) -> Progress {
        Progress {
            placement: self.placement.clone(),
            request: self.request,
            grant: self.grant.clone(),
            started: self.started.clone(),
        }
    }

    /// Says what came of the job here.
    pub fn end(mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(outcome) = self.outcome.take() {
            self.placement.event(Event::Ended {
                request: self.request,
                lease: self.grant.lease,
                outcome,
            });
        }
    }
}

/// Tells how a job under a lease comes along.
pub struct Progress {
    placement: Arc<Placement>,
    request: RequestId,
    grant: Arc<Grant>,
    started: Arc<OnceLock<Instant>>,
}

impl Progress {
    /// The lease.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// The worker has started the compiler.
    pub fn started(&self) {
        // It starts once; a worker that says so again is not believed.
        let _ = self.started.set(Instant::now());
        self.placement.event(Event::Started {
            request: self.request,
            lease: self.grant.lease,
        });
    }

    /// Something of the way to the worker and back was measured.
    pub fn measured(&self, measured: Measured) {
        self.placement.event(Event::Way(self.grant.node, measured));
    }
}

/// A slot on this machine, returned when dropped.
pub struct LocalSlot {
    placement: Arc<Placement>,
    request: Option<RequestId>,
}

impl Drop for LocalSlot {
    fn drop(&mut self) {
        if let Some(request) = self.request {
            self.placement.lock().locals.remove(&request);
            let _ = self
                .placement
                .to_node
                .try_send(ToNode::ReturnLocal(request));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::id::{Digest, NodeId};
    use crate::message::{Deal, Offer, OwnNode, Terms};

    fn want() -> Want {
        Want {
            own: OwnNode::Locally,
            ..Want::new(RequestId(0), Digest([0; 32]), terms())
        }
    }

    fn terms() -> Terms {
        Terms::new("x86_64")
    }

    fn grant(request: RequestId) -> FromNode {
        FromNode::Offer(Offer::Grant(Grant {
            request,
            terms: terms(),
            lease: LeaseId(7),
            node: NodeId(1),
            name: "w".to_owned(),
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            term: crate::id::Term::default(),
            home: Home::No,
            once: true,
            slowness_milli: 1000,
            memory_mib: 0,
        }))
    }

    async fn heard(node_reads: &Receiver<ToNode>) -> Deal {
        match node_reads.recv().await {
            Ok(ToNode::Deal(deal)) => deal,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_lease_is_told_of_and_goes_back_when_its_holder_is_dropped() {
        crate::executor::block_on(async {
            let (to_node, node_reads) = channel::unbounded();
            let (node_writes, from_node) = channel::unbounded();
            let placement = Placement::new(to_node);
            let node = async {
                let Deal::Want(want) = heard(&node_reads).await else {
                    panic!("a want comes first")
                };
                let request = want.request;
                node_writes.send(grant(request)).await.unwrap();
                let lease = LeaseId(7);
                assert_eq!(heard(&node_reads).await, Deal::Began { request, lease });
                let outcome = Outcome::Unused;
                let ended = Deal::Ended {
                    request,
                    lease,
                    outcome,
                };
                assert_eq!(heard(&node_reads).await, ended);
                assert_eq!(heard(&node_reads).await, Deal::Return(lease));
                drop(node_writes);
            };
            let job = async {
                let ticket = placement.ask(want());
                assert!(matches!(ticket.word().await, Word::Lease(_)));
            };
            smol::future::zip(smol::future::zip(node, job), placement.listen(from_node)).await;
        });
    }

    #[test]
    fn a_ticket_that_is_dropped_is_told_and_its_late_lease_returned() {
        crate::executor::block_on(async {
            let (to_node, node_reads) = channel::unbounded();
            let (node_writes, from_node) = channel::unbounded();
            let placement = Placement::new(to_node);
            drop(placement.ask(want()));
            assert!(matches!(heard(&node_reads).await, Deal::Want(_)));
            assert_eq!(heard(&node_reads).await, Deal::Withdraw(RequestId(0)));
            node_writes.send(grant(RequestId(0))).await.unwrap();
            let listen = async {
                placement.listen(from_node).await;
                panic!("the node is there")
            };
            let returned = listen.or(heard(&node_reads)).await;
            assert_eq!(returned, Deal::Return(LeaseId(7)));
        });
    }

    #[test]
    fn without_a_node_nothing_is_waited_for() {
        crate::executor::block_on(async {
            let (to_node, node_reads) = channel::unbounded();
            let (node_writes, from_node) = channel::unbounded();
            drop((node_reads, node_writes));
            let placement = Placement::new(to_node);
            let early = placement.ask(want());
            placement.listen(from_node).await;
            assert!(matches!(early.word().await, Word::Denied(_)));
            let late = placement.ask(want());
            assert!(matches!(late.word().await, Word::Denied(_)));
            let _slot = placement.local_slot().await;
        });
    }
}
