//! What a submitter holds and has, and what happens to it. Pure.
//!
//! Takes in one event at a time and keeps leases and jobs true to it; what follows from it is drawn in
//! [`Holdings::settle`]. The scheduler is told here of each job that begins or ends.

use std::time::Duration;

use super::foresight::{Foresight, slowness};
use super::held::{Held, Leases, Left};
use super::placing::{TOLD_NEAR, TOLD_WITHIN};
use super::waiting::{Job, Jobs};
use crate::id::{LeaseId, NodeId, RequestId, Time};
use crate::message::{Deal, Failure, Grant, Offer, Outcome, Terms, Want};
use crate::submitter::ways::Measured;

/// How long a lease is held without a job: `make` has gaps.
pub(super) const HOLD: Duration = Duration::from_millis(300);
/// How often jobs that may lag are looked at, while nothing waits: so many times in the length of one, within
/// these bounds.
const LOOKS_PER_JOB: f64 = 8.0;
const LOOK_LEAST: Duration = Duration::from_millis(250);
const LOOK_MOST: Duration = Duration::from_millis(1000);

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
    /// Something of the way to a node and back was measured.
    Way(NodeId, Measured),
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
#[derive(Debug, Default)]
pub struct Holdings {
    pub(super) jobs: Jobs,
    pub(super) leases: Leases,
    pub(super) foresight: Foresight,
    /// When the last job came, and when one came while there was no other.
    asked_at: Time,
    began_at: Time,
    /// Jobs that were done since the last one came: when that goes on, the build comes to its end.
    pub(super) done_since_want: usize,
    /// The last job of which the scheduler has said something.
    told: Option<RequestId>,
    /// When jobs that may lag were last looked at.
    pub(super) looked_at: Time,
    /// When a job ought to end so that the others that wait surely take longer, for such leases, and when that was
    /// found.
    pub(super) surely_before: Option<(Terms, Time, Time)>,
    /// How slow the fastest idle lease was by then, in thousandths.
    pub(super) looked_for: u32,
    pub(super) actions: Vec<Action>,
}

impl Holdings {
    /// A job wants a slot; its number is given here.
    pub fn want(&mut self, want: Want, now: Time) -> (RequestId, Vec<Action>) {
        self.done_since_want = 0;
        self.asked_at = now;
        if self.jobs.len() == 0 {
            self.began_at = now;
        }
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
            Event::Way(node, measured) => self.measured(node, measured, now),
            Event::Tick => {}
        }
        self.settle(now);
        std::mem::take(&mut self.actions)
    }

    /// When the next [`Event::Tick`] is due, if nothing else happens.
    pub fn next_wake(&self, now: Time) -> Option<Time> {
        let told = self.asked_at.after(TOLD_WITHIN);
        let begin = self.is_beginning(now).then(|| now.after(TOLD_NEAR));
        let idle = self.leases.classes().filter_map(|(terms, class)| {
            let (since, _) = class.idle_since.first()?;
            let old = since.after(HOLD);
            if !self.jobs.any_waits_for(terms) {
                return Some(old);
            }
            // One that somebody waits for is held. It may be of use when the last job that came is known, and
            // it may be held for nobody.
            let ages = class.idle_since.iter().map(|(since, _)| since.after(HOLD));
            ages.chain([told]).filter(|&at| at > now).min()
        });
        let may_lag = !self.jobs.any_waits() && !self.leases.running().is_empty();
        let pause = Duration::from_micros((self.foresight.mean_cost_us() / LOOKS_PER_JOB) as u64);
        let look = may_lag.then(|| now.after(pause.clamp(LOOK_LEAST, LOOK_MOST)));
        idle.chain(look)
            .chain(begin)
            .min()
            .map(|wake| wake.max(now))
    }

    /// Whether a build begins with more jobs than leases, and of some the scheduler may say in a moment that they
    /// are the longest. What it says of one job it says before what it says of the next.
    pub(super) fn is_beginning(&self, now: Time) -> bool {
        let is_told = self.jobs.last() <= self.told;
        !is_told
            && now.since(self.began_at) < TOLD_NEAR
            && !self.leases.any_busy()
            && self.jobs.waiting() > self.leases.len()
    }

    /// How many jobs wait for a place.
    pub fn waiting(&self) -> usize {
        self.jobs.waiting()
    }

    /// How many leases are held.
    pub fn held(&self) -> usize {
        self.leases.len()
    }

    /// A job comes, or the second start of one, and waits.
    pub(super) fn add(&mut self, want: Want, of: Option<RequestId>, now: Time) -> RequestId {
        let request = self.jobs.add(want, of, now);
        if let Some(job) = self.jobs.find(request) {
            let deal = Deal::Want(job.want.clone());
            self.actions.push(Action::Tell(deal));
        }
        self.enqueue(request, now);
        request
    }

    fn enqueue(&mut self, request: RequestId, now: Time) {
        let cost_us = self.cost_us(request);
        self.jobs.enqueue(request, cost_us, now);
    }

    fn offer(&mut self, offer: Offer, now: Time) {
        if let Offer::Grant(Grant { request, .. }) | Offer::Size { request, .. } = &offer {
            self.told = self.told.max(Some(*request));
        }
        match offer {
            Offer::Grant(grant) => {
                // What the scheduler knows of a node's speed and memory by now.
                for id in self.leases.of_node(grant.node) {
                    self.leases.change(id, |held| {
                        if held.grant.home == grant.home && !held.void {
                            held.grant.slowness_milli = grant.slowness_milli;
                            held.grant.memory_mib = grant.memory_mib;
                        }
                    });
                }
                self.leases.insert(Held::new(grant, now));
            }
            Offer::Size { request, size } => {
                if size.cost_us > 0 {
                    self.foresight.learn_cost(size.cost_us as f64);
                }
                if self.jobs.learn_size(request, size) {
                    self.enqueue(request, now);
                }
            }
            Offer::Revoke(lease) => {
                self.leases.change(lease, |held| held.revoked = true);
                self.recall(lease);
            }
            Offer::Deny { request, why } => self.denied(request, why),
        }
    }

    fn denied(&mut self, request: RequestId, why: String) {
        let Some(job) = self.jobs.find_mut(request).filter(|job| job.waits()) else {
            return;
        };
        // It no longer waits there.
        job.begun = true;
        let of = job.of;
        self.forget(request);
        match of {
            None => self.actions.push(Action::Deny(request, why)),
            Some(of) => {
                if let Some(first) = self.jobs.find_mut(of) {
                    first.alone = true;
                }
            }
        }
    }

    fn measured(&mut self, node: NodeId, measured: Measured, now: Time) {
        self.foresight.ways.learn(node, measured);
        // The scheduler knows the worker by a lease, so that a number of an earlier scheduler means nothing.
        let of_node = self.leases.of_node(node).into_iter();
        let mut valid = of_node.filter(|id| self.leases.find(*id).is_some_and(|held| !held.void));
        if let Some(lease) = valid.next()
            && let Some(way) = self.foresight.ways.to_tell(node, now)
        {
            self.actions.push(Action::Tell(Deal::Way { lease, way }));
        }
    }

    fn void(&mut self) {
        // The next scheduler numbers the nodes anew.
        self.foresight.ways.clear();
        for job in self.jobs.iter_mut() {
            job.want.except.clear();
        }
        for id in self.leases.ids() {
            self.leases.change(id, |held| held.void = true);
        }
    }

    fn started(&mut self, request: RequestId, lease: LeaseId, now: Time) {
        let jobs = &self.jobs;
        let begun = self.leases.change(lease, |held| {
            let begun = held.next.take_if(|next| jobs.is_it(*next, request));
            if let Some(next) = begun {
                held.recalled = false;
                held.landing.extend(held.running.replace(next));
            }
            if held
                .running
                .is_some_and(|running| jobs.is_it(running, request))
            {
                held.since = now;
            }
            begun
        });
        if let Some(next) = begun.flatten() {
            self.tell_began(next, lease);
        }
    }

    fn ended(&mut self, request: RequestId, lease: LeaseId, outcome: Outcome, now: Time) {
        let Some(left) = self.leave_place(request, lease, outcome, now) else {
            // Its lease went back while its result was on its way.
            match outcome {
                Outcome::Done { .. } => self.finish(request),
                Outcome::Failed { .. } | Outcome::Unused | Outcome::Lagged { .. } => {
                    self.leave(request);
                }
            }
            return;
        };
        match outcome {
            Outcome::Done { usage, .. } => {
                self.done_since_want += 1;
                if let Some(held) = self.leases.find(lease) {
                    let cost_us = usage.wall_us as f64 / slowness(&held.grant);
                    self.foresight.learn_cost(cost_us);
                }
                self.finish(request);
            }
            Outcome::Failed { failure, dead } => {
                self.distrust(lease, failure, dead);
                self.leave(left.job);
            }
            Outcome::Unused
                if left.was_recalled && self.jobs.find(left.job).is_some_and(|job| !job.gone) =>
            {
                self.enqueue(left.job, now);
            }
            Outcome::Unused | Outcome::Lagged { .. } => self.leave(left.job),
        }
    }

    /// Takes a job off its lease, if it is there.
    fn leave_place(
        &mut self,
        request: RequestId,
        lease: LeaseId,
        outcome: Outcome,
        now: Time,
    ) -> Option<Left> {
        let jobs = &self.jobs;
        let is_it = |told: &RequestId| jobs.is_it(*told, request);
        let is_done = matches!(outcome, Outcome::Done { .. });
        let left = self
            .leases
            .change(lease, |held| held.leave(is_it, is_done, now))??;
        if left.begins_late {
            self.tell_began(left.job, lease);
        }
        if left.had_begun || left.begins_late {
            self.tell_ended(left.job, lease, outcome);
        }
        if let Some(next) = left.begins {
            self.tell_began(next, lease);
        }
        if let Some(job) = self.jobs.find_mut(left.job) {
            job.places.retain(|place| *place != lease);
        }
        Some(left)
    }

    /// A job is done: it is forgotten, and so is its second start.
    fn finish(&mut self, request: RequestId) {
        let Some(job) = self.jobs.find(request) else {
            return;
        };
        let second = job.second;
        for request in [Some(request), second].into_iter().flatten() {
            let job = self.jobs.find_mut(request);
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
        let Some(job) = self.jobs.find(told).filter(|job| job.is_nowhere()) else {
            return;
        };
        let of = job.of;
        if job.second.is_some() {
            // Whoever runs it goes on with the second start.
            return;
        }
        self.forget(told);
        if let Some(of) = of
            && self.jobs.find(of).is_some_and(Job::is_nowhere)
        {
            self.forget(of);
        }
    }

    fn gone(&mut self, request: RequestId) {
        let Some(job) = self.jobs.find_mut(request) else {
            return;
        };
        job.gone = true;
        let second = job.second;
        for request in [Some(request), second].into_iter().flatten() {
            if self
                .jobs
                .find(request)
                .is_some_and(|job| job.places.is_empty())
            {
                self.forget(request);
            }
        }
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
        let Some(held) = self.leases.find(lease) else {
            return;
        };
        if about_the_job && !dead {
            return;
        }
        // The number of a void lease's node may be another's by now.
        let of_node = match dead && !held.void {
            true => self.leases.of_node(held.grant.node),
            false => vec![lease],
        };
        for id in of_node {
            self.leases
                .change(id, |held| held.revoked |= id == lease || !held.void);
        }
    }

    // What the scheduler is told.

    pub(super) fn tell_began(&mut self, request: RequestId, lease: LeaseId) {
        // A lease for one job is used up.
        let used = |held: &mut Held| held.revoked |= held.grant.once;
        if self.leases.change(lease, used).is_some() {
            // Said even of a void lease: the job no longer waits.
            self.actions
                .push(Action::Tell(Deal::Began { request, lease }));
        }
        if let Some(job) = self.jobs.find_mut(request) {
            job.begun = true;
        }
    }

    fn tell_ended(&mut self, request: RequestId, lease: LeaseId, outcome: Outcome) {
        if self.leases.find(lease).is_some_and(|held| !held.void) {
            self.actions.push(Action::Tell(Deal::Ended {
                request,
                lease,
                outcome,
            }));
        }
    }

    /// Forgets a job that has no place, and tells the scheduler if it waits there.
    fn forget(&mut self, request: RequestId) {
        if let Some(job) = self.jobs.remove(request) {
            if !job.begun {
                self.actions.push(Action::Tell(Deal::Withdraw(request)));
            }
            if let Some(first) = job.of.and_then(|of| self.jobs.find_mut(of)) {
                first.second = None;
            }
        }
    }
}
