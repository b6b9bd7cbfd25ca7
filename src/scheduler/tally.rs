//! What became of all jobs, in numbers that only grow.
//!
//! Counted where it happens, by [`super::chronicle`], whether anybody looks on or not: news may be left out for
//! a reader that is too slow, and a count must not lack them. Bounded, whatever happens: by the outcomes and
//! buckets named here and by [`REASONS_MAX`].

use std::collections::BTreeMap;
use std::time::Duration;

use crate::news::{Ending, OTHER_REASONS, OUTCOMES, REASONS_MAX, Totals};

/// Upper bounds of the histograms' buckets, in milliseconds: a small C file to a large C++ one.
pub const BUCKETS_MS: [u64; 13] = [
    10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000,
];

/// All counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// Jobs that asked for a slot, by how they ended, in the order of [`OUTCOMES`].
    pub outcomes: [u64; OUTCOMES.len()],
    /// Jobs that ran on their own machine without asking, by reason.
    pub local: BTreeMap<String, u64>,
    /// From the request of a slot to the job's start in it.
    pub waited: Histogram,
    /// From the start of the compiler to its end, on a worker.
    pub compiled: Histogram,
    /// What a worker spent on a job's files and sandbox.
    pub set_up: Histogram,
    /// Processor time of compilers on workers, in microseconds.
    pub cpu_us: u64,
    /// Output of jobs that came from workers.
    pub output_bytes: u64,
}

impl Tally {
    /// A job started in its slot, so long after its request.
    pub fn started(&mut self, waited: Duration) {
        self.waited.observe(waited);
    }

    /// A job ended; `is_own` says that it was on its submitter's machine.
    pub fn ended(&mut self, ending: &Ending, is_own: bool) {
        let outcome = match ending {
            Ending::Done { .. } if is_own => Ending::Own.number(),
            ending => ending.number(),
        };
        if let Ending::Done {
            usage,
            output_bytes,
        } = ending
            && !is_own
        {
            self.compiled.observe(Duration::from_micros(usage.wall_us));
            self.set_up.observe(Duration::from_micros(usage.setup_us));
            self.cpu_us = self.cpu_us.saturating_add(usage.cpu_us);
            self.output_bytes = self.output_bytes.saturating_add(*output_bytes);
        }
        self.outcomes[outcome] += 1;
    }

    /// So many jobs ran locally for this reason. When there are too many reasons, those that are new share
    /// one.
    pub fn local(&mut self, reason: &str, jobs: u64) {
        if let Some(count) = self.local.get_mut(reason) {
            *count = count.saturating_add(jobs);
            return;
        }
        let reason = match self.local.len() >= REASONS_MAX {
            true => OTHER_REASONS,
            false => reason,
        };
        let count = self.local.entry(reason.to_owned()).or_default();
        *count = count.saturating_add(jobs);
    }

    /// Counts all that another has counted.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.outcomes.iter_mut().zip(other.outcomes) {
            *count += more;
        }
        for (reason, jobs) in &other.local {
            self.local(reason, *jobs);
        }
        self.waited.add(&other.waited);
        self.compiled.add(&other.compiled);
        self.set_up.add(&other.set_up);
        self.cpu_us = self.cpu_us.saturating_add(other.cpu_us);
        self.output_bytes = self.output_bytes.saturating_add(other.output_bytes);
    }

    /// The same in fewer words.
    pub fn totals(&self) -> Totals {
        let [done, own, _, failed, dead, ..] = self.outcomes;
        let local = self.local.iter();
        Totals {
            remote: done,
            own,
            failed: failed + dead,
            remote_cpu_us: self.cpu_us,
            output_bytes: self.output_bytes,
            local: local.map(|(word, &count)| (word.clone(), count)).collect(),
        }
    }
}

/// How often something took how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// By bucket, those beyond the last bound at the end.
    pub counts: [u64; BUCKETS_MS.len() + 1],
    /// All together.
    pub sum: Duration,
}

impl Histogram {
    /// It took so long once more. A bound belongs to its bucket.
    pub fn observe(&mut self, took: Duration) {
        let bucket = BUCKETS_MS.partition_point(|&bound| Duration::from_millis(bound) < took);
        self.counts[bucket] += 1;
        self.sum = self.sum.saturating_add(took);
    }

    fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum = self.sum.saturating_add(other.sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Failure, Usage};

    fn done(wall_ms: u64) -> Ending {
        Ending::Done {
            usage: Usage {
                cpu_us: 1_250_000,
                wall_us: wall_ms * 1000,
                ..Usage::default()
            },
            output_bytes: 1000,
        }
    }

    #[test]
    fn each_ending_is_counted_as_its_outcome() {
        let failed = |dead| Ending::Failed {
            failure: Failure::Memory,
            dead,
        };
        let endings = [
            done(10),
            Ending::Own,
            Ending::Unused,
            failed(false),
            failed(true),
            Ending::Lost,
            Ending::Withdrawn,
            Ending::Denied("no node".into()),
        ];
        for (at, ending) in endings.into_iter().enumerate() {
            let mut tally = Tally::default();
            tally.ended(&ending, false);
            let mut expected = [0; OUTCOMES.len()];
            expected[at] = 1;
            assert_eq!(tally.outcomes, expected, "{}", OUTCOMES[at]);
        }
        let mut tally = Tally::default();
        tally.ended(&done(10), true);
        assert_eq!((tally.totals().own, tally.cpu_us), (1, 0));
    }

    #[test]
    fn what_was_counted_apart_is_the_same_together() {
        let (mut one, mut other, mut all) = (Tally::default(), Tally::default(), Tally::default());
        for (number, wall_ms) in [10, 11, 400_000, 2500].into_iter().enumerate() {
            let reason = format!("reason-{}", number / 2);
            let part = match number % 2 {
                0 => &mut one,
                _ => &mut other,
            };
            for tally in [part, &mut all] {
                tally.started(Duration::from_millis(wall_ms));
                tally.ended(&done(wall_ms), false);
                tally.local(&reason, 3);
            }
        }
        one.add(&other);
        assert_eq!(one, all);
        assert_eq!(all.compiled.counts[..2], [1, 1]);
        assert_eq!(all.compiled.counts[BUCKETS_MS.len()], 1);
        assert_eq!(all.cpu_us, 5_000_000);
    }

    #[test]
    fn reasons_are_bounded_and_none_is_lost() {
        let mut tally = Tally::default();
        for number in 0..2000 {
            tally.local(&format!("reason-{number}"), 2);
        }
        assert_eq!(tally.local.len(), REASONS_MAX + 1);
        assert_eq!(tally.local.values().sum::<u64>(), 4000);
    }
}
