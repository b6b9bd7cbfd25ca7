//! The node's dispatcher: one task that owns the slots and knows who holds each lease.
//!
//! Submitters (one in this process, or agents beside a system daemon), the worker and the link to
//! the scheduler each speak to it through channels; it alone decides, in the order in which their
//! words arrive, so nothing here is locked. When a submitter goes, everything it held goes back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use smol::channel::{self, Receiver, Sender};

use super::link::{LinkCommand, LinkEvent};
use super::load::Pressure;
use super::slots::{Admission, Claim, Slots};
use crate::executor;
use crate::id::{Bytes, Digest, LeaseId, RequestId, Term};
use crate::message::{Deal, FromNode, NodeState, Offer, OwnNode, ToNode};
use crate::news::{LocalJobs, OTHER_REASONS, REASONS_MAX, file_end};
use crate::reactor::Timer;

/// How long a job of others waits for room: about as long as it may take to notice that a submitter has
/// given up the one before.
const DOOR_PATIENCE: Duration = Duration::from_millis(500);

/// A submitter, as the node knows it; it is part of the numbers of its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Port(u32);

/// What the dispatcher hears.
enum Event {
    Opened(Port, Sender<FromNode>),
    From(Port, ToNode),
    Closed(Port),
    /// Whether the claim is accepted, and then that it has its slot, is said over the channel.
    Claim(Claim, LeaseId, Sender<bool>),
    Ready(Claim),
    Release(Claim),
    /// A remote claim has waited at the door for long enough.
    Late(Claim),
    Toolchains {
        added: Vec<Digest>,
        removed: Vec<Digest>,
    },
    Link(LinkEvent),
    /// So many slots from now on.
    Resize(u32),
    /// No more jobs of others.
    Drain,
    /// Somebody waits until no job of others runs and no submitter is connected, but for so many.
    WhenIdle(usize, Sender<()>),
    /// The pause after the last word on the state is over.
    TellState,
    /// The pause after the first local job that the scheduler has not been told of is over.
    TellLocal,
    /// What burdens this machine now.
    Pressure(Pressure),
}

/// A handle on the node, for those who live in the same process.
#[derive(Clone)]
pub struct Node {
    events: Sender<Event>,
    claims: Arc<AtomicU64>,
    ports: Arc<AtomicU32>,
    /// The latest term of a scheduler that this node has known.
    term: Arc<AtomicU64>,
}

/// Room for a remote job, and later its slot; free again when dropped.
pub struct RemoteRoom {
    events: Sender<Event>,
    claim: Claim,
    /// First whether there is room, then that there is a slot.
    answers: Receiver<bool>,
}

impl RemoteRoom {
    /// The job is ready: its slot, when it is its turn. None when the node is about to end.
    pub async fn turn(&self) -> Option<()> {
        self.events.try_send(Event::Ready(self.claim)).ok()?;
        self.answers.recv().await.ok()?.then_some(())
    }
}

impl Drop for RemoteRoom {
    fn drop(&mut self) {
        let _ = self.events.try_send(Event::Release(self.claim));
    }
}

impl Node {
    /// The node and its dispatcher, which must run as long as the node. With `loopback`, a lease
    /// for this machine is used like any other, through its worker.
    pub fn new(
        slots: u32,
        loopback: bool,
        link: Sender<LinkCommand>,
        link_events: Receiver<LinkEvent>,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, events) = channel::unbounded();
        let node = Self {
            events: sender.clone(),
            claims: Arc::default(),
            ports: Arc::default(),
            term: Arc::default(),
        };
        let dispatcher = Dispatcher {
            slots: Slots::new(slots),
            term: node.term.clone(),
            is_draining: false,
            waiting_for_idle: Vec::new(),
            link,
            ports: BTreeMap::new(),
            requests: BTreeSet::new(),
            leases: BTreeMap::new(),
            local: BTreeMap::new(),
            remote: BTreeMap::new(),
            next: 0,
            loopback,
            told: NodeState::default(),
            telling: false,
            pressure: Pressure::default(),
            untold: BTreeMap::new(),
            events: sender.clone(),
        };
        let pressure = sender.clone();
        let relay = async move {
            while let Ok(event) = link_events.recv().await {
                if sender.send(Event::Link(event)).await.is_err() {
                    return;
                }
            }
        };
        let watch = async move {
            loop {
                let now = Event::Pressure(Pressure::now());
                if pressure.send(now).await.is_err() {
                    return;
                }
                Timer::after(PRESSURE_EVERY).await;
            }
        };
        let run = async move {
            smol::future::or(watch, smol::future::or(relay, dispatcher.run(events))).await;
        };
        (node, run)
    }

    /// Connects a submitter: what it sends over the first channel is heard, until it is closed.
    pub fn open(&self) -> (Sender<ToNode>, Receiver<FromNode>) {
        let port = Port(self.ports.fetch_add(1, Ordering::Relaxed));
        let (to_node, from_submitter) = channel::unbounded();
        let (to_submitter, from_node) = channel::unbounded();
        let events = self.events.clone();
        let _ = events.try_send(Event::Opened(port, to_submitter));
        executor::spawn(async move {
            while let Ok(message) = from_submitter.recv().await {
                let _ = events.try_send(Event::From(port, message));
            }
            let _ = events.try_send(Event::Closed(port));
        })
        .detach();
        (to_node, from_node)
    }

    /// Room for a remote job under this lease; none when all slots and the queue are full.
    pub async fn remote_room(&self, lease: LeaseId) -> Option<RemoteRoom> {
        let claim = Claim(self.claims.fetch_add(1, Ordering::Relaxed));
        let (sender, answers) = channel::bounded(2);
        let event = Event::Claim(claim, lease, sender);
        self.events.try_send(event).ok()?;
        // From here on, dropping this future releases the claim, granted or not.
        let room = RemoteRoom {
            events: self.events.clone(),
            claim,
            answers,
        };
        room.answers.recv().await.ok()?.then_some(room)
    }

    /// Whether a lease of this term is worth nothing: another scheduler has followed.
    pub fn is_outdated(&self, term: Term) -> bool {
        term.0 < self.term.load(Ordering::Relaxed)
    }

    /// From now on this node has so many slots.
    pub fn resize(&self, slots: u32) {
        let _ = self.events.try_send(Event::Resize(slots));
    }

    /// From now on no job of others is taken, and the scheduler knows it.
    pub fn drain(&self) {
        let _ = self.events.try_send(Event::Drain);
    }

    /// Waits until no job of others runs, and no more than `submitters` are connected.
    pub async fn idle(&self, submitters: usize) {
        let (sender, idle) = channel::bounded(1);
        let _ = self.events.try_send(Event::WhenIdle(submitters, sender));
        // A dispatcher that is gone has nothing to do.
        let _ = idle.recv().await;
    }

    /// Tells the scheduler which toolchains came and went.
    pub fn toolchains(&self, added: Vec<Digest>, removed: Vec<Digest>) {
        let _ = self.events.try_send(Event::Toolchains { added, removed });
    }
}

/// Between two looks at the machine's load.
const PRESSURE_EVERY: Duration = Duration::from_secs(2);

/// Between two words on jobs that were local: people read them, nothing is decided by them.
const LOCAL_PAUSE: Duration = Duration::from_secs(1);

/// Between two words on the state.
const STATE_PAUSE: Duration = Duration::from_millis(100);

struct Dispatcher {
    slots: Slots,
    /// The latest term of a scheduler; [`Node`] reads it.
    term: Arc<AtomicU64>,
    is_draining: bool,
    /// They want to know when no job of others runs and no more submitters than this are connected.
    waiting_for_idle: Vec<(usize, Sender<()>)>,
    link: Sender<LinkCommand>,
    ports: BTreeMap<Port, Sender<FromNode>>,
    /// Requests that wait at the scheduler, by the number under which the scheduler knows them.
    requests: BTreeSet<RequestId>,
    /// Leases that submitters hold.
    leases: BTreeMap<LeaseId, Port>,
    /// Local claims, held or waiting.
    local: BTreeMap<Claim, (Port, RequestId)>,
    /// Remote claims that have no slot yet.
    remote: BTreeMap<Claim, Sender<bool>>,
    next: u64,
    loopback: bool,
    told: NodeState,
    /// Whether the pause after the last word on the state lasts.
    telling: bool,
    pressure: Pressure,
    /// Local jobs of which the scheduler has not been told, by reason.
    untold: BTreeMap<String, LocalJobs>,
    events: Sender<Event>,
}

/// Local claims are numbered by the dispatcher, remote ones by the node: this keeps them apart.
const LOCAL_CLAIMS: u64 = 1 << 63;

impl Dispatcher {
    async fn run(mut self, events: Receiver<Event>) {
        while let Ok(event) = events.recv().await {
            self.on_event(event);
            self.grant();
            self.tell_state();
            self.tell_idle();
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Opened(port, sender) => {
                self.ports.insert(port, sender);
            }
            Event::From(port, message) => self.on_submitter(port, message),
            Event::Closed(port) => self.on_closed(port),
            Event::Resize(slots) => {
                self.slots.resize(slots);
                self.tell_link(LinkCommand::Slots(slots));
            }
            Event::Drain => {
                self.is_draining = true;
                self.tell_link(LinkCommand::NoRemote("it is about to end".to_owned()));
            }
            Event::WhenIdle(submitters, sender) => self.waiting_for_idle.push((submitters, sender)),
            Event::Claim(_, _, sender) if self.is_draining => {
                let _ = sender.try_send(false);
            }
            Event::Claim(claim, lease, sender) => {
                match self.slots.claim_remote(claim, lease) {
                    Admission::Accepted => {
                        let _ = sender.try_send(true);
                    }
                    Admission::AtTheDoor => self.hurry(claim),
                    Admission::Busy => {
                        let _ = sender.try_send(false);
                        return;
                    }
                }
                self.remote.insert(claim, sender);
            }
            Event::Late(claim) => {
                if self.slots.is_at_the_door(claim) {
                    self.slots.release(claim);
                    if let Some(sender) = self.remote.remove(&claim) {
                        let _ = sender.try_send(false);
                    }
                }
            }
            Event::Ready(claim) => self.slots.ready(claim),
            Event::Release(claim) => {
                self.remote.remove(&claim);
                self.slots.release(claim);
            }
            Event::Toolchains { added, removed } => {
                self.tell_link(LinkCommand::Toolchains { added, removed })
            }
            Event::Link(event) => self.on_link(event),
            Event::TellState => self.telling = false,
            Event::TellLocal => {
                let untold = std::mem::take(&mut self.untold);
                self.tell_link(LinkCommand::LocalJobs(untold.into_values().collect()));
            }
            Event::Pressure(now) => {
                if now.differs_much(&self.pressure) {
                    self.pressure = now;
                }
            }
        }
    }

    fn on_submitter(&mut self, port: Port, message: ToNode) {
        match message {
            ToNode::Deal(deal) => self.on_deal(port, deal),
            ToNode::WantLocal(request) => {
                let claim = Claim(LOCAL_CLAIMS | self.number());
                self.local.insert(claim, (port, request));
                self.slots.claim_local(claim);
            }
            ToNode::ReturnLocal(request) => {
                let claim = self
                    .local
                    .iter()
                    .find(|(_, whose)| **whose == (port, request))
                    .map(|(claim, _)| *claim);
                if let Some(claim) = claim {
                    self.local.remove(&claim);
                    self.slots.release(claim);
                }
            }
            ToNode::Local { reason, file } => self.note_local(reason, file),
        }
    }

    /// Counts a job that runs here without a lease, for the next word on them.
    fn note_local(&mut self, reason: String, file: Bytes) {
        if self.untold.is_empty() {
            let events = self.events.clone();
            executor::spawn(async move {
                Timer::after(LOCAL_PAUSE).await;
                let _ = events.try_send(Event::TellLocal);
            })
            .detach();
        }
        let reason = match self.untold.contains_key(&reason) || self.untold.len() + 1 < REASONS_MAX
        {
            true => reason,
            false => OTHER_REASONS.to_owned(),
        };
        let noted = self.untold.entry(reason.clone()).or_insert(LocalJobs {
            reason,
            jobs: 0,
            file: Bytes::default(),
        });
        noted.jobs += 1;
        noted.file = file_end(&file);
    }

    /// Passes on what a submitter says, as far as it is the submitter's to say: its requests are told by
    /// their numbers, and its leases are remembered.
    fn on_deal(&mut self, port: Port, deal: Deal) {
        match deal {
            Deal::Want(mut want) => {
                let Some(ours) = want.request.of_agent(port.0) else {
                    let why = "the request's number is too large".to_owned();
                    let request = want.request;
                    self.tell_port(port, FromNode::Offer(Offer::Deny { request, why }));
                    return;
                };
                want.request = ours;
                if self.loopback && want.own == OwnNode::Locally {
                    want.own = OwnNode::AsWorker;
                }
                if self.requests.insert(ours) {
                    self.tell_link(LinkCommand::Deal(Deal::Want(want)));
                }
            }
            Deal::Withdraw(request) => {
                let ours = request.of_agent(port.0);
                if let Some(ours) = ours.filter(|ours| self.requests.remove(ours)) {
                    self.tell_link(LinkCommand::Deal(Deal::Withdraw(ours)));
                }
            }
            Deal::Began { request, lease } => {
                let Some(ours) = request.of_agent(port.0) else {
                    return;
                };
                self.requests.remove(&ours);
                // Also when the lease is void by now: the job no longer waits.
                if self.leases.get(&lease).is_none_or(|holder| *holder == port) {
                    let request = ours;
                    self.tell_link(LinkCommand::Deal(Deal::Began { request, lease }));
                }
            }
            Deal::Ended {
                request,
                lease,
                outcome,
            } => {
                let ours = request.of_agent(port.0);
                if let Some(request) = ours.filter(|_| self.leases.get(&lease) == Some(&port)) {
                    self.tell_link(LinkCommand::Deal(Deal::Ended {
                        request,
                        lease,
                        outcome,
                    }));
                }
            }
            Deal::Way { lease, .. } => {
                if self.leases.get(&lease) == Some(&port) {
                    self.tell_link(LinkCommand::Deal(deal));
                }
            }
            Deal::Return(lease) => {
                if self.leases.get(&lease) == Some(&port) {
                    self.leases.remove(&lease);
                    self.tell_link(LinkCommand::Deal(Deal::Return(lease)));
                }
            }
        }
    }

    fn on_closed(&mut self, port: Port) {
        self.ports.remove(&port);
        let requests: Vec<RequestId> = self
            .requests
            .iter()
            .copied()
            .filter(|request| request.agent() == port.0)
            .collect();
        for request in requests {
            self.requests.remove(&request);
            self.tell_link(LinkCommand::Deal(Deal::Withdraw(request)));
        }
        let leases: Vec<LeaseId> = self
            .leases
            .iter()
            .filter(|(_, whose)| **whose == port)
            .map(|(lease, _)| *lease)
            .collect();
        for lease in leases {
            self.leases.remove(&lease);
            self.tell_link(LinkCommand::Deal(Deal::Return(lease)));
        }
        let claims: Vec<Claim> = self
            .local
            .iter()
            .filter(|(_, whose)| whose.0 == port)
            .map(|(claim, _)| *claim)
            .collect();
        for claim in claims {
            self.local.remove(&claim);
            self.slots.release(claim);
        }
    }

    fn on_link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up { node, name, term } => {
                self.term.fetch_max(term.0, Ordering::Relaxed);
                log::info!("the scheduler knows this node as {name} ({node})");
            }
            LinkEvent::Down(why) => {
                log::warn!("no scheduler: {why}");
                // The next scheduler knows nothing of these; their jobs go on, since a worker
                // takes whoever has the key and finds a free slot.
                self.leases.clear();
                for port in self.ports.keys() {
                    self.tell_port(*port, FromNode::Void);
                }
            }
            LinkEvent::Offer(offer) => self.on_offer(offer),
        }
    }

    /// Hands an offer to the submitter that it is for.
    fn on_offer(&mut self, offer: Offer) {
        let (port, offer) = match offer {
            Offer::Grant(mut grant) => {
                let port = Port(grant.request.agent());
                if !self.ports.contains_key(&port) {
                    self.tell_link(LinkCommand::Deal(Deal::Return(grant.lease)));
                    return;
                }
                self.leases.insert(grant.lease, port);
                grant.request = grant.request.within_agent();
                (port, Offer::Grant(grant))
            }
            Offer::Size { request, size } => {
                let port = Port(request.agent());
                let request = request.within_agent();
                (port, Offer::Size { request, size })
            }
            Offer::Revoke(lease) => match self.leases.get(&lease) {
                Some(port) => (*port, Offer::Revoke(lease)),
                None => return,
            },
            Offer::Deny { request, why } => {
                self.requests.remove(&request);
                let port = Port(request.agent());
                let request = request.within_agent();
                (port, Offer::Deny { request, why })
            }
        };
        self.tell_port(port, FromNode::Offer(offer));
    }

    /// Hands out what is free.
    fn grant(&mut self) {
        for claim in self.slots.admitted() {
            if let Some(sender) = self.remote.get(&claim) {
                let _ = sender.try_send(true);
            }
        }
        for claim in self.slots.granted() {
            if let Some((port, request)) = self.local.get(&claim) {
                self.tell_port(*port, FromNode::LocalSlot(*request));
            } else if let Some(sender) = self.remote.remove(&claim) {
                // When nobody listens any more, the release is already on its way.
                let _ = sender.try_send(true);
            }
        }
    }

    /// A remote claim does not wait at the door for ever.
    fn hurry(&self, claim: Claim) {
        let events = self.events.clone();
        executor::spawn(async move {
            Timer::after(DOOR_PATIENCE).await;
            let _ = events.try_send(Event::Late(claim));
        })
        .detach();
    }

    /// Tells the scheduler how it stands here, when that changed. On a busy node it changes with
    /// every job, and the scheduler, which counts its own leases, need not know of each.
    fn tell_state(&mut self) {
        let state = self.state();
        if state == self.told || self.telling {
            return;
        }
        self.telling = true;
        let events = self.events.clone();
        executor::spawn(async move {
            Timer::after(STATE_PAUSE).await;
            let _ = events.try_send(Event::TellState);
        })
        .detach();
        self.told = state.clone();
        self.tell_link(LinkCommand::State(state));
    }

    fn tell_idle(&mut self) {
        let submitters = self.ports.len();
        if self.slots.remote_jobs() == 0 && self.remote.is_empty() {
            self.waiting_for_idle.retain(|(allowed, sender)| {
                let waits = submitters > *allowed;
                if !waits {
                    let _ = sender.try_send(());
                }
                waits
            });
        }
    }

    fn state(&self) -> NodeState {
        NodeState {
            local_jobs: self.slots.local_jobs(),
            remote_jobs: self.slots.remote_jobs(),
            waiting: self.requests.len() as u32,
            load_milli: self.pressure.load_milli,
            memory_mib: self.pressure.memory_mib,
            processor_stall_milli: self.pressure.processor_stall_milli,
            memory_stall_milli: self.pressure.memory_stall_milli,
            // The link looks at the clock when it sends this.
            clock_ms: 0,
        }
    }

    fn tell_port(&self, port: Port, message: FromNode) {
        if let Some(sender) = self.ports.get(&port) {
            let _ = sender.try_send(message);
        }
    }

    fn tell_link(&self, command: LinkCommand) {
        let _ = self.link.try_send(command);
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}
