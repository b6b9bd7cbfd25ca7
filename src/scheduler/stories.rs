//! Stories of a cluster: the core with made-up nodes and a clock that the story turns.
//!
//! After each event the harness checks what must hold at any time: no lease is granted twice, and no node
//! has more leases out than slots.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::id::{Bytes, Digest, LeaseId, NodeId, RequestId, Time};
use crate::message::{
    Deal, Failure, FromScheduler, Grant, Home, Login, NodeState, Offer, Outcome, OwnNode, Status,
    Terms, ToScheduler, Usage, Want, Way,
};
use crate::scheduler::policy::Algorithm;
use crate::scheduler::speed::Speeds;
use crate::scheduler::state::{Action, Core, Event, PeerId, Rules};

const GCC: Digest = Digest([1; 32]);

struct Story {
    core: Core,
    now: Time,
    peers: u64,
    requests: u64,
    slots: BTreeMap<NodeId, u32>,
    ids: BTreeMap<PeerId, NodeId>,
    /// Leases that are out: on which node, held by whom.
    out: BTreeMap<LeaseId, (NodeId, PeerId)>,
    ever: Vec<LeaseId>,
    /// Leases that were asked back, in the order of that.
    revoked: Vec<LeaseId>,
    inbox: BTreeMap<PeerId, Vec<FromScheduler>>,
    closed: BTreeMap<PeerId, String>,
}

impl Story {
    fn new() -> Self {
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

    fn login(name: &str, slots: u32) -> Login {
        Login {
            name: name.into(),
            netname: "ICE".into(),
            platform: "x86_64".into(),
            port: 10245,
            slots,
            no_remote: None,
            toolchains: vec![GCC],
            state: NodeState::default(),
            seen: crate::id::Term::default(),
        }
    }

    /// A node joins from an address of its own.
    fn join(&mut self, name: &str, slots: u32) -> PeerId {
        self.join_as(Self::login(name, slots), [10, 0, 0, self.peers as u8 + 1])
    }

    fn join_as(&mut self, login: Login, from: [u8; 4]) -> PeerId {
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

    fn say(&mut self, peer: PeerId, message: ToScheduler) {
        self.event(Event::Message(peer, message));
    }

    fn leave(&mut self, peer: PeerId) {
        self.event(Event::Left(peer));
        self.gone(peer);
    }

    fn want(&mut self, peer: PeerId) -> RequestId {
        self.want_with(peer, |_| {})
    }

    fn want_with(&mut self, peer: PeerId, change: impl FnOnce(&mut Want)) -> RequestId {
        self.requests += 1;
        let mut want = Want {
            request: RequestId(self.requests),
            toolchain: GCC,
            toolchain_bytes: 0,
            terms: Terms {
                niceness: 0,
                platform: "x86_64".into(),
                preferred: String::new(),
            },
            file: Bytes::from("a.c"),
            variant: 0,
            except: vec![],
            own: OwnNode::Nothing,
        };
        change(&mut want);
        let request = want.request;
        self.deal(peer, Deal::Want(want));
        request
    }

    fn deal(&mut self, peer: PeerId, deal: Deal) {
        self.say(peer, ToScheduler::Deal(deal));
    }

    /// Runs the job that a grant was made for, to its end.
    fn run(&mut self, peer: PeerId, grant: &Grant, outcome: Outcome) {
        let (request, lease) = (grant.request, grant.lease);
        self.deal(peer, Deal::Began { request, lease });
        self.deal(
            peer,
            Deal::Ended {
                request,
                lease,
                outcome,
            },
        );
    }

    fn give_back(&mut self, peer: PeerId, lease: LeaseId) {
        self.out.remove(&lease);
        self.deal(peer, Deal::Return(lease));
    }

    /// Runs a job and returns its lease.
    fn use_up(&mut self, peer: PeerId, grant: &Grant, outcome: Outcome) {
        self.run(peer, grant, outcome);
        self.give_back(peer, grant.lease);
    }

    /// Lets time pass; the named nodes report all the while, the others are silent.
    fn pass(&mut self, time: Duration, alive: &[PeerId]) {
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

    fn event(&mut self, event: Event) {
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

    fn gone(&mut self, peer: PeerId) {
        let node = self.ids.get(&peer).copied();
        self.out
            .retain(|_, (on, holder)| Some(*on) != node && *holder != peer);
    }

    /// The grants that `peer` got since the last call.
    fn grants(&mut self, peer: PeerId) -> Vec<Grant> {
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
    fn granted(&mut self, peer: PeerId) -> Vec<String> {
        let grants = self.grants(peer);
        grants.into_iter().map(|grant| grant.name).collect()
    }

    fn denials(&mut self, peer: PeerId) -> Vec<RequestId> {
        let inbox = self.inbox.remove(&peer).unwrap_or_default();
        inbox
            .into_iter()
            .filter_map(|message| match message {
                FromScheduler::Offer(Offer::Deny { request, .. }) => Some(request),
                _ => None,
            })
            .collect()
    }

    fn status(&mut self) -> Status {
        let looker = PeerId(9999);
        self.say(looker, ToScheduler::Status);
        match self.inbox.remove(&looker).unwrap().pop() {
            Some(FromScheduler::Status(status)) => status,
            other => panic!("{other:?}"),
        }
    }
}

fn done(cpu_us: u64) -> Outcome {
    Outcome::Done {
        usage: Usage {
            cpu_us,
            ..Usage::default()
        },
        output_bytes: 1000,
    }
}

fn failed(failure: Failure, dead: bool) -> Outcome {
    Outcome::Failed { failure, dead }
}

#[test]
fn jobs_spread_over_the_cluster_and_the_rest_wait_for_returned_leases() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    story.join("a", 2);
    story.join("b", 2);
    for _ in 0..6 {
        story.want(me);
    }
    let grants = story.grants(me);
    let names: Vec<&str> = grants.iter().map(|grant| &grant.name[..]).collect();
    assert_eq!(names, ["a", "b", "a", "b"]);
    assert_eq!(grants[0].address.to_string(), "10.0.0.2:10245");
    for grant in &grants {
        let (request, lease) = (grant.request, grant.lease);
        story.deal(me, Deal::Began { request, lease });
    }
    let status = story.status();
    assert_eq!(status.waiting, 2);
    let running: Vec<u32> = status.nodes.iter().map(|node| node.running).collect();
    assert_eq!(running, [2, 2, 0]);

    story.give_back(me, grants[1].lease);
    assert_eq!(story.granted(me), ["b"]);
    story.give_back(me, grants[0].lease);
    assert_eq!(story.granted(me), ["a"]);
    // A second return of the same lease frees nothing.
    story.want(me);
    story.give_back(me, grants[0].lease);
    assert_eq!(story.granted(me), [""; 0]);
    assert!(story.closed.is_empty());
}

#[test]
fn a_lease_serves_job_after_job_without_a_word_from_the_scheduler() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    story.join("a", 1);
    let requests: Vec<RequestId> = (0..5).map(|_| story.want(me)).collect();
    let grant = story.grants(me).remove(0);
    let lease = grant.lease;
    for request in requests {
        story.deal(me, Deal::Began { request, lease });
        let outcome = done(1000);
        story.deal(
            me,
            Deal::Ended {
                request,
                lease,
                outcome,
            },
        );
    }
    assert_eq!(story.inbox.remove(&me), None);
    let status = story.status();
    assert_eq!(status.waiting, 0);
    assert_eq!(status.nodes[0].jobs_done, 5);
    // What it can use at once it need not be lent again.
    story.want(me);
    assert_eq!(story.granted(me), [""; 0]);
    story.want(me);
    assert_eq!(story.status().waiting, 2);
}

#[test]
fn the_next_job_may_begin_before_the_results_of_the_last_are_there() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    story.join("a", 1);
    let (first, second) = (story.want(me), story.want(me));
    let lease = story.grants(me)[0].lease;
    for request in [first, second] {
        story.deal(me, Deal::Began { request, lease });
    }
    for request in [second, first] {
        let outcome = done(1000);
        story.deal(
            me,
            Deal::Ended {
                request,
                lease,
                outcome,
            },
        );
    }
    let status = story.status();
    assert_eq!((status.nodes[0].jobs_done, status.nodes[0].running), (2, 0));
}

#[test]
fn what_was_learned_of_a_job_is_told_with_its_next_request() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    story.join("a", 4);
    story.want(me);
    let grant = story.grants(me).remove(0);
    story.use_up(me, &grant, done(70_000));
    let request = story.want(me);
    let inbox = story.inbox.remove(&me).unwrap();
    let size = inbox.iter().find_map(|message| match message {
        FromScheduler::Offer(Offer::Size { request: of, size }) if *of == request => Some(*size),
        _ => None,
    });
    assert_eq!(size.map(|size| size.cost_us), Some(70_000));
}

#[test]
fn an_unused_lease_is_taken_back_after_a_while() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    let other = story.join("other", 0);
    let worker = story.join("worker", 1);
    story.want(me);
    let lease = story.grants(me)[0].lease;
    story.pass(Duration::from_secs(9), &[me, other, worker]);
    assert_eq!(story.revoked, []);
    story.pass(Duration::from_secs(7), &[me, other, worker]);
    assert_eq!(story.revoked, [lease]);
    story.want(other);
    assert_eq!(
        story.granted(other),
        [""; 0],
        "it was asked for, and not returned"
    );
    story.out.remove(&lease);
    story.pass(Duration::from_secs(10), &[me, other, worker]);
    assert_eq!(story.granted(other), ["worker"]);
}

#[test]
fn a_newcomer_gets_his_share_from_those_who_have_more() {
    let mut story = Story::new();
    let workers: Vec<PeerId> = (0..2).map(|_| story.join("w", 4)).collect();
    let first = story.join("first", 0);
    for _ in 0..20 {
        story.want(first);
    }
    let grants = story.grants(first);
    assert_eq!(grants.len(), 8);
    for grant in &grants {
        let (request, lease) = (grant.request, grant.lease);
        story.deal(first, Deal::Began { request, lease });
    }
    let second = story.join("second", 0);
    for _ in 0..20 {
        story.want(second);
    }
    let alive = [workers[0], workers[1], first, second];
    story.pass(Duration::from_millis(300), &alive);
    assert_eq!(story.revoked.len(), 4, "half, and asked for once");
    for lease in story.revoked.clone() {
        story.give_back(first, lease);
    }
    assert_eq!(story.granted(second).len(), 4);
    story.pass(Duration::from_secs(3), &alive);
    assert_eq!(story.revoked.len(), 4, "and that is that");
}

#[test]
fn a_nice_build_gives_back_all_that_another_wants() {
    let mut story = Story::new();
    let worker = story.join("w", 4);
    let nice = story.join("nice", 0);
    for _ in 0..20 {
        story.want_with(nice, |want| want.terms.niceness = 10);
    }
    assert_eq!(story.grants(nice).len(), 4);
    let busy = story.join("busy", 0);
    for _ in 0..3 {
        story.want(busy);
    }
    story.pass(Duration::from_millis(300), &[worker, nice, busy]);
    assert_eq!(story.revoked.len(), 3);
}

#[test]
fn a_node_gets_its_slots_back_for_its_own_jobs() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    let worker = story.join("worker", 4);
    for _ in 0..4 {
        story.want(me);
    }
    let grants = story.grants(me);
    let (request, lease) = (grants[0].request, grants[0].lease);
    story.deal(me, Deal::Began { request, lease });
    let local_jobs = |local_jobs| {
        ToScheduler::State(NodeState {
            local_jobs,
            ..NodeState::default()
        })
    };
    story.say(worker, local_jobs(3));
    assert_eq!(story.revoked.len(), 3);
    assert!(!story.revoked.contains(&lease), "those that lie idle first");
    story.say(worker, local_jobs(3));
    assert_eq!(story.revoked.len(), 3);
}

#[test]
fn the_first_job_stays_at_home_and_the_second_goes_out() {
    let mut story = Story::new();
    let me = story.join("me", 4);
    story.join("a", 1);
    let local = |want: &mut Want| want.own = OwnNode::Locally;
    story.want_with(me, local);
    story.want_with(me, local);
    // The third finds the others full and its own node free.
    story.want_with(me, local);
    let grants = story.grants(me);
    let names: Vec<&str> = grants.iter().map(|grant| &grant.name[..]).collect();
    assert_eq!(names, ["me", "a", "me"]);

    let homes: Vec<Home> = grants.iter().map(|grant| grant.home).collect();
    assert_eq!(homes, [Home::First, Home::No, Home::Overflow]);

    for grant in &grants {
        story.use_up(me, grant, done(1000));
    }
    story.want_with(me, local);
    let grants = story.grants(me);
    assert_eq!(grants[0].name, "me", "first again");
    let (request, lease) = (grants[0].request, grants[0].lease);
    story.deal(me, Deal::Began { request, lease });
    let status = story.status();
    let counts: Vec<_> = status
        .nodes
        .iter()
        .map(|n| (n.jobs_done, n.running))
        .collect();
    assert_eq!(
        counts,
        [(1, 0), (0, 1)],
        "what stays at home is not for others"
    );
}

#[test]
fn a_faster_node_is_preferred_once_both_are_known() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    story.join("slow", 1);
    story.join("fast", 1);
    for _ in 0..20 {
        story.want(me);
        story.want(me);
        for grant in story.grants(me) {
            let cpu_us = if grant.name == "slow" {
                400_000
            } else {
                100_000
            };
            story.use_up(me, &grant, done(cpu_us));
        }
    }
    story.want(me);
    assert_eq!(story.granted(me), ["fast"]);
    let percent: Vec<u32> = story
        .status()
        .nodes
        .iter()
        .map(|n| n.speed_percent)
        .collect();
    assert!(percent[0] > 150 && percent[2] < 50, "{percent:?}");
}

#[test]
fn a_slow_node_that_nobody_has_used_for_long_is_tried_once_again() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    let slow = story.join("slow", 1);
    let fast = story.join("fast", 1);
    let cost = |grant: &Grant, upgraded: bool| match grant.name == "slow" && !upgraded {
        true => 400_000,
        false => 100_000,
    };
    for _ in 0..20 {
        story.want(me);
        story.want(me);
        for grant in story.grants(me) {
            story.use_up(me, &grant, done(cost(&grant, false)));
        }
    }
    let one_after_another = |story: &mut Story, jobs: usize| -> usize {
        let mut on_slow = 0;
        for _ in 0..jobs {
            story.want(me);
            let grant = story.grants(me).remove(0);
            on_slow += usize::from(grant.name == "slow");
            story.use_up(me, &grant, done(cost(&grant, true)));
        }
        on_slow
    };
    assert_eq!(one_after_another(&mut story, 100), 0);
    story.pass(Duration::from_secs(9 * 60), &[me, slow, fast]);
    assert_eq!(one_after_another(&mut story, 10), 0);
    story.pass(Duration::from_secs(2 * 60), &[me, slow, fast]);
    assert_eq!(one_after_another(&mut story, 10), 1);
    // Nobody has worked since: there is nothing to find out.
    story.pass(Duration::from_secs(12 * 60), &[me, slow, fast]);
    assert_eq!(one_after_another(&mut story, 10), 0);
}

#[test]
fn a_submitter_tells_how_far_a_node_is_and_gets_the_near_one() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    let other = story.join("other", 0);
    story.join("far", 2);
    story.join("near", 2);
    for (travel_us, name) in [(400_000, "far"), (500, "near")] {
        story.want_with(me, |want| want.terms.preferred = name.into());
        let grant = story.grants(me).remove(0);
        let lease = grant.lease;
        let way = Way {
            travel_us,
            ..Way::default()
        };
        story.deal(me, Deal::Way { lease, way });
        story.use_up(me, &grant, done(100_000));
        // A word on a lease that is no more, which may have crossed its end, changes nothing.
        let way = Way {
            travel_us: 500_500 - travel_us,
            ..Way::default()
        };
        story.deal(me, Deal::Way { lease, way });
    }
    // Without the ways, the one that has waited longest would be first.
    for (peer, name) in [(me, "near"), (other, "far")] {
        story.want(peer);
        let grant = story.grants(peer).remove(0);
        assert_eq!(grant.name, name);
        story.give_back(peer, grant.lease);
    }
    // Nobody speaks for another.
    story.want(me);
    let lease = story.grants(me).remove(0).lease;
    let way = Way::default();
    story.deal(other, Deal::Way { lease, way });
    assert!(story.closed.contains_key(&other));
}

#[test]
fn a_silent_node_is_dead_within_two_seconds_and_its_requests_and_leases_with_it() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    let other = story.join("other", 0);
    let worker = story.join("worker", 1);
    story.want(me);
    story.want(me);
    story.want(other);
    assert_eq!(story.granted(me), ["worker"]);
    story.pass(Duration::from_millis(1900), &[worker, other]);
    assert!(story.closed.is_empty());
    story.pass(Duration::from_millis(700), &[worker, other]);
    assert!(story.closed[&me].contains("silent"), "{:?}", story.closed);
    let grant = story.grants(other).remove(0);
    story.run(other, &grant, done(1));
    assert_eq!(story.status().waiting, 0);
}

#[test]
fn the_death_of_the_last_worker_denies_whoever_waits_for_it() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    let worker = story.join("worker", 1);
    story.want(me);
    let second = story.want(me);
    let grant = story.grants(me).remove(0);
    let (request, lease) = (grant.request, grant.lease);
    story.deal(me, Deal::Began { request, lease });
    story.leave(worker);
    assert_eq!(story.revoked, [lease]);
    assert_eq!(story.denials(me), [second]);
    let third = story.want(me);
    assert_eq!(story.denials(me), [third]);
}

#[test]
fn a_slot_of_a_dead_submitter_is_lent_again_when_its_node_says_that_it_is_free() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    let other = story.join("other", 0);
    let worker = story.join("worker", 1);
    story.want(other);
    let grant = story.grants(other).remove(0);
    let (request, lease) = (grant.request, grant.lease);
    story.deal(other, Deal::Began { request, lease });
    story.want(me);
    let running = NodeState {
        remote_jobs: 1,
        ..NodeState::default()
    };
    story.say(worker, ToScheduler::State(running.clone()));
    story.leave(other);
    assert_eq!(story.granted(me), [""; 0], "the job may still run");
    story.say(worker, ToScheduler::State(running));
    assert_eq!(story.granted(me), [""; 0], "it does");
    story.say(worker, ToScheduler::State(NodeState::default()));
    assert_eq!(story.granted(me), ["worker"]);
}

#[test]
fn a_scheduler_that_was_itself_stopped_does_not_blame_the_nodes() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    let worker = story.join("worker", 1);
    story.now = story.now.after(Duration::from_secs(60));
    story.event(Event::Tick);
    assert!(story.closed.is_empty());
    story.pass(Duration::from_secs(3), &[me]);
    assert_eq!(story.closed.keys().collect::<Vec<_>>(), [&worker]);
}

#[test]
fn two_builds_share_the_cluster_and_a_nice_one_gives_way() {
    let mut story = Story::new();
    let big = story.join("big", 0);
    let small = story.join("small", 0);
    let nice = story.join("nice", 0);
    story.join("worker", 1);
    for _ in 0..100 {
        story.want(big);
    }
    for _ in 0..3 {
        story.want_with(nice, |want| want.terms.niceness = 5);
        story.want(small);
    }
    let mut order = Vec::new();
    for _ in 0..7 {
        let (&lease, &(_, holder)) = story.out.first_key_value().unwrap();
        order.push(holder);
        let grant = story.grants(holder).remove(0);
        assert_eq!(grant.lease, lease);
        story.use_up(holder, &grant, done(1));
    }
    assert_eq!(order, [big, small, big, small, big, small, big]);
    assert_eq!(story.granted(nice), [""; 0]);
}

#[test]
fn local_jobs_take_slots_away() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    let worker = story.join("worker", 4);
    let busy = |local_jobs| {
        ToScheduler::State(NodeState {
            local_jobs,
            ..NodeState::default()
        })
    };
    story.say(worker, busy(3));
    story.want(me);
    story.want(me);
    assert_eq!(story.granted(me).len(), 1);
    story.say(worker, busy(2));
    assert_eq!(story.granted(me).len(), 1);
}

#[test]
fn a_failing_node_is_avoided_for_a_while_and_then_tried_again() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    let worker = story.join("worker", 1);
    story.want(me);
    let grant = story.grants(me).remove(0);
    story.use_up(me, &grant, failed(Failure::Internal, true));
    let request = story.want(me);
    assert_eq!(story.denials(me), [request]);
    story.pass(Duration::from_secs(6), &[me, worker]);
    story.want(me);
    assert_eq!(story.granted(me), ["worker"]);
}

#[test]
fn a_busy_node_is_waited_for_and_asked_again_without_anything_happening() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    story.join("worker", 1);
    story.want(me);
    let grant = story.grants(me).remove(0);
    story.use_up(me, &grant, failed(Failure::Busy, false));
    story.want(me);
    assert_eq!(story.grants(me), []);
    let wake = story.core.next_wake().unwrap();
    assert_eq!(wake, Time(100_000));
    story.now = wake;
    story.event(Event::Tick);
    assert_eq!(story.granted(me), ["worker"]);
}

#[test]
fn the_excluded_and_the_unpreferred_get_nothing() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    let a = story.join("a", 1);
    story.join("b", 1);
    let a = story.ids[&a];
    story.want_with(me, |want| want.except = vec![a]);
    assert_eq!(story.granted(me), ["b"]);
    let request = story.want_with(me, |want| {
        want.except = vec![a];
        want.terms.preferred = "a".into();
    });
    assert_eq!(story.denials(me), [request]);
    story.want_with(me, |want| want.terms.preferred = "10.0.0.3".into());
    assert_eq!(
        story.granted(me),
        [""; 0],
        "b is full, and no other will do"
    );
}

#[test]
fn the_withdrawn_get_nothing() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    story.join("a", 1);
    story.want(me);
    let waiting = story.want(me);
    story.deal(me, Deal::Withdraw(waiting));
    let lease = story.grants(me)[0].lease;
    story.give_back(me, lease);
    // The first one still waits, and gets it again.
    assert_eq!(story.granted(me).len(), 1);
    // A withdrawal that crosses the grant is harmless; the lease comes back by itself.
    story.deal(me, Deal::Withdraw(waiting));
    assert!(story.closed.is_empty());
}

#[test]
fn five_hundred_requests_at_once_are_ordinary_and_too_many_are_denied() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    story.join("a", 1);
    for _ in 0..4096 {
        story.want(me);
    }
    assert_eq!(story.status().waiting, 4096);
    let over = story.want(me);
    assert_eq!(story.denials(me), [over]);
    assert!(story.closed.is_empty());
}

#[test]
fn names_are_unique_and_a_node_that_comes_again_replaces_itself() {
    let mut story = Story::new();
    let names = |story: &mut Story| -> Vec<String> {
        story.status().nodes.into_iter().map(|n| n.name).collect()
    };
    let first = story.join("a", 1);
    story.join("a", 1);
    assert_eq!(names(&mut story), ["a", "a-2"]);
    let again = story.join_as(Story::login("a", 1), [10, 0, 0, 1]);
    assert_eq!(names(&mut story), ["a", "a-2"]);
    assert_eq!(story.closed.keys().collect::<Vec<_>>(), [&first]);
    assert!(story.ids.contains_key(&again));

    let submits_only = || Login {
        port: 0,
        ..Story::login("s", 0)
    };
    story.join_as(submits_only(), [10, 0, 0, 9]);
    story.join_as(submits_only(), [10, 0, 0, 9]);
    story.join_as(Story::login("", 1), [10, 0, 0, 10]);
    assert_eq!(names(&mut story), ["10.0.0.10", "a", "a-2", "s", "s-2"]);
}

#[test]
fn a_node_beside_the_scheduler_is_found_where_the_scheduler_is() {
    let mut story = Story::new();
    let far = story.join("far", 0);
    let near = story.join_as(Story::login("near", 0), [127, 0, 0, 1]);
    story.join_as(
        Login {
            port: 7,
            ..Story::login("worker", 2)
        },
        [127, 0, 0, 1],
    );
    for (peer, expect) in [(far, "10.0.0.200:7"), (near, "127.0.0.1:7")] {
        story.want(peer);
        assert_eq!(story.grants(peer)[0].address.to_string(), expect);
    }
}

#[test]
fn who_does_not_belong_here_is_refused_with_a_reason() {
    let mut story = Story::new();
    for (login, expect) in [
        (
            Login {
                netname: "OTHER".into(),
                ..Story::login("a", 1)
            },
            "netname",
        ),
        (Story::login("a", u32::MAX), "4294967295"),
    ] {
        let peer = story.join_as(login, [10, 0, 0, 1]);
        assert!(story.closed[&peer].contains(expect));
        let inbox = &story.inbox[&peer];
        assert!(matches!(&inbox[..], [FromScheduler::Refused(why)] if why.contains(expect)));
    }
    assert_eq!(story.status().nodes, []);
}

#[test]
fn who_talks_nonsense_is_dropped_and_nobody_else_is_harmed() {
    type Nonsense = fn(&mut Story, PeerId, LeaseId);
    let cases: &[(&str, Nonsense)] = &[
        ("logs in twice", |story, peer, _| {
            story.say(peer, ToScheduler::Login(Story::login("a", 1)));
        }),
        ("does not hold", |story, peer, lease| {
            story.deal(peer, Deal::Return(lease));
        }),
        ("twice", |story, peer, _| {
            for _ in 0..2 {
                story.want_with(peer, |want| want.request = RequestId(7));
            }
        }),
        ("niceness", |story, peer, _| {
            story.want_with(peer, |want| want.terms.niceness = 200);
        }),
        ("local jobs", |story, peer, _| {
            let local_jobs = u32::MAX;
            let state = NodeState {
                local_jobs,
                ..NodeState::default()
            };
            story.say(peer, ToScheduler::State(state));
        }),
        ("too many toolchains", |story, peer, _| {
            for part in 0..2u8 {
                let added = (0..6000u16).map(|n| {
                    let mut digest = [part; 32];
                    digest[..2].copy_from_slice(&n.to_le_bytes());
                    Digest(digest)
                });
                let added = added.collect();
                let removed = vec![];
                story.say(peer, ToScheduler::Toolchains { added, removed });
            }
        }),
    ];
    for (expect, speak) in cases {
        let mut story = Story::new();
        let me = story.join("me", 0);
        story.join("worker", 1);
        story.want(me);
        let lease = story.grants(me)[0].lease;
        let liar = story.join("liar", 0);
        speak(&mut story, liar, lease);
        assert!(story.closed[&liar].contains(expect), "{:?}", story.closed);
        assert_eq!(story.closed.len(), 1);
        story.give_back(me, lease);
        assert_eq!(story.granted(me), ["worker"], "{expect}");
    }
}

#[test]
fn a_stranger_may_look_and_not_touch() {
    let mut story = Story::new();
    story.join("worker", 1);
    assert_eq!(story.status().nodes.len(), 1);
    let stranger = PeerId(77);
    story.deal(stranger, Deal::Withdraw(RequestId(1)));
    assert!(story.closed[&stranger].contains("login"));
    // The shell reports the end of a connection that was never a node.
    story.event(Event::Left(stranger));
}

#[test]
fn a_job_that_never_ends_loses_its_lease_after_hours() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    let worker = story.join("worker", 1);
    story.want(me);
    story.want(me);
    let grant = story.grants(me).remove(0);
    let (request, lost) = (grant.request, grant.lease);
    story.deal(
        me,
        Deal::Began {
            request,
            lease: lost,
        },
    );
    story.pass(Duration::from_secs(2 * 3600 - 5), &[me, worker]);
    assert_eq!(story.granted(me), [""; 0]);
    story.out.remove(&lost);
    story.pass(Duration::from_secs(10), &[me, worker]);
    assert_eq!(story.granted(me), ["worker"]);
}

/// Thousands of random events, good and bad; the harness checks each.
#[test]
fn no_slot_is_lent_twice_whatever_happens() {
    for seed in 0..20u64 {
        let mut state = seed;
        let mut random = |below: u64| {
            // splitmix64
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)) % below
        };
        let mut story = Story::new();
        let mut peers = Vec::new();
        for _ in 0..600 {
            story.now = story.now.after(Duration::from_millis(random(20)));
            let pick = |random: &mut dyn FnMut(u64) -> u64, peers: &[PeerId]| {
                (!peers.is_empty()).then(|| peers[random(peers.len() as u64) as usize])
            };
            match random(20) {
                0 => {
                    let slots = random(4) as u32;
                    peers.push(story.join("n", slots));
                }
                1 if peers.len() > 3 => {
                    let peer = peers.remove(random(peers.len() as u64) as usize);
                    story.leave(peer);
                }
                2 => story.event(Event::Tick),
                3..=5 => {
                    if let Some(peer) = pick(&mut random, &peers) {
                        let state = NodeState {
                            local_jobs: random(3) as u32,
                            remote_jobs: random(3) as u32,
                            ..NodeState::default()
                        };
                        story.say(peer, ToScheduler::State(state));
                    }
                }
                6..=12 => {
                    if let Some(peer) = pick(&mut random, &peers) {
                        let niceness = random(3) as u8;
                        let own = match random(3) {
                            0 => OwnNode::Nothing,
                            1 => OwnNode::Locally,
                            _ => OwnNode::AsWorker,
                        };
                        story.want_with(peer, |want| {
                            want.terms.niceness = niceness;
                            want.own = own;
                        });
                    }
                }
                _ => {
                    let out: Vec<_> = story.out.iter().map(|(&l, &(_, p))| (l, p)).collect();
                    if !out.is_empty() {
                        let (lease, holder) = out[random(out.len() as u64) as usize];
                        let request = RequestId(1 + random(story.requests));
                        let outcome = match random(4) {
                            0 => failed(Failure::Busy, false),
                            1 => failed(Failure::Internal, random(2) == 0),
                            2 => Outcome::Unused,
                            _ => done(random(1_000_000)),
                        };
                        match random(4) {
                            0 => story.deal(holder, Deal::Began { request, lease }),
                            1 => story.deal(
                                holder,
                                Deal::Ended {
                                    request,
                                    lease,
                                    outcome,
                                },
                            ),
                            _ => story.give_back(holder, lease),
                        }
                    }
                }
            }
            peers.retain(|peer| !story.closed.contains_key(peer));
        }
        assert!(story.ever.len() > 50, "seed {seed}: {}", story.ever.len());
    }
}
