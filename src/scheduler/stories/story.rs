//! What every story needs: the core with made-up nodes and a clock that the story turns.
//!
//! After each event it checks what must hold at any time: no lease is granted twice, and no node
//! has more leases out than slots.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::id::{Bytes, Digest, LeaseId, NodeId, RequestId, Time};
use crate::message::{
    Deal, Failure, FromScheduler, Grant, Login, NodeState, Offer, Outcome, Status, Terms,
    ToScheduler, Usage, Want,
};
use crate::scheduler::policy::Algorithm;
use crate::scheduler::speed::Speeds;
use crate::scheduler::state::{Action, Core, Event, PeerId, Rules};

pub(super) const GCC: Digest = Digest([1; 32]);

pub(super) struct Story {
    pub(super) core: Core,
    pub(super) now: Time,
    pub(super) peers: u64,
    pub(super) requests: u64,
    pub(super) slots: BTreeMap<NodeId, u32>,
    pub(super) ids: BTreeMap<PeerId, NodeId>,
    /// Leases that are out: on which node, held by whom.
    pub(super) out: BTreeMap<LeaseId, (NodeId, PeerId)>,
    pub(super) ever: Vec<LeaseId>,
    /// Leases that were asked back, in the order of that.
    pub(super) revoked: Vec<LeaseId>,
    pub(super) inbox: BTreeMap<PeerId, Vec<FromScheduler>>,
    pub(super) closed: BTreeMap<PeerId, String>,
}

impl Story {
    pub(super) fn new() -> Self {
        Self {
            core: Core::new(
                Rules {
                    netname: "ICE".into(),
                    algorithm: Algorithm::Finish,
                    first_lease: 100,
                    seed: 1,
                },
                Speeds::default(),
            ),
            now: Time(0),
            peers: 0,
            requests: 0,
            slots: BTreeMap::new(),
            ids: BTreeMap::new(),
            out: BTreeMap::new(),
            ever: Vec::new(),
            revoked: Vec::new(),
            inbox: BTreeMap::new(),
            closed: BTreeMap::new(),
        }
    }

    pub(super) fn login(name: &str, slots: u32) -> Login {
        Login {
            port: 10245,
            slots,
            toolchains: vec![GCC],
            ..Login::new(name, "ICE", "x86_64")
        }
    }

    /// A node joins from an address of its own.
    pub(super) fn join(&mut self, name: &str, slots: u32) -> PeerId {
        self.join_as(Self::login(name, slots), [10, 0, 0, self.peers as u8 + 1])
    }

    pub(super) fn join_as(&mut self, login: Login, from: [u8; 4]) -> PeerId {
        self.peers += 1;
        let peer = PeerId(self.peers);
        let slots = login.slots;
        self.event(Event::Joined {
            peer,
            login,
            from: from.into(),
            here: IpAddr::from([10, 0, 0, 200]),
        });
        let inbox = self.inbox.get(&peer);
        if let Some(FromScheduler::Welcome { node, .. }) = inbox.and_then(|inbox| inbox.first()) {
            self.ids.insert(peer, *node);
            self.slots.insert(*node, slots);
        }
        peer
    }

    pub(super) fn say(&mut self, peer: PeerId, message: ToScheduler) {
        self.event(Event::Message(peer, message));
    }

    pub(super) fn leave(&mut self, peer: PeerId) {
        self.event(Event::Left(peer));
        self.gone(peer);
    }

    pub(super) fn want(&mut self, peer: PeerId) -> RequestId {
        self.want_with(peer, |_| {})
    }

    pub(super) fn want_with(&mut self, peer: PeerId, change: impl FnOnce(&mut Want)) -> RequestId {
        self.requests += 1;
        let mut want = Want {
            file: Bytes::from("a.c"),
            ..Want::new(RequestId(self.requests), GCC, Terms::new("x86_64"))
        };
        change(&mut want);
        let request = want.request;
        self.deal(peer, Deal::Want(want));
        request
    }

    pub(super) fn deal(&mut self, peer: PeerId, deal: Deal) {
        self.say(peer, ToScheduler::Deal(deal));
    }

    pub(super) fn began(&mut self, peer: PeerId, request: RequestId, lease: LeaseId) {
        self.deal(peer, Deal::Began { request, lease });
    }

    pub(super) fn ended(
        &mut self,
        peer: PeerId,
        request: RequestId,
        lease: LeaseId,
        outcome: Outcome,
    ) {
        self.deal(
            peer,
            Deal::Ended {
                request,
                lease,
                outcome,
            },
        );
    }

    /// Runs the job that a grant was made for, to its end.
    pub(super) fn run(&mut self, peer: PeerId, grant: &Grant, outcome: Outcome) {
        self.began(peer, grant.request, grant.lease);
        self.ended(peer, grant.request, grant.lease, outcome);
    }

    pub(super) fn give_back(&mut self, peer: PeerId, lease: LeaseId) {
        self.out.remove(&lease);
        self.deal(peer, Deal::Return(lease));
    }

    /// Runs a job and returns its lease.
    pub(super) fn use_up(&mut self, peer: PeerId, grant: &Grant, outcome: Outcome) {
        self.run(peer, grant, outcome);
        self.give_back(peer, grant.lease);
    }

    /// Lets time pass; the named nodes report all the while, the others are silent.
    pub(super) fn pass(&mut self, time: Duration, alive: &[PeerId]) {
        let end = self.now.after(time);
        let mut report = self.now;
        loop {
            let wake = self.core.next_wake().unwrap_or(end);
            let next = wake.min(report).min(end).max(self.now);
            self.now = next;
            if next >= report {
                for &peer in alive {
                    self.say(peer, ToScheduler::State(NodeState::default()));
                }
                report = next.after(Duration::from_millis(500));
            } else if next >= wake {
                self.event(Event::Tick);
            }
            if next >= end {
                return;
            }
        }
    }

    pub(super) fn event(&mut self, event: Event) {
        for action in self.core.on_event(event, self.now) {
            match action {
                Action::Send(peer, message) => {
                    assert!(!self.closed.contains_key(&peer), "to a closed {peer}");
                    if let FromScheduler::Offer(Offer::Revoke(lease)) = &message {
                        self.revoked.push(*lease);
                    }
                    if let FromScheduler::Offer(Offer::Grant(grant)) = &message {
                        assert!(!self.ever.contains(&grant.lease), "{grant:?} again");
                        self.ever.push(grant.lease);
                        self.out.insert(grant.lease, (grant.node, peer));
                    }
                    self.inbox.entry(peer).or_default().push(message);
                }
                Action::Close(peer, why) => {
                    self.closed.insert(peer, why);
                    self.gone(peer);
                }
            }
        }
        for (&node, &slots) in &self.slots {
            let out = self.out.values().filter(|(on, _)| *on == node).count();
            assert!(out as u32 <= slots, "{out} leases on {slots} slots");
        }
    }

    pub(super) fn gone(&mut self, peer: PeerId) {
        let node = self.ids.get(&peer).copied();
        self.out
            .retain(|_, (on, holder)| Some(*on) != node && *holder != peer);
    }

    /// The grants that `peer` got since the last call.
    pub(super) fn grants(&mut self, peer: PeerId) -> Vec<Grant> {
        let inbox = self.inbox.remove(&peer).unwrap_or_default();
        inbox
            .into_iter()
            .filter_map(|message| match message {
                FromScheduler::Offer(Offer::Grant(grant)) => Some(grant),
                _ => None,
            })
            .collect()
    }

    /// The names of the nodes granted to `peer` since the last call.
    pub(super) fn granted(&mut self, peer: PeerId) -> Vec<String> {
        let grants = self.grants(peer);
        grants.into_iter().map(|grant| grant.name).collect()
    }

    pub(super) fn denials(&mut self, peer: PeerId) -> Vec<RequestId> {
        let inbox = self.inbox.remove(&peer).unwrap_or_default();
        inbox
            .into_iter()
            .filter_map(|message| match message {
                FromScheduler::Offer(Offer::Deny { request, .. }) => Some(request),
                _ => None,
            })
            .collect()
    }

    pub(super) fn status(&mut self) -> Status {
        let looker = PeerId(9999);
        self.say(looker, ToScheduler::Status);
        match self.inbox.remove(&looker).unwrap().pop() {
            Some(FromScheduler::Status(status)) => status,
            other => panic!("{other:?}"),
        }
    }
}

/// The report of a node with so many local jobs.
pub(super) fn busy(local_jobs: u32) -> ToScheduler {
    ToScheduler::State(NodeState {
        local_jobs,
        ..NodeState::default()
    })
}

/// A job that took so much processor time.
pub(super) fn done(cpu_us: u64) -> Outcome {
    Outcome::Done {
        usage: Usage {
            cpu_us,
            ..Usage::default()
        },
        output_bytes: 1000,
    }
}

pub(super) fn failed(failure: Failure, dead: bool) -> Outcome {
    Outcome::Failed { failure, dead }
}
