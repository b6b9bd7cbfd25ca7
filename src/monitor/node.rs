//! A node as the monitor remembers it: its picture, its slots as rows, and what it did so far.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use crate::id::Time;
use crate::monitor::job::{Live, Past};
use crate::news::{Ending, JobNumber, NodePicture, OTHER_REASONS, REASONS_MAX};

/// Jobs that ended which are remembered with their nodes, at most, about: each node has an equal part.
pub const PAST_MAX: usize = 40_000;
/// A node's part is not larger than this.
const PAST_OF_NODE_MAX: usize = 2000;
/// Rows for one node, at most; jobs beyond share the last.
const LANES_MAX: usize = 4096;

/// A node and its history. Counts begin when the monitor first saw it, and outlive a scheduler.
#[derive(Clone, Debug)]
pub struct NodeRow {
    /// What the scheduler says of it; names are printable.
    pub picture: NodePicture,
    /// Since when the monitor knows it.
    pub since: Time,
    /// Its jobs of the moment by slot: a job keeps its row while it runs.
    pub lanes: Vec<Option<JobNumber>>,
    /// The jobs that ended on it, the oldest first.
    pub past: VecDeque<Rc<Past>>,
    /// Jobs of others that run on it.
    pub guests: u32,
    /// Jobs of its own that run on it under a lease.
    pub own: u32,
    /// Jobs of its own that run elsewhere.
    pub away: u32,
    /// Jobs of its own that wait for a slot.
    pub waiting: u32,
    /// Jobs that it compiled for others.
    pub done_in: u64,
    /// Jobs of its own that others compiled.
    pub done_out: u64,
    /// Jobs of its own that ran here.
    pub done_here: u64,
    /// Jobs that it did not deliver.
    pub failures: u64,
    /// Why its own jobs ran here without asking; at most [`REASONS_MAX`] and [`OTHER_REASONS`].
    pub reasons: BTreeMap<Rc<str>, u64>,
    /// Processor time that it spent on jobs of others, in microseconds.
    pub cpu_in_us: u64,
    /// Processor time that others spent on jobs of its own, in microseconds.
    pub cpu_out_us: u64,
}

impl NodeRow {
    /// A node that nothing is known of but this.
    pub fn new(picture: NodePicture, now: Time) -> Self {
        Self {
            picture,
            since: now,
            lanes: Vec::new(),
            past: VecDeque::new(),
            guests: 0,
            own: 0,
            away: 0,
            waiting: 0,
            done_in: 0,
            done_out: 0,
            done_here: 0,
            failures: 0,
            reasons: BTreeMap::new(),
            cpu_in_us: 0,
            cpu_out_us: 0,
        }
    }

    /// Whether it compiles for others.
    pub fn takes_jobs(&self) -> bool {
        self.picture.slots > 0
            && self.picture.no_remote.is_none()
            && !self.picture.is_blocked
            && !self.picture.address.ends_with(":0")
    }

    /// Local jobs that hold a slot: those under a lease are among those that it reports.
    pub fn local(&self) -> u32 {
        self.own.max(self.picture.local_jobs)
    }

    /// Slots in use.
    pub fn busy(&self) -> u32 {
        self.guests.saturating_add(self.local())
    }

    /// Forgets the jobs of the moment: a new snapshot names them anew.
    pub fn forget_jobs(&mut self) {
        self.lanes.clear();
        (self.guests, self.own, self.away, self.waiting) = (0, 0, 0, 0);
    }

    /// A job starts here: the first free row.
    pub fn occupy(&mut self, job: JobNumber) -> u16 {
        let free = self.lanes.iter().position(Option::is_none);
        let lane = free.unwrap_or_else(|| {
            if self.lanes.len() < LANES_MAX {
                self.lanes.push(None);
            }
            self.lanes.len() - 1
        });
        self.lanes[lane] = Some(job);
        lane as u16
    }

    /// A job ends here.
    pub fn vacate(&mut self, job: &Live) {
        if let Some(lane) = self.lanes.get_mut(usize::from(job.lane))
            && *lane == Some(job.number)
        {
            *lane = None;
        }
    }

    /// Remembers a job that ended here, as one of `nodes` nodes.
    pub fn remember(&mut self, past: Rc<Past>, nodes: usize) {
        if matches!(past.ending, Ending::Unused | Ending::Withdrawn) {
            return;
        }
        let most = (PAST_MAX / nodes.max(1)).clamp(1, PAST_OF_NODE_MAX);
        while self.past.len() >= most {
            self.past.pop_front();
        }
        self.past.push_back(past);
    }

    /// Counts jobs of its own that ran here without asking.
    pub fn note_local(&mut self, reason: &Rc<str>, jobs: u32) {
        self.done_here += u64::from(jobs);
        add_reason(&mut self.reasons, reason, jobs.into());
    }
}

/// Adds to the count of a reason, within the bound on different reasons.
pub fn add_reason(reasons: &mut BTreeMap<Rc<str>, u64>, reason: &Rc<str>, jobs: u64) {
    let is_known = reasons.contains_key(reason);
    let counted = match is_known || reasons.len() < REASONS_MAX {
        true => reason.clone(),
        false => OTHER_REASONS.into(),
    };
    let count = reasons.entry(counted).or_default();
    *count = count.saturating_add(jobs);
}
