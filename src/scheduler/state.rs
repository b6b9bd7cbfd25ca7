//! The scheduler's state machine: events in, actions out.
//!
//! Everything is soft: nodes bring their state with them when they log in, so a scheduler that
//! starts anew knows its cluster after one round of logins. Knows no socket and no clock; the shell
//! ([`super::server`]) numbers the connections, reads the time and does what is said, in the order in which it is said.
//!
//! Two functions change what is lent, `grant` and `end`; so no slot is lent twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::id::{LeaseId, NodeId, RequestId, Term, Time};
use crate::message::{
    FromScheduler, Grant, Login, NodeStatus, Outcome, OwnNode, REPORT_EVERY_MS, Status,
    ToScheduler, Want,
};
use crate::news::{Ending, NodePicture};
use crate::scheduler::admission::{self, TOOLCHAINS_MAX};
use crate::scheduler::chronicle::Chronicle;
use crate::scheduler::control::Job;
use crate::scheduler::lease::{Lease, Leases};
use crate::scheduler::node::Node;
use crate::scheduler::policy::{self, Choice, Question};
use crate::scheduler::queue::{Answer, Queue, Unqueued};
use crate::scheduler::speed::{Speeds, Work};

/// A node that has said nothing for this long is dead.
pub const SILENCE: Duration = Duration::from_millis(4 * REPORT_EVERY_MS);
/// Nodes, at most; the next is refused.
pub const NODES_MAX: usize = 4096;
/// A job that has not been started this long after its grant must ask again.
const LEASE_VALID_MS: u32 = 10_000;
/// However long a job takes, its slot is free again after this long: a submitter may lose a lease.
const LEASE_LONGEST: Duration = Duration::from_secs(2 * 3600);
/// A tick that comes so much too late says that the scheduler itself was stopped, not the nodes.
const LATENESS: Duration = Duration::from_millis(500);

/// A connection, numbered by the shell; a number is used once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerId(pub u64);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer {}", self.0)
    }
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A connection's first message was a login.
    Joined {
        /// The connection.
        peer: PeerId,
        /// The login.
        login: Login,
        /// Where it comes from.
        from: IpAddr,
        /// The scheduler's own address on this connection.
        here: IpAddr,
    },
    /// A connection ended. Also said of those that the core itself has closed.
    Left(PeerId),
    /// Hosts of these names and addresses get no jobs from now on, and all others do.
    Blocked(BTreeSet<String>),
    /// Any other message.
    Message(PeerId, ToScheduler),
    /// The time of [`Core::next_wake`] has come.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub enum Action {
    /// Send this. If it can't be sent without waiting, the peer is too slow: close it.
    Send(PeerId, FromScheduler),
    /// Send what was said before, then end the connection; the reason is for the log.
    Close(PeerId, String),
}

/// The scheduler without its sockets.
#[derive(Debug)]
pub struct Core {
    netname: String,
    nodes: BTreeMap<NodeId, Node>,
    peers: BTreeMap<PeerId, NodeId>,
    leases: Leases,
    queue: Queue,
    speeds: Speeds,
    chronicle: Chronicle,
    /// Names and addresses of hosts that get no jobs.
    blocks: BTreeSet<String>,
    nodes_so_far: u32,
    grants_so_far: u64,
    /// No node can be too silent before then.
    silence_at: Option<Time>,
    /// A request waits for a node that only pauses until then.
    retry_at: Option<Time>,
    /// The term in which this scheduler is the master.
    term: Term,
    /// Until then nodes are still coming that another scheduler knew, so that no request is hopeless.
    settled_at: Time,
    actions: Vec<Action>,
}

impl Core {
    /// A scheduler of the cluster `netname`, whose first lease has the number `first_lease`. That number
    /// should differ from start to start, so that a lease of an earlier scheduler means nothing.
    pub fn new(netname: &str, first_lease: u64) -> Self {
        Self {
            netname: netname.to_owned(),
            nodes: BTreeMap::new(),
            peers: BTreeMap::new(),
            leases: Leases::starting_at(first_lease),
            queue: Queue::default(),
            speeds: Speeds::default(),
            chronicle: Chronicle::default(),
            blocks: BTreeSet::new(),
            nodes_so_far: 0,
            grants_so_far: 0,
            silence_at: None,
            retry_at: None,
            term: Term::default(),
            settled_at: Time(0),
            actions: Vec::new(),
        }
    }

    /// Begins a term. Nodes that another scheduler knew are expected to come until `settled_at`: no
    /// request is denied before.
    pub fn begin(&mut self, term: Term, settled_at: Time) {
        self.term = term;
        self.settled_at = settled_at;
    }

    /// Takes in what happened at `now`, which never goes back.
    pub fn on_event(&mut self, event: Event, now: Time) -> Vec<Action> {
        let places = match event {
            Event::Joined {
                peer,
                login,
                from,
                here,
            } => self.join(peer, login, from, here, now),
            Event::Left(peer) => self.leave(peer),
            Event::Blocked(blocks) => self.block(blocks),
            Event::Message(peer, message) => self.hear(peer, message, now),
            Event::Tick => self.tick(now),
        };
        if places && !self.queue.is_empty() {
            self.place(now);
        }
        if self.chronicle.is_due(now) {
            self.tell_watchers(now);
        }
        std::mem::take(&mut self.actions)
    }

    /// When the next [`Event::Tick`] is due, if nothing else happens; it may change with every event.
    pub fn next_wake(&self) -> Option<Time> {
        let wakes = [self.silence_at, self.retry_at, self.chronicle.next_wake()];
        wakes.into_iter().flatten().min()
    }

    // What happened. Each function tells whether a waiting request may now be answered.

    fn join(&mut self, peer: PeerId, login: Login, from: IpAddr, here: IpAddr, now: Time) -> bool {
        if let Err(nonsense) = admission::login(&login) {
            return self.refuse(peer, format!("the node {nonsense}"));
        }
        if login.netname != self.netname {
            let why = format!(
                "this scheduler's netname is {:?}, the node's is {:?}",
                self.netname, login.netname
            );
            return self.refuse(peer, why);
        }
        if self.nodes.len() >= NODES_MAX {
            return self.refuse(peer, format!("there are {NODES_MAX} nodes already"));
        }
        self.replace_stale(&login, from);
        self.nodes_so_far += 1;
        let id = NodeId(self.nodes_so_far);
        let name = self.unique_name(&login.name, from);
        let mut node = Node::new(peer, name.clone(), login, from, here, now);
        node.blocked = self.blocks.iter().any(|host| node.is_called(host));
        self.nodes.insert(id, node);
        self.peers.insert(peer, id);
        self.silence_at.get_or_insert(now.after(SILENCE));
        self.chronicle.came(id);
        let term = self.term;
        self.send(
            peer,
            FromScheduler::Welcome {
                node: id,
                name,
                term,
            },
        );
        true
    }

    fn leave(&mut self, peer: PeerId) -> bool {
        let Some(id) = self.peers.remove(&peer) else {
            self.chronicle.unwatch(peer);
            return false;
        };
        for lease in self.leases.touching(id) {
            self.end(lease, None);
        }
        self.nodes.remove(&id);
        self.queue.forget(id);
        for node in self.nodes.values_mut() {
            node.suspicions.forget(id);
        }
        self.chronicle.left(id);
        true
    }

    fn block(&mut self, blocks: BTreeSet<String>) -> bool {
        for (&id, node) in &mut self.nodes {
            let before = node.blocked;
            node.blocked = blocks.iter().any(|host| node.is_called(host));
            if node.blocked != before {
                self.chronicle.came(id);
            }
        }
        self.blocks = blocks;
        true
    }

    fn hear(&mut self, peer: PeerId, message: ToScheduler, now: Time) -> bool {
        if message == ToScheduler::Status {
            let status = self.status();
            self.send(peer, FromScheduler::Status(status));
            return false;
        }
        if message == ToScheduler::Watch {
            return self.watch(peer, now);
        }
        let Some(&id) = self.peers.get(&peer) else {
            self.actions
                .push(Action::Close(peer, "speaks without a login".into()));
            return false;
        };
        if let Err(nonsense) = admission::message(&message) {
            return self.close(peer, nonsense.to_string());
        }
        let node = known(&mut self.nodes, id);
        node.heard = now;
        match message {
            ToScheduler::State(state) => {
                let free = node.free();
                node.report(state);
                let more_is_free = node.free() > free;
                self.chronicle.changed(id);
                self.send(peer, FromScheduler::Alive);
                more_is_free
            }
            ToScheduler::Capacity { slots, no_remote } => {
                node.slots = slots;
                node.no_remote = no_remote;
                true
            }
            ToScheduler::Toolchains { added, removed } => {
                for gone in &removed {
                    node.toolchains.remove(gone);
                }
                node.toolchains.extend(added);
                if node.toolchains.len() > TOOLCHAINS_MAX {
                    return self.close(peer, "has too many toolchains".into());
                }
                false
            }
            ToScheduler::Want(want) => self.want(peer, id, want, now),
            ToScheduler::Withdraw(request) => {
                self.queue.withdraw(id, request);
                self.chronicle.gone(id, request, Ending::Withdrawn);
                false
            }
            ToScheduler::Return { lease, outcome } => self.take_back(peer, id, lease, outcome, now),
            ToScheduler::Login(_) => self.close(peer, "logs in twice".into()),
            ToScheduler::LocalJobs(jobs) => {
                self.chronicle.local(id, jobs);
                false
            }
            // Blocking is the shell's: it keeps the list.
            ToScheduler::Status | ToScheduler::Watch | ToScheduler::Block { .. } => false,
        }
    }

    fn tick(&mut self, now: Time) -> bool {
        let mut places = self.retry_at.is_some_and(|retry| retry <= now);
        if places {
            self.retry_at = None;
        }
        while let Some((id, lease)) = self.leases.oldest()
            && now.since(lease.since) >= LEASE_LONGEST
        {
            self.end(id, None);
            places = true;
        }
        if self.silence_at.is_some_and(|at| now.since(at) > LATENESS) {
            for node in self.nodes.values_mut() {
                node.heard = now;
            }
        }
        let silent: Vec<PeerId> = self
            .nodes
            .values()
            .filter(|node| now.since(node.heard) >= SILENCE)
            .map(|node| node.peer)
            .collect();
        for peer in silent {
            self.close(peer, format!("silent for {} s", SILENCE.as_secs()));
            places = true;
        }
        let oldest = self.nodes.values().map(|node| node.heard).min();
        self.silence_at = oldest.map(|heard| heard.after(SILENCE));
        places
    }

    // Requests and leases.

    fn want(&mut self, peer: PeerId, submitter: NodeId, want: Want, now: Time) -> bool {
        let request = want.request;
        // Refusals come at once, whoever else waits: they take nothing from anybody.
        if now >= self.settled_at
            && let Choice::Never(why) = self.choose(submitter, &want, now)
        {
            self.send(peer, FromScheduler::Deny { request, why });
            return false;
        }
        let file = want.file.clone();
        match self.queue.push(submitter, want) {
            Ok(()) => {
                self.chronicle.queued(submitter, request, &file, now);
                true
            }
            Err(Unqueued::Full) => {
                let why = "too many requests of this node wait".into();
                self.send(peer, FromScheduler::Deny { request, why });
                false
            }
            Err(Unqueued::Twice) => {
                let why = format!("makes request {request} twice");
                self.close(peer, why)
            }
        }
    }

    fn take_back(
        &mut self,
        peer: PeerId,
        submitter: NodeId,
        id: LeaseId,
        outcome: Outcome,
        now: Time,
    ) -> bool {
        // A lease that became void meanwhile is no fault of who returns it.
        let Some(lease) = self.leases.find(id) else {
            return false;
        };
        if lease.submitter != submitter {
            return self.close(peer, format!("returns lease {id}, which it does not hold"));
        }
        let Some(lease) = self.end(id, Some(outcome)) else {
            return false;
        };
        let node = known(&mut self.nodes, lease.node);
        match outcome {
            Outcome::Done {
                usage,
                output_bytes,
            } => {
                node.suspicions.clear(submitter, lease.work.toolchain);
                if !lease.kept {
                    node.jobs_done += 1;
                }
                self.speeds
                    .learn(&node.name, &lease.work, usage.cpu_us, output_bytes);
            }
            Outcome::Unused => {}
            Outcome::Failed { failure, dead } => {
                let toolchain = lease.work.toolchain;
                node.suspicions
                    .note(submitter, toolchain, failure, dead, now);
            }
        }
        true
    }

    /// Answers whatever in the queue can be answered.
    fn place(&mut self, now: Time) {
        let mut queue = std::mem::take(&mut self.queue);
        queue.serve(|submitter, want| self.answer(submitter, want, now));
        self.queue = queue;
    }

    fn answer(&mut self, submitter: NodeId, want: &Want, now: Time) -> Answer {
        match self.choose(submitter, want, now) {
            Choice::Place(node) => {
                self.grant(node, submitter, want, now);
                Answer::Granted
            }
            Choice::Never(_) if now < self.settled_at => {
                let until = self.settled_at;
                self.retry_at = Some(self.retry_at.map_or(until, |at| at.min(until)));
                Answer::Waits
            }
            Choice::Never(why) => {
                self.deny(submitter, want.request, why);
                Answer::Denied
            }
            Choice::Wait(None) => Answer::Waits,
            Choice::Wait(Some(until)) => {
                self.retry_at = Some(self.retry_at.map_or(until, |at| at.min(until)));
                Answer::Waits
            }
        }
    }

    fn choose(&self, submitter: NodeId, want: &Want, now: Time) -> Choice {
        policy::choose(Question {
            want,
            submitter,
            nodes: &self.nodes,
            speeds: &self.speeds,
            now,
        })
    }

    fn grant(&mut self, id: NodeId, submitter: NodeId, want: &Want, now: Time) {
        self.grants_so_far += 1;
        let holder = known(&mut self.nodes, submitter);
        holder.held += 1;
        let (peer, here, remote) = (holder.peer, holder.here, !holder.address.ip().is_loopback());
        let node = known(&mut self.nodes, id);
        assert!(node.free() > 0, "a slot is lent once");
        let kept = id == submitter && want.own == OwnNode::Locally;
        match kept {
            true => node.kept += 1,
            false => node.lent += 1,
        }
        node.last_grant = self.grants_so_far;
        let mut address = node.address;
        if remote && address.ip().is_loopback() {
            // A node beside the scheduler may be connected over loopback. Others find it where they
            // find the scheduler.
            address.set_ip(here);
        }
        let name = node.name.clone();
        let lease = self.leases.lend(Lease {
            node: id,
            submitter,
            kept,
            work: Work {
                toolchain: want.toolchain,
                file: want.file.clone(),
            },
            since: now,
        });
        let asked = (submitter, want.request);
        self.chronicle.started(asked, lease, id, &want.file, now);
        let grant = Grant {
            request: want.request,
            lease,
            node: id,
            name,
            address,
            valid_ms: LEASE_VALID_MS,
            term: self.term,
        };
        self.send(peer, FromScheduler::Grant(grant));
    }

    /// Ends a lease. When nobody said what came of it, the slot stays taken until its node reports
    /// it free.
    fn end(&mut self, id: LeaseId, outcome: Option<Outcome>) -> Option<Lease> {
        let lease = self.leases.end(id)?;
        self.chronicle.ended(id, outcome);
        known(&mut self.nodes, lease.submitter).held -= 1;
        let node = known(&mut self.nodes, lease.node);
        if lease.kept {
            node.kept -= 1;
        } else {
            node.lent -= 1;
            node.leftover += u32::from(outcome.is_none());
        }
        Some(lease)
    }

    fn deny(&mut self, submitter: NodeId, request: RequestId, why: String) {
        let peer = known(&mut self.nodes, submitter).peer;
        let ending = Ending::Denied(why.clone());
        self.chronicle.gone(submitter, request, ending);
        self.send(peer, FromScheduler::Deny { request, why });
    }

    // Who watches.

    fn watch(&mut self, peer: PeerId, now: Time) -> bool {
        // A snapshot has in it what the others have still to hear.
        self.tell_watchers(now);
        if !self.chronicle.watch(peer, now) {
            return self.refuse(peer, "there are too many watchers already".into());
        }
        let mean = self.mean_speed();
        let nodes = self.nodes.keys();
        let nodes = nodes.filter_map(|&id| self.picture(id, mean)).collect();
        let snapshot = self.chronicle.snapshot(&self.netname, nodes, now);
        self.send(peer, FromScheduler::Snapshot(snapshot));
        false
    }

    fn tell_watchers(&mut self, now: Time) {
        let mut chronicle = std::mem::take(&mut self.chronicle);
        let mean = self.mean_speed();
        for (peer, news) in chronicle.flush(|id| self.picture(id, mean), now) {
            self.send(peer, news);
        }
        self.chronicle = chronicle;
    }

    fn picture(&self, id: NodeId, mean_speed: f64) -> Option<NodePicture> {
        let node = self.nodes.get(&id)?;
        Some(NodePicture {
            node: id,
            name: node.name.clone(),
            address: node.address.to_string(),
            platform: node.platform.clone(),
            slots: node.slots,
            no_remote: node.no_remote.clone(),
            is_blocked: node.blocked,
            speed_percent: self.speed_percent(node, mean_speed),
            local_jobs: node.state.local_jobs,
            load_milli: node.state.load_milli,
            memory_mib: node.state.memory_mib,
            jobs_done: node.jobs_done,
        })
    }

    // Nodes.

    /// Removes the connection that a node has left behind when it comes anew from the same place. Nodes
    /// that take no jobs have no place of their own: two of them may share a machine.
    fn replace_stale(&mut self, login: &Login, from: IpAddr) {
        let stale = self.nodes.values().find(|node| {
            login.port != 0
                && node.address.port() == login.port
                && node.address.ip() == from
                && (node.name == login.name || node.name == from.to_string())
        });
        if let Some(peer) = stale.map(|node| node.peer) {
            self.close(peer, "has come again on a new connection".into());
        }
    }

    fn unique_name(&self, wanted: &str, from: IpAddr) -> String {
        let wanted = match wanted {
            "" => from.to_string(),
            name => name.to_owned(),
        };
        let taken = |name: &str| self.nodes.values().any(|node| node.name == name);
        if !taken(&wanted) {
            return wanted;
        }
        (2..)
            .map(|number: u64| format!("{wanted}-{number}"))
            .find(|name| !taken(name))
            .expect("there are fewer nodes than numbers")
    }

    /// The jobs that run under leases, then those that wait; for people.
    pub fn jobs(&self) -> Vec<Job> {
        let name = |id| self.nodes.get(&id).map(|node| node.name.clone());
        let running = self.leases.iter().map(|(id, lease)| Job {
            number: id.0,
            submitter: name(lease.submitter).unwrap_or_default(),
            node: name(lease.node),
            file: lease.work.file.clone(),
        });
        let waiting = self.queue.iter().map(|(submitter, want)| Job {
            number: want.request.0,
            submitter: name(submitter).unwrap_or_default(),
            node: None,
            file: want.file.clone(),
        });
        running.chain(waiting).collect()
    }

    /// How many leases were granted.
    pub fn placed(&self) -> u64 {
        self.grants_so_far
    }

    /// The mean of the learned speeds, as the inverse of slowness.
    fn mean_speed(&self) -> f64 {
        let known: Vec<f64> = self
            .nodes
            .values()
            .filter(|node| self.speeds.knows(&node.name))
            .map(|node| 1.0 / self.speeds.slowness(&node.name))
            .collect();
        known.iter().sum::<f64>() / known.len().max(1) as f64
    }

    fn speed_percent(&self, node: &Node, mean: f64) -> u32 {
        match self.speeds.knows(&node.name) {
            true => (100.0 / self.speeds.slowness(&node.name) / mean).round() as u32,
            false => 0,
        }
    }

    /// A picture of the cluster.
    pub fn status(&self) -> Status {
        let mean = self.mean_speed();
        let mut nodes: Vec<NodeStatus> = self
            .nodes
            .values()
            .map(|node| NodeStatus {
                name: node.name.clone(),
                address: node.address.to_string(),
                platform: node.platform.clone(),
                slots: node.slots,
                running: node.lent + node.kept,
                local_jobs: node.state.local_jobs,
                jobs_done: node.jobs_done,
                speed_percent: self.speed_percent(node, mean),
                no_remote: match node.blocked {
                    true => Some("blocked".to_owned()),
                    false => node.no_remote.clone(),
                },
                load_milli: node.state.load_milli,
                // Clocks are the shell's.
                skew_ms: None,
            })
            .collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        Status {
            nodes,
            waiting: self.queue.len() as u32,
            totals: self.chronicle.totals(),
            clock_ms: 0,
        }
    }

    fn send(&mut self, peer: PeerId, message: FromScheduler) {
        self.actions.push(Action::Send(peer, message));
    }

    fn refuse(&mut self, peer: PeerId, why: String) -> bool {
        self.send(peer, FromScheduler::Refused(why.clone()));
        self.actions.push(Action::Close(peer, why));
        false
    }

    fn close(&mut self, peer: PeerId, why: String) -> bool {
        self.actions.push(Action::Close(peer, why));
        self.leave(peer)
    }
}

/// The node of a number that peers, leases or queue hold: they are cleared when the node leaves.
fn known(nodes: &mut BTreeMap<NodeId, Node>, id: NodeId) -> &mut Node {
    nodes
        .get_mut(&id)
        .expect("whatever names a node leaves with it")
}
