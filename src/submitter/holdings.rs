//! The leases that a submitter holds and the jobs that it has: what runs where, what goes where next. Pure.
//!
//! The scheduler is told of each job and lends slots for as many as wait; each lease then serves job after job
//! without another word from it, so a running build waits for no round trip. What ran is told afterwards. A lease
//! without a job goes back after a short while, or at once when it is asked back.
//!
//! Where a round trip is not negligible, the next job is sent to its worker while the one before still runs
//! there, so that the slot is idle for neither way. To the scheduler such a job still waits, so that it may
//! come to run elsewhere: when another lease is free first, the job is called back.
//!
//! At the end of a build, when leases are idle and a job lags, it is started a second time elsewhere. Whichever
//! result comes first is taken.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::allot::{Allotment, PLAYED_MAX, Room, allot};
use crate::id::{LeaseId, NodeId, RequestId, Time};
use crate::message::{Deal, Failure, Grant, Home, Offer, Outcome, OwnNode, Size, Terms, Want};

/// How long a lease is held without a job: `make` has gaps.
const HOLD: Duration = Duration::from_millis(300);
/// How often jobs that may lag are looked at, while nothing waits: so many times in the length of one, within
/// these bounds.
const LOOKS_PER_JOB: f64 = 8.0;
const LOOK_LEAST: Duration = Duration::from_millis(250);
const LOOK_MOST: Duration = Duration::from_millis(1000);
/// Jobs are sent in advance where the way there and back is at least this share of their time.
const TRAVEL_SHARE: f64 = 0.02;
/// Results of one lease that may be on their way while the next job runs.
const LANDING_MAX: usize = 2;
/// What a job takes as long as nothing is known, in microseconds, and how much one job changes that.
const COST_UNKNOWN_US: f64 = 500_000.0;
const GAIN: f64 = 0.1;
/// The way there and back as long as it was not measured, in microseconds.
const TRAVEL_UNKNOWN_US: f64 = 1_000.0;
/// Nodes whose distance is remembered, at most.
const TRAVELS_MAX: usize = 4096;
/// A second start must promise to end so much earlier: by this factor, and this long.
const SECOND_FACTOR: f64 = 1.25;
const SECOND_MARGIN_US: f64 = 200_000.0;
/// A job is lost rather than slow when it has taken so many times what was expected, and so long.
const LOST_FACTOR: f64 = 3.0;
const LOST_MARGIN_US: f64 = 2_000_000.0;
/// A job is called back for something better no more often than this: the future is only guessed.
const RECALLS_MAX: u32 = 3;
/// The end of a build seems near when more jobs were done than this, and than one of so many that are under
/// way or wait, while none came.
const ENDING_LEAST: usize = 2;
const ENDING_SHARE: usize = 20;
/// A lease is slow when it is slower than the fastest by more than one in so many.
const SLOWER_SHARE: u32 = 2;
/// A job is too long for a slow lease while others are to come when it takes so many times what jobs do.
const LONG_FACTOR: f64 = 1.25;
/// What is known of a job's size is told within this time, unless the scheduler is very far.
const TOLD_WITHIN: Duration = Duration::from_millis(20);
/// One of so many leases may be used for second starts at a time, and one in any case.
const SECONDS_SHARE: usize = 4;

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The scheduler says something.
    Offer(Offer),
    /// The scheduler is gone, and all leases are void.
    Void,
    /// The worker has started the compiler for a job under this lease.
    Started {
        /// Which job.
        request: RequestId,
        /// Where.
        lease: LeaseId,
    },
    /// Nothing of the job happens under this lease any more.
    Ended {
        /// Which job.
        request: RequestId,
        /// Where.
        lease: LeaseId,
        /// What came of it there.
        outcome: Outcome,
    },
    /// Nobody wants the job any more. What runs of it is ended by who says so.
    Gone(RequestId),
    /// The way to a node and back takes so long.
    Travel(NodeId, Duration),
    /// The time of [`Holdings::next_wake`] has come.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub enum Action {
    /// Tell the scheduler.
    Tell(Deal),
    /// Run the job under this lease; also said of a job that already runs elsewhere.
    Start(RequestId, Grant),
    /// Give up running the job under this lease, unless the worker has started it, and wait for another.
    Recall(RequestId, LeaseId),
    /// There is no slot for the job, for this reason.
    Deny(RequestId, String),
}

/// The leases and the jobs.
#[derive(Debug)]
pub struct Holdings {
    requests: u64,
    jobs: BTreeMap<RequestId, Job>,
    /// Jobs without a place, the next first. One that arrived earlier goes before, and so does one that
    /// takes longer.
    waiting: BTreeMap<Terms, BTreeSet<(i64, RequestId)>>,
    leases: BTreeMap<LeaseId, Held>,
    travels: BTreeMap<NodeId, f64>,
    mean_cost_us: f64,
    /// From how many jobs that is known.
    costs_known: u64,
    /// When the last job came.
    asked_at: Time,
    /// Jobs that were done since the last one came: when that goes on, the build comes to its end.
    done_since_want: usize,
    actions: Vec<Action>,
}

#[derive(Debug)]
struct Job {
    want: Want,
    size: Size,
    /// Its place among those that wait, if it is one of them.
    turn: Option<i64>,
    /// The leases under which it runs or is to run next.
    places: Vec<LeaseId>,
    /// The job of which it is the second start.
    of: Option<RequestId>,
    /// Its second start.
    second: Option<RequestId>,
    /// When it came.
    since: Time,
    /// How often it was called back.
    recalls: u32,
    /// No second start is to be had for it.
    alone: bool,
    /// The scheduler knows that it runs, or has run.
    begun: bool,
    /// Nobody wants it any more.
    gone: bool,
}

#[derive(Debug)]
struct Held {
    grant: Grant,
    running: Option<RequestId>,
    /// Sent in advance.
    next: Option<RequestId>,
    /// Whether the one that was sent in advance is called back.
    recalled: bool,
    /// Done on the worker, with results on their way.
    landing: Vec<RequestId>,
    /// Since when it runs, or nothing does.
    since: Time,
    revoked: bool,
    void: bool,
}

impl Default for Holdings {
    fn default() -> Self {
        Self {
            requests: 0,
            jobs: BTreeMap::new(),
            waiting: BTreeMap::new(),
            leases: BTreeMap::new(),
            travels: BTreeMap::new(),
            mean_cost_us: COST_UNKNOWN_US,
            costs_known: 0,
            asked_at: Time(0),
            done_since_want: 0,
            actions: Vec::new(),
        }
    }
}

impl Holdings {
    /// A job wants a slot; its number is given here.
    pub fn want(&mut self, want: Want, now: Time) -> (RequestId, Vec<Action>) {
        self.done_since_want = 0;
        self.asked_at = now;
        let request = self.add(want, None, now);
        self.settle(now);
        (request, std::mem::take(&mut self.actions))
    }

    /// Takes in what happened at `now`, which never goes back.
    pub fn on_event(&mut self, event: Event, now: Time) -> Vec<Action> {
        match event {
            Event::Offer(offer) => self.offer(offer, now),
            Event::Void => self.void(),
            Event::Started { request, lease } => self.started(request, lease, now),
            Event::Ended {
                request,
                lease,
                outcome,
            } => self.ended(request, lease, outcome, now),
            Event::Gone(request) => self.gone(request),
            Event::Travel(node, time) => self.travelled(node, time),
            Event::Tick => {}
        }
        self.settle(now);
        std::mem::take(&mut self.actions)
    }

    /// When the next [`Event::Tick`] is due, if nothing else happens.
    pub fn next_wake(&self, now: Time) -> Option<Time> {
        let waits = |held: &Held| self.waiting.contains_key(&held.grant.terms);
        let idle = self.leases.values().filter(|held| held.is_idle());
        // One that somebody waits for is held. It may be of use when the last job that came is known.
        let told = self.asked_at.after(TOLD_WITHIN);
        let idle = idle.filter_map(|held| match waits(held) {
            true => (told > now).then_some(told),
            false => Some(held.since.after(HOLD)),
        });
        let may_lag = self.waiting.is_empty()
            && self
                .leases
                .values()
                .any(|held| held.running.is_some() && held.grant.home == Home::No);
        let pause = Duration::from_micros((self.mean_cost_us / LOOKS_PER_JOB) as u64);
        let look = may_lag.then(|| now.after(pause.clamp(LOOK_LEAST, LOOK_MOST)));
        idle.chain(look).min().map(|wake| wake.max(now))
    }

    /// How many jobs wait for a place.
    pub fn waiting(&self) -> usize {
        self.waiting.values().map(BTreeSet::len).sum()
    }

    /// How many leases are held.
    pub fn held(&self) -> usize {
        self.leases.len()
    }

    // What happened.

    fn add(&mut self, mut want: Want, of: Option<RequestId>, now: Time) -> RequestId {
        let request = RequestId(self.requests);
        self.requests += 1;
        want.request = request;
        self.actions.push(Action::Tell(Deal::Want(want.clone())));
        let size = of.and_then(|of| self.jobs.get(&of)).map(|job| job.size);
        let job = Job {
            want,
            size: size.unwrap_or_default(),
            turn: None,
            places: Vec::new(),
            of,
            second: None,
            since: now,
            recalls: 0,
            alone: false,
            begun: false,
            gone: false,
        };
        self.jobs.insert(request, job);
        self.enqueue(request, now);
        request
    }

    fn offer(&mut self, offer: Offer, now: Time) {
        match offer {
            Offer::Grant(grant) => {
                // What the scheduler knows of a node's speed and memory by now.
                let same = |held: &&mut Held| {
                    held.grant.node == grant.node && held.grant.home == grant.home
                };
                for held in self.leases.values_mut().filter(same) {
                    held.grant.slowness_milli = grant.slowness_milli;
                    held.grant.memory_mib = grant.memory_mib;
                }
                let held = Held {
                    running: None,
                    next: None,
                    recalled: false,
                    landing: Vec::new(),
                    since: now,
                    revoked: false,
                    void: false,
                    grant,
                };
                self.leases.insert(held.grant.lease, held);
            }
            Offer::Size { request, size } => {
                if size.cost_us > 0 {
                    self.learn_cost(size.cost_us as f64);
                }
                if let Some(job) = self.jobs.get_mut(&request) {
                    job.size = size;
                    if job.turn.is_some() {
                        self.dequeue(request);
                        self.enqueue(request, now);
                    }
                }
            }
            Offer::Revoke(lease) => {
                if let Some(held) = self.leases.get_mut(&lease) {
                    held.revoked = true;
                    self.recall(lease);
                }
            }
            Offer::Deny { request, why } => {
                let Some(job) = self.jobs.get_mut(&request).filter(|job| job.turn.is_some()) else {
                    return;
                };
                // It no longer waits there.
                job.begun = true;
                let of = job.of;
                self.forget(request);
                match of {
                    None => self.actions.push(Action::Deny(request, why)),
                    Some(of) => {
                        if let Some(first) = self.jobs.get_mut(&of) {
                            first.alone = true;
                        }
                    }
                }
            }
        }
    }

    fn void(&mut self) {
        // The next scheduler numbers the nodes anew.
        self.travels.clear();
        for job in self.jobs.values_mut() {
            job.want.except.clear();
        }
        self.leases.retain(|_, held| {
            held.void = true;
            !held.is_empty()
        });
    }

    fn started(&mut self, request: RequestId, lease: LeaseId, now: Time) {
        let Some(held) = self.leases.get_mut(&lease) else {
            return;
        };
        let is_it = |jobs: &BTreeMap<RequestId, Job>, told: RequestId| {
            told == request || jobs.get(&told).is_some_and(|job| job.of == Some(request))
        };
        if let Some(next) = held.next.filter(|&next| is_it(&self.jobs, next)) {
            held.next = None;
            held.recalled = false;
            held.landing.extend(held.running.replace(next));
            held.since = now;
            self.tell_began(next, lease);
        } else if held
            .running
            .is_some_and(|running| is_it(&self.jobs, running))
        {
            held.since = now;
        }
    }

    fn ended(&mut self, request: RequestId, lease: LeaseId, outcome: Outcome, now: Time) {
        let Some((told, recalled)) = self.leave_place(request, lease, outcome, now) else {
            return;
        };
        match outcome {
            Outcome::Done { usage, .. } => {
                self.done_since_want += 1;
                if let Some(held) = self.leases.get(&lease) {
                    let cost_us = usage.wall_us as f64 / slowness(&held.grant);
                    self.learn_cost(cost_us);
                }
                self.finish(request);
            }
            Outcome::Failed { failure, dead } => {
                self.distrust(lease, failure, dead);
                self.leave(told);
            }
            Outcome::Unused if recalled && self.jobs.get(&told).is_some_and(|job| !job.gone) => {
                self.enqueue(told, now);
            }
            Outcome::Unused => self.leave(told),
        }
    }

    /// Takes a job off its lease; the number by which the scheduler knows it, and whether it was called back.
    fn leave_place(
        &mut self,
        request: RequestId,
        lease: LeaseId,
        outcome: Outcome,
        now: Time,
    ) -> Option<(RequestId, bool)> {
        let jobs = &self.jobs;
        let held = self.leases.get_mut(&lease)?;
        let is_it = |told: &RequestId| {
            *told == request || jobs.get(told).is_some_and(|job| job.of == Some(request))
        };
        let told;
        let mut recalled = false;
        if let Some(at) = held.landing.iter().position(is_it) {
            told = held.landing.remove(at);
            self.tell_ended(told, lease, outcome);
        } else if held.running.as_ref().is_some_and(is_it) {
            told = held.running.take()?;
            held.since = now;
            let next = held.next.take_if(|_| !held.recalled);
            held.running = next;
            self.tell_ended(told, lease, outcome);
            if let Some(next) = next {
                self.tell_began(next, lease);
            }
        } else if held.next.as_ref().is_some_and(is_it) {
            told = held.next.take()?;
            recalled = std::mem::take(&mut held.recalled);
            if matches!(outcome, Outcome::Done { .. }) {
                // It has overtaken the result of the one before.
                held.landing.extend(held.running.take());
                held.since = now;
                self.tell_began(told, lease);
                self.tell_ended(told, lease, outcome);
            }
        } else {
            return None;
        }
        if let Some(job) = self.jobs.get_mut(&told) {
            job.places.retain(|place| *place != lease);
        }
        Some((told, recalled))
    }

    /// A job is done: it is forgotten, and so is its second start.
    fn finish(&mut self, request: RequestId) {
        let Some(job) = self.jobs.get(&request) else {
            return;
        };
        let second = job.second;
        for request in [Some(request), second].into_iter().flatten() {
            let job = self.jobs.get_mut(&request);
            // What else runs of it is ended by who runs it, now that there is a result.
            let Some(job) = job else { continue };
            job.gone = true;
            if job.places.is_empty() {
                self.forget(request);
            }
        }
    }

    /// A start of a job has come to nothing.
    fn leave(&mut self, told: RequestId) {
        let Some(job) = self.jobs.get(&told).filter(|job| job.is_nowhere()) else {
            return;
        };
        let of = job.of;
        if job.second.is_some() {
            // Whoever runs it goes on with the second start.
            return;
        }
        self.forget(told);
        if let Some(of) = of
            && self.jobs.get(&of).is_some_and(Job::is_nowhere)
        {
            self.forget(of);
        }
    }

    fn gone(&mut self, request: RequestId) {
        let Some(job) = self.jobs.get_mut(&request) else {
            return;
        };
        job.gone = true;
        let second = job.second;
        for request in [Some(request), second].into_iter().flatten() {
            if self
                .jobs
                .get(&request)
                .is_some_and(|job| job.places.is_empty())
            {
                self.forget(request);
            }
        }
    }

    /// A job costs so much, which the next of which nothing is known may do, too.
    fn learn_cost(&mut self, cost_us: f64) {
        self.costs_known += 1;
        // Of the first few the mean, then of the last few.
        let gain = GAIN.max(1.0 / self.costs_known as f64);
        self.mean_cost_us += gain * (cost_us - self.mean_cost_us);
    }

    fn travelled(&mut self, node: NodeId, time: Duration) {
        if self.travels.len() >= TRAVELS_MAX && !self.travels.contains_key(&node) {
            self.travels.pop_first();
        }
        let measured = time.as_micros() as f64;
        let known = self.travels.entry(node).or_insert(measured);
        // A busy machine makes the way look longer, never shorter.
        *known = measured.min(*known + GAIN * (measured - *known));
    }

    /// A node has failed: nothing more is sent there under this lease, and under none of that node
    /// when it is dead.
    fn distrust(&mut self, lease: LeaseId, failure: Failure, dead: bool) {
        let about_the_job = matches!(
            failure,
            Failure::Signal
                | Failure::Memory
                | Failure::Time
                | Failure::Cancelled
                | Failure::Invalid
        );
        let Some(node) = self.leases.get(&lease).map(|held| held.grant.node) else {
            return;
        };
        if about_the_job && !dead {
            return;
        }
        let of_node = self
            .leases
            .iter_mut()
            .filter(|(id, held)| **id == lease || (dead && held.grant.node == node));
        for (_, held) in of_node {
            held.revoked = true;
        }
    }

    // What follows.

    /// Puts jobs into places, looks for those that lag, and gives back what nobody needs.
    fn settle(&mut self, now: Time) {
        let terms: Vec<Terms> = self.waiting.keys().cloned().collect();
        let any_idle = self.leases.values().any(Held::is_idle);
        for terms in terms {
            if any_idle {
                self.stay_at_home(&terms, now);
            }
            match self.is_ending() {
                true => self.play(&terms, now),
                false => self.fill(&terms, any_idle, now),
            }
        }
        let expected = match any_idle {
            true => self.call_back(now),
            false => Vec::new(),
        };
        if self.waiting.is_empty() {
            self.start_seconds(now);
        }
        if any_idle {
            self.give_back(&expected, now);
        }
    }

    /// Whether no more jobs seem to come: some were done, and none came in their place.
    fn is_ending(&self) -> bool {
        self.done_since_want > (self.jobs.len() / ENDING_SHARE).max(ENDING_LEAST)
    }

    /// When nothing else runs, one job is not worth the way, if the scheduler says so.
    fn stay_at_home(&mut self, terms: &Terms, now: Time) {
        if self.leases.values().any(|held| !held.is_empty()) {
            return;
        }
        let home = self
            .leases
            .iter()
            .find(|(_, held)| held.grant.home == Home::First && held.is_for(terms))
            .map(|(&id, _)| id);
        if let Some(home) = home
            && let Some(request) = self.first_for(terms, home)
        {
            self.start(request, home, now);
        }
    }

    /// While more jobs are to come: no idle lease is left without a job. The fast ones get the first that
    /// wait, the slow ones the shortest.
    fn fill(&mut self, terms: &Terms, any_idle: bool, now: Time) {
        if any_idle {
            let mut idle: Vec<(Home, u32, LeaseId)> = self
                .leases
                .iter()
                .filter(|(_, held)| {
                    held.is_idle() && held.is_for(terms) && held.grant.home != Home::First
                })
                .map(|(&id, held)| (held.grant.home, held.grant.slowness_milli, id))
                .collect();
            idle.sort_unstable();
            let fastest = self
                .leases
                .values()
                .filter(|held| held.grant.home == Home::No && held.is_for(terms))
                .map(|held| held.grant.slowness_milli)
                .min();
            for (home, slowness_milli, lease) in idle {
                let is_slow = home == Home::No
                    && fastest
                        .is_some_and(|fastest| slowness_milli > fastest + fastest / SLOWER_SHARE);
                let request = match is_slow {
                    true => self.shortest_for(terms, lease, now),
                    false => self.first_for(terms, lease),
                };
                if let Some(request) = request {
                    self.start(request, lease, now);
                }
            }
        }
        if !self.waiting.contains_key(terms) || !self.any_far() {
            return;
        }
        let mut takers: Vec<(f64, LeaseId)> = self
            .leases
            .iter()
            .filter(|(_, held)| held.grant.home == Home::No && held.is_for(terms))
            .filter(|(_, held)| self.room(held, now).takes_next)
            .map(|(&id, held)| (self.free_in_us(held, now), id))
            .collect();
        takers.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        for (_, lease) in takers {
            let Some(request) = self.first_for(terms, lease) else {
                return;
            };
            self.send_ahead(request, lease);
        }
    }

    /// The shortest of the jobs that wait which may use a slow lease, as far as they are looked at: short ones and
    /// late ones stand at the end. None when all are long: they are better off waiting for a fast lease, and
    /// short ones will come. Neither is it one whose size may be told in a moment.
    fn shortest_for(&self, terms: &Terms, lease: LeaseId, now: Time) -> Option<RequestId> {
        let held = self.leases.get(&lease)?;
        let long_us = self.mean_cost_us * LONG_FACTOR;
        let waiting = self.waiting.get(terms)?.iter().rev().take(PLAYED_MAX);
        waiting
            .filter_map(|&(_, request)| Some((request, self.jobs.get(&request)?)))
            .filter(|(_, job)| job.may_run_under(held))
            .filter(|(_, job)| job.size.cost_us > 0 || now.since(job.since) >= TOLD_WITHIN)
            .map(|(request, job)| (self.cost_of(job), request))
            .filter(|&(cost_us, _)| cost_us <= long_us)
            .min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))
            .map(|(_, request)| request)
    }

    /// Whether the way to any node is long.
    fn any_far(&self) -> bool {
        let longest = self.travels.values().copied().fold(0.0, f64::max);
        longest >= TRAVEL_SHARE * self.mean_cost_us
    }

    /// When the end is near: each job goes where it is finished first, given what else waits.
    fn play(&mut self, terms: &Terms, now: Time) {
        let Some(waiting) = self.waiting.get(terms) else {
            return;
        };
        let places: Vec<(LeaseId, &Held)> = self
            .leases
            .iter()
            .filter(|(_, held)| held.grant.home == Home::No && held.is_for(terms))
            .map(|(&id, held)| (id, held))
            .collect();
        let rooms: Vec<Room> = places
            .iter()
            .map(|(_, held)| self.room(held, now))
            .collect();
        // Those whose turn it is, and for the rooms that are left, which are slow, the shortest.
        let turns = waiting.iter().take(PLAYED_MAX);
        let beyond = waiting.len().saturating_sub(PLAYED_MAX);
        let shortest = waiting.iter().rev().take(beyond.min(rooms.len()));
        let requests: Vec<(RequestId, &Job)> = turns
            .chain(shortest)
            .filter_map(|&(_, request)| Some((request, self.jobs.get(&request)?)))
            .collect();
        let cost_us = |job: usize| self.cost_of(requests[job].1);
        let may = |job: usize, room: usize| requests[job].1.may_run_under(places[room].1);
        let allotted = allot(requests.len(), cost_us, &rooms, may);
        let requests: Vec<RequestId> = requests.iter().map(|&(id, _)| id).collect();
        let ids: Vec<LeaseId> = places.iter().map(|&(id, _)| id).collect();
        let mut in_advance = Vec::new();
        for allotment in allotted {
            match allotment {
                Allotment::Start(job, room) => self.start(requests[job], ids[room], now),
                Allotment::Next(job, room) => in_advance.push((requests[job], ids[room])),
            }
        }
        // An own slot is there only while all others are full.
        let overflow: Vec<LeaseId> = self
            .leases
            .iter()
            .filter(|(_, held)| {
                held.grant.home == Home::Overflow && held.is_for(terms) && held.is_idle()
            })
            .map(|(&id, _)| id)
            .collect();
        for lease in overflow {
            if let Some(request) = self.first_for(terms, lease) {
                self.start(request, lease, now);
            }
        }
        for (request, lease) in in_advance {
            self.send_ahead(request, lease);
        }
    }

    /// The first of the jobs that wait which may use a lease.
    fn first_for(&self, terms: &Terms, lease: LeaseId) -> Option<RequestId> {
        let waiting = self.waiting.get(terms)?;
        let mut requests = waiting.iter().map(|&(_, request)| request);
        requests.find(|&request| self.may(request, lease))
    }

    fn may(&self, request: RequestId, lease: LeaseId) -> bool {
        match (self.jobs.get(&request), self.leases.get(&lease)) {
            (Some(job), Some(held)) => job.may_run_under(held),
            _ => false,
        }
    }

    fn start(&mut self, request: RequestId, lease: LeaseId, now: Time) {
        let Some(held) = self.leases.get_mut(&lease).filter(|held| held.is_idle()) else {
            return;
        };
        held.running = Some(request);
        held.since = now;
        self.put(request, lease);
        self.tell_began(request, lease);
    }

    fn send_ahead(&mut self, request: RequestId, lease: LeaseId) {
        let waits = self
            .jobs
            .get(&request)
            .is_some_and(|job| job.turn.is_some());
        if let Some(held) = self.leases.get_mut(&lease).filter(|_| waits) {
            held.next = Some(request);
            self.put(request, lease);
        }
    }

    fn put(&mut self, request: RequestId, lease: LeaseId) {
        self.dequeue(request);
        let (Some(job), Some(held)) = (self.jobs.get_mut(&request), self.leases.get(&lease)) else {
            return;
        };
        job.places.push(lease);
        let runner = job.of.unwrap_or(request);
        self.actions.push(Action::Start(runner, held.grant.clone()));
    }

    /// Calls back what was sent in advance and could begin elsewhere at once. Returns the leases that are
    /// to serve for it.
    fn call_back(&mut self, now: Time) -> Vec<LeaseId> {
        let mut expected = Vec::new();
        let mut idle: Vec<LeaseId> = self
            .leases
            .iter()
            .filter(|(_, held)| {
                held.is_idle() && held.is_for(&held.grant.terms) && held.grant.home == Home::No
            })
            .map(|(&id, _)| id)
            .collect();
        if idle.is_empty() {
            return expected;
        }
        let mut ahead: Vec<(f64, RequestId, LeaseId)> = self
            .leases
            .iter()
            .filter(|(_, held)| !held.recalled)
            .filter_map(|(&id, held)| Some((self.left_us(held, now), held.next?, id)))
            .filter(|(_, next, _)| {
                self.jobs
                    .get(next)
                    .is_some_and(|job| job.recalls < RECALLS_MAX)
            })
            .collect();
        // Those that would wait longest first.
        ahead.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (free_in_us, request, lease) in ahead {
            let cost_us = self.cost_us(request);
            let here = &self.leases[&lease].grant;
            let better = idle.iter().position(|other| {
                let there = &self.leases[other].grant;
                // It travels back in no time: nobody waits for the worker's word. It travels there once.
                there.terms == here.terms
                    && self.may(request, *other)
                    && self.travel_us(there.node) + cost_us * slowness(there)
                        < free_in_us + cost_us * slowness(here)
            });
            if let Some(better) = better {
                expected.push(idle.swap_remove(better));
                self.recall(lease);
            }
        }
        expected
    }

    fn recall(&mut self, lease: LeaseId) {
        let Some(held) = self.leases.get_mut(&lease).filter(|held| !held.recalled) else {
            return;
        };
        if let Some(next) = held.next {
            held.recalled = true;
            if let Some(job) = self.jobs.get_mut(&next) {
                job.recalls += 1;
            }
            let runner = self.jobs.get(&next).and_then(|job| job.of).unwrap_or(next);
            self.actions.push(Action::Recall(runner, lease));
        }
    }

    /// Starts a second time what lags, while nothing else waits.
    fn start_seconds(&mut self, now: Time) {
        let seconds = self.jobs.values().filter(|job| job.of.is_some()).count();
        let mut left = (self.leases.len() / SECONDS_SHARE)
            .max(1)
            .saturating_sub(seconds);
        let lagging: Vec<(RequestId, LeaseId)> = self
            .leases
            .iter()
            .filter(|(_, held)| held.grant.home == Home::No)
            .filter_map(|(&id, held)| Some((held.running?, id)))
            .collect();
        for (request, lease) in lagging {
            if left == 0 {
                return;
            }
            let Some(job) = self.jobs.get(&request) else {
                continue;
            };
            if job.of.is_some() || job.second.is_some() || job.alone || job.gone {
                continue;
            }
            let held = &self.leases[&lease];
            let cost_us = self.cost_us(request);
            let left_us = self.left_us(held, now);
            let worth = |other: &Held| {
                let there = cost_us * slowness(&other.grant) + self.travel_us(other.grant.node);
                there * SECOND_FACTOR + SECOND_MARGIN_US < left_us
            };
            let idle = self.leases.iter().find(|(id, other)| {
                other.is_idle()
                    && other.grant.home == Home::No
                    && other.grant.node != held.grant.node
                    && other.is_for(&job.want.terms)
                    && self.may(request, **id)
                    && worth(other)
            });
            let idle = idle.map(|(&id, _)| id);
            let taken_us = now.since(held.since).as_micros() as f64;
            let expected_us = cost_us * slowness(&held.grant);
            let is_lost =
                taken_us > LOST_FACTOR * expected_us && taken_us > expected_us + LOST_MARGIN_US;
            if idle.is_none() && !is_lost {
                continue;
            }
            let mut want = job.want.clone();
            want.except.push(held.grant.node);
            want.own = OwnNode::Nothing;
            let second = self.add(want, Some(request), now);
            if let Some(job) = self.jobs.get_mut(&request) {
                job.second = Some(second);
            }
            left -= 1;
            if let Some(idle) = idle {
                self.start(second, idle, now);
            }
        }
    }

    /// Gives back what is asked back, and what has been idle for long enough.
    fn give_back(&mut self, expected: &[LeaseId], now: Time) {
        let busy = self.leases.values().any(|held| !held.is_empty());
        let goes = |id: LeaseId, held: &Held| {
            let is_wanted = || {
                (held.grant.home != Home::First || !busy)
                    && self.first_for(&held.grant.terms, id).is_some()
            };
            // One that is no use to those who wait must not look like room for them.
            let waits = self.waiting.contains_key(&held.grant.terms);
            let is_idle_too_long = match waits {
                true => !expected.contains(&id) && !is_wanted(),
                false => now.since(held.since) >= HOLD,
            };
            held.is_idle() && (held.revoked || held.void || is_idle_too_long)
        };
        let going: Vec<LeaseId> = self
            .leases
            .iter()
            .filter(|(id, held)| goes(**id, held))
            .map(|(&id, _)| id)
            .collect();
        for lease in going {
            if self.leases.remove(&lease).is_some_and(|held| !held.void) {
                self.actions.push(Action::Tell(Deal::Return(lease)));
            }
        }
    }

    // Words and numbers.

    fn tell_began(&mut self, request: RequestId, lease: LeaseId) {
        if let Some(held) = self.leases.get_mut(&lease) {
            // Said even of a void lease: the job no longer waits.
            self.actions
                .push(Action::Tell(Deal::Began { request, lease }));
            // A lease for one job is used up.
            held.revoked |= held.grant.once;
        }
        if let Some(job) = self.jobs.get_mut(&request) {
            job.begun = true;
        }
    }

    fn tell_ended(&mut self, request: RequestId, lease: LeaseId, outcome: Outcome) {
        if self.leases.get(&lease).is_some_and(|held| !held.void) {
            self.actions.push(Action::Tell(Deal::Ended {
                request,
                lease,
                outcome,
            }));
        }
    }

    fn enqueue(&mut self, request: RequestId, now: Time) {
        let cost_us = self.cost_us(request);
        if let Some(job) = self.jobs.get_mut(&request) {
            let turn = now.0 as i64 - cost_us as i64;
            job.turn = Some(turn);
            let waiting = self.waiting.entry(job.want.terms.clone()).or_default();
            waiting.insert((turn, request));
        }
    }

    fn dequeue(&mut self, request: RequestId) {
        let Some(job) = self.jobs.get_mut(&request) else {
            return;
        };
        if let Some(turn) = job.turn.take()
            && let Some(waiting) = self.waiting.get_mut(&job.want.terms)
        {
            waiting.remove(&(turn, request));
            if waiting.is_empty() {
                self.waiting.remove(&job.want.terms);
            }
        }
    }

    /// Forgets a job that has no place, and tells the scheduler if it waits there.
    fn forget(&mut self, request: RequestId) {
        self.dequeue(request);
        if let Some(job) = self.jobs.remove(&request) {
            if !job.begun {
                self.actions.push(Action::Tell(Deal::Withdraw(request)));
            }
            if let Some(first) = job.of.and_then(|of| self.jobs.get_mut(&of)) {
                first.second = None;
            }
        }
    }

    fn cost_us(&self, request: RequestId) -> f64 {
        let job = self.jobs.get(&request);
        job.map_or(self.mean_cost_us, |job| self.cost_of(job))
    }

    fn cost_of(&self, job: &Job) -> f64 {
        match job.size.cost_us {
            0 => self.mean_cost_us,
            known => known as f64,
        }
    }

    fn travel_us(&self, node: NodeId) -> f64 {
        let known = self.travels.get(&node);
        known.copied().unwrap_or(TRAVEL_UNKNOWN_US)
    }

    /// When everything that is under a lease will have ended, in microseconds from now.
    fn free_in_us(&self, held: &Held, now: Time) -> f64 {
        let next_us = held.next.map_or(0.0, |next| self.cost_us(next));
        self.left_us(held, now) + next_us * slowness(&held.grant)
    }

    /// When what runs under a lease will have ended, in microseconds from now. What takes longer than
    /// expected is taken to need half as long again.
    fn left_us(&self, held: &Held, now: Time) -> f64 {
        let Some(running) = held.running else {
            return 0.0;
        };
        let expected_us = self.cost_us(running) * slowness(&held.grant);
        let taken_us = now.since(held.since).as_micros() as f64;
        match taken_us < expected_us {
            true => expected_us - taken_us,
            false => taken_us / 2.0,
        }
    }

    fn room(&self, held: &Held, now: Time) -> Room {
        let travel_us = self.travel_us(held.grant.node);
        let slowness = slowness(&held.grant);
        let is_far = travel_us >= TRAVEL_SHARE * self.mean_cost_us * slowness;
        Room {
            slowness,
            free_in_us: held.running.map(|_| self.free_in_us(held, now)),
            travel_us,
            takes_next: is_far
                && held.running.is_some()
                && held.next.is_none()
                && held.landing.len() < LANDING_MAX,
        }
    }
}

impl Job {
    fn may_run_under(&self, held: &Held) -> bool {
        let available = held.grant.memory_mib;
        let fits = available == 0 || self.size.memory_mib <= available;
        let at_home = held.grant.home == Home::No || self.want.own == OwnNode::Locally;
        // What the scheduler lent for this very job is for it, whatever is thought here: it may have lent the
        // largest node that there is, or have numbered its nodes anew. Were that refused, it would lend it
        // again at once.
        let is_lent_for_it = held.grant.request == self.want.request;
        is_lent_for_it || fits && at_home && !self.want.except.contains(&held.grant.node)
    }

    /// Whether it neither waits nor is anywhere.
    fn is_nowhere(&self) -> bool {
        self.places.is_empty() && self.turn.is_none()
    }
}

impl Held {
    fn is_idle(&self) -> bool {
        self.running.is_none() && self.next.is_none()
    }

    /// Whether nothing of any job is here.
    fn is_empty(&self) -> bool {
        self.is_idle() && self.landing.is_empty()
    }

    /// Whether a new job of these terms may be put here.
    fn is_for(&self, terms: &Terms) -> bool {
        !self.revoked && !self.void && self.grant.terms == *terms
    }
}

fn slowness(grant: &Grant) -> f64 {
    f64::from(grant.slowness_milli.max(1)) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Bytes, Digest};
    use crate::message::Usage;

    const MS: u64 = 1000;

    struct Story {
        holdings: Holdings,
        now: Time,
        leases: u64,
    }

    impl Story {
        fn new() -> Self {
            Self {
                holdings: Holdings::default(),
                now: Time(0),
                leases: 0,
            }
        }

        fn terms() -> Terms {
            Terms {
                niceness: 0,
                platform: "x86_64".into(),
                preferred: String::new(),
            }
        }

        fn want_with(&mut self, change: impl FnOnce(&mut Want)) -> (RequestId, Vec<Action>) {
            let mut want = Want {
                request: RequestId(0),
                toolchain: Digest([1; 32]),
                terms: Self::terms(),
                file: Bytes::from("a.c"),
                variant: 0,
                except: vec![],
                own: OwnNode::Locally,
            };
            change(&mut want);
            self.holdings.want(want, self.now)
        }

        fn want(&mut self) -> (RequestId, Vec<Action>) {
            self.want_with(|_| {})
        }

        fn grant_with(
            &mut self,
            node: u32,
            change: impl FnOnce(&mut Grant),
        ) -> (LeaseId, Vec<Action>) {
            self.leases += 1;
            let mut grant = Grant {
                request: RequestId(0),
                terms: Self::terms(),
                lease: LeaseId(self.leases),
                node: NodeId(node),
                name: format!("n{node}"),
                address: "10.0.0.1:1".parse().unwrap(),
                term: crate::id::Term::default(),
                home: Home::No,
                once: false,
                slowness_milli: 1000,
                memory_mib: 0,
            };
            change(&mut grant);
            let lease = grant.lease;
            (lease, self.event(Event::Offer(Offer::Grant(grant))))
        }

        fn grant(&mut self, node: u32) -> (LeaseId, Vec<Action>) {
            self.grant_with(node, |_| {})
        }

        fn event(&mut self, event: Event) -> Vec<Action> {
            self.holdings.on_event(event, self.now)
        }

        fn end(&mut self, request: RequestId, lease: LeaseId, outcome: Outcome) -> Vec<Action> {
            self.event(Event::Ended {
                request,
                lease,
                outcome,
            })
        }

        fn pass(&mut self, time_ms: u64) -> Vec<Action> {
            self.now = self.now.after(Duration::from_millis(time_ms));
            self.event(Event::Tick)
        }

        fn far(&mut self, node: u32) {
            let _ = self.event(Event::Travel(NodeId(node), Duration::from_millis(50)));
        }

        fn revoke(&mut self, lease: LeaseId) -> Vec<Action> {
            self.event(Event::Offer(Offer::Revoke(lease)))
        }

        /// Nothing is left over.
        fn assert_empty(&self) {
            let holdings = &self.holdings;
            assert!(holdings.jobs.is_empty(), "{:?}", holdings.jobs);
            assert!(holdings.leases.is_empty(), "{:?}", holdings.leases);
            assert!(holdings.waiting.is_empty());
        }
    }

    fn done(wall_ms: u64) -> Outcome {
        Outcome::Done {
            usage: Usage {
                wall_us: wall_ms * MS,
                ..Usage::default()
            },
            output_bytes: 1,
        }
    }

    fn dead() -> Outcome {
        Outcome::Failed {
            failure: Failure::Internal,
            dead: true,
        }
    }

    /// The starts among the actions, as job and lease.
    fn starts(actions: &[Action]) -> Vec<(RequestId, LeaseId)> {
        let starts = actions.iter().filter_map(|action| match action {
            Action::Start(request, grant) => Some((*request, grant.lease)),
            _ => None,
        });
        starts.collect()
    }

    fn recalls(actions: &[Action]) -> Vec<(RequestId, LeaseId)> {
        let recalls = actions.iter().filter_map(|action| match action {
            Action::Recall(request, lease) => Some((*request, *lease)),
            _ => None,
        });
        recalls.collect()
    }

    fn told(actions: &[Action]) -> Vec<Deal> {
        let told = actions.iter().filter_map(|action| match action {
            Action::Tell(deal) => Some(deal.clone()),
            _ => None,
        });
        told.collect()
    }

    fn returned(actions: &[Action]) -> Vec<LeaseId> {
        let told = told(actions).into_iter();
        told.filter_map(|deal| match deal {
            Deal::Return(lease) => Some(lease),
            _ => None,
        })
        .collect()
    }

    #[test]
    fn a_lease_serves_job_after_job_and_goes_back_after_a_gap() {
        let mut story = Story::new();
        let (first, actions) = story.want();
        assert!(matches!(&told(&actions)[..], [Deal::Want(_)]));
        let (second, _) = story.want();
        let (lease, actions) = story.grant(1);
        assert_eq!(starts(&actions), [(first, lease)]);
        let request = first;
        assert_eq!(told(&actions), [Deal::Began { request, lease }]);
        // The next starts in the same breath as the first ends.
        let outcome = done(100);
        let actions = story.end(first, lease, outcome);
        assert_eq!(starts(&actions), [(second, lease)]);
        let ended = Deal::Ended {
            request,
            lease,
            outcome,
        };
        let request = second;
        assert_eq!(told(&actions), [ended, Deal::Began { request, lease }]);
        let _ = story.end(second, lease, done(100));
        // A late third need not ask either.
        let _ = story.pass(250);
        let (third, actions) = story.want();
        assert_eq!(starts(&actions), [(third, lease)]);
        let _ = story.end(third, lease, done(100));
        assert_eq!(
            story.holdings.next_wake(story.now),
            Some(story.now.after(HOLD))
        );
        assert_eq!(returned(&story.pass(299)), []);
        assert_eq!(returned(&story.pass(1)), [lease]);
        story.assert_empty();
        assert_eq!(story.holdings.next_wake(story.now), None);
    }

    #[test]
    fn where_the_way_is_long_the_next_job_waits_at_its_worker() {
        let mut story = Story::new();
        let (first, _) = story.want();
        let (lease, _) = story.grant(1);
        let (second, actions) = story.want();
        assert_eq!(starts(&actions), [], "the way is short as far as is known");
        story.far(1);
        let (third, _) = story.want();
        let actions = story.pass(0);
        assert_eq!(
            starts(&actions),
            [],
            "{second} has been sent already, and one is enough"
        );
        // To the scheduler it waits until it runs.
        let actions = story.event(Event::Started {
            request: second,
            lease,
        });
        let request = second;
        assert_eq!(told(&actions)[0], Deal::Began { request, lease });
        assert_eq!(
            starts(&actions),
            [(third, lease)],
            "one place is free again"
        );
        let _ = story.end(first, lease, done(100));
        let actions = story.end(second, lease, done(100));
        let request = third;
        assert!(told(&actions).contains(&Deal::Began { request, lease }));
        let _ = story.end(third, lease, done(100));
        assert_eq!(returned(&story.pass(300)), [lease]);
        story.assert_empty();
    }

    #[test]
    fn what_waits_at_a_worker_is_called_back_when_another_lease_is_free_first() {
        let mut story = Story::new();
        let (first, _) = story.want();
        let (one, _) = story.grant(1);
        story.far(1);
        story.far(2);
        let (second, actions) = story.want();
        assert_eq!(starts(&actions), [(second, one)]);
        let (two, actions) = story.grant(2);
        assert_eq!(recalls(&actions), [(second, one)]);
        let actions = story.end(second, one, Outcome::Unused);
        assert_eq!(starts(&actions), [(second, two)]);
        let _ = story.end(first, one, done(100));
        let _ = story.end(second, two, done(100));
        assert_eq!(returned(&story.pass(300)), [one, two]);
        story.assert_empty();
    }

    #[test]
    fn a_revoked_lease_goes_back_at_once_or_when_what_runs_has_ended() {
        let mut story = Story::new();
        let (first, _) = story.want();
        let (lease, _) = story.grant(1);
        story.far(1);
        let (second, actions) = story.want();
        assert_eq!(starts(&actions), [(second, lease)]);
        let actions = story.revoke(lease);
        assert_eq!(recalls(&actions), [(second, lease)]);
        assert_eq!(starts(&story.end(second, lease, Outcome::Unused)), []);
        assert_eq!(returned(&story.end(first, lease, done(1))), [lease]);
        let (idle, actions) = story.grant(2);
        assert_eq!(starts(&actions), [(second, idle)], "it waits still");
        let _ = story.end(second, idle, done(1));
        assert_eq!(returned(&story.revoke(idle)), [idle]);
        story.assert_empty();
    }

    #[test]
    fn a_job_that_started_before_it_could_be_called_back_stays_where_it_is() {
        let mut story = Story::new();
        let (first, _) = story.want();
        let (lease, _) = story.grant(1);
        story.far(1);
        let (second, _) = story.want();
        assert_eq!(recalls(&story.revoke(lease)), [(second, lease)]);
        let request = second;
        let _ = story.event(Event::Started { request, lease });
        let _ = story.end(first, lease, done(1));
        assert_eq!(returned(&story.end(second, lease, done(1))), [lease]);
        story.assert_empty();
    }

    #[test]
    fn when_the_scheduler_goes_what_runs_goes_on_and_nothing_new_begins() {
        let mut story = Story::new();
        let (first, _) = story.want();
        let (void, _) = story.grant(1);
        let (_idle, _) = story.grant(2);
        let (second, _) = story.want();
        assert_eq!(story.holdings.held(), 2);
        let _ = story.end(second, LeaseId(2), done(1));
        let _ = story.event(Event::Void);
        assert_eq!(story.holdings.held(), 1);
        let (third, actions) = story.want();
        assert_eq!(starts(&actions), []);
        let actions = story.end(first, void, done(1));
        assert_eq!((starts(&actions), told(&actions)), (vec![], vec![]));
        let (lease, actions) = story.grant(1);
        assert_eq!(starts(&actions), [(third, lease)]);
    }

    #[test]
    fn a_dead_nodes_leases_go_back_and_its_job_asks_anew() {
        let mut story = Story::new();
        let (first, _) = story.want();
        let (one, _) = story.grant(1);
        let (other, _) = story.want();
        let (two, _) = story.grant(1);
        let _ = story.end(other, two, done(1));
        assert_eq!(returned(&story.end(first, one, dead())), [one, two]);
        let (again, actions) = story.want_with(|want| want.except = vec![NodeId(1)]);
        assert_eq!(starts(&actions), []);
        // A lease that it may not use is not kept from others.
        let (useless, actions) = story.grant(1);
        assert_eq!(
            (starts(&actions), returned(&actions)),
            (vec![], vec![useless])
        );
        let (useful, actions) = story.grant(2);
        assert_eq!(starts(&actions), [(again, useful)]);
    }

    #[test]
    fn the_own_machine_is_for_the_first_job_or_for_what_is_too_much_for_the_others() {
        let mut story = Story::new();
        let (first, _) = story.want();
        let (home, actions) = story.grant_with(0, |grant| grant.home = Home::First);
        assert_eq!(starts(&actions), [(first, home)]);
        let (second, _) = story.want();
        let (third, _) = story.want();
        let (out, actions) = story.grant(1);
        assert_eq!(starts(&actions), [(second, out)]);
        let actions = story.end(first, home, Outcome::Unused);
        assert_eq!((starts(&actions), returned(&actions)), (vec![], vec![home]));
        let (overflow, actions) = story.grant_with(0, |grant| grant.home = Home::Overflow);
        assert_eq!(starts(&actions), [(third, overflow)]);
        let _ = story.end(third, overflow, Outcome::Unused);
        let _ = story.end(second, out, done(1));
        // One after another is always the first.
        let (fourth, actions) = story.want();
        assert_eq!(starts(&actions), [(fourth, out)], "what is held is used");
    }

    #[test]
    fn a_job_too_large_for_a_node_does_not_go_there() {
        let mut story = Story::new();
        let (large, _) = story.want();
        let size = Size {
            cost_us: 5_000_000,
            memory_mib: 8000,
        };
        let request = large;
        let _ = story.event(Event::Offer(Offer::Size { request, size }));
        let (small, _) = story.want();
        let (lease, actions) = story.grant_with(1, |grant| grant.memory_mib = 4000);
        assert_eq!(starts(&actions), [(small, lease)]);
    }

    #[test]
    fn the_longest_of_those_that_came_together_goes_first() {
        let mut story = Story::new();
        let (short, _) = story.want();
        let (long, _) = story.want();
        let size = Size {
            cost_us: 5_000_000,
            memory_mib: 0,
        };
        let request = long;
        let _ = story.event(Event::Offer(Offer::Size { request, size }));
        let (lease, actions) = story.grant(1);
        assert_eq!(starts(&actions), [(long, lease)]);
        let actions = story.end(long, lease, done(5000));
        assert_eq!(starts(&actions), [(short, lease)]);
    }

    #[test]
    fn a_lease_for_one_job_goes_back_after_it() {
        let mut story = Story::new();
        let (first, _) = story.want();
        let (_second, _) = story.want();
        let (lease, _) = story.grant_with(1, |grant| grant.once = true);
        let actions = story.end(first, lease, done(1));
        assert_eq!(
            (starts(&actions), returned(&actions)),
            (vec![], vec![lease])
        );
    }

    #[test]
    fn at_the_end_a_job_on_a_slow_node_is_started_again_on_a_fast_one() {
        let mut story = Story::new();
        let (lagging, _) = story.want();
        let (other, _) = story.want();
        let (slow, _) = story.grant_with(1, |grant| grant.slowness_milli = 10_000);
        let (fast, actions) = story.grant(2);
        let (first, second) = match starts(&actions)[..] {
            [(request, _)] if request == lagging => (lagging, other),
            _ => (other, lagging),
        };
        let _ = (first, second);
        let _ = story.pass(100);
        // Whichever of the two went to the fast node: its end leaves the other to lag.
        let on_fast = story.holdings.leases[&fast].running.unwrap();
        let on_slow = story.holdings.leases[&slow].running.unwrap();
        let actions = story.end(on_fast, fast, done(100));
        assert_eq!(starts(&actions), [(on_slow, fast)]);
        let deals = told(&actions);
        assert!(
            matches!(&deals[1..], [Deal::Want(_), Deal::Began { .. }]),
            "{deals:?}"
        );
        // No third.
        assert_eq!(starts(&story.pass(300)), []);
        // The second start has the result first; the first is ended by who runs it.
        let _ = story.end(on_slow, fast, done(100));
        let _ = story.event(Event::Gone(on_slow));
        let _ = story.end(on_slow, slow, Outcome::Unused);
        assert_eq!(returned(&story.pass(300)), [slow, fast]);
        story.assert_empty();
    }

    #[test]
    fn a_lost_job_asks_for_a_second_lease_elsewhere() {
        let mut story = Story::new();
        let (lost, _) = story.want();
        let (frozen, _) = story.grant(1);
        assert_eq!(told(&story.pass(2400)), []);
        let deals = told(&story.pass(200));
        let [Deal::Want(want)] = &deals[..] else {
            panic!("{deals:?}")
        };
        assert_eq!(want.except, [NodeId(1)]);
        assert_eq!(want.own, OwnNode::Nothing);
        let (lease, actions) = story.grant(2);
        assert_eq!(starts(&actions), [(lost, lease)]);
        // Should that fail, the first goes on, and is the only one that does.
        let _ = story.end(lost, lease, dead());
        assert!(story.holdings.jobs.contains_key(&lost));
        let _ = story.end(lost, frozen, done(9000));
        let _ = story.pass(300);
        story.assert_empty();
    }

    #[test]
    fn a_denied_second_start_is_not_asked_for_again() {
        let mut story = Story::new();
        let (lost, _) = story.want();
        let (_lease, _) = story.grant(1);
        let deals = told(&story.pass(5000));
        let [Deal::Want(want)] = &deals[..] else {
            panic!("{deals:?}")
        };
        let request = want.request;
        let why = "nobody".to_owned();
        let actions = story.event(Event::Offer(Offer::Deny { request, why }));
        assert_eq!(actions, [], "{lost} runs on");
        assert_eq!(story.pass(5000), []);
    }

    #[test]
    fn a_denial_reaches_who_waits_and_nobody_else() {
        let mut story = Story::new();
        let (runs, _) = story.want();
        let _ = story.grant(1);
        let (waits, _) = story.want();
        let mut deny = |request| {
            let why = "no".to_owned();
            story.event(Event::Offer(Offer::Deny { request, why }))
        };
        assert_eq!(deny(runs), []);
        assert_eq!(deny(waits), [Action::Deny(waits, "no".into())]);
        assert_eq!(deny(waits), []);
    }

    #[test]
    fn a_job_that_nobody_wants_is_withdrawn() {
        let mut story = Story::new();
        let (waits, _) = story.want();
        let deals = told(&story.event(Event::Gone(waits)));
        assert_eq!(deals, [Deal::Withdraw(waits)]);
        let (runs, _) = story.want();
        let (lease, _) = story.grant(1);
        assert_eq!(story.event(Event::Gone(runs)), []);
        let _ = story.end(runs, lease, Outcome::Unused);
        assert_eq!(returned(&story.pass(300)), [lease]);
        story.assert_empty();
    }
}
