//! What happened in each of the last seconds: the material of sparklines and rates.
//!
//! A ring of [`SECONDS`] counters. Time moves it on; whatever is counted goes into the present second.

use std::collections::VecDeque;

use crate::id::Time;

/// How many seconds are remembered.
pub const SECONDS: usize = 600;

/// What happened in one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Second {
    /// Jobs that ended on another node than their submitter's.
    pub remote: u32,
    /// Jobs that ran on their submitter's machine, whoever decided it.
    pub local: u32,
    /// Nodes that did not deliver.
    pub failed: u32,
    /// The most jobs that waited.
    pub waiting: u32,
    /// The most slots in use.
    pub busy: u32,
    /// Bytes of output.
    pub output_bytes: u64,
}

/// The last seconds.
#[derive(Clone, Debug, Default)]
pub struct History {
    seconds: VecDeque<Second>,
    /// The number of the last one, since the clock began.
    present: u64,
}

impl History {
    /// The second that `now` lies in.
    pub fn at(&mut self, now: Time) -> &mut Second {
        let number = now.0 / 1_000_000;
        if self.seconds.is_empty() {
            self.present = number;
            self.seconds.push_back(Second::default());
        }
        // What waits and runs goes on when nothing happens.
        let last = self.seconds.back().copied().unwrap_or_default();
        let quiet = Second {
            waiting: last.waiting,
            busy: last.busy,
            ..Second::default()
        };
        let missing = number.saturating_sub(self.present).min(SECONDS as u64);
        for _ in 0..missing {
            self.seconds.push_back(quiet);
            if self.seconds.len() > SECONDS {
                self.seconds.pop_front();
            }
        }
        self.present = self.present.max(number);
        self.seconds.back_mut().expect("there is one")
    }

    /// Notes how much waits and runs now.
    pub fn level(&mut self, waiting: u32, busy: u32, now: Time) {
        let second = self.at(now);
        second.waiting = second.waiting.max(waiting);
        second.busy = second.busy.max(busy);
    }

    /// The last `count` whole seconds, the oldest first, as `of` sees them; zeros before the first.
    pub fn last(&self, count: usize, of: impl Fn(&Second) -> u64) -> Vec<u64> {
        let whole = self.seconds.len().saturating_sub(1);
        let known = self.seconds.iter().take(whole).map(of);
        let known: Vec<u64> = known.skip(whole.saturating_sub(count)).collect();
        let mut all = vec![0; count - known.len()];
        all.extend(known);
        all
    }

    /// The mean over the last `count` whole seconds, or as many as there are.
    pub fn rate(&self, count: usize, of: impl Fn(&Second) -> u64) -> f64 {
        let whole = self.seconds.len().saturating_sub(1).min(count);
        match whole {
            0 => 0.0,
            _ => self.last(whole, of).iter().sum::<u64>() as f64 / whole as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(number: u64) -> Time {
        Time(number * 1_000_000)
    }

    #[test]
    fn each_second_has_its_own_count_and_old_ones_are_forgotten() {
        let mut history = History::default();
        history.at(second(5)).remote += 3;
        history.at(Time(5_999_999)).remote += 1;
        history.at(second(7)).remote += 2;
        history.at(second(8));
        assert_eq!(history.last(5, |s| s.remote.into()), [0, 0, 4, 0, 2]);
        assert_eq!(history.rate(10, |s| s.remote.into()), 2.0);
        history.at(second(8 + 3 * SECONDS as u64));
        let all = history.last(SECONDS, |s| s.remote.into());
        assert_eq!((all.len(), all.iter().sum::<u64>()), (SECONDS, 0));
    }

    #[test]
    fn levels_go_on_when_nothing_happens() {
        let mut history = History::default();
        history.level(4, 9, second(1));
        history.level(2, 9, second(1));
        history.at(second(4));
        assert_eq!(history.last(3, |s| s.waiting.into()), [4, 4, 4]);
        assert_eq!(history.last(3, |s| s.busy.into()), [9, 9, 9]);
    }
}
