//! The leases, each with the jobs that are under it, and what is asked of all of them, kept up with each change
//! so that nobody looks through hundreds of leases at each event. Pure.
//!
//! Every change of a lease goes through [`Leases::change`], which is why the lists agree with the leases. Knows
//! nothing of what a job is.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{LeaseId, NodeId, RequestId, Time};
use crate::message::{Grant, Home, Terms};

/// Results of one lease that may be on their way while the next job runs.
const LANDING_MAX: usize = 2;

/// A lease.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) grant: Grant,
    pub(super) running: Option<RequestId>,
    /// Sent in advance.
    pub(super) next: Option<RequestId>,
    /// Whether the one that was sent in advance is called back.
    pub(super) recalled: bool,
    /// Done on the worker, with results on their way.
    pub(super) landing: Vec<RequestId>,
    /// Since when it runs, or nothing does.
    pub(super) since: Time,
    pub(super) revoked: bool,
    pub(super) void: bool,
}

impl Held {
    /// A lease under which nothing runs yet.
    pub(super) fn new(grant: Grant, now: Time) -> Self {
        Self {
            grant,
            running: None,
            next: None,
            recalled: false,
            landing: Vec::new(),
            since: now,
            revoked: false,
            void: false,
        }
    }

    /// Whether nothing runs or is to run next.
    pub(super) fn is_idle(&self) -> bool {
        self.running.is_none() && self.next.is_none()
    }

    /// Whether nothing of any job is here.
    pub(super) fn is_empty(&self) -> bool {
        self.is_idle() && self.landing.is_empty()
    }

    /// Whether a new job may be put here.
    pub(super) fn is_open(&self) -> bool {
        !self.revoked && !self.void
    }

    /// Whether it is a worker's slot.
    pub(super) fn is_away(&self) -> bool {
        self.grant.home == Home::No
    }

    /// Takes off the job that `is_it`, wherever it is here.
    pub(super) fn leave(
        &mut self,
        is_it: impl Fn(&RequestId) -> bool,
        is_done: bool,
        now: Time,
    ) -> Option<Left> {
        let left = |job| Left {
            job,
            had_begun: true,
            begins_late: false,
            was_recalled: false,
            begins: None,
        };
        if let Some(at) = self.landing.iter().position(&is_it) {
            return Some(left(self.landing.remove(at)));
        }
        if let Some(job) = self.running.take_if(|job| is_it(job)) {
            self.since = now;
            self.running = self.next.take_if(|_| !self.recalled);
            let begins = self.running;
            return Some(Left {
                begins,
                ..left(job)
            });
        }
        let job = self.next.take_if(|job| is_it(job))?;
        if is_done {
            // It has overtaken the result of the one before.
            self.landing.extend(self.running.take());
            self.since = now;
        }
        Some(Left {
            had_begun: false,
            begins_late: is_done,
            was_recalled: std::mem::take(&mut self.recalled),
            ..left(job)
        })
    }

    /// Whether the next job could be sent while one runs.
    pub(super) fn takes_next(&self) -> bool {
        self.running.is_some() && self.next.is_none() && self.landing.len() < LANDING_MAX
    }
}

/// What came of taking a job off its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// The job, by the number by which the scheduler knows it.
    pub(super) job: RequestId,
    /// Whether it was known to run, or to have run.
    pub(super) had_begun: bool,
    /// Whether nobody had said so, and it is done.
    pub(super) begins_late: bool,
    /// Whether it was called back.
    pub(super) was_recalled: bool,
    /// The one that runs now in its place.
    pub(super) begins: Option<RequestId>,
}

/// All leases.
#[derive(Debug, Default)]
pub(super) struct Leases {
    all: BTreeMap<LeaseId, Held>,
    lists: Lists,
}

/// What is asked of all leases.
#[derive(Debug, Default, PartialEq, Eq)]
struct Lists {
    of_node: BTreeMap<NodeId, BTreeSet<LeaseId>>,
    classes: BTreeMap<Terms, Class>,
    /// How many have anything of a job.
    busy: usize,
    idle: usize,
    /// Workers' slots in which something runs.
    running: BTreeSet<LeaseId>,
    /// To which a job was sent in advance that was not called back.
    ahead: BTreeSet<LeaseId>,
    /// Idle, and not to be used any more.
    spent: BTreeSet<LeaseId>,
}

/// The leases of the same terms that new jobs may be put under.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Class {
    /// In which nothing runs: workers' slots first, and of these the fastest first.
    pub(super) idle: BTreeSet<(Home, u32, LeaseId)>,
    /// The same by since when.
    pub(super) idle_since: BTreeSet<(Time, LeaseId)>,
    /// Workers' slots, the fastest first.
    pub(super) away: BTreeSet<(u32, LeaseId)>,
    /// Workers' slots in which something runs, and to which a job could be sent in advance.
    pub(super) takers: BTreeSet<LeaseId>,
}

impl Leases {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn find(&self, id: LeaseId) -> Option<&Held> {
        self.all.get(&id)
    }

    pub(super) fn insert(&mut self, held: Held) {
        let id = held.grant.lease;
        self.remove(id);
        self.lists.add(id, &held);
        let of_node = self.lists.of_node.entry(held.grant.node);
        of_node.or_default().insert(id);
        self.all.insert(id, held);
    }

    pub(super) fn remove(&mut self, id: LeaseId) -> Option<Held> {
        let held = self.all.remove(&id)?;
        self.lists.take(id, &held);
        let node = held.grant.node;
        if let Some(of_node) = self.lists.of_node.get_mut(&node) {
            of_node.remove(&id);
            if of_node.is_empty() {
                self.lists.of_node.remove(&node);
            }
        }
        Some(held)
    }

    /// Changes a lease, though not its number, node or terms.
    pub(super) fn change<T>(
        &mut self,
        id: LeaseId,
        change: impl FnOnce(&mut Held) -> T,
    ) -> Option<T> {
        let held = self.all.get_mut(&id)?;
        self.lists.take(id, held);
        let changed = change(held);
        self.lists.add(id, held);
        Some(changed)
    }

    pub(super) fn ids(&self) -> Vec<LeaseId> {
        self.all.keys().copied().collect()
    }

    pub(super) fn of_node(&self, node: NodeId) -> Vec<LeaseId> {
        let of_node = self.lists.of_node.get(&node);
        of_node.into_iter().flatten().copied().collect()
    }

    /// Those of the same terms that may be used.
    pub(super) fn class(&self, terms: &Terms) -> Option<&Class> {
        self.lists.classes.get(terms)
    }

    pub(super) fn classes(&self) -> impl Iterator<Item = (&Terms, &Class)> {
        self.lists.classes.iter()
    }

    pub(super) fn any_busy(&self) -> bool {
        self.lists.busy > 0
    }

    pub(super) fn any_idle(&self) -> bool {
        self.lists.idle > 0
    }

    /// How slow the fastest idle slot of a worker is, and the most there is if none is idle.
    pub(super) fn fastest_idle(&self) -> u32 {
        let fastest = self.lists.classes.values().filter_map(|class| {
            let (home, slowness_milli, _) = class.idle.first()?;
            (*home == Home::No).then_some(*slowness_milli)
        });
        fastest.min().unwrap_or(u32::MAX)
    }

    /// Workers' slots in which something runs.
    pub(super) fn running(&self) -> &BTreeSet<LeaseId> {
        &self.lists.running
    }

    /// Those to which a job was sent in advance that was not called back.
    pub(super) fn ahead(&self) -> &BTreeSet<LeaseId> {
        &self.lists.ahead
    }

    /// Those in which nothing runs and nothing may run any more.
    pub(super) fn spent(&self) -> &BTreeSet<LeaseId> {
        &self.lists.spent
    }
}

#[cfg(test)]
impl Leases {
    /// Makes all lists anew and compares.
    pub(super) fn assert_listed(&self) {
        let mut lists = Lists::default();
        for (&id, held) in &self.all {
            lists.add(id, held);
            let of_node = lists.of_node.entry(held.grant.node);
            of_node.or_default().insert(id);
        }
        assert_eq!(lists, self.lists);
    }
}

impl Lists {
    fn add(&mut self, id: LeaseId, held: &Held) {
        self.busy += usize::from(!held.is_empty());
        self.idle += usize::from(held.is_idle());
        if held.is_away() && held.running.is_some() {
            self.running.insert(id);
        }
        if held.next.is_some() && !held.recalled {
            self.ahead.insert(id);
        }
        if !held.is_open() {
            if held.is_idle() {
                self.spent.insert(id);
            }
            return;
        }
        let terms = &held.grant.terms;
        if !self.classes.contains_key(terms) {
            self.classes.insert(terms.clone(), Class::default());
        }
        if let Some(class) = self.classes.get_mut(terms) {
            class.add(id, held);
        }
    }

    fn take(&mut self, id: LeaseId, held: &Held) {
        self.busy -= usize::from(!held.is_empty());
        self.idle -= usize::from(held.is_idle());
        self.running.remove(&id);
        self.ahead.remove(&id);
        self.spent.remove(&id);
        if let Some(class) = self.classes.get_mut(&held.grant.terms) {
            class.take(id, held);
            if class.idle.is_empty() && class.away.is_empty() {
                self.classes.remove(&held.grant.terms);
            }
        }
    }
}

impl Class {
    fn add(&mut self, id: LeaseId, held: &Held) {
        let slowness_milli = held.grant.slowness_milli;
        if held.is_idle() {
            self.idle.insert((held.grant.home, slowness_milli, id));
            self.idle_since.insert((held.since, id));
        }
        if held.is_away() {
            self.away.insert((slowness_milli, id));
            if held.takes_next() {
                self.takers.insert(id);
            }
        }
    }

    fn take(&mut self, id: LeaseId, held: &Held) {
        let slowness_milli = held.grant.slowness_milli;
        self.idle.remove(&(held.grant.home, slowness_milli, id));
        self.idle_since.remove(&(held.since, id));
        self.away.remove(&(slowness_milli, id));
        self.takers.remove(&id);
    }

    /// The idle leases of workers, the fastest first.
    pub(super) fn idle_away(&self) -> impl Iterator<Item = LeaseId> {
        let idle = self.idle.iter();
        idle.take_while(|(home, ..)| *home == Home::No)
            .map(|&(_, _, id)| id)
    }

    /// The idle slots of the own machine that are lent for this.
    pub(super) fn idle_at_home(&self, home: Home) -> impl Iterator<Item = LeaseId> {
        let idle = self.idle.iter().rev();
        idle.filter(move |(of, ..)| *of == home)
            .take_while(|(of, ..)| *of != Home::No)
            .map(|&(_, _, id)| id)
    }
}
