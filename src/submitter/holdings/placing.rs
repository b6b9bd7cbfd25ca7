//! Which job goes where, what is called back and what goes back. Pure.
//!
//! Changes leases and jobs, and never on its own account: it runs after each thing that happened. What is asked at
//! each event is asked of lists, so that an event costs the same with ten leases and with a thousand; only when
//! a build comes to its end and a lease is idle, or when a slow one is, are all looked at.

use std::ops::Bound;
use std::time::Duration;

use super::foresight::slowness;
use super::held::Held;
use super::state::{Action, HOLD, Holdings};
use super::waiting::Job;
use crate::id::{LeaseId, RequestId, Time};
use crate::message::{Deal, Home, Terms};
use crate::submitter::allot::{Allotment, PLAYED_MAX, Room, allot, surely_before_us};

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
/// All leases are looked at no more often than this while more jobs are to come.
const LOOKED_AHEAD: Duration = Duration::from_millis(100);
/// How far a job's time may well be from what was expected, as a share of that.
const DOUBT_SHARE: f64 = 0.05;
/// What is known of a job's size is told within this time, unless the scheduler is very far.
pub(super) const TOLD_WITHIN: Duration = Duration::from_millis(20);
/// The same where the scheduler is near. For so long a build may wait with its first jobs, so that the longest
/// are among them.
pub(super) const TOLD_NEAR: Duration = Duration::from_millis(2);

impl Holdings {
    /// Puts jobs into places, looks for those that lag, and gives back what nobody needs.
    pub(super) fn settle(&mut self, now: Time) {
        if self.is_beginning(now) {
            return;
        }
        let any_idle = self.leases.any_idle();
        for terms in self.jobs.terms() {
            if any_idle {
                self.stay_at_home(&terms, now);
            }
            match self.is_ending() {
                true => self.play(&terms, now),
                false => self.fill(&terms, now),
            }
        }
        let expected = match any_idle {
            true => self.call_back(now),
            false => Vec::new(),
        };
        if !self.jobs.any_waits() {
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
        let Some(class) = self.leases.class(terms) else {
            return;
        };
        let home: Vec<LeaseId> = class.idle_at_home(Home::First).collect();
        for lease in home {
            let Some(held) = self.leases.find(lease) else {
                continue;
            };
            let request = match self.leases.any_busy() {
                true => self.jobs.due_at_home(held),
                false => self.jobs.first_for(held),
            };
            if let Some(request) = request {
                self.start(request, lease, now);
            }
        }
    }

    /// While more jobs are to come: no idle lease is left without a job. The fast ones get the first that
    /// wait, the slow ones the shortest.
    fn fill(&mut self, terms: &Terms, now: Time) {
        self.fill_idle(terms, now);
        if !self.jobs.any_waits_for(terms) || !self.foresight.any_far() {
            return;
        }
        let Some(class) = self.leases.class(terms) else {
            return;
        };
        let mut takers: Vec<(f64, LeaseId)> = class
            .takers
            .iter()
            .filter_map(|&id| Some((id, self.leases.find(id)?)))
            .filter(|(_, held)| self.foresight.is_far(&held.grant))
            .map(|(id, held)| (self.free_in_us(held, now), id))
            .collect();
        takers.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        for (_, lease) in takers {
            let held = self.leases.find(lease);
            let Some(request) = held.and_then(|held| self.jobs.first_for(held)) else {
                return;
            };
            self.send_ahead(request, lease);
        }
    }

    fn fill_idle(&mut self, terms: &Terms, now: Time) {
        let Some(class) = self.leases.class(terms) else {
            return;
        };
        let fastest = class
            .away
            .first()
            .map(|&(slowness_milli, _)| slowness_milli);
        let is_slow = |slowness_milli: u32| {
            fastest.is_some_and(|fastest| {
                slowness_milli > fastest.saturating_add(fastest / SLOWER_SHARE)
            })
        };
        // In their order, and no further than jobs wait.
        let mut at = class.idle.first().copied();
        let mut slow = Vec::new();
        while let Some((home, slowness_milli, lease)) = at {
            if slow.len() >= self.jobs.waiting_for(terms).len() {
                break;
            }
            match home {
                Home::No if is_slow(slowness_milli) => slow.push(lease),
                Home::No => self.start_first(lease, now),
                Home::First | Home::Overflow => break,
            }
            at = self.leases.class(terms).and_then(|class| {
                let behind = (
                    Bound::Excluded((home, slowness_milli, lease)),
                    Bound::Unbounded,
                );
                class.idle.range(behind).next().copied()
            });
        }
        let short_us = self.foresight.mean_cost_us() * LONG_FACTOR;
        self.start_short(terms, slow, short_us, now);
        let Some(class) = self.leases.class(terms) else {
            return;
        };
        let overflow: Vec<LeaseId> = class.idle_at_home(Home::Overflow).collect();
        for lease in overflow {
            self.start_first(lease, now);
        }
    }

    fn start_first(&mut self, lease: LeaseId, now: Time) {
        let held = self.leases.find(lease);
        if let Some(request) = held.and_then(|held| self.jobs.first_for(held)) {
            self.start(request, lease, now);
        }
    }

    /// Leases that are not to have a long job get one that will have ended before the rest of those that wait, and of
    /// these the longest: the short ones fit in anywhere later. Where there is none they get the shortest, if it
    /// costs no more than `short_us`. None gets a job whose size may be told in a moment.
    fn start_short(&mut self, terms: &Terms, leases: Vec<LeaseId>, short_us: f64, now: Time) {
        if leases.is_empty() || !self.jobs.any_waits_for(terms) {
            return;
        }
        let latest_us = self.surely_before_us(terms, now);
        let told_since = Time(now.0.saturating_sub(TOLD_WITHIN.as_micros() as u64));
        let mean_us = self.foresight.mean_cost_us();
        for lease in leases {
            let Some(held) = self.leases.find(lease) else {
                continue;
            };
            let longest_us = self.room(held, now).longest_us(latest_us);
            let unknown = || match mean_us <= longest_us.max(short_us) {
                true => self.jobs.first_unknown(held, told_since),
                false => None,
            };
            let shortest = || {
                let shortest = self.jobs.shortest(held)?;
                (self.cost_us(shortest) <= short_us).then_some(shortest)
            };
            let found = self.jobs.longest_within(held, longest_us);
            if let Some(request) = found.or_else(unknown).or_else(shortest) {
                self.start(request, lease, now);
            }
        }
    }

    /// When a job ought to end so that the others that wait surely take longer, in microseconds from now.
    fn surely_before_us(&mut self, terms: &Terms, now: Time) -> f64 {
        if let Some((of, looked, at)) = &self.surely_before
            && of == terms
            && now.since(*looked) < LOOKED_AHEAD
        {
            return at.since(now).as_micros() as f64;
        }
        let class = self.leases.class(terms);
        let away = class.into_iter().flat_map(|class| &class.away);
        let rooms: Vec<Room> = away
            .filter_map(|&(_, id)| Some(self.room(self.leases.find(id)?, now)))
            .collect();
        let work_us = self.jobs.work_us(terms, self.foresight.mean_cost_us());
        let before_us = surely_before_us(&rooms, work_us);
        let at = now.after(Duration::from_micros(before_us as u64));
        self.surely_before = Some((terms.clone(), now, at));
        before_us
    }

    /// When the end is near: each job goes where it is finished first, given what else waits.
    fn play(&mut self, terms: &Terms, now: Time) {
        let Some(class) = self.leases.class(terms) else {
            return;
        };
        // An own slot is there only while all others are full.
        let overflow: Vec<LeaseId> = class.idle_at_home(Home::Overflow).collect();
        let any_takes_next = self.foresight.any_far() && !class.takers.is_empty();
        let in_advance = match any_takes_next || class.idle_away().next().is_some() {
            true => self.play_away(terms, now),
            false => Vec::new(),
        };
        for lease in overflow {
            self.start_first(lease, now);
        }
        for (request, lease) in in_advance {
            self.send_ahead(request, lease);
        }
    }

    /// Begins what is to begin at workers now; what is to be sent there in advance.
    fn play_away(&mut self, terms: &Terms, now: Time) -> Vec<(RequestId, LeaseId)> {
        let Some(class) = self.leases.class(terms) else {
            return Vec::new();
        };
        let places: Vec<(LeaseId, &Held)> = class
            .away
            .iter()
            .filter_map(|&(_, id)| Some((id, self.leases.find(id)?)))
            .collect();
        let rooms: Vec<Room> = places
            .iter()
            .map(|(_, held)| self.room(held, now))
            .collect();
        let waiting = self.jobs.waiting_for(terms);
        let requests: Vec<(RequestId, &Job)> = waiting.take(PLAYED_MAX).collect();
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
        if self.jobs.waiting_for(terms).len() > PLAYED_MAX {
            // Others wait than were played through.
            let class = self.leases.class(terms);
            let left = class.map_or_else(Vec::new, |class| class.idle_away().collect());
            self.start_short(terms, left, 0.0, now);
        }
        in_advance
    }

    /// A job begins under a lease in which nothing runs.
    pub(super) fn start(&mut self, request: RequestId, lease: LeaseId, now: Time) {
        let started = self.leases.change(lease, |held| {
            let is_idle = held.is_idle();
            if is_idle {
                held.running = Some(request);
                held.since = now;
            }
            is_idle
        });
        if started == Some(true) {
            self.put(request, lease);
            self.tell_began(request, lease);
        }
    }

    fn send_ahead(&mut self, request: RequestId, lease: LeaseId) {
        let waits = self.jobs.find(request).is_some_and(Job::waits);
        if waits
            && self
                .leases
                .change(lease, |held| held.next = Some(request))
                .is_some()
        {
            self.put(request, lease);
        }
    }

    fn put(&mut self, request: RequestId, lease: LeaseId) {
        self.jobs.dequeue(request);
        let (Some(job), Some(held)) = (self.jobs.find_mut(request), self.leases.find(lease)) else {
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
        let mut ahead: Vec<(f64, RequestId, LeaseId)> = self
            .leases
            .ahead()
            .iter()
            .filter_map(|&id| Some((id, self.leases.find(id)?)))
            .filter_map(|(id, held)| Some((self.left_us(held, now), held.next?, id)))
            .filter(|(_, next, _)| {
                let job = self.jobs.find(*next);
                job.is_some_and(|job| job.recalls < RECALLS_MAX)
            })
            .collect();
        // Those that would wait longest first.
        ahead.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (free_in_us, request, lease) in ahead {
            let (Some(job), Some(held)) = (self.jobs.find(request), self.leases.find(lease)) else {
                continue;
            };
            let Some(class) = self.leases.class(&held.grant.terms) else {
                continue;
            };
            let cost_us = self.cost_of(job);
            let here_us = free_in_us + cost_us * slowness(&held.grant);
            // The fastest come first.
            let better = class
                .idle_away()
                .filter(|id| !expected.contains(id))
                .filter_map(|id| self.leases.find(id))
                .take_while(|there| cost_us * slowness(&there.grant) < here_us)
                .find(|there| {
                    // It travels back in no time: nobody waits for the worker's word. It travels there once.
                    let travel_us = self.foresight.travel_us(there.grant.node);
                    job.may_run_under(there)
                        && travel_us + cost_us * slowness(&there.grant) < here_us
                });
            if let Some(better) = better {
                expected.push(better.grant.lease);
                self.recall(lease);
            }
        }
        expected
    }

    /// Gives up what was sent in advance to a lease.
    pub(super) fn recall(&mut self, lease: LeaseId) {
        let next = self.leases.change(lease, |held| match held.recalled {
            true => None,
            false => {
                held.recalled = held.next.is_some();
                held.next
            }
        });
        let Some(next) = next.flatten() else {
            return;
        };
        let job = self.jobs.find_mut(next);
        let runner = job.and_then(|job| {
            job.recalls += 1;
            job.of
        });
        self.actions
            .push(Action::Recall(runner.unwrap_or(next), lease));
    }

    /// Gives back what is asked back, and what has been idle for long enough.
    fn give_back(&mut self, expected: &[LeaseId], now: Time) {
        let mut going: Vec<LeaseId> = self.leases.spent().iter().copied().collect();
        for (terms, class) in self.leases.classes() {
            if let Some((_, first)) = self.jobs.waiting_for(terms).next() {
                // Mostly the next job would do with any worker.
                let is_choosy = !first.want.except.is_empty() || first.size.memory_mib > 0;
                let idle = class.idle.iter();
                let idle = idle.filter(|(home, ..)| is_choosy || *home != Home::No);
                let idle = idle.map(|&(_, _, id)| id);
                going.extend(idle.filter(|id| !expected.contains(id) && self.is_useless(*id, now)));
            } else {
                let old = class.idle_since.iter();
                let old = old.take_while(|(since, _)| now.since(*since) >= HOLD);
                going.extend(old.map(|&(_, id)| id));
            }
        }
        going.sort_unstable();
        for lease in going {
            let Some(held) = self.leases.remove(lease) else {
                continue;
            };
            // The results that are on their way come without it.
            for landing in held.landing {
                if let Some(job) = self.jobs.find_mut(landing) {
                    job.places.retain(|place| *place != lease);
                }
            }
            if !held.void {
                self.actions.push(Action::Tell(Deal::Return(lease)));
            }
        }
    }

    /// Whether an idle lease is of no use to those who wait: it must not look like room for them. Neither may one
    /// go back at once that was lent for a job which still waits, as far as the scheduler knows: it would be lent
    /// again.
    fn is_useless(&self, id: LeaseId, now: Time) -> bool {
        let Some(held) = self.leases.find(id) else {
            return false;
        };
        let is_for_the_first = held.grant.home == Home::First;
        let is_kept = match self.jobs.lent(held) {
            Some(_) => now.since(held.since) < HOLD,
            None => false,
        };
        let is_wanted =
            (!is_for_the_first || !self.leases.any_busy()) && self.jobs.first_for(held).is_some();
        !is_kept && !is_wanted
    }

    fn room(&self, held: &Held, now: Time) -> Room {
        Room {
            slowness: slowness(&held.grant),
            free_in_us: held.running.map(|_| self.free_in_us(held, now)),
            travel_us: self.foresight.travel_us(held.grant.node),
            takes_next: held.takes_next() && self.foresight.is_far(&held.grant),
        }
    }

    /// When everything that is under a lease will have ended, in microseconds from now.
    fn free_in_us(&self, held: &Held, now: Time) -> f64 {
        let next_us = held.next.map_or(0.0, |next| self.cost_us(next));
        self.left_us(held, now) + next_us * slowness(&held.grant)
    }

    /// When what runs under a lease will have ended, in microseconds from now. A job of known size that is overdue
    /// was expected a little too soon, and is taken to need as long again as it is overdue; one of which nothing is
    /// known, half as long again as it has taken.
    pub(super) fn left_us(&self, held: &Held, now: Time) -> f64 {
        let Some(running) = held.running else {
            return 0.0;
        };
        let expected_us = self.cost_us(running) * slowness(&held.grant);
        let taken_us = now.since(held.since).as_micros() as f64;
        let is_known = |job: &Job| job.size.cost_us > 0;
        let overdue_us = match self.jobs.find(running).is_some_and(is_known) {
            true => taken_us - expected_us + DOUBT_SHARE * expected_us,
            false => taken_us / 2.0,
        };
        (expected_us - taken_us).max(overdue_us)
    }

    /// What a job costs on the reference node, as far as is known, in microseconds.
    pub(super) fn cost_us(&self, request: RequestId) -> f64 {
        let job = self.jobs.find(request);
        job.map_or(self.foresight.mean_cost_us(), |job| self.cost_of(job))
    }

    pub(super) fn cost_of(&self, job: &Job) -> f64 {
        match job.size.cost_us {
            0 => self.foresight.mean_cost_us(),
            known => known as f64,
        }
    }
}
