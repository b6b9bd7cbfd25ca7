//! The scheduler's state machine: events in, actions out.
//!
//! Everything is soft: nodes bring their state with them when they log in, so a scheduler that
//! starts anew knows its cluster after one round of logins. Knows no socket and no clock; the shell
//! (`dispatcher`) numbers the connections, reads the time and does what is said, in the order in which it is said.
//!
//! This file has what concerns nodes and their connections; requests and leases are in `lending`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::id::{LeaseId, NodeId, RequestId, Term, Time};
use crate::message::{
    FromScheduler, Login, NodeStatus, Offer, REPORT_EVERY_MS, Status, ToScheduler,
};
use crate::news::{Ending, NodePicture};
use crate::scheduler::admission::{self, TOOLCHAINS_MAX};
use crate::scheduler::chronicle::Chronicle;
use crate::scheduler::control::Job;
use crate::scheduler::fairness::Fairness;
use crate::scheduler::lease::Leases;
use crate::scheduler::node::Node;
use crate::scheduler::policy::Algorithm;
use crate::scheduler::queue::Queue;
use crate::scheduler::roster::Roster;
use crate::scheduler::speed::Speeds;
use crate::scheduler::tally::Tally;

/// A node that has said nothing for this long is dead.
pub const SILENCE: Duration = Duration::from_millis(4 * REPORT_EVERY_MS);
/// Nodes, at most; the next is refused.
pub const NODES_MAX: usize = 16_384;
/// A tick that comes so much too late says that the scheduler itself was stopped, not the nodes.
const LATENESS: Duration = Duration::from_millis(500);
/// A node that had no job for so long, while others had many, is given one.
const OVERLOOKED_AFTER: Duration = Duration::from_secs(600);
/// Such nodes are looked for so often.
const LOOK_FOR_OVERLOOKED_EVERY: Duration = Duration::from_secs(60);
/// Of them, so many at a time: they stand before the others.
const OVERLOOKED_MAX: usize = 4;
/// Silence is looked for no more often than this, however many nodes there are.
const LOOK_EVERY: Duration = Duration::from_millis(100);

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

/// What a scheduler is told at its start.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The cluster's name.
    pub netname: String,
    /// How nodes are chosen.
    pub algorithm: Algorithm,
    /// The number of the first lease. It should differ from start to start, so that a lease of an earlier
    /// scheduler means nothing.
    pub first_lease: u64,
    /// What [`Algorithm::Random`] draws its numbers from.
    pub seed: u64,
}

/// The scheduler without its sockets.
#[derive(Debug)]
pub struct Core {
    pub(super) rules: Rules,
    pub(super) roster: Roster,
    peers: BTreeMap<PeerId, NodeId>,
    pub(super) leases: Leases,
    pub(super) queue: Queue,
    pub(super) speeds: Speeds,
    pub(super) fairness: Fairness,
    pub(super) chronicle: Chronicle,
    /// Names and addresses of hosts that get no jobs.
    blocks: BTreeSet<String>,
    nodes_so_far: u32,
    pub(super) grants_so_far: u64,
    /// The state of the random numbers.
    pub(super) random: u64,
    /// No node can be too silent before then.
    silence_at: Option<Time>,
    /// When nodes are next looked for that were overlooked.
    overlooked_at: Option<Time>,
    /// A request waits for a node that only pauses until then.
    pub(super) retry_at: Option<Time>,
    /// When leases are next looked through for those that lie idle or are held by one who has too many.
    pub(super) balance_at: Option<Time>,
    /// From which lease on they are looked through then: not all at once where there are many.
    pub(super) look_from: LeaseId,
    /// The term in which this scheduler is the master.
    pub(super) term: Term,
    /// Until then nodes are still coming that another scheduler knew, so that no request is hopeless.
    pub(super) settled_at: Time,
    actions: Vec<Action>,
}

impl Core {
    /// A scheduler that knows no node yet. What an earlier one learned may be handed to it.
    pub fn new(rules: Rules, speeds: Speeds) -> Self {
        Self {
            roster: Roster::default(),
            peers: BTreeMap::new(),
            leases: Leases::starting_at(rules.first_lease),
            queue: Queue::default(),
            speeds,
            fairness: Fairness::default(),
            chronicle: Chronicle::default(),
            blocks: BTreeSet::new(),
            nodes_so_far: 0,
            grants_so_far: 0,
            random: rules.seed,
            silence_at: None,
            overlooked_at: None,
            retry_at: None,
            balance_at: None,
            look_from: LeaseId(0),
            term: Term::default(),
            settled_at: Time(0),
            actions: Vec::new(),
            rules,
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
        if places && !self.queue.is_content() {
            self.place(now);
        }
        if self.chronicle.is_due(now) {
            self.tell_watchers(now);
        }
        std::mem::take(&mut self.actions)
    }

    /// When the next [`Event::Tick`] is due, if nothing else happens; it may change with every event.
    pub fn next_wake(&self) -> Option<Time> {
        let news_at = self.chronicle.next_wake();
        let all = [
            self.silence_at,
            self.overlooked_at,
            self.retry_at,
            self.balance_at,
            news_at,
        ];
        all.into_iter().flatten().min()
    }

    /// What became of all jobs so far.
    pub fn tally(&self) -> &Tally {
        self.chronicle.tally()
    }

    /// What was learned of nodes and jobs so far, to be kept for the next scheduler.
    pub fn speeds(&self) -> &Speeds {
        &self.speeds
    }

    // What happened. Each function tells whether a waiting request may now be answered.

    fn join(&mut self, peer: PeerId, login: Login, from: IpAddr, here: IpAddr, now: Time) -> bool {
        if let Err(nonsense) = admission::login(&login) {
            return self.refuse(peer, format!("the node {nonsense}"));
        }
        if login.netname != self.rules.netname {
            let why = format!(
                "this scheduler's netname is {:?}, the node's is {:?}",
                self.rules.netname, login.netname
            );
            return self.refuse(peer, why);
        }
        if self.roster.len() >= NODES_MAX {
            return self.refuse(peer, format!("there are {NODES_MAX} nodes already"));
        }
        self.replace_stale(&login, from);
        self.nodes_so_far += 1;
        let id = NodeId(self.nodes_so_far);
        let name = self.unique_name(&login.name, from);
        let mut node = Node::new(peer, name.clone(), login, from, here, now);
        node.slowness = self.speeds.slowness(&name);
        node.measured = self.speeds.knows(&name);
        self.roster.insert(id, node);
        if self.is_blocked(id) {
            self.roster.change(id, |node| node.blocked = true);
        }
        self.chronicle.came(id);
        self.peers.insert(peer, id);
        self.silence_at.get_or_insert(now.after(SILENCE));
        self.overlooked_at
            .get_or_insert(now.after(LOOK_FOR_OVERLOOKED_EVERY));
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
        self.queue.forget(id);
        for lease in self.leases.touching(id) {
            self.end(lease, true);
        }
        self.roster.remove(id);
        let suspected: Vec<NodeId> = self
            .roster
            .iter()
            .filter(|(_, node)| node.suspicions.concerns(id))
            .map(|(id, _)| id)
            .collect();
        for node in suspected {
            self.roster.note(node).suspicions.forget(id);
        }
        let others: Vec<NodeId> = self.roster.iter().map(|(other, _)| other).collect();
        for other in others {
            self.roster.note(other).ways.forget(id);
        }
        self.chronicle.left(id);
        true
    }

    fn block(&mut self, blocks: BTreeSet<String>) -> bool {
        self.blocks = blocks;
        let all: Vec<(NodeId, bool)> = self
            .roster
            .iter()
            .map(|(id, node)| (id, node.blocked))
            .collect();
        for (id, before) in all {
            let is_blocked = self.is_blocked(id);
            if is_blocked != before {
                self.roster.change(id, |node| node.blocked = is_blocked);
                self.reclaim(id);
                self.chronicle.came(id);
            }
        }
        true
    }

    /// Whether somebody has blocked a node, by its name or its address.
    fn is_blocked(&self, id: NodeId) -> bool {
        let mut hosts = self.blocks.iter();
        hosts.any(|host| self.roster.called(host).contains(&id))
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
        if let Err(nonsense) = admission::message(&message) {
            return self.close(peer, nonsense.to_string());
        }
        let Some(&id) = self.peers.get(&peer) else {
            self.actions
                .push(Action::Close(peer, "speaks without a login".into()));
            return false;
        };
        self.roster.note(id).heard = now;
        match message {
            ToScheduler::State(state) => {
                let more_is_free = self.roster.change(id, |node| {
                    let free = node.free();
                    node.report(state);
                    node.free() > free
                });
                self.chronicle.changed(id);
                self.send(peer, FromScheduler::Alive);
                self.reclaim(id);
                more_is_free
            }
            ToScheduler::Capacity { slots, no_remote } => {
                self.roster.change(id, |node| {
                    node.slots = slots;
                    node.no_remote = no_remote;
                });
                self.reclaim(id);
                true
            }
            ToScheduler::Toolchains { added, removed } => {
                let known = self.roster.equip(id, added, &removed);
                if known > TOOLCHAINS_MAX {
                    return self.close(peer, "has too many toolchains".into());
                }
                false
            }
            ToScheduler::Deal(deal) => match self.deal(id, deal, now) {
                Ok(places) => places,
                Err(why) => self.close(peer, why),
            },
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
        if self.balance_at.is_some_and(|at| at <= now) {
            places |= self.balance(now);
        }
        if self.silence_at.is_some_and(|at| at <= now) {
            places |= self.look_for_silence(now);
        }
        if self.overlooked_at.is_some_and(|at| at <= now) {
            self.look_for_overlooked(now);
        }
        places
    }

    /// Finds the nodes that had no job for so long that their speed may have changed.
    fn look_for_overlooked(&mut self, now: Time) {
        let nodes = self.roster.iter();
        let before = nodes.filter(|(_, node)| node.overlooked).count();
        let idle = self.roster.iter().filter(|(_, node)| {
            !node.overlooked
                && node.measured
                && node.takes_jobs()
                && node.used() == 0
                && now.since(node.worked) >= OVERLOOKED_AFTER
        });
        let idle: Vec<(NodeId, String)> = idle.map(|(id, node)| (id, node.name.clone())).collect();
        let room = OVERLOOKED_MAX.saturating_sub(before);
        let overlooked = idle.into_iter().filter(|(_, name)| self.speeds.doubt(name));
        for (id, _) in overlooked.take(room).collect::<Vec<_>>() {
            self.roster.change(id, |node| node.overlooked = true);
        }
        let any = !self.roster.is_empty();
        self.overlooked_at = any.then(|| now.after(LOOK_FOR_OVERLOOKED_EVERY));
    }

    fn look_for_silence(&mut self, now: Time) -> bool {
        if self.silence_at.is_some_and(|at| now.since(at) > LATENESS) {
            let all: Vec<NodeId> = self.roster.iter().map(|(id, _)| id).collect();
            for id in all {
                self.roster.note(id).heard = now;
            }
        }
        let silent: Vec<PeerId> = self
            .roster
            .iter()
            .filter(|(_, node)| now.since(node.heard) >= SILENCE)
            .map(|(_, node)| node.peer)
            .collect();
        let any = !silent.is_empty();
        for peer in silent {
            self.close(peer, format!("silent for {} s", SILENCE.as_secs()));
        }
        let oldest = self.roster.iter().map(|(_, node)| node.heard).min();
        self.silence_at = oldest.map(|heard| heard.after(SILENCE).max(now.after(LOOK_EVERY)));
        any
    }

    // Nodes.

    /// Removes the connection that a node has left behind when it comes anew from the same place. Nodes
    /// that take no jobs have no place of their own: two of them may share a machine.
    fn replace_stale(&mut self, login: &Login, from: IpAddr) {
        let stale = self.roster.at(from).find(|(_, node)| {
            login.port != 0
                && node.address.port() == login.port
                && (node.name == login.name || node.name == from.to_string())
        });
        if let Some(peer) = stale.map(|(_, node)| node.peer) {
            self.close(peer, "has come again on a new connection".into());
        }
    }

    fn unique_name(&self, wanted: &str, from: IpAddr) -> String {
        let wanted = match wanted {
            "" => from.to_string(),
            name => name.to_owned(),
        };
        let taken = |name: &str| self.roster.named(name).is_some();
        if !taken(&wanted) {
            return wanted;
        }
        (2..)
            .map(|number: u64| format!("{wanted}-{number}"))
            .find(|name| !taken(name))
            .expect("there are fewer nodes than numbers")
    }

    /// A picture of the cluster.
    pub fn status(&self) -> Status {
        let mean = self.mean_speed();
        let mut running: BTreeMap<NodeId, u32> = BTreeMap::new();
        for (_, lease) in self.leases.iter() {
            *running.entry(lease.node).or_default() += u32::from(lease.running.is_some());
        }
        let mut nodes: Vec<NodeStatus> = self
            .roster
            .iter()
            .map(|(id, node)| NodeStatus {
                name: node.name.clone(),
                address: node.address.to_string(),
                platform: node.platform.clone(),
                slots: node.slots,
                running: running.get(&id).copied().unwrap_or_default(),
                local_jobs: node.state.local_jobs,
                jobs_done: node.jobs_done,
                speed_percent: speed_percent(node, mean),
                no_remote: node.no_remote.clone(),
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

    // Who watches.

    fn watch(&mut self, peer: PeerId, now: Time) -> bool {
        // A snapshot has in it what the others have still to hear.
        self.tell_watchers(now);
        if !self.chronicle.watch(peer, now) {
            return self.refuse(peer, "there are too many watchers already".into());
        }
        let mean = self.mean_speed();
        let nodes = self.roster.iter();
        let nodes = nodes.filter_map(|(id, _)| self.picture(id, mean)).collect();
        let netname = &self.rules.netname;
        let snapshot = self.chronicle.snapshot(netname, nodes, now);
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
        let node = self.roster.find(id)?;
        Some(NodePicture {
            node: id,
            name: node.name.clone(),
            address: node.address.to_string(),
            platform: node.platform.clone(),
            slots: node.slots,
            no_remote: node.no_remote.clone(),
            is_blocked: node.blocked,
            speed_percent: speed_percent(node, mean_speed),
            local_jobs: node.state.local_jobs,
            load_milli: node.state.load_milli,
            memory_mib: node.state.memory_mib,
            jobs_done: node.jobs_done,
        })
    }

    /// The jobs that run under leases, then those that wait; for people.
    pub fn jobs(&self) -> Vec<Job> {
        let name = |id| self.roster.find(id).map(|node| node.name.clone());
        let running = self.leases.iter().filter_map(|(id, lease)| {
            Some(Job {
                number: id.0,
                submitter: name(lease.submitter).unwrap_or_default(),
                node: name(lease.node),
                file: lease.running.as_ref()?.work.file.clone(),
            })
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
            .roster
            .iter()
            .filter(|(_, node)| node.measured)
            .map(|(_, node)| 1.0 / node.slowness)
            .collect();
        known.iter().sum::<f64>() / known.len().max(1) as f64
    }

    // What is to be done.

    /// Tells a node, unless it is just leaving.
    pub(super) fn offer(&mut self, to: NodeId, offer: Offer) {
        let peer = self.roster.node(to).peer;
        if self.peers.contains_key(&peer) {
            self.send(peer, FromScheduler::Offer(offer));
        }
    }

    pub(super) fn deny(&mut self, submitter: NodeId, request: RequestId, why: String) {
        let ending = Ending::Denied(why.clone());
        self.chronicle.gone(submitter, request, ending);
        self.offer(submitter, Offer::Deny { request, why });
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

/// A node's speed in per cent of the mean; 0 when it is not known.
fn speed_percent(node: &Node, mean: f64) -> u32 {
    match node.measured {
        true => (100.0 / node.slowness / mean).round() as u32,
        false => 0,
    }
}
