//! Second starts: a job that lags, while nothing waits, is begun a second time elsewhere. Pure.
//!
//! Either an idle lease promises to end it clearly sooner, or it takes so much longer than it should that its
//! worker seems lost; then the scheduler is asked for another. Bounded: one second start for a job, and few at a
//! time.

use std::time::Duration;

use super::foresight::slowness;
use super::held::Held;
use super::state::Holdings;
use super::waiting::Job;
use crate::id::{LeaseId, RequestId, Time};
use crate::message::OwnNode;

/// A second start must promise to end so much earlier: by this factor, and this long.
const SECOND_FACTOR: f64 = 1.25;
const SECOND_MARGIN_US: f64 = 200_000.0;
/// A job is lost rather than slow when it has taken so many times what was expected, and so long.
const LOST_FACTOR: f64 = 3.0;
const LOST_MARGIN_US: f64 = 2_000_000.0;
/// One of so many leases may be used for second starts at a time, and one in any case.
const SECONDS_SHARE: usize = 4;
/// All that runs is looked at no more often than this, unless a faster lease is idle than last time.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

impl Holdings {
    /// Starts a second time what lags, while nothing else waits.
    pub(super) fn start_seconds(&mut self, now: Time) {
        let fastest_idle = self.leases.fastest_idle();
        let is_due = now.since(self.looked_at) >= LOOK_PAUSE || fastest_idle < self.looked_for;
        self.looked_for = match is_due {
            true => fastest_idle,
            // When that one is gone, the next like it is worth a look.
            false => self.looked_for.max(fastest_idle),
        };
        if !is_due {
            return;
        }
        self.looked_at = now;
        let seconds_max = (self.leases.len() / SECONDS_SHARE).max(1);
        let mut left = seconds_max.saturating_sub(self.jobs.seconds());
        if left == 0 {
            return;
        }
        let lagging: Vec<(RequestId, LeaseId)> = self
            .leases
            .running()
            .iter()
            .filter_map(|&id| Some((self.leases.find(id)?.running?, id)))
            .collect();
        for (request, lease) in lagging {
            if left == 0 {
                return;
            }
            let (Some(job), Some(held)) = (self.jobs.find(request), self.leases.find(lease)) else {
                continue;
            };
            if job.of.is_some() || job.second.is_some() || job.alone || job.gone {
                continue;
            }
            let sooner = self.sooner(job, held, now);
            if sooner.is_none() && !self.is_lost(job, held, now) {
                continue;
            }
            let mut want = job.want.clone();
            if !held.void {
                want.except.push(held.grant.node);
            }
            want.own = OwnNode::Nothing;
            let second = self.add(want, Some(request), now);
            if let Some(job) = self.jobs.find_mut(request) {
                job.second = Some(second);
            }
            left -= 1;
            if let Some(idle) = sooner {
                self.start(second, idle, now);
            }
        }
    }

    /// The idle lease under which what runs would end clearly sooner.
    fn sooner(&self, job: &Job, held: &Held, now: Time) -> Option<LeaseId> {
        let left_us = self.left_us(held, now);
        let cost_us = self.cost_of(job);
        let is_sooner = |there_us: f64| there_us * SECOND_FACTOR + SECOND_MARGIN_US < left_us;
        let class = self.leases.class(&job.want.terms)?;
        // The fastest come first.
        let idle = class
            .idle_away()
            .filter_map(|id| self.leases.find(id))
            .take_while(|other| is_sooner(cost_us * slowness(&other.grant)))
            .find(|other| {
                let travel_us = self.foresight.travel_us(other.grant.node);
                other.grant.node != held.grant.node
                    && job.may_run_under(other)
                    && is_sooner(cost_us * slowness(&other.grant) + travel_us)
            });
        idle.map(|other| other.grant.lease)
    }

    fn is_lost(&self, job: &Job, held: &Held, now: Time) -> bool {
        let taken_us = now.since(held.since).as_micros() as f64;
        let expected_us = self.cost_of(job) * slowness(&held.grant);
        taken_us > LOST_FACTOR * expected_us && taken_us > expected_us + LOST_MARGIN_US
    }
}
