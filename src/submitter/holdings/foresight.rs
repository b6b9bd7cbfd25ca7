//! What is expected: how long jobs take and how far nodes are. Pure.
//!
//! Only what the scheduler does not tell with a lease or a job: the mean of the jobs that were seen, for those of
//! which nothing is known, and the way to each node, which only this machine can measure.

use crate::id::NodeId;
use crate::message::Grant;
use crate::submitter::ways::Ways;

/// Jobs are sent in advance where the way there and back is at least this share of their time.
const TRAVEL_SHARE: f64 = 0.02;
/// What a job takes as long as nothing is known, in microseconds, and how much one job changes that.
const COST_UNKNOWN_US: f64 = 500_000.0;
const GAIN: f64 = 0.1;

/// Costs and distances.
#[derive(Debug)]
pub(super) struct Foresight {
    mean_cost_us: f64,
    /// From how many jobs that is known.
    costs_known: u64,
    /// The way to each node, which only this machine can measure.
    pub(super) ways: Ways,
}

impl Default for Foresight {
    fn default() -> Self {
        Self {
            mean_cost_us: COST_UNKNOWN_US,
            costs_known: 0,
            ways: Ways::default(),
        }
    }
}

impl Foresight {
    /// What a job takes on the reference node, if nothing else is known of it, in microseconds.
    pub(super) fn mean_cost_us(&self) -> f64 {
        self.mean_cost_us
    }

    /// A job costs so much, which the next of which nothing is known may do, too.
    pub(super) fn learn_cost(&mut self, cost_us: f64) {
        self.costs_known += 1;
        // Of the first few the mean, then of the last few.
        let gain = GAIN.max(1.0 / self.costs_known as f64);
        self.mean_cost_us += gain * (cost_us - self.mean_cost_us);
    }

    /// The way to a node and back, in microseconds.
    pub(super) fn travel_us(&self, node: NodeId) -> f64 {
        self.ways.travel_us(node)
    }

    /// Whether the way to any node is long.
    pub(super) fn any_far(&self) -> bool {
        self.ways.longest_us() >= TRAVEL_SHARE * self.mean_cost_us
    }

    /// Whether the way to the node of a lease is long, for the jobs that it takes.
    pub(super) fn is_far(&self, grant: &Grant) -> bool {
        self.travel_us(grant.node) >= TRAVEL_SHARE * self.mean_cost_us * slowness(grant)
    }
}

/// How many times longer than on the reference node a job takes under a lease.
pub(super) fn slowness(grant: &Grant) -> f64 {
    f64::from(grant.slowness_milli.max(1)) / 1000.0
}
