//! The node's dispatcher: one task that owns the slots and knows whose request each lease answers.
//!
//! Submitters (one in this process, or agents beside a system daemon), the worker and the link to
//! the scheduler each speak to it through channels; it alone decides, in the order in which their
//! words arrive, so nothing here is locked. When a submitter goes, everything it held goes back.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use smol::channel::{self, Receiver, Sender};

use super::link::{LinkCommand, LinkEvent};
use super::load;
use super::slots::{Admission, Claim, Slots};
use crate::executor;
use crate::id::{Bytes, Digest, LeaseId, NodeId, RequestId, Term};
use crate::message::{FromNode, Grant, NodeState, Outcome, OwnNode, ToNode};
use crate::news::{LocalJobs, OTHER_REASONS, REASONS_MAX, file_end};

/// A submitter, as the node knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Port(u64);

/// What the dispatcher hears.
enum Event {
    Opened(Port, Sender<FromNode>),
    From(Port, ToNode),
    Closed(Port),
    Claim(Claim, Sender<bool>),
    Ready(Claim),
    Release(Claim),
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
    /// The load, times 1000, and the available memory in MiB.
    Pressure(u32, u64),
}

/// A handle on the node, for those who live in the same process.
#[derive(Clone)]
pub struct Node {
    events: Sender<Event>,
    next: std::sync::Arc<std::sync::atomic::AtomicU64>,
    /// The latest term of a scheduler that this node has known.
    term: std::sync::Arc<std::sync::atomic::AtomicU64>,
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
            next: std::sync::Arc::default(),
            term: std::sync::Arc::default(),
        };
        let dispatcher = Dispatcher {
            slots: Slots::new(slots),
            term: node.term.clone(),
            is_draining: false,
            waiting_for_idle: Vec::new(),
            link,
            ports: BTreeMap::new(),
            requests: BTreeMap::new(),
            leases: BTreeMap::new(),
            local: BTreeMap::new(),
            remote: BTreeMap::new(),
            next: 0,
            loopback,
            own: None,
            told: NodeState::default(),
            telling: false,
            pressure: (0, 0),
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
                let (load_milli, memory_mib) = load::pressure();
                if pressure
                    .send(Event::Pressure(load_milli, memory_mib))
                    .await
                    .is_err()
                {
                    return;
                }
                crate::reactor::Timer::after(PRESSURE_EVERY).await;
            }
        };
        let run = async move {
            smol::future::or(watch, smol::future::or(relay, dispatcher.run(events))).await;
        };
        (node, run)
    }

    /// Connects a submitter: what it sends over the first channel is heard, until it is closed.
    pub fn open(&self) -> (Sender<ToNode>, Receiver<FromNode>) {
        let port = Port(self.number());
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

    /// Room for a remote job; none when all slots and the queue are full.
    pub async fn remote_room(&self) -> Option<RemoteRoom> {
        let claim = Claim(self.number());
        let (sender, answers) = channel::bounded(2);
        self.events.try_send(Event::Claim(claim, sender)).ok()?;
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

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
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
    term: std::sync::Arc<std::sync::atomic::AtomicU64>,
    is_draining: bool,
    /// They want to know when no job of others runs and no more submitters than this are connected.
    waiting_for_idle: Vec<(usize, Sender<()>)>,
    link: Sender<LinkCommand>,
    ports: BTreeMap<Port, Sender<FromNode>>,
    /// Wants at the scheduler, by the number under which the scheduler knows them.
    requests: BTreeMap<RequestId, (Port, RequestId)>,
    /// Leases that submitters hold.
    leases: BTreeMap<LeaseId, Port>,
    /// Local claims, held or waiting.
    local: BTreeMap<Claim, (Port, RequestId)>,
    /// Remote claims that have no slot yet.
    remote: BTreeMap<Claim, Sender<bool>>,
    next: u64,
    loopback: bool,
    /// This node's number at the scheduler, while there is one.
    own: Option<NodeId>,
    told: NodeState,
    /// Whether the pause after the last word on the state lasts.
    telling: bool,
    pressure: (u32, u64),
    /// Local jobs of which the scheduler has not been told, by reason.
    untold: BTreeMap<String, LocalJobs>,
    events: Sender<Event>,
}

/// Local claims are numbered by the dispatcher, remote ones by [`Node::number`]: this keeps them apart.
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
            Event::Claim(_, sender) if self.is_draining => {
                let _ = sender.try_send(false);
            }
            Event::Claim(claim, sender) => match self.slots.claim_remote(claim) {
                Admission::Accepted => {
                    let _ = sender.try_send(true);
                    self.remote.insert(claim, sender);
                }
                Admission::Busy => {
                    let _ = sender.try_send(false);
                }
            },
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
            Event::Pressure(load_milli, memory_mib) => {
                // Both wander all the time; only what would change a placement is worth a word.
                let (load_before, memory_before) = self.pressure;
                if load_milli.abs_diff(load_before) >= 250
                    || memory_mib.abs_diff(memory_before) * 10 >= memory_before
                {
                    self.pressure = (load_milli, memory_mib);
                }
            }
        }
    }

    fn on_submitter(&mut self, port: Port, message: ToNode) {
        match message {
            ToNode::Want(mut want) => {
                let ours = RequestId(self.number());
                self.requests.insert(ours, (port, want.request));
                want.request = ours;
                if self.loopback && want.own == OwnNode::Locally {
                    want.own = OwnNode::AsWorker;
                }
                self.tell_link(LinkCommand::Want(want));
            }
            ToNode::Withdraw(request) => {
                let ours = self
                    .requests
                    .iter()
                    .find(|(_, whose)| **whose == (port, request))
                    .map(|(ours, _)| *ours);
                if let Some(ours) = ours {
                    self.requests.remove(&ours);
                    self.tell_link(LinkCommand::Withdraw(ours));
                }
            }
            ToNode::Return { lease, outcome } => {
                // A lease that the submitter does not hold is not its to return.
                if self.leases.get(&lease) == Some(&port) {
                    self.leases.remove(&lease);
                    self.tell_link(LinkCommand::Return { lease, outcome });
                }
            }
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
                smol::Timer::after(LOCAL_PAUSE).await;
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

    fn on_closed(&mut self, port: Port) {
        self.ports.remove(&port);
        let requests: Vec<RequestId> = self
            .requests
            .iter()
            .filter(|(_, whose)| whose.0 == port)
            .map(|(ours, _)| *ours)
            .collect();
        for request in requests {
            self.requests.remove(&request);
            self.tell_link(LinkCommand::Withdraw(request));
        }
        let leases: Vec<LeaseId> = self
            .leases
            .iter()
            .filter(|(_, whose)| **whose == port)
            .map(|(lease, _)| *lease)
            .collect();
        for lease in leases {
            self.leases.remove(&lease);
            self.tell_link(LinkCommand::Return {
                lease,
                outcome: Outcome::Unused,
            });
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
                self.own = Some(node);
            }
            LinkEvent::Down(why) => {
                log::warn!("no scheduler: {why}");
                self.own = None;
                // The next scheduler knows nothing of these; their jobs go on, since a worker
                // takes whoever has the key and finds a free slot.
                self.leases.clear();
            }
            LinkEvent::Grant(grant) => self.on_grant(grant),
            LinkEvent::Deny { request, why } => {
                if let Some((port, theirs)) = self.requests.remove(&request) {
                    self.tell_port(
                        port,
                        FromNode::Deny {
                            request: theirs,
                            why,
                        },
                    );
                }
            }
        }
    }

    fn on_grant(&mut self, mut grant: Grant) {
        let whose = self.requests.remove(&grant.request);
        let Some((port, theirs)) = whose.filter(|(port, _)| self.ports.contains_key(port)) else {
            self.tell_link(LinkCommand::Return {
                lease: grant.lease,
                outcome: Outcome::Unused,
            });
            return;
        };
        self.leases.insert(grant.lease, port);
        grant.request = theirs;
        let own = self.own == Some(grant.node) && !self.loopback;
        self.tell_port(port, FromNode::Grant { grant, own });
    }

    /// Hands out what is free.
    fn grant(&mut self) {
        for claim in self.slots.granted() {
            if let Some((port, request)) = self.local.get(&claim) {
                self.tell_port(*port, FromNode::LocalSlot(*request));
            } else if let Some(sender) = self.remote.remove(&claim) {
                // When nobody listens any more, the release is already on its way.
                let _ = sender.try_send(true);
            }
        }
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
            crate::reactor::Timer::after(STATE_PAUSE).await;
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
            load_milli: self.pressure.0,
            memory_mib: self.pressure.1,
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
