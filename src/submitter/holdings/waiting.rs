//! The jobs, and those of them that wait, in the order in which they are to begin. Pure.
//!
//! Knows which lease a job may use, and nothing of what goes where.

use std::collections::{BTreeMap, BTreeSet};

use super::held::Held;
use crate::id::{LeaseId, RequestId, Time};
use crate::message::{Home, OwnNode, Size, Terms, Want};

/// Jobs that are tried for a lease for their length, at most: mostly the first may have it.
const LOOKED_AT: usize = 64;

/// A job.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) want: Want,
    pub(super) size: Size,
    /// Its place among those that wait, if it is one of them.
    turn: Option<i64>,
    /// The leases under which it runs or is to run next.
    pub(super) places: Vec<LeaseId>,
    /// The job of which it is the second start.
    pub(super) of: Option<RequestId>,
    /// Its second start.
    pub(super) second: Option<RequestId>,
    /// When it came.
    pub(super) since: Time,
    /// How often it was called back.
    pub(super) recalls: u32,
    /// No second start is to be had for it.
    pub(super) alone: bool,
    /// The scheduler knows that it runs, or has run.
    pub(super) begun: bool,
    /// Nobody wants it any more.
    pub(super) gone: bool,
}

impl Job {
    /// Whether it may run under a lease.
    pub(super) fn may_run_under(&self, held: &Held) -> bool {
        let available = held.grant.memory_mib;
        let fits = available == 0 || self.size.memory_mib <= available;
        let at_home = held.is_away() || self.want.own == OwnNode::Locally;
        self.is_lent(held) || fits && at_home && !self.want.except.contains(&held.grant.node)
    }

    /// Whether a lease was lent for this very job. Then it is for it, whatever is thought here: the scheduler may
    /// have lent the largest node that there is, or have numbered its nodes anew. Were that refused, it would
    /// lend it again at once.
    pub(super) fn is_lent(&self, held: &Held) -> bool {
        held.grant.request == self.want.request
    }

    /// Whether it waits for a lease.
    pub(super) fn waits(&self) -> bool {
        self.turn.is_some()
    }

    /// Whether it neither waits nor is anywhere.
    pub(super) fn is_nowhere(&self) -> bool {
        self.places.is_empty() && self.turn.is_none()
    }
}

/// All jobs.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    requests: u64,
    all: BTreeMap<RequestId, Job>,
    /// Jobs without a place, the next first. One that arrived earlier goes before, and so does one that
    /// takes longer.
    waiting: BTreeMap<Terms, Line>,
    /// How many are second starts.
    seconds: usize,
}

/// The jobs of the same terms that wait.
#[derive(Debug, Default)]
struct Line {
    turns: BTreeSet<(i64, RequestId)>,
    /// Those of known cost, in microseconds, the shortest first, and what they cost together.
    by_cost: BTreeSet<(u64, RequestId)>,
    known_us: u64,
    /// The others, in the order in which they came.
    unknown: BTreeSet<RequestId>,
}

impl Line {
    fn count(&mut self, request: RequestId, cost_us: u64) {
        match cost_us {
            0 => _ = self.unknown.insert(request),
            _ => _ = self.by_cost.insert((cost_us, request)),
        }
        self.known_us += cost_us;
    }

    fn discount(&mut self, request: RequestId, cost_us: u64) {
        match cost_us {
            0 => _ = self.unknown.remove(&request),
            _ => _ = self.by_cost.remove(&(cost_us, request)),
        }
        self.known_us -= cost_us;
    }
}

impl Jobs {
    /// Adds a job, which does not wait yet, and gives it its number.
    pub(super) fn add(&mut self, mut want: Want, of: Option<RequestId>, now: Time) -> RequestId {
        let request = RequestId(self.requests);
        self.requests += 1;
        want.request = request;
        let size = of.and_then(|of| self.all.get(&of)).map(|job| job.size);
        self.seconds += usize::from(of.is_some());
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
        self.all.insert(request, job);
        request
    }

    /// The one that came last, if any did.
    pub(super) fn last(&self) -> Option<RequestId> {
        self.requests.checked_sub(1).map(RequestId)
    }

    pub(super) fn remove(&mut self, request: RequestId) -> Option<Job> {
        self.dequeue(request);
        let job = self.all.remove(&request)?;
        self.seconds -= usize::from(job.of.is_some());
        Some(job)
    }

    pub(super) fn find(&self, request: RequestId) -> Option<&Job> {
        self.all.get(&request)
    }

    pub(super) fn find_mut(&mut self, request: RequestId) -> Option<&mut Job> {
        self.all.get_mut(&request)
    }

    /// Whether `told`, as the scheduler knows it, is a start of what its runner calls `request`.
    pub(super) fn is_it(&self, told: RequestId, request: RequestId) -> bool {
        told == request || self.find(told).is_some_and(|job| job.of == Some(request))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Job> {
        self.all.values_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// How many are second starts.
    pub(super) fn seconds(&self) -> usize {
        self.seconds
    }

    /// A job waits from `now` on, and takes `cost_us`.
    pub(super) fn enqueue(&mut self, request: RequestId, cost_us: f64, now: Time) {
        self.dequeue(request);
        if let Some(job) = self.all.get_mut(&request) {
            let turn = now.0 as i64 - cost_us as i64;
            job.turn = Some(turn);
            let line = self.waiting.entry(job.want.terms.clone()).or_default();
            line.turns.insert((turn, request));
            line.count(request, job.size.cost_us);
        }
    }

    /// A job waits no longer.
    pub(super) fn dequeue(&mut self, request: RequestId) {
        let Some(job) = self.all.get_mut(&request) else {
            return;
        };
        if let Some(turn) = job.turn.take()
            && let Some(line) = self.waiting.get_mut(&job.want.terms)
        {
            line.turns.remove(&(turn, request));
            line.discount(request, job.size.cost_us);
            if line.turns.is_empty() {
                self.waiting.remove(&job.want.terms);
            }
        }
    }

    /// For which leases jobs wait.
    pub(super) fn terms(&self) -> Vec<Terms> {
        self.waiting.keys().cloned().collect()
    }

    pub(super) fn any_waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn any_waits_for(&self, terms: &Terms) -> bool {
        self.waiting.contains_key(terms)
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.values().map(|line| line.turns.len()).sum()
    }

    /// What those that wait for such a lease cost together, if one of which nothing is known costs so much, in
    /// reference microseconds.
    pub(super) fn work_us(&self, terms: &Terms, unknown_us: f64) -> f64 {
        self.waiting.get(terms).map_or(0.0, |line| {
            line.known_us as f64 + line.unknown.len() as f64 * unknown_us
        })
    }

    /// Of those that wait for a lease and may have it, the longest of known cost that costs no more than this.
    pub(super) fn longest_within(&self, held: &Held, cost_us: f64) -> Option<RequestId> {
        let line = self.waiting.get(&held.grant.terms)?;
        let within = line
            .by_cost
            .range(..((cost_us.max(0.0) as u64).saturating_add(1), RequestId(0)));
        self.first_that_may(within.rev().map(|&(_, request)| request), held)
    }

    /// The shortest of known cost.
    pub(super) fn shortest(&self, held: &Held) -> Option<RequestId> {
        let line = self.waiting.get(&held.grant.terms)?;
        self.first_that_may(line.by_cost.iter().map(|&(_, request)| request), held)
    }

    /// The first of unknown cost that has waited since then.
    pub(super) fn first_unknown(&self, held: &Held, since: Time) -> Option<RequestId> {
        let line = self.waiting.get(&held.grant.terms)?;
        let old = line.unknown.iter().copied();
        let old = old.take_while(|request| self.all[request].since <= since);
        self.first_that_may(old, held)
    }

    fn first_that_may(
        &self,
        requests: impl Iterator<Item = RequestId>,
        held: &Held,
    ) -> Option<RequestId> {
        requests
            .take(LOOKED_AT)
            .find(|request| self.all[request].may_run_under(held))
    }

    /// A job is of such a size. Whether it has waited: then it is to be enqueued anew, since its turn depends on it.
    pub(super) fn learn_size(&mut self, request: RequestId, size: Size) -> bool {
        let has_waited = self.find(request).is_some_and(Job::waits);
        self.dequeue(request);
        if let Some(job) = self.all.get_mut(&request) {
            job.size = size;
        }
        has_waited
    }

    /// Those that wait for such a lease, the next first.
    pub(super) fn waiting_for(
        &self,
        terms: &Terms,
    ) -> impl DoubleEndedIterator<Item = (RequestId, &Job)> + ExactSizeIterator {
        static NOBODY: BTreeSet<(i64, RequestId)> = BTreeSet::new();
        let turns = self.waiting.get(terms).map_or(&NOBODY, |line| &line.turns);
        turns
            .iter()
            .map(|&(_, request)| (request, &self.all[&request]))
    }

    /// The first of the jobs that wait which may use a lease.
    pub(super) fn first_for(&self, held: &Held) -> Option<RequestId> {
        self.waiting_for(&held.grant.terms)
            .find(|(_, job)| job.may_run_under(held))
            .map(|(request, _)| request)
    }

    /// The job for which a lease was lent, if it still waits, be it at another worker.
    pub(super) fn lent(&self, held: &Held) -> Option<RequestId> {
        let request = held.grant.request;
        let job = self.all.get(&request)?;
        (!job.begun && held.grant.terms == job.want.terms).then_some(request)
    }

    /// The job for which a first slot at home was lent, if it is to run there though something else runs: the
    /// scheduler does not know of that, and would lend the slot again.
    pub(super) fn due_at_home(&self, held: &Held) -> Option<RequestId> {
        let request = self.lent(held).filter(|_| held.grant.home == Home::First)?;
        self.all[&request].waits().then_some(request)
    }
}
